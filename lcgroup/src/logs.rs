//! Common parts of logs, readable or held.

use std::time::Duration;

use librecast_log::Log;

use crate::request::LogStatus;

/// Time for which entries are kept: a member away for longer needs a new invitation.
pub const TTL: Duration = Duration::from_secs(30 * 86_400);

/// A log for `status`.
pub fn log_status(log: &Log) -> LogStatus {
    let (entries, bytes) = log.size();
    let drops = log.drops().by_name().into_iter();
    LogStatus {
        address: log.space().group().to_string(),
        entries,
        bytes,
        drops: drops.map(|(name, n)| (name.to_owned(), n)).collect(),
    }
}
