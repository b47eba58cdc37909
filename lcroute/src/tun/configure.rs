//! Brings an interface to its settings over netlink; changes only differences.
//!
//! The order matters. Link settings come first, while the link is down: a new interface gets no
//! random link-local address and sends no router solicitation. The link-local address precedes the
//! node address, so that it is the source of reports. Routes come last, as they attract programs.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::{Error, Mode, NETWORK_PREFIX_LEN, Prefix, Settings, frame, labels, sysctl};
use crate::netlink::Connection;

/// Alias of lcroute's devices, for users and for the next start.
pub const ALIAS: &str = "lcroute";

/// Routing table `local`: only its multicast routes affect programs.
pub(super) const TABLE_LOCAL: u8 = 255;

/// Metric of `lc0`'s routes; `lc1` has one more, and so on, below [`KERNEL_METRIC`]. Chosen: better
/// than the 256 of every interface's ff00::/8, and behind an administrator's own routes.
pub(super) const METRIC: u32 = 100;

/// Highest interface number with its own metric: of equal metrics the oldest route wins.
pub(super) const HIGHEST_NUMBER: u32 = 99;

/// Metric of the kernel's route for ff00::/8 on each interface. Among equal metrics the oldest
/// wins, so an `lc0` that is up before the LAN would attract the LAN's groups.
pub(super) const KERNEL_METRIC: u32 = 256;

/// Metric of its replacement on `lc0`, one more on `lc1`: for programs that name the interface.
const FALLBACK_METRIC: u32 = 4096;

/// Treatment of IPv6 addresses that the settings do not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// Removes addresses of an earlier identity.
    Remove,
    /// Leaves addresses of an administrator or another program.
    Leave,
}

/// The state of an interface.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) up: bool,
    /// Whether its type is Ethernet.
    pub(super) ethernet: bool,
    /// Whether lcroute made it.
    pub(super) ours: bool,
    /// Its kind, as in `ip -details link`.
    pub(super) kind: String,
    name: String,
    alias: Option<String>,
    arp: bool,
    mac: Option<Vec<u8>>,
    mtu: Option<u32>,
    tx_queue_len: Option<u32>,
    /// The bridge, or the like, of which it is a port.
    controller: Option<u32>,
    /// `None` if the interface has no IPv6 at all.
    address_generation: Option<In6AddrGenMode>,
    transmit_drops: u64,
}

/// Returns the interface of that name, if it exists.
pub(super) fn find(netlink: &mut Connection, name: &str) -> Result<Option<Link>, Error> {
    match netlink.get(RouteNetlinkMessage::GetLink(
        LinkUnspec::new_with_name(name).build(),
    )) {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some(Link::from(link))),
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(Error::kernel("look up the interface", error)),
    }
}

fn by_index(netlink: &mut Connection, index: u32) -> std::io::Result<Link> {
    let question = LinkUnspec::new_with_index(index).build();
    match netlink.get(RouteNetlinkMessage::GetLink(question))? {
        RouteNetlinkMessage::NewLink(link) => Ok(Link::from(link)),
        _ => Err(std::io::Error::other(
            "the kernel's answer is not about a link",
        )),
    }
}

/// Returns the number of packets that the kernel could not pass to the device's reader.
pub(super) fn transmit_drops(netlink: &mut Connection, index: u32) -> std::io::Result<u64> {
    Ok(by_index(netlink, index)?.transmit_drops)
}

/// Brings the interface to its settings; returns whether it changed anything.
pub(super) fn repair(
    netlink: &mut Connection,
    index: u32,
    settings: &Settings,
    extra: Extra,
) -> Result<bool, Error> {
    let mut changed = repair_link(netlink, index, settings)?;
    changed |= repair_addresses(netlink, index, settings, extra)?;
    changed |= labels::repair(netlink, index, settings.address)?;
    changed |= repair_routes(netlink, index, settings)?;
    Ok(changed)
}

