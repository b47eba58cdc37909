//! The epochs that a node knows ([`librecast::epoch`]), for its records, searches and links.
//!
//! ```text
//! revoke here  -> epoch n+1, signed             token -> number and secret, unsigned until a link
//!                    |                            |        brings the signed epoch
//! links  ------>  Epochs: the newest of the network's key and of issuers not expelled counts,
//!                    |     all others are former
//!                    |
//! links of all members not expelled: all known epochs at link up, then each new one
//! ```
//!
//! An epoch of an expelled issuer never becomes the newest. If known before, it stays a former one:
//! members that are away may publish under it. An epoch of an issuer whose certificate has ended is
//! stored where known, but accepted from no neighbour: it may be made later. Two halves of a split
//! network may expel members at the same time. Then one of the two epochs wins in both halves, and
//! the issuer of the other makes a further one, since its expelled node may know the winner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lcroute_engine::control::MAX_EPOCHS;
use lcroute_overlay::RendezvousEpochs;
use librecast::bucket::{Bucket, Rate};
use librecast::epoch::{Epoch, EpochSecret};
use librecast::id::{LinkId, NetworkId, PeerId};
use librecast::revocation::Revocation;
use librecast::time::{Instant, UnixTime};
use librecast::wire::{Reader, WireError};
use zeroize::Zeroizing;

use crate::drops::DropReason;
use crate::revocations::MAX_REVOCATIONS;

/// Maximum number of stored signed epochs. Chosen: records of members that missed as many
/// expulsions are found; each epoch costs a trial per record.
pub const MAX_KEPT: usize = 32;
/// Maximum number of epochs for a new link. Chosen: 700 bytes each, they fill one control message.
const MAX_SENT: usize = 16;
/// Rate of verified epochs per neighbour; each costs three signatures, a write to disk and a
/// message per link. Chosen: the expulsion of a whole site at once, then one a second.
const RATE: Rate = Rate::per_second(1, 64);
/// Bound of bytes that wait per neighbour. Chosen: the longest message, and as much again.
const MAX_WAITING: usize = 2 * MAX_EPOCHS;
/// First word of the state file's line with the epoch of a token.
const OF_TOKEN: &str = "token";

/// The epochs that a node knows.
#[derive(Debug, Clone)]
pub struct Epochs {
    network: NetworkId,
    /// The valid epochs, newest first, then epochs of expelled issuers.
    signed: Vec<Epoch>,
    of_token: Option<(u32, EpochSecret)>,
    /// Issuers whose epochs are not valid.
    expelled: BTreeSet<PeerId>,
}

