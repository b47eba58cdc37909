//! LANs of which this host is a gateway: their sockets, and the state of their interfaces.
//!
//! ```text
//! hosts -> NIC -> packet socket (a filter lets multicast in) -> node
//! hosts <- NIC <- packet socket                              <- node
//! ```
//!
//! The only change to an interface: it receives all multicast, and in a segment frames for a
//! virtual Ethernet address. There, `programs` has the ways of this host's own programs.

mod frame;
mod programs;
mod socket;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use lcroute_control::config::{self, Lan, MAX_LANS};
use lcroute_node::{
    LanFrame, LanIpv4, LanRole, LanSettings, LocalInterfaceId, MAX_LOCAL_INTERFACES, Node,
    SegmentFrame, SegmentPrograms, SegmentSettings,
};
use lcroute_webrtc::WebRtc;
use librecast::cert::SourcePrefix;
use librecast::ethernet::MacAddress;
use librecast::events;
use nix::libc;

use crate::drops::{DropReason, Drops};
use crate::netlink::{self, Interface};
use crate::tun;
use frame::Extra;
use socket::LanSocket;

/// System calls in one turn for one socket, so that links get their turn.
const CALLS: usize = 8;

/// A LAN to serve.
#[derive(Debug)]
struct Served {
    id: LocalInterfaceId,
    wanted: Wanted,
    /// The state given to the node; `None`: the interface is missing or unusable.
    open: Option<Open>,
    /// Why it is not open.
    complaint: Option<Complaint>,
}

/// The configuration of an interface.
#[derive(Debug, Clone)]
struct Wanted {
    /// Its `interface` is this interface's own name.
    config: Lan,
    /// Whether a pattern matches its name: such interfaces come and go.
    is_matched: bool,
}

/// Why a LAN is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Description of the problem.
    pub problem: String,
    /// Remedy for the problem.
    pub remedy: String,
}

#[derive(Debug)]
struct Open {
    interface: Usable,
    extra: Extra,
    socket: LanSocket,
    /// The virtual address of a segment, for which frames are received.
    virtual_mac: Option<MacAddress>,
    /// Why this host's own programs are not in the segment, as far as somebody tried.
    without_programs: Option<Option<String>>,
}

/// The used properties of an interface.
#[derive(Debug, Clone)]
struct Usable {
    index: u32,
    mac: MacAddress,
    mtu: u32,
    running: bool,
    is_bridge: bool,
    link_local: Ipv6Addr,
    ipv4: Vec<(Ipv4Addr, u8)>,
    ipv6: Vec<Ipv6Addr>,
}

/// All LANs of the configuration.
#[derive(Debug, Default)]
pub struct Lans {
    /// LANs of the configuration.
    configured: Vec<Lan>,
    served: Vec<Served>,
    /// Interfaces with a matching name beyond the bound.
    beyond: Vec<(String, Complaint)>,
    /// UDP ports of this node.
    ports: Vec<u16>,
    /// Role and problem of each interface, as last logged.
    told: BTreeMap<String, (LanRole, Option<String>)>,
}

impl Lans {
    /// Serves none; these are the UDP ports of this node.
    pub fn new(ports: Vec<u16>) -> Self {
        Self {
            ports,
            ..Self::default()
        }
    }

    /// Sets the LANs to serve.
    pub fn configure(&mut self, lans: &[Lan], node: &mut Node<WebRtc>, now: Instant) {
        self.configured = lans.to_vec();
        for open in self.served.iter_mut().filter_map(|s| s.open.as_mut()) {
            if !open.socket.has_programs() {
                open.without_programs = None;
            }
        }
        self.refresh(node, now);
    }

