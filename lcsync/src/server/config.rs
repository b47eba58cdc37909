//! The list of shares: from the command line, or from the file of `share --config`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use librecast::channel::SharePrefix;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::config;
use librecast_program::groups;
use librecast_program::keyfile::{self, SharedKey, load_signing_key};
use librecast_program::metrics::{self, Listen};
use librecast_program::units::parse_rate;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::rescan::Watched;
use crate::folder::absolute;
use crate::name::check_name;
use crate::sealing::{ShareKey, group_key};

/// One share, `[[share]]` in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareOptions {
    /// File or folder.
    pub path: PathBuf,
    /// Replaces the path's last component.
    pub name: Option<String>,
    /// File of the key that seals everything.
    pub keyfile: Option<PathBuf>,
    /// File of the key that signs versions.
    pub sign: Option<PathBuf>,
    /// Group of lcgroup whose members may fetch it: both keys are the group's.
    pub lcgroup: Option<String>,
    /// Serve on these only; none for all that are watched.
    #[serde(default, rename = "interface", deserialize_with = "one_or_more")]
    pub interfaces: Vec<String>,
    /// Most bits per second.
    #[serde(default, deserialize_with = "rate")]
    pub bwlimit: Option<u64>,
    /// List it in catalogues.
    #[serde(default)]
    pub listed: bool,
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    share: Vec<ShareOptions>,
    metrics: metrics::Config,
}

fn one_or_more<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a name or a list of names")]
    enum Names {
        One(String),
        More(Vec<String>),
    }
    Ok(match Names::deserialize(d)? {
        Names::One(name) => vec![name],
        Names::More(names) => names,
    })
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a rate like \"20M\"")]
    enum Rate {
        Bits(u64),
        Text(String),
    }
    let text = match Rate::deserialize(d)? {
        Rate::Bits(bits) => bits.to_string(),
        Rate::Text(text) => text,
    };
    parse_rate(&text).map(Some).map_err(D::Error::custom)
}