impl Epochs {
    /// Returns the epochs of a node that knows none.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            signed: Vec::new(),
            of_token: None,
            expelled: BTreeSet::new(),
        }
    }

    /// Parses the state file's text; skips and counts lines that are damaged or of another network.
    pub fn parse(text: &str, network: NetworkId) -> (Self, usize) {
        let (mut all, mut damaged) = (Self::new(network), 0);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if all.read_line(line).is_none() {
                damaged += 1;
            }
        }
        (all, damaged)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        if let Some(of_token) = line.strip_prefix(OF_TOKEN) {
            let mut words = of_token.split_whitespace();
            let network: NetworkId = words.next()?.parse().ok()?;
            let number = words.next()?.parse().ok()?;
            let mut secret = Zeroizing::new([0; 32]);
            let length = bs58::decode(words.next()?).onto(&mut *secret).ok()?;
            if length != secret.len() || network != self.network {
                return None;
            }
            self.set_of_token(number, EpochSecret::new(*secret));
            return Some(());
        }
        let bytes = Zeroizing::new(bs58::decode(line.trim()).into_vec().ok()?);
        let epoch = Epoch::decode(&bytes).ok()?;
        epoch.verify(&self.network).ok()?;
        self.add(epoch);
        Some(())
    }

    /// Returns the state file's text, which contains secrets.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for epoch in &self.signed {
            *text += &Zeroizing::new(bs58::encode(epoch.as_bytes()).into_string());
            text.push('\n');
        }
        if let Some((number, secret)) = &self.of_token {
            let secret = Zeroizing::new(bs58::encode(secret.bytes()).into_string());
            *text += &format!("{OF_TOKEN} {} {number} ", self.network);
            *text += &secret;
            text.push('\n');
        }
        text
    }

    /// Stores the epoch of a token.
    pub fn set_of_token(&mut self, number: u32, secret: EpochSecret) {
        let is_signed = |epoch: &Epoch| *epoch.secret() == secret;
        if !self.signed.iter().any(is_signed) {
            self.of_token = Some((number, secret));
        }
    }

    /// Returns the number of the newest epoch; 0: no expulsion yet.
    pub fn number(&self) -> u32 {
        self.newest().map_or(0, |(number, _)| number)
    }

    /// Returns number and secret of the newest epoch, for a token.
    pub fn newest(&self) -> Option<(u32, EpochSecret)> {
        let signed = self.newest_signed();
        let of_token = self.of_token.as_ref();
        let of_token = of_token.filter(|(number, _)| signed.is_none_or(|e| e.number() < *number));
        let signed = signed.map(|epoch| (epoch.number(), epoch.secret().clone()));
        of_token.cloned().or(signed)
    }

    /// Returns the next number, and the last epoch's hash. None: an issuer used up all numbers.
    pub fn next(&self) -> Option<(u32, [u8; 32])> {
        let before = self.newest_signed().map(|epoch| *epoch.hash());
        Some((self.number().checked_add(1)?, before.unwrap_or_default()))
    }

    /// Returns the epochs from which names and keys of presence records follow.
    pub fn rendezvous(&self) -> RendezvousEpochs {
        let newest = self.newest();
        let of_token = self.of_token.iter().map(|(_, secret)| secret);
        let known = self.signed.iter().map(Epoch::secret).chain(of_token);
        let mut secrets: Vec<EpochSecret> = Vec::new();
        for secret in newest.iter().map(|(_, secret)| secret).chain(known) {
            if !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        }
        RendezvousEpochs::with(self.network, secrets.into_iter())
    }

    /// Returns all signed epochs.
    pub fn iter(&self) -> impl Iterator<Item = &Epoch> {
        self.signed.iter()
    }

    /// Stores a verified epoch; false if it is known, or older than `MAX_KEPT` others.
    pub fn add(&mut self, epoch: Epoch) -> bool {
        if self.knows(&epoch) {
            return false;
        }
        self.expel(epoch.revocation());
        let hash = *epoch.hash();
        let is_same = |(_, secret): &mut (u32, EpochSecret)| secret == epoch.secret();
        self.of_token.take_if(is_same);
        self.signed.push(epoch);
        self.sort();
        self.signed.truncate(MAX_KEPT);
        self.signed.iter().any(|kept| *kept.hash() == hash)
    }

    /// Invalidates the epochs of an issuer that the network's key expels.
    pub fn expel(&mut self, revocation: &Revocation) {
        let signed = |key| self.signed.iter().any(|epoch| epoch.signer() == key);
        // an issuer cannot expel another one, and nodes sign no epochs
        if revocation.is_by_network()
            && (signed(revocation.key()) || self.expelled.len() < MAX_REVOCATIONS)
            && self.expelled.insert(revocation.key())
        {
            self.sort();
        }
    }

    fn is_refused(&self, epoch: &Epoch) -> bool {
        self.expelled.contains(&epoch.signer())
    }

    fn knows(&self, epoch: &Epoch) -> bool {
        self.signed.iter().any(|kept| kept.hash() == epoch.hash())
    }

    fn newest_signed(&self) -> Option<&Epoch> {
        let first = self.signed.first();
        first.filter(|epoch| !self.is_refused(epoch))
    }

    fn sort(&mut self) {
        let expelled = &self.expelled;
        let counts = |epoch: &Epoch| !expelled.contains(&epoch.signer());
        self.signed
            .sort_by(|a, b| (counts(b), b).cmp(&(counts(a), a)));
    }

    /// Returns the revocation of the last epoch of `own`, if the newest epoch does not follow that
    /// one: its issuer did not know of it.
    pub(crate) fn overtaken(&self, own: &PeerId) -> Option<Revocation> {
        let newest = self.newest_signed()?;
        let made = self.signed.iter().filter(|epoch| epoch.signer() == *own);
        let made = made.max()?;
        let by_hash: BTreeMap<_, _> = self.signed.iter().map(|e| (*e.hash(), e)).collect();
        let mut at = Some(newest);
        while let Some(epoch) = at {
            if epoch == made {
                return None;
            }
            // numbers decrease, so the loop ends for any signed epochs
            let before = by_hash.get(epoch.before()).copied();
            at = before.filter(|before| before.number() < epoch.number());
        }
        Some(made.revocation().clone())
    }

    /// Returns the message for a new link: the newest epochs that fit, oldest first.
    pub(crate) fn to_send(&self) -> Option<Bytes> {
        let mut left = MAX_EPOCHS;
        let fits = |epoch: &&Epoch| {
            let taken = epoch.as_bytes().len() + 2;
            left.checked_sub(taken).map(|rest| left = rest).is_some()
        };
        let counts = self.signed.iter().filter(|epoch| !self.is_refused(epoch));
        let newest: Vec<_> = counts.take(MAX_SENT).take_while(fits).collect();
        (!newest.is_empty()).then(|| message(newest.into_iter().rev()))
    }
}

