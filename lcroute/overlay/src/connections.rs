//! What the overlay asks of the stack below it: connections to peers, without any notion of who they are.
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

/// Connections to peers, each known by the number of the link that it may become.
///
/// Natively WebRTC over datagrams (`lcroute-webrtc`), in a page RTCPeerConnection. After each call the overlay empties
/// [`Self::poll_event`]. A number that is not known, or not any more, is ignored.
pub trait Connections: fmt::Debug {
    /// The peer of a connection that is about to begin must not learn addresses of this host: relays are all that it may use.
    /// Where a stack does not know how, only its description keeps them from the peer.
    fn use_relays_only(&mut self, _link: LinkId) {}

    /// Begins a connection as offerer. [`ConnectionEvent::Described`] follows, once addresses are known.
    fn offer(&mut self, link: LinkId, now: Instant);

    /// Begins a connection as answerer. [`ConnectionEvent::Described`] follows, once addresses are known.
    fn answer(&mut self, link: LinkId, offer: &Description, now: Instant);

    /// Takes the answer to an offer, of a new connection or of a restart.
    fn accept(&mut self, link: LinkId, answer: &Description, now: Instant);

    /// More addresses of the peer: ICE tries them besides (RFC 8838). Those that come before the answer may be dropped.
    fn add_candidates(&mut self, link: LinkId, candidates: &[Candidate], now: Instant);

    /// The path is lost, and the peer is asked for a restart: nothing is sent before there is another path.
    fn await_restart(&mut self, link: LinkId);

    /// Restarts ICE (RFC 8445, section 9), as answerer of `offer`, else as offerer. DTLS and channels stay.
    /// [`ConnectionEvent::Described`] follows, and [`ConnectionEvent::Path`] when there is another path.
    fn restart(&mut self, link: LinkId, offer: Option<&Description>, now: Instant);

    /// SHA-256 of the certificate that the peer has shown in DTLS.
    fn remote_fingerprint(&mut self, link: LinkId) -> Option<Fingerprint>;

    /// Both sides have proven who they are: lanes and hellos begin. `answers`: the other end sends the regular hellos, this
    /// one answers them. It is false at one end of each link.
    fn authenticated(&mut self, link: LinkId, answers: bool, now: Instant);

    /// At most so many bytes wait in the data channel of a connection. The media lane bounds itself.
    fn bound_data_queue(&mut self, _link: LinkId, _bytes: usize) {}

    /// Sends a control message: reliable, in order.
    ///
    /// # Errors
    /// Nothing is sent: there is no such connection, its queue is full, or the message is too long.
    fn send_control(&mut self, link: LinkId, message: &[u8], now: Instant)
    -> Result<(), SendError>;

    /// Sends a control message behind those of [`Self::send_control`]; a short queue bounds it.
    ///
    /// # Errors
    /// As [`Self::send_control`].
    fn send_routed(&mut self, link: LinkId, message: &[u8], now: Instant) -> Result<(), SendError>;

    /// Sends `parts` as one message that may get lost.
    ///
    /// # Errors
    /// As [`Self::send_control`].
    fn send_data(&mut self, link: LinkId, parts: [&[u8]; 2], now: Instant)
    -> Result<(), SendError>;

    /// There is reason to think that the peer has gone: find out now.
    fn suspect(&mut self, link: LinkId, now: Instant);

    /// Ends a connection and says goodbye to the peer. No event of it follows.
    fn close(&mut self, link: LinkId, now: Instant) -> Closing;

    /// The path in use; none before there is one, while ICE restarts, or where the stack does not tell.
    fn path(&self, link: LinkId) -> Option<Path>;

    /// Sends a datagram without any connection, from one of our addresses if that matters. It is lost where the stack
    /// cannot.
    fn send_straight(&mut self, from: Option<SocketAddr>, to: SocketAddr, datagram: &Bytes);

    /// Addresses at which this node may be reached.
    fn candidates(&self) -> Vec<Candidate>;

    /// How a link does, but for its round trip.
    fn info(&self, link: LinkId) -> LinkInfo;

    /// The round trip of a link: the quickest of the last hellos, once there were enough.
    fn round_trip(&self, link: LinkId) -> Option<Duration>;

    /// Whether a queue stands in the path, as far as the stack knows.
    fn is_congested(&self, _link: LinkId) -> bool {
        false
    }

    /// What a connection has sent and received.
    fn traffic(&self, link: LinkId) -> Traffic;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Self::handle_timeout`] is to be called next, at the latest.
    fn poll_timeout(&mut self) -> Option<Instant>;

    /// The next event.
    fn poll_event(&mut self) -> Option<ConnectionEvent>;

    /// What was dropped so far: reason and count.
    fn drops(&self) -> Vec<(&'static str, u64)>;
}

/// Both ends of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Here.
    pub local: SocketAddr,
    /// There.
    pub remote: SocketAddr,
}

/// What connections tell the overlay.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// What the peer needs to know of this end, for an offer, an answer or a restart.
    Described {
        /// Of which connection.
        link: LinkId,
        /// For the peer.
        description: Description,
    },
    /// Control and data channels are open.
    Open {
        /// Of which connection.
        link: LinkId,
    },
    /// A message of the control channel, in order.
    Control {
        /// Of which connection.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// A message that was sent as data. Before [`Connections::authenticated`] there are none.
    Data {
        /// Of which connection.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// The round trip was measured for the first time, or is shorter than was thought.
    RoundTrip {
        /// Of which connection.
        link: LinkId,
        /// The quickest of the last hellos.
        rtt: Duration,
    },
    /// The peer speaks another version of control messages.
    OtherControl {
        /// Of which connection.
        link: LinkId,
        /// The peer's version.
        version: u8,
    },
    /// ICE has found a path, the first or after a restart.
    Path {
        /// Of which connection.
        link: LinkId,
    },
    /// The local address of the path has gone: the connection needs a restart.
    PathLost {
        /// Of which connection.
        link: LinkId,
    },
    /// The path leads over a relay, and there may be a better one now.
    BetterPath {
        /// Of which connection.
        link: LinkId,
    },
    /// Addresses of this node came to be known after the description was made: the peer had better know them.
    Candidates {
        /// Of which connection.
        link: LinkId,
        /// For the peer.
        candidates: Vec<Candidate>,
    },
    /// A relay came to be known after the description was made, or an address of this host went: a connection that is not
    /// authenticated yet had better begin anew.
    Outdated {
        /// Of which connection.
        link: LinkId,
    },
    /// The addresses of this node changed: attempts that failed before may succeed.
    AddressesChanged,
    /// [`Connections::candidates`] are others than before.
    CandidatesChanged,
    /// The connection has ended; [`Connections::close`] forgets it.
    Closed {
        /// Of which connection.
        link: LinkId,
        /// Why.
        reason: EndReason,
    },
    /// A datagram without any connection, as [`Connections::send_straight`] sends it.
    Straight {
        /// Where it came in, and from.
        path: Path,
        /// What came.
        datagram: Bytes,
    },
}

/// What is left of a connection.
#[derive(Debug, Default)]
pub struct Closing {
    /// The stack below panicked: what it said, and whether over what the peer has provably sent.
    pub panic: Option<(String, bool)>,
    /// What it has sent and received in all.
    pub traffic: Traffic,
}
