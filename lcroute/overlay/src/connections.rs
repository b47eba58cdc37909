//! The overlay's interface to the stack below it: connections to peers, without identities.
//!
//! ```text
//! offer() ------ Described ----> the peer's answer()
//! accept() <---- Described -----
//!            ICE, DTLS, channels
//! Open on both sides; authentication as first control message; authenticated()
//! Control, Data, RoundTrip ...; Closed at the end
//! ```

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use librecast::id::LinkId;
use librecast::time::{Duration, Instant};

use crate::description::{Candidate, Description, Fingerprint};
use crate::event::{EndReason, SendError};
use crate::info::{LinkInfo, Traffic};

/// Connections to peers, each identified by the number of the link that it may become.
///
/// Natively WebRTC over datagrams (`lcroute-webrtc`), in a page RTCPeerConnection. After each call
/// the overlay empties [`Self::poll_event`]. Calls with an unknown number are ignored.
pub trait Connections: fmt::Debug {
    /// Restricts a connection that is about to begin to relays: the peer must not learn addresses
    /// of this host. In a stack without support for this, only the description hides them.
    fn use_relays_only(&mut self, _link: LinkId) {}

    /// Begins a connection as offerer. [`ConnectionEvent::Described`] follows with the addresses.
    fn offer(&mut self, link: LinkId, now: Instant);

    /// Begins a connection as answerer. [`ConnectionEvent::Described`] follows with the addresses.
    fn answer(&mut self, link: LinkId, offer: &Description, now: Instant);

    /// Takes the answer to an offer, of a new connection or of a restart.
    fn accept(&mut self, link: LinkId, answer: &Description, now: Instant);

    /// Adds addresses of the peer for ICE (RFC 8838). Those that come before the answer may be
    /// dropped.
    fn add_candidates(&mut self, link: LinkId, candidates: &[Candidate], now: Instant);

    /// Marks the path as lost, with a restart requested: nothing is sent before a new path.
    fn await_restart(&mut self, link: LinkId);

    /// Restarts ICE (RFC 8445, section 9), as answerer of `offer`, else as offerer. DTLS and
    /// channels stay. [`ConnectionEvent::Described`] follows, and [`ConnectionEvent::Path`] when
    /// there is another path.
    fn restart(&mut self, link: LinkId, offer: Option<&Description>, now: Instant);

    /// SHA-256 of the certificate that the peer presented in DTLS.
    fn remote_fingerprint(&mut self, link: LinkId) -> Option<Fingerprint>;

    /// Starts lanes and hellos: both sides are authenticated. With `answers`, the other end sends
    /// the regular hellos, and this one answers them. It is false at exactly one end of each link.
    fn authenticated(&mut self, link: LinkId, answers: bool, now: Instant);

    /// Limits the data channel's queue of a connection, in bytes. The media lane has its own bound.
    fn bound_data_queue(&mut self, _link: LinkId, _bytes: usize) {}

    /// Sends a control message: reliable, in order.
    ///
    /// # Errors
    /// Nothing is sent: there is no such connection, its queue is full, or the message is too long.
    fn send_control(&mut self, link: LinkId, message: &[u8], now: Instant)
    -> Result<(), SendError>;

    /// Sends a control message behind those of [`Self::send_control`]; a short queue bounds it.
    fn send_routed(&mut self, link: LinkId, message: &[u8], now: Instant) -> Result<(), SendError>;

    /// Sends `parts` as one message that may get lost.
    fn send_data(&mut self, link: LinkId, parts: [&[u8]; 2], now: Instant)
    -> Result<(), SendError>;

    /// Checks at once whether the peer still answers.
    fn suspect(&mut self, link: LinkId, now: Instant);

    /// Says whether received datagrams wait unread in this host: silence then proves nothing.
    fn set_behind(&mut self, _behind: bool) {}

    /// Ends a connection and notifies the peer. No event of it follows.
    fn close(&mut self, link: LinkId, now: Instant) -> Closing;

    /// The path in use; none before the first, while ICE restarts, or if the stack reports none.
    fn path(&self, link: LinkId) -> Option<Path>;

