//! `[relay]`: serving as a relay, and using relays (TURN).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::Error};

/// Default ports of TURN, and of TURN over TLS.
const PORTS: (u16, u16) = (3_478, 5_349);

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// Whether a signalling server also relays.
    pub serve: bool,
    /// Whether it relays for every registered client, member or not.
    pub open: bool,
    /// Whether it relays to private addresses, and to those that the host reaches without a router.
    pub private: bool,
    /// Bound for one node's traffic in both directions, in bits a second.
    #[serde(deserialize_with = "rate")]
    pub rate: u64,
    /// Bound for all nodes together, in bits a second.
    #[serde(deserialize_with = "rate")]
    pub rate_total: u64,
    /// Bound for all leaves of one network together, in bits a second.
    #[serde(deserialize_with = "rate")]
    pub leaf_rate: u64,
    /// Public addresses of this host behind a NAT.
    pub addresses: Vec<IpAddr>,
    /// Whether to ask signalling servers for their relay: they get this node's certificates.
    pub ask: bool,
    /// Relays to use beside those of the signalling servers.
    #[serde(deserialize_with = "urls")]
    pub turn: Vec<TurnUrl>,
    /// User name at these relays.
    pub user: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// File with the secret from which user names and passwords are made.
    pub secret_file: Option<PathBuf>,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            serve: true,
            open: false,
            private: false,
            rate: 20_000_000,
            rate_total: 200_000_000,
            leaf_rate: 20_000_000,
            addresses: Vec::new(),
            ask: true,
            turn: Vec::new(),
            user: None,
            password_file: None,
            secret_file: None,
        }
    }
}

/// A relay by its URL (RFC 7065).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TurnUrl {
    /// Name or address; IPv6 addresses in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Transport of its client.
    pub leg: Leg,
}

/// The transport to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// `turn:HOST`: UDP, and TCP where UDP does not get through.
    Any,
    /// `?transport=udp`
    Udp,
    /// `?transport=tcp`
    Tcp,
    /// `turns:`
    Tls,
}

impl TurnUrl {
    /// `HOST:PORT`
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn parse(text: &str) -> Option<Self> {
        let (rest, tls) = match text.strip_prefix("turn:") {
            Some(rest) => (rest, false),
            None => (text.strip_prefix("turns:")?, true),
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let leg = match (tls, query) {
            (false, "") => Leg::Any,
            (false, "transport=udp") => Leg::Udp,
            (false, "transport=tcp") => Leg::Tcp,
            (true, "" | "transport=tcp") => Leg::Tls,
            _ => return None,
        };
        let after_host = if authority.starts_with('[') {
            let end = authority.find(']')?;
            authority[1..end].parse::<std::net::Ipv6Addr>().ok()?;
            end + 1
        } else {
            authority.find(':').unwrap_or(authority.len())
        };
        let (host, port) = authority.split_at(after_host);
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if port.is_empty() => [PORTS.0, PORTS.1][usize::from(tls)],
            None => return None,
        };
        let plain = |c: u8| c.is_ascii_alphanumeric() || b".-_[]:".contains(&c);
        (!host.is_empty() && host.len() <= 253 && host.bytes().all(plain)).then(|| Self {
            host: host.to_owned(),
            port,
            leg,
        })
    }
}

impl fmt::Display for TurnUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, query) = match self.leg {
            Leg::Any => ("turn", ""),
            Leg::Udp => ("turn", "?transport=udp"),
            Leg::Tcp => ("turn", "?transport=tcp"),
            Leg::Tls => ("turns", "?transport=tcp"),
        };
        write!(f, "{scheme}:{}{query}", self.authority())
    }
}

fn urls<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<TurnUrl>, D::Error> {
    let list = Vec::<String>::deserialize(d)?;
    let parse = |text: &String| {
        TurnUrl::parse(text).ok_or_else(|| {
            let write =
                "write it as turn:HOST:PORT, turn:HOST:PORT?transport=tcp or turns:HOST:PORT";
            D::Error::custom(format!("`{text}`: {write}"))
        })
    };
    list.iter().map(parse).collect()
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let text = String::deserialize(d)?;
    librecast_program::units::parse_rate(&text)
        .map_err(|e| D::Error::custom(format!("`{text}`: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_with_their_port() {
        for (text, shown) in [
            ("turn:relay.example", "turn:relay.example:3478"),
            ("turn:relay.example:99", "turn:relay.example:99"),
            (
                "turn:10.0.0.1:9?transport=udp",
                "turn:10.0.0.1:9?transport=udp",
            ),
            (
                "turn:[2001:db8::1]:9?transport=tcp",
                "turn:[2001:db8::1]:9?transport=tcp",
            ),
            (
                "turns:relay.example",
                "turns:relay.example:5349?transport=tcp",
            ),
            (
                "turns:[::1]:443?transport=tcp",
                "turns:[::1]:443?transport=tcp",
            ),
        ] {
            let url = TurnUrl::parse(text).map(|url| url.to_string());
            assert_eq!(url.as_deref(), Some(shown));
        }
        for text in [
            "relay.example",
            "stun:relay.example",
            "turn:",
            "turn:a:0",
            "turn:a:b",
            "turn:a b",
            "turn:a?transport=tls",
            "turns:a?transport=udp",
            "turn:[::1",
            "turn:a:1:2",
            "turn:u@a",
        ] {
            assert_eq!(TurnUrl::parse(text), None, "{text}");
        }
    }
}
