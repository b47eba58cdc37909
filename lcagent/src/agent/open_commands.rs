//! Commands that are still valid for agents that start later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use librecast::id::PeerId;
use librecast::random::Random;
use librecast::time::UnixTime;

use super::budget::oldest_of_largest;
use super::output::Output;
use super::revoked::{Principal, Revocation, Revocations, RevokingCommand};
use crate::datagram::JobId;
use crate::envelope;

/// Commands kept for agents that start later.
const MAX_OPEN: usize = 64;
/// Bytes of these commands together.
const MAX_OPEN_BYTES: usize = 256 * 1024;
/// Least time between two repeats of an open command.
const REPEAT: Duration = Duration::from_secs(2);
/// Wait before a repeat. Chosen: agents that heard the same hello do not repeat at once.
const WAIT: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// A command that is still valid for agents that start later.
#[derive(Debug)]
pub(super) struct Open {
    principal: Principal,
    /// The listed key that is charged for it.
    sponsor: PeerId,
    /// It revokes a key, and is never evicted.
    revokes: bool,
    since: Instant,
    not_after: u64,
    envelope: Vec<u8>,
    parts: Vec<Vec<u8>>,
    last_seen: Instant,
    repeat_at: Option<(Instant, u32)>,
}

impl Open {
    /// A command with its parts.
    pub(super) fn new(
        command: &RevokingCommand,
        principal: Principal,
        parts: Vec<Vec<u8>>,
        now: Instant,
    ) -> Self {
        Self {
            principal,
            sponsor: command.under,
            revokes: false,
            since: now,
            not_after: command.not_after,
            envelope: command.envelope.clone(),
            parts,
            last_seen: now,
            repeat_at: None,
        }
    }

    fn size(&self) -> usize {
        self.envelope.len() + self.parts.iter().map(Vec::len).sum::<usize>()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct OpenCommands(BTreeMap<JobId, Open>);

impl OpenCommands {
    /// The commands that revoked keys, of earlier runs.
    pub(super) fn of_revocations(revoked: &Revocations, now: Instant) -> Self {
        let mut all = Self(BTreeMap::new());
        for revoking in revoked.iter() {
            let principal = Principal {
                operator: revoking.by,
                certifier: Some(revoking.under).filter(|under| *under != revoking.by),
            };
            // the first timeout removes expired ones
            if let Some(id) = envelope::peek(&revoking.envelope) {
                all.keep_revoking(id, revoking, principal, now);
            }
        }
        all
    }

    /// Keeps the command that revoked a key.
    fn keep_revoking(
        &mut self,
        id: JobId,
        revoking: &RevokingCommand,
        principal: Principal,
        now: Instant,
    ) {
        let open = Open {
            revokes: true,
            ..Open::new(revoking, principal, Vec::new(), now)
        };
        self.0.insert(id, open);
    }

    /// Drops the commands of revoked keys, and keeps the one that revoked them.
    pub(super) fn revoke(
        &mut self,
        id: JobId,
        revocation: &Revocation,
        principal: Principal,
        now: Instant,
    ) {
        self.0.retain(|_, open| !revocation.covers(&open.principal));
        self.keep_revoking(id, &revocation.revoking, principal, now);
    }

    /// Keeps a command, or evicts one of a key with more; returns the number of those not kept.
    pub(super) fn keep(&mut self, id: JobId, open: Open) -> u32 {
        let mut evicted = 0;
        loop {
            let kept = || self.0.iter().filter(|(_, o)| !o.revokes);
            let bytes: usize = kept().map(|(_, o)| o.size()).sum();
            if kept().count() < MAX_OPEN && bytes + open.size() <= MAX_OPEN_BYTES {
                self.0.insert(id, open);
                return evicted;
            }
            let held = kept().map(|(id, o)| (*id, o.sponsor, o.since));
            evicted += 1;
            let Some(victim) = oldest_of_largest(held, &open.sponsor) else {
                return evicted;
            };
            self.0.remove(&victim);
        }
    }

    /// Puts off the repetition of a command that was repeated by another agent.
    pub(super) fn note_repeat(&mut self, id: &JobId, datagram: &[u8], now: Instant) {
        if let Some(open) = self.0.get_mut(id)
            && open.envelope == datagram
        {
            open.last_seen = now;
            open.repeat_at = None;
        }
    }

    /// An agent has started: it may lack commands that nobody has repeated lately.
    pub(super) fn handle_hello(&mut self, via: u32, random: &mut Random, now: Instant) {
        for open in self.0.values_mut() {
            let quiet = now.saturating_duration_since(open.last_seen) >= REPEAT;
            if quiet && open.repeat_at.is_none() {
                let wait = random.between(WAIT[0], WAIT[1]);
                open.repeat_at = Some((now + wait, via));
            }
        }
    }

    /// Drops expired commands, and returns the datagrams of those to repeat now.
    pub(super) fn repeat(&mut self, now: Instant, time: UnixTime) -> Vec<Output> {
        self.0.retain(|_, open| open.not_after >= time.as_secs());
        let mut outputs = Vec::new();
        for open in self.0.values_mut() {
            if let Some((at, via)) = open.repeat_at
                && at <= now
            {
                open.repeat_at = None;
                open.last_seen = now;
                let datagrams = std::iter::once(&open.envelope).chain(&open.parts);
                outputs.extend(
                    datagrams
                        .cloned()
                        .map(|datagram| Output::Channel { via, datagram }),
                );
            }
        }
        outputs
    }

    /// The time of the next repeat.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let times = self.0.values().filter_map(|open| open.repeat_at);
        times.map(|(at, _)| at).min()
    }
}
