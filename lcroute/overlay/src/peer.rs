//! What is kept of one peer, and what follows from it.
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

/// How long a link is kept while ICE restarts.
const RESTART_GRACE: Duration = Duration::from_secs(6);
/// How long an offer waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a message of a peer that we do not want, or one to it, is kept in mind.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// A wanted peer without a link counts as one that cannot be reached directly after so long. Chosen.
pub(crate) const FAILS_AFTER: Duration = Duration::from_secs(10);
/// The same after so many attempts. Chosen.
const FAILS_AFTER_ATTEMPTS: u32 = 2;

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Who it is, once a message of it has been verified.
    pub(crate) member: Option<Member>,
    /// The carrier that brought its last message: answers may go that way.
    pub(crate) received_over: Option<CarrierId>,
    /// What kind of carrier that was.
    pub(crate) carrier: Option<CarrierKind>,
    /// The newest run of its process that we know of; 0: none.
    pub(crate) session: u64,
    pub(crate) state: PeerState,
    pub(crate) since: Instant,
    pub(crate) reason: Option<&'static str>,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) requested_at: Option<Instant>,
    /// A peer that we do not want and have no link to is forgotten then: it may be about to answer.
    pub(crate) keep_until: Option<Instant>,
    /// When it counts as one that cannot be reached directly, and attempts that failed so far.
    pub(crate) fails_at: Option<Instant>,
    pub(crate) attempts: u32,
    pub(crate) link: Option<Link>,
    pub(crate) waiting: Option<Waiting>,
    /// One that asks for a link beside the run that has it.
    pub(crate) other_runs: Vec<OtherRun>,
    /// Of links that have ended, and straight messages.
    pub(crate) traffic: Traffic,
}

/// What a peer wants and cannot have before a dying link has gone.
#[derive(Debug)]
pub(crate) enum Waiting {
    Request { session: u64, sequence: u64 },
    Offer(Box<Offered>),
}

/// An offer, checked.
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
    /// The run of the peer's process at the other end.
    pub(crate) session: u64,
    /// Sequence of the last message that went into making it: a later request says it is gone.
    pub(crate) sequence: u64,
    pub(crate) attempt: [u8; 32],
    /// The answer to the last offer is still to come, or the offer itself is not made yet.
    pub(crate) awaits_answer: bool,
    /// Of this end and of the peer's, as far as they are known.
    pub(crate) fingerprints: (Option<Fingerprint>, Option<Fingerprint>),
    /// What both sides sign, once the answer is there.
    pub(crate) binding: Option<Binding>,
    pub(crate) auth_sent: bool,
    pub(crate) auth_received: bool,
    /// Since when both sides are authenticated.
    pub(crate) up: Option<Instant>,
    pub(crate) began: Instant,
    pub(crate) restart: Option<Restart>,
    /// The peer must not learn addresses of this host.
    pub(crate) is_hidden: bool,
}

/// ICE is being restarted.
#[derive(Debug)]
pub(crate) struct Restart {
    pub(crate) since: Instant,
    /// The offer's attempt, once it has been made.
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

    /// A row of `peers` for a stranger that was refused.
    pub(crate) fn refused_stranger(id: PeerId, reason: &'static str, since: Instant) -> Self {
        let mut peer = Self::new(id, since);
        peer.set_state(PeerState::Refused, Some(reason), since);
        peer
    }

    /// The link that is authenticated.
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

    /// When something must be done for this peer.
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

    /// Whether it may learn addresses of this host.
    pub(crate) fn may_learn_addresses(&self, trust: &Trust) -> bool {
        trust.discloses_to(&self.id, self.member.as_ref())
    }

    /// What users see of it, with what its connection has carried.
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

    /// Whether we look for a link to this peer, and know a way to tell it so.
    pub(crate) fn may_be_tried<C>(&self, parts: &Parts<C>) -> bool {
        parts.wanted.contains(&self.id)
            && parts.reachable.knows(&self.id)
            && !self.is_barred(&parts.trust, parts.now)
    }

    /// Whether it gets no link: it is expelled, or suspended.
    pub(crate) fn is_barred(&self, trust: &Trust, now: Instant) -> bool {
        trust.bars(&self.id, self.member.as_ref(), now)
    }

    /// Whether nobody needs to remember it: not wanted, no link, nothing to show.
    pub(crate) fn is_idle<C>(&self, parts: &Parts<C>) -> bool {
        let asked = || parts.places.deadline(&self.id, false, parts.now).is_some();
        let busy = self.link.is_some() || self.waiting.is_some() || asked();
        let shown = self.state == PeerState::Refused;
        let expected = self.keep_until.is_some_and(|until| parts.now < until);
        !(busy || shown || expected || parts.wanted.contains(&self.id))
    }

    /// It is refused; shows it, where that says something of the peer itself.
    pub(crate) fn refuse<C>(&mut self, refusal: Refusal, parts: &mut Parts<C>) {
        parts
            .outputs
            .refuse_message(refusal, Some(self.id), parts.now);
        // what somebody replays or spoils says nothing of a peer that we know
        if self.up().is_some() || (!refusal.blames_sender() && self.member.is_some()) {
            return;
        }
        let reason = refusal.reason();
        let is_shown = self.state == PeerState::Refused && self.reason == Some(reason);
        self.set_state(PeerState::Refused, Some(reason), parts.now);
        self.failures = self.failures.max(5);
        if !is_shown {
            parts.outputs.refuse_peer(self.id, reason, parts.now);
        }
    }

    /// From now on the time runs within which a link should come to be.
    pub(crate) fn expect_link(&mut self, wanted: &Wanted, now: Instant) {
        let open = self.fails_at.is_none() && !wanted.is_failing(&self.id);
        if open && wanted.contains(&self.id) {
            (self.fails_at, self.attempts) = (Some(now + FAILS_AFTER), 0);
        }
    }

    /// An attempt has come to nothing.
    pub(crate) fn count_failure<C>(&mut self, parts: &mut Parts<C>) {
        self.attempts = self.attempts.saturating_add(1);
        self.judge_failure(parts);
    }

    /// Tells that a wanted peer cannot be reached directly, once that has shown.
    pub(crate) fn judge_failure<C>(&mut self, parts: &mut Parts<C>) {
        let late = self.fails_at.is_some_and(|at| at <= parts.now);
        let often = self.fails_at.is_some() && self.attempts >= FAILS_AFTER_ATTEMPTS;
        if late || often {
            self.fails_at = None;
            let most = parts.limits.peers;
            parts.wanted.fail(self.id, most, &mut parts.outputs);
        }
    }

    /// There is a link.
    pub(crate) fn count_success<C>(&mut self, parts: &mut Parts<C>) {
        (self.fails_at, self.attempts) = (None, 0);
        parts.wanted.succeed(&self.id, &mut parts.outputs);
    }

    /// It is not wanted any more, or cannot be reached: an attempt under way may end as it will.
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

    /// When the attempt has taken too long.
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
    /// When the link is given up.
    pub(crate) fn ends(&self) -> Instant {
        self.since + RESTART_GRACE
    }
}
