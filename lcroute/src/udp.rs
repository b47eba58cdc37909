//! The one UDP socket of all links: dual stack, in batches, with segmentation and coalescing by the
//! kernel where it supports them.

mod errors;

use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use lcroute_webrtc::Ecn;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Type};

use crate::drops::{DropReason, Drops};

/// Receive buffer in bytes, for bursts of all links while the packet loop is busy. The kernel
/// doubles it and counts a datagram's memory, up to 2,304 bytes for one of 1,200: about 7,000 fit,
/// or 20,000 short ones. Live packets wait in it under a flood: four times this size delayed them
/// by 250 ms.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Send buffer in bytes, for a few bursts; fair queues lie above the socket.
const SEND_BUFFER: usize = 8 << 20;

/// Largest unit of coalesced datagrams, in bytes.
const UNIT: usize = 64 << 10;

/// Most units received with one system call.
pub const UNITS: usize = 8;

/// Most segments in one call: `UDP_MAX_SEGMENTS` of older kernels; newer ones take 128.
const SEGMENTS: usize = 64;
/// Bytes of all segments of one call: below the maximum of a UDP datagram.
const SEGMENTED_BYTES: usize = 65_000;

/// Tries of a call. A pending ICMP error ends the next call on the socket, whichever it is; more
/// errors may arrive in the meantime.
const TRIES: usize = 3;

mod option {
    //! Socket options that nix and socket2 lack.
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Path MTU discovery over IPv4.
        MtuDiscoverV4, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int
    );
    sockopt_impl!(
        /// Path MTU discovery over IPv6.
        MtuDiscoverV6, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int
    );
}

/// Datagrams that this host itself refused: too large for an interface, or no buffer for them. A
/// veth or driver with less than its stated MTU refuses all long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Destination; IPv4 as plain IPv4.
    pub to: SocketAddr,
    /// UDP payload of the longest, in bytes.
    pub size: usize,
    /// The number of datagrams.
    pub datagrams: u64,
}

/// Most entries kept until [`Socket::take_refused`].
const MAX_REFUSED: usize = 64;

/// Destination and options of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Destination; IPv4 as plain IPv4.
    pub to: SocketAddr,
    /// The local address to send from, if it matters.
    pub from: Option<IpAddr>,
    /// The ECN mark.
    pub ecn: Ecn,
    /// Path probes: neither routers nor this host may fragment them.
    pub dont_fragment: bool,
}

/// The socket. It never blocks.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Whether it is the dual-stack one.
    ipv6: bool,
    /// Whether the kernel cuts bursts into datagrams (GSO).
    segmentation: bool,
    /// The units received last.
    buffer: Vec<u8>,
    metas: [RecvMeta; UNITS],
    /// Datagrams not sent or not received. None closes a link: networks lose datagrams at any time.
    drops: Drops,
    refused: Vec<Refused>,
    /// The kernel's count of drops at the last look.
    dropped: u32,
}

