//! LANs and tunnels among the interfaces of this host.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType};

/// Whether this interface may lead to other hosts on a LAN.
pub(crate) fn is_lan(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return false;
    };
    let flags = link.header.flags;
    let crowd = flags.contains(LinkFlags::Multicast) && !flags.contains(LinkFlags::Pointopoint);
    let kind = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
                LinkInfo::Kind(kind) => Some(kind),
                _ => None,
            }),
            _ => None,
        });
    // hosts across a tunnel are found by its own means, or over lc0 itself
    let is_tunnel = matches!(
        kind,
        Some(
            InfoKind::Tun
                | InfoKind::Wireguard
                | InfoKind::Vxlan
                | InfoKind::Geneve
                | InfoKind::GreTap
                | InfoKind::GreTap6
        )
    );
    crowd && link.header.link_layer_type == LinkLayerType::Ether && !is_tunnel
}

/// Whether the settings let this interface be used.
pub(crate) fn is_chosen(name: &str, exclude: &[&str], only: Option<&[String]>) -> bool {
    !exclude.contains(&name) && only.is_none_or(|only| only.iter().any(|listed| listed == name))
}