fn repair_link(netlink: &mut Connection, index: u32, settings: &Settings) -> Result<bool, Error> {
    let mut link = look(netlink, index)?;
    let mtu = u32::from(settings.mtu);
    let mut changed = link.mtu != Some(mtu);
    if changed {
        // Alone and first: below 1280 the interface has no IPv6 settings to read.
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        set_link(netlink, message, "set the MTU")?;
        link = look(netlink, index)?;
    }
    if link.address_generation.is_none() {
        return Err(Error::NoIpv6 {
            name: settings.name.clone(),
        });
    }
    if link.controller.is_some() {
        let message = LinkUnspec::new_with_index(index).nocontroller().build();
        set_link(netlink, message, "take the interface out of a bridge")?;
        tracing::warn!(
            "{} was made a port of a bridge, and taken out: it carries IPv6 of this host alone",
            link.name
        );
        changed = true;
    }
    sysctl::apply(&link.name, settings.ipv4.is_some())?;
    if let Some(message) = link_correction(&link, settings) {
        set_link(netlink, message, "configure the interface")?;
        changed = true;
    }
    if !link.up {
        // Alone: the kernel would bring it up before the other settings of the same message.
        let message = LinkUnspec::new_with_index(index).up().build();
        set_link(netlink, message, "bring the interface up")?;
        changed = true;
    }
    Ok(changed)
}

/// Returns the message that corrects differences, if any.
fn link_correction(link: &Link, settings: &Settings) -> Option<LinkMessage> {
    let mut message = LinkUnspec::new_with_index(link.index);
    let mut differs = false;
    if link.tx_queue_len != Some(settings.tx_queue_len) {
        message = message.txqueuelen(settings.tx_queue_len);
        differs = true;
    }
    if link.address_generation != Some(In6AddrGenMode::None) {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        message = message.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]));
        differs = true;
    }
    if link.alias.as_deref() != Some(ALIAS) {
        message = message.alias(ALIAS);
        differs = true;
    }
    let mac = frame::node_mac(settings.link_local);
    if settings.mode == Mode::Tap && (link.arp || link.mac.as_deref() != Some(&mac)) {
        message = message.arp(false).address(mac.to_vec());
        differs = true;
    }
    differs.then(|| message.build())
}

fn repair_addresses(
    netlink: &mut Connection,
    index: u32,
    settings: &Settings,
    extra: Extra,
) -> Result<bool, Error> {
    let present = addresses(netlink, index)?;
    let wanted = [
        (settings.link_local, 64),
        (settings.address, NETWORK_PREFIX_LEN),
    ];
    let mut changed = false;
    for (address, prefix_len) in wanted {
        match present.iter().find(|there| there.address == address) {
            Some(there) if there.prefix_len == prefix_len && there.usable => continue,
            Some(there) => delete_address(netlink, index, there)?,
            None => {}
        }
        add_address(netlink, index, address, prefix_len)?;
        changed = true;
    }
    if extra == Extra::Remove {
        for there in earlier_identities(&present, &wanted) {
            delete_address(netlink, index, there)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Returns node addresses of earlier identities and their link-local addresses: both end alike. All
/// other addresses belong to other programs, such as keepalived.
fn earlier_identities<'a>(
    present: &'a [Assigned],
    wanted: &'a [(Ipv6Addr, u8)],
) -> impl Iterator<Item = &'a Assigned> {
    let is_node = |there: &&Assigned| {
        there.prefix_len == NETWORK_PREFIX_LEN && there.address.is_unique_local()
    };
    let same_end =
        |a: &Assigned, b: &Assigned| a.address.to_bits() as u64 == b.address.to_bits() as u64;
    let is_earlier = move |there: &&Assigned| {
        let mut nodes = present.iter().filter(is_node);
        let link_local = there.address.is_unicast_link_local();
        is_node(there) || link_local && nodes.any(|node| same_end(node, there))
    };
    let is_wanted = |there: &&Assigned| wanted.iter().any(|(address, _)| *address == there.address);
    present
        .iter()
        .filter(move |there| is_earlier(there) && !is_wanted(there))
}

/// An IPv6 address of the interface.
#[derive(Debug, PartialEq, Eq)]
struct Assigned {
    address: Ipv6Addr,
    prefix_len: u8,
    /// Not tentative, not refused by duplicate detection, not about to expire.
    usable: bool,
}

fn addresses(netlink: &mut Connection, index: u32) -> Result<Vec<Assigned>, Error> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet6;
    question.header.index = index;
    let answers = netlink
        .dump(RouteNetlinkMessage::GetAddress(question))
        .map_err(|error| Error::kernel("read the interface's addresses", error))?;
    Ok(answers
        .iter()
        .filter_map(|answer| assigned(answer, index))
        .collect())
}

