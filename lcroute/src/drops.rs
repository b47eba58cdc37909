//! Drop reasons of the daemon: those of the layers below, and its own.

use librecast::drop_reasons;
use librecast::drops::list;

drop_reasons! {
    /// Why a packet or a message was dropped at lc0, a LAN, the UDP socket, or on the way to the control thread.
    pub enum DropReason {
        /// A super-packet from a LAN that cannot be cut.
        LanBadOffload = "lan_bad_offload",
        /// Lost by the kernel before a frame of a LAN was read: lcroute was too slow, or did not run.
        LanOverrun = "lan_overrun",
        /// The kernel gave an error instead of a frame of a LAN.
        LanReceiveError = "lan_receive_error",
        /// The kernel did not take a frame for a LAN.
        LanSendError = "lan_send_error",
        /// For a relay whose stream takes less than is sent.
        RelayQueueFull = "relay_queue_full",
        /// A signalling message while too many wait for a server.
        SignalQueueFull = "signal_queue_full",
        /// A super-packet from lc0 that cannot be cut.
        TunBadOffload = "tun_bad_offload",
        /// From lc0, and not IPv6, nor IPv4 where that is on.
        TunNotIpv6 = "tun_not_ipv6",
        /// Lost by the kernel before lc0 was read: lcroute was too slow, or did not run.
        TunOverrun = "tun_overrun",
        /// From lc0, and longer than its MTU.
        TunTruncated = "tun_truncated",
        /// The kernel did not take it for lc0.
        TunWriteError = "tun_write_error",
        /// The UDP socket's send buffer was full.
        UdpCongested = "udp_congested",
        /// An ICMP error told that a datagram did not arrive.
        UdpIcmpError = "udp_icmp_error",
        /// The kernel gave an error instead of a datagram.
        UdpReceiveError = "udp_receive_error",
        /// Came while the UDP socket's receive buffer was full.
        UdpReceiveOverflow = "udp_receive_overflow",
        /// The kernel did not send a datagram.
        UdpSendError = "udp_send_error",
        /// A datagram longer than the interface takes.
        UdpTooBig = "udp_too_big",
        /// No route, no such source address any more, or the host's firewall said no.
        UdpUnreachable = "udp_unreachable",
    }
}

/// Counters by reason.
pub type Drops = librecast::drops::Drops<DropReason>;

/// Returns all names in `drops`, in order, with their meaning.
#[must_use]
pub fn reasons() -> Vec<(&'static str, &'static str)> {
    let mut all = list::<lcroute_engine::DropReason>();
    all.extend(list::<lcroute_overlay::DropReason>());
    all.extend(list::<lcroute_webrtc::DropReason>());
    all.extend(list::<lcroute_node::DropReason>());
    all.extend(list::<DropReason>());
    // reasons of two layers with one name are counted together; the first meaning is shown
    all.sort_by_key(|(name, _)| *name);
    all.dedup_by_key(|(name, _)| *name);
    all
}

/// Reasons that a healthy network counts as well: traffic that stays on its link or has no
/// listener, copies over a second path, and remains of ended links.
const USUAL: [&str; 44] = [
    "audit_differs",
    "broadcast",
    "duplicate",
    "flood_limited",
    "icmp_no_link",
    "join_withheld",
    "lan_gateway_frame",
    "lan_mdns_repeated",
    "lan_other_path",
    "lan_own_source",
    "lan_standby",
    "link_control",
    "media_no_link",
    "media_replayed",
    "mld_unspecified_source",
    "no_listener",
    "no_route",
    "no_such_link",
    "not_joined",
    "old_incarnation",
    "presence_stale",
    "presence_unknown",
    "reverse_path",
    "routed_not_sent",
    "scope_not_carried",
    "sctp_left_out",
    "segment_conflict",
    "segment_own_link",
    "segment_router",
    "segment_unknown_host",
    "signal_copy",
    "signal_not_opened",
    "signal_recipient",
    "signal_session",
    "stun_no_link",
    "stun_unasked",
    "tun_not_ipv6",
    "udp_icmp_error",
    "udp_no_link",
    "udp_unreachable",
    "unauthenticated_data",
    "unicast_off",
    "unknown_link",
    "unknown_router",
];

/// Whether a drop of this name indicates a fault.
#[must_use]
pub fn is_notable(reason: &str) -> bool {
    !USUAL.contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_reasons_are_reasons() {
        let all = reasons();
        let unknown: Vec<_> = USUAL
            .iter()
            .filter(|usual| all.iter().all(|(name, _)| name != *usual))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(is_notable("queue_codel") && !is_notable("no_listener"));
    }

    #[test]
    fn each_reason_is_named_once_and_explained() {
        let all = reasons();
        assert!(all.windows(2).all(|two| two[0].0 < two[1].0));
        for (name, meaning) in &all {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain), "{name}");
            assert!(
                meaning.ends_with('.') && meaning.len() > 15,
                "{name}: {meaning}"
            );
        }
    }
}
