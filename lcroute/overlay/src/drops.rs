//! The reasons for which the overlay drops datagrams and messages.

/// Names, as users and tests read them, and what they mean.
pub const DROPS: &[(&str, &str)] = &[
    (
        "auth_failed",
        "The first message of a link did not prove who sent it.",
    ),
    (
        "certificate_early",
        "A peer's certificate is not valid yet: look at both clocks.",
    ),
    ("certificate_expired", "A peer's certificate has expired."),
    (
        "certificate_forged",
        "A peer's certificate is signed by nobody who may.",
    ),
    (
        "certificate_malformed",
        "A peer's certificate cannot be read.",
    ),
    (
        "certificate_network",
        "A peer's certificate is one of another network.",
    ),
    ("certificate_revoked", "A peer's certificate was revoked."),
    (
        "certificate_subject",
        "A peer's certificate is another node's.",
    ),
    (
        "control_version",
        "A peer speaks another version of lcroute's control channel.",
    ),
    (
        "dtls_plaintext",
        "A DTLS record outside of a handshake that is not encrypted.",
    ),
    (
        "icmp_no_link",
        "An ICMP error about a datagram of no link of ours.",
    ),
    (
        "media_forged",
        "A packet of the media lane that does not authenticate.",
    ),
    (
        "media_incomplete",
        "A message of several packets of which one never came.",
    ),
    (
        "media_malformed",
        "A packet of the media lane that cannot be read.",
    ),
    (
        "media_no_link",
        "A packet of the media lane for no link of ours.",
    ),
    (
        "media_replayed",
        "A packet of the media lane that came before, or too late.",
    ),
    ("peers_full", "There is no room for more peers or links."),
    (
        "presence_full",
        "A signalling server named more peers than there is room for.",
    ),
    (
        "queue_codel",
        "The queue of a link stood for too long (CoDel): the link is slower than what is sent.",
    ),
    (
        "queue_delay",
        "Waited for a slow link longer than `[live] queue_ms`.",
    ),
    ("queue_full", "The queue of a link was full."),
    ("revocations_full", "There is no room for more revocations."),
    (
        "routed_queue_full",
        "A message from router to router that found the queue before a slow link full; it is sent again.",
    ),
    (
        "sctp_left_out",
        "A peer's SCTP packet that the WebRTC stack would not deal well with, and that no node sends.",
    ),
    (
        "signal_clock",
        "A signalling message whose sender's clock differs by more than a day.",
    ),
    (
        "signal_copy",
        "A signalling message that came by another way before.",
    ),
    (
        "signal_forged",
        "A signalling message with a forged signature.",
    ),
    (
        "signal_malformed",
        "A signalling message that cannot be read.",
    ),
    ("signal_network", "A signalling message of another network."),
    (
        "signal_not_opened",
        "A signalling message that was tampered with, or is sealed to somebody else.",
    ),
    (
        "signal_rate",
        "More signalling messages than one sender may send.",
    ),
    ("signal_recipient", "A signalling message to another node."),
    ("signal_replayed", "A signalling message that came before."),
    (
        "signal_session",
        "A signalling message for an earlier run of this node.",
    ),
    (
        "signal_too_large",
        "A signalling message longer than any may be.",
    ),
    (
        "signal_unexpected",
        "A signalling message straight from an address with which there is no link, and was none lately.",
    ),
    (
        "signal_version",
        "A signalling message of another version of lcroute.",
    ),
    (
        "stun_malformed",
        "A STUN message that cannot be read, or of a kind that nobody sends here.",
    ),
    ("stun_no_link", "A STUN request for no link of ours."),
    ("stun_unasked", "A STUN answer to nothing that was asked."),
    (
        "udp_no_link",
        "A datagram from nobody with whom there is a link.",
    ),
    (
        "udp_no_protocol",
        "A datagram of no protocol that is spoken here.",
    ),
    (
        "unauthenticated_data",
        "Data of a peer that has not proved yet who it is.",
    ),
    (
        "webrtc_panic",
        "The WebRTC stack panicked: the link it happened in was ended.",
    ),
    (
        "webrtc_refused",
        "Refused, and asked again: the WebRTC stack has panicked over what this peer sent.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_in_order() {
        assert!(DROPS.windows(2).all(|two| two[0].0 < two[1].0));
    }
}
