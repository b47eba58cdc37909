//! LANs that this host is a gateway of: their sockets, and what the kernel says of their interfaces.
//!
//! ```text
//! hosts -> NIC -> packet socket (a filter lets multicast in) -> node
//! hosts <- NIC <- packet socket                              <- node
//! ```
//!
//! Nothing is done to an interface but that it takes in all multicast.

mod frame;
mod interface;
mod socket;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bytes::Bytes;
use lcroute_node::{LanFrame, LanSettings, LocalInterfaceId, MAX_LOCAL_INTERFACES, Node};
use lcroute_webrtc::WebRtc;
use librecast::ethernet::MacAddress;

use crate::config::Lan;
use interface::LanInterface;
use socket::LanSocket;

/// Frames read in one turn from one socket.
const BATCH: usize = 128;

/// A LAN of the configuration.
#[derive(Debug)]
struct Served {
    id: LocalInterfaceId,
    config: Lan,
    /// As the node knows it; none: the interface is not there, or of no use.
    open: Option<Open>,
    /// What was said of it last.
    complaint: Option<String>,
}

#[derive(Debug)]
struct Open {
    interface: LanInterface,
    socket: LanSocket,
}

/// All LANs of the configuration.
#[derive(Debug, Default)]
pub struct Lans {
    served: Vec<Served>,
}

/// Drops by reason.
type Drops = BTreeMap<&'static str, u64>;

impl Lans {
    /// These LANs are to be served from now on.
    pub fn configure(&mut self, lans: &[Lan], node: &mut Node<WebRtc>, now: Instant) {
        for gone in std::mem::take(&mut self.served) {
            let stays = lans
                .iter()
                .any(|lan| lan.interface == gone.config.interface);
            if stays {
                self.served.push(gone);
            } else if gone.open.is_some() {
                node.remove_lan(gone.id, now);
            }
        }
        for lan in lans {
            let known = self.served.iter_mut();
            let mut known = known.filter(|served| served.config.interface == lan.interface);
            if let Some(served) = known.next() {
                served.config = lan.clone();
                continue;
            }
            let ids = (1..MAX_LOCAL_INTERFACES as u8).map(LocalInterfaceId);
            let mut free = ids.filter(|id| self.served.iter().all(|served| served.id != *id));
            // the configuration holds no more
            if let Some(id) = free.next() {
                self.served.push(Served {
                    id,
                    config: lan.clone(),
                    open: None,
                    complaint: None,
                });
            }
        }
        self.refresh(node, now);
    }

    /// Interfaces, addresses or routes of this host may have changed.
    pub fn refresh(&mut self, node: &mut Node<WebRtc>, now: Instant) {
        if self.served.is_empty() {
            return;
        }
        let names = self
            .served
            .iter()
            .map(|served| served.config.interface.as_str());
        let found = match interface::look(&names.collect::<Vec<_>>()) {
            Ok(found) => found,
            Err(e) => {
                tracing::warn!("interfaces of LANs: {e}");
                return;
            }
        };
        for served in &mut self.served {
            let interface = found.iter().find(|i| i.name == served.config.interface);
            served.refresh(interface, node, now);
        }
    }

