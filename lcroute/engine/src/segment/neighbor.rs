//! ARP and neighbour discovery of a LAN, as questions and statements about addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::arp::{Arp, Operation};
use librecast::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV6, MacAddress};
use librecast::mapped;
use librecast::neighbor_discovery::{self, Message};

use crate::output::LanFrame;

/// A host that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its address, or the name of one; unspecified while it looks for a free address.
    pub address: Ipv6Addr,
}

/// A message of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMessage {
    /// Its sender.
    pub sender: Asker,
    /// The address for which it asks, if it asks.
    pub asks: Option<Ipv6Addr>,
}

/// The gateway's own addresses on the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
    /// Its IPv4 address, if it has one.
    pub ipv4: Option<Ipv4Addr>,
}

impl HostMessage {
    /// Reads a frame from this Ethernet address; `None`: no question or statement of a host.
    pub fn read(source: MacAddress, ethertype: u16, payload: &[u8]) -> Option<Self> {
        let message = match ethertype {
            ETHERTYPE_ARP => Self::of_arp(&Arp::decode(payload).ok()?),
            ETHERTYPE_IPV6 => Self::of_discovery(source, payload)?,
            _ => return None,
        };
        let Asker { mac, address } = message.sender;
        let is_host = !mac.is_group() && mac != MacAddress::default() && !address.is_multicast();
        let says_nothing = address.is_unspecified() && message.asks.is_none();
        (is_host && !says_nothing && message.asks.is_none_or(is_askable)).then_some(message)
    }

    fn of_arp(arp: &Arp) -> Self {
        let address = match arp.sender.is_unspecified() {
            true => Ipv6Addr::UNSPECIFIED,
            false => mapped::name(arp.sender),
        };
        let asks = arp.operation == Operation::Request && arp.target != arp.sender;
        Self {
            sender: Asker {
                mac: arp.sender_mac,
                address,
            },
            asks: asks.then(|| mapped::name(arp.target)),
        }
    }

    fn of_discovery(from: MacAddress, packet: &[u8]) -> Option<Self> {
        Some(match neighbor_discovery::parse_packet(packet).ok()? {
            Message::Solicitation {
                source,
                mac,
                target,
            } => Self {
                sender: Asker {
                    mac: mac.unwrap_or(from),
                    address: source,
                },
                asks: (target != source).then_some(target),
            },
            Message::Advertisement { target, mac } => Self {
                sender: Asker {
                    mac: mac.unwrap_or(from),
                    address: target,
                },
                asks: None,
            },
        })
    }
}

fn is_askable(address: Ipv6Addr) -> bool {
    let is_none = |ipv4: Ipv4Addr| ipv4.is_unspecified() || ipv4.is_broadcast();
    !address.is_unspecified()
        && !address.is_multicast()
        && !mapped::ipv4(address).is_some_and(|ipv4| ipv4.is_loopback() || is_none(ipv4))
}

/// The gateway's own question for a host: to one whose Ethernet address is known, or to all.
pub fn question(target: Ipv6Addr, own: Own, to: Option<MacAddress>) -> LanFrame {
    match mapped::ipv4(target) {
        Some(target) => {
            let sender = own.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let arp = Arp::request(own.mac, sender, target);
            arp_frame(own.mac, to.unwrap_or(MacAddress::BROADCAST), &arp)
        }
        None => {
            let (from, mac) = (own.link_local, own.mac);
            let packet = neighbor_discovery::solicitation(from, mac, target, to.is_some());
            let group = neighbor_discovery::solicited_node(target);
            discovery_frame(mac, to.unwrap_or(MacAddress::of_group(group)), packet)
        }
    }
}

/// An answer to a host: the target has this Ethernet address.
pub fn answer(target: Ipv6Addr, mac: MacAddress, from: MacAddress, asker: Asker) -> LanFrame {
    match mapped::ipv4(target) {
        Some(target) => {
            let arp = Arp {
                operation: Operation::Reply,
                sender_mac: mac,
                sender: target,
                target_mac: asker.mac,
                target: mapped::ipv4(asker.address).unwrap_or(Ipv4Addr::UNSPECIFIED),
            };
            arp_frame(from, asker.mac, &arp)
        }
        // one that looks for a free address listens to all nodes (RFC 4862 §5.4.4)
        None if asker.address.is_unspecified() => announcement(target, mac, from),
        None => {
            let packet = neighbor_discovery::advertisement(target, mac, Some(asker.address));
            discovery_frame(from, asker.mac, packet)
        }
    }
}

