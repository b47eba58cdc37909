//! Choice of a share's version among received records.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::id::PeerId;
use librecast::time::{Duration, Instant};

use crate::block::BlockHash;
use crate::record::Record;
use crate::signature::Trust;
use crate::tree::Stream;

/// Silence of a server that ends its hold on the receiver: 15 records at five a second.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Most unreachable versions stored.
const MAX_UNREACHABLE: usize = 64;

/// Times in a row that a left host may return with a newer version without agreeing.
const MAX_RETURNS: u8 = 1;

/// Meaning of a record for the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The first version, or the version in hand again.
    Current,
    /// Another version takes its place: received content is checked against it.
    Changed,
    /// Not taken: another server has another version of the same name. Reported once.
    Conflict,
    /// Not taken: this host and the followed one differ under one key. Reported once.
    Rival,
    /// Not taken: not signed by the trusted key. Reported once.
    Untrusted,
    /// Not taken: older than a version that this host has had. Reported once.
    RolledBack,
    /// Not taken, for one of these reasons again, or as it is no newer.
    Ignored,
}

/// Proof that records are genuine.
#[derive(Debug)]
pub enum Proof {
    /// The share has neither key nor signer.
    None,
    /// They were sealed with the share's key.
    Sealed,
    /// This key has signed them.
    Signed(Trust),
}

/// The version in hand.
#[derive(Debug)]
pub struct Choice {
    pinned: Option<BlockHash>,
    proof: Proof,
    record: Option<Record>,
    /// The highest proven generation: older ones are not taken.
    generation: u64,
    /// The highest generation of earlier runs: older ones are not taken.
    floor: u64,
    /// Records refused because their generation is below `floor`.
    rolled_back: u64,
    /// Source address of that record.
    from: Ipv6Addr,
    last_record: Instant,
    conflict_said: bool,
    /// The host left last for another's newer version, until both agree.
    left: Option<Ipv6Addr>,
    /// Times in a row that such a host returned.
    returns: u8,
    /// Records that the trusted key has not signed.
    untrusted: u64,
    /// Versions of which nothing came: taken only if no other is there.
    unreachable: VecDeque<(BlockHash, Stream)>,
}

/// Returns the identity of a version.
fn content_of(record: &Record) -> (BlockHash, Stream) {
    (record.root.hash, record.metadata)
}

impl Choice {
    /// Starts without a version; with `pinned`, only that root hash is taken. Of proven versions,
    /// none below generation `floor` is taken, unless it is pinned.
    #[must_use]
    pub fn new(pinned: Option<BlockHash>, proof: Proof, floor: u64, now: Instant) -> Self {
        Self {
            pinned,
            proof,
            record: None,
            generation: 0,
            floor: if pinned.is_some() { 0 } else { floor },
            rolled_back: 0,
            from: Ipv6Addr::UNSPECIFIED,
            last_record: now,
            conflict_said: false,
            left: None,
            returns: 0,
            untrusted: 0,
            unreachable: VecDeque::new(),
        }
    }

    /// The newest record of the version in hand, by the followed server: it also sets the limits.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Address of the followed server.
    #[must_use]
    pub fn from(&self) -> Ipv6Addr {
        self.from
    }

    /// Marks the version in hand, of which nothing comes: any other takes its place.
    pub fn mark_unreachable(&mut self) {
        let Some(record) = &self.record else { return };
        let content = content_of(record);
        if !self.unreachable.contains(&content) {
            if self.unreachable.len() == MAX_UNREACHABLE {
                self.unreachable.pop_front();
            }
            self.unreachable.push_back(content);
        }
    }

    /// The trusted key, and the number of records refused for want of its signature.
    #[must_use]
    pub fn trust(&self) -> Option<(&PeerId, u64)> {
        match &self.proof {
            Proof::Signed(trust) => Some((trust.key(), self.untrusted)),
            _ => None,
        }
    }

