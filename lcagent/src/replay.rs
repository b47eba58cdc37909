//! The commands that were seen, per operator: a state machine without clock or disk.
//!
//! A command is named by its operator, sequence and nonce. Per operator the window stores the
//! [`WINDOW`] commands with the highest sequences. One more evicts the lowest, which becomes the
//! floor: no command at or below it is accepted, seen or not. So commands may arrive in any order,
//! a replay is never accepted, and the memory is bounded.
//!
//! There is room for [`MAX_LISTED`] keys that the policy lists, and apart from them for
//! [`MAX_CERTIFIED`] certified ones, [`MAX_OF_CERTIFIER`] of one certifier. A full table evicts the
//! key with the earliest end of its newest command, if that is [`MAX_AHEAD_S`] ago. From then on no
//! command that ends by that time is accepted under any key, even if the clock is set back.
//!
//! The agent writes [`ReplayWindow::encode`] to its state directory before it runs accepted
//! commands, and restores it. An operator's sequences rise: microseconds of Unix time, or the last
//! and one if the clock stands, so that one key can be used on two machines.
//!
//! Snapshot, version 1 (big-endian): `version 8 | forgotten 64 | keys 16 | keys x { operator key
//! 256 | certifier key 256 or 0 | floor 64 | ends 64 | commands 16 | commands x { sequence 64 |
//! nonce 128 } } | checksum 256`; keys and commands in ascending order; the checksum is
//! `derive_key("lcagent 2026 replay window", all before it)`.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::{PeerId, derive};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::datagram::MAX_AHEAD_S;

/// Commands remembered per operator key.
pub const WINDOW: usize = 1024;
/// Listed keys that are stored: policies have far fewer.
pub const MAX_LISTED: usize = 256;
/// Certified keys that are stored.
pub const MAX_CERTIFIED: usize = 256;
/// Keys of one certifier among them.
pub const MAX_OF_CERTIFIER: usize = 128;
/// Keys stored at most.
const MAX_KEYS: usize = MAX_LISTED + MAX_CERTIFIED;
/// Largest snapshot, in bytes: a reader of the file has to accept it.
pub const MAX_SNAPSHOT: usize =
    1 + 8 + 2 + MAX_KEYS * (32 + 32 + 8 + 8 + 2 + WINDOW * (8 + 16)) + 32;

/// Version of snapshots.
const VERSION: u8 = 1;
/// In place of a certifier: the policy lists the key.
const NOBODY: [u8; 32] = [0; 32];
const CHECKSUM_CONTEXT: &str = "lcagent 2026 replay window";

/// The reason why a command may not run (again).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// This command has been accepted before.
    #[error("seen before")]
    Replayed,
    /// Older than all stored ones: it may have been seen.
    #[error("older than the replay window")]
    BelowWindow,
    /// The table is full of keys of this kind with possibly valid commands.
    #[error("too many operator keys")]
    TooManyKeys,
}

/// Validity of a command, and the time, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Last second in which the command is valid.
    pub not_after: u64,
    /// The agent's clock.
    pub now: UnixTime,
}

/// The name of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// Key that signed it.
    pub operator: &'a PeerId,
    /// His certifier, if the policy does not list him.
    pub certifier: Option<&'a PeerId>,
    /// Rises with each command of a key.
    pub sequence: u64,
    /// Distinguishes commands with one sequence.
    pub nonce: &'a [u8; 16],
}

/// The commands seen, per operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayWindow {
    /// The last second in which a command of an evicted key was valid; 0: none was evicted.
    forgotten: u64,
    operators: BTreeMap<PeerId, Operator>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Operator {
    /// Its certifier; none: the policy lists it, or did.
    certifier: Option<PeerId>,
    /// The highest sequence that left the window; 0 if none has.
    floor: u64,
    /// The last second in which one of its commands is valid.
    ends: u64,
    seen: BTreeSet<(u64, [u8; 16])>,
}

