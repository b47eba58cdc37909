//! The state of one peer, and its transitions.
//!
//! ```text
//! connecting --request, offer, answer, ICE, DTLS, Auth--> connected --silence, goodbye--> lost
//!     ^  \------------- refused (bad certificate) <---------/                              |
//!     \------------------- request, after a pause ----------------------------------------/
//! ```

use librecast::cert::Member;
use librecast::id::{LinkId, PeerId};
use librecast::time::{Duration, Instant};

use crate::attestation::OtherRun;
use crate::auth::{Binding, Role};
use crate::description::{Description, Fingerprint};
use crate::envelope::Refusal;
use crate::event::{CarrierId, CarrierKind, KEY_CONFLICT_THERE};
use crate::info::{LinkInfo, PeerInfo, PeerState, Traffic};
use crate::parts::Parts;
use crate::trust::Trust;
use crate::wanted::Wanted;

/// Time for which a link is kept while ICE restarts.
const RESTART_GRACE: Duration = Duration::from_secs(6);
/// Time for which an offer waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Time for which an unwanted peer is remembered after a message to or from it.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// Time without a link after which a wanted peer counts as not directly reachable. Chosen.
pub(crate) const FAILS_AFTER: Duration = Duration::from_secs(10);
/// Attempts after which it counts as not directly reachable. Chosen.
const FAILS_AFTER_ATTEMPTS: u32 = 2;

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Its membership, once one of its messages has been verified.
    pub(crate) member: Option<Member>,
    /// The carrier of its last message, also used for answers.
    pub(crate) received_over: Option<CarrierId>,
    /// The kind of that carrier.
    pub(crate) carrier: Option<CarrierKind>,
    /// The newest known run of its process; 0: none.
    pub(crate) session: u64,
    pub(crate) state: PeerState,
    pub(crate) since: Instant,
    pub(crate) reason: Option<&'static str>,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) requested_at: Option<Instant>,
    /// Time at which an unwanted peer without a link is forgotten: until then an answer may come.
    pub(crate) keep_until: Option<Instant>,
    /// Time at which it counts as not directly reachable; `attempts` have failed so far.
    pub(crate) fails_at: Option<Instant>,
    pub(crate) attempts: u32,
    pub(crate) link: Option<Link>,
    pub(crate) waiting: Option<Waiting>,
    /// Runs that ask for a link beside the linked one.
    pub(crate) other_runs: Vec<OtherRun>,
    /// Traffic of ended links, and of straight messages.
    pub(crate) traffic: Traffic,
}

/// A request or offer of a peer that waits for the end of a dying link.
#[derive(Debug)]
pub(crate) enum Waiting {
    Request { session: u64, sequence: u64 },
    Offer(Box<Offered>),
}

/// A verified offer.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    pub(crate) attempt: [u8; 32],
    pub(crate) description: Description,
}

/// A connection to a peer, being made or up.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) role: Role,
    /// The run of the peer at the other end.
    pub(crate) session: u64,
    /// Sequence of the last message that made the link: a later request means that the link is
    /// lost.
    pub(crate) sequence: u64,
    pub(crate) attempt: [u8; 32],
    /// Whether the answer to the last offer is missing, or the offer itself is not made yet.
    pub(crate) awaits_answer: bool,
    /// Fingerprints of this end and of the peer, as far as they are known.
    pub(crate) fingerprints: (Option<Fingerprint>, Option<Fingerprint>),
    /// The values that both sides sign, once the answer is known.
    pub(crate) binding: Option<Binding>,
    pub(crate) auth_sent: bool,
    pub(crate) auth_received: bool,
    /// Time of mutual authentication.
    pub(crate) up: Option<Instant>,
    pub(crate) began: Instant,
    pub(crate) restart: Option<Restart>,
    /// Whether the peer must not learn addresses of this host.
    pub(crate) is_hidden: bool,
}

