//! Renewal of certificates: the node's requests, and the issuer's answers.
//!
//! ```text
//!     a third of its time is left, or it still depends on an invitation and is to last
//!   resting -----------------------------> asking one issuer after the other
//!      ^                                       |            |
//!      '------- an answer with a new chain ----'            | all asked, none renewed
//!      ^                                                    v
//!      '----- pause: a tenth of the time left, 1 s to 1 h --'
//! ```
//! No sockets and no clocks: times come in, messages go out. Formats: docs/protocol.md, "Renewal".

use std::collections::BTreeMap;
use std::sync::Arc;

use librecast::bucket::{Rate, TokenBucket};
use librecast::cert::{CLOCK_SKEW, CertError, Certificate, Chain, MAX_CHAIN, Member, is_ephemeral};
use librecast::epoch::{Epoch, EpochSecret};
use librecast::id::{NetworkId, OriginId, PeerId, SecretKey};
use librecast::random::Random;
use librecast::revocation::Revocation;
use librecast::time::{Duration, Instant, UnixTime};
use librecast::wire::{Reader, WireError, Writer};

const CONTEXT: &str = "lcroute 2026 renewal";
/// Version of a request for a renewal.
const VERSION: u8 = 1;
/// Time for which an issuer's answer is awaited before the next one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of the pause between two rounds.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// First pause of a new member, then doubled: the issuer may not have known the node yet.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Pause after the certificate's end, or if no issuer can extend it.
const PAUSE_EXPIRED: Duration = Duration::from_secs(60);
/// Maximum interval between checks of the time left, as clocks of hosts jump.
const LOOK: Duration = Duration::from_secs(600);

/// The result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Renewed: the answer contains the new chain.
    Renewed = 0,
    /// The request or its chain is not valid, or exceeds the rights of this issuer.
    Refused = 1,
    /// The node has been expelled.
    Revoked = 2,
    /// More than half of its time is left.
    Early = 3,
    /// A new certificate would end no later, since the issuer's own ends.
    NoGain = 4,
    /// Too many requests.
    Busy = 5,
}

impl Verdict {
    fn from_byte(byte: u8) -> Result<Self, WireError> {
        Ok(match byte {
            0 => Self::Renewed,
            1 => Self::Refused,
            2 => Self::Revoked,
            3 => Self::Early,
            4 => Self::NoGain,
            5 => Self::Busy,
            _ => return Err(WireError::Bad("verdict")),
        })
    }

    fn words(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Refused => "refused",
            Self::Revoked => "this node has been expelled",
            Self::Early => "too early",
            Self::NoGain => "the issuer's own certificate ends as early",
            Self::Busy => "busy",
        }
    }
}

/// Encodes a request: `version | nonce 64 | chain bytes16 | signature 512`.
fn encode_request(nonce: u64, chain: &Chain, key: &SecretKey) -> Result<Vec<u8>, WireError> {
    let mut w = Writer::new();
    w.u8(VERSION).u64(nonce).bytes16(&chain.encode())?;
    let signature = key.sign(CONTEXT, w.as_slice());
    w.put(&signature);
    Ok(w.into_vec())
}

struct Request<'a> {
    nonce: u64,
    chain: &'a [u8],
    signed: &'a [u8],
    signature: [u8; 64],
}

fn decode_request(bytes: &[u8]) -> Result<Request<'_>, WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let (nonce, chain) = (r.u64()?, r.bytes16()?);
    let signed = &bytes[..bytes.len() - r.rest().len()];
    let signature = r.array()?;
    r.finish()?;
    Ok(Request {
        nonce,
        chain,
        signed,
        signature,
    })
}

/// Encodes an answer: `version | nonce 64 | verdict 8 | chain bytes16`.
fn encode_answer(nonce: u64, answer: Result<&Chain, Verdict>) -> Result<Vec<u8>, WireError> {
    let mut w = Writer::new();
    let (verdict, chain) = match answer {
        Ok(chain) => (Verdict::Renewed, chain.encode()),
        Err(verdict) => (verdict, Vec::new()),
    };
    w.u8(VERSION).u64(nonce).u8(verdict as u8).bytes16(&chain)?;
    Ok(w.into_vec())
}

#[derive(Debug, PartialEq, Eq)]
struct Answer<'a> {
    nonce: u64,
    verdict: Verdict,
    chain: &'a [u8],
}

fn decode_answer(bytes: &[u8]) -> Result<Answer<'_>, WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let answer = Answer {
        nonce: r.u64()?,
        verdict: Verdict::from_byte(r.u8()?)?,
        chain: r.bytes16()?,
    };
    r.finish()?;
    Ok(answer)
}

