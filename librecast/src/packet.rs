//! Packet sockets: what is on a link, whoever it is for, behind a filter in the kernel (classic BPF).

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::listener::set_option;

/// Some 8 ms at 1 Gbit/s: what comes at once is not lost at an interface that is slower.
const SEND_BUFFER: usize = 1 << 20;

/// A socket that nothing comes in by before [`bind`]; needs CAP_NET_RAW. `kind`: `RAW` with Ethernet headers, `DGRAM` without.
///
/// # Errors
///
/// Those of the system; without CAP_NET_RAW.
pub fn open(kind: Type, filter: &[SockFilter], receive_buffer: usize) -> io::Result<Socket> {
    // no protocol: nothing comes in before the filter stands
    let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    crate::socket::enlarge_receive_buffer(&socket, receive_buffer);
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
    Ok(socket)
}

/// From now on what is IPv6 comes in, of this interface or of all.
///
/// # Errors
///
/// The interface does not exist.
pub fn bind(socket: &Socket, interface: Option<u32>) -> io::Result<()> {
    bind_protocol(socket, interface, libc::ETH_P_IPV6)
}

/// The same of another protocol (`ETH_P_ALL`: what goes out as well).
///
/// # Errors
///
/// The interface does not exist.
pub fn bind_protocol(
    socket: &Socket,
    interface: Option<u32>,
    protocol: libc::c_int,
) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: index(interface.unwrap_or(0))?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the interface takes in packets of groups that this host has not joined. The kernel counts how often it is told,
/// and forgets with the socket.
///
/// # Errors
///
/// The interface does not exist.
pub fn set_all_multicast(socket: &Socket, interface: u32, on: bool) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index(interface)?,
        mr_type: libc::PACKET_MR_ALLMULTI as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let what = if on {
        libc::PACKET_ADD_MEMBERSHIP
    } else {
        libc::PACKET_DROP_MEMBERSHIP
    };
    set_option(socket, libc::SOL_PACKET, what, &request)
}

/// From now on a `struct virtio_net_hdr` stands before each frame: checksums may be missing, and datagrams of a flow may come
/// as one.
///
/// # Errors
///
/// Those of the system.
pub fn set_offload_header(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &on)
}

/// Frames that found no room in the receive buffer since the last call.
///
/// # Errors
///
/// Those of the system.
pub fn take_overruns(socket: &Socket) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: both outlive the call, and `length` says how much may be written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(statistics.tp_drops)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn index(interface: u32) -> io::Result<libc::c_int> {
    libc::c_int::try_from(interface).map_err(io::Error::other)
}