impl ReplayWindow {
    /// Makes an empty window.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether the command would be accepted; changes nothing, so it may precede the check
    /// of the signature.
    pub fn check(&self, name: Name<'_>, times: Times) -> Result<(), ReplayError> {
        if times.not_after <= self.forgotten {
            return Err(ReplayError::BelowWindow);
        }
        let Some(state) = self.operators.get(name.operator) else {
            return match name.sequence {
                0 => Err(ReplayError::BelowWindow),
                _ => self.room_for(name.certifier, times.now).map(|_| ()),
            };
        };
        let command = (name.sequence, *name.nonce);
        if name.sequence <= state.floor {
            return Err(ReplayError::BelowWindow);
        }
        if state.seen.contains(&command) {
            return Err(ReplayError::Replayed);
        }
        // a full window evicts the lowest, which must not be the new command
        match state.seen.first() {
            Some(lowest) if state.seen.len() >= WINDOW && command < *lowest => {
                Err(ReplayError::BelowWindow)
            }
            _ => Ok(()),
        }
    }

    /// Stores a command with a verified signature, unless [`Self::check`] refuses it.
    pub fn accept(&mut self, name: Name<'_>, times: Times) -> Result<(), ReplayError> {
        self.check(name, times)?;
        if !self.operators.contains_key(name.operator)
            && let Some((key, ends)) = self.room_for(name.certifier, times.now)?
        {
            self.operators.remove(&key);
            self.forgotten = self.forgotten.max(ends);
        }
        let state = self.operators.entry(*name.operator).or_default();
        // a key that was listed once no longer counts as its certifier's
        if state.seen.is_empty() || name.certifier.is_none() {
            state.certifier = name.certifier.copied();
        }
        state.ends = state.ends.max(times.not_after);
        state.seen.insert((name.sequence, *name.nonce));
        if state.seen.len() > WINDOW
            && let Some((lowest, _)) = state.seen.pop_first()
        {
            state.floor = lowest;
            // other commands with this sequence are below the floor now
            while state
                .seen
                .first()
                .is_some_and(|(sequence, _)| *sequence <= lowest)
            {
                state.seen.pop_first();
            }
        }
        Ok(())
    }

    /// Returns the key to evict for a new one, and the end of its newest command; none with room.
    fn room_for(
        &self,
        certifier: Option<&PeerId>,
        now: UnixTime,
    ) -> Result<Option<(PeerId, u64)>, ReplayError> {
        let like = |o: &Operator| o.certifier.is_some() == certifier.is_some();
        let of_same = |o: &Operator| certifier.is_some() && o.certifier.as_ref() == certifier;
        let count = |kind: &dyn Fn(&Operator) -> bool| {
            let all = self.operators.values();
            all.filter(|o| kind(o)).count()
        };
        let most = match certifier {
            None => MAX_LISTED,
            Some(_) => MAX_CERTIFIED,
        };
        let oldest = if count(&of_same) >= MAX_OF_CERTIFIER {
            self.outlived(now, of_same)
        } else if count(&like) >= most {
            self.outlived(now, like)
        } else {
            return Ok(None);
        };
        oldest.map(Some).ok_or(ReplayError::TooManyKeys)
    }

    /// Returns the key of a kind with the earliest end of its newest command, if that is long ago.
    fn outlived(&self, now: UnixTime, kind: impl Fn(&Operator) -> bool) -> Option<(PeerId, u64)> {
        let all = self.operators.iter().filter(|(_, o)| kind(o));
        let ends = all.map(|(key, o)| (*key, o.ends));
        ends.min_by_key(|(_, ends)| *ends)
            .filter(|(_, ends)| ends.saturating_add(MAX_AHEAD_S) < now.as_secs())
    }

    /// Encodes the snapshot that survives a restart.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        // `accept` keeps both counts below their bounds
        w.u8(VERSION)
            .u64(self.forgotten)
            .u16(self.operators.len() as u16);
        for (operator, state) in &self.operators {
            let certifier = state.certifier.as_ref().map(PeerId::public_key);
            w.put(operator.public_key())
                .put(certifier.unwrap_or(&NOBODY))
                .u64(state.floor)
                .u64(state.ends)
                .u16(state.seen.len() as u16);
            for (sequence, nonce) in &state.seen {
                w.u64(*sequence).put(nonce);
            }
        }
        let checksum = derive(CHECKSUM_CONTEXT, &[w.as_slice()]);
        w.put(&checksum);
        w.into_vec()
    }

    /// Decodes a snapshot; a truncated or changed file is refused as a whole.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(WireError::Truncated)?;
        if bytes.len() > MAX_SNAPSHOT {
            return Err(WireError::Trailing);
        }
        if derive(CHECKSUM_CONTEXT, &[body]) != *checksum {
            return Err(WireError::Bad("checksum"));
        }
        let mut r = Reader::new(body);
        let version = r.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let forgotten = r.u64()?;
        let mut operators = BTreeMap::new();
        for _ in 0..bounded(r.u16()?, MAX_KEYS)? {
            let operator = key(r.array()?)?;
            if operators
                .last_key_value()
                .is_some_and(|(last, _)| *last >= operator)
            {
                return Err(WireError::Bad("order"));
            }
            operators.insert(operator, Operator::decode(&mut r)?);
        }
        r.finish()?;
        Ok(Self {
            forgotten,
            operators,
        })
    }
}