    /// Descriptors to poll, two for each LAN that is open.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let open = self.served.iter().filter_map(|served| served.open.as_ref());
        open.flat_map(|open| open.socket.fds())
    }

    /// Reads what has come in, of all LANs.
    pub fn read(&mut self, node: &mut Node<WebRtc>, drops: &mut Drops, now: Instant) {
        for served in &mut self.served {
            let Some(open) = &mut served.open else {
                continue;
            };
            let id = served.id;
            let mut packet = |mac: MacAddress, packet: Bytes| match frame::probe_in(&packet) {
                Some(probe) => node.handle_lan_probe(id, mac, probe, now),
                None => node.handle_lan_packet(id, mac, packet, now),
            };
            // control first: a flood of packets must not hold up joins
            let mut result = Ok(true);
            for _ in 0..BATCH {
                result = open.socket.read_control(&mut packet);
                if !matches!(result, Ok(true)) {
                    break;
                }
            }
            let mut packets = |mac: MacAddress, packet: Bytes| {
                node.handle_lan_packet(id, mac, packet, now);
            };
            for _ in 0..BATCH {
                let read = open.socket.read_packets(&mut packets);
                if !matches!(read, Ok(true)) {
                    result = result.and(read);
                    break;
                }
            }
            if let Err(e) = result {
                // the interface went down: netlink tells of it
                tracing::debug!("{}: {e}", served.config.interface);
                *drops.entry("lan_receive_error").or_default() += 1;
            }
        }
    }

    /// Sends into a LAN.
    pub fn send(&mut self, interface: LocalInterfaceId, frame: &LanFrame, drops: &mut Drops) {
        let mut served = self
            .served
            .iter_mut()
            .filter(|served| served.id == interface);
        let Some(open) = served.next().and_then(|served| served.open.as_mut()) else {
            return;
        };
        let socket = &mut open.socket;
        let result = match frame {
            LanFrame::Multicast(packet) => socket.inject(packet),
            LanFrame::Mld(packet) => socket.send_to_group(packet),
            LanFrame::Unicast(to, packet) => socket.send(*to, packet),
            LanFrame::Probe(probe) => {
                let from = open.interface.link_local;
                from.map_or(Ok(()), |from| {
                    socket.send_to_group(&frame::probe_packet(from, probe))
                })
            }
        };
        if let Err(e) = result {
            tracing::debug!("{}: {e}", open.interface.name);
            *drops.entry("lan_send_error").or_default() += 1;
        }
    }

    /// LANs that are not served, and why.
    pub fn complaints(&self) -> impl Iterator<Item = (&str, &str)> {
        self.served.iter().filter_map(|served| {
            let complaint = served.complaint.as_deref()?;
            Some((served.config.interface.as_str(), complaint))
        })
    }
}

impl Served {
    fn refresh(&mut self, interface: Option<&LanInterface>, node: &mut Node<WebRtc>, now: Instant) {
        let usable = usable(interface);
        let (interface, link_local) = match usable {
            Ok(usable) => usable,
            Err(complaint) => return self.close(complaint, node, now),
        };
        let is_same = |open: &Open| {
            (open.interface.index, open.interface.mac) == (interface.index, interface.mac)
        };
        let was_running = self.open.as_ref().map(|open| open.interface.running);
        match &mut self.open {
            Some(open) if is_same(open) => open.interface = interface.clone(),
            _ => match LanSocket::open(interface.index, interface.mac) {
                Ok(socket) => {
                    let interface = interface.clone();
                    self.open = Some(Open { interface, socket });
                }
                Err(e) => {
                    let complaint = match e.kind() {
                        std::io::ErrorKind::PermissionDenied => {
                            "no CAP_NET_RAW: the service needs a drop-in (docs/guide/lan.md)"
                                .to_owned()
                        }
                        _ => e.to_string(),
                    };
                    return self.close(complaint, node, now);
                }
            },
        }
        if self.complaint.take().is_some() {
            tracing::info!("{}: served as a LAN", self.config.interface);
        }
        let settings = settings(&self.config, interface, link_local);
        node.set_lan(self.id, settings, now);
        if was_running != Some(interface.running) {
            node.set_lan_running(self.id, interface.running, now);
        }
    }

    fn close(&mut self, complaint: String, node: &mut Node<WebRtc>, now: Instant) {
        if self.open.take().is_some() {
            node.remove_lan(self.id, now);
        }
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(
                "{}: not served as a LAN: {complaint}",
                self.config.interface
            );
            self.complaint = Some(complaint);
        }
    }
}

/// An interface that can be served, with its link-local address; or why it cannot.
fn usable(interface: Option<&LanInterface>) -> Result<(&LanInterface, std::net::Ipv6Addr), String> {
    let interface = interface.ok_or("there is no such interface")?;
    if interface.enslaved {
        return Err("it is a part of a bridge: name the bridge".into());
    }
    let link_local = interface.link_local;
    let link_local = link_local.ok_or("it has no link-local IPv6 address")?;
    Ok((interface, link_local))
}

fn settings(config: &Lan, interface: &LanInterface, link_local: std::net::Ipv6Addr) -> LanSettings {
    LanSettings {
        name: interface.name.clone(),
        groups: config.groups.clone(),
        send: config.send,
        receive: config.receive,
        prefixes: match config.sources.is_empty() {
            true => interface.on_link.clone(),
            false => config.sources.clone(),
        },
        mac: interface.mac,
        link_local,
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        rate: config.rate,
        rate_out: config.rate_out,
        priority: config.priority,
    }
}
