//! Every reason for which the daemon drops a packet or a message: those of the layers below, and these.

use librecast::drops::list;

/// What is dropped at lc0, at the UDP socket, and on the way to the control thread.
const SHELL: &[(&str, &str)] = &[
    (
        "lan_bad_offload",
        "A super-packet from a LAN that cannot be cut.",
    ),
    (
        "lan_overrun",
        "Lost by the kernel before a frame of a LAN was read: lcroute was too slow, or did not run.",
    ),
    (
        "lan_receive_error",
        "The kernel gave an error instead of a frame of a LAN.",
    ),
    (
        "lan_send_error",
        "The kernel did not take a frame for a LAN.",
    ),
    (
        "relay_queue_full",
        "For a relay whose stream takes less than is sent.",
    ),
    (
        "signal_queue_full",
        "A signalling message while too many wait for a server.",
    ),
    (
        "tun_bad_offload",
        "A super-packet from lc0 that cannot be cut.",
    ),
    (
        "tun_not_ipv6",
        "From lc0, and not IPv6, nor IPv4 where that is on.",
    ),
    (
        "tun_overrun",
        "Lost by the kernel before lc0 was read: lcroute was too slow, or did not run.",
    ),
    ("tun_truncated", "From lc0, and longer than its MTU."),
    ("tun_write_error", "The kernel did not take it for lc0."),
    ("udp_congested", "The UDP socket's send buffer was full."),
    (
        "udp_icmp_error",
        "An ICMP error told that a datagram did not arrive.",
    ),
    (
        "udp_receive_error",
        "The kernel gave an error instead of a datagram.",
    ),
    (
        "udp_receive_overflow",
        "Came while the UDP socket's receive buffer was full.",
    ),
    ("udp_send_error", "The kernel did not send a datagram."),
    ("udp_too_big", "A datagram longer than the interface takes."),
    (
        "udp_unreachable",
        "No route, no such source address any more, or the host's firewall said no.",
    ),
];

/// All names that can stand in `drops`, in order, with what they mean.
#[must_use]
pub fn reasons() -> Vec<(&'static str, &'static str)> {
    let mut all = list::<lcroute_engine::DropReason>();
    all.extend(list::<lcroute_overlay::DropReason>());
    all.extend(list::<lcroute_webrtc::DropReason>());
    all.extend(list::<lcroute_node::DropReason>());
    all.extend(SHELL);
    // what two layers call the same is counted together: the first one explains it
    all.sort_by_key(|(name, _)| *name);
    all.dedup_by_key(|(name, _)| *name);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

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