impl Operator {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let certifier = Some(r.array()?).filter(|bytes| *bytes != NOBODY);
        let certifier = certifier.map(key).transpose()?;
        let (floor, ends) = (r.u64()?, r.u64()?);
        let mut seen = BTreeSet::new();
        for _ in 0..bounded(r.u16()?, WINDOW)? {
            let command = (r.u64()?, r.array()?);
            if command.0 <= floor || seen.last().is_some_and(|last| *last >= command) {
                return Err(WireError::Bad("order"));
            }
            seen.insert(command);
        }
        Ok(Self {
            certifier,
            floor,
            ends,
            seen,
        })
    }
}

fn key(bytes: [u8; 32]) -> Result<PeerId, WireError> {
    PeerId::from_public_key(bytes).map_err(|_| WireError::Bad("operator key"))
}

fn bounded(count: u16, most: usize) -> Result<u16, WireError> {
    if usize::from(count) > most {
        Err(WireError::Bad("count"))
    } else {
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn operator(n: u16) -> PeerId {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    const NONCE: [u8; 16] = [7; 16];
    const NOW: u64 = 1_800_000_000;
    const GOOD: Times = good_at(UnixTime::from_secs(NOW));

    /// Returns a command's name under a listed key.
    fn name<'a>(operator: &'a PeerId, sequence: u64, nonce: &'a [u8; 16]) -> Name<'a> {
        Name {
            operator,
            certifier: None,
            sequence,
            nonce,
        }
    }

    /// Returns times of a command that is valid for a minute.
    const fn good_at(now: UnixTime) -> Times {
        Times {
            not_after: now.as_secs() + 60,
            now,
        }
    }

    #[test]
    fn command_runs_once_in_whatever_order_it_comes() {
        let (mut window, key) = (ReplayWindow::new(), operator(1));
        for sequence in [5, 9, 1, 7] {
            assert_eq!(window.accept(name(&key, sequence, &NONCE), GOOD), Ok(()));
            assert_eq!(
                window.accept(name(&key, sequence, &NONCE), GOOD),
                Err(ReplayError::Replayed)
            );
        }
        // the same sequence drawn on another machine is another command
        assert_eq!(window.accept(name(&key, 9, &[8; 16]), GOOD), Ok(()));
        // operators do not disturb each other
        assert_eq!(window.accept(name(&operator(2), 9, &NONCE), GOOD), Ok(()));
        assert_eq!(
            window.accept(name(&key, 0, &NONCE), GOOD),
            Err(ReplayError::BelowWindow)
        );
        assert_eq!(
            window.accept(name(&operator(3), 0, &NONCE), GOOD),
            Err(ReplayError::BelowWindow)
        );
    }

    #[test]
    fn full_window_forgets_the_lowest_and_refuses_what_is_not_above() {
        let (mut window, key) = (ReplayWindow::new(), operator(1));
        let count = WINDOW as u64;
        for sequence in 10..10 + count {
            window.accept(name(&key, sequence, &NONCE), GOOD).unwrap();
        }
        // full: a lower command could be a replay
        assert_eq!(
            window.accept(name(&key, 9, &NONCE), GOOD),
            Err(ReplayError::BelowWindow)
        );
        assert_eq!(window.accept(name(&key, 10 + count, &NONCE), GOOD), Ok(()));
        assert_eq!(
            window.accept(name(&key, 10, &[9; 16]), GOOD),
            Err(ReplayError::BelowWindow)
        );
        assert_eq!(
            window.accept(name(&key, 11, &NONCE), GOOD),
            Err(ReplayError::Replayed)
        );
        assert_eq!(window.operators[&key].seen.len(), WINDOW);
    }

    fn certified<'a>(operator: &'a PeerId, certifier: &'a PeerId) -> Name<'a> {
        Name {
            certifier: Some(certifier),
            ..name(operator, 1, &NONCE)
        }
    }

    #[test]
    fn keys_are_bounded() {
        let mut window = ReplayWindow::new();
        for n in 0..MAX_LISTED as u16 {
            window.accept(name(&operator(n), 1, &NONCE), GOOD).unwrap();
        }
        let one_more = operator(MAX_LISTED as u16);
        assert_eq!(
            window.accept(name(&one_more, 1, &NONCE), GOOD),
            Err(ReplayError::TooManyKeys)
        );
        assert_eq!(window.accept(name(&operator(0), 2, &NONCE), GOOD), Ok(()));
    }

    #[test]
    fn keys_that_one_has_certified_keep_neither_listed_ones_out_nor_those_of_others() {
        let mut window = ReplayWindow::new();
        let (thief, other) = (operator(9_999), operator(9_998));
        let mut next = 0;
        let mut fill = |window: &mut ReplayWindow, certifier: &PeerId| {
            let mut taken = 0;
            for _ in 0..300 {
                next += 1;
                let accepted = window.accept(certified(&operator(next), certifier), GOOD);
                taken += usize::from(accepted.is_ok());
            }
            taken
        };
        assert_eq!(fill(&mut window, &thief), MAX_OF_CERTIFIER);
        // after a restart as well
        let mut window = ReplayWindow::decode(&window.encode()).unwrap();
        assert_eq!(fill(&mut window, &thief), 0);
        assert_eq!(fill(&mut window, &other), MAX_OF_CERTIFIER);
        assert_eq!(fill(&mut window, &operator(9_997)), 0, "all are taken");
        for n in 20_000..20_000 + MAX_LISTED as u16 {
            window.accept(name(&operator(n), 1, &NONCE), GOOD).unwrap();
        }
    }

    #[test]
    fn key_whose_commands_have_long_expired_makes_room_and_none_of_them_runs_again() {
        let mut window = ReplayWindow::new();
        for n in 0..MAX_LISTED as u16 {
            let times = good_at(UnixTime::from_secs(NOW + u64::from(n)));
            window.accept(name(&operator(n), 1, &NONCE), times).unwrap();
        }
        let (first, one_more) = (operator(0), operator(MAX_LISTED as u16));
        // newer commands keep a key
        window
            .accept(
                name(&operator(1), 2, &NONCE),
                good_at(UnixTime::from_secs(NOW + 999)),
            )
            .unwrap();
        let ended = NOW + 60;
        let too_early = good_at(UnixTime::from_secs(ended + MAX_AHEAD_S));
        assert_eq!(
            window.accept(name(&one_more, 1, &NONCE), too_early),
            Err(ReplayError::TooManyKeys)
        );
        let later = good_at(UnixTime::from_secs(ended + MAX_AHEAD_S + 1));
        window.accept(name(&one_more, 1, &NONCE), later).unwrap();
        assert_eq!(window.operators.len(), MAX_LISTED);
        assert!(!window.operators.contains_key(&first));
        // the clock is set back, after a restart too
        let restarted = ReplayWindow::decode(&window.encode()).unwrap();
        for mut window in [window, restarted] {
            assert_eq!(
                window.accept(name(&first, 1, &NONCE), GOOD),
                Err(ReplayError::BelowWindow)
            );
            // the key returns
            let again = good_at(UnixTime::from_secs(ended + MAX_AHEAD_S + 9));
            window.accept(name(&first, 2, &NONCE), again).unwrap();
            assert_eq!(
                window.accept(name(&first, 1, &NONCE), GOOD),
                Err(ReplayError::BelowWindow)
            );
            assert!(window.operators.contains_key(&operator(1)));
        }
    }

    #[test]
    fn replay_is_refused_after_a_restart() {
        let (mut window, key) = (ReplayWindow::new(), operator(1));
        for sequence in 1..2000 {
            window.accept(name(&key, sequence, &NONCE), GOOD).unwrap();
        }
        let mut window = ReplayWindow::decode(&window.encode()).unwrap();
        for sequence in 1..2000 {
            assert!(
                window.accept(name(&key, sequence, &NONCE), GOOD).is_err(),
                "{sequence}"
            );
        }
        assert_eq!(window.accept(name(&key, 2000, &NONCE), GOOD), Ok(()));
    }

    #[test]
    fn largest_snapshot_is_read_back() {
        let key = operator(1);
        let mut window = ReplayWindow::new();
        for n in 0..MAX_KEYS as u16 {
            let certifier = operator(10_000 + n / MAX_OF_CERTIFIER as u16);
            let id = operator(n);
            let name = match usize::from(n) {
                0..MAX_LISTED => name(&id, 1, &NONCE),
                _ => certified(&id, &certifier),
            };
            window.accept(name, GOOD).unwrap();
        }
        let full: Operator = Operator {
            certifier: None,
            floor: 0,
            ends: 0,
            seen: (1..=WINDOW as u64).map(|s| (s, NONCE)).collect(),
        };
        for state in window.operators.values_mut() {
            *state = full.clone();
        }
        let bytes = window.encode();
        assert_eq!(bytes.len(), MAX_SNAPSHOT);
        assert_eq!(ReplayWindow::decode(&bytes).unwrap().operators[&key], full);
    }

    /// Appends a valid checksum, so that later checks are reached.
    fn sealed(body: &[u8]) -> Vec<u8> {
        [body, &derive(CHECKSUM_CONTEXT, &[body])].concat()
    }

    #[test]
    fn snapshot_that_breaks_the_rules_is_refused_although_its_checksum_fits() {
        let key = operator(1);
        let one = |floor: u64, sequences: &[u64]| {
            let mut w = Writer::new();
            w.u8(VERSION)
                .u64(0)
                .u16(1)
                .put(key.public_key())
                .put(&NOBODY)
                .u64(floor)
                .u64(0)
                .u16(sequences.len() as u16);
            for s in sequences {
                w.u64(*s).put(&NONCE);
            }
            sealed(w.as_slice())
        };
        assert!(ReplayWindow::decode(&one(1, &[2, 3])).is_ok());
        assert_eq!(
            ReplayWindow::decode(&one(1, &[3, 2])),
            Err(WireError::Bad("order"))
        );
        assert_eq!(
            ReplayWindow::decode(&one(1, &[2, 2])),
            Err(WireError::Bad("order"))
        );
        assert_eq!(
            ReplayWindow::decode(&one(2, &[2])),
            Err(WireError::Bad("order"))
        );
        let too_many: Vec<u64> = (1..=WINDOW as u64 + 1).collect();
        assert_eq!(
            ReplayWindow::decode(&one(0, &too_many)),
            Err(WireError::Bad("count"))
        );
        for other in [0, 2] {
            assert_eq!(
                ReplayWindow::decode(&sealed(&[other, 0, 0])),
                Err(WireError::Version(other))
            );
        }
        let of_keys = |rest: &[u8]| {
            let body = [&[VERSION][..], &[0; 8], rest].concat();
            ReplayWindow::decode(&sealed(&body))
        };
        assert_eq!(of_keys(&[0, 0]), Ok(ReplayWindow::new()));
        assert_eq!(of_keys(&[0, 0, 0]), Err(WireError::Trailing));
        assert_eq!(of_keys(&[0]), Err(WireError::Truncated));
        assert_eq!(of_keys(&[0xff, 0xff]), Err(WireError::Bad("count")));
    }

    proptest! {
        #[test]
        fn snapshot_round_trips(commands in prop::collection::vec((0_u16..4, 1_u64..40, any::<bool>()), 0..64)) {
            let mut window = ReplayWindow::new();
            for (n, sequence, other) in commands {
                let _ = window.accept(name(&operator(n), sequence, &[u8::from(other); 16]), GOOD);
            }
            prop_assert_eq!(ReplayWindow::decode(&window.encode()), Ok(window));
        }

        #[test]
        fn changed_snapshot_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut window = ReplayWindow::new();
            window.accept(name(&operator(1), 1, &NONCE), GOOD).unwrap();
            let mut bytes = window.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(ReplayWindow::decode(&bytes).is_err());
            bytes.truncate(at);
            prop_assert!(ReplayWindow::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReplayWindow::decode(&body);
            let _ = ReplayWindow::decode(&sealed(&body));
        }

        /// Each is accepted at most once, in any order and with any repeats.
        #[test]
        fn nothing_is_accepted_twice(sequences in prop::collection::vec(1_u64..3000, 0..3000)) {
            let (mut window, key) = (ReplayWindow::new(), operator(1));
            let mut ran = BTreeSet::new();
            for sequence in sequences {
                if window.accept(name(&key, sequence, &NONCE), GOOD).is_ok() {
                    prop_assert!(ran.insert(sequence), "{} ran twice", sequence);
                }
                prop_assert!(window.operators.get(&key).is_none_or(|o| o.seen.len() <= WINDOW));
            }
        }
    }
}
