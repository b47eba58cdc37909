//! Private prefixes on a host: their key files, the AEAD cipher, and routes that close them.

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lcroute_control::config::{Config, Private, Privates, SealedSegment};
use lcroute_engine::Aead;
use lcroute_node::{PrivateKeys, PrivatePrefix, Secret, SegmentKeys};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::keyfile::{self, SharedKey};

use crate::tun;

/// A prefix and the state of its keys.
#[derive(Debug)]
pub struct Loaded {
    /// The prefix with its secrets; none if the key file is unreadable or not configured.
    pub prefix: PrivatePrefix,
    /// Reason for an unreadable file.
    pub problem: Option<String>,
}

/// A segment and the state of its keys.
#[derive(Debug)]
pub struct LoadedSegment {
    /// The segment with its secrets; none if a key file is unreadable.
    pub segment: SegmentKeys,
    /// Reason for an unreadable file.
    pub problem: Option<String>,
}

/// Reads the key files of prefixes. Of a prefix with an unreadable key nothing leaves or enters.
///
/// # Errors
/// A file holds no shared key.
pub fn load(private: &[Private]) -> Result<Vec<Loaded>, ExitError> {
    private.iter().map(load_one).collect()
}

/// Reads the key files of segments, as [`load`].
pub fn load_segments(segments: &[SealedSegment]) -> Result<Vec<LoadedSegment>, ExitError> {
    let load = |sealed: &SealedSegment| {
        let (secrets, problem) = secrets([Some(&sealed.keyfile), sealed.next.as_ref()])?;
        Ok(LoadedSegment {
            segment: SegmentKeys {
                name: sealed.segment.clone(),
                secrets,
            },
            problem,
        })
    };
    segments.iter().map(load).collect()
}

fn load_one(private: &Private) -> Result<Loaded, ExitError> {
    let (secrets, problem) = secrets([private.keyfile.as_ref(), private.next.as_ref()])?;
    Ok(Loaded {
        prefix: PrivatePrefix {
            prefix: private.prefix,
            secrets,
            lans: private.lans,
        },
        problem,
    })
}

/// The secrets of a key file and the next one, or none and the reason.
fn secrets(files: [Option<&PathBuf>; 2]) -> Result<(Vec<Secret>, Option<String>), ExitError> {
    let mut secrets = Vec::new();
    let mut problem = None;
    for file in files.into_iter().flatten() {
        match read(file) {
            Ok(secret) => secrets.push(secret),
            Err(e) if e.exit == Exit::NotPermitted => {
                problem.get_or_insert_with(|| e.to_string());
            }
            Err(e) => return Err(e),
        }
    }
    if let [None, Some(_)] = files {
        problem.get_or_insert_with(|| "`next` without a keyfile".to_owned());
    }
    // without the current key the next one must not seal yet
    if problem.is_some() {
        secrets.clear();
    }
    Ok((secrets, problem))
}

fn read(file: &Path) -> Result<Secret, ExitError> {
    let key = SharedKey::load(&keyfile::named(file)?)?;
    Ok(Secret::new(*key.bytes()))
}

/// Reads the key files, and logs missing keys; returns the reasons why something stays closed.
pub fn load_and_tell(private: &Privates) -> Result<(PrivateKeys, Vec<String>), ExitError> {
    let mut closed = Vec::new();
    let mut tell = |what: String| {
        let line = format!("[[private]] {what}: nothing of it leaves or enters this host");
        tracing::error!("{line}");
        closed.push(line);
    };
    let segments = load_segments(&private.segments)?;
    for LoadedSegment { segment, problem } in &segments {
        if let Some(problem) = problem {
            tell(format!("segment {}: {problem}", segment.name));
        }
    }
    let loaded = load(&private.prefixes)?;
    for Loaded { prefix, problem } in &loaded {
        if let Some(problem) = problem {
            tell(format!("{}: {problem}", prefix.prefix));
        } else if prefix.secrets.is_empty() {
            let prefix = prefix.prefix;
            tracing::info!(
                "[[private]] {prefix}: without a keyfile it stays closed until a program gives its keys"
            );
        }
    }
    let keys = PrivateKeys {
        prefixes: loaded.into_iter().map(|l| l.prefix).collect(),
        segments: segments.into_iter().map(|l| l.segment).collect(),
    };
    Ok((keys, closed))
}

