//! nftables on hosts and routers: closed firewalls, NAT, loss, cut links, counters.
//!
//! Each concern has its own table, so that it can be set and lifted independently.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Host;
use super::topology::UPLINK;

/// Packet length in bytes from which the uplink counts a packet as data. Keepalives and control
/// messages of an idle link are smaller.
const LARGE: u32 = 900;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, headers included.
    pub bytes: u64,
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;

    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl Host {
    /// Closes the host as usual: the uplink admits only answers and ICMPv6.
    pub fn close_uplink(&self) -> Result<()> {
        self.nft(&format!(
            "table inet closed {{
               counter refused {{ }}
               chain input {{
                 type filter hook input priority 0; policy accept;
                 iifname \"{UPLINK}\" jump uplink
               }}
               chain uplink {{
                 ct state established,related accept
                 meta l4proto ipv6-icmp accept
                 counter name refused drop
               }}
             }}"
        ))
    }

    /// Closes every interface, even `lc0`, to UDP and TCP except answers; ICMPv6 is admitted.
    pub fn close_everywhere(&self) -> Result<()> {
        self.nft(
            "table inet closed {
               counter refused { }
               chain input {
                 type filter hook input priority 0; policy drop;
                 iifname \"lo\" accept
                 ct state established,related accept
                 meta l4proto ipv6-icmp accept
                 counter name refused drop
               }
             }",
        )
    }

    /// Blocks UDP on the uplink, in both directions.
    pub fn drop_udp(&self) -> Result<()> {
        self.nft(&format!(
            "table inet no_udp {{
               chain input {{
                 type filter hook input priority -10; policy accept;
                 iifname \"{UPLINK}\" meta l4proto udp drop
               }}
               chain output {{
                 type filter hook output priority -10; policy accept;
                 oifname \"{UPLINK}\" meta l4proto udp drop
               }}
             }}"
        ))
    }

    /// Lifts [`Host::drop_udp`].
    pub fn pass_udp(&self) -> Result<()> {
        self.nft("delete table inet no_udp")
    }

    /// Makes a home router: source NAT, and only answers are admitted.
    pub(super) fn masquerade(&self, outside: &str) -> Result<()> {
        self.nft(&format!(
            "table inet closed {{
               counter refused {{ }}
               chain input {{
                 type filter hook input priority 0; policy accept;
                 iifname \"{outside}\" ct state established,related accept
                 iifname \"{outside}\" meta l4proto icmp accept
                 iifname \"{outside}\" counter name refused drop
               }}
               chain forward {{
                 type filter hook forward priority 0; policy accept;
                 iifname \"{outside}\" ct state established,related accept
                 iifname \"{outside}\" counter name refused drop
               }}
             }}
             table ip nat {{
               chain postrouting {{
                 type nat hook postrouting priority 100;
                 oifname \"{outside}\" masquerade
               }}
             }}"
        ))
    }

    /// Returns the packets that a closed firewall has dropped.
    pub fn refused(&self) -> Result<Traffic> {
        self.counter("closed", "refused")
    }

    /// Drops `percent` of all packets of an interface, in each direction.
    pub fn set_loss(&self, interface: &str, percent: u8) -> Result<()> {
        self.drop_on(
            "loss",
            interface,
            &format!("numgen random mod 100 < {percent}"),
        )
    }

    /// Drops `percent` of the incoming datagrams of the uplink. Senders get no error, unlike with
    /// drops by their own firewall ([`Self::set_loss`]), after which Firefox ends a connection.
    pub fn lose_incoming(&self, percent: u8) -> Result<()> {
        self.nft(&format!(
            "table inet lost {{
               chain incoming {{
                 type filter hook input priority -300;
                 iifname {UPLINK} meta l4proto udp numgen random mod 100 < {percent} drop
               }}
             }}"
        ))
    }

    /// Cuts the uplink: it stays up, but no packet passes.
    pub fn cut_uplink(&self) -> Result<()> {
        self.drop_on("cut", UPLINK, "")
    }

    /// Heals a cut uplink.
    pub fn heal_uplink(&self) -> Result<()> {
        self.nft("delete table inet cut")
    }

    /// Cuts another interface in the same way.
    pub fn cut(&self, interface: &str) -> Result<()> {
        self.drop_on(&format!("cut_{interface}"), interface, "")
    }

    /// Heals an interface that was cut.
    pub fn heal(&self, interface: &str) -> Result<()> {
        self.nft(&format!("delete table inet cut_{interface}"))
    }

    /// Drops all packets from and to one other host.
    pub fn cut_towards(&self, address: IpAddr) -> Result<()> {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        self.nft(&format!(
            "table inet cut {{
               chain in {{ type filter hook prerouting priority -400; {family} saddr {address} drop; }}
               chain out {{ type filter hook postrouting priority 350; {family} daddr {address} drop; }}
             }}"
        ))
    }

    /// Drops all packets from and to several other hosts, until [`Host::heal_uplink`].
    pub fn cut_from<'a>(&self, others: impl IntoIterator<Item = &'a Host>) -> Result<()> {
        self.drop_hosts("cut", others)
    }

    /// Does the same as [`Host::cut_from`] in addition, until [`Host::rejoin`].
    pub fn part_from<'a>(&self, others: impl IntoIterator<Item = &'a Host>) -> Result<()> {
        self.drop_hosts("parted", others)
    }

    /// Lifts [`Host::part_from`].
    pub fn rejoin(&self) -> Result<()> {
        self.nft("delete table inet parted")
    }

    fn drop_hosts<'a>(
        &self,
        table: &str,
        others: impl IntoIterator<Item = &'a Host>,
    ) -> Result<()> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for other in others {
            v4.push(format!("{}/24", other.v4()?));
            v6.push(format!("{}/64", other.v6()?));
        }
        let (v4, v6) = (v4.join(", "), v6.join(", "));
        self.nft(&format!(
            "table inet {table} {{
               chain in {{
                 type filter hook prerouting priority -400
                 ip saddr {{ {v4} }} drop
                 ip6 saddr {{ {v6} }} drop
               }}
               chain out {{
                 type filter hook postrouting priority 350
                 ip daddr {{ {v4} }} drop
                 ip6 daddr {{ {v6} }} drop
               }}
             }}"
        ))
    }

    fn drop_on(&self, table: &str, interface: &str, condition: &str) -> Result<()> {
        self.nft(&format!(
            "table inet {table} {{
               chain in {{ type filter hook prerouting priority -400; iifname \"{interface}\" {condition} drop; }}
               chain out {{ type filter hook postrouting priority 350; oifname \"{interface}\" {condition} drop; }}
             }}"
        ))
    }

    pub(super) fn count_uplink(&self) -> Result<()> {
        self.nft(&format!(
            "table inet count {{
               counter sent {{ }}
               counter received {{ }}
               counter sent_large {{ }}
               counter received_large {{ }}
               chain in {{
                 type filter hook prerouting priority -450;
                 iifname \"{UPLINK}\" counter name received
                 iifname \"{UPLINK}\" meta length >= {LARGE} counter name received_large
               }}
               chain out {{
                 type filter hook postrouting priority 400;
                 oifname \"{UPLINK}\" counter name sent
                 oifname \"{UPLINK}\" meta length >= {LARGE} counter name sent_large
               }}
             }}"
        ))
    }

    /// Counts the incoming IP fragments from now on.
    pub fn count_fragments(&self) -> Result<()> {
        self.nft(
            "table inet fragments {
               counter seen { }
               chain in {
                 type filter hook prerouting priority -450
                 ip frag-off & 0x3fff != 0 counter name seen
                 exthdr frag exists counter name seen
               }
             }",
        )
    }

    /// Returns the number of received fragments.
    pub fn fragments(&self) -> Result<Traffic> {
        self.counter("fragments", "seen")
    }

    /// Makes a router that never reports a packet as too big.
    pub fn hush(&self) -> Result<()> {
        self.nft(
            "table inet hush {
               chain out {
                 type filter hook output priority 0
                 icmp type destination-unreachable drop
                 icmpv6 type packet-too-big drop
               }
             }",
        )
    }

    /// Returns all traffic of the uplink: (received, sent).
    pub fn uplink_traffic(&self) -> Result<(Traffic, Traffic)> {
        Ok((
            self.counter("count", "received")?,
            self.counter("count", "sent")?,
        ))
    }

    /// Returns packets of 900 bytes and more on the uplink, which are data: (received, sent).
    pub fn uplink_data(&self) -> Result<(Traffic, Traffic)> {
        Ok((
            self.counter("count", "received_large")?,
            self.counter("count", "sent_large")?,
        ))
    }

    /// Returns a named counter of a table of family inet.
    pub fn counter(&self, table: &str, name: &str) -> Result<Traffic> {
        let shown = self
            .ask("nft", &["-j", "list", "counter", "inet", table, name])?
            .success()?;
        let parsed: Value = serde_json::from_str(&shown.stdout).context("output of nft -j")?;
        let counter = parsed["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|item| {
                let counter = item.get("counter")?;
                Some((counter["packets"].as_u64()?, counter["bytes"].as_u64()?))
            });
        ensure!(counter.is_some(), "no counter {name} in {}", shown.stdout);
        let (packets, bytes) = counter.unwrap_or_default();
        Ok(Traffic { packets, bytes })
    }
}