    /// The highest proven generation, to be stored; 0 without proof.
    #[must_use]
    pub fn proven(&self) -> u64 {
        if self.is_proven() { self.generation } else { 0 }
    }

    /// Records refused as older than a version that this host has had.
    #[must_use]
    pub fn rolled_back(&self) -> u64 {
        self.rolled_back
    }

    fn is_proven(&self) -> bool {
        !matches!(self.proof, Proof::None)
    }

    /// Handles a record.
    pub fn handle(&mut self, record: &Record, from: Ipv6Addr, now: Instant) -> Decision {
        if let Proof::Signed(trust) = &mut self.proof
            && !trust.accepts(record, now)
        {
            self.untrusted += 1;
            return if self.untrusted == 1 {
                Decision::Untrusted
            } else {
                Decision::Ignored
            };
        }
        if self.pinned.is_some_and(|pinned| pinned != record.root.hash) {
            return self.conflict();
        }
        if self.is_proven() && record.generation < self.floor {
            self.rolled_back += 1;
            return if self.rolled_back == 1 {
                Decision::RolledBack
            } else {
                Decision::Ignored
            };
        }
        let Some(current) = &self.record else {
            self.follow(record, from, now);
            return Decision::Current;
        };
        let followed = record.server == current.server && from == self.from;
        if record.root == current.root && record.metadata == current.metadata {
            if self.left == Some(from) {
                (self.left, self.returns) = (None, 0);
            }
            // an origin publishes the next version, and a carrier only repeats it
            let better = record.carries.is_none() && current.carries.is_some();
            if followed || better || self.is_orphaned(record, now) {
                self.follow(record, from, now);
            } else if self.is_proven() {
                self.generation = self.generation.max(record.generation);
            }
            return Decision::Current;
        }
        let newer = if self.is_proven() {
            record.generation > self.generation
        } else {
            self.is_orphaned(record, now) || (followed && record.generation > current.generation)
        };
        let (same_files, same_server) =
            (record.root == current.root, record.server == current.server);
        let rivals = self.is_proven() && record.generation == self.generation && !same_files;
        // one server may have several addresses
        if !same_server && (rivals || newer && self.alternates(from, now)) {
            return self.once(Decision::Rival);
        }
        if newer {
            self.follow(record, from, now);
            return Decision::Changed;
        }
        // an older version, the same files with other times, or a delayed record
        let older = self.is_proven() && record.generation < self.generation;
        if older || same_files || same_server {
            return Decision::Ignored;
        }
        self.conflict()
    }

    /// Whether two present hosts publish newer versions in turn, and never the same: copies of one
    /// host with its keys, whose files differ. Following both would never end.
    fn alternates(&mut self, from: Ipv6Addr, now: Instant) -> bool {
        let gone = now.saturating_duration_since(self.last_record) >= SERVER_TIMEOUT;
        if !self.is_proven() || from == self.from {
            return false;
        }
        let returns = self.left == Some(from) && !gone;
        if returns && self.returns >= MAX_RETURNS {
            return true;
        }
        self.returns = if returns { self.returns + 1 } else { 0 };
        self.left = Some(self.from);
        false
    }

    /// Whether the followed server is gone, or its version unreachable and this one may be better.
    /// A present server alone may replace its unsigned version: its number is public, so its
    /// address counts.
    fn is_orphaned(&self, record: &Record, now: Instant) -> bool {
        let is_unreachable = |record| self.unreachable.contains(&content_of(record));
        now.saturating_duration_since(self.last_record) >= SERVER_TIMEOUT
            || self
                .record
                .as_ref()
                .is_some_and(|c| is_unreachable(c) && !is_unreachable(record))
    }

    fn follow(&mut self, record: &Record, from: Ipv6Addr, now: Instant) {
        self.generation = self.generation.max(record.generation);
        self.record = Some(record.clone());
        (self.from, self.last_record) = (from, now);
    }

