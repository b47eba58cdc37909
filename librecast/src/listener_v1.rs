//! MLD version 1 (RFC 2710) on a packet socket. Its reports go to the group itself, and its Done
//! messages to all routers, so a raw ICMPv6 socket receives them only on members or routers.
//!
//! Watched interfaces receive all multicast; a filter in the kernel passes only these two messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::guest_socket::{self, Inbox};
use crate::kernel::MldV1Socket;
pub use crate::received::ReceivedV1;

/// A packet socket for version 1 reports and Done messages on many interfaces.
#[derive(Debug)]
pub struct V1Listener(Way);

#[derive(Debug)]
enum Way {
    Kernel(MldV1Socket),
    /// A queue in which nothing arrives: routers of guests speak version 2.
    Guest(Arc<Inbox>),
}

impl V1Listener {
    /// Opens the socket for groups with these first 16 bits; needs CAP_NET_RAW.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open(prefix: u16) -> io::Result<Self> {
        Ok(Self(match guest_socket::pair()? {
            Some(_) => Way::Guest(Inbox::new(0)?),
            None => Way::Kernel(MldV1Socket::open(prefix)?),
        }))
    }

    /// Makes the interface receive reports to groups that this host has not joined.
    ///
    /// # Errors
    /// The interface does not exist.
    pub fn watch(&mut self, interface: u32) -> io::Result<()> {
        match &mut self.0 {
            Way::Kernel(socket) => socket.watch(interface),
            Way::Guest(_) => Ok(()),
        }
    }

    /// Ends that. An interface that is gone is not an error.
    pub fn unwatch(&mut self, interface: u32) {
        if let Way::Kernel(socket) = &mut self.0 {
            socket.unwatch(interface);
        }
    }

    /// Returns the next message of any interface, watched or not; `None` if there is none.
    ///
    /// # Errors
    /// System errors, except for an empty queue, an interrupted call and an interface down.
    pub fn receive(&mut self) -> io::Result<Option<ReceivedV1>> {
        match &mut self.0 {
            Way::Kernel(socket) => socket.receive(),
            Way::Guest(_) => Ok(None),
        }
    }

    /// Returns the messages that found the queue full since the last call.
    pub fn take_lost(&mut self) -> io::Result<u32> {
        match &mut self.0 {
            Way::Kernel(socket) => socket.take_lost(),
            Way::Guest(_) => Ok(0),
        }
    }
}

impl AsFd for V1Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Way::Kernel(socket) => socket.as_fd(),
            Way::Guest(inbox) => inbox.as_fd(),
        }
    }
}
