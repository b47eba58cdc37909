//! Private prefixes of lcroute that a group's keys seal.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow};
use librecast::cert::GroupPrefix;
use librecast::durable;
use librecast_program::cli::{Exit, ExitError};

use super::Room;
use crate::keyring::{Keyring, Secret};
use crate::request::ProtectedStatus;

/// The file of prefixes in the folder of a group.
const PREFIXES: &str = "prefixes";
/// Private prefixes that a group's keys seal. Chosen: lcroute has 64 in all.
const MAX_PREFIXES: usize = 16;
/// Bytes of the file of prefixes: an address, a length and an end of line each.
const MAX_PREFIX_LIST: u64 = (MAX_PREFIXES * 64) as u64;

/// Label of the exporter: the secret of an epoch that seals packets.
const EXPORT_LABEL: &str = "lcroute private prefix";

/// Prefixes and their keys.
#[derive(Debug)]
pub(super) struct Sealing {
    /// lcroute's groups that the keys seal.
    prefixes: BTreeSet<GroupPrefix>,
    pub(super) keyring: Keyring,
    /// The owner's log was complete once in this run: the keyring has keys.
    pub(super) has_keys: bool,
}

impl Sealing {
    pub(super) fn open(folder: &Path, has_keys: bool) -> anyhow::Result<Self> {
        let path = folder.join(PREFIXES);
        let prefixes = read_prefixes(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            prefixes,
            keyring: Keyring::default(),
            has_keys,
        })
    }
}

impl Room {
    /// Begins or ends (`end`) to seal a prefix with its keys.
    pub fn protect(&mut self, prefix: GroupPrefix, end: bool) -> anyhow::Result<()> {
        let mut prefixes = self.sealing.prefixes.clone();
        if !end {
            prefixes.insert(prefix);
        } else if !prefixes.remove(&prefix) {
            let text = format!("{} does not protect {prefix}", self.name);
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        if prefixes.len() > MAX_PREFIXES {
            let text = format!("a group protects at most {MAX_PREFIXES} prefixes");
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        let list: String = prefixes.iter().map(|p| format!("{p}\n")).collect();
        durable::replace(&self.folder.join(PREFIXES), list.as_bytes())?;
        self.sealing.prefixes = prefixes;
        Ok(())
    }

    /// Takes the secret of a new epoch, whose state is on disk.
    pub(super) fn follow_epoch(&mut self, now: Instant) {
        self.sealing.keyring.handle_timeout(now);
        if self.group.is_untold()
            || self.sealing.prefixes.is_empty()
            || !self.is_member()
            || !self.sealing.has_keys
        {
            self.sealing.keyring.clear();
            return;
        }
        let epoch = self.group.epoch();
        if self.sealing.keyring.newest() == epoch {
            return;
        }
        match (epoch, self.group.export(EXPORT_LABEL, &[])) {
            (Some(epoch), Ok(secret)) => self.sealing.keyring.begin(epoch, secret, now),
            (_, failed) => tracing::error!("{}: no secret for lcroute: {failed:?}", self.name),
        }
    }

    /// The secrets of its prefixes, the sealing one first; if empty, the prefixes stay closed.
    pub fn secrets(&self, now: Instant) -> Vec<Secret> {
        self.sealing.keyring.secrets(now)
    }

    /// The prefixes that its keys seal.
    pub fn prefixes(&self) -> &BTreeSet<GroupPrefix> {
        &self.sealing.prefixes
    }

    /// The prefixes for `status`; `outcome` returns lcroute's answer for one.
    pub(super) fn protected(
        &self,
        now: Instant,
        outcome: impl Fn(&GroupPrefix) -> Option<Result<(), String>>,
    ) -> Vec<ProtectedStatus> {
        let waits = || self.waits().filter(|_| !self.sealing.has_keys);
        let protected = |prefix: &GroupPrefix| {
            let outcome = outcome(prefix);
            ProtectedStatus {
                prefix: prefix.to_string(),
                epoch: self.sealing.keyring.sealing(now),
                sealed: outcome == Some(Ok(())),
                problem: outcome.and_then(Result::err).or_else(waits),
            }
        };
        self.sealing.prefixes.iter().map(protected).collect()
    }
}

/// Reads the prefixes of a group, one a line; none if the file is missing.
fn read_prefixes(path: &Path) -> anyhow::Result<BTreeSet<GroupPrefix>> {
    let mut text = String::new();
    if path.try_exists()? {
        let file = std::fs::File::open(path)?;
        file.take(MAX_PREFIX_LIST).read_to_string(&mut text)?;
    }
    let prefix = |line: &str| line.parse().map_err(|e| anyhow!("`{line}`: {e}"));
    text.lines().map(prefix).collect()
}
