//! Multicast sockets and the interfaces they work on.
//!
//! [`SendSocket`] is connected to a group: the kernel gives it no packet from anyone, and it is no listening
//! socket. [`ReceiveSockets`] hold any number of memberships, on as many sockets as the kernel needs for them.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::inet6;
pub use crate::interface::Interface;

/// All interfaces of this network namespace, by index.
///
/// # Errors
///
/// The system tells them neither over netlink nor in /proc.
pub fn interfaces() -> io::Result<BTreeMap<u32, Interface>> {
    let entries = match getifaddrs() {
        Err(nix::Error::EAFNOSUPPORT) => return inet6::interfaces(),
        entries => entries?,
    };
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in entries {
        let name = entry.interface_name;
        let interface = found.entry(name.clone()).or_insert_with(|| {
            // an interface may vanish between the two calls: 0 is no interface
            let index = if_nametoindex(name.as_str()).unwrap_or(0);
            Interface::new(index, name, entry.flags)
        });
        if let Some(address) = entry.address.as_ref().and_then(|a| a.as_sockaddr_in6()) {
            interface.addresses.insert(address.ip());
        }
    }
    Ok(found
        .into_values()
        .filter(|i| i.index != 0)
        .map(|i| (i.index, i))
        .collect())
}

/// The interfaces that multicast programs use: up, multicast-capable, and named in `only` unless that is empty.
///
/// # Errors
///
/// Those of [`interfaces`].
pub fn multicast_interfaces(only: &[String]) -> io::Result<BTreeMap<u32, Interface>> {
    let mut all = interfaces()?;
    all.retain(|_, i| i.up && i.multicast && (only.is_empty() || only.contains(&i.name)));
    Ok(all)
}

/// Asks for a receive buffer of `bytes`: beyond the system's limit where permitted, else up to it.
pub(crate) fn enlarge_receive_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

/// Sends to groups out of one interface, and cannot receive.
#[derive(Debug)]
pub struct SendSocket {
    socket: Socket,
    interface: u32,
    port: u16,
}

impl SendSocket {
    /// A socket connected to `group`, port `port`, on `interface`. [`send`](Self::send) reaches other groups
    /// as well.
    ///
    /// # Errors
    ///
    /// The interface does not exist or carries no multicast.
    pub fn open(interface: u32, group: Ipv6Addr, port: u16, hop_limit: u8) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_multicast_if_v6(interface)?;
        socket.set_multicast_hops_v6(hop_limit.into())?;
        // no group's packets, not even those of groups that other programs here have joined
        socket.set_multicast_all_v6(false)?;
        // sending waits for the interface's queue, so that nothing is lost at home, but not for ever
        socket.set_write_timeout(Some(Duration::from_millis(200)))?;
        socket.connect(&SockAddr::from(SocketAddrV6::new(
            group, port, 0, interface,
        )))?;
        Ok(Self {
            socket,
            interface,
            port,
        })
    }

    /// The address that datagrams of this socket come from.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn source(&self) -> io::Result<Ipv6Addr> {
        let local = self.socket.local_addr()?;
        let local = local.as_socket_ipv6();
        local
            .map(|a| *a.ip())
            .ok_or_else(|| io::Error::other("no address of IPv6"))
    }

    /// Sends `packets`, datagrams of `size` bytes one after the other (the last may be shorter), to `group`.
    pub fn send(&self, group: Ipv6Addr, packets: &[u8], size: usize) -> io::Result<()> {
        let to = SockaddrIn6::from(SocketAddrV6::new(group, self.port, 0, self.interface));
        let fd = self.socket.as_raw_fd();
        if let Ok(segment) = u16::try_from(size)
            && packets.len() > size
        {
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            let parts = [IoSlice::new(packets)];
            match sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&to)) {
                // an interface or kernel that cannot segment: one by one
                Err(nix::Error::EIO | nix::Error::EINVAL | nix::Error::EMSGSIZE) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
        for packet in packets.chunks(size.max(1)) {
            sendmsg(
                fd,
                &[IoSlice::new(packet)],
                &[],
                MsgFlags::empty(),
                Some(&to),
            )?;
        }
        Ok(())
    }
}

/// A datagram that came to a group.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Source address of the datagram.
    pub source: Ipv6Addr,
    /// The group it was sent to.
    pub group: Ipv6Addr,
    /// Index of the interface it came in by.
    pub interface: u32,
    /// UDP payload.
    pub payload: &'a [u8],
}