    /// Reads interfaces, addresses and routes of this host anew.
    pub fn refresh(&mut self, node: &mut Node<WebRtc>, now: Instant) {
        if self.configured.is_empty() && self.served.is_empty() {
            return;
        }
        let looked =
            netlink::interfaces().and_then(|found| Ok((found, netlink::on_link_prefixes()?)));
        // tables of routes may be long
        let is_wanted = self.configured.iter().any(|lan| lan.segment.is_some());
        let routers = || match is_wanted {
            true => netlink::default_routers(),
            false => Ok(Vec::new()),
        };
        let looked = looked.and_then(|looked| Ok((looked, routers()?)));
        let (found, near) = match looked {
            Ok(((found, on_link), routers)) => (found, Near { on_link, routers }),
            Err(e) => {
                tracing::warn!("interfaces of LANs: {e}");
                return;
            }
        };
        self.choose(&found, node, now);
        for served in &mut self.served {
            served.refresh(&found, (&near, &self.ports), node, now);
        }
    }

    /// Chooses the LANs to serve: those named, and interfaces that match patterns.
    fn choose(&mut self, found: &[Interface], node: &mut Node<WebRtc>, now: Instant) {
        let is_served = |name: &str| self.served.iter().any(|s| s.name() == name);
        let mut wanted = wanted(&self.configured, found, is_served);
        let beyond = wanted.split_off(MAX_LANS.min(wanted.len()));
        let beyond = beyond.into_iter().map(|wanted| {
            let problem = format!("{MAX_LANS} LANs are served already");
            let remedy = "name fewer interfaces in [[lan]], or narrow the pattern".into();
            (wanted.config.interface, Complaint { problem, remedy })
        });
        self.beyond = beyond.collect();
        for gone in std::mem::take(&mut self.served) {
            let stays = wanted.iter().any(|w| w.config.interface == gone.name());
            if stays {
                self.served.push(gone);
            } else if gone.open.is_some() {
                node.remove_lan(gone.id, now);
            }
        }
        for wanted in wanted {
            let mut known = self.served.iter_mut();
            if let Some(served) = known.find(|s| s.name() == wanted.config.interface) {
                served.wanted = wanted;
                continue;
            }
            let ids = (1..MAX_LOCAL_INTERFACES as u8).map(LocalInterfaceId);
            let mut free = ids.filter(|id| self.served.iter().all(|served| served.id != *id));
            // LANs are fewer than ids
            if let Some(id) = free.next() {
                self.served.push(Served {
                    id,
                    wanted,
                    open: None,
                    complaint: None,
                });
            }
        }
    }