fn assigned(answer: &RouteNetlinkMessage, index: u32) -> Option<Assigned> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    if message.header.index != index || message.header.family != AddressFamily::Inet6 {
        return None;
    }
    let mut address = None;
    let mut local = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(IpAddr::V6(value)) => address = Some(*value),
            AddressAttribute::Local(IpAddr::V6(value)) => local = Some(*value),
            AddressAttribute::Flags(value) => flags |= *value,
            _ => {}
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let usable = flags.contains(AddressFlags::Permanent) && !flags.intersects(unusable);
    Some(Assigned {
        address: local.or(address)?,
        prefix_len: message.header.prefix_len,
        usable,
    })
}

fn add_address(
    netlink: &mut Connection,
    index: u32,
    address: Ipv6Addr,
    prefix_len: u8,
) -> Result<(), Error> {
    let mut message = address_message(index, address, prefix_len);
    // The address is a hash of a key: duplicate detection is not needed.
    message
        .attributes
        .push(AddressAttribute::Flags(AddressFlags::Nodad));
    netlink
        .change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .or_else(|error| tolerate(error, libc::EEXIST))
        .map_err(|error| Error::kernel("set the interface's addresses", error))
}

fn delete_address(netlink: &mut Connection, index: u32, there: &Assigned) -> Result<(), Error> {
    let message = address_message(index, there.address, there.prefix_len);
    netlink
        .change(RouteNetlinkMessage::DelAddress(message), 0)
        .or_else(|error| tolerate(error, libc::EADDRNOTAVAIL))
        .map_err(|error| Error::kernel("remove an address of the interface", error))
}

fn address_message(index: u32, address: Ipv6Addr, prefix_len: u8) -> AddressMessage {
    AddressMessageBuilder::<Ipv6Addr>::new()
        .index(index)
        .address(address, prefix_len)
        .build()
}

/// Adds missing routes and removes obsolete ones. A refused route does not prevent others.
fn repair_routes(netlink: &mut Connection, index: u32, settings: &Settings) -> Result<bool, Error> {
    let present = multicast_routes(netlink, index)?;
    let wanted = wanted_routes(settings);
    let mut changed = false;
    let mut refused = Ok(());
    for &route in wanted.iter().filter(|route| !is_there(&present, route)) {
        // the kernel treats routes that differ only in the source as one
        for other in present.iter().filter(|other| other.takes_place_of(&route)) {
            delete_route(netlink, index, &other.route)?;
        }
        let added = add_route(netlink, index, &route);
        changed |= added.is_ok();
        refused = refused.and(added);
    }
    for other in present.iter().filter(|other| other.is_surplus(&wanted)) {
        delete_route(netlink, index, &other.route)?;
        changed = true;
    }
    refused.map(|()| changed)
}

/// Adds a route beside those of other interfaces, whatever their metrics.
fn add_route(netlink: &mut Connection, index: u32, route: &Route) -> Result<(), Error> {
    let message = RouteNetlinkMessage::NewRoute(route_message(index, route));
    let Err(error) = netlink.change(message, NLM_F_CREATE | NLM_F_APPEND) else {
        return Ok(());
    };
    // another program may have just added it
    if error.raw_os_error() == Some(libc::EEXIST)
        && is_there(&multicast_routes(netlink, index)?, route)
    {
        return Ok(());
    }
    match Error::kernel("add a multicast route of the interface", error) {
        Error::Io { source, .. } => Err(Error::RouteRefused {
            route: route.prefix,
            metric: route.metric,
            source,
        }),
        other => Err(other),
    }
}

