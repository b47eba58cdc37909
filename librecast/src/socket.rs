//! Multicast sockets and their interfaces.
//!
//! A guest without a namespace has a socket pair in their place: [`GUEST_FD`].
//!
//! [`SendSocket`] is connected to a group: it receives nothing, and is no listening socket.
//! [`ReceiveSockets`] have any number of memberships, on as many sockets as the kernel needs.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::guest_socket::{self, INDEX, Inbox, Pair};
pub use crate::guest_socket::{GUEST_FD, GuestPair};
use crate::inet6;
pub use crate::interface::Interface;

/// Returns all interfaces of this network namespace, by index.
///
/// # Errors
///
/// The system provides them neither over netlink nor in /proc.
pub fn interfaces() -> io::Result<BTreeMap<u32, Interface>> {
    if let Some(pair) = guest_socket::pair()? {
        return Ok([(INDEX, pair.interface())].into());
    }
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

/// Returns the interfaces for multicast: up, capable, and named in `only` unless that is empty.
///
/// # Errors
///
/// As [`interfaces`].
pub fn multicast_interfaces(only: &[String]) -> io::Result<BTreeMap<u32, Interface>> {
    let mut all = interfaces()?;
    all.retain(|_, i| i.up && i.multicast && (only.is_empty() || only.contains(&i.name)));
    Ok(all)
}

/// Sets a receive buffer of `bytes`: beyond the system's limit if permitted, else up to it.
pub(crate) fn enlarge_receive_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

/// A socket that sends to groups on one interface, and cannot receive.
#[derive(Debug)]
pub struct SendSocket {
    way: Way,
    interface: u32,
    port: u16,
}

/// The way of datagrams out of this process.
#[derive(Debug)]
enum Way {
    Kernel(Socket),
    /// The socket pair of a guest, and the hop limit.
    Guest(&'static Arc<Pair>, u8),
}

impl SendSocket {
    /// Opens a socket connected to `group`, port `port`, on `interface`. [`send`](Self::send)
    /// reaches other groups as well.
    ///
    /// # Errors
    ///
    /// The interface does not exist or carries no multicast.
    pub fn open(interface: u32, group: Ipv6Addr, port: u16, hop_limit: u8) -> io::Result<Self> {
        if let Some(pair) = guest_socket::pair()? {
            return Ok(Self {
                way: Way::Guest(pair, hop_limit),
                interface,
                port,
            });
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_multicast_if_v6(interface)?;
        socket.set_multicast_hops_v6(hop_limit.into())?;
        // no group's packets, not even of groups that other programs here have joined
        socket.set_multicast_all_v6(false)?;
        // waits for the interface's queue, so that it drops nothing, but not for ever
        socket.set_write_timeout(Some(Duration::from_millis(200)))?;
        socket.connect(&SockAddr::from(SocketAddrV6::new(
            group, port, 0, interface,
        )))?;
        Ok(Self {
            way: Way::Kernel(socket),
            interface,
            port,
        })
    }

    /// Returns the source address of its datagrams.
    ///
    /// # Errors
    ///
    /// The system does not provide it.
    pub fn source(&self) -> io::Result<Ipv6Addr> {
        let local = match &self.way {
            Way::Kernel(socket) => socket.local_addr()?,
            Way::Guest(pair, _) => return Ok(pair.address),
        };
        let local = local.as_socket_ipv6();
        local
            .map(|a| *a.ip())
            .ok_or_else(|| io::Error::other("no address of IPv6"))
    }

    /// Sends `packets`, datagrams of `size` bytes in a row (the last may be shorter), to `group`.
    pub fn send(&self, group: Ipv6Addr, packets: &[u8], size: usize) -> io::Result<()> {
        let to = SockaddrIn6::from(SocketAddrV6::new(group, self.port, 0, self.interface));
        let fd = match &self.way {
            Way::Kernel(socket) => socket.as_raw_fd(),
            Way::Guest(pair, hop_limit) => {
                let ports = (self.port, *hop_limit);
                let mut packets = packets.chunks(size.max(1));
                return packets.try_for_each(|packet| pair.send_datagram(group, ports, packet));
            }
        };
        if let Ok(segment) = u16::try_from(size)
            && packets.len() > size
        {
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            let parts = [IoSlice::new(packets)];
            match sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&to)) {
                // an interface or kernel without segmentation: one by one
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

/// A datagram to a group.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Source address of the datagram.
    pub source: Ipv6Addr,
    /// The destination group.
    pub group: Ipv6Addr,
    /// Index of the ingress interface.
    pub interface: u32,
    /// UDP payload.
    pub payload: &'a [u8],
}

/// Most bytes of datagrams that the kernel merges with UDP_GRO.
const RECEIVE_BATCH: usize = 65_536;
/// Bytes that may wait while the program is busy.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Sockets of one program for its memberships.
const MAX_SOCKETS: usize = 64;

/// A queue of a guest's socket pair.
#[derive(Debug)]
struct Guest {
    pair: &'static Arc<Pair>,
    inbox: Arc<Inbox>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.pair.leave_all(&self.inbox);
    }
}

/// Memberships in groups, and received datagrams on one port.
#[derive(Debug)]
pub struct ReceiveSockets {
    port: u16,
    /// The queue of a guest without a namespace, which has no other sockets.
    guest: Option<Guest>,
    sockets: Vec<Socket>,
    /// The socket of each membership.
    members: BTreeMap<(u32, Ipv6Addr), usize>,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl ReceiveSockets {
    /// Opens sockets bound to `port`, without memberships.
    pub fn open(port: u16) -> io::Result<Self> {
        let pair = guest_socket::pair()?;
        let guest = pair.map(|pair| pair.open(port).map(|inbox| Guest { pair, inbox }));
        let guest = guest.transpose()?;
        Ok(Self {
            port,
            sockets: match guest {
                None => vec![receive_socket(port)?],
                Some(_) => Vec::new(),
            },
            guest,
            members: BTreeMap::new(),
            buffer: vec![0; RECEIVE_BATCH],
            control: nix::cmsg_space!(libc::in6_pktinfo, i32),
        })
    }

    /// Joins `group` on `interface`; an existing membership stays.
    ///
    /// # Errors
    ///
    /// The interface does not exist, or all permitted sockets are full.
    pub fn join(&mut self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        if self.members.contains_key(&(interface, group)) {
            return Ok(());
        }
        if let Some(Guest { pair, inbox }) = &self.guest {
            pair.join(inbox, group)?;
            self.members.insert((interface, group), 0);
            return Ok(());
        }
        let mut at = self.sockets.len() - 1;
        let mut result = self.sockets[at].join_multicast_v6(&group, interface);
        // the socket's option memory is used up: the next one has its own
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
        let Some(at) = self.members.remove(&(interface, group)) else {
            return;
        };
        if let Some(Guest { pair, inbox }) = &self.guest {
            pair.leave(inbox, group);
        } else {
            // fails only if the interface is gone, and the membership with it
            let _ = self.sockets[at].leave_multicast_v6(&group, interface);
        }
    }

    /// Returns the number of memberships.
    #[must_use]
    pub fn memberships(&self) -> usize {
        self.members.len()
    }

    /// Returns the descriptors for poll(2). The set grows with the memberships.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let guest = self.guest.iter().map(|guest| guest.inbox.as_fd());
        self.sockets.iter().map(AsFd::as_fd).chain(guest)
    }

    /// Passes waiting datagrams to `take`, at most about a thousand; true if there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram<'_>)) -> io::Result<bool> {
        /// Most system calls for each socket in one turn.
        const TURNS: usize = 64;
        let mut more = false;
        if let Some(Guest { inbox, .. }) = &self.guest {
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
            return Ok(true);
        }
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
    // only groups that this socket has joined itself
    socket.set_multicast_all_v6(false)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    // old kernels return datagrams one by one
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

/// Makes one read, of one or many datagrams of one sender; false if there was nothing.
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
    // the port is open to unicast too, which any host could send
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