pub(crate) fn message<'a>(epochs: impl Iterator<Item = &'a Epoch>) -> Bytes {
    let mut bytes = Vec::new();
    for epoch in epochs {
        let length = epoch.as_bytes().len() as u16; // MAX_EPOCH is less
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(epoch.as_bytes());
    }
    bytes.into()
}

/// Rate limits of neighbours' epochs.
#[derive(Debug, Default)]
pub(crate) struct EpochIntake(BTreeMap<LinkId, Intake>);

#[derive(Debug)]
struct Intake {
    bucket: Bucket,
    /// Messages beyond the rate, the latest last; at most [`MAX_WAITING`] bytes.
    waiting: VecDeque<Bytes>,
}

impl Intake {
    /// Lets a message wait; the earliest make room.
    fn wait(&mut self, message: Bytes) {
        self.waiting.push_back(message);
        let mut bytes: usize = self.waiting.iter().map(Bytes::len).sum();
        while bytes > MAX_WAITING
            && let Some(earliest) = self.waiting.pop_front()
        {
            bytes -= earliest.len();
        }
    }
}

impl EpochIntake {
    /// Returns a neighbour's new, verified epochs in their order. Those beyond the rate wait.
    pub(crate) fn receive(
        &mut self,
        (link, bytes): (LinkId, &Bytes),
        known: &Epochs,
        (time, now): (UnixTime, Instant),
    ) -> (Vec<Epoch>, Vec<DropReason>) {
        let intake = self.0.entry(link).or_insert_with(|| Intake {
            bucket: Bucket::full(now),
            waiting: VecDeque::new(),
        });
        let (mut new, mut drops) = (Vec::new(), Vec::new());
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            let rest = bytes.slice_ref(r.rest());
            let Ok(epoch) = read(&mut r) else {
                drops.push(DropReason::EpochMalformed);
                break;
            };
            if known.knows(&epoch) {
                continue;
            }
            if !intake.bucket.take(RATE, 1, now) {
                drops.push(DropReason::EpochLimited);
                intake.wait(rest);
                break;
            }
            if known.is_refused(&epoch) || epoch.is_over(time) {
                drops.push(DropReason::EpochRefused);
            } else if epoch.verify(&known.network).is_err() {
                drops.push(DropReason::EpochForged);
            } else {
                new.push(epoch);
            }
        }
        (new, drops)
    }

    pub(crate) fn forget(&mut self, link: LinkId) {
        self.0.remove(&link);
    }

    /// Returns the time at which a waiting message can be handled.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|intake| !intake.waiting.is_empty());
        waiting.map(|intake| intake.bucket.next(RATE, 1)).min()
    }

    /// Returns the waiting messages that can be handled now, the latest of each neighbour.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(LinkId, Bytes)> {
        let ready = |intake: &mut Intake| match intake.bucket.ready(RATE, now) {
            true => intake.waiting.pop_back(),
            false => None,
        };
        let all = self.0.iter_mut();
        all.filter_map(|(link, intake)| Some((*link, ready(intake)?)))
            .collect()
    }
}

fn read(r: &mut Reader<'_>) -> Result<Epoch, WireError> {
    Epoch::decode(r.bytes16()?)
}

#[cfg(test)]
mod tests {
    use librecast::cert::{CLOCK_SKEW, Certificate, Grant, Kind};
    use librecast::id::SecretKey;
    use librecast::time::{Duration, UnixTime};

    use super::*;
    use crate::testing::{key, start};