/// Datagrams the kernel may hand over at once with UDP_GRO.
const RECEIVE_BATCH: usize = 65_536;
/// What waits while the program does something else.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Sockets one program may hold for its memberships.
const MAX_SOCKETS: usize = 64;

/// Memberships in groups, and the datagrams that come to them on one port.
#[derive(Debug)]
pub struct ReceiveSockets {
    port: u16,
    sockets: Vec<Socket>,
    /// Which socket holds a membership.
    members: BTreeMap<(u32, Ipv6Addr), usize>,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl ReceiveSockets {
    /// Sockets bound to `port`, without any membership.
    pub fn open(port: u16) -> io::Result<Self> {
        Ok(Self {
            port,
            sockets: vec![receive_socket(port)?],
            members: BTreeMap::new(),
            buffer: vec![0; RECEIVE_BATCH],
            control: nix::cmsg_space!(libc::in6_pktinfo, i32),
        })
    }

    /// Joins `group` on `interface`; a membership that is held already stays.
    ///
    /// # Errors
    ///
    /// The interface does not exist, or as many sockets are full as there may be.
    pub fn join(&mut self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        if self.members.contains_key(&(interface, group)) {
            return Ok(());
        }
        let mut at = self.sockets.len() - 1;
        let mut result = self.sockets[at].join_multicast_v6(&group, interface);
        // the socket's share of option memory is used up: the next one has its own
        if let Err(e) = &result
            && matches!(e.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
            && self.sockets.len() < MAX_SOCKETS
        {
            self.sockets.push(receive_socket(self.port)?);
            at += 1;
            result = self.sockets[at].join_multicast_v6(&group, interface);
        }
        result?;
        self.members.insert((interface, group), at);
        Ok(())
    }

    /// Leaves `group` on `interface`.
    pub fn leave(&mut self, group: Ipv6Addr, interface: u32) {
        if let Some(at) = self.members.remove(&(interface, group)) {
            // fails only if the interface is gone, and the membership with it
            let _ = self.sockets[at].leave_multicast_v6(&group, interface);
        }
    }

    /// How many memberships are held.
    #[must_use]
    pub fn memberships(&self) -> usize {
        self.members.len()
    }

    /// To wait on with poll(2). The set grows with the memberships.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Hands waiting datagrams to `take`, at most about a thousand; true if there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram<'_>)) -> io::Result<bool> {
        /// Most calls of the kernel for each socket in one turn.
        const TURNS: usize = 64;
        let mut more = false;
        for socket in &self.sockets {
            let mut turns = 0;
            while turns < TURNS
                && receive_one(socket, &mut self.buffer, &mut self.control, &mut take)?
            {
                turns += 1;
            }
            more |= turns == TURNS;
        }
        Ok(more)
    }
}

fn receive_socket(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    // only what this socket has joined itself
    socket.set_multicast_all_v6(false)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    // an old kernel without it gives datagrams one by one
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
    socket.bind(&SockAddr::from(SocketAddrV6::new(
        Ipv6Addr::UNSPECIFIED,
        port,
        0,
        0,
    )))?;
    Ok(socket)
}

/// One read, which may bring many datagrams of one sender; false if there was nothing.
fn receive_one(
    socket: &Socket,
    buffer: &mut [u8],
    control: &mut [u8],
    take: &mut impl FnMut(Datagram<'_>),
) -> io::Result<bool> {
    let (bytes, source, segment, info) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            match recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(control), flags) {
                Ok(message) => message,
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(nix::Error::EINTR) => return Ok(true),
                Err(e) => return Err(e.into()),
            };
        let (mut segment, mut info) = (message.bytes, None);
        for item in message.cmsgs()? {
            match item {
                ControlMessageOwned::UdpGroSegments(size) => {
                    segment = usize::try_from(size).unwrap_or(0);
                }
                ControlMessageOwned::Ipv6PacketInfo(found) => info = Some(found),
                _ => {}
            }
        }
        (message.bytes, message.address, segment, info)
    };
    let (Some(source), Some(info)) = (source, info) else {
        return Ok(true);
    };
    let group = Ipv6Addr::from(info.ipi6_addr.s6_addr);
    // the port is open to unicast too; nobody who is not on the way of the group has a say
    if !group.is_multicast() || bytes == 0 {
        return Ok(true);
    }
    let payloads = buffer.get(..bytes).unwrap_or(&[]).chunks(segment.max(1));
    for payload in payloads {
        take(Datagram {
            source: source.ip(),
            group,
            interface: info.ipi6_ifindex,
            payload,
        });
    }
    Ok(true)
}