    /// Returns the descriptors to poll, of all open LANs.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let open = self.served.iter().filter_map(|served| served.open.as_ref());
        open.flat_map(|open| open.socket.fds())
    }

    /// Reads pending frames of all LANs.
    pub fn read(&mut self, node: &mut Node<WebRtc>, drops: &mut Drops, now: Instant) {
        for served in &mut self.served {
            let Some(open) = &mut served.open else {
                continue;
            };
            let id = served.id;
            let extra = open.extra;
            let mut packet = |frame: SegmentFrame| match frame::probe_in(&frame.payload) {
                Some(probe) => node.handle_lan_probe(id, frame.source, probe, now),
                None => node.handle_lan_packet(id, frame.source, frame.payload, now),
            };
            // control first: a flood of packets must not delay joins
            let mut result = Ok(true);
            for _ in 0..CALLS {
                result = open.socket.read_control(&mut packet);
                if !matches!(result, Ok(true)) {
                    break;
                }
            }
            let mut packets = |frame: SegmentFrame| match extra.is_of_segment(&frame) {
                true => node.handle_segment_frame(id, frame, now),
                false => node.handle_lan_packet(id, frame.source, frame.payload, now),
            };
            for _ in 0..CALLS {
                let read = open.socket.read_packets(&mut packets);
                if !matches!(read, Ok(true)) {
                    result = result.and(read);
                    break;
                }
            }
            drops.add(DropReason::LanBadOffload, open.socket.take_bad_offload());
            if let Err(e) = result {
                // the interface went down: netlink reports it
                tracing::debug!("{}: {e}", served.name());
                drops.count(DropReason::LanReceiveError);
            }
        }
    }

    /// Receives frames for the virtual addresses of segments, as roles have changed.
    pub fn update_virtual_macs(&mut self, node: &Node<WebRtc>) {
        for served in &mut self.served {
            let Some(open) = served.open.as_mut().filter(|open| open.extra.segment) else {
                continue;
            };
            open.set_virtual_mac(node.virtual_mac(served.id));
        }
    }

    /// Returns the open LANs of segments: id, interface, segment.
    pub fn segments(&self) -> impl Iterator<Item = (LocalInterfaceId, &str, &str)> {
        let open = self.served.iter().filter(|served| served.open.is_some());
        open.filter_map(|served| {
            let segment = served.wanted.config.segment.as_deref()?;
            Some((served.id, served.name(), segment))
        })
    }

    /// Returns whether this host's own programs are in the segment of a LAN; or else why not.
    pub fn programs(&self, interface: &str) -> (bool, Option<String>) {
        let served = self.served.iter().find(|s| s.name() == interface);
        let open = served.and_then(|served| served.open.as_ref());
        open.map_or((false, None), |open| {
            let why = open.without_programs.clone().flatten();
            (open.socket.has_programs(), why)
        })
    }

    /// Looks for a host of a segment: as if a host here asked whether its address is free.
    pub fn look_for(
        &self,
        id: LocalInterfaceId,
        address: IpAddr,
        node: &mut Node<WebRtc>,
        now: Instant,
    ) {
        let open = self.served.iter().find(|served| served.id == id);
        if let Some(open) = open.and_then(|served| served.open.as_ref()) {
            let question = frame::question(open.interface.mac, address);
            node.handle_segment_frame(id, question, now);
        }
    }

    /// Counts frames lost before they were read. Asks again for lost reports.
    pub fn check_overruns(&self, node: &mut Node<WebRtc>, drops: &mut Drops, now: Instant) {
        for served in &self.served {
            let lost = served.open.as_ref().map(|open| open.socket.take_overruns());
            // a vanishing interface returns an error
            let Some(Ok((packets, control))) = lost else {
                continue;
            };
            let lost = u64::from(packets) + u64::from(control);
            drops.add(DropReason::LanOverrun, lost);
            if control > 0 {
                node.handle_lost_reports(served.id, now);
            }
        }
    }

    /// Sends into a LAN; packets of hosts leave at the next [`Self::flush`].
    pub fn send(&mut self, interface: LocalInterfaceId, frame: LanFrame, drops: &mut Drops) {
        let mut served = self.served.iter_mut();
        let Some(served) = served.find(|served| served.id == interface) else {
            return;
        };
        let Some(open) = &mut served.open else { return };
        let socket = &mut open.socket;
        let result = match frame {
            LanFrame::Multicast(packet) => return socket.inject(packet),
            LanFrame::Link(packet) => socket.send_to_group(&packet),
            LanFrame::Unicast(to, packet) => socket.send(to, &packet),
            LanFrame::Ethernet {
                to,
                from,
                ethertype,
                payload,
            } => socket.send_frame(SegmentFrame {
                source: from,
                destination: to,
                ethertype,
                payload,
            }),
            LanFrame::Probe(probe) => {
                let from = open.interface.link_local;
                socket.send_to_group(&frame::probe_packet(from, &probe))
            }
        };
        if let Err(e) = result {
            tracing::debug!("{}: {e}", served.wanted.config.interface);
            drops.count(DropReason::LanSendError);
        }
    }

    /// Sends the queued packets.
    pub fn flush(&mut self, drops: &mut Drops) {
        let open = self.served.iter_mut().filter_map(|s| s.open.as_mut());
        let failed = open.map(|open| open.socket.flush()).sum();
        drops.add(DropReason::LanSendError, failed);
    }

    /// Returns LANs that are not served, with the reasons.
    pub fn complaints(&self) -> impl Iterator<Item = (&str, &Complaint)> {
        let served = self.served.iter().filter_map(|served| {
            let complaint = served.complaint.as_ref()?;
            Some((served.name(), complaint))
        });
        let beyond = self.beyond.iter();
        served.chain(beyond.map(|(name, complaint)| (name.as_str(), complaint)))
    }

    /// Logs each change of the state of a LAN.
    pub fn tell(&mut self, node: &Node<WebRtc>) {
        if self.served.is_empty() && self.told.is_empty() {
            return;
        }
        // those of a pattern come without an address, and go: `lcroute lan` shows their problems
        let named = self
            .served
            .iter()
            .filter(|served| !served.wanted.is_matched);
        let off = named.filter_map(|served| {
            let problem = Some(served.complaint.as_ref()?.problem.clone());
            Some((served.name().to_owned(), (LanRole::Off, problem)))
        });
        let open = node.lan_standings().into_iter().map(|lan| {
            let problem = lan.problem.map(|problem| problem.to_string());
            (lan.interface, (lan.role, problem))
        });
        let now: BTreeMap<_, _> = off.chain(open).collect();
        for (interface, (role, problem)) in &now {
            if self.told.get(interface) != Some(&(*role, problem.clone())) {
                tell(interface, *role, problem.as_deref());
            }
        }
        self.told = now;
    }
}