/// The node's side: requests a new certificate in time.
#[derive(Debug)]
pub struct Renewal {
    key: Arc<SecretKey>,
    network: NetworkId,
    chain: Chain,
    /// Generator of jitter and nonces, which need not be secret.
    random: Random,
    due: Instant,
    /// Issuers that were asked in this round.
    asked: Vec<OriginId>,
    /// The issuer whose answer is awaited, and the nonce of the request.
    waiting: Option<(OriginId, u64)>,
    /// Whether an issuer of this round could not extend the certificate.
    no_gain: bool,
    /// Whether an issuer of this round renews later.
    is_busy: bool,
    /// Rounds without a certificate of a new member, or of one that an issuer renews later.
    fruitless: u32,
}

impl Renewal {
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Returns the renewal of `chain`, which belongs to `key`.
    pub fn new(
        key: Arc<SecretKey>,
        network: NetworkId,
        chain: Chain,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            key,
            network,
            chain,
            random: Random::new(seed),
            due: now,
            asked: Vec::new(),
            waiting: None,
            no_gain: false,
            is_busy: false,
            fruitless: 0,
        }
    }

    /// Returns the time for the next call of [`Renewal::handle_timeout`].
    pub fn next_timeout(&self) -> Instant {
        self.due
    }

    /// Checks the time left, with `time` by the host's clock. Returns a request to one of the
    /// reachable `issuers`, possibly this node itself, if renewal is due.
    pub fn handle_timeout(
        &mut self,
        issuers: &[OriginId],
        time: UnixTime,
        now: Instant,
    ) -> Option<(OriginId, Vec<u8>)> {
        if now < self.due {
            return None;
        }
        let left = self.chain.not_after().saturating_sub(time.as_secs());
        if left > self.rest() {
            self.end_round();
            let wait = Duration::from_secs(left - self.rest()).min(LOOK);
            self.due = now + wait;
            return None;
        }
        if self.waiting.take().is_some() {
            tracing::debug!("renewal: no answer");
        }
        let next = issuers.iter().find(|id| !self.asked.contains(id));
        let Some(issuer) = next.copied() else {
            self.pause(left, now);
            return None;
        };
        self.asked.push(issuer);
        let nonce = self.random.next();
        // a decoded or own chain is short enough
        let request = encode_request(nonce, &self.chain, &self.key).ok()?;
        self.waiting = Some((issuer, nonce));
        self.due = now + ANSWER_TIMEOUT;
        tracing::debug!("renewal: asking {issuer}, {left} s are left");
        Some((issuer, request))
    }

    /// Returns the seconds before the certificate's end at which renewal begins.
    fn rest(&self) -> u64 {
        let chain = &self.chain;
        match chain.invitation() {
            None => chain.life() / 3,
            // most of them have left by then, and their certificates are not flooded twice
            Some(_) if is_ephemeral(&chain.node().grant().labels) => {
                chain.not_after().saturating_sub(chain.issued()) / 3
            }
            // a token promises more time, which an issuer grants
            Some(_) => u64::MAX,
        }
    }

    /// Handles that an issuer became reachable: a node without an answer asks it at once.
    pub fn handle_issuer_reachable(&mut self, now: Instant) {
        if self.waiting.is_none() {
            (self.due, self.fruitless) = (now, 0);
        }
    }

    /// Handles an answer from `from`; returns the new chain, to be stored and published.
    pub fn handle_answer(
        &mut self,
        from: OriginId,
        answer: &[u8],
        time: UnixTime,
        now: Instant,
    ) -> Option<(Chain, Member)> {
        let Answer {
            nonce,
            verdict,
            chain,
        } = decode_answer(answer).ok()?;
        if self.waiting != Some((from, nonce)) {
            return None;
        }
        self.waiting = None;
        // in any case the next step is due: another issuer may renew
        self.due = now;
        if verdict != Verdict::Renewed {
            tracing::debug!("renewal: {from} says: {}", verdict.words());
            self.no_gain |= verdict == Verdict::NoGain;
            self.is_busy |= verdict == Verdict::Busy;
            return None;
        }
        let renewed = Chain::decode(chain).ok()?;
        let member = renewed.verify(&self.network, time).ok()?;
        if member.peer != self.key.peer_id() || !is_later(&renewed, &self.chain) {
            return None;
        }
        self.chain = renewed.clone();
        self.fruitless = 0;
        self.end_round();
        Some((renewed, member))
    }

    fn end_round(&mut self) {
        self.asked.clear();
        self.waiting = None;
        (self.no_gain, self.is_busy) = (false, false);
    }

    /// Starts a pause of a tenth of the time left, with a jitter of a quarter.
    fn pause(&mut self, left: u64, now: Instant) {
        let pause = match left {
            _ if self.no_gain => PAUSE_EXPIRED.max(Duration::from_secs(left / 10)),
            0 => PAUSE_EXPIRED,
            left => Duration::from_millis(left.saturating_mul(100)),
        };
        let is_soon = self.chain.invitation().is_some() || self.is_busy;
        let pause = match is_soon {
            true => pause.min(FIRST_PAUSE * 2_u32.pow(self.fruitless.min(11))),
            false => pause,
        };
        self.fruitless = self.fruitless.saturating_add(1);
        let jitter = 750 + self.random.below(500) as u32;
        self.due = now + pause.clamp(PAUSE.0, PAUSE.1) * jitter / 1_000;
        self.end_round();
    }
}