fn delete_route(netlink: &mut Connection, index: u32, route: &Route) -> Result<(), Error> {
    let message = RouteNetlinkMessage::DelRoute(route_message(index, route));
    netlink
        .change(message, 0)
        .or_else(|error| tolerate(error, libc::ESRCH))
        .map_err(|error| Error::kernel("remove a multicast route of the interface", error))
}

/// Returns the number at the end of an interface's name, for a metric of its own.
pub(super) fn number(name: &str) -> u32 {
    let tail = name.rsplit(|c: char| !c.is_ascii_digit()).next();
    match tail.filter(|tail| !tail.is_empty()) {
        Some(tail) => tail.parse().unwrap_or(u32::MAX).min(HIGHEST_NUMBER),
        None => 0,
    }
}

fn wanted_routes(settings: &Settings) -> Vec<Route> {
    let number = number(&settings.name);
    let route = |prefix: &Prefix| Route {
        prefix: prefix.network(),
        metric: METRIC + number,
        // for link scope the kernel chooses the link-local address
        source: (!is_of_link_scope(prefix)).then_some(settings.address),
    };
    let fallback = Route {
        prefix: Prefix::ALL_GROUPS,
        metric: FALLBACK_METRIC + number,
        source: None,
    };
    let routes = settings.routes.iter().map(route);
    routes.chain([fallback]).collect()
}

/// Whether all groups of the prefix are of scope 2 or narrower.
fn is_of_link_scope(prefix: &Prefix) -> bool {
    prefix.len >= 16 && prefix.addr.octets()[1] & 0x0f <= 2
}

/// A multicast route of the interface in table `local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    prefix: Prefix,
    metric: u32,
    /// Source for programs that choose none. `None`: the kernel chooses an address.
    source: Option<Ipv6Addr>,
}

/// A route in the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Present {
    route: Route,
    /// Whether lcroute or the kernel made it; all others are an administrator's.
    kernel: bool,
}

/// Whether the kernel has the route, or an administrator's in its place.
fn is_there(present: &[Present], route: &Route) -> bool {
    let is =
        |there: &Present| there.route == *route || !there.kernel && there.takes_place_of(route);
    present.iter().any(is)
}

impl Present {
    fn takes_place_of(&self, wanted: &Route) -> bool {
        self.route.prefix == wanted.prefix && self.route.metric == wanted.metric
    }

    /// Whether it is a route of earlier settings, or one that the fallback replaces.
    fn is_surplus(&self, wanted: &[Route]) -> bool {
        let Route { prefix, metric, .. } = self.route;
        let of_ours = |first: u32| (first..=first + HIGHEST_NUMBER).contains(&metric);
        let ours = of_ours(METRIC)
            || prefix == Prefix::ALL_GROUPS
                && (metric == KERNEL_METRIC || of_ours(FALLBACK_METRIC));
        self.kernel && ours && !wanted.iter().any(|route| self.takes_place_of(route))
    }
}

fn multicast_routes(netlink: &mut Connection, index: u32) -> Result<Vec<Present>, Error> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet6;
    question.header.table = TABLE_LOCAL;
    question.attributes.push(RouteAttribute::Oif(index));
    let answers = netlink
        .dump(RouteNetlinkMessage::GetRoute(question))
        .map_err(|error| Error::kernel("read the interface's routes", error))?;
    Ok(answers
        .iter()
        .filter_map(|answer| multicast_route(answer, index))
        .collect())
}

fn multicast_route(answer: &RouteNetlinkMessage, index: u32) -> Option<Present> {
    let RouteNetlinkMessage::NewRoute(route) = answer else {
        return None;
    };
    if route.header.table != TABLE_LOCAL || route.header.kind != RouteType::Multicast {
        return None;
    }
    let mut addr = None;
    let mut metric = 0;
    let mut interface = 0;
    let mut source = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet6(value)) => addr = Some(*value),
            RouteAttribute::PrefSource(RouteAddress::Inet6(value)) => source = Some(*value),
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(value) => interface = *value,
            _ => {}
        }
    }
    let prefix = Prefix {
        addr: addr?,
        len: route.header.destination_prefix_length,
    };
    let kernel = route.header.protocol == RouteProtocol::Kernel;
    let route = Route {
        prefix,
        metric,
        source,
    };
    (interface == index).then_some(Present { route, kernel })
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv6Addr>::new();
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    let mut message = builder
        .destination_prefix(route.prefix.addr, route.prefix.len)
        .output_interface(index)
        .priority(route.metric)
        .kind(RouteType::Multicast)
        // Network managers remove foreign routes, except those of the kernel.
        .protocol(RouteProtocol::Kernel)
        .build();
    message.header.table = TABLE_LOCAL;
    message
}

