//! `lcagent keygen FILE`: a new key pair on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use librecast::cli::{Exit, ExitError};
use librecast::id::{IdError, PeerId, SecretKey};

/// Makes the key pair and prints its public key.
pub(crate) fn run(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let public = keygen(file)?;
    let mut out = io::stdout().lock();
    if json {
        let result = serde_json::json!({
            "public_key": public,
            "file": file.to_string_lossy(),
            "public_file": public_path(file).to_string_lossy(),
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "{public}")?;
    }
    Ok(Exit::Ok)
}

/// Writes both files or neither. The public one goes first: if one of the two exists, no secret has
/// been written yet that would have to be wiped again.
fn keygen(file: &Path) -> Result<PeerId, ExitError> {
    let key = SecretKey::generate();
    let public = key.peer_id();
    let public_file = public_path(file);
    if file.symlink_metadata().is_ok() {
        return Err(exists(file));
    }
    store_public(&public, &public_file).map_err(|e| failed(&public_file, &e))?;
    key.store(file).map_err(|e| {
        // ours, written a moment ago
        let _ = fs::remove_file(&public_file);
        match e {
            IdError::Io { source, .. } => failed(file, &source),
            other => ExitError::new(Exit::Failed, other.to_string()),
        }
    })?;
    Ok(public)
}

fn public_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn store_public(public: &PeerId, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    writeln!(file, "{public}")
        .and_then(|()| file.sync_all())
        .inspect_err(|_| {
            let _ = fs::remove_file(path);
        })
}

fn exists(path: &Path) -> ExitError {
    let message = format!(
        "{} exists: keys are never overwritten; move it away first",
        path.display()
    );
    ExitError::new(Exit::Failed, message)
}

fn failed(path: &Path, error: &io::Error) -> ExitError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        io::ErrorKind::PermissionDenied => {
            ExitError::new(Exit::NotPermitted, format!("{}: {error}", path.display()))
        }
        io::ErrorKind::NotFound => {
            let message = format!(
                "{}: its folder does not exist; make it first",
                path.display()
            );
            ExitError::new(Exit::Failed, message)
        }
        _ => ExitError::new(Exit::Failed, format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_and_public_key_are_written_and_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("operator.key");
        let public = keygen(&file).unwrap();
        assert_eq!(SecretKey::load(&file).unwrap().peer_id(), public);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(dir.path().join("operator.key.pub")).unwrap();
        assert!(
            text.starts_with("12D3KooW") && text.ends_with('\n'),
            "{text:?}"
        );
        assert_eq!(text.trim().parse::<PeerId>().unwrap(), public);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (file, public) = (dir.path().join("k"), dir.path().join("k.pub"));

        fs::write(&file, "mine").unwrap();
        assert_eq!(keygen(&file).unwrap_err().exit, Exit::Failed);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(!public.exists(), "no public key without its secret");

        fs::remove_file(&file).unwrap();
        fs::write(&public, "mine").unwrap();
        assert_eq!(keygen(&file).unwrap_err().exit, Exit::Failed);
        assert_eq!(fs::read_to_string(&public).unwrap(), "mine");
        assert!(!file.exists(), "no secret without its public key");
    }

    #[test]
    fn dangling_symlink_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, target) = (dir.path().join("k"), dir.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &file).unwrap();
        assert_eq!(keygen(&file).unwrap_err().exit, Exit::Failed);
        assert!(!target.exists() && !dir.path().join("k.pub").exists());
    }

    #[test]
    fn missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = keygen(&dir.path().join("none/k")).unwrap_err();
        assert_eq!(error.exit, Exit::Failed);
        assert!(
            error.to_string().contains("folder does not exist"),
            "{error}"
        );
    }
}
