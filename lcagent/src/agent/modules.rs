//! Modules: executables in a folder of the node, called by name (`@NAME`). Write access to one
//! means running anything, so only root or the agent's own user may have it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Default folder.
pub const DEFAULT_FOLDER: &str = "/etc/lcagent/modules";
/// Longest name of a module, in bytes.
const MAX_NAME: usize = 64;
/// Most names in the facts.
const MAX_NAMES: usize = 64;

/// Returns the module `name` in `folder`, or why it is none.
pub fn find(folder: &Path, name: &str) -> io::Result<PathBuf> {
    if !is_name(name) {
        return Err(io::Error::other(format!(
            "{name:?} cannot be a module's name: letters, digits and -_., at most {MAX_NAME}"
        )));
    }
    let explain =
        |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let meta = fs::metadata(folder).map_err(|e| explain(folder, e))?;
    check(&meta).map_err(|e| explain(folder, e))?;
    let path = folder.join(name);
    // no link: it could lead anywhere
    let meta = fs::symlink_metadata(&path).map_err(|e| explain(&path, e))?;
    let wrong = if !meta.is_file() {
        Err(io::Error::other("is no regular file"))
    } else if meta.permissions().mode() & 0o111 == 0 {
        Err(io::Error::other("is not executable"))
    } else {
        check(&meta)
    };
    wrong.map_err(|e| explain(&path, e))?;
    Ok(path)
}

/// Returns the names of all modules in `folder`, sorted.
#[must_use]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| find(folder, name).is_ok())
        .collect();
    names.sort();
    names.truncate(MAX_NAMES);
    names
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

fn check(meta: &Metadata) -> io::Result<()> {
    let me = nix::unistd::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != me {
        return Err(io::Error::other("belongs to another user"));
    }
    if meta.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(folder: &Path, name: &str, mode: u32) {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_nobody_else_can_change_is_a_module() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("modules");
        fs::create_dir(&folder).unwrap();
        let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        put(&folder, "deploy", 0o755);
        put(&folder, "plain", 0o644);
        put(&folder, "shared", 0o775);
        put(&folder, "open", 0o757);
        put(dir.path(), "outside", 0o755);
        symlink("../outside", folder.join("link")).unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
        assert_eq!(find(&folder, "deploy").unwrap(), folder.join("deploy"));
        for bad in [
            "plain",
            "shared",
            "open",
            "link",
            "folder",
            "missing",
            "",
            ".",
            "..",
            "../outside",
            "a/b",
            "/bin/sh",
            "a\0b",
            ".hidden",
        ] {
            assert!(find(&folder, bad).is_err(), "{bad}");
        }
        assert_eq!(names(&folder), ["deploy"]);
        mode(0o777);
        assert!(
            find(&folder, "deploy").is_err(),
            "anybody could put one there"
        );
        assert!(names(Path::new("/nonexistent")).is_empty());
    }
}
