//! The wires: attachments of hosts, with their addresses.
//!
//! Addresses are from the ranges for tests and documentation: the n-th attachment to the Internet
//! is 198.18.n.0/24 and 2001:db8:n::/64, with the router as number 1 and the host as number 2.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use super::{Host, Lab};

/// The interface of a host towards the Internet or its home router.
pub const UPLINK: &str = "eth0";
/// The interface of a host in a LAN.
pub const LAN: &str = "lan0";

/// A LAN behind gateways.
#[derive(Debug)]
pub struct Site {
    /// The switch, with the interface `bridge`.
    pub switch: Host,
    /// Plain hosts.
    pub hosts: Vec<Host>,
}

impl Lab {
    /// Makes a host with public addresses.
    ///
    /// ```text
    ///   internet ── to-NAME                         eth0 ── NAME
    ///         198.18.n.1, 2001:db8:n::1   198.18.n.2, 2001:db8:n::2
    /// ```
    pub fn host(&self, name: &str) -> Result<Host> {
        let host = self.detached_host(name)?;
        self.attach(&host)?;
        host.count_uplink()?;
        Ok(host)
    }

    /// Makes a host behind a home router that masquerades and admits only answers.
    ///
    /// ```text
    ///   internet ── to-NAME-nat      eth0 ── NAME-nat ── lan      eth0 ── NAME
    ///          198.18.n.1    198.18.n.2   192.168.1.1        192.168.1.2
    /// ```
    pub fn host_behind_nat(&self, name: &str) -> Result<Host> {
        let router = self.detached_host(&format!("{name}-nat"))?;
        self.attach(&router)?;
        router.namespace().sysctl("net/ipv4/ip_forward", "1")?;
        router.masquerade(UPLINK)?;
        let host = self.detached_host(name)?;
        connect(&router, "lan", &host, UPLINK)?;
        router.ip("addr add 192.168.1.1/24 dev lan\nlink set lan up")?;
        host.ip(&format!(
            "addr add 192.168.1.2/24 dev {UPLINK}\nlink set {UPLINK} up\nroute add default via 192.168.1.1"
        ))?;
        host.set_addresses(Ipv4Addr::new(192, 168, 1, 2), None);
        host.count_uplink()?;
        Ok(host)
    }

    /// Does the same; the router uses another port for each destination.
    pub fn host_behind_symmetric_nat(&self, name: &str) -> Result<Host> {
        let host = self.host_behind_nat(name)?;
        let router = self.find(&format!("{name}-nat"));
        let router = router.context("the router")?;
        router.nft(&format!(
            "flush chain ip nat postrouting
             add rule ip nat postrouting oifname \"{UPLINK}\" masquerade fully-random"
        ))?;
        Ok(host)
    }

    /// Makes a host without an attachment.
    pub fn detached_host(&self, name: &str) -> Result<Host> {
        let host = Host::new(&self.world, name)?;
        self.hosts.borrow_mut().push(host.clone());
        Ok(host)
    }

    /// Makes hosts on one Ethernet, without a router; each has `lan0`.
    ///
    /// ```text
    ///   bridge ─┬─ lan0 ── first    10.0.0.1, fd00:1::1
    ///           ├─ lan0 ── second   10.0.0.2, fd00:1::2
    ///           └─ ...
    /// ```
    pub fn lan(&self, names: &[&str]) -> Result<Vec<Host>> {
        let switch = self.detached_host("switch")?;
        switch.ip("link add bridge type bridge mcast_snooping 0\nlink set bridge up")?;
        let mut hosts = Vec::new();
        for (number, name) in (1_u8..).zip(names) {
            let host = self.detached_host(name)?;
            let port = format!("port{number}");
            connect(&host, LAN, &switch, &port)?;
            switch.ip(&format!(
                "link set {port} master bridge\nlink set {port} up"
            ))?;
            host.ip(&format!(
                "addr add 10.0.0.{number}/24 dev {LAN}\n\
                 addr add fd00:1::{number}/64 dev {LAN} nodad\n\
                 link set {LAN} up"
            ))?;
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// Makes a LAN with a switch that snoops MLD, for existing gateways and new hosts, each with
    /// `lan0`. In LAN n the hosts have 2001:db8:a00n::1 and so on, gateways first.
    ///
    /// ```text
    ///   internet ── eth0 ── gateway ── lan0 ── switch ─┬─ lan0 ── host
    ///                                                  └─ lan0 ── host
    /// ```
    pub fn site(&self, n: u8, gateways: &[&Host], names: &[&str]) -> Result<Site> {
        let switch = self.detached_host(&format!("switch{n}"))?;
        switch.ip("link add bridge type bridge mcast_snooping 1\nlink set bridge up")?;
        let hosts: Result<Vec<_>> = names.iter().map(|name| self.detached_host(name)).collect();
        let hosts = hosts?;
        let all = gateways.iter().copied().chain(&hosts);
        for (number, host) in (1_u8..).zip(all) {
            let port = format!("port{number}");
            connect(host, LAN, &switch, &port)?;
            switch.ip(&format!(
                "link set {port} master bridge\nlink set {port} up"
            ))?;
            host.ip(&format!(
                "addr add 2001:db8:a00{n}::{number}/64 dev {LAN} nodad\nlink set {LAN} up"
            ))?;
        }
        Ok(Site { switch, hosts })
    }

    /// Drops `percent` of all packets from and to a host with public addresses.
    ///
    /// The kernel carries a train of datagrams (`UDP_SEGMENT`) over a veth as one packet, which the
    /// firewall would drop as a whole, so trains are cut first.
    pub fn lose(&self, host: &Host, percent: u8) -> Result<()> {
        let [_, _, n, _] = host.v4()?.octets();
        self.internet
            .ip(&format!("link set to{n} gso_max_segs 1"))?;
        host.ip(&format!("link set {UPLINK} gso_max_segs 1"))?;
        host.set_loss(UPLINK, percent)
    }

    fn attach(&self, host: &Host) -> Result<()> {
        let n = self
            .attached
            .get()
            .checked_add(1)
            .context("255 hosts are attached already")?;
        self.attached.set(n);
        let port = format!("to{n}");
        connect(host, UPLINK, &self.internet, &port)?;
        self.internet.ip(&format!(
            "addr add 198.18.{n}.1/24 dev {port}\n\
             addr add 2001:db8:{n}::1/64 dev {port} nodad\n\
             link set {port} up"
        ))?;
        host.ip(&format!(
            "addr add 198.18.{n}.2/24 dev {UPLINK}\n\
             addr add 2001:db8:{n}::2/64 dev {UPLINK} nodad\n\
             link set {UPLINK} up\n\
             route add default via 198.18.{n}.1\n\
             route add ::/0 via 2001:db8:{n}::1"
        ))?;
        let v6: Ipv6Addr = format!("2001:db8:{n}::2").parse()?;
        host.set_addresses(Ipv4Addr::new(198, 18, n, 2), Some(v6));
        Ok(())
    }
}

/// Makes a wire between two hosts. Duplicate address detection is off at both ends, so that
/// addresses are usable at once; offloads stay on, as on a real host.
fn connect(a: &Host, at_a: &str, b: &Host, at_b: &str) -> Result<()> {
    let far = b.namespace().path();
    a.ip(&format!(
        "link add {at_a} type veth peer name {at_b} netns {far}"
    ))?;
    for (host, interface) in [(a, at_a), (b, at_b)] {
        host.namespace()
            .sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")?;
        host.namespace().sysctl(
            &format!("net/ipv6/conf/{interface}/router_solicitations"),
            "0",
        )?;
    }
    Ok(())
}
