//! Files of secrets: mode 0600, never overwritten. A file that other users can read is refused.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::durable::sync_folder_of;
use crate::id::{IdError, SecretKey};

impl SecretKey {
    /// Reads the seed (32 bytes) from a key file.
    ///
    /// # Errors
    /// As [`read`], and [`IdError::NotAKeyFile`] for another length.
    pub fn load(path: &Path) -> Result<Self, IdError> {
        let bytes = read(path, 64)?;
        let seed: &[u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| IdError::NotAKeyFile(path.display().to_string()))?;
        Ok(Self::from_seed(seed))
    }

    /// Writes the seed (32 bytes) to a new key file.
    pub fn store(&self, path: &Path) -> Result<(), IdError> {
        create(path, self.seed().as_slice())
    }
}

/// Returns whether a service manager provided it: an access list may then appear as group rights.
fn is_credential(path: &Path) -> bool {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
    folder.is_some_and(|folder| path.parent() == Some(Path::new(&folder)))
}

/// Reads up to `most` bytes of the file.
///
/// # Errors
/// [`IdError::Permissions`] if other users have rights, [`IdError::Io`] if the system fails.
pub fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, IdError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let metadata = file.metadata().map_err(|e| io_error(path, e))?;
    let mode = metadata.permissions().mode() & 0o777;
    let others = if is_credential(path) { 0o037 } else { 0o077 };
    if mode & others != 0 {
        let path = path.display().to_string();
        return Err(IdError::Permissions { path, mode });
    }
    // allocated at once: a growing buffer leaves copies behind
    let mut bytes = Zeroizing::new(Vec::with_capacity(most as usize + 1));
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|e| io_error(path, e))?;
    Ok(bytes)
}

/// Writes a new file with mode 0600, durably.
///
/// # Errors
/// [`IdError::Io`] if the file exists or the system refuses.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), IdError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(path);
    file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_folder_of(path)
    })
    .map_err(|e| io_error(path, e))
}

fn io_error(path: &Path, source: io::Error) -> IdError {
    let path = path.display().to_string();
    IdError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let key = SecretKey::generate();
        key.store(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(SecretKey::load(&path).unwrap().peer_id(), key.peer_id());
        assert!(SecretKey::generate().store(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            SecretKey::load(&path),
            Err(IdError::Permissions { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(
            SecretKey::load(&path),
            Err(IdError::NotAKeyFile(_))
        ));
    }
}
