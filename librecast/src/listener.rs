//! MLD: joins and leaves of groups by interface, and queries, on a raw ICMPv6 socket.
//!
//! Reports of an interface arrive while it is watched: [`MldListener::watch`].

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::guest_socket::{self, INDEX, Inbox, Pair};
use crate::kernel::MldSocket;
pub use crate::received::Received;

/// A raw socket for MLD on many interfaces.
#[derive(Debug)]
pub struct MldListener(Way);

#[derive(Debug)]
enum Way {
    Kernel(MldSocket),
    /// The socket pair of a guest, and a queue.
    Guest(&'static Arc<Pair>, Arc<Inbox>),
}

impl MldListener {
    /// Opens the socket; needs CAP_NET_RAW.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or without IPv6.
    pub fn open() -> io::Result<Self> {
        Ok(Self(match guest_socket::pair()? {
            Some(pair) => Way::Guest(pair, pair.open_mld()?),
            None => Way::Kernel(MldSocket::open()?),
        }))
    }

    /// Starts to receive reports of this interface.
    ///
    /// # Errors
    /// The interface does not exist or carries no multicast.
    pub fn watch(&self, interface: u32) -> io::Result<()> {
        match &self.0 {
            Way::Kernel(socket) => socket.watch(interface),
            Way::Guest(..) => Ok(()),
        }
    }

    /// Stops receiving reports of this interface. An interface that is gone is not an error.
    pub fn unwatch(&self, interface: u32) {
        if let Way::Kernel(socket) = &self.0 {
            socket.unwatch(interface);
        }
    }

    /// Returns the next message, `None` if there is none. Truncates messages longer than `buffer`.
    ///
    /// # Errors
    /// System errors, except for an empty queue and an interrupted call.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match &mut self.0 {
            Way::Kernel(socket) => socket.receive(buffer),
            Way::Guest(_, inbox) => Ok(receive_of_guest(inbox, buffer)),
        }
    }

    /// Returns the messages lost since the last report, by this or a message. A message counts only
    /// losses before it, and after a flood the next one may be late.
    pub fn take_lost(&mut self) -> io::Result<u32> {
        match &mut self.0 {
            Way::Kernel(socket) => socket.take_lost(),
            Way::Guest(_, inbox) => Ok(inbox.take_lost()),
        }
    }

    /// Sends a query (ICMPv6; the kernel fills in the checksum) with hop limit 1 and Router Alert.
    /// `source` must be a link-local address of the interface (RFC 9777 §5.1.14).
    pub fn send(
        &self,
        interface: u32,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        icmpv6: &[u8],
    ) -> io::Result<()> {
        match &self.0 {
            Way::Kernel(socket) => socket.send(interface, source, destination, icmpv6),
            Way::Guest(pair, _) => pair.send_mld(source, destination, icmpv6),
        }
    }
}

impl AsFd for MldListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Way::Kernel(socket) => socket.as_fd(),
            Way::Guest(_, inbox) => inbox.as_fd(),
        }
    }
}

fn receive_of_guest(inbox: &Inbox, buffer: &mut [u8]) -> Option<Received> {
    let told = inbox.pop()?;
    let (source, rest) = told.split_first_chunk::<16>()?;
    let (hop_limit, message) = rest.split_first()?;
    let length = message.len().min(buffer.len());
    buffer[..length].copy_from_slice(&message[..length]);
    Some(Received {
        length,
        interface: INDEX,
        source: Ipv6Addr::from(*source),
        hop_limit: *hop_limit,
        lost: inbox.take_lost(),
    })
}
