//! Packet sockets: all packets of a link, behind a filter in the kernel (classic BPF).

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::ethernet::MacAddress;
use crate::socket_option::{enlarge_receive_buffer, set_option};

/// Bytes of the send buffer: some 8 ms at 1 Gbit/s, so that bursts survive a slower interface.
const SEND_BUFFER: usize = 1 << 20;

/// Opens a socket (`RAW` with Ethernet headers, or `DGRAM`) that receives nothing before [`bind`].
///
/// # Errors
/// System errors, for example without CAP_NET_RAW.
pub fn open(kind: Type, filter: &[SockFilter], receive_buffer: usize) -> io::Result<Socket> {
    // no protocol: nothing arrives before the filter is set
    let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    enlarge_receive_buffer(&socket, receive_buffer);
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
    Ok(socket)
}

/// Starts to receive IPv6 packets, of this interface or of all.
///
/// # Errors
/// The interface does not exist.
pub fn bind(socket: &Socket, interface: Option<u32>) -> io::Result<()> {
    bind_protocol(socket, interface, libc::ETH_P_IPV6)
}

/// The same for another protocol (`ETH_P_ALL`: outgoing packets too).
///
/// # Errors
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

/// Makes the interface receive groups that this host has not joined, or ends that. The kernel
/// counts the requests, and drops them with the socket.
///
/// # Errors
/// The interface does not exist.
pub fn set_all_multicast(socket: &Socket, interface: u32, on: bool) -> io::Result<()> {
    set_membership(socket, interface, libc::PACKET_MR_ALLMULTI, &[], on)
}

/// Makes the interface receive frames for one more Ethernet address, or ends that. The kernel
/// drops the requests with the socket, and hands these frames to packet sockets alone.
///
/// # Errors
/// The interface does not exist.
pub fn set_unicast(socket: &Socket, interface: u32, mac: MacAddress, on: bool) -> io::Result<()> {
    set_membership(socket, interface, libc::PACKET_MR_UNICAST, &mac.0, on)
}

fn set_membership(
    socket: &Socket,
    interface: u32,
    kind: libc::c_int,
    address: &[u8],
    on: bool,
) -> io::Result<()> {
    let mut request = libc::packet_mreq {
        mr_ifindex: index(interface)?,
        mr_type: kind as libc::c_ushort,
        mr_alen: address.len() as libc::c_ushort,
        mr_address: [0; 8],
    };
    request.mr_address[..address.len()].copy_from_slice(address);
    let what = if on {
        libc::PACKET_ADD_MEMBERSHIP
    } else {
        libc::PACKET_DROP_MEMBERSHIP
    };
    set_option(socket, libc::SOL_PACKET, what, &request)
}

/// Makes each frame begin with a `struct virtio_net_hdr`: checksums may be missing, and datagrams
/// of a flow may be merged.
pub fn set_offload_header(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &on)
}

/// Returns the frames that found no room in the receive buffer since the last call.
pub fn take_overruns(socket: &Socket) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: both outlive the call, and `length` is the size of `statistics`.
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
