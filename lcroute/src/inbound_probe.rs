//! Tests whether this host's firewall admits packets that arrive on lc0.
//!
//! A firewall that drops inbound UDP on all interfaces also drops multicast on lc0: programs join,
//! packets arrive, and programs receive none. So lcroute writes a datagram into lc0, as if from
//! another node, and checks whether it arrives. Its group has link scope, and only a short-lived
//! socket has joined it.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use lcroute_control::status::Inbound;
use librecast::ipv4::UDP;
use librecast::mld::checksum;
use librecast::wire::Writer;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{netlink, tun};

/// Timeout of the datagram, which crosses one interface of this host.
const PROBE_TIMEOUT: Duration = Duration::from_millis(700);
/// Time between trials: firewall rules change. Chosen: a datagram costs little.
const AGAIN: Duration = Duration::from_secs(60);
/// Time between trials while nothing is admitted, as a user may be changing the rules.
const AGAIN_WHILE_CLOSED: Duration = Duration::from_secs(5);
const CONTENT: [u8; 16] = *b"lcroute: let in?";

/// The present verdict, and a running trial.
#[derive(Debug, Default)]
pub struct InboundProbe {
    trial: Option<Trial>,
    verdict: Option<Inbound>,
    /// The last logged verdict.
    logged: Option<Inbound>,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Trial {
    socket: UdpSocket,
    group: Ipv6Addr,
    /// The interface.
    index: u32,
    until: Instant,
}

impl InboundProbe {
    /// Returns the present verdict.
    pub fn verdict(&self) -> Inbound {
        self.verdict.unwrap_or(Inbound::Unknown)
    }

    /// Resets the verdict to unknown, as the firewall may have changed.
    pub fn forget(&mut self) {
        self.verdict = None;
    }

    /// Whether another trial is due.
    pub fn is_due(&self, now: Instant) -> bool {
        let pause = match self.verdict {
            Some(Inbound::Blocked | Inbound::NoRoute) => AGAIN_WHILE_CLOSED,
            _ => AGAIN,
        };
        self.trial.is_none() && self.last.is_none_or(|last| now >= last + pause)
    }

    /// Starts a trial; its socket exists until [`InboundProbe::look`] has the result.
    pub fn start(
        &mut self,
        device: &mut tun::Device,
        own: Ipv6Addr,
        now: Instant,
    ) -> io::Result<()> {
        self.last = Some(now);
        let group = group_of(own);
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddrV6::new(group, 0, 0, device.index()).into())?;
        socket.join_multicast_v6(&group, device.index())?;
        let socket = UdpSocket::from(socket);
        let port = socket.local_addr()?.port();
        device.write(&datagram(neighbor_of(own), group, port))?;
        self.trial = Some(Trial {
            socket,
            group,
            index: device.index(),
            until: now + PROBE_TIMEOUT,
        });
        Ok(())
    }

    /// Checks the trial; returns true if it ended with a verdict other than the logged one.
    pub fn look(&mut self, now: Instant) -> bool {
        let Some(trial) = &self.trial else {
            return false;
        };
        let mut buffer = [0; CONTENT.len()];
        let came = matches!(trial.socket.recv(&mut buffer), Ok(n) if buffer[..n] == CONTENT);
        if !came && now < trial.until {
            return false;
        }
        let verdict = match came {
            true => Inbound::Open,
            false if trial.has_route() => Inbound::Blocked,
            false => Inbound::NoRoute,
        };
        self.trial = None;
        self.verdict = Some(verdict);
        self.logged.replace(verdict) != Some(verdict)
    }
}

impl Trial {
    /// Whether the kernel has a route for the group on the interface; without it arriving packets
    /// are lost. True if the kernel gives no answer.
    fn has_route(&self) -> bool {
        match netlink::route_to(self.group, Some(self.index)) {
            Ok(egress) => egress.is_some_and(|egress| egress.index == self.index),
            Err(_) => true,
        }
    }
}

/// Returns a transient group of link scope, which is never carried to other nodes.
fn group_of(own: Ipv6Addr) -> Ipv6Addr {
    let mut octets = own.octets();
    octets[0] = 0xff;
    octets[1] = 0x12;
    octets.into()
}

/// Returns another address of the network, as firewalls treat own addresses differently.
fn neighbor_of(own: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(own.to_bits() ^ 1)
}

fn datagram(source: Ipv6Addr, group: Ipv6Addr, port: u16) -> Vec<u8> {
    // an 8-byte UDP header and a short payload
    let length = 8 + CONTENT.len() as u16;
    let mut udp = Writer::new();
    udp.u16(port).u16(port).u16(length).u16(0).put(&CONTENT);
    let mut udp = udp.into_vec();
    // zero would mean "no checksum" (RFC 8200 §8.1)
    let sum = match checksum(UDP, source, group, &udp) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut packet = Writer::new();
    packet
        .u32(6 << 28)
        .u16(length)
        .u8(UDP)
        .u8(1)
        .ipv6(source)
        .ipv6(group)
        .put(&udp);
    packet.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_datagram_is_well_formed_and_stays_on_its_link() {
        let own: Ipv6Addr = "fd12:3456:789a:1::2".parse().unwrap();
        let group = group_of(own);
        assert!(group.is_multicast() && group.segments()[0] == 0xff12);
        assert_ne!(neighbor_of(own), own);
        let packet = datagram(neighbor_of(own), group, 9);
        assert_eq!(packet.len(), 40 + 8 + CONTENT.len());
        assert_eq!(checksum(UDP, neighbor_of(own), group, &packet[40..]), 0);
    }
}