/// An ICE restart.
#[derive(Debug)]
pub(crate) struct Restart {
    pub(crate) since: Instant,
    /// The attempt of its offer, once that has been made.
    pub(crate) attempt: Option<[u8; 32]>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Instant) -> Self {
        Self {
            id,
            member: None,
            received_over: None,
            carrier: None,
            session: 0,
            state: PeerState::Connecting,
            since: now,
            reason: None,
            failures: 0,
            retry_at: None,
            requested_at: None,
            keep_until: None,
            fails_at: None,
            attempts: 0,
            link: None,
            waiting: None,
            other_runs: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    /// Returns a row of `peers` for a refused stranger.
    pub(crate) fn refused_stranger(id: PeerId, reason: &'static str, since: Instant) -> Self {
        let mut peer = Self::new(id, since);
        peer.set_state(PeerState::Refused, Some(reason), since);
        peer
    }

    /// Returns the authenticated link.
    pub(crate) fn up(&self) -> Option<&Link> {
        self.link.as_ref().filter(|link| link.up.is_some())
    }

    pub(crate) fn name(&self) -> &str {
        self.member.as_ref().map_or("?", |m| m.name.as_str())
    }

    pub(crate) fn set_state(
        &mut self,
        state: PeerState,
        reason: Option<&'static str>,
        now: Instant,
    ) {
        if self.state != state {
            self.since = now;
        }
        (self.state, self.reason) = (state, reason);
    }

    /// Returns the peer's next deadline.
    pub(crate) fn deadline<C>(&self, parts: &Parts<C>) -> Option<Instant> {
        let next = match self.link.as_ref() {
            Some(link) => link.deadline(parts.limits.attempt),
            None => [self.retry_at, self.keep_until].into_iter().flatten().min(),
        };
        let wanted = parts.wanted.contains(&self.id);
        let straight = parts.places.deadline(&self.id, wanted, parts.now);
        let straight = straight.filter(|_| self.up().is_none());
        [next, self.fails_at, straight].into_iter().flatten().min()
    }

    /// Returns whether it may learn addresses of this host.
    pub(crate) fn may_learn_addresses(&self, trust: &Trust) -> bool {
        trust.discloses_to(&self.id, self.member.as_ref())
    }

    /// Returns its row for users, with the traffic of its connection.
    pub(crate) fn info(&self, link: LinkInfo, traffic: Traffic, now: Instant) -> PeerInfo {
        let up = self.up();
        let proven = self.other_runs.iter().find(|run| run.is_proven(now));
        let two_hosts = up.and(proven).map(|_| KEY_CONFLICT_THERE);
        PeerInfo {
            peer_id: self.id,
            name: self.member.as_ref().map(|m| m.name.clone()),
            address: self.member.as_ref().map(|m| m.addresses.address),
            leaf: self.member.as_ref().is_some_and(|m| m.leaf),
            state: self.state,
            link,
            traffic: self.traffic.plus(traffic),
            carrier: self.carrier.filter(|_| up.is_some()),
            since_s: now.saturating_duration_since(self.since).as_secs(),
            reason: self.reason.or(two_hosts),
        }
    }

    /// Returns whether a link is wanted, and a carrier for requests is known.
    pub(crate) fn may_be_tried<C>(&self, parts: &Parts<C>) -> bool {
        parts.wanted.contains(&self.id)
            && parts.reachable.knows(&self.id)
            && !self.is_barred(&parts.trust, parts.now)
    }

    /// Returns whether it gets no link: it is expelled, or suspended.
    pub(crate) fn is_barred(&self, trust: &Trust, now: Instant) -> bool {
        trust.bars(&self.id, self.member.as_ref(), now)
    }

    /// Returns whether it can be forgotten: not wanted, no link, nothing to show.
    pub(crate) fn is_idle<C>(&self, parts: &Parts<C>) -> bool {
        let asked = || parts.places.deadline(&self.id, false, parts.now).is_some();
        let busy = self.link.is_some() || self.waiting.is_some() || asked();
        let shown = self.state == PeerState::Refused;
        let expected = self.keep_until.is_some_and(|until| parts.now < until);
        !(busy || shown || expected || parts.wanted.contains(&self.id))
    }

    /// Counts a refusal; shows it if the peer itself is at fault. True: it was not shown before.
    pub(crate) fn refuse<C>(&mut self, refusal: Refusal, parts: &mut Parts<C>) -> bool {
        parts
            .outputs
            .refuse_message(refusal, Some(self.id), parts.now);
        // replayed or damaged messages prove nothing about a known peer
        if self.up().is_some() || (!refusal.blames_sender() && self.member.is_some()) {
            return false;
        }
        let reason = refusal.reason();
        let is_shown = self.state == PeerState::Refused && self.reason == Some(reason);
        self.set_state(PeerState::Refused, Some(reason), parts.now);
        self.failures = self.failures.max(5);
        if !is_shown {
            parts.outputs.refuse_peer(self.id, reason, parts.now);
        }
        !is_shown
    }

    /// Starts the time within which a link should be made.
    pub(crate) fn expect_link(&mut self, wanted: &Wanted, now: Instant) {
        let open = self.fails_at.is_none() && !wanted.is_failing(&self.id);
        if open && wanted.contains(&self.id) {
            (self.fails_at, self.attempts) = (Some(now + FAILS_AFTER), 0);
        }
    }

    /// Counts a failed attempt.
    pub(crate) fn count_failure<C>(&mut self, parts: &mut Parts<C>) {
        self.attempts = self.attempts.saturating_add(1);
        self.judge_failure(parts);
    }

    /// Reports a wanted peer as not directly reachable, once that is established.
    pub(crate) fn judge_failure<C>(&mut self, parts: &mut Parts<C>) {
        let late = self.fails_at.is_some_and(|at| at <= parts.now);
        let often = self.fails_at.is_some() && self.attempts >= FAILS_AFTER_ATTEMPTS;
        if late || often {
            self.fails_at = None;
            let most = parts.limits.peers;
            parts.wanted.fail(self.id, most, &mut parts.outputs);
        }
    }

    /// Reports that there is a link.
    pub(crate) fn count_success<C>(&mut self, parts: &mut Parts<C>) {
        (self.fails_at, self.attempts) = (None, 0);
        parts.wanted.succeed(&self.id, &mut parts.outputs);
    }

    /// Stops trying a peer that is not wanted or not reachable; an attempt under way continues.
    pub(crate) fn stop_trying(&mut self) {
        (self.retry_at, self.keep_until) = (None, None);
        (self.fails_at, self.attempts) = (None, 0);
    }
}

impl Link {
    pub(crate) fn new(
        id: LinkId,
        role: Role,
        (session, sequence): (u64, u64),
        attempt: [u8; 32],
        now: Instant,
    ) -> Self {
        Self {
            id,
            role,
            session,
            sequence,
            attempt,
            awaits_answer: role == Role::Offerer,
            fingerprints: (None, None),
            binding: None,
            auth_sent: false,
            auth_received: false,
            up: None,
            began: now,
            restart: None,
            is_hidden: false,
        }
    }

    /// Returns the time at which the attempt fails.
    pub(crate) fn attempt_deadline(&self, attempt: Duration) -> Instant {
        self.began
            + if self.awaits_answer {
                ANSWER_WITHIN
            } else {
                attempt
            }
    }

    fn deadline(&self, attempt: Duration) -> Option<Instant> {
        match (&self.restart, self.up) {
            (Some(restart), _) => Some(restart.ends()),
            (None, Some(_)) => None,
            (None, None) => Some(self.attempt_deadline(attempt)),
        }
    }
}

impl Restart {
    /// Returns the time at which the link is given up.
    pub(crate) fn ends(&self) -> Instant {
        self.since + RESTART_GRACE
    }
}
