//! The role of a gateway on a LAN, and problems with it.

use std::fmt;

use librecast::cert::SourcePrefix;

/// The role of a gateway on a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LanRole {
    /// None, see the problem.
    Off,
    /// It does not know the other gateways yet.
    Listening,
    /// It follows the listeners, and replaces the forwarder.
    Standby,
    /// It carries packets, queries and reports.
    Forwarder,
}

impl LanRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Listening, Self::Standby, Self::Forwarder];

    /// The name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Listening => "listening",
            Self::Standby => "standby",
            Self::Forwarder => "forwarder",
        }
    }
}

/// A problem on a LAN, the worst first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LanProblem {
    /// The certificate does not make this node a gateway.
    NotPermitted,
    /// Another interface of this node is on the same LAN.
    SecondInterface,
    /// The certificate allows no packets of these prefixes.
    PrefixesNotPermitted(Vec<SourcePrefix>),
    /// Hosts have only addresses that are valid on their link.
    NoPrefix,
    /// IPv4 groups are configured, but this node carries no IPv4.
    Ipv4Off,
    /// IPv4 groups are configured, but the interface has no IPv4 address for queries.
    NoIpv4OnInterface,
    /// IPv4 groups are configured, but this node has no IPv4 address for its hosts' packets.
    NoIpv4OfNode,
    /// Another LAN uses these prefixes as well.
    Clash(Vec<SourcePrefix>),
    /// Hosts of this number of nodes reach the LAN on a path outside the network.
    OtherPath(usize),
}

impl LanProblem {
    /// The remedy.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotPermitted => {
                "an issuer makes a token with `lcroute invite --gateway any`; `lcroute leave`, then `lcroute join` with it"
            }
            Self::PrefixesNotPermitted(_) => {
                "an issuer makes a token with `lcroute invite --gateway` for them; `lcroute leave`, then `lcroute join` with it"
            }
            Self::SecondInterface => "name one of both in [[lan]]",
            Self::NoPrefix => {
                "`advertise = true` in [[lan]] where no router gives addresses, else name theirs in `sources`; where hosts send IPv4 alone, `[tun] ipv4 = true` and their groups in [[lan]] `groups`"
            }
            Self::Ipv4Off => "`[tun] ipv4 = true`; then restart lcroute",
            Self::NoIpv4OnInterface => {
                "give the interface an IPv4 address of the LAN, or name no IPv4 groups in [[lan]]"
            }
            Self::NoIpv4OfNode => {
                "nodes choose one within seconds; if it stays so, `lcroute doctor` says which route is in its way"
            }
            Self::Clash(_) => "give the hosts of one LAN another prefix",
            Self::OtherPath(_) => {
                "find the bridge, VPN or multicast router between both LANs; one path is enough"
            }
        }
    }
}

impl fmt::Display for LanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |prefixes: &[SourcePrefix]| {
            let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
            prefixes.join(" ")
        };
        match self {
            Self::NotPermitted => f.write_str("this node's certificate does not make it a gateway"),
            Self::SecondInterface => {
                f.write_str("another interface of this host is on the same LAN")
            }
            Self::PrefixesNotPermitted(prefixes) => write!(
                f,
                "this node's certificate does not allow {}: what hosts send is not carried",
                list(prefixes)
            ),
            Self::NoPrefix => {
                f.write_str("no IPv6 prefix is on link: what hosts send over IPv6 is not carried")
            }
            Self::Ipv4Off => f.write_str("IPv4 is off: IPv4 groups of this LAN are not carried"),
            Self::NoIpv4OnInterface => f.write_str(
                "the interface has no IPv4 address: IPv4 groups of this LAN are not carried",
            ),
            Self::NoIpv4OfNode => f.write_str(
                "this node has no IPv4 address: what hosts send to IPv4 groups is not carried",
            ),
            Self::Clash(prefixes) => write!(
                f,
                "another LAN uses {} as well: their hosts do not hear each other",
                list(prefixes)
            ),
            Self::OtherPath(nodes) => write!(
                f,
                "hosts of {nodes} nodes are heard here on another path than the network: nothing of theirs is sent into the LAN"
            ),
        }
    }
}

/// The standing of a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanStanding {
    /// The interface.
    pub interface: String,
    /// This node's role.
    pub role: LanRole,
    /// The problem, if any.
    pub problem: Option<LanProblem>,
}