    const NOW: u64 = 1_800_000_000;
    const LINK: LinkId = LinkId(1);

    /// The network's key is `key(1)`.
    fn network() -> NetworkId {
        key(1).peer_id()
    }

    fn issuer(n: u8) -> Certificate {
        let grant = Grant::new("", (NOW, NOW + 1_000));
        Certificate::sign(Kind::Issuer, network(), key(n).peer_id(), grant, &key(1)).unwrap()
    }

    fn revocation(of: u8) -> Revocation {
        Revocation::by_network(
            &key(1),
            key(of).peer_id(),
            UnixTime::from_secs(NOW),
            NOW + 1_000 + CLOCK_SKEW,
        )
        .unwrap()
    }

    /// Returns the next epoch of the issuer `by`, which expels `of`.
    fn next(known: &Epochs, by: u8, of: u8, secret: u8) -> Epoch {
        let (number, before) = known.next().unwrap();
        let made = (number, before, EpochSecret::new([secret; 32]));
        Epoch::sign(made, revocation(of), Some(&issuer(by)), &key(by)).unwrap()
    }

    fn expel(known: &mut Epochs, by: u8, of: u8, secret: u8) -> Epoch {
        let epoch = next(known, by, of, secret);
        assert!(known.add(epoch.clone()));
        epoch
    }

    fn secret(known: &Epochs) -> u8 {
        known
            .newest()
            .map_or(0, |(_, secret)| secret.bytes().to_owned()[0])
    }

    fn receive(known: &mut Epochs, message: &Bytes) -> Vec<DropReason> {
        let received = (LINK, message);
        let (new, drops) =
            EpochIntake::default().receive(received, known, (UnixTime::from_secs(NOW), start()));
        new.into_iter().for_each(|epoch| assert!(known.add(epoch)));
        drops
    }

    #[test]
    fn two_halves_that_expel_at_one_time_agree_and_the_loser_makes_another_epoch() {
        let mut left = Epochs::new(network());
        expel(&mut left, 2, 9, 1);
        let mut right = left.clone();
        // two on the left, so that its numbers are ahead
        let [a, b] = [expel(&mut left, 2, 10, 2), expel(&mut left, 2, 11, 3)];
        let c = expel(&mut right, 3, 12, 4);
        for epoch in [&a, &b] {
            assert_eq!(receive(&mut right, &message([epoch].into_iter())), []);
        }
        assert_eq!(receive(&mut left, &message([&c].into_iter())), []);
        assert_eq!((left.number(), secret(&left), secret(&right)), (3, 3, 3));
        assert_eq!(left.rendezvous().newest(), right.rendezvous().newest());
        assert_eq!(left.rendezvous().former().len(), 4, "three and epoch 0");
        // the node that the right expelled may have been on the left meanwhile
        assert_eq!(left.overtaken(&key(2).peer_id()), None);
        assert_eq!(
            right.overtaken(&key(3).peer_id()),
            Some(c.revocation().clone())
        );
        let d = expel(&mut right, 3, 12, 5);
        assert_eq!((d.number(), right.overtaken(&key(3).peer_id())), (4, None));
        assert_eq!(receive(&mut left, &message([&d].into_iter())), []);
        assert_eq!((left.number(), secret(&left)), (4, 5));
        assert_eq!(left.overtaken(&key(2).peer_id()), None, "it follows both");
    }

    #[test]
    fn of_one_number_both_halves_choose_the_same() {
        let mut left = Epochs::new(network());
        let mut right = left.clone();
        let a = expel(&mut left, 2, 10, 2);
        let b = expel(&mut right, 3, 11, 3);
        assert_eq!(
            (left.overtaken(&key(2).peer_id()), a.number()),
            (None, b.number())
        );
        receive(&mut left, &right.to_send().unwrap());
        receive(&mut right, &left.to_send().unwrap());
        assert_eq!(secret(&left), secret(&right));
        let overtaken = |by| left.overtaken(&key(by).peer_id()).is_some();
        assert!(overtaken(2) != overtaken(3), "the loser, and nobody else");
    }