    /// Sends a datagram outside of any connection, from the given local address if any. May drop
    /// it.
    fn send_straight(&mut self, from: Option<SocketAddr>, to: SocketAddr, datagram: &Bytes);

    /// Returns the addresses at which this node may be reached.
    fn candidates(&self) -> Vec<Candidate>;

    /// Returns the state of a link, except its round trip.
    fn info(&self, link: LinkId) -> LinkInfo;

    /// Returns the round trip of a link: the shortest of the last hellos, once there were enough.
    fn round_trip(&self, link: LinkId) -> Option<Duration>;

    /// Returns whether a link holds most packets back: its window is shut, or a queue stands in the
    /// path.
    fn is_pressed(&self, _link: LinkId) -> bool {
        false
    }

    /// Returns whether a queue stands in the path, as far as the stack knows.
    fn is_congested(&self, _link: LinkId) -> bool {
        false
    }

    /// Returns the traffic of a connection, sent and received.
    fn traffic(&self, link: LinkId) -> Traffic;

    /// Handles all timers that are due.
    fn handle_timeout(&mut self, now: Instant);

    /// Returns the latest time for the next call of [`Self::handle_timeout`].
    fn next_timeout(&mut self) -> Option<Instant>;

    /// The next event.
    fn poll_event(&mut self) -> Option<ConnectionEvent>;

    /// Returns the drops so far: reason and count.
    fn drops(&self) -> Vec<(&'static str, u64)>;
}

/// Both ends of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Address of this node.
    pub local: SocketAddr,
    /// Address of the peer.
    pub remote: SocketAddr,
}

/// Events that connections report to the overlay.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// This end's description, for an offer, an answer or a restart.
    Described {
        /// The connection.
        link: LinkId,
        /// The description for the peer.
        description: Description,
    },
    /// Control and data channels are open.
    Open {
        /// The connection.
        link: LinkId,
    },
    /// A message of the control channel, in order.
    Control {
        /// The connection.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// A data message. There are none before [`Connections::authenticated`].
    Data {
        /// The connection.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// The round trip was measured for the first time, or is shorter than the last reported one.
    RoundTrip {
        /// The connection.
        link: LinkId,
        /// The shortest of the last hellos.
        rtt: Duration,
    },
    /// The peer uses another version of control messages.
    OtherControl {
        /// The connection.
        link: LinkId,
        /// The peer's version.
        version: u8,
    },
    /// ICE has found a path, the first or after a restart.
    Path {
        /// The connection.
        link: LinkId,
    },
    /// The local address of the path has gone: the connection needs a restart.
    PathLost {
        /// The connection.
        link: LinkId,
    },
    /// The path leads over a relay, and there may be a better one now.
    BetterPath {
        /// The connection.
        link: LinkId,
    },
    /// This node learned addresses after the description was made; the peer should receive them.
    Candidates {
        /// The connection.
        link: LinkId,
        /// The addresses for the peer.
        candidates: Vec<Candidate>,
    },
    /// A relay appeared after the description was made, or an address of this host disappeared: a
    /// connection that is not authenticated yet should begin again.
    Outdated {
        /// The connection.
        link: LinkId,
    },
    /// The addresses of this node changed: attempts that failed before may succeed.
    AddressesChanged,
    /// The result of [`Connections::candidates`] has changed.
    CandidatesChanged,
    /// The connection has ended; [`Connections::close`] removes it.
    Closed {
        /// The connection.
        link: LinkId,
        /// The reason.
        reason: EndReason,
    },
    /// A datagram outside of any connection, sent by [`Connections::send_straight`].
    Straight {
        /// Local address and sender.
        path: Path,
        /// The datagram.
        datagram: Bytes,
    },
}

/// The remains of a closed connection.
#[derive(Debug, Default)]
pub struct Closing {
    /// A panic of the stack: its message, and whether data that the peer provably sent caused it.
    pub panic: Option<(String, bool)>,
    /// Its total traffic, sent and received.
    pub traffic: Traffic,
}
