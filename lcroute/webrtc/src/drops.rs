//! The reasons for which datagrams, and messages on connections, are dropped.

use librecast::drop_reasons;

drop_reasons! {
    /// Why a datagram or a message was dropped.
    pub enum DropReason {
        /// A DTLS record outside of a handshake that is not encrypted.
        DtlsPlaintext = "dtls_plaintext",
        /// An ICMP error about a datagram that is not from a link of this node.
        IcmpNoLink = "icmp_no_link",
        /// A packet of the media lane that does not authenticate.
        MediaForged = "media_forged",
        /// A datagram from the host's own address, to a peer of whom it is hidden; kept back.
        KeptBack = "kept_back",
        /// A datagram to the host's own address, of a link on which `[ice] disclose` does not show it.
        LinkHidden = "link_hidden",
        /// A message of several packets of which one never came.
        MediaIncomplete = "media_incomplete",
        /// A packet of the media lane that cannot be read.
        MediaMalformed = "media_malformed",
        /// A packet of the media lane for no link of ours.
        MediaNoLink = "media_no_link",
        /// A packet of the media lane that came before, or too late.
        MediaReplayed = "media_replayed",
        /// The queue of a link stood for too long (CoDel): the link is slower than what is sent.
        QueueCodel = "queue_codel",
        /// Waited for a slow link longer than `[live] queue_ms`.
        QueueDelay = "queue_delay",
        /// The queue of a link was full.
        QueueFull = "queue_full",
        /// An answer of a relay without the proof that it is of that relay.
        RelayForged = "relay_forged",
        /// For a peer that the relay does not send to, or not yet.
        RelayNotReady = "relay_not_ready",
        /// A message from router to router that found the queue before a slow link full; it is sent again.
        RoutedQueueFull = "routed_queue_full",
        /// A peer's SCTP packet that the WebRTC stack would not deal well with, and that no node sends.
        SctpLeftOut = "sctp_left_out",
        /// A STUN message that cannot be read, or of a kind that is not expected here.
        StunMalformed = "stun_malformed",
        /// A STUN request for no link of ours.
        StunNoLink = "stun_no_link",
        /// A STUN answer to nothing that was asked.
        StunUnasked = "stun_unasked",
        /// A datagram from an address without a link.
        UdpNoLink = "udp_no_link",
        /// A datagram of an unknown protocol.
        UdpNoProtocol = "udp_no_protocol",
        /// Data of a peer that has not proved yet who it is.
        UnauthenticatedData = "unauthenticated_data",
    }
}
