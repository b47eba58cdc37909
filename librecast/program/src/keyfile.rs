//! Key files of users: signing keys with their public half beside them, and shared keys.
//!
//! Only the owner can read secrets, which are never overwritten and never shown; missing folders
//! are created with the same rights.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::book;
use crate::cli::{Exit, ExitError};
use crate::service;
use librecast::id::{IdError, PeerId, SecretKey};
use librecast::private_file;
use librecast::text::{self, TextError, TextKind};

/// Prefix of key file names that are credentials of the service.
const CREDENTIAL: &str = "credential:";
/// Bytes of a shared key.
const SHARED: usize = 32;
/// Bytes of the longest key file.
const MAX_TEXT: u64 = 256;

/// Makes a signing key: the secret in `file`, the public key in `file`.pub. Writes both or neither.
///
/// # Errors
/// One of the two files exists, or cannot be written.
pub fn make_signing_key(file: &Path) -> Result<PeerId, ExitError> {
    let key = SecretKey::generate();
    let public = key.peer_id();
    let public_file = public_path(file);
    if file.symlink_metadata().is_ok() {
        return Err(exists(file));
    }
    make_folder_of(file)?;
    // the public one first: if one of the two exists, no secret has been written
    store_public(&public, &public_file).map_err(|e| failed(&public_file, &e))?;
    key.store(file).map_err(|e| {
        // ours, written a moment ago
        let _ = fs::remove_file(&public_file);
        not_made(file, e)
    })?;
    Ok(public)
}

/// Makes a secret key in `file` without a public one, for a program with another public form.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn make_secret_key(file: &Path) -> Result<SecretKey, ExitError> {
    let key = SecretKey::generate();
    make_folder_of(file)?;
    key.store(file).map_err(|e| not_made(file, e))?;
    Ok(key)
}

/// Returns the path of the public half of a signing key.
#[must_use]
pub fn public_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Reads a signing key; one that other users can read is refused.
///
/// # Errors
/// [`Exit::NotPermitted`] if unreadable or not private, [`Exit::Usage`] if no signing key.
pub fn load_signing_key(file: &Path) -> Result<SecretKey, ExitError> {
    SecretKey::load(file).map_err(|e| {
        let text = private_file::read(file, MAX_TEXT).ok();
        let kind = text.and_then(|text| TextKind::of(std::str::from_utf8(&text).ok()?));
        match kind {
            Some(kind) => {
                let message = format!("{}: this is {kind}, not a signing key", file.display());
                ExitError::new(Exit::Usage, message)
            }
            None => refused(file, e),
        }
    })
}

/// Parses a public key on a command line: the key, a file with it, or `book:NAME`.
///
/// # Errors
/// [`Exit::Usage`] if it is none of them.
pub fn public_key(text: &str) -> Result<PeerId, ExitError> {
    if let Some(name) = text.strip_prefix(book::PREFIX) {
        return book::key(name);
    }
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let path = Path::new(text);
    let usage = |message| ExitError::new(Exit::Usage, message);
    if let Some(kind) = TextKind::of(text).filter(|_| !path.exists()) {
        // it may be a secret: it is not shown
        return Err(usage(format!(
            "this is {kind}, not a public key (12D3KooW...)"
        )));
    }
    let no_key = || {
        let public = public_path(path);
        usage(if public.exists() {
            format!("{text}: holds no public key; use {}", public.display())
        } else {
            format!("{text}: holds no public key; the FILE.pub of a signing key is meant")
        })
    };
    let mut content = Vec::new();
    File::open(path)
        .and_then(|f| f.take(MAX_TEXT).read_to_end(&mut content))
        .map_err(|e| {
            usage(format!(
                "{text}: neither a public key (12D3KooW...) nor a file with one: {e}"
            ))
        })?;
    let content = std::str::from_utf8(&content).map_err(|_| no_key())?;
    content.trim().parse().map_err(|_| no_key())
}

/// Returns whether a configured key file is a credential of the service manager: `credential:NAME`.
#[must_use]
pub fn is_credential(file: &Path) -> bool {
    file.to_str().is_some_and(|f| f.starts_with(CREDENTIAL))
}