fn is_later(new: &Chain, old: &Chain) -> bool {
    new.not_after() > old.not_after() && new.issued() > old.issued()
}

/// Requests that an issuer handles. Chosen: a signature and a verification each, 100 us.
const RATE: Rate = Rate::per_second(50, 100);
/// Minimum interval between answers to one node.
const PER_NODE: Duration = Duration::from_secs(1);
/// Maximum number of nodes with a stored request time; more than ask within [`PER_NODE`].
const MAX_NODES: usize = 256;

/// An issuer's view of its network.
pub trait Registry {
    /// Returns whether a member has been expelled.
    fn is_revoked(&self, member: &Member) -> bool;
    /// Returns the name for a member: its own, unless another member has it already.
    fn free_name(&self, member: &Member) -> String;
    /// Returns whether a member is within the bound of its token.
    fn is_admitted(&self, member: &Member) -> bool;
    /// Returns whether the list of a network that keeps one has this member.
    fn is_listed(&self, _: &Member) -> Option<bool> {
        None
    }
}

/// The issuer's side: renews valid certificates.
#[derive(Debug)]
pub struct Renewer {
    key: Arc<SecretKey>,
    certificate: Certificate,
    bucket: TokenBucket,
    last: BTreeMap<PeerId, Instant>,
}

impl Renewer {
    /// Returns the issuer with `key` and `certificate`.
    pub fn new(key: Arc<SecretKey>, certificate: Certificate, now: Instant) -> Self {
        Self {
            key,
            certificate,
            bucket: TokenBucket::of(RATE, now),
            last: BTreeMap::new(),
        }
    }

    /// Returns the answer to a request of the known node `asker`. There is none without its valid
    /// signature, so that no other node uses up its turn.
    pub fn answer(
        &mut self,
        asker: &PeerId,
        request: &[u8],
        network: &impl Registry,
        time: UnixTime,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let request = decode_request(request).ok()?;
        asker
            .verify(CONTEXT, request.signed, &request.signature)
            .ok()?;
        let answer = if self.may_work(asker, now) {
            self.renew(asker, &request, network, time)
        } else {
            Err(Verdict::Busy)
        };
        encode_answer(request.nonce, answer.as_ref().map_err(|v| *v)).ok()
    }

    /// Returns a revocation of `peer` that outlasts all certificates of its token, which ends at
    /// `until`.
    pub(crate) fn expel(&self, peer: PeerId, time: UnixTime, until: u64) -> Option<Revocation> {
        let most = self.certificate.grant().not_after;
        // members' clocks may differ by a day, and so may this one
        let until = until.saturating_add(CLOCK_SKEW).min(most);
        let until = until.saturating_add(CLOCK_SKEW);
        let revocation = Revocation::by_issuer(&self.certificate, &self.key, peer, time, until);
        revocation
            .map_err(|e| tracing::warn!("{peer} cannot be expelled here: {e}"))
            .ok()
    }

    /// Returns the epoch `number` after the one with the hash `before`, for this revocation.
    pub(crate) fn make_epoch(
        &self,
        (number, before): (u32, [u8; 32]),
        secret: EpochSecret,
        revocation: Revocation,
    ) -> Option<Epoch> {
        let made = (number, before, secret);
        let epoch = Epoch::sign(made, revocation, Some(&self.certificate), &self.key);
        epoch
            .map_err(|e| tracing::warn!("no new epoch of the network: {e}"))
            .ok()
    }

    fn may_work(&mut self, asker: &PeerId, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < PER_NODE;
        if self.last.get(asker).is_some_and(recent) || !self.bucket.take(1, now) {
            return false;
        }
        if self.last.len() >= MAX_NODES {
            self.last.retain(|_, at| recent(at));
        }
        self.last.insert(*asker, now);
        true
    }

