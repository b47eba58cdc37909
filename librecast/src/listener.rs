//! MLD on a raw ICMPv6 socket: joins and leaves of groups by interface, and queries.
//!
//! The kernel passes MLD reports to raw sockets only if the host has joined ff02::16 on the
//! interface (RFC 9777 §5.2.14): [`MldListener::watch`]. The socket receives only MLD.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::guest_socket::{self, INDEX, Inbox, Pair};
use crate::mld::ALL_MLDV2_ROUTERS;

/// Query, MLDv1 report, MLDv1 done, MLDv2 report.
const MLD_TYPES: [u8; 4] = [130, 131, 132, 143];
/// Linux: `ICMPV6_FILTER` (RFC 3542 §3.2); a set bit blocks the type.
const ICMPV6_FILTER: libc::c_int = 1;
/// Router Alert for MLD in a hop-by-hop header (RFC 2711); the kernel fills in the next header.
const ROUTER_ALERT: [u8; 8] = [0, 0, 5, 2, 0, 0, 1, 0];
/// Bytes of the receive buffer: room for reports of 30,000 joins at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A raw socket for MLD on many interfaces.
#[derive(Debug)]
pub struct MldListener {
    way: Way,
    control: Vec<u8>,
    /// The kernel's count of messages lost by a full queue, as last seen.
    lost: u32,
}

/// The way of messages into this process.
#[derive(Debug)]
enum Way {
    Kernel(Socket),
    /// The socket pair of a guest, and a queue.
    Guest(&'static Arc<Pair>, Arc<Inbox>),
}

/// One received message: its bytes are at the front of the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Bytes of ICMPv6 (the checksum has been verified by the kernel).
    pub length: usize,
    /// Index of the ingress interface.
    pub interface: u32,
    /// Source address; MLD requires a link-local one, which [`crate::mld`] checks.
    pub source: Ipv6Addr,
    /// Its hop limit; MLD requires 1.
    pub hop_limit: u8,
    /// Messages lost between the last received one and this.
    pub lost: u32,
}

impl MldListener {
    /// Opens the socket; needs CAP_NET_RAW.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, or without IPv6.
    pub fn open() -> io::Result<Self> {
        if let Some(pair) = guest_socket::pair()? {
            return Ok(Self {
                way: Way::Guest(pair, pair.open_mld()?),
                control: Vec::new(),
                lost: 0,
            });
        }
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // nothing passes before the filter is set
        set_option(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &mld_filter())?;
        set_option(
            &socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_HOPOPTS,
            &ROUTER_ALERT,
        )?;
        socket.set_multicast_hops_v6(1)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        crate::socket::enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
        Ok(Self {
            way: Way::Kernel(socket),
            control: nix::cmsg_space!(libc::in6_pktinfo, i32, u32),
            lost: 0,
        })
    }

    /// Starts to receive reports of this interface.
    ///
    /// # Errors
    ///
    /// The interface does not exist or carries no multicast.
    pub fn watch(&self, interface: u32) -> io::Result<()> {
        let Way::Kernel(socket) = &self.way else {
            return Ok(());
        };
        match socket.join_multicast_v6(&ALL_MLDV2_ROUTERS, interface) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(()),
            other => other,
        }
    }

    /// Stops receiving reports of this interface. An interface that is gone is no error.
    pub fn unwatch(&self, interface: u32) {
        if let Way::Kernel(socket) = &self.way {
            let _ = socket.leave_multicast_v6(&ALL_MLDV2_ROUTERS, interface);
        }
    }

    /// Returns the next message, `None` if there is none. Truncates messages longer than `buffer`.
    ///
    /// # Errors
    ///
    /// System errors, except for an empty queue and an interrupted call.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let socket = match &self.way {
            Way::Kernel(socket) => socket,
            Way::Guest(_, inbox) => return Ok(receive_of_guest(inbox, buffer)),
        };
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut self.control), flags) {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut received = Received {
            length: message.bytes,
            interface: 0,
            source: message.address.map_or(Ipv6Addr::UNSPECIFIED, |a| a.ip()),
            hop_limit: 0,
            lost: 0,
        };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => received.interface = info.ipi6_ifindex,
                ControlMessageOwned::Ipv6HopLimit(hops) => {
                    received.hop_limit = u8::try_from(hops).unwrap_or(u8::MAX);
                }
                ControlMessageOwned::RxqOvfl(total) => {
                    received.lost = lost_since(&mut self.lost, total);
                }
                _ => {}
            }
        }
        Ok(Some(received))
    }

    /// Returns the messages lost since the last report, by this or a message. A message counts only
    /// losses before it, and after a flood the next one may be late.
    pub fn take_lost(&mut self) -> io::Result<u32> {
        match &self.way {
            Way::Kernel(socket) => Ok(lost_since(&mut self.lost, drops_of(socket)?)),
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
        let socket = match &self.way {
            Way::Kernel(socket) => socket,
            Way::Guest(pair, _) => return pair.send_mld(source, destination, icmpv6),
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: source.octets(),
            },
            ipi6_ifindex: interface,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, interface));
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        let parts = [IoSlice::new(icmpv6)];
        let fd = socket.as_raw_fd();
        sendmsg(fd, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

impl AsFd for MldListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.way {
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

/// Returns the losses above `last`, and sets `last` to `total`.
pub(crate) fn lost_since(last: &mut u32, total: u32) -> u32 {
    let lost = total.wrapping_sub(*last);
    // a message that waited in the queue has an older count
    if lost > u32::MAX / 2 {
        return 0;
    }
    *last = total;
    lost
}

/// Blocks everything but MLD.
fn mld_filter() -> [u32; 8] {
    let mut filter = [u32::MAX; 8];
    for kind in MLD_TYPES {
        filter[usize::from(kind / 32)] &= !(1 << (kind % 32));
    }
    filter
}

/// Returns the packets that found the socket's queue full (Linux: SO_MEMINFO, SK_MEMINFO_DROPS).
pub(crate) fn drops_of(socket: &Socket) -> io::Result<u32> {
    /// Fields that the kernel returns (`SK_MEMINFO_VARS`, linux/sock_diag.h).
    const FIELDS: usize = 9;
    /// The index of dropped packets among them (`SK_MEMINFO_DROPS`).
    const DROPS: usize = 8;
    let mut fields = [0_u32; FIELDS];
    let mut length = size_of_val(&fields) as libc::socklen_t;
    // SAFETY: the pointer is to `fields`, `length` is its size, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(fields[DROPS])
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an option that the crates do not support.
pub(crate) fn set_option<T: Copy>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length are those of `value`, which outlives the call; only read
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_once_and_an_older_count_says_none() {
        let mut last = u32::MAX - 1;
        let said: Vec<u32> = [u32::MAX, 3, 2, 3, 4]
            .into_iter()
            .map(|total| lost_since(&mut last, total))
            .collect();
        assert_eq!(said, [1, 4, 0, 0, 1]);
    }

    #[test]
    fn filter_passes_mld_and_nothing_else() {
        let filter = mld_filter();
        let passed: Vec<u8> = (0..=255)
            .filter(|k| filter[usize::from(k / 32)] & (1 << (k % 32)) == 0)
            .collect();
        assert_eq!(passed, MLD_TYPES);
    }
}
