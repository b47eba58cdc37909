//! Common parts of logs, readable or held.

use std::time::Duration;

use lcgroup_core::{Terms, kind};
use librecast_log::Log;

use crate::request::LogStatus;

/// Time in seconds for which entries are kept, if the owner states no other.
pub const DEFAULT_KEEP: u64 = 30 * DAY;
/// Shortest such time: dates may be wrong by a day.
pub const LEAST_KEEP: u64 = DAY;
/// Longest such time: a thousand years, also in place of "for ever".
pub const LONGEST_KEEP: u64 = 365_000 * DAY;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The terms in the owner's log.
#[derive(Debug, Default)]
pub struct Kept {
    /// The last number read.
    read: u32,
    terms: Option<Terms>,
}

impl Kept {
    /// Reads new entries of the owner, and sets the time for which the log keeps entries.
    pub fn follow(&mut self, log: &mut Log) {
        while let Some(entry) = log.next_entry(log.owner(), self.read) {
            self.read = entry.number;
            let terms = (entry.kind == kind::TERMS).then(|| Terms::decode(&entry.body));
            self.terms = terms.flatten().or(self.terms);
        }
        log.set_ttl(self.ttl());
    }

    /// Time for which entries are kept.
    pub fn ttl(&self) -> Duration {
        let keep = match self.terms {
            None => DEFAULT_KEEP,
            Some(Terms { keep: 0, .. }) => LONGEST_KEEP,
            Some(Terms { keep, .. }) => keep,
        };
        Duration::from_secs(keep.clamp(LEAST_KEEP, LONGEST_KEEP))
    }

    /// Newcomers get what was said in these last seconds; `u64::MAX`: all.
    pub fn history(&self) -> u64 {
        self.terms.map_or(0, |terms| terms.history)
    }

    /// The time to keep for `status`: seconds; none for ever.
    pub fn shown(&self) -> Option<u64> {
        Some(self.ttl().as_secs()).filter(|keep| *keep < LONGEST_KEEP)
    }
}

/// A log for `status`.
pub fn log_status(log: &Log) -> LogStatus {
    let (entries, bytes) = log.size();
    let drops = log.drops().by_name().into_iter();
    LogStatus {
        address: log.space().group().to_string(),
        entries,
        bytes,
        displaced: log.displaced(),
        drops: drops.map(|(name, n)| (name.to_owned(), n)).collect(),
    }
}