fn look(netlink: &mut Connection, index: u32) -> Result<Link, Error> {
    by_index(netlink, index).map_err(|error| Error::kernel("read the interface's state", error))
}

fn set_link(
    netlink: &mut Connection,
    message: LinkMessage,
    action: &'static str,
) -> Result<(), Error> {
    netlink
        .change(RouteNetlinkMessage::SetLink(message), 0)
        .map_err(|error| Error::kernel(action, error))
}

/// Accepts the error of a change that another program has just made.
pub(super) fn tolerate(error: std::io::Error, errno: i32) -> std::io::Result<()> {
    if error.raw_os_error() == Some(errno) {
        Ok(())
    } else {
        Err(error)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            ours: false,
            kind: "a hardware interface".to_owned(),
            name: String::new(),
            alias: None,
            arp: !flags.contains(LinkFlags::Noarp),
            mac: None,
            mtu: None,
            tx_queue_len: None,
            controller: None,
            address_generation: None,
            transmit_drops: 0,
        };
        for attribute in message.attributes {
            link.take(attribute);
        }
        link.ours = link.alias.as_deref() == Some(ALIAS);
        link
    }
}

impl Link {
    fn take(&mut self, attribute: LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name = name,
            LinkAttribute::IfAlias(alias) => self.alias = Some(alias),
            LinkAttribute::Address(mac) => self.mac = Some(mac),
            LinkAttribute::Controller(0) => self.controller = None,
            LinkAttribute::Controller(index) => self.controller = Some(index),
            LinkAttribute::Mtu(mtu) => self.mtu = Some(mtu),
            LinkAttribute::TxQueueLen(length) => self.tx_queue_len = Some(length),
            LinkAttribute::Stats64(stats) => self.transmit_drops = stats.tx_dropped,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        self.kind = format!("a {kind} interface");
                    }
                }
            }
            LinkAttribute::AfSpecUnspec(families) => {
                self.address_generation = families.iter().find_map(address_generation);
            }
            _ => {}
        }
    }
}