    #[test]
    fn an_expelled_issuer_makes_no_winning_epoch_and_what_was_kept_is_former() {
        let mut known = Epochs::new(network());
        let first = expel(&mut known, 3, 9, 1);
        // it uses up all numbers
        let last = (u32::MAX, [0; 32], EpochSecret::new([7; 32]));
        let greedy = Epoch::sign(last, revocation(9), Some(&issuer(3)), &key(3)).unwrap();
        assert!(known.add(greedy.clone()));
        assert_eq!((known.next(), secret(&known)), (None, 7));
        // the expelling node learns of the revocation first
        known.expel(&revocation(3));
        assert_eq!(known.number(), 0, "both were its own");
        let made = expel(&mut known, 2, 3, 2);
        assert_eq!((made.number(), secret(&known)), (1, 2));
        let former: Vec<_> = known.iter().map(Epoch::hash).collect();
        assert_eq!(former, [made.hash(), greedy.hash(), first.hash()]);
        // a node that learns of the expulsion by the epoch refuses the greedy one
        let mut other = Epochs::new(network());
        receive(&mut other, &known.to_send().unwrap());
        let drops = receive(&mut other, &message([&greedy].into_iter()));
        assert_eq!(drops, [DropReason::EpochRefused]);
        assert_eq!((other.iter().count(), secret(&other)), (1, 2));
        // an issuer cannot expel another one
        let by_issuer = Revocation::by_issuer(
            &issuer(3),
            &key(3),
            key(2).peer_id(),
            UnixTime::from_secs(NOW),
            NOW + 5,
        )
        .unwrap();
        other.expel(&by_issuer);
        assert_eq!(secret(&other), 2);
    }

    #[test]
    fn what_a_token_brought_counts_until_a_link_brings_more_and_stays_a_former_one() {
        let mut network_of_others = Epochs::new(network());
        let first = expel(&mut network_of_others, 2, 9, 1);
        let (number, token) = network_of_others.newest().unwrap();
        let mut joined = Epochs::new(network());
        joined.set_of_token(number, token.clone());
        assert_eq!(joined.rendezvous(), network_of_others.rendezvous());
        assert_eq!(joined.to_send(), None, "nobody has signed it");
        let (read, damaged) = Epochs::parse(&joined.text(), network());
        assert_eq!((read.newest(), damaged), (joined.newest(), 0));
        let (_, damaged) = Epochs::parse(&joined.text(), key(8).peer_id());
        assert_eq!(damaged, 1, "of another network");
        let mut later = joined.clone();
        receive(&mut joined, &message([&first].into_iter()));
        assert_eq!(joined.text(), network_of_others.text(), "the same, signed");
        let second = expel(&mut network_of_others, 2, 10, 2);
        receive(&mut later, &message([&second].into_iter()));
        assert_eq!((later.number(), secret(&later)), (2, 2));
        assert_eq!(later.rendezvous().former().len(), 2, "the token's, and 0");
    }

    #[test]
    fn the_file_is_read_as_it_was_written_and_damage_costs_one_line() {
        let mut known = Epochs::new(network());
        (1..4).for_each(|n| drop(expel(&mut known, 2, 10 + n, n)));
        let (read, damaged) = Epochs::parse(&known.text(), network());
        assert_eq!((read.text(), damaged), (known.text(), 0));
        let text = known.text().replacen('A', "B", 1) + "\n0OIl\ntoken x\ntoken\n";
        let (read, damaged) = Epochs::parse(&text, network());
        assert_eq!((read.iter().count(), damaged), (2, 4));
    }

    #[test]
    fn the_newest_are_kept_and_fit_into_one_message() {
        let mut known = Epochs::new(network());
        (0..40).for_each(|n| drop(expel(&mut known, 2, 100 + n, n)));
        assert_eq!((known.iter().count(), known.number()), (MAX_KEPT, 40));
        assert_eq!(known.rendezvous().former().len(), MAX_KEPT);
        let message = known.to_send().unwrap();
        assert!(message.len() <= MAX_EPOCHS);
        let mut other = Epochs::new(network());
        assert_eq!(receive(&mut other, &message), []);
        assert_eq!((other.iter().count(), other.number()), (MAX_SENT, 40));
        // an epoch older than all stored ones changes nothing
        let old = next(&Epochs::new(network()), 2, 9, 99);
        assert!(!known.add(old));
    }

