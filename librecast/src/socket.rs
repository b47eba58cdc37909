//! Multicast sockets and their interfaces.
//!
//! A guest without a namespace has a socket pair in their place: [`GUEST_FD`].
//!
//! [`SendSocket`] is connected to a group: it receives nothing, and is not a listening socket.
//! [`ReceiveSockets`] have any number of memberships, on as many sockets as the kernel needs.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::guest_socket::{self, INDEX, Inbox, Pair};
pub use crate::guest_socket::{GUEST_FD, GuestPair, INDEX as GUEST_INDEX};
pub use crate::interface::Interface;
use crate::kernel::{self, Receiver, Sender};
pub use crate::received::Datagram;

/// Returns all interfaces of this network namespace, by index.
///
/// # Errors
/// The system provides them neither over netlink nor in /proc.
pub fn interfaces() -> io::Result<BTreeMap<u32, Interface>> {
    if let Some(pair) = guest_socket::pair()? {
        return Ok([(INDEX, pair.interface())].into());
    }
    kernel::interfaces()
}

/// Returns whether this process had a guest's pair as its only interface, and that was closed.
pub fn is_closed() -> bool {
    guest_socket::is_closed()
}

/// Returns the interfaces for multicast: up, capable, and named in `only` unless that is empty.
pub fn multicast_interfaces(only: &[String]) -> io::Result<BTreeMap<u32, Interface>> {
    let mut all = interfaces()?;
    all.retain(|_, i| i.up && i.multicast && (only.is_empty() || only.contains(&i.name)));
    Ok(all)
}

/// A socket that sends to groups on one interface, and cannot receive.
#[derive(Debug)]
pub struct SendSocket(Outgoing);

/// The way of datagrams out of this process.
#[derive(Debug)]
enum Outgoing {
    Kernel(Sender),
    /// The socket pair of a guest, the port, and the hop limit.
    Guest(&'static Arc<Pair>, u16, u8),
}

impl SendSocket {
    /// Opens a socket connected to `group`, port `port`, on `interface`. [`send`](Self::send)
    /// reaches other groups as well.
    ///
    /// # Errors
    /// The interface does not exist or carries no multicast.
    pub fn open(interface: u32, group: Ipv6Addr, port: u16, hop_limit: u8) -> io::Result<Self> {
        Ok(Self(match guest_socket::pair()? {
            Some(pair) => Outgoing::Guest(pair, port, hop_limit),
            None => Outgoing::Kernel(Sender::open(interface, group, port, hop_limit)?),
        }))
    }

    /// Returns the source address of its datagrams.
    pub fn source(&self) -> io::Result<Ipv6Addr> {
        match &self.0 {
            Outgoing::Kernel(sender) => sender.source(),
            Outgoing::Guest(pair, ..) => Ok(pair.address),
        }
    }

    /// Sends `packets`, datagrams of `size` bytes in a row (the last may be shorter), to `group`.
    pub fn send(&self, group: Ipv6Addr, packets: &[u8], size: usize) -> io::Result<()> {
        match &self.0 {
            Outgoing::Kernel(sender) => sender.send(group, packets, size),
            Outgoing::Guest(pair, port, hop_limit) => {
                let mut packets = packets.chunks(size.max(1));
                packets
                    .try_for_each(|packet| pair.send_datagram(group, (*port, *hop_limit), packet))
            }
        }
    }
}

/// Memberships in groups, and received datagrams on one port.
#[derive(Debug)]
pub struct ReceiveSockets {
    incoming: Incoming,
    /// Memberships, each with its socket if there are several.
    members: BTreeMap<(u32, Ipv6Addr), usize>,
}

/// The way of datagrams into this process.
#[derive(Debug)]
enum Incoming {
    Kernel(Receiver),
    Guest(&'static Arc<Pair>, Arc<Inbox>),
}

impl Drop for ReceiveSockets {
    fn drop(&mut self) {
        if let Incoming::Guest(pair, inbox) = &self.incoming {
            pair.leave_all(inbox);
        }
    }
}

impl ReceiveSockets {
    /// Opens sockets bound to `port`, without memberships.
    pub fn open(port: u16) -> io::Result<Self> {
        let incoming = match guest_socket::pair()? {
            Some(pair) => Incoming::Guest(pair, pair.open(port)?),
            None => Incoming::Kernel(Receiver::open(port)?),
        };
        Ok(Self {
            incoming,
            members: BTreeMap::new(),
        })
    }

    /// Joins `group` on `interface`; an existing membership stays.
    ///
    /// # Errors
    /// The interface does not exist, or all permitted sockets are full.
    pub fn join(&mut self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        if self.members.contains_key(&(interface, group)) {
            return Ok(());
        }
        let at = match &mut self.incoming {
            Incoming::Kernel(receiver) => receiver.join(group, interface)?,
            Incoming::Guest(pair, inbox) => pair.join(inbox, group).map(|()| 0)?,
        };
        self.members.insert((interface, group), at);
        Ok(())
    }

    /// Leaves `group` on `interface`.
    pub fn leave(&mut self, group: Ipv6Addr, interface: u32) {
        let Some(at) = self.members.remove(&(interface, group)) else {
            return;
        };
        match &self.incoming {
            Incoming::Kernel(receiver) => receiver.leave(group, interface, at),
            Incoming::Guest(pair, inbox) => pair.leave(inbox, group),
        }
    }

    /// Returns the number of memberships.
    pub fn memberships(&self) -> usize {
        self.members.len()
    }

    /// Returns the descriptors for poll(2). The set grows with the memberships.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (kernel, guest) = match &self.incoming {
            Incoming::Kernel(receiver) => (Some(receiver.fds()), None),
            Incoming::Guest(_, inbox) => (None, Some(inbox.as_fd())),
        };
        kernel.into_iter().flatten().chain(guest)
    }

    /// Passes waiting datagrams to `take`, at most about a thousand; true if there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram<'_>)) -> io::Result<bool> {
        let inbox = match &mut self.incoming {
            Incoming::Kernel(receiver) => return receiver.receive(take),
            Incoming::Guest(_, inbox) => inbox,
        };
        for _ in 0..1_000 {
            let Some(packet) = inbox.pop() else {
                return Ok(false);
            };
            if let Some((addresses, payload)) = packet.split_first_chunk::<32>()
                && !payload.is_empty()
            {
                let [source, group] = [0, 16].map(|at| guest_socket::address(addresses, at));
                take(Datagram {
                    source: source.unwrap_or(Ipv6Addr::UNSPECIFIED),
                    group: group.unwrap_or(Ipv6Addr::UNSPECIFIED),
                    interface: INDEX,
                    payload,
                });
            }
        }
        Ok(true)
    }
}