fn tell(interface: &str, role: LanRole, problem: Option<&str>) {
    let (role, reason) = (role.name(), problem.unwrap_or_default());
    let text = match problem {
        Some(problem) => format!("LAN {interface}: {role}: {problem}"),
        None => format!("LAN {interface}: {role}"),
    };
    tracing::info!(
        target: events::TARGET,
        message_id = events::LAN.id,
        lcroute_interface = interface,
        lcroute_role = role,
        lcroute_reason = reason,
        "{text}"
    );
}

/// Returns the LANs to serve: named interfaces, then matching ones, first those already served. A
/// name precedes a pattern, and the first pattern precedes later ones.
fn wanted(
    configured: &[Lan],
    found: &[Interface],
    is_served: impl Fn(&str) -> bool,
) -> Vec<Wanted> {
    let (patterns, named): (Vec<_>, Vec<_>) = configured.iter().partition(|lan| lan.is_pattern());
    let named = named.into_iter().cloned();
    let mut wanted: Vec<_> = named
        .map(|config| Wanted {
            config,
            is_matched: false,
        })
        .collect();
    // a port's bridge is served instead; no Ethernet address, or zeroes as on lo: no LAN
    // nor is a tap of lcroute
    let is_lan = |i: &Interface| {
        let is_ours = i.alias.as_deref() == Some(tun::ALIAS);
        !is_ours && i.part_of.is_none() && i.mac.is_some_and(|mac| mac.0 != [0; 6])
    };
    let mut others: Vec<_> = found.iter().filter(|i| is_lan(i)).collect();
    others.retain(|i| wanted.iter().all(|w| w.config.interface != i.name));
    others.sort_by_key(|i| (!is_served(&i.name), i.index));
    let matched = others.into_iter().filter_map(|interface| {
        let lan = patterns.iter().find(|lan| lan.is_on(&interface.name))?;
        Some(Wanted {
            config: Lan {
                interface: interface.name.clone(),
                ..(*lan).clone()
            },
            is_matched: true,
        })
    });
    wanted.extend(matched);
    wanted
}

impl Served {
    /// Returns the name of its interface.
    fn name(&self) -> &str {
        &self.wanted.config.interface
    }

