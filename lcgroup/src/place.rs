//! The place of a group's folder: another one shows that the folder was copied, moved or put back.
//!
//! Such a folder may be older than what was said from it. Its host learns this from any other host
//! of the group, and so says nothing before it has received one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use librecast::durable;

/// The file in the folder.
const FILE: &str = "place";

/// Inode and birth of a folder: a copy has others, and a reboot or a rename keeps both.
fn place_of(folder: &Path) -> io::Result<String> {
    let metadata = folder.metadata()?;
    // not all file systems keep it
    let birth = metadata.created().ok();
    let birth = birth.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let birth = birth.map_or(0, |birth| birth.as_nanos());
    Ok(format!("{} {birth}\n", metadata.ino()))
}

/// Writes the place of a folder.
pub fn write(folder: &Path) -> io::Result<()> {
    durable::replace(&folder.join(FILE), place_of(folder)?.as_bytes())
}

/// Whether the folder was written at another place. A folder without one gets this one: its host
/// broke off while it made the folder.
pub fn is_another(folder: &Path) -> io::Result<bool> {
    match std::fs::read(folder.join(FILE)) {
        Ok(known) => Ok(known != place_of(folder)?.as_bytes()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // a full disk keeps no group from being opened
            if let Err(e) = write(folder) {
                tracing::warn!("{}: {e}", folder.display());
            }
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_is_seen_and_a_renamed_folder_is_the_same() {
        let all = tempfile::tempdir().unwrap();
        let [one, copy, renamed] = ["one", "copy", "renamed"].map(|name| all.path().join(name));
        for folder in [&one, &copy] {
            fs::create_dir(folder).unwrap();
        }
        assert!(!is_another(&one).unwrap() && !is_another(&one).unwrap());
        fs::copy(one.join(FILE), copy.join(FILE)).unwrap();
        assert!(is_another(&copy).unwrap() && is_another(&copy).unwrap());
        fs::rename(&one, &renamed).unwrap();
        assert!(!is_another(&renamed).unwrap());
        fs::write(copy.join(FILE), [0xff; 9]).unwrap();
        assert!(is_another(&copy).unwrap(), "a damaged one");
        write(&copy).unwrap();
        assert!(!is_another(&copy).unwrap());
    }
}
