//! Parts of every simulation of logs: its clock, its path, addresses and grants.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use librecast::id::PeerId;
use librecast::simulated::Path;
use librecast::time::UnixTime;
use librecast_log::Grant;

pub const SECOND: Duration = Duration::from_secs(1);
/// Wall clock at the beginning of each simulation: milliseconds since 1970.
pub const EPOCH: u64 = 1_790_000_000_000;
pub const BEGIN: UnixTime = UnixTime::from_millis(EPOCH);

pub fn path(loss: f64) -> Path {
    Path {
        delay: Duration::from_millis(45),
        jitter: Duration::from_millis(10),
        loss,
        duplicates: 0.01,
    }
}

pub fn address(n: usize) -> IpAddr {
    IpAddr::from(Ipv6Addr::from_bits(n as u128 + 1))
}

/// Returns a grant of a day, up to this number.
pub fn grant_up_to(author: PeerId, last: u32) -> Grant {
    Grant {
        author,
        not_before: EPOCH,
        expires: EPOCH + 86_400_000,
        last,
    }
}

/// Returns a grant that does not end.
pub fn endless_grant(author: PeerId) -> Grant {
    Grant {
        author,
        not_before: 0,
        expires: u64::MAX,
        last: u32::MAX,
    }
}