    fn conflict(&mut self) -> Decision {
        self.once(Decision::Conflict)
    }

    fn once(&mut self, decision: Decision) -> Decision {
        if std::mem::replace(&mut self.conflict_said, true) {
            Decision::Ignored
        } else {
            decision
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockRef;
    use crate::record::tests::record as plain;
    use crate::signature::sign;
    use librecast::id::SecretKey;

    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn record(server: u32, generation: u64, root: u8) -> Record {
        let plain = plain(server, generation);
        let hash = BlockHash([root; 32]);
        Record {
            root: BlockRef { hash, ..plain.root },
            ..plain
        }
    }

    fn owner() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn signed(server: u32, generation: u64, root: u8) -> Record {
        let record = record(server, generation, root);
        Record {
            authentication: sign(&owner(), "photos", &record.version()),
            ..record
        }
    }

    fn trusting(now: Instant) -> Choice {
        let trust = Trust::new(owner().peer_id(), "photos", now);
        Choice::new(None, Proof::Signed(trust), 0, now)
    }

    #[test]
    fn the_first_version_counts_and_a_conflict_is_said_once() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::None, 0, now);
        assert_eq!(
            choice.handle(&record(1, 5, 1), host(1), now),
            Decision::Current
        );
        assert_eq!(
            choice.handle(&record(2, 9, 2), host(2), now),
            Decision::Conflict
        );
        assert_eq!(
            choice.handle(&record(2, 9, 2), host(2), now),
            Decision::Ignored
        );
        assert_eq!(
            choice.handle(&record(3, 1, 1), host(3), now),
            Decision::Current
        );
    }

