//! Address labels (RFC 6724 §2.1; `ip addrlabel`): groups and the network's own addresses share a
//! label that no other address of the interface has. So programs without an explicit source send
//! from the node's address, whatever addresses other programs assign. That also holds where they
//! name the interface, and for groups without a route of ours. Scope precedes labels: groups of
//! link scope keep the link-local address.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::addrlabel::{AddrLabelAttribute, AddrLabelMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::{Error, NETWORK_PREFIX_LEN, Prefix};
use crate::netlink::Connection;

/// Value of the label. Chosen: "lc", far from those of the kernel's table.
const LABEL: u32 = 0x6c63;

/// Sets the labels, removes those of an earlier network; returns whether anything changed.
pub(super) fn repair(
    netlink: &mut Connection,
    index: u32,
    address: Ipv6Addr,
) -> Result<bool, Error> {
    let own = Prefix {
        addr: address,
        len: NETWORK_PREFIX_LEN,
    }
    .network();
    set(netlink, index, &[Prefix::ALL_GROUPS, own])
}

/// Removes all labels of the interface: the kernel would keep them after its removal.
pub(super) fn remove(netlink: &mut Connection, index: u32) -> Result<bool, Error> {
    set(netlink, index, &[])
}

fn set(netlink: &mut Connection, index: u32, wanted: &[Prefix]) -> Result<bool, Error> {
    let mut question = AddrLabelMessage::default();
    question.header.family = AddressFamily::Inet6;
    let present = match netlink.dump(RouteNetlinkMessage::GetAddrLabel(question)) {
        // a kernel without labels chooses by its own rules
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(false),
        other => other.map_err(|error| Error::kernel("read address labels", error))?,
    };
    let present: Vec<_> = present.iter().filter_map(|m| label_of(m, index)).collect();
    let mut changed = false;
    for prefix in wanted.iter().filter(|prefix| !present.contains(prefix)) {
        let message = RouteNetlinkMessage::NewAddrLabel(message(index, *prefix));
        netlink
            .change(message, NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| Error::kernel("set an address label", error))?;
        changed = true;
    }
    for prefix in present.iter().filter(|prefix| !wanted.contains(prefix)) {
        let message = RouteNetlinkMessage::DelAddrLabel(message(index, *prefix));
        match netlink.change(message, 0) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(Error::kernel("remove an address label", error));
            }
            _ => changed = true,
        }
    }
    Ok(changed)
}

fn message(index: u32, prefix: Prefix) -> AddrLabelMessage {
    let mut message = AddrLabelMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = prefix.len;
    message.header.index = index;
    message.attributes = vec![
        AddrLabelAttribute::Address(IpAddr::V6(prefix.addr)),
        AddrLabelAttribute::Label(LABEL),
    ];
    message
}

/// Returns the prefix, if it has our label on this interface.
fn label_of(answer: &RouteNetlinkMessage, index: u32) -> Option<Prefix> {
    let RouteNetlinkMessage::NewAddrLabel(message) = answer else {
        return None;
    };
    let (mut addr, mut label) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddrLabelAttribute::Address(IpAddr::V6(value)) => addr = Some(*value),
            AddrLabelAttribute::Label(value) => label = Some(*value),
            _ => {}
        }
    }
    let prefix = Prefix {
        addr: addr?,
        len: message.header.prefix_len,
    };
    (message.header.index == index && label == Some(LABEL)).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_on_its_interface_alone() {
        let answer = RouteNetlinkMessage::NewAddrLabel(message(7, Prefix::ALL_GROUPS));
        assert_eq!(label_of(&answer, 7), Some(Prefix::ALL_GROUPS));
        assert_eq!(label_of(&answer, 8), None);
    }
}