    fn refresh(
        &mut self,
        found: &[Interface],
        (near, ports): (&Near, &[u16]),
        node: &mut Node<WebRtc>,
        now: Instant,
    ) {
        let usable = match usable(self.name(), found) {
            Ok(usable) => usable,
            Err(complaint) => return self.close(complaint, node, now),
        };
        let was_running = self.open.as_ref().map(|open| open.interface.running);
        let config = &self.wanted.config;
        let extra = Extra {
            mdns: config.reflects_mdns(),
            solicitations: config.advertise,
            ipv4: config.has_ipv4_groups() || config.segment.is_some(),
            segment: config.segment.is_some(),
        };
        let key = (usable.index, usable.mac, extra);
        let is_same = |open: &Open| (open.interface.index, open.interface.mac, open.extra) == key;
        match &mut self.open {
            Some(open) if is_same(open) => open.interface = usable.clone(),
            _ => match LanSocket::open(usable.index, usable.mac, extra) {
                Ok(socket) => {
                    let opened = Open {
                        interface: usable.clone(),
                        extra,
                        socket,
                        virtual_mac: None,
                        without_programs: None,
                    };
                    self.open = Some(opened);
                }
                Err(e) => return self.close(refusal(&e), node, now),
            },
        }
        self.complaint = None;
        let open = self.open.as_mut().filter(|open| open.extra.segment);
        let has_programs =
            open.is_some_and(|open| open.open_programs(&self.wanted.config.interface));
        let mut settings = settings(&self.wanted.config, &usable, near);
        if let Some(segment) = settings.segment.as_mut().filter(|_| has_programs) {
            segment.programs = Some(SegmentPrograms {
                addresses: usable.ipv6.clone(),
                ports: ports.to_vec(),
            });
        }
        node.set_lan(self.id, settings, now);
        if was_running != Some(usable.running) {
            node.set_lan_running(self.id, usable.running, now);
        }
    }

    fn close(&mut self, complaint: Complaint, node: &mut Node<WebRtc>, now: Instant) {
        if self.open.take().is_some() {
            node.remove_lan(self.id, now);
        }
        self.complaint = Some(complaint);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // the socket's end removes all but the entry of a bridge
        self.set_virtual_mac(None);
    }
}

impl Open {
    /// Lets this host's own programs take part in the segment, if they can; tries once.
    fn open_programs(&mut self, interface: &str) -> bool {
        if self.without_programs.is_none() {
            let why = self.socket.open_programs().err();
            if let Some(why) = &why {
                tracing::warn!("{interface}: programs on this host are not in the segment: {why}");
            }
            self.without_programs = Some(why);
        }
        self.socket.has_programs()
    }

    /// Receives frames for this virtual address of a segment.
    fn set_virtual_mac(&mut self, mac: Option<MacAddress>) {
        if self.virtual_mac == mac {
            return;
        }
        let index = self.interface.index;
        let mut result = self.socket.set_virtual_mac(mac);
        if self.interface.is_bridge {
            let before = self.virtual_mac;
            // without the entry a bridge floods frames for the address to all its ports
            let removed = before.map(|mac| netlink::remove_bridge_address(index, mac));
            let added = mac.map(|mac| netlink::add_bridge_address(index, mac));
            for done in removed.into_iter().chain(added) {
                result = result.and(done);
            }
        }
        self.virtual_mac = mac;
        if let Err(e) = result {
            tracing::warn!("the virtual address of a segment: {e}");
        }
    }
}

/// Facts of routes about interfaces, by their indices.
#[derive(Debug)]
struct Near {
    /// Prefixes that are on link.
    on_link: Vec<(u32, SourcePrefix)>,
    /// Default routers.
    routers: Vec<(u32, IpAddr)>,
}