    fn renew(
        &self,
        asker: &PeerId,
        request: &Request<'_>,
        network: &impl Registry,
        time: UnixTime,
    ) -> Result<Chain, Verdict> {
        let (chain, member) = self.check(request, time).map_err(|e| {
            tracing::debug!("renewal of {asker}: {e}");
            Verdict::Refused
        })?;
        if member.peer != *asker {
            return Err(Verdict::Refused);
        }
        if network.is_revoked(&member) {
            return Err(Verdict::Revoked);
        }
        // another issuer may have counted it, or this one counts it in a moment
        let is_listed = network.is_listed(&member);
        if !network.is_admitted(&member) || is_listed == Some(false) {
            return Err(Verdict::Busy);
        }
        let life = chain.life();
        if chain.invitation().is_none()
            && chain.not_after().saturating_sub(time.as_secs()) > life / 2
        {
            return Err(Verdict::Early);
        }
        let name = network.free_name(&member);
        let (issuer, key) = (&self.certificate, &self.key);
        let renewed = match is_listed {
            Some(_) => chain.renew_admitted(&name, issuer, key, time, life),
            None => chain.renew_as(&name, issuer, key, time, life),
        };
        let renewed = renewed.map_err(|e| {
            tracing::info!(
                "{} ({}) cannot be renewed here: {e}",
                member.name,
                member.peer
            );
            Verdict::Refused
        })?;
        if !is_later(&renewed, &chain) {
            return Err(Verdict::NoGain);
        }
        tracing::info!("renewed {} ({})", member.name, member.peer);
        Ok(renewed)
    }

    fn check(&self, request: &Request<'_>, time: UnixTime) -> Result<(Chain, Member), CertError> {
        if request.chain.len() > MAX_CHAIN {
            return Err(WireError::Bad("length of the chain").into());
        }
        let chain = Chain::decode(request.chain)?;
        let member = chain.verify(&self.certificate.network(), time)?;
        Ok((chain, member))
    }
}

#[cfg(test)]
mod tests {

    use librecast::cert::{Grant, Kind, Token};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;

    const NOW: u64 = 1_800_000_000;
    const WEEK: u64 = 7 * 86_400;

    fn key(seed: u8) -> Arc<SecretKey> {
        Arc::new(SecretKey::from_seed(&[seed; 32]))
    }

    fn network() -> NetworkId {
        key(1).peer_id()
    }

    fn grant(until: u64) -> Grant {
        Grant::new("", (NOW, until))
    }

    fn issuer_certificate(until: u64) -> Certificate {
        Certificate::sign(
            Kind::Issuer,
            network(),
            key(2).peer_id(),
            grant(until),
            &key(1),
        )
        .unwrap()
    }

    /// Returns a token of the issuer, each time with another key.
    #[expect(clippy::disallowed_methods, reason = "programs invite, not nodes")]
    fn invite(issuer: &Certificate, grant: Grant) -> Token {
        Token::invite(issuer, &key(2), grant, vec![]).unwrap()
    }

    /// A network of one node, with a second member of the name `taken`.
    #[derive(Default)]
    struct Known {
        revoked: bool,
        /// Whether bounded tokens are used up.
        spent: bool,
        /// Whether the list has the node, if there is one.
        listed: Option<bool>,
    }

    impl Registry for Known {
        fn is_revoked(&self, _: &Member) -> bool {
            self.revoked
        }

        fn is_admitted(&self, member: &Member) -> bool {
            member.bound.is_none() || !self.spent
        }

        fn free_name(&self, member: &Member) -> String {
            member.name.replace("taken", "taken-2")
        }

        fn is_listed(&self, _: &Member) -> Option<bool> {
            self.listed
        }
    }

    /// A node with a certificate from an issuer, signed at NOW for a week.
    struct World {
        start: Instant,
        node: Renewal,
        issuer: Renewer,
        joined: Chain,
    }

    const ISSUER: OriginId = OriginId(5);

    fn world(issuer_until: u64) -> World {
        let start = start();
        let certificate = issuer_certificate(issuer_until);
        let until = (NOW + WEEK).min(issuer_until);
        let member = Grant {
            name: "node".into(),
            ..grant(until)
        };
        let node = key(3).peer_id();
        let node = Certificate::sign(Kind::Node, network(), node, member, &key(2)).unwrap();
        let joined = Chain::new(vec![certificate.clone(), node]).unwrap();
        World {
            start,
            node: Renewal::new(key(3), network(), joined.clone(), 1, start),
            issuer: Renewer::new(key(2), certificate, start),
            joined,
        }
    }