/// Returns the path of a configured key file: the file itself, or that of `credential:NAME`.
///
/// # Errors
/// [`Exit::NotPermitted`] if the service manager provides no such credential.
pub fn named(file: &Path) -> Result<PathBuf, ExitError> {
    let Some(name) = file.to_str().and_then(|f| f.strip_prefix(CREDENTIAL)) else {
        return Ok(file.to_owned());
    };
    let plain = !name.is_empty() && !name.contains('/');
    let found = plain.then(|| service::credential(name)).flatten();
    found.ok_or_else(|| {
        let why = "the service manager has given no such credential (LoadCredential=, LoadCredentialEncrypted=)";
        ExitError::new(Exit::NotPermitted, format!("{}: {why}", file.display()))
    })
}

/// A symmetric key shared by a group of hosts; wiped from memory when dropped, never shown.
pub struct SharedKey(Zeroizing<[u8; SHARED]>);

impl SharedKey {
    /// Wraps these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SHARED]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the 32 bytes.
    pub fn bytes(&self) -> &[u8; SHARED] {
        &self.0
    }

    /// Makes a new key and writes it to `file`, which must not exist.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn make(file: &Path) -> Result<Self, ExitError> {
        let mut bytes = Zeroizing::new([0; SHARED]);
        getrandom::fill(bytes.as_mut())
            .map_err(|e| ExitError::new(Exit::Failed, format!("random numbers: {e}")))?;
        let mut text = text::encode(TextKind::SharedKey, bytes.as_ref());
        text.push('\n');
        make_folder_of(file)?;
        private_file::create(file, text.as_bytes()).map_err(|e| not_made(file, e))?;
        Ok(Self(bytes))
    }

    /// Reads a key; a file that other users can read is refused.
    ///
    /// # Errors
    /// [`Exit::NotPermitted`] if unreadable or not private, [`Exit::Usage`] if no shared key.
    pub fn load(file: &Path) -> Result<Self, ExitError> {
        let content = private_file::read(file, MAX_TEXT).map_err(|e| refused(file, e))?;
        let text = std::str::from_utf8(&content);
        let text = text.map_err(|_| TextError::Prefix(TextKind::SharedKey));
        text.and_then(str::parse).map_err(|e| {
            let message = format!("{}: {e}; `keygen` makes one", file.display());
            ExitError::new(Exit::Usage, message)
        })
    }
}

impl FromStr for SharedKey {
    type Err = TextError;

    /// Parses `lck1...`.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let kind = TextKind::SharedKey;
        let bytes = text::decode(kind, text, SHARED)?;
        let bytes = bytes.as_slice().try_into();
        bytes
            .map(Self::from_bytes)
            .map_err(|_| TextError::Damaged(kind))
    }
}

librecast::debug_by_name!(SharedKey);

/// Creates the folder of `file`, if it is missing.
fn make_folder_of(file: &Path) -> Result<(), ExitError> {
    let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) else {
        return Ok(());
    };
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|e| {
        let exit = match e.kind() {
            io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        ExitError::new(exit, format!("{}: {e}", folder.display()))
    })
}

fn store_public(public: &PeerId, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    writeln!(file, "{public}")
        .and_then(|()| file.sync_all())
        .and_then(|()| librecast::durable::sync_folder_of(path))
        .inspect_err(|_| {
            let _ = fs::remove_file(path);
        })
}

/// Returns the error for a key that cannot be read.
fn refused(path: &Path, error: IdError) -> ExitError {
    match error {
        IdError::Io { source, .. } => {
            ExitError::new(Exit::NotPermitted, format!("{}: {source}", path.display()))
        }
        error @ IdError::Permissions { .. } => {
            ExitError::new(Exit::NotPermitted, error.to_string())
        }
        error => ExitError::new(Exit::Usage, error.to_string()),
    }
}