/// A received datagram. IPv4 addresses are plain.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    pub from: SocketAddr,
    /// The local address, if the kernel reports it.
    pub to: Option<IpAddr>,
    /// The ECN mark.
    pub ecn: Ecn,
    pub content: &'a [u8],
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("address", &self.socket.local_addr())
            .field("segmentation", &self.segmentation)
            .field("drops", &self.drops)
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens the socket on `port` (0: any free one) of all addresses, IPv6 and IPv4; IPv4 alone if
    /// the host lacks IPv6.
    pub fn open(port: u16) -> io::Result<Self> {
        let (socket, ipv6) = match bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => (socket, true),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
            Err(_) => (
                bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())?,
                false,
            ),
        };
        let state = set_up(&socket, ipv6)?;
        enlarge_buffers(&socket)?;
        Ok(Self {
            segmentation: state.max_gso_segments() > 1,
            buffer: vec![0; UNITS * UNIT],
            metas: [RecvMeta::default(); UNITS],
            drops: Drops::default(),
            refused: Vec::new(),
            dropped: 0,
            socket,
            state,
            ipv6,
        })
    }

    /// The port it is bound to.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Whether it reaches IPv6 addresses.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    /// Counts the kernel's drops. The caller must ask before its 32-bit counter wraps.
    pub fn count_overflow(&mut self) {
        if let Some(dropped) = kernel_drops(&self.socket) {
            let new = dropped.wrapping_sub(self.dropped);
            self.drops
                .add(DropReason::UdpReceiveOverflow, u64::from(new));
            self.dropped = dropped;
        }
    }

    /// Returns the drops so far.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Receives up to [`UNITS`] units with one system call, for [`Self::unit`]. Returns 0 if
    /// nothing is ready.
    pub fn receive(&mut self) -> io::Result<usize> {
        let mut metas = [RecvMeta::default(); UNITS];
        match again(|| self.receive_units(&mut metas)) {
            Ok(units) => {
                self.metas = metas;
                Ok(units)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) if is_transient(&error) => {
                self.drops.count(DropReason::UdpReceiveError);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the datagrams of a unit: one, or several of one sender that the kernel coalesced.
    pub fn unit(&self, number: usize) -> impl Iterator<Item = Received<'_>> {
        let meta = self.metas[number];
        let unit = &self.buffer[number * UNIT..][..meta.len.min(UNIT)];
        let datagrams = unit.chunks(meta.stride.max(1));
        datagrams.map(move |content| Received {
            from: plain(meta.addr),
            to: meta.dst_ip.map(|ip| ip.to_canonical()),
            // the kernel does not coalesce datagrams with different marks
            ecn: mark(meta.ecn),
            content,
        })
    }

    fn receive_units(&mut self, metas: &mut [RecvMeta; UNITS]) -> io::Result<usize> {
        let mut units = self.buffer.chunks_mut(UNIT);
        // The buffer has UNITS units: no slice is the empty default.
        let mut slices: [IoSliceMut<'_>; UNITS] =
            std::array::from_fn(|_| IoSliceMut::new(units.next().unwrap_or_default()));
        self.state
            .recv(UdpSockRef::from(&self.socket), &mut slices, metas)
    }

    /// Sends `contents`. With `segment_size` it is several datagrams of that size in a row, of
    /// which the last may be shorter.
    ///
    /// `WouldBlock`: nothing was sent, the socket's buffer is full. All other errors are counted as
    /// lost datagrams, and give `Ok`.
    pub fn send(
        &mut self,
        to: &Destination,
        segment_size: Option<usize>,
        contents: &[u8],
    ) -> io::Result<()> {
        let size = segment_size
            .filter(|&size| size > 0)
            .unwrap_or(contents.len())
            .max(1);
        let burst = if self.segmentation {
            (SEGMENTED_BYTES / size)
                .clamp(1, SEGMENTS)
                .saturating_mul(size)
        } else {
            size
        };
        if to.dont_fragment {
            return self.probe(to, size, contents);
        }
        // An empty datagram is sent as well.
        let mut bursts = contents.chunks(burst);
        self.send_burst(to, size, bursts.next().unwrap_or_default())?;
        let mut sent = burst;
        for part in bursts {
            if self.send_burst(to, size, part).is_err() {
                self.drops
                    .add(DropReason::UdpCongested, count(contents.len() - sent, size));
                break;
            }
            sent += part.len();
        }
        Ok(())
    }

    /// Sends datagrams that may be too large for the path: their loss is a result, not an error.
    fn probe(&mut self, to: &Destination, size: usize, contents: &[u8]) -> io::Result<()> {
        set_fragments(&self.socket, self.ipv6, false);
        let sent: Vec<_> = contents
            .chunks(size)
            .map(|datagram| self.transmit(to, None, datagram))
            .collect();
        set_fragments(&self.socket, self.ipv6, true);
        // the short datagram after a long one is sent in any case: together they are the answer
        for error in sent.into_iter().filter_map(Result::err) {
            match error.raw_os_error() {
                Some(libc::EMSGSIZE) => {}
                _ if error.kind() == ErrorKind::WouldBlock => {
                    self.drops.count(DropReason::UdpCongested);
                }
                _ => self.count_unsent(&error, 1),
            }
        }
        Ok(())
    }

    /// Sends as much as the kernel takes at once. The only error is `WouldBlock`: nothing sent.
    fn send_burst(&mut self, to: &Destination, size: usize, burst: &[u8]) -> io::Result<()> {
        let several = burst.len() > size;
        let error = match self.transmit(to, several.then_some(size), burst) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
            Err(error) => error,
        };
        // The path is narrower than the segments, or the driver cannot cut them: sends one by one.
        let one_by_one = several
            && matches!(
                error.raw_os_error(),
                Some(libc::EMSGSIZE | libc::EIO | libc::EINVAL)
            );
        if !one_by_one {
            let datagrams = count(burst.len(), size);
            self.count_unsent(&error, datagrams);
            self.note_refused(&error, to.to, size.min(burst.len()), datagrams);
            return Ok(());
        }
        if error.raw_os_error() == Some(libc::EIO) {
            self.segmentation = false;
        }
        for datagram in burst.chunks(size) {
            match self.transmit(to, None, datagram) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drops.count(DropReason::UdpCongested);
                }
                Err(error) => {
                    self.count_unsent(&error, 1);
                    self.note_refused(&error, to.to, datagram.len(), 1);
                }
            }
        }
        Ok(())
    }

    fn transmit(
        &self,
        to: &Destination,
        segment_size: Option<usize>,
        contents: &[u8],
    ) -> io::Result<()> {
        let destination = match to.to {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            SocketAddr::V6(_) if !self.ipv6 => {
                return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
            }
            other => other,
        };
        // A source of the other address family is unusable.
        let src_ip = to.from.filter(|from| from.is_ipv4() == to.to.is_ipv4());
        let capable = to.ecn != Ecn::None;
        let transmit = Transmit {
            destination,
            ecn: capable.then_some(EcnCodepoint::Ect0),
            contents,
            segment_size,
            src_ip,
        };
        again(|| {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        })
    }

    fn note_refused(&mut self, error: &io::Error, to: SocketAddr, size: usize, datagrams: u64) {
        let is_refusal = matches!(
            error.raw_os_error(),
            Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ENOMEM)
        );
        if is_refusal && self.refused.len() < MAX_REFUSED {
            self.refused.push(Refused {
                to,
                size,
                datagrams,
            });
        }
    }

    /// Takes the datagrams that this host has refused since the last call, except probes.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    fn count_unsent(&mut self, error: &io::Error, datagrams: u64) {
        // after one such error the crate `quinn-udp` omits IPv4 marks for good
        if error.raw_os_error() == Some(libc::EINVAL)
            && let Ok(state) = set_up(&self.socket, self.ipv6)
        {
            self.state = state;
        }
        let reason = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => DropReason::UdpTooBig,
            Some(libc::ENOBUFS | libc::ENOMEM) => DropReason::UdpCongested,
            // EINVAL: this host no longer has the source address.
            Some(libc::EINVAL) => DropReason::UdpUnreachable,
            _ if is_transient(error) => DropReason::UdpUnreachable,
            _ => DropReason::UdpSendError,
        };
        self.drops.add(reason, datagrams);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(domain: Domain, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn set_up(socket: &UdpSocket, ipv6: bool) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    state.enable_transport_errors(UdpSockRef::from(socket))?;
    // unused, and they take the control buffer's room for the mark
    setsockopt(socket, sockopt::ReceiveTimestampns, &false)?;
    set_fragments(socket, ipv6, true);
    Ok(state)
}

