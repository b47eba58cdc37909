//! The rules of nftables about packets that this host receives.

use librecast::channel::STREAM_PORT;

/// All groups of IPv4, as nft prints them in a rule.
const IPV4_GROUPS: &str = "ip daddr 224.0.0.0/4";
/// Conditions that narrow a rule.
const NARROW: [&str; 6] = ["daddr", "dport", "saddr", "sport", "protocol", "l4proto"];

/// Packets of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Streams, which are of IPv6.
    Streams,
    /// Groups of IPv4.
    Ipv4Groups,
    /// Multicast DNS of a LAN, whose IPv6 is enough.
    MulticastDns,
}

/// UDP port of multicast DNS (RFC 6762, section 3).
const MDNS_PORT: u16 = 5_353;

impl Traffic {
    /// Returns the family of tables that see it, beside `inet`.
    fn family(self) -> &'static str {
        match self {
            Self::Streams | Self::MulticastDns => "ip6",
            Self::Ipv4Groups => "ip",
        }
    }

    /// Whether an accepting rule names it, on `tun` or any interface.
    fn is_named(self, rule: &str, tun: &str) -> bool {
        match self {
            Self::Streams => names_port(rule, STREAM_PORT),
            Self::MulticastDns => names_port(rule, MDNS_PORT),
            Self::Ipv4Groups => {
                let rest = rule.replace(IPV4_GROUPS, "");
                let is_everywhere = !rest.contains("iif");
                rest != rule && !is_narrow(&rest) && (is_everywhere || rest.contains(tun))
            }
        }
    }
}

fn names_port(rule: &str, port: u16) -> bool {
    let port = port.to_string();
    let mut numbers = rule.split(|c: char| !c.is_ascii_digit());
    numbers.any(|word| word == port)
}

fn is_narrow(rule: &str) -> bool {
    NARROW.iter().any(|word| rule.contains(word))
}

/// Whether these rules, as nft prints them, drop such packets from the interface `tun`: a chain of the input hook
/// drops the rest, and no rule admits them or the interface.
pub(super) fn is_closed(rules: &str, tun: &str, traffic: Traffic) -> bool {
    let (mut is_family, mut is_input, mut drops) = (false, false, false);
    let (interface, family) = (format!("iifname \"{tun}\""), traffic.family());
    for line in rules.lines().map(str::trim) {
        let mut words = line.split_whitespace().peekable();
        if line.starts_with("table ") {
            is_family = words.nth(1).is_some_and(|of| of == "inet" || of == family);
        } else if line.starts_with("chain ") {
            is_input = false;
        } else if line.starts_with("type ") {
            is_input = is_family && line.contains("hook input");
            drops |= is_input && line.contains("policy drop");
        } else if is_input {
            // `counter packets 1 bytes 60` has no effect
            if words.peek() == Some(&"counter") {
                words.nth(4);
            }
            drops |= matches!(words.next(), Some("drop" | "reject"));
        }
        // also in chains reached by jumps
        let names_interface = line.contains(&interface) && !is_narrow(line);
        let admits = names_interface || traffic.is_named(line, tun);
        if is_family && line.contains("accept") && admits {
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
                is_closed(&input(policy, rules), "lc0", Traffic::Streams),
                closed,
                "{policy}: {rules}"
            );
        }
        let ipv4 = input("drop", established).replace("table inet", "table ip");
        assert!(!is_closed(&ipv4, "lc0", Traffic::Streams), "IPv4 alone");
        assert!(!is_closed("", "lc0", Traffic::Streams));
    }

    #[test]
    fn a_rule_for_groups_of_ipv6_leaves_those_of_ipv4_out() {
        for (closed, rules) in [
            (true, "\t\tct state established,related accept"),
            (true, "\t\tiifname \"lc0\" ip6 daddr ff00::/8 accept"),
            (true, "\t\tiifname \"lc0\" udp dport 14247 accept"),
            (true, "\t\tiifname \"eth0\" ip daddr 224.0.0.0/4 accept"),
            (false, "\t\tiifname \"lc0\" ip daddr 224.0.0.0/4 accept"),
            (false, "\t\tip daddr 224.0.0.0/4 accept"),
            (
                false,
                "\t\tiifname \"lc0\" counter packets 0 bytes 0 accept",
            ),
        ] {
            let rules = input("drop", rules);
            let closed_in = |rules: &str| is_closed(rules, "lc0", Traffic::Ipv4Groups);
            assert_eq!(closed_in(&rules), closed, "{rules}");
            let of_ipv4 = rules.replace("table inet", "table ip");
            assert_eq!(closed_in(&of_ipv4), closed, "{of_ipv4}");
            let of_ipv6 = rules.replace("table inet", "table ip6");
            assert!(!closed_in(&of_ipv6), "{of_ipv6}");
        }
    }
}
