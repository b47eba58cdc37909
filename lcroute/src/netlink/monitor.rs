//! Reports changes of this host's interfaces, addresses and routes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use lcroute_netlink::messages;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use nix::libc;
use rtnetlink::constants::{
    RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK,
};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Most datagrams taken in one [`Monitor::drain`]: frequent route changes must not delay packets.
const BATCH: usize = 64;

/// Receive buffer in bytes. Chosen: larger than the kernel's datagrams.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// The changes since the last look. One event often causes several in a row (an address, its
/// routes, the link): the caller waits a moment before it acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// The given interface, its addresses or routes: `Device::ensure` is due.
    pub device: bool,
    /// Any other interface, address or route: gathering addresses is due.
    pub host: bool,
}

/// A descriptor that becomes readable when interfaces, addresses or routes change.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Opens the monitor; needs no permission.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        let groups = RTMGRP_LINK
            | RTMGRP_IPV4_IFADDR
            | RTMGRP_IPV4_ROUTE
            | RTMGRP_IPV6_IFADDR
            | RTMGRP_IPV6_ROUTE;
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE_BUFFER],
        })
    }

    /// Takes pending notifications without waiting; `device` is the index of our own interface.
    /// Call again while the descriptor is readable.
    pub fn drain(&mut self, device: u32) -> io::Result<Changes> {
        let mut changes = Changes::default();
        for _ in 0..BATCH {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => {
                    for message in messages(&self.buffer[..length]) {
                        changes.note(message, device);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Notifications were lost: anything may have changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes = Changes {
                        device: true,
                        host: true,
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Changes {
    fn note(&mut self, message: &[u8], device: u32) {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            *self = Self {
                device: true,
                host: true,
            };
            return;
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            return;
        };
        let Some(index) = interface_of(&message) else {
            self.host = true;
            return;
        };
        if index == device {
            self.device = true;
        } else {
            self.host = true;
        }
    }
}

/// Returns the interface of a notification, if it has one.
fn interface_of(message: &RouteNetlinkMessage) -> Option<u32> {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(link.header.index)
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(address.header.index)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            output_interface(route)
        }
        _ => None,
    }
}

fn output_interface(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;
    use rtnetlink::packet_core::NetlinkHeader;

    use super::*;

    fn notification(index: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mut message = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)),
        );
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn the_own_interface_and_the_host_are_told_apart() {
        let mut changes = Changes::default();
        changes.note(&notification(7), 7);
        assert_eq!(
            changes,
            Changes {
                device: true,
                host: false
            }
        );
        changes.note(&notification(2), 7);
        assert_eq!(
            changes,
            Changes {
                device: true,
                host: true
            }
        );
    }

    #[test]
    fn what_cannot_be_read_counts_as_a_change_of_everything() {
        let mut bytes = notification(7);
        bytes.truncate(18);
        bytes[..4].copy_from_slice(&18u32.to_ne_bytes());
        let mut changes = Changes::default();
        changes.note(&bytes, 7);
        assert_eq!(
            changes,
            Changes {
                device: true,
                host: true
            }
        );
    }

    #[test]
    fn a_quiet_host_has_no_changes_and_does_not_block() {
        let mut monitor = Monitor::open().unwrap();
        // until quiet: other programs may work on this host
        while monitor.drain(0).unwrap() != Changes::default() {}
    }
}