    /// Returns the same for a node that joined by a token.
    fn world_by_token(name: &str, grant: Grant) -> World {
        let mut w = world(NOW + 100 * WEEK);
        let token = invite(&issuer_certificate(NOW + 100 * WEEK), grant);
        let joined = token
            .join(key(3).peer_id(), name, UnixTime::from_secs(NOW))
            .unwrap();
        w.node = Renewal::new(key(3), network(), joined, 1, w.start);
        w
    }

    impl World {
        /// Returns the hosts' time, `s` seconds after the start.
        fn at(&self, s: u64) -> (UnixTime, Instant) {
            (
                UnixTime::from_secs(NOW + s),
                self.start + Duration::from_secs(s),
            )
        }

        fn ask(&mut self, s: u64, issuers: &[OriginId]) -> Option<(OriginId, Vec<u8>)> {
            let (time, now) = self.at(s);
            self.node.handle_timeout(issuers, time, now)
        }

        fn answer(&mut self, s: u64, request: &[u8], revoked: bool) -> Vec<u8> {
            let known = Known {
                revoked,
                ..Known::default()
            };
            self.answer_to(3, s, request, &known).unwrap()
        }

        /// Returns the issuer's answer to the node with this key.
        fn answer_to(&mut self, n: u8, s: u64, request: &[u8], known: &Known) -> Option<Vec<u8>> {
            let (time, now) = self.at(s);
            let asker = key(n).peer_id();
            self.issuer.answer(&asker, request, known, time, now)
        }

        fn receive(&mut self, s: u64, from: OriginId, answer: &[u8]) -> Option<(Chain, Member)> {
            let (time, now) = self.at(s);
            self.node.handle_answer(from, answer, time, now)
        }

        /// Advances time in the node's steps until it asks; returns the time.
        fn wait(&mut self, from: u64, issuers: &[OriginId]) -> (u64, OriginId, Vec<u8>) {
            let mut s = from;
            for _ in 0..10_000 {
                if let Some((to, request)) = self.ask(s, issuers) {
                    return (s, to, request);
                }
                let next = self.node.next_timeout() - self.start;
                s = (next.as_millis() as u64).div_ceil(1_000).max(s + 1);
            }
            panic!("it never asks");
        }
    }

    #[test]
    fn who_is_not_one_of_those_that_its_token_is_for_is_not_renewed() {
        let mut w = world(NOW + 100 * WEEK);
        let bounded = Grant {
            uses: Some(2),
            ..grant(NOW + WEEK)
        };
        let token = invite(&issuer_certificate(NOW + 100 * WEEK), bounded);
        let chain = token
            .join(key(3).peer_id(), "late", UnixTime::from_secs(NOW))
            .unwrap();
        let request = encode_request(7, &chain, &key(3)).unwrap();
        for (spent, verdict) in [(true, Verdict::Busy), (false, Verdict::Renewed)] {
            let known = Known {
                spent,
                ..Known::default()
            };
            let answer = w.answer_to(3, if spent { 10 } else { 20 }, &request, &known);
            assert_eq!(decode_answer(&answer.unwrap()).unwrap().verdict, verdict);
        }
    }

    #[test]
    fn a_node_asks_when_a_third_is_left_and_gets_as_much_as_it_had() {
        let mut w = world(NOW + 100 * WEEK);
        let (s, to, request) = w.wait(0, &[ISSUER]);
        assert!((WEEK * 2 / 3..WEEK * 2 / 3 + 2).contains(&s), "{s}");
        assert_eq!(to, ISSUER);
        let answer = w.answer(s, &request, false);
        assert!(
            w.receive(s, OriginId(6), &answer).is_none(),
            "nobody asked that one"
        );
        let (chain, member) = w.receive(s, ISSUER, &answer).unwrap();
        assert_eq!(chain.not_after(), NOW + s + WEEK);
        assert_eq!(
            (member.peer, member.name.as_str()),
            (key(3).peer_id(), "node")
        );
        assert!(w.receive(s, ISSUER, &answer).is_none(), "a second time");
        let (again, _, _) = w.wait(s, &[ISSUER]);
        assert!(
            again >= s + WEEK * 2 / 3,
            "at rest until then, and not {again}"
        );
    }

