//! Addresses of a bridge in its forwarding database (bridge(8)).

use std::io;

use librecast::ethernet::MacAddress;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;

use super::Connection;

/// Makes a bridge take in frames for this Ethernet address, as `bridge fdb add MAC dev BRIDGE self`
/// does: otherwise it floods them to all its ports.
pub fn add_bridge_address(bridge: u32, mac: MacAddress) -> io::Result<()> {
    let entry = RouteNetlinkMessage::NewNeighbour(entry(bridge, mac));
    Connection::open()?.change(entry, (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16)
}

/// Ends that.
pub fn remove_bridge_address(bridge: u32, mac: MacAddress) -> io::Result<()> {
    Connection::open()?.change(RouteNetlinkMessage::DelNeighbour(entry(bridge, mac)), 0)
}

fn entry(bridge: u32, mac: MacAddress) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = bridge;
    entry.header.state = NeighbourState::Permanent;
    entry.header.flags = NeighbourFlags::Own;
    let address = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    entry.attributes.push(address);
    entry
}