    #[test]
    fn a_newer_generation_of_the_same_server_replaces_an_older_does_not() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::None, 0, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!(
            choice.handle(&record(1, 4, 2), host(1), now),
            Decision::Ignored
        );
        assert_eq!(
            choice.handle(&record(1, 6, 2), host(1), now),
            Decision::Changed
        );
        assert_eq!(choice.record().unwrap().generation, 6);
    }

    #[test]
    fn nobody_replaces_or_slows_a_server_under_its_number() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::None, 0, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        let taken_over = choice.handle(&record(1, 6, 2), host(9), now);
        assert_eq!(taken_over, Decision::Ignored);
        let slowed = Record {
            channel_rate: 1_000,
            slow_rate: 0,
            ..record(1, 6, 1)
        };
        assert_eq!(choice.handle(&slowed, host(9), now), Decision::Current);
        assert_eq!(choice.record(), Some(&record(1, 5, 1)));
    }

    #[test]
    fn another_server_of_the_same_version_is_followed_when_the_first_is_gone() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::None, 0, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        let later = now + SERVER_TIMEOUT;
        choice.handle(&record(2, 3, 1), host(2), later);
        let changed = choice.handle(&record(2, 4, 2), host(2), later);
        assert_eq!(changed, Decision::Changed);
    }

    #[test]
    fn when_the_server_is_gone_another_version_is_taken() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::None, 0, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!(
            choice.handle(&record(2, 1, 2), host(2), now + SERVER_TIMEOUT),
            Decision::Changed
        );
    }

    #[test]
    fn a_version_of_which_nothing_comes_gives_way_to_another() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::None, 0, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        choice.mark_unreachable();
        let same = choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!(same, Decision::Current);
        let other = choice.handle(&record(2, 5, 2), host(2), now);
        assert_eq!(other, Decision::Changed);
        let back = choice.handle(&record(1, 5, 1), host(1), now);
        assert_ne!(back, Decision::Changed);
    }

    #[test]
    fn a_pinned_root_admits_no_other() {
        let now = Instant::now();
        let mut choice = Choice::new(Some(BlockHash([7; 32])), Proof::None, 0, now);
        assert_eq!(
            choice.handle(&record(1, 5, 1), host(1), now),
            Decision::Conflict
        );
        assert!(choice.record().is_none());
        assert_eq!(
            choice.handle(&record(2, 5, 7), host(2), now),
            Decision::Current
        );
        assert_eq!(
            choice.handle(&record(2, 6, 8), host(2), now + SERVER_TIMEOUT * 2),
            Decision::Ignored
        );
    }

    #[test]
    fn who_trusts_a_key_takes_nothing_else_and_is_told_once() {
        let now = Instant::now();
        let mut choice = trusting(now);
        let forged = Record {
            authentication: sign(
                &SecretKey::from_seed(&[2; 32]),
                "photos",
                &record(1, 9, 9).version(),
            ),
            ..record(1, 9, 9)
        };
        let heard = [&forged, &record(1, 9, 9), &signed(2, 5, 1), &forged];
        let decisions = heard.map(|r| choice.handle(r, host(1), now));
        let expected = [
            Decision::Untrusted,
            Decision::Ignored,
            Decision::Current,
            Decision::Ignored,
        ];
        assert_eq!(decisions, expected);
        assert_eq!(choice.trust().unwrap().1, 3);
        let later = now + SERVER_TIMEOUT * 2;
        let silent = choice.handle(&forged, host(1), later);
        assert_eq!(
            silent,
            Decision::Ignored,
            "not even when the server is gone"
        );
    }

    #[test]
    fn the_higher_signed_generation_wins_at_once_and_is_not_left_again() {
        let now = Instant::now();
        let mut choice = trusting(now);
        choice.handle(&signed(1, 5, 1), host(1), now);
        let newer = choice.handle(&signed(2, 6, 2), host(2), now);
        assert_eq!(newer, Decision::Changed);
        for at in [now, now + SERVER_TIMEOUT * 2] {
            let older = choice.handle(&signed(1, 5, 1), host(1), at);
            assert_eq!(older, Decision::Ignored);
        }
        assert_eq!(choice.record().unwrap().generation, 6);
    }

    #[test]
    fn two_copies_of_a_host_that_have_parted_are_told_and_one_is_stayed_with() {
        let now = Instant::now();
        let mut choice = trusting(now);
        let say = |choice: &mut Choice, n: u16, generation, root| {
            choice.handle(&signed(n.into(), generation, root), host(n), now)
        };
        say(&mut choice, 1, 1, 1);
        assert_eq!(say(&mut choice, 2, 2, 2), Decision::Changed);
        assert_eq!(say(&mut choice, 1, 3, 3), Decision::Changed);
        assert_eq!(say(&mut choice, 2, 4, 4), Decision::Rival);
        assert_eq!(say(&mut choice, 2, 5, 5), Decision::Ignored, "said once");
        assert_eq!(choice.from(), host(1));
        assert_eq!(
            say(&mut choice, 1, 6, 6),
            Decision::Changed,
            "its own go on"
        );
        assert_eq!(say(&mut choice, 2, 7, 7), Decision::Ignored);
        // they agree again, and then one of them ends
        assert_eq!(say(&mut choice, 2, 6, 6), Decision::Current);
        assert_eq!(say(&mut choice, 2, 8, 8), Decision::Changed);
        let later = now + SERVER_TIMEOUT;
        let other = choice.handle(&signed(1, 9, 9), host(1), later);
        assert_eq!(other, Decision::Changed);
    }

    #[test]
    fn servers_that_say_the_same_sooner_or_later_take_turns_as_they_like() {
        let now = Instant::now();
        let mut choice = trusting(now);
        choice.handle(&signed(1, 1, 1), host(1), now);
        for n in 2..40_u8 {
            let (first, second) = (u16::from(n % 2) + 1, u16::from(n + 1) % 2 + 1);
            let (generation, root) = (u64::from(n) * 10, n);
            let newest = signed(first.into(), generation, root);
            assert_eq!(choice.handle(&newest, host(first), now), Decision::Changed);
            let same = signed(second.into(), generation + 1, root);
            assert_eq!(choice.handle(&same, host(second), now), Decision::Current);
        }
    }

    #[test]
    fn one_generation_with_two_roots_under_one_key_is_two_hosts() {
        let now = Instant::now();
        let mut choice = trusting(now);
        choice.handle(&signed(1, 5, 1), host(1), now);
        let decision = choice.handle(&signed(2, 5, 2), host(2), now);
        assert_eq!(decision, Decision::Rival);
        assert_eq!(choice.record().unwrap().root.hash, BlockHash([1; 32]));
    }

    #[test]
    fn of_the_same_files_the_highest_generation_counts_whoever_is_followed() {
        let now = Instant::now();
        let mut choice = trusting(now);
        choice.handle(&signed(1, 5, 1), host(1), now);
        choice.handle(&signed(2, 7, 1), host(2), now);
        let between = choice.handle(&signed(1, 6, 2), host(1), now);
        assert_eq!(between, Decision::Ignored);
        let newest = choice.handle(&signed(1, 8, 2), host(1), now);
        assert_eq!(newest, Decision::Changed);
    }

    #[test]
    fn of_one_root_whose_metadata_does_not_come_another_servers_is_taken() {
        let now = Instant::now();
        let pinned = Some(BlockHash([7; 32]));
        let mut choice = Choice::new(pinned, Proof::None, 0, now);
        let forged = Record {
            metadata: Stream {
                length: 14,
                depth: 0,
                top: Some(BlockRef::of(b"14 bytes there")),
            },
            ..record(1, 9, 7)
        };
        choice.handle(&forged, host(9), now);
        let honest = record(2, 5, 7);
        assert_eq!(choice.handle(&honest, host(1), now), Decision::Ignored);
        choice.mark_unreachable();
        assert_eq!(choice.handle(&honest, host(1), now), Decision::Changed);
        assert_ne!(choice.handle(&forged, host(9), now), Decision::Changed);
    }

    #[test]
    fn what_was_recorded_long_ago_and_is_sent_again_is_not_taken() {
        let now = Instant::now();
        let signed_by_owner = || Proof::Signed(Trust::new(owner().peer_id(), "photos", now));
        for (proof, old, new) in [
            (signed_by_owner(), signed(1, 5, 1), signed(2, 6, 2)),
            (Proof::Sealed, record(1, 5, 1), record(2, 6, 2)),
        ] {
            let mut choice = Choice::new(None, proof, 6, now);
            let heard = [&old, &old].map(|r| choice.handle(r, host(1), now));
            assert_eq!(heard, [Decision::RolledBack, Decision::Ignored]);
            assert_eq!((choice.record(), choice.rolled_back()), (None, 2));
            assert_eq!(choice.handle(&new, host(2), now), Decision::Current);
            assert_eq!(choice.proven(), 6);
        }
        // a pinned root hash permits an old version
        let pinned = Some(BlockHash([1; 32]));
        let mut choice = Choice::new(pinned, signed_by_owner(), 6, now);
        let old = choice.handle(&signed(1, 5, 1), host(1), now);
        assert_eq!(old, Decision::Current);
        // a generation without proof excludes nobody
        let mut choice = Choice::new(None, Proof::None, 6, now);
        let plain = choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!((plain, choice.proven()), (Decision::Current, 0));
    }

    #[test]
    fn of_sealed_versions_the_highest_counts_whoever_is_heard_first() {
        let now = Instant::now();
        let mut choice = Choice::new(None, Proof::Sealed, 0, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        let newer = choice.handle(&record(2, 6, 2), host(2), now);
        assert_eq!(newer, Decision::Changed);
        for at in [now, now + SERVER_TIMEOUT * 2] {
            let replayed = choice.handle(&record(1, 5, 1), host(1), at);
            assert_eq!(replayed, Decision::Ignored);
        }
    }
}