    #[test]
    fn other_issuers_are_asked_in_turn_then_there_is_a_pause() {
        let mut w = world(NOW + 100 * WEEK);
        let issuers = [OriginId(5), OriginId(6), OriginId(7)];
        let (start, first, _) = w.wait(0, &issuers);
        let (s, second, request) = w.wait(start, &issuers);
        assert_eq!(s, start + ANSWER_TIMEOUT.as_secs());
        let refusal = w.answer(s, &request, true);
        assert!(w.receive(s, second, &refusal).is_none());
        // a refusal costs no time
        let (s, third, _) = w.wait(s, &issuers);
        assert_eq!(
            (s, [first, second, third]),
            (start + ANSWER_TIMEOUT.as_secs(), issuers)
        );
        let (next, _, _) = w.wait(s, &issuers);
        let pause = next - s;
        assert!(
            (45 * 60..80 * 60).contains(&pause),
            "about an hour: {pause}"
        );
    }

    #[test]
    fn who_depends_on_an_issuer_for_some_years_is_soon_renewed_by_one_for_more() {
        const YEAR: u64 = 365 * 86_400;
        let deputy = Certificate::sign(
            Kind::Issuer,
            network(),
            key(5).peer_id(),
            grant(NOW + 3 * YEAR),
            &key(1),
        );
        let mut w = world(NOW + 10 * YEAR);
        let member = Grant {
            name: "node".into(),
            renew_for: 10 * YEAR,
            ..grant(NOW + 3 * YEAR)
        };
        let deputy = deputy.unwrap();
        let node = Certificate::sign(Kind::Node, network(), key(3).peer_id(), member, &key(5));
        let joined = Chain::new(vec![deputy.clone(), node.unwrap()]).unwrap();
        w.node = Renewal::new(key(3), network(), joined, 1, w.start);
        let listed = |listed| Known {
            listed: Some(listed),
            ..Known::default()
        };
        // the deputy has no more time to give, so it pauses for an hour or so
        let (at, _, request) = w.wait(0, &[ISSUER]);
        let (time, now) = w.at(at);
        let mut other = Renewer::new(key(5), deputy, w.start);
        let answer = other.answer(&key(3).peer_id(), &request, &listed(true), time, now);
        let answer = answer.unwrap();
        assert_eq!(decode_answer(&answer).unwrap().verdict, Verdict::NoGain);
        assert!(w.receive(at, ISSUER, &answer).is_none());
        let (s, _, _) = w.wait(at, &[ISSUER]);
        assert!((2_700..5_000).contains(&(s - at)), "{s}");
        // the owner is there, and does not know yet that it is a member
        let (mut s, now) = (s + 1, w.at(s + 1).1);
        w.node.end_round();
        w.node.handle_issuer_reachable(now);
        for _ in 0..3 {
            let (at, to, request) = w.wait(s, &[ISSUER]);
            assert!(at - s <= 12, "it asks again within seconds: {}", at - s);
            let answer = w.answer_to(3, at, &request, &listed(false)).unwrap();
            assert_eq!(decode_answer(&answer).unwrap().verdict, Verdict::Busy);
            assert!(w.receive(at, to, &answer).is_none());
            s = at;
        }
        let (at, to, request) = w.wait(s, &[ISSUER]);
        let answer = w.answer_to(3, at, &request, &listed(true)).unwrap();
        let (_, member) = w.receive(at, to, &answer).unwrap();
        assert_eq!(member.keys.issuers, [key(2).peer_id()]);
        assert!(member.keys.invitations.is_empty());
        assert!(member.not_after > NOW + 9 * YEAR);
        assert!(w.ask(at + 9, &[ISSUER]).is_none());
    }

    #[test]
    fn near_the_end_it_asks_every_few_seconds_and_after_it_every_minute() {
        let mut w = world(NOW + 100 * WEEK);
        let mut asked = Vec::new();
        let mut s = WEEK - 60;
        while s < WEEK + 600 {
            let (at, _, _) = w.wait(s, &[ISSUER]);
            asked.push(at);
            s = at + 1;
        }
        let between = |from, to| asked.iter().filter(|s| (from..to).contains(*s)).count();
        assert!((5..40).contains(&between(WEEK - 60, WEEK)), "{asked:?}");
        assert!((5..20).contains(&between(WEEK, WEEK + 600)), "{asked:?}");
    }

    #[test]
    fn without_an_issuer_nothing_is_sent_and_one_that_comes_is_asked_at_once() {
        let mut w = world(NOW + 100 * WEEK);
        let s = WEEK - 86_400;
        assert!(w.ask(s, &[]).is_none());
        assert!(w.ask(s + 1, &[ISSUER]).is_none(), "a pause");
        let (_, now) = w.at(s + 1);
        w.node.handle_issuer_reachable(now);
        assert!(w.ask(s + 1, &[ISSUER]).is_some());
    }