    #[test]
    fn what_comes_too_often_waits_and_what_is_bad_is_dropped_by_name() {
        let (mut intake, mut known, now) =
            (EpochIntake::default(), Epochs::new(network()), start());
        let mut others = known.clone();
        let mut dropped = 0;
        for n in 0..100 {
            let made = expel(&mut others, 2, 100 + n % 100, n);
            let bytes = message([&made].into_iter());
            let (new, drops) =
                intake.receive((LINK, &bytes), &known, (UnixTime::from_secs(NOW), now));
            new.into_iter().for_each(|epoch| assert!(known.add(epoch)));
            assert!(drops.iter().all(|d| *d == DropReason::EpochLimited));
            dropped += drops.len();
        }
        assert_eq!((dropped, known.number()), (36, 64));
        // the last message first, then those before it
        let mut at = now;
        for _ in 0..dropped {
            let next = intake.next_timeout().unwrap();
            assert_eq!(next, at + Duration::from_secs(1));
            at = next;
            let due = intake.due(at);
            let (new, drops) = intake.receive(
                (due[0].0, &due[0].1),
                &known,
                (UnixTime::from_secs(NOW), at),
            );
            for epoch in new {
                // those older than all that are stored are not added
                let _ = known.add(epoch);
            }
            assert_eq!((drops.len(), known.number()), (0, 100));
        }
        assert_eq!(intake.next_timeout(), None);
        assert_eq!(known.text(), others.text());

        let stranger = SecretKey::from_seed(&[77; 32]);
        let mut forged = expel(&mut others, 2, 9, 7).as_bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let foreign =
            Revocation::by_network(&stranger, key(9).peer_id(), UnixTime::from_secs(NOW), NOW)
                .unwrap();
        let made = (1, [0; 32], EpochSecret::new([1; 32]));
        let foreign = Epoch::sign(made, foreign, None, &stranger).unwrap();
        let length = (forged.len() as u16).to_be_bytes();
        let forged = Bytes::from([&length[..], &forged].concat());
        let later = at + Duration::from_secs(100);
        for (bytes, why) in [
            (forged, DropReason::EpochForged),
            (message([&foreign].into_iter()), DropReason::EpochForged),
            (
                Bytes::from_static(b"\0\x02\x01"),
                DropReason::EpochMalformed,
            ),
            (Bytes::from_static(&[0, 1, 9]), DropReason::EpochMalformed),
        ] {
            let (new, drops) =
                intake.receive((LINK, &bytes), &known, (UnixTime::from_secs(NOW), later));
            assert_eq!((new.len(), drops), (0, vec![why]));
        }
        intake.forget(LINK);
        assert!(intake.0.is_empty());
    }

    #[test]
    fn what_was_refused_before_a_message_had_to_wait_does_not_hold_up_the_rest() {
        let (mut intake, mut known, mut now) =
            (EpochIntake::default(), Epochs::new(network()), start());
        let mut others = known.clone();
        let mut refused = Epochs::new(network());
        let mut all: Vec<Epoch> = (0..9).map(|n| expel(&mut refused, 3, 100, n)).collect();
        known.expel(&revocation(3));
        all.push(expel(&mut others, 2, 9, 1));
        let intake_of = |intake: &mut EpochIntake, known: &mut Epochs, bytes: &Bytes, now| {
            let (new, _) = intake.receive((LINK, bytes), known, (UnixTime::from_secs(NOW), now));
            new.into_iter().for_each(|epoch| assert!(known.add(epoch)));
        };
        // the rate is used up
        for n in 0..64 {
            let forged = message([&next(&refused, 3, 101, n)].into_iter());
            intake_of(&mut intake, &mut known, &forged, now);
        }
        intake_of(&mut intake, &mut known, &message(all.iter()), now);
        for _ in 0..all.len() {
            assert_eq!(known.number(), 0);
            now = intake.next_timeout().unwrap();
            for (_, bytes) in intake.due(now) {
                intake_of(&mut intake, &mut known, &bytes, now);
            }
        }
        assert_eq!((known.number(), intake.next_timeout()), (1, None));
    }

    #[test]
    fn what_waits_is_bounded_and_the_latest_stays() {
        let mut intake = Intake {
            bucket: Bucket::full(start()),
            waiting: VecDeque::new(),
        };
        for n in 0..100 {
            intake.wait(Bytes::from(vec![n; 1_000]));
        }
        assert_eq!(intake.waiting.len(), MAX_WAITING / 1_000);
        assert_eq!(intake.waiting.back().unwrap()[0], 99);
    }
}
