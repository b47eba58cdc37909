//! The reasons for which the overlay drops messages.

use librecast::drop_reasons;

drop_reasons! {
    /// Why a datagram or a message was dropped.
    pub enum DropReason {
        /// The first message of a link did not prove who sent it.
        AuthFailed = "auth_failed",
        /// A peer's certificate is not valid yet: look at both clocks.
        CertificateEarly = "certificate_early",
        /// A peer's certificate has expired.
        CertificateExpired = "certificate_expired",
        /// A peer's certificate without the signature of an issuer of this network.
        CertificateForged = "certificate_forged",
        /// A peer's certificate cannot be read.
        CertificateMalformed = "certificate_malformed",
        /// A peer's certificate is one of another network.
        CertificateNetwork = "certificate_network",
        /// A peer's certificate was revoked.
        CertificateRevoked = "certificate_revoked",
        /// A peer's certificate is another node's.
        CertificateSubject = "certificate_subject",
        /// A peer speaks another version of lcroute's control channel.
        ControlVersion = "control_version",
        /// This node is behind, and enough leaves begin a link: this one asks again later.
        LeafBusy = "leaf_busy",
        /// A leaf asked another leaf for a link, or somebody asked a leaf that does not want one.
        LeafRefused = "leaf_refused",
        /// The tables of peers or links are full.
        PeersFull = "peers_full",
        /// A presence record with a forged signature.
        PresenceForged = "presence_forged",
        /// Carriers named more peers than there is room for.
        PresenceFull = "presence_full",
        /// More presence records of one kind of carrier than are opened.
        PresenceLimited = "presence_limited",
        /// A presence record that cannot be read.
        PresenceMalformed = "presence_malformed",
        /// A presence record of another network, or one that was tampered with.
        PresenceNotOpened = "presence_not_opened",
        /// A presence record that is good no more, or older than one that is known.
        PresenceStale = "presence_stale",
        /// A presence record of a former epoch, by a node that is not known as a member.
        PresenceUnknown = "presence_unknown",
        /// The table of revocations is full.
        RevocationsFull = "revocations_full",
        /// A signalling message, or a presence record, whose sender's clock differs by more than a day.
        SignalClock = "signal_clock",
        /// A signalling message that came by another way before.
        SignalCopy = "signal_copy",
        /// A signalling message with a forged signature.
        SignalForged = "signal_forged",
        /// A signalling message that cannot be read.
        SignalMalformed = "signal_malformed",
        /// A signalling message of another network.
        SignalNetwork = "signal_network",
        /// A signalling message that was tampered with, or is sealed to somebody else.
        SignalNotOpened = "signal_not_opened",
        /// More signalling messages than one sender may send.
        SignalRate = "signal_rate",
        /// A signalling message to another node.
        SignalRecipient = "signal_recipient",
        /// A signalling message that came before.
        SignalReplayed = "signal_replayed",
        /// A signalling message for an earlier run of this node.
        SignalSession = "signal_session",
        /// A signalling message longer than any may be.
        SignalTooLarge = "signal_too_large",
        /// A signalling message straight from an address, by a sender that does not know the network.
        SignalUnexpected = "signal_unexpected",
        /// A signalling message of another version of lcroute.
        SignalVersion = "signal_version",
        /// A signalling message to the host's own address, of a member to whom `[ice] disclose` does not show it.
        StraightHidden = "straight_hidden",
        /// A question to the owner of a text that is none.
        TextAsk = "text_ask",
        /// The record of a text that the text's owner has not signed.
        TextForged = "text_forged",
        /// More questions about a text, or records of it, than are answered or opened.
        TextLimited = "text_limited",
        /// The record of a text that cannot be read.
        TextMalformed = "text_malformed",
        /// The record of another text.
        TextNotOpened = "text_not_opened",
        /// The record of a text that has expired, or is from the future: look at both clocks.
        TextStale = "text_stale",
        /// The WebRTC stack panicked: the link it happened in was ended.
        WebrtcPanic = "webrtc_panic",
        /// Refused, and asked again: the WebRTC stack has panicked over what this peer sent.
        WebrtcRefused = "webrtc_refused",
    }
}