    #[test]
    fn the_expelled_and_the_early_get_nothing() {
        let mut w = world(NOW + 100 * WEEK);
        let (s, _, request) = w.wait(0, &[ISSUER]);
        let verdict = |answer: &[u8]| decode_answer(answer).unwrap().verdict;
        assert_eq!(verdict(&w.answer(s, &request, true)), Verdict::Revoked);
        assert_eq!(
            verdict(&w.answer(s, &request, false)),
            Verdict::Busy,
            "within a second"
        );
        assert_eq!(verdict(&w.answer(s + 2, &request, false)), Verdict::Renewed);
        let mut early = world(NOW + 100 * WEEK);
        let answer = early.answer(100, &request, false);
        assert_eq!(verdict(&answer), Verdict::Early);
        let foreign = encode_request(1, &w.joined, &key(4)).unwrap();
        let other = w.answer_to(4, s + 10, &foreign, &Known::default());
        assert_eq!(
            verdict(&other.unwrap()),
            Verdict::Refused,
            "asked with the certificates of another node"
        );
        assert_eq!(
            verdict(&w.answer(2 * WEEK, &request, false)),
            Verdict::Refused,
            "over"
        );
    }

    #[test]
    fn who_came_by_a_token_gets_at_once_what_the_token_promises() {
        let hour = Grant {
            renew_for: 9 * WEEK,
            ..grant(NOW + 3_600)
        };
        let mut w = world_by_token("node", hour);
        let (_, request) = w.ask(1, &[ISSUER]).unwrap();
        let answer = w.answer(1, &request, false);
        let (chain, member) = w.receive(1, ISSUER, &answer).unwrap();
        assert_eq!(member.not_after, NOW + 1 + 9 * WEEK);
        assert_eq!(chain.life(), 9 * WEEK);
        // from then on it renews as all other nodes do
        let (s, _, _) = w.wait(1, &[ISSUER]);
        assert!(s > 5 * WEEK, "{s}");
    }

    #[test]
    fn an_ephemeral_member_asks_when_a_third_of_its_tokens_time_is_left() {
        let (label, value) = librecast::cert::EPHEMERAL;
        let invited = Grant {
            renew_for: 9 * WEEK,
            labels: [(label.into(), value.into())].into(),
            ..grant(NOW + 3 * WEEK)
        };
        let mut w = world_by_token("pod", invited);
        let (s, _, request) = w.wait(0, &[ISSUER]);
        assert!((2 * WEEK..2 * WEEK + 2).contains(&s), "{s}");
        let answer = w.answer(s, &request, false);
        let (_, member) = w.receive(s, ISSUER, &answer).unwrap();
        assert!(member.is_ephemeral());
        assert_eq!(member.not_after, NOW + s + 9 * WEEK);
        let (again, _, _) = w.wait(s, &[ISSUER]);
        assert!(again >= s + 6 * WEEK, "{again}");
    }

    #[test]
    fn a_new_member_that_is_not_answered_asks_again_within_seconds_and_then_less_often() {
        let mut w = world_by_token("node", grant(NOW + WEEK));
        let mut asked = Vec::new();
        let mut s = 1;
        for _ in 0..14 {
            let (at, _, _) = w.wait(s, &[ISSUER]);
            asked.push(at);
            s = at + 1;
        }
        assert!(asked[1] <= 10 && asked[2] <= 25, "{asked:?}");
        let last = asked[13] - asked[12];
        assert!((2_000..5_000).contains(&last), "an hour at most: {asked:?}");
    }

    #[test]
    fn who_has_the_name_of_another_gets_one_of_its_own() {
        let week = Grant {
            renew_for: WEEK,
            ..grant(NOW + WEEK)
        };
        let mut w = world_by_token("taken", week);
        let (_, request) = w.ask(1, &[ISSUER]).unwrap();
        let answer = w.answer(1, &request, false);
        let (_, member) = w.receive(1, ISSUER, &answer).unwrap();
        assert_eq!(member.name, "taken-2");
    }

    #[test]
    fn nobody_uses_up_the_turn_of_another_node() {
        let mut w = world(NOW + 100 * WEEK);
        let (s, _, request) = w.wait(0, &[ISSUER]);
        for n in 0..1_000 {
            let forged = encode_request(n, &w.joined, &key(4)).unwrap();
            let answer = w.answer_to(3, s, &forged, &Known::default());
            assert_eq!(answer, None, "the victim has not signed it");
        }
        let answer = w.answer(s, &request, false);
        assert_eq!(decode_answer(&answer).unwrap().verdict, Verdict::Renewed);
    }