/// Allows or forbids fragments. Many paths carry less than 1,500 bytes and send no ICMP error. Over
/// IPv4 routers may fragment (with DF set, long datagrams are lost); over IPv6 the kernel fragments
/// once it knows the path MTU.
///
/// Where fragments are forbidden, the kernel's cached path MTU does not count either.
fn set_fragments(socket: &UdpSocket, ipv6: bool, allowed: bool) {
    let (v4, v6) = if allowed {
        (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_WANT)
    } else {
        (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE)
    };
    // Best effort: otherwise only large datagrams over narrow paths suffer.
    let _ = setsockopt(socket, option::MtuDiscoverV4, &v4);
    if ipv6 {
        let _ = setsockopt(socket, option::MtuDiscoverV6, &v6);
        let _ = setsockopt(socket, sockopt::Ipv6DontFrag, &!allowed);
    }
}

/// Sets the buffer sizes beyond the host's limits if permitted, else up to them.
fn enlarge_buffers(socket: &UdpSocket) -> io::Result<()> {
    let plain = SockRef::from(socket);
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        plain.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        plain.set_send_buffer_size(SEND_BUFFER)?;
    }
    // the kernel reports twice the size that it grants
    for (name, size, wanted) in [
        ("receive", plain.recv_buffer_size()? / 2, RECEIVE_BUFFER),
        ("send", plain.send_buffer_size()? / 2, SEND_BUFFER),
    ] {
        if size < wanted {
            tracing::info!("UDP {name} buffer: {size} of {wanted} bytes; bursts may get lost");
        }
    }
    Ok(())
}