fn not_made(path: &Path, error: IdError) -> ExitError {
    match error {
        IdError::Io { source, .. } => failed(path, &source),
        error => ExitError::new(Exit::Failed, error.to_string()),
    }
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
        _ => ExitError::new(Exit::Failed, format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn key_and_public_key_are_written_and_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("operator.key");
        let public = make_signing_key(&file).unwrap();
        assert_eq!(load_signing_key(&file).unwrap().peer_id(), public);
        assert_eq!(mode(&file), 0o600);
        let public_file = dir.path().join("operator.key.pub");
        let text = fs::read_to_string(&public_file).unwrap();
        assert!(
            text.starts_with("12D3KooW") && text.ends_with('\n'),
            "{text:?}"
        );
        for named in [text.trim(), public_file.to_str().unwrap()] {
            assert_eq!(public_key(named).unwrap(), public);
        }
        // the secret half in place of the public one
        let secret = public_key(file.to_str().unwrap()).unwrap_err();
        assert_eq!(secret.exit, Exit::Usage);
        let told = secret.to_string();
        assert!(told.ends_with("/operator.key.pub"), "{told}");
        assert_eq!(public_key("nonsense").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_shared_key_is_read_back_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k");
        let key = SharedKey::make(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(SharedKey::load(&file).unwrap().bytes(), key.bytes());
        assert_eq!(SharedKey::make(&file).unwrap_err().exit, Exit::Failed);
        assert_eq!(SharedKey::load(&file).unwrap().bytes(), key.bytes());
        for open in [0o640, 0o604] {
            fs::set_permissions(&file, fs::Permissions::from_mode(open)).unwrap();
            let refused = SharedKey::load(&file).unwrap_err();
            assert_eq!(refused.exit, Exit::NotPermitted);
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
    }

    #[test]
    fn kinds_of_keys_are_not_taken_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (signing, shared) = (dir.path().join("signing"), dir.path().join("shared"));
        make_signing_key(&signing).unwrap();
        SharedKey::make(&shared).unwrap();
        assert_eq!(SharedKey::load(&signing).unwrap_err().exit, Exit::Usage);
        let told = load_signing_key(&shared).unwrap_err();
        assert_eq!(told.exit, Exit::Usage);
        assert!(told.to_string().contains("a shared key (lck1)"), "{told}");
        let token = dir.path().join("token");
        private_file::create(&token, text::encode(TextKind::Token, &[1]).as_bytes()).unwrap();
        let told = SharedKey::load(&token).unwrap_err().to_string();
        assert!(
            told.contains("a token (lct1), not a shared key (lck1)"),
            "{told}"
        );
        let told = public_key("lct1secret").unwrap_err().to_string();
        assert!(
            told.contains("a token (lct1), not a public key") && !told.contains("secret"),
            "{told}"
        );
        let missing = dir.path().join("missing");
        assert_eq!(
            load_signing_key(&missing).unwrap_err().exit,
            Exit::NotPermitted
        );
        for damaged in ["", "lck1", "lck1abc", "lck2zzzzzzz"] {
            assert!(damaged.parse::<SharedKey>().is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (file, public) = (dir.path().join("k"), dir.path().join("k.pub"));

        fs::write(&file, "mine").unwrap();
        assert_eq!(make_signing_key(&file).unwrap_err().exit, Exit::Failed);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(!public.exists(), "no public key without its secret");

        fs::remove_file(&file).unwrap();
        fs::write(&public, "mine").unwrap();
        assert_eq!(make_signing_key(&file).unwrap_err().exit, Exit::Failed);
        assert_eq!(fs::read_to_string(&public).unwrap(), "mine");
        assert!(!file.exists(), "no secret without its public key");
    }

    #[test]
    fn dangling_symlink_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, target) = (dir.path().join("k"), dir.path().join("elsewhere"));
        symlink(&target, &file).unwrap();
        assert_eq!(make_signing_key(&file).unwrap_err().exit, Exit::Failed);
        assert_eq!(SharedKey::make(&file).unwrap_err().exit, Exit::Failed);
        assert!(!target.exists() && !dir.path().join("k.pub").exists());
    }

    #[test]
    fn missing_folders_are_made_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/k");
        make_signing_key(&file).unwrap();
        SharedKey::make(&dir.path().join("c/shared")).unwrap();
        for folder in ["a", "a/b", "c"] {
            assert_eq!(mode(&dir.path().join(folder)), 0o700, "{folder}");
        }
        // a file in the way is named
        let error = make_signing_key(&file.join("k")).unwrap_err();
        assert_eq!(error.exit, Exit::Failed);
        assert!(error.to_string().contains("a/b/k"), "{error}");
    }
}