/// Returns the used properties of an interface, or why it cannot be served.
fn usable(name: &str, found: &[Interface]) -> Result<Usable, Complaint> {
    let complain = |problem: &str, remedy: &str| Complaint {
        problem: problem.into(),
        remedy: remedy.into(),
    };
    let interface = found.iter().find(|interface| interface.name == name);
    let interface = interface.ok_or_else(|| {
        let remedy = "correct `interface` in [[lan]]: `ip link` shows all; one that comes later is served then";
        complain("there is no such interface", remedy)
    })?;
    if let Some(index) = interface.part_of {
        let whole = found.iter().find(|interface| interface.index == index);
        let whole = whole.map_or("a bridge", |whole| &whole.name);
        let problem = format!("it is a part of {whole}: name that");
        return Err(complain(
            &problem,
            "name the bridge in [[lan]], not its port",
        ));
    }
    let link_local = interface.addresses.iter();
    // the lowest, so that the source of queries stays the same
    let link_local = link_local.filter(|a| a.is_unicast_link_local()).min();
    Ok(Usable {
        index: interface.index,
        mac: interface.mac.ok_or_else(|| {
            complain("it has no Ethernet address", "name an Ethernet interface in [[lan]]")
        })?,
        mtu: interface.mtu,
        running: interface.running,
        is_bridge: interface.is_bridge,
        ipv4: interface.ipv4.clone(),
        ipv6: interface.addresses.clone(),
        link_local: *link_local.ok_or_else(|| {
            let remedy = format!(
                "bring it up, with IPv6, which gateways speak with each other: `ip link set {name} up`, `sysctl -w net.ipv6.conf.{name}.disable_ipv6=0`"
            );
            complain("it has no link-local IPv6 address", &remedy)
        })?,
    })
}

/// Returns each interface of these LANs with its problem, without opening it.
pub fn look(lans: &[Lan]) -> io::Result<Vec<(String, Option<Complaint>)>> {
    let found = netlink::interfaces()?;
    let wanted = wanted(lans, &found, |_| false);
    let names = wanted.into_iter().map(|wanted| wanted.config.interface);
    let looked = names.map(|name| {
        let complaint = usable(&name, &found).err();
        (name, complaint)
    });
    Ok(looked.collect())
}

/// Returns why packet sockets are refused.
fn refusal(error: &io::Error) -> Complaint {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::EAFNOSUPPORT) => NEEDS_DROP_IN,
        _ => "`lcroute reload` tries again",
    };
    Complaint {
        problem: format!("no packet socket: {error}"),
        remedy: remedy.into(),
    }
}

/// Remedy: a service needs a drop-in for packet sockets.
const NEEDS_DROP_IN: &str = "the service needs a drop-in: mkdir -p /etc/systemd/system/lcroute.service.d; ln -s /usr/share/lcroute/lan.conf /etc/systemd/system/lcroute.service.d; systemctl daemon-reload; systemctl restart lcroute  # in a container: --cap-add NET_RAW";

fn settings(config: &Lan, interface: &Usable, near: &Near) -> LanSettings {
    let on_link = near.on_link.iter();
    let on_link = on_link.filter(|(index, _)| *index == interface.index);
    let sources = config.sources.iter().copied();
    let (ipv4_sources, sources): (Vec<_>, Vec<_>) = sources.partition(|p| config::is_ipv4(*p));
    LanSettings {
        name: config.interface.clone(),
        groups: config.groups.clone(),
        send: config.send,
        receive: config.receive,
        prefixes: match sources.is_empty() {
            true => on_link.map(|(_, prefix)| *prefix).collect(),
            false => sources,
        },
        mac: interface.mac,
        link_local: interface.link_local,
        ipv4: ipv4(interface),
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        rate: config.rate,
        rate_out: config.rate_out,
        priority: config.priority,
        reflect_mdns: config.reflects_mdns(),
        advertise: config.advertise,
        segment: segment(config, &ipv4_sources, interface, &near.routers),
    }
}