/// Returns the kernel's drop count of a socket, modulo 2^32; `None` before Linux 4.12.
fn kernel_drops(socket: &UdpSocket) -> Option<u32> {
    /// Values that the kernel returns (`SK_MEMINFO_VARS`, linux/sock_diag.h).
    const VALUES: usize = 9;
    /// Index of dropped packets among them (`SK_MEMINFO_DROPS`).
    const DROPS: usize = 8;
    let mut values = [0_u32; VALUES];
    let size = size_of_val(&values) as libc::socklen_t;
    let mut length = size;
    // SAFETY: `values` and `length` outlive the call, and `length` bounds the written bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length == size).then_some(values[DROPS])
}

/// Repeats a call that failed by an error that may concern another datagram.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut result = call();
    for _ in 1..TRIES {
        match &result {
            Err(error) if is_transient(error) => result = call(),
            _ => break,
        }
    }
    result
}

/// Whether a network or firewall causes this error.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EADDRNOTAVAIL
                | libc::EPROTO
                | libc::EACCES
                | libc::EPERM
                | libc::EMSGSIZE
                | libc::EINTR
        )
    )
}

fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => (v4, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

fn mark(ecn: Option<EcnCodepoint>) -> Ecn {
    match ecn {
        None => Ecn::None,
        Some(EcnCodepoint::Ect0 | EcnCodepoint::Ect1) => Ecn::Capable,
        Some(EcnCodepoint::Ce) => Ecn::Congested,
    }
}

fn count(bytes: usize, size: usize) -> u64 {
    // Lossless: no platform of Linux has a usize wider than 64 bits.
    bytes.div_ceil(size) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    type Received = Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)>;

    /// Receives until `count` datagrams have come.
    fn receive(socket: &mut Socket, count: usize) -> Received {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut received = Received::new();
        while received.len() < count {
            assert!(
                Instant::now() < deadline,
                "only {} of {count}",
                received.len()
            );
            let timeout = PollTimeout::from(1000u16);
            poll(
                &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
                timeout,
            )
            .unwrap();
            for unit in 0..socket.receive().unwrap() {
                let datagrams = socket.unit(unit);
                received.extend(datagrams.map(|d| (d.from, d.to, d.content.to_vec())));
            }
        }
        received
    }

    fn at(ip: &str, socket: &Socket) -> SocketAddr {
        (ip.parse::<IpAddr>().unwrap(), socket.port().unwrap()).into()
    }

    fn destination(to: SocketAddr) -> Destination {
        Destination {
            to,
            from: None,
            ecn: Ecn::None,
            dont_fragment: false,
        }
    }

    fn from(ip: &str, to: SocketAddr) -> Destination {
        Destination {
            from: Some(ip.parse().unwrap()),
            ..destination(to)
        }
    }

    #[test]
    fn marks_are_sent_and_seen() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        // a missing source address must not cost the marks of later datagrams
        a.send(&from("192.0.2.1", at("127.0.0.1", &b)), None, b"not ours")
            .unwrap();
        assert_eq!(a.drops().get(DropReason::UdpUnreachable), 1);
        let mut to = vec![at("127.0.0.1", &b)];
        to.extend(UdpSocket::bind("[::1]:0").is_ok().then(|| at("::1", &b)));
        for (to, ecn) in to
            .iter()
            .flat_map(|to| [(*to, Ecn::None), (*to, Ecn::Capable)])
        {
            let destination = Destination {
                ecn,
                ..destination(to)
            };
            a.send(&destination, Some(100), &[7; 300]).unwrap();
            let mut marks = Vec::new();
            while marks.len() < 3 {
                let mut fds = [PollFd::new(b.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(), 1);
                for unit in 0..b.receive().unwrap() {
                    marks.extend(b.unit(unit).map(|datagram| datagram.ecn));
                }
            }
            assert_eq!(marks, [ecn; 3], "{to}");
        }
    }

    #[test]
    fn ipv4_addresses_are_plain_in_both_directions() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        a.send(&destination(at("127.0.0.1", &b)), None, b"hello")
            .unwrap();
        let received = receive(&mut b, 1);
        let to = Some("127.0.0.1".parse().unwrap());
        assert_eq!(received, [(at("127.0.0.1", &a), to, b"hello".to_vec())]);
        let back = Destination {
            from: received[0].1,
            ..destination(received[0].0)
        };
        b.send(&back, None, b"back").unwrap();
        assert_eq!(receive(&mut a, 1)[0].2, b"back");
    }

    #[test]
    fn ipv6_works_where_the_host_has_it() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        if UdpSocket::bind("[::1]:0").is_err() {
            assert!(
                a.send(&destination(at("::1", &b)), None, b"hello").is_ok(),
                "lost, not failed"
            );
            return;
        }
        a.send(&from("::1", at("::1", &b)), None, b"hello").unwrap();
        let to = Some("::1".parse().unwrap());
        assert_eq!(receive(&mut b, 1), [(at("::1", &a), to, b"hello".to_vec())]);
    }

    #[test]
    fn the_source_address_is_the_one_asked_for() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        let destination = from("127.0.0.2", at("127.0.0.1", &b));
        a.send(&destination, None, b"hello").unwrap();
        assert_eq!(receive(&mut b, 1)[0].0, at("127.0.0.2", &a));
    }

    #[test]
    fn a_burst_arrives_as_its_datagrams() {
        for segmentation in [true, false] {
            let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
            a.segmentation &= segmentation;
            // More than one call takes, with a short datagram at the end.
            let contents: Vec<u8> = (0..100 * 1000 + 10).map(|i| (i / 1000) as u8).collect();
            a.send(&destination(at("127.0.0.1", &b)), Some(1000), &contents)
                .unwrap();
            let received = receive(&mut b, 101);
            let joined: Vec<u8> = received.iter().flat_map(|(_, _, d)| d.clone()).collect();
            assert_eq!(joined, contents);
            assert!(
                received[..100]
                    .iter()
                    .all(|(_, _, datagram)| datagram.len() == 1000)
            );
            assert_eq!(received[100].2.len(), 10);
            assert_eq!(*a.drops(), Drops::default());
        }
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_harms_nothing() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        let to = at("127.0.0.1", &b);
        a.send(&from("192.0.2.1", to), None, b"not ours").unwrap();
        assert_eq!(
            a.drops().by_name(),
            BTreeMap::from([("udp_unreachable", 1)])
        );
        a.send(&destination(to), None, &vec![0; 70_000]).unwrap();
        assert_eq!(a.drops().get(DropReason::UdpTooBig), 1);
        // A long probe is a result, not a loss; later datagrams may be fragmented again.
        let probe = Destination {
            dont_fragment: true,
            ..destination(to)
        };
        a.send(&probe, None, &vec![0; 70_000]).unwrap();
        a.send(&probe, None, b"short").unwrap();
        assert_eq!(receive(&mut b, 1)[0].2, b"short");
        assert_eq!(a.drops().get(DropReason::UdpTooBig), 1);
        let refused = Refused {
            to,
            size: 70_000,
            datagrams: 1,
        };
        assert_eq!(a.take_refused(), [refused]);
        assert_eq!(a.take_refused(), []);
        // The short one of a pair shows that the path works, even if the long one is refused.
        let pair = [&vec![0; 70_000][..], b"behind"].concat();
        a.send(&probe, Some(70_000), &pair).unwrap();
        assert_eq!(receive(&mut b, 1)[0].2, b"behind");
        // A closed port: the ICMP error must not affect the next datagram.
        let nobody = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        a.send(&destination(nobody), None, b"anybody?").unwrap();
        a.send(&destination(to), None, b"hello").unwrap();
        assert_eq!(receive(&mut b, 1)[0].2, b"hello");
        assert_eq!(a.receive().unwrap(), 0);
    }

    fn wait_for_error(socket: &Socket) {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(), 1);
        assert!(fds[0].revents().unwrap().contains(PollFlags::POLLERR));
    }

    #[test]
    fn a_refusal_is_told_with_what_it_quotes_and_costs_no_other_datagram() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        for ip in ["127.0.0.1", "::1"] {
            let Ok(gone) = UdpSocket::bind((ip, 0)).and_then(|socket| socket.local_addr()) else {
                continue; // the host lacks IPv6
            };
            let mut told = Vec::new();
            a.send(&destination(gone), None, b"anybody?").unwrap();
            wait_for_error(&a);
            a.take_errors(&mut |e| told.push((e.remote, e.is_refusal, e.quoted.to_vec())));
            assert_eq!(told, [(gone, true, b"anybody?".to_vec())]);
            // errors not taken yet
            let before = a.drops().clone();
            for _ in 0..5 {
                a.send(&destination(gone), None, b"anybody?").unwrap();
                wait_for_error(&a);
                a.send(&destination(at("127.0.0.1", &b)), None, b"hello")
                    .unwrap();
                assert_eq!(receive(&mut b, 1)[0].2, b"hello");
                b.send(&destination(at("127.0.0.1", &a)), None, b"back")
                    .unwrap();
                a.send(&destination(gone), None, b"anybody?").unwrap();
                assert_eq!(receive(&mut a, 1)[0].2, b"back");
            }
            assert_eq!(*a.drops(), before);
            let mut count = 0;
            a.take_errors(&mut |_| count += 1);
            assert!(
                count > 0
                    && a.drops().get(DropReason::UdpIcmpError)
                        == before.get(DropReason::UdpIcmpError) + count
            );
        }
    }

    #[test]
    fn what_the_kernel_drops_for_lack_of_room_is_counted() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        SockRef::from(&b.socket)
            .set_recv_buffer_size(4_096)
            .unwrap();
        let to = destination(at("127.0.0.1", &b));
        for _ in 0..100 {
            a.send(&to, None, &[0; 1_000]).unwrap();
        }
        b.count_overflow();
        let dropped = usize::try_from(b.drops().get(DropReason::UdpReceiveOverflow)).unwrap();
        assert!(dropped > 50);
        assert_eq!(receive(&mut b, 100 - dropped).len(), 100 - dropped);
        b.count_overflow();
        assert_eq!(
            b.drops().get(DropReason::UdpReceiveOverflow),
            dropped as u64
        );
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let taken = Socket::open(0).unwrap();
        let error = Socket::open(taken.port().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}
