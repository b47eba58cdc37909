//! The secrets of a group's epochs that seal and open packets of a private prefix.
//!
//! Members learn of a new epoch at different times. So each opens with its key at once, and seals
//! with it a moment later; the last key opens packets for some time more. A removed member can read
//! packets of that time, and none later.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Delay before a new epoch's key seals packets. Chosen: repair delivers a commit to all reachable
/// members earlier (99 of 100 in 0.6 s at 20 % loss, docs/benchmarks.md).
const SEAL_DELAY: Duration = Duration::from_secs(1);

/// Time for which the key of an ended epoch opens packets. Chosen: members that receive the commit
/// later have lost their link as well.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// Secrets of a group that lcroute receives; it accepts 16.
const MAX_SECRETS: usize = 16;

/// 32 bytes of the exporter (RFC 9420 §8.5).
pub type Secret = Zeroizing<[u8; 32]>;

#[derive(Debug)]
struct EpochSecret {
    epoch: u64,
    secret: Secret,
    since: Instant,
}

#[derive(Debug, Default)]
pub struct Keyring {
    /// The epochs, the oldest first; empty if this host is not a member.
    epochs: Vec<EpochSecret>,
}

impl Keyring {
    pub fn newest(&self) -> Option<u64> {
        self.epochs.last().map(|e| e.epoch)
    }

    /// Adds the secret of a new epoch.
    pub fn begin(&mut self, epoch: u64, secret: Secret, now: Instant) {
        self.epochs.push(EpochSecret {
            epoch,
            secret,
            since: now,
        });
        if self.epochs.len() > MAX_SECRETS {
            self.epochs.remove(0);
        }
    }

    /// Forgets all secrets: this host is no longer a member.
    pub fn clear(&mut self) {
        self.epochs.clear();
    }

    /// Forgets secrets of epochs that have ended long enough ago.
    pub fn handle_timeout(&mut self, now: Instant) {
        // an epoch is over once its successor is old enough
        let is_over = |successor: &EpochSecret| now >= successor.since + OPEN_TIME;
        let over = self.epochs.iter().skip(1).filter(|next| is_over(next));
        let over = over.count();
        self.epochs.drain(..over);
    }

    /// When [`Self::secrets`] changes next without a new epoch.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let successors = self.epochs.iter().skip(1);
        let times = successors.flat_map(|e| [e.since + SEAL_DELAY, e.since + OPEN_TIME]);
        // the calling turn already handles times that are due
        times.filter(|at| *at > now).min()
    }

    /// The epoch whose key seals.
    pub fn sealing(&self, now: Instant) -> Option<u64> {
        self.sealing_index(now).map(|at| self.epochs[at].epoch)
    }

    fn sealing_index(&self, now: Instant) -> Option<usize> {
        let may = |(at, e): (usize, &EpochSecret)| at == 0 || now >= e.since + SEAL_DELAY;
        self.epochs.iter().enumerate().rposition(may)
    }

    /// All secrets, the sealing one first.
    pub fn secrets(&self, now: Instant) -> Vec<Secret> {
        let Some(sealing) = self.sealing_index(now) else {
            return Vec::new();
        };
        let others = self.epochs.iter().enumerate().rev();
        let others = others.filter(|(at, _)| *at != sealing).map(|(_, e)| e);
        let all = std::iter::once(&self.epochs[sealing]).chain(others);
        all.map(|e| e.secret.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(ring: &Keyring, now: Instant) -> Vec<u8> {
        ring.secrets(now).iter().map(|s| s[0]).collect()
    }

    #[test]
    fn a_new_key_opens_at_once_and_seals_a_moment_later() {
        let (mut ring, start) = (Keyring::default(), Instant::now());
        assert!(secrets(&ring, start).is_empty());
        ring.begin(4, Zeroizing::new([4; 32]), start);
        assert_eq!(secrets(&ring, start), [4], "the first seals at once");
        assert_eq!(ring.next_timeout(start), None);
        let second = start + Duration::from_secs(60);
        ring.begin(5, Zeroizing::new([5; 32]), second);
        assert_eq!(secrets(&ring, second), [4, 5]);
        let sealed = ring.next_timeout(second).unwrap();
        assert_eq!(sealed, second + SEAL_DELAY);
        assert_eq!(secrets(&ring, sealed), [5, 4]);
        assert_eq!(ring.sealing(sealed), Some(5));
        let over = ring.next_timeout(sealed).unwrap();
        ring.handle_timeout(over);
        assert_eq!(secrets(&ring, over), [5]);
        assert_eq!(ring.next_timeout(over), None);
        ring.clear();
        assert!(secrets(&ring, over).is_empty() && ring.newest().is_none());
    }

    #[test]
    fn many_commits_in_a_row_take_no_more_than_lcroute_takes() {
        let (mut ring, start) = (Keyring::default(), Instant::now());
        for epoch in 0..40 {
            ring.begin(epoch, Zeroizing::new([epoch as u8; 32]), start);
        }
        let all = secrets(&ring, start);
        assert_eq!((all.len(), all[0], all[1]), (MAX_SECRETS, 24, 39));
        let later = start + SEAL_DELAY;
        assert_eq!(secrets(&ring, later)[0], 39);
    }
}
