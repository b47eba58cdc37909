//! What comes out of the engine.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::LinkId;
use crate::header::HEADER_LEN;

/// Links that one packet goes out on; shared with the forwarding table, so cloning costs nothing.
pub type Links = Arc<[LinkId]>;

/// Something for the shell to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send the same message, `header` followed by `packet`, on the data channel of each link.
    Data {
        /// Where it goes; never empty.
        links: Links,
        /// The data header.
        header: [u8; HEADER_LEN],
        /// The IPv6 packet as it was read from `lc0`.
        packet: Bytes,
    },
    /// Send on the control channel of a link. It must not be lost while the link is up.
    Control {
        /// Where it goes.
        link: LinkId,
        /// At most 16 KiB.
        message: Bytes,
    },
    /// Write into `lc0`: a packet that a local program has joined.
    Local {
        /// The IPv6 packet.
        packet: Bytes,
    },
    /// Write into `lc0`: an MLD query or report; packet taps want a copy of it.
    LocalMld {
        /// The IPv6 packet.
        packet: Bytes,
    },
    /// The neighbour broke the protocol: close this link.
    LinkFault {
        /// The link.
        link: LinkId,
        /// Why, for log and `peers`.
        reason: &'static str,
    },
}

/// Why the engine wants to be woken; every timer it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKind {
    /// The querier's next general query (RFC 9777 §9.2).
    GeneralQuery,
    /// Repeat of a group-specific query (RFC 9777 §9.9).
    SpecificQuery,
    /// A local membership that nobody refreshed (RFC 9777 §9.4).
    ListenerExpiry,
    /// The robustness repeat of a state-change report (RFC 9777 §9.11).
    StateChangeRepeat,
    /// More current-state reports, paced.
    CurrentStateReport,
    /// The end of the wait for a first listener.
    HeldPackets,
    /// A flow without a listener went idle.
    FlowIdle,
    /// Another try after a neighbour's refusal.
    InterestRetry,
}