/// Reads shares, with paths relative to the file's folder, and the address for metrics.
pub fn read(file: &Path) -> Result<(Vec<ShareOptions>, Option<Listen>), ExitError> {
    let Config { mut share, metrics } = config::read(file)?;
    if share.is_empty() {
        let message = format!("{}: no [[share]] in it", file.display());
        return Err(ExitError::new(Exit::Usage, message));
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    for share in &mut share {
        share.path = folder.join(&share.path);
        for key in [&mut share.keyfile, &mut share.sign].into_iter().flatten() {
            *key = match keyfile::is_credential(key) {
                true => keyfile::named(key)
                    .map_err(|e| ExitError::new(e.exit, format!("{}: {e}", file.display())))?,
                false => folder.join(&key),
            };
        }
    }
    Ok((share, metrics.listen))
}

/// Returns each share with its name, prefix and keys.
pub fn named(shares: &[ShareOptions]) -> anyhow::Result<Vec<Watched>> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let mut named: Vec<Watched> = Vec::new();
    for share in shares {
        let shown = || share.path.display().to_string();
        // not resolved: a link that is changed is a change on disk
        let path = absolute(&share.path).with_context(shown)?;
        let name = match &share.name {
            Some(name) => name.clone(),
            None => path
                .file_name()
                .and_then(|n| n.to_str())
                .ok_or_else(|| usage(format!("{}: give it a name with --name", shown())))?
                .to_owned(),
        };
        check_name(&name).map_err(|e| usage(format!("{name:?}: {e}")))?;
        if share.lcgroup.is_some() && (share.keyfile.is_some() || share.sign.is_some()) {
            let message =
                format!("{name:?}: a group has keys of its own: neither keyfile nor sign");
            return Err(usage(message).into());
        }
        let (shared, signer) = match &share.lcgroup {
            Some(group) => {
                let own = groups::offer(group, &name)?;
                (Some(own.key), Some(own.signer))
            }
            None => (
                share.keyfile.as_deref().map(SharedKey::load).transpose()?,
                share.sign.as_deref().map(load_signing_key).transpose()?,
            ),
        };
        let key = shared.map(|k| Arc::new(ShareKey::new(Arc::new(k), &name)));
        let prefix = SharePrefix::of_name(group_key(key.as_deref()), &name);
        if named.iter().any(|s| s.prefix == prefix) {
            let message = format!("two shares are named {name:?}: share one with --name");
            return Err(usage(message).into());
        }
        named.push(Watched {
            prefix,
            name,
            path,
            chosen: Vec::new(),
            key,
            signer: signer.map(Arc::new),
            interfaces: share.interfaces.clone(),
            limit: share.bwlimit,
            listed: share.listed,
        });
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast_program::keyfile::make_signing_key;

    fn error(text: &str) -> String {
        config::parse::<Config>("f", text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_read_and_paths_are_relative_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lcsync.toml");
        let text = r#"
            [[share]]
            path = "a"
            name = "first"
            keyfile = "k"
            sign = "/s"
            interface = "eth0"
            bwlimit = "20M"
            listed = true
            [[share]]
            path = "/b"
            interface = ["eth0", "lc0"]
            bwlimit = 64000
            [metrics]
            listen = "/run/m"
        "#;
        std::fs::write(&file, text).unwrap();
        let (shares, metrics) = read(&file).unwrap();
        assert_eq!(metrics, Some(Listen::Unix("/run/m".into())));
        let first = ShareOptions {
            path: dir.path().join("a"),
            name: Some("first".into()),
            keyfile: Some(dir.path().join("k")),
            sign: Some("/s".into()),
            lcgroup: None,
            interfaces: vec!["eth0".into()],
            bwlimit: Some(20_000_000),
            listed: true,
        };
        let second = ShareOptions {
            path: "/b".into(),
            interfaces: vec!["eth0".into(), "lc0".into()],
            bwlimit: Some(64_000),
            ..ShareOptions::default()
        };
        assert_eq!(shares, [first, second]);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, start) in [
            ("[[share]]\npath = \"a\"\nnmae = \"b\"\n", "f:3: nmae: "),
            (
                "[[share]]\npath = \"a\"\ninterface = 7\n",
                "f:3: interface: ",
            ),
            (
                "[[share]]\npath = \"a\"\nbwlimit = \"fast\"\n",
                "f:3: bwlimit: ",
            ),
            ("\n[[share]]\nname = \"a\"\n", "f:2: share: "),
            ("[metrics]\nlisten = \"m\"\n", "f:2: listen: "),
            ("[[shares]]\npath = \"a\"\n", "f:1: shares: "),
            ("[[share]]\npath = \n", "f:2: path: "),
        ] {
            let error = error(text);
            assert!(
                error.starts_with(start),
                "{error} should start with {start}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        for (file, exit) in [("missing", Exit::Usage), ("empty", Exit::Usage)] {
            let file = dir.path().join(file);
            if file.ends_with("empty") {
                std::fs::write(&file, "").unwrap();
            }
            assert_eq!(read(&file).unwrap_err().exit, exit);
        }
    }

    #[test]
    fn a_link_is_shared_under_its_own_name_and_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("2026")).unwrap();
        let link = dir.path().join("current");
        std::os::unix::fs::symlink("2026", &link).unwrap();
        let paths = [link.clone(), link.join("..").join("2026/.")];
        let options = paths.map(|path| ShareOptions {
            path,
            ..ShareOptions::default()
        });
        let shares = named(&options).unwrap();
        let names: Vec<&str> = shares.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["current", "2026"]);
        assert_eq!(shares[0].path, link);
    }

    #[test]
    fn the_same_name_is_another_share_under_another_key_and_keys_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (key, signing) = (dir.path().join("k"), dir.path().join("s"));
        SharedKey::make(&key).unwrap();
        make_signing_key(&signing).unwrap();
        let plain = ShareOptions {
            path: dir.path().to_path_buf(),
            name: Some("n".into()),
            ..ShareOptions::default()
        };
        let sealed = ShareOptions {
            keyfile: Some(key.clone()),
            sign: Some(signing.clone()),
            ..plain.clone()
        };
        let shares = named(&[plain.clone(), sealed.clone()]).unwrap();
        assert!(shares[1].key.is_some() && shares[1].signer.is_some());
        assert!(named(&[sealed.clone(), sealed.clone()]).is_err());
        let swapped = ShareOptions {
            keyfile: Some(signing),
            sign: Some(key),
            ..plain
        };
        assert!(named(&[swapped]).is_err());
        // an unchanged share is the same after a reload, a changed one is not
        let again = named(std::slice::from_ref(&sealed)).unwrap();
        assert!(again[0].is_same(&shares[1]) && !again[0].is_same(&shares[0]));
        let elsewhere = ShareOptions {
            interfaces: vec!["lc0".into()],
            ..sealed
        };
        assert!(!named(&[elsewhere]).unwrap()[0].is_same(&shares[1]));
    }
}