/// A statement to all hosts: the target has this Ethernet address from now on.
pub fn announcement(target: Ipv6Addr, mac: MacAddress, from: MacAddress) -> LanFrame {
    match mapped::ipv4(target) {
        Some(target) => {
            // a request: hosts heed it more than a reply (RFC 5227 §3)
            let arp = Arp::request(mac, target, target);
            arp_frame(from, MacAddress::BROADCAST, &arp)
        }
        None => {
            let packet = neighbor_discovery::advertisement(target, mac, None);
            let all = MacAddress::of_group(librecast::mld::ALL_NODES);
            discovery_frame(from, all, packet)
        }
    }
}

/// A frame from a virtual address that asks for nobody: switches learn the port of its gateway.
pub fn presence(virtual_mac: MacAddress) -> LanFrame {
    let none = Ipv4Addr::UNSPECIFIED;
    let arp = Arp::request(virtual_mac, none, none);
    arp_frame(virtual_mac, MacAddress::BROADCAST, &arp)
}

fn arp_frame(from: MacAddress, to: MacAddress, arp: &Arp) -> LanFrame {
    LanFrame::Ethernet {
        to,
        from,
        ethertype: ETHERTYPE_ARP,
        payload: arp.encode().into(),
    }
}

fn discovery_frame(from: MacAddress, to: MacAddress, packet: Vec<u8>) -> LanFrame {
    LanFrame::Ethernet {
        to,
        from,
        ethertype: ETHERTYPE_IPV6,
        payload: packet.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIRTUAL: MacAddress = MacAddress::virtual_of([1, 2, 3]);
    const OWN: Own = Own {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        ipv4: Some(Ipv4Addr::new(192, 168, 1, 10)),
    };
    const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn read(frame: &LanFrame) -> Option<HostMessage> {
        let LanFrame::Ethernet {
            from,
            ethertype,
            payload,
            ..
        } = frame
        else {
            return None;
        };
        HostMessage::read(*from, *ethertype, payload)
    }

    fn targets() -> [Ipv6Addr; 2] {
        [
            mapped::name(Ipv4Addr::new(192, 168, 1, 20)),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x20),
        ]
    }

    #[test]
    fn the_gateways_questions_are_those_of_a_host_with_its_own_addresses() {
        for target in targets() {
            for to in [None, Some(HOST)] {
                let message = read(&question(target, OWN, to)).unwrap();
                assert_eq!(message.asks, Some(target));
                assert_eq!(message.sender.mac, OWN.mac);
                let own = [mapped::name(OWN.ipv4.unwrap()), OWN.link_local];
                assert!(own.contains(&message.sender.address));
            }
        }
    }

    #[test]
    fn answers_and_announcements_state_an_address_and_ask_nothing() {
        for target in targets() {
            let askers =
                [target, Ipv6Addr::UNSPECIFIED].map(|address| Asker { mac: HOST, address });
            let answers = askers.map(|asker| answer(target, VIRTUAL, VIRTUAL, asker));
            for frame in answers
                .iter()
                .chain([&announcement(target, VIRTUAL, VIRTUAL)])
            {
                let message = read(frame).unwrap();
                let sender = Asker {
                    mac: VIRTUAL,
                    address: target,
                };
                assert_eq!(message, HostMessage { sender, asks: None });
            }
        }
        assert_eq!(read(&presence(VIRTUAL)), None, "it is about nobody");
    }

    #[test]
    fn what_no_host_has_is_not_asked_for() {
        for target in ["0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1"] {
            let target = mapped::name(target.parse().unwrap());
            let arp = question(target, OWN, None);
            assert_eq!(read(&arp), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(payload in prop::collection::vec(any::<u8>(), 0..100), is_arp: bool) {
            let ethertype = if is_arp { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
            let _ = HostMessage::read(HOST, ethertype, &payload);
        }
    }
}
