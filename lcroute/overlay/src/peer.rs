//! What is kept of one peer.
//!
//! ```text
//! connecting --knock, offer, answer, ICE, DTLS, Auth--> connected --silence, goodbye--> lost
//!     ^  \------------- refused (bad certificate) <-------/                              |
//!     \------------------- knock, after a pause ----------------------------------------/
//! ```

use std::time::{Duration, Instant};

use librecast::cert::Member;
use librecast::id::PeerId;

use crate::auth::Binding;
use crate::connection::Connection;
use crate::description::Description;
use crate::direct::SilentPair;
use crate::event::{CarrierId, Lane, LinkId, PeerInfo, PeerState};
use crate::liveness::Liveness;
use crate::media::Media;

/// How long a link is kept while ICE restarts.
pub(crate) const RESTART_GRACE: Duration = Duration::from_secs(6);
/// How long an offer waits for its answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A link that lived so long was a good one: the next attempt comes at once.
pub(crate) const STABLE: Duration = Duration::from_secs(5);

/// How long a message of a peer that we do not want, or one to it, is kept in mind.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// A wanted peer without a link counts as one that cannot be reached directly after so long, and after
/// so many attempts.
pub(crate) const FAILS_AFTER: Duration = Duration::from_secs(10);
pub(crate) const FAILS_AFTER_ATTEMPTS: u32 = 2;

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Who it is, once a message of it has been verified.
    pub(crate) member: Option<Member>,
    /// The carrier that brought its last message: answers may go that way.
    pub(crate) heard_over: Option<CarrierId>,
    /// The newest run of its process that we know of; 0: none.
    pub(crate) session: u64,
    pub(crate) state: PeerState,
    pub(crate) since: Instant,
    pub(crate) reason: Option<&'static str>,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) knocked_at: Option<Instant>,
    /// A peer that we do not want and have no link to is forgotten then: it may be about to answer.
    pub(crate) keep_until: Option<Instant>,
    /// When it counts as one that cannot be reached directly, and attempts that failed so far.
    pub(crate) fails_at: Option<Instant>,
    pub(crate) attempts: u32,
    pub(crate) link: Option<Link>,
    pub(crate) waiting: Option<Waiting>,
    /// Where its last link fell silent, while there is none.
    pub(crate) silent_pair: Option<SilentPair>,
    pub(crate) traffic: Traffic,
    /// The entry in the timer heap that counts.
    pub(crate) scheduled: Option<Instant>,
    pub(crate) dirty: bool,
}

/// What a peer wants and cannot have yet: we gather addresses, or a dying link must go first.
#[derive(Debug)]
pub(crate) enum Waiting {
    Knock { session: u64, sequence: u64 },
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
    pub(crate) connection: Connection,
    /// The run of the peer's process at the other end.
    pub(crate) session: u64,
    /// Sequence of the last message that went into making it: a later knock says it is gone.
    pub(crate) sequence: u64,
    pub(crate) attempt: [u8; 32],
    /// What both sides sign, once the answer is there.
    pub(crate) binding: Option<Binding>,
    pub(crate) auth_sent: bool,
    pub(crate) auth_received: bool,
    pub(crate) up: Option<Up>,
    pub(crate) began: Instant,
    pub(crate) restart: Option<Restart>,
    /// When the connection wants its timeout, as of when it was last drained.
    pub(crate) connection_due: Option<Instant>,
}

/// A link that is authenticated.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) id: LinkId,
    pub(crate) since: Instant,
    pub(crate) liveness: Liveness,
    pub(crate) media: Option<Box<Media>>,
}

/// ICE is being restarted.
#[derive(Debug)]
pub(crate) struct Restart {
    pub(crate) since: Instant,
    /// The offer's attempt, once it has been made.
    pub(crate) attempt: Option<[u8; 32]>,
}

/// UDP payload of all links to a peer.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Instant) -> Self {
        Self {
            id,
            member: None,
            heard_over: None,
            session: 0,
            state: PeerState::Connecting,
            since: now,
            reason: None,
            failures: 0,
            retry_at: None,
            knocked_at: None,
            keep_until: None,
            fails_at: None,
            attempts: 0,
            link: None,
            waiting: None,
            silent_pair: None,
            traffic: Traffic::default(),
            scheduled: None,
            dirty: false,
        }
    }

    pub(crate) fn up(&self) -> Option<&Up> {
        self.link.as_ref()?.up.as_ref()
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
    pub(crate) fn deadline(&self, attempt: Duration) -> Option<Instant> {
        let next = match self.link.as_ref() {
            Some(link) => link.deadline(attempt),
            None => earliest([self.retry_at, self.keep_until]),
        };
        let direct = self.silent_pair.as_ref().map(SilentPair::deadline);
        earliest([next, self.fails_at, direct])
    }

    /// Whether a timeout is the media lane's or the liveness probe's: the WebRTC stack, whose timers
    /// cost far more, need not be touched.
    pub(crate) fn connection_is_quiet(&self, now: Instant) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| link.restart.is_none()) else {
            return false;
        };
        let quiet = link.connection_due.is_none_or(|due| now < due);
        quiet && !self.dirty && link.up.is_some()
    }

    /// The row of `peers --json`.
    pub(crate) fn info(&self, now: Instant) -> PeerInfo {
        let up = self.up();
        let media = up.and_then(|up| up.media.as_deref());
        let rtt = up.and_then(|up| up.liveness.rtt());
        let loss = || up.map(|up| up.liveness.loss());
        PeerInfo {
            peer_id: self.id,
            name: self.member.as_ref().map(|m| m.name.clone()),
            address: self.member.as_ref().map(|m| m.addresses.address),
            state: self.state,
            // not the media lane's, which grows with its queues: routes must not follow load
            rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            loss: media.and_then(Media::loss).or_else(loss),
            lane: match media {
                Some(_) => Lane::Media,
                None => Lane::Data,
            },
            path_mtu: media.map(Media::path_mtu),
            congested_packets: media.map_or(0, Media::congested),
            tx_bytes: self.traffic.tx_bytes,
            rx_bytes: self.traffic.rx_bytes,
            tx_packets: self.traffic.tx_packets,
            rx_packets: self.traffic.rx_packets,
            repair: media.map(Media::repaired).unwrap_or_default(),
            since_s: now.saturating_duration_since(self.since).as_secs(),
            reason: self.reason,
            link: up.map(|up| up.id),
        }
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}

impl Link {
    /// When the attempt has taken too long.
    pub(crate) fn too_late(&self, attempt: Duration) -> Instant {
        self.began
            + if self.connection.awaits_answer() {
                ANSWER_WITHIN
            } else {
                attempt
            }
    }

    fn deadline(&self, attempt: Duration) -> Option<Instant> {
        let own = match (&self.restart, &self.up) {
            (Some(restart), _) => restart.since + RESTART_GRACE,
            (None, Some(up)) => up.liveness.deadline(),
            (None, None) => self.too_late(attempt),
        };
        let media = self
            .up
            .as_ref()
            .and_then(|up| up.media.as_ref()?.deadline());
        let own = media.map_or(own, |media| own.min(media));
        self.connection_due
            .map_or(Some(own), |theirs| Some(own.min(theirs)))
    }
}

impl Traffic {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.tx_bytes += bytes as u64;
        self.tx_packets += 1;
    }

    pub(crate) fn received(&mut self, bytes: usize) {
        self.rx_bytes += bytes as u64;
        self.rx_packets += 1;
    }
}