    #[test]
    fn a_token_holder_cannot_write_himself_a_longer_life() {
        let certificate = issuer_certificate(NOW + 500 * WEEK);
        let hour = Grant {
            renew_for: WEEK,
            ..grant(NOW + 3_600)
        };
        let token = invite(&certificate, hour.clone());
        // as in the text for its holder
        let text = token.encode();
        let bytes = bs58::decode(&text[4..]).into_vec().unwrap();
        let secret = SecretKey::from_seed(bytes[32..64].try_into().unwrap());
        let chain = |greedy: Grant| {
            let node = key(3).peer_id();
            let greedy = Grant {
                name: "greedy".into(),
                ..greedy
            };
            let node = Certificate::sign(Kind::Node, network(), node, greedy, &secret).unwrap();
            let all = vec![certificate.clone(), token.invitation().clone(), node];
            Chain::new(all).unwrap()
        };
        let longer = Grant {
            not_after: u64::MAX,
            ..hour.clone()
        };
        assert!(
            chain(longer)
                .verify(&network(), UnixTime::from_secs(NOW))
                .is_err()
        );
        let often = Grant {
            renew_for: u64::MAX,
            ..hour
        };
        let mut w = world(NOW + 500 * WEEK);
        let request = encode_request(1, &chain(often), &key(3)).unwrap();
        let answer = w.answer(1, &request, false);
        let answer = decode_answer(&answer).unwrap();
        assert_eq!(answer.verdict, Verdict::Renewed);
        assert_eq!(
            Chain::decode(answer.chain).unwrap().not_after(),
            NOW + 1 + WEEK
        );
    }

    #[test]
    fn an_issuer_that_ends_as_early_has_nothing_to_give_and_is_not_asked_for_ever() {
        let mut w = world(NOW + WEEK);
        let (s, _, request) = w.wait(0, &[ISSUER]);
        let answer = w.answer(s, &request, false);
        assert_eq!(decode_answer(&answer).unwrap().verdict, Verdict::NoGain);
        assert!(w.receive(s, ISSUER, &answer).is_none());
        let (next, _, _) = w.wait(s, &[ISSUER]);
        assert!(next > s + 2_000, "{}", next - s);
    }

    #[test]
    fn chains_that_are_not_better_or_not_ours_are_not_taken() {
        let mut w = world(NOW + 100 * WEEK);
        let certificate = issuer_certificate(NOW + 100 * WEEK);
        let token = invite(&certificate, grant(NOW + 50 * WEEK));
        let foreign = token
            .join(key(4).peer_id(), "x", UnixTime::from_secs(NOW + 9))
            .unwrap();
        let mut s = WEEK - 1_000;
        for chain in [w.joined.clone(), foreign] {
            let (at, _, request) = w.wait(s, &[ISSUER]);
            let nonce = decode_request(&request).unwrap().nonce;
            let answer = encode_answer(nonce, Ok(&chain)).unwrap();
            assert!(w.receive(at, ISSUER, &answer).is_none());
            s = at + 1;
        }
    }

    #[test]
    fn a_request_is_signed_by_its_node() {
        let mut w = world(NOW + 100 * WEEK);
        let stolen = encode_request(1, &w.joined, &key(4)).unwrap();
        let answer = w.answer_to(3, WEEK - 10, &stolen, &Known::default());
        assert_eq!(answer, None);
    }

    #[test]
    fn the_bytes_do_not_change() {
        let w = world(NOW + WEEK);
        let chain = w.joined.encode();
        let request = encode_request(0x0102, &w.joined, &key(3)).unwrap();
        let mut golden = vec![1, 0, 0, 0, 0, 0, 0, 1, 2];
        golden.extend((chain.len() as u16).to_be_bytes());
        golden.extend(&chain);
        golden.extend(key(3).sign("lcroute 2026 renewal", &golden));
        assert_eq!(request, golden);
        let refused = encode_answer(0x0102, Err(Verdict::Revoked)).unwrap();
        assert_eq!(refused, [1, 0, 0, 0, 0, 0, 0, 1, 2, 2, 0, 0]);
        let renewed = encode_answer(3, Ok(&w.joined)).unwrap();
        assert_eq!(renewed[..10], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
        assert_eq!(
            decode_answer(&renewed).unwrap(),
            Answer {
                nonce: 3,
                verdict: Verdict::Renewed,
                chain: &chain,
            }
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut w = world(NOW + 100 * WEEK);
            let (s, _, _) = w.wait(0, &[ISSUER]);
            prop_assert!(w.receive(s, ISSUER, &bytes).is_none());
            prop_assert_eq!(w.answer_to(3, s, &bytes, &Known::default()), None);
        }
    }
}