/// Closes the configured private prefixes, and opens former ones. Otherwise programs would send to
/// them by other interfaces in clear while lc0 is missing.
///
/// # Errors
/// The kernel refuses.
pub fn close(config: &Config) -> Result<(), ExitError> {
    let (closed, _) = tun::routes(&config.closed());
    Ok(tun::close(&config.tun.name, &closed)?)
}

/// Opens all private prefixes: this host is no longer a member, or lcroute is removed.
pub fn open(config: &Config) -> Result<(), ExitError> {
    Ok(tun::close(&config.tun.name, &[])?)
}

/// Makes a cipher for one sender key.
#[must_use]
pub fn aead(key: &[u8; 16]) -> Option<Box<dyn Aead>> {
    let key = UnboundKey::new(&AES_128_GCM, key).ok()?;
    Some(Box::new(AwsLc(LessSafeKey::new(key))))
}

#[derive(Debug)]
struct AwsLc(LessSafeKey);

impl Aead for AwsLc {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<[u8; 16]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(associated), text);
        tag.ok()?.as_ref().try_into().ok()
    }

    fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        sealed: &[u8],
        tag: &[u8; 16],
        text: &mut [u8],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let associated = Aad::from(associated);
        self.0
            .open_separate_gather(nonce, associated, sealed, tag, text)
            .is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// NIST's test case 4 of AES-GCM (McGrew and Viega, appendix B).
    #[test]
    fn the_cipher_is_aes_128_gcm() {
        let bytes = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let key = bytes("feffe9928665731c6d6a8f9467308308")
            .try_into()
            .unwrap();
        let nonce = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let associated = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = bytes(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let sealed = bytes(concat!(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
            "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        ));
        let cipher = aead(&key).unwrap();
        let mut text = plain.clone();
        let tag = cipher.seal(nonce, &associated, &mut text).unwrap();
        assert_eq!(text, sealed);
        assert_eq!(tag.to_vec(), bytes("5bc94fbc3221a5db94fae95ae7121a47"));
        let mut opened = vec![0; sealed.len()];
        assert!(cipher.open(nonce, &associated, &sealed, &tag, &mut opened));
        assert_eq!(opened, plain);
        assert!(!cipher.open(nonce, b"other", &sealed, &tag, &mut opened));
    }

    #[test]
    fn a_key_that_is_missing_leaves_its_prefix_closed_and_a_damaged_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (key, next) = (folder.path().join("key"), folder.path().join("next"));
        let private = |keyfile: Option<&PathBuf>, next: Option<&PathBuf>| Private {
            prefix: "ff1e:7::/32".parse().unwrap(),
            keyfile: keyfile.cloned(),
            next: next.cloned(),
            lans: false,
        };
        let secrets = |private: &Private| load_one(private).map(|l| l.prefix.secrets.len());
        SharedKey::make(&next).unwrap();
        assert_eq!(secrets(&private(Some(&key), Some(&next))).unwrap(), 0);
        assert_eq!(secrets(&private(None, Some(&next))).unwrap(), 0);
        SharedKey::make(&key).unwrap();
        let both = private(Some(&key), Some(&next));
        assert_eq!(secrets(&both).unwrap(), 2);
        std::fs::remove_file(&next).unwrap();
        assert_eq!(secrets(&both).unwrap(), 0);
        std::fs::write(&key, "lca1something").unwrap();
        assert_eq!(load_one(&both).unwrap_err().exit, Exit::Usage);
    }
}
