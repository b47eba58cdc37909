//! Every reason for which the daemon drops a packet or a message: those of the engine, of the overlay, and these.

use lcroute_engine::DropReason;

/// What is dropped at lc0, at the UDP socket, and between engine and overlay.
const SHELL: &[(&str, &str)] = &[
    ("no_such_link", "For a link that has just gone down."),
    (
        "renewal_ignored",
        "A request to renew a certificate that its node has not signed, or to a node that is no issuer.",
    ),
    (
        "revocation_unproven",
        "A peer refused a link by a revocation that is not valid.",
    ),
    (
        "routed_not_sent",
        "A message to another node for which there is no way, or that may not be sent.",
    ),
    (
        "routed_unknown",
        "A message from another node of a kind that this version does not know.",
    ),
    (
        "signal_queue_full",
        "A signalling message while too many wait for a server.",
    ),
    ("too_large", "Longer than a link takes."),
    (
        "tun_bad_offload",
        "A super-packet from lc0 that cannot be cut.",
    ),
    ("tun_not_ipv6", "From lc0, and not IPv6."),
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
    let engine = DropReason::ALL.iter().map(|r| (r.name(), r.meaning()));
    let mut all: Vec<_> = engine
        .chain(lcroute_overlay::DROPS.iter().copied())
        .chain(SHELL.iter().copied())
        .collect();
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
