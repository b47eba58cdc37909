//! Multicast sockets, with datagrams that the kernel splits and merges.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::received::Datagram;
use crate::socket_option::enlarge_receive_buffer;

/// Most bytes of datagrams that the kernel merges with UDP_GRO.
const RECEIVE_BATCH: usize = 65_536;
/// Bytes that may wait while the program is busy.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Sockets of one program for its memberships.
const MAX_SOCKETS: usize = 64;

/// A socket that sends to groups on one interface, and cannot receive.
#[derive(Debug)]
pub struct Sender {
    socket: Socket,
    interface: u32,
    port: u16,
}

impl Sender {
    /// Opens a socket connected to `group`, port `port`, on `interface`.
    pub fn open(interface: u32, group: Ipv6Addr, port: u16, hop_limit: u8) -> io::Result<Self> {
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
            socket,
            interface,
            port,
        })
    }

    /// Returns the source address of its datagrams.
    pub fn source(&self) -> io::Result<Ipv6Addr> {
        let local = self.socket.local_addr()?.as_socket_ipv6();
        local
            .map(|a| *a.ip())
            .ok_or_else(|| io::Error::other("no address of IPv6"))
    }

    /// Sends `packets`, datagrams of `size` bytes in a row (the last may be shorter), to `group`.
    pub fn send(&self, group: Ipv6Addr, packets: &[u8], size: usize) -> io::Result<()> {
        let to = SockaddrIn6::from(SocketAddrV6::new(group, self.port, 0, self.interface));
        let fd = self.socket.as_raw_fd();
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

/// Sockets of one port, as many as the kernel needs for their memberships in groups.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl Receiver {
    /// Opens a socket bound to `port`, without memberships.
    pub fn open(port: u16) -> io::Result<Self> {
        Ok(Self {
            port,
            sockets: vec![receive_socket(port)?],
            buffer: vec![0; RECEIVE_BATCH],
            control: nix::cmsg_space!(libc::in6_pktinfo, i32),
        })
    }

    /// Joins `group` on `interface`, and returns the index of the socket.
    pub fn join(&mut self, group: Ipv6Addr, interface: u32) -> io::Result<usize> {
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
        result.map(|()| at)
    }

    /// Leaves `group` on `interface`, of which the socket `at` is a member.
    pub fn leave(&self, group: Ipv6Addr, interface: u32, at: usize) {
        // fails only if the interface is gone, and the membership with it
        let _ = self.sockets[at].leave_multicast_v6(&group, interface);
    }

    /// Returns the descriptors for poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Passes waiting datagrams to `take`, at most about a thousand; true if there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram<'_>)) -> io::Result<bool> {
        /// Most system calls for each socket in one turn.
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
