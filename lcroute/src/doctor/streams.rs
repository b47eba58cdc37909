//! Streams: whether their program runs, and whether the host's firewall admits their port.

use librecast::channel::STREAM_PORT;
use librecast::stream::{socket_of, status};

use super::{Check, Patient};

const NAME: &str = "streams";

pub(super) fn check(patient: &Patient) -> Check {
    let control = patient.common.control_to_ask(&patient.config);
    let socket = socket_of(&control);
    if super::is_hidden(&socket) {
        return Check::skipped(NAME, "the program for streams does not answer this user");
    }
    let Ok(status) = status(&socket) else {
        return match patient.config.serve.len() {
            0 => Check::skipped(NAME, "no program for streams answers"),
            served => Check::warn(
                NAME,
                format!(
                    "the configuration has [[serve]] {served} times, and no program for streams answers"
                ),
                "systemctl enable --now lcroute-streams",
            ),
        };
    };
    let tun = match &patient.daemon {
        Some(daemon) => &daemon.status.tun,
        None => &patient.config.tun.name,
    };
    let detail = format!("{} open, {} served", status.streams, status.serving.len());
    let Some(rules) = super::nft_ruleset() else {
        return Check::ok(
            NAME,
            format!("{detail}; the firewall was not looked at: nft is not there, or needs root"),
        );
    };
    match is_closed(&rules, &[tun], STREAM_PORT) {
        false => Check::ok(NAME, detail),
        true => Check::warn(
            NAME,
            format!(
                "{detail}; the firewall drops what no rule lets in, and none lets in UDP port {STREAM_PORT} on {tun}: others open no streams to this host"
            ),
            format!(
                "nft insert rule inet filter input iifname \"{tun}\" udp dport {STREAM_PORT} accept\n\
                 (names of table and chain as on this host; with firewalld, a zone for {tun})"
            ),
        ),
    }
}

/// Whether these rules, as nft prints them, drop packets from the interfaces for a UDP port: a
/// chain of the input hook drops the rest, and no rule admits the port or an interface.
pub(super) fn is_closed(rules: &str, interfaces: &[&str], port: u16) -> bool {
    let (mut is_ipv6, mut is_input, mut drops) = (false, false, false);
    let port = port.to_string();
    let interfaces: Vec<_> = interfaces
        .iter()
        .map(|i| format!("iifname \"{i}\""))
        .collect();
    for line in rules.lines().map(str::trim) {
        let mut words = line.split_whitespace().peekable();
        if line.starts_with("table ") {
            is_ipv6 = matches!(words.nth(1), Some("inet" | "ip6"));
        } else if line.starts_with("chain ") {
            is_input = false;
        } else if line.starts_with("type ") {
            is_input = is_ipv6 && line.contains("hook input");
            drops |= is_input && line.contains("policy drop");
        } else if is_input {
            // `counter packets 1 bytes 60` has no effect
            if words.peek() == Some(&"counter") {
                words.nth(4);
            }
            drops |= matches!(words.next(), Some("drop" | "reject"));
        }
        // also in chains reached by jumps
        let is_narrow = ["daddr", "dport", "saddr", "sport", "protocol", "l4proto"];
        let names_port = line
            .split(|c: char| !c.is_ascii_digit())
            .any(|word| word == port);
        let names_interface = interfaces.iter().any(|i| line.contains(i))
            && !is_narrow.iter().any(|word| line.contains(word));
        if is_ipv6 && line.contains("accept") && (names_port || names_interface) {
            return false;
        }
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(policy: &str, rules: &str) -> String {
        format!(
            "table inet filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy {policy};\n\
             {rules}\n\t}}\n\tchain forward {{\n\t\ttype filter hook forward priority filter; policy drop;\n\t}}\n}}\n"
        )
    }

    #[test]
    fn a_firewall_that_lets_the_port_in_is_told_from_one_that_does_not() {
        let established = "\t\tct state established,related accept";
        let multicast = "\t\tiifname \"lc0\" ip6 daddr ff00::/8 accept";
        for (closed, policy, rules) in [
            (false, "accept", established),
            (true, "drop", established),
            (true, "drop", multicast),
            (
                true,
                "accept",
                "\t\tcounter packets 3 bytes 180 reject with icmpx admin-prohibited",
            ),
            (true, "accept", "\t\tdrop"),
            (false, "accept", "\t\tip6 saddr 2001:db8::1 drop"),
            (true, "drop", "\t\tudp dport 5353 accept"),
            (true, "drop", "\t\tudp dport 142470 accept"),
            (false, "drop", "\t\tiifname \"lc0\" udp dport 14247 accept"),
            (
                false,
                "drop",
                "\t\tudp dport { 53, 14247 } counter packets 0 bytes 0 accept",
            ),
            (false, "drop", "\t\tiifname \"lc0\" accept"),
            (true, "drop", "\t\tiifname \"lc1\" accept"),
        ] {
            assert_eq!(
                is_closed(&input(policy, rules), &["lc0"], STREAM_PORT),
                closed,
                "{policy}: {rules}"
            );
        }
        let ipv4 = input("drop", established).replace("table inet", "table ip");
        assert!(!is_closed(&ipv4, &["lc0"], STREAM_PORT), "IPv4 alone");
        assert!(!is_closed("", &["lc0"], STREAM_PORT));
    }
}