fn segment(
    config: &Lan,
    hosts: &[SourcePrefix],
    interface: &Usable,
    routers: &[(u32, IpAddr)],
) -> Option<SegmentSettings> {
    let here = routers
        .iter()
        .filter(|(index, _)| *index == interface.index);
    Some(SegmentSettings {
        name: config.segment.clone()?,
        broadcast: config.broadcast,
        router: config.router,
        default_routers: here.map(|(_, router)| *router).collect(),
        hosts: hosts.iter().filter_map(config::as_ipv4).collect(),
        programs: None,
    })
}

fn ipv4(interface: &Usable) -> Option<LanIpv4> {
    let addresses = interface.ipv4.iter();
    Some(LanIpv4 {
        address: addresses.map(|(address, _)| *address).min()?,
        prefixes: interface.ipv4.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            alias: None,
            name: name.into(),
            mac: Some(MacAddress([2, 0, 0, 0, 0, index as u8])),
            up: true,
            running: true,
            part_of: None,
            is_bridge: false,
            mtu: 1_500,
            tx_queue_len: 1_000,
            addresses: vec!["fe80::2".parse().unwrap(), "fe80::1".parse().unwrap()],
            ipv4: vec![
                (Ipv4Addr::new(192, 168, 1, 9), 24),
                (Ipv4Addr::new(10, 1, 1, 1), 8),
            ],
        }
    }

    #[test]
    fn who_names_what_cannot_be_served_hears_why() {
        let mut port = interface(2, "eth0");
        port.part_of = Some(3);
        let mut bare = interface(4, "eth1");
        bare.addresses.clear();
        let found = [port, interface(3, "br0"), bare];
        let problem = |name| usable(name, &found).unwrap_err().problem;
        assert_eq!(problem("eth0"), "it is a part of br0: name that");
        assert_eq!(problem("eth1"), "it has no link-local IPv6 address");
        assert_eq!(problem("eth7"), "there is no such interface");
        let bridge = usable("br0", &found).unwrap();
        assert_eq!(bridge.link_local, "fe80::1".parse::<Ipv6Addr>().unwrap());
        let lowest = ipv4(&bridge).unwrap();
        assert_eq!(lowest.address, Ipv4Addr::new(10, 1, 1, 1));
        assert_eq!(lowest.prefixes.len(), 2);
    }

    fn lan(names: &str) -> Lan {
        let text = format!("[[lan]]\ninterface = \"{names}\"\n");
        let config = lcroute_control::config::Config::parse("f", &text).unwrap();
        config.lan[0].clone()
    }

    #[test]
    fn interfaces_are_served_whose_names_match_and_who_came_first_stays() {
        let mut port = interface(2, "podman7");
        port.part_of = Some(3);
        let mut tun = interface(4, "podman8");
        tun.mac = None;
        let mut lo = interface(1, "lo");
        lo.mac = Some(MacAddress([0; 6]));
        let others = ["br-2", "eth0", "podman1", "br-1"].iter().zip(10..);
        let others = others.map(|(name, index)| interface(index, name));
        let found: Vec<_> = [lo, port, tun].into_iter().chain(others).collect();
        let names = |lans: &[&str], served: &[&str]| {
            let lans: Vec<_> = lans.iter().map(|names| lan(names)).collect();
            let wanted = wanted(&lans, &found, |name| served.contains(&name));
            let name = |w: Wanted| (w.config.interface, w.is_matched);
            wanted.into_iter().map(name).collect::<Vec<_>>()
        };
        let matched = |name: &str| (name.to_owned(), true);
        assert_eq!(
            names(&["br-*", "podman?"], &[]),
            ["br-2", "podman1", "br-1"].map(matched)
        );
        assert_eq!(
            names(&["br-*"], &["br-1"]),
            ["br-1", "br-2"].map(matched),
            "who is served stays before who comes"
        );
        let named = |name: &str| (name.to_owned(), false);
        assert_eq!(
            names(&["*", "gone0", "br-2"], &[]),
            [
                named("gone0"),
                named("br-2"),
                matched("eth0"),
                matched("podman1"),
                matched("br-1")
            ]
        );
    }
}