fn address_generation(family: &AfSpecUnspec) -> Option<In6AddrGenMode> {
    let AfSpecUnspec::Inet6(settings) = family else {
        return None;
    };
    settings.iter().find_map(|setting| match setting {
        AfSpecInet6::AddrGenMode(mode) => Some(*mode),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Prefix = Prefix {
        addr: Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 0),
        len: 16,
    };
    const OLD: Prefix = Prefix {
        addr: Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0),
        len: 16,
    };

    fn settings(name: &str, routes: &[Prefix]) -> Settings {
        Settings {
            name: name.to_owned(),
            mode: Mode::Tun,
            mtu: 1_280,
            tx_queue_len: 10_000,
            address: "fd12:3456:789a::1".parse().unwrap(),
            link_local: "fe80::1".parse().unwrap(),
            routes: routes.to_vec(),
            closed: Vec::new(),
            offload: true,
            ipv4: None,
            ipv4_routes: Vec::new(),
        }
    }

    #[test]
    fn a_message_for_a_route_reads_back_as_that_route() {
        for route in wanted_routes(&settings("lc0", &[OURS])) {
            let message = RouteNetlinkMessage::NewRoute(route_message(7, &route));
            let kernel = true;
            assert_eq!(
                multicast_route(&message, 7),
                Some(Present { route, kernel })
            );
            assert_eq!(multicast_route(&message, 8), None, "another interface");
        }
    }

    #[test]
    fn routes_of_earlier_settings_go_and_an_administrators_stay() {
        let wanted = wanted_routes(&settings("lc1", &[OURS]));
        let surplus = |prefix, metric, kernel| {
            let source = None;
            let route = Route {
                prefix,
                metric,
                source,
            };
            Present { route, kernel }.is_surplus(&wanted)
        };
        assert!(surplus(OLD, METRIC + 1, true));
        assert!(surplus(Prefix::ALL_GROUPS, KERNEL_METRIC, true));
        assert!(!surplus(OURS, METRIC + 1, true));
        assert!(!surplus(Prefix::ALL_GROUPS, FALLBACK_METRIC + 1, true));
        assert!(!surplus(OLD, METRIC + 1, false));
        assert!(!surplus(OLD, 50, true));
        // from a version with one metric for all interfaces
        assert!(surplus(OURS, METRIC, true));
        assert!(surplus(Prefix::ALL_GROUPS, FALLBACK_METRIC, true));
    }

    #[test]
    fn interfaces_of_one_host_have_metrics_of_their_own() {
        let numbers = [
            "lc0",
            "lc1",
            "lc17",
            "mesh",
            "a2b",
            "a2b3",
            "lc100",
            "lc99999999999",
        ];
        let numbers = numbers.map(number);
        assert_eq!(numbers, [0, 1, 17, 0, 0, 3, HIGHEST_NUMBER, HIGHEST_NUMBER]);
        let metrics = |name| -> Vec<u32> {
            let wanted = wanted_routes(&settings(name, &[OURS]));
            wanted.iter().map(|route| route.metric).collect()
        };
        assert_eq!(metrics("lc0"), [METRIC, FALLBACK_METRIC]);
        assert_eq!(metrics("lc1"), [METRIC + 1, FALLBACK_METRIC + 1]);
        assert!(
            metrics("lc12345")
                .iter()
                .all(|metric| *metric != KERNEL_METRIC)
        );
    }

    #[test]
    fn routes_carry_the_node_address_but_where_link_local_ones_are_in_place() {
        let link_scope = Prefix {
            addr: "ff12::".parse().unwrap(),
            len: 16,
        };
        let wanted = wanted_routes(&settings("lc0", &[OURS, link_scope]));
        let sources: Vec<_> = wanted.iter().map(|route| route.source).collect();
        let node = "fd12:3456:789a::1".parse().ok();
        assert_eq!(sources, [node, None, None]);
        let before = Route {
            source: None,
            ..wanted[0]
        };
        let kernel = true;
        let before = Present {
            route: before,
            kernel,
        };
        assert!(before.takes_place_of(&wanted[0]) && !before.is_surplus(&wanted));
        assert!(!is_there(&[before], &wanted[0]), "it is made anew");
        let administrators = Present {
            route: Route {
                source: None,
                ..wanted[0]
            },
            kernel: false,
        };
        assert!(is_there(&[administrators], &wanted[0]));
    }

    #[test]
    fn prefixes_are_compared_as_the_kernel_gives_them() {
        let prefix = |addr: &str, len| Prefix {
            addr: addr.parse().unwrap(),
            len,
        };
        assert_eq!(prefix("ff1e::1", 16).network(), prefix("ff1e::", 16));
        assert_eq!(prefix("ff1e::1", 128).network(), prefix("ff1e::1", 128));
        assert_eq!(prefix("ff1e::1", 0).network(), prefix("::", 0));
    }

    #[test]
    fn an_address_that_does_not_work_is_not_taken_for_there() {
        let address = "fe80::1".parse().unwrap();
        let with = |flags| {
            let mut message = address_message(7, address, 64);
            message.attributes.push(AddressAttribute::Flags(flags));
            assigned(&RouteNetlinkMessage::NewAddress(message), 7)
                .unwrap()
                .usable
        };
        assert!(with(AddressFlags::Permanent | AddressFlags::Nodad));
        assert!(!with(AddressFlags::Permanent | AddressFlags::Tentative));
        assert!(!with(AddressFlags::Permanent | AddressFlags::Dadfailed));
        assert!(!with(AddressFlags::empty()), "it expires");
    }
}
