//! The one UDP socket of all links: dual stack, in batches, with segmentation and coalescing by
//! the kernel where it can.

use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Type};

/// Bursts of all links arrive in one buffer while the packet loop is busy elsewhere.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Queues belong above the socket, where they are fair: this only has to hold a few bursts.
const SEND_BUFFER: usize = 8 << 20;

/// Coalesced datagrams come in units of up to 64 KiB.
const UNIT: usize = 64 << 10;

/// Units taken with one system call.
const UNITS: usize = 8;

/// System calls in one [`Socket::recv`]: received traffic must not starve what is to be sent.
const RECEIVE_CALLS: usize = 4;

/// Segments that the kernel takes in one call (`UDP_MAX_SEGMENTS`), and their bytes in all.
const SEGMENTS: usize = 64;
const SEGMENTED_BYTES: usize = 65_000;

mod option {
    //! Socket options that the crates above do not name.
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

/// Datagrams that were not sent, and errors while receiving. None of these closes a link: the
/// network may lose a datagram at any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// No route, no such source address any more, or a local firewall said no.
    pub unreachable: u64,
    /// Larger than the interface takes.
    pub too_big: u64,
    /// The socket's send buffer was full in the middle of a burst.
    pub congested: u64,
    /// Any other error of sending.
    pub other: u64,
    /// Errors reported while receiving.
    pub receive: u64,
}

/// The socket. It never blocks.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Whether it is the dual-stack one.
    ipv6: bool,
    /// Whether the kernel cuts bursts into datagrams.
    segmentation: bool,
    buffer: Vec<u8>,
    counters: Counters,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("address", &self.socket.local_addr())
            .field("segmentation", &self.segmentation)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens the socket on `port` (0: one that is free) of all addresses, IPv6 and IPv4; of IPv4
    /// alone where the host has no IPv6.
    pub fn open(port: u16) -> io::Result<Self> {
        let (socket, ipv6) = match bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => (socket, true),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
            Err(_) => (
                bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())?,
                false,
            ),
        };
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        allow_fragments(&socket, ipv6);
        enlarge_buffers(&socket)?;
        Ok(Self {
            segmentation: state.max_gso_segments() > 1,
            buffer: vec![0; UNITS * UNIT],
            counters: Counters::default(),
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

    /// What went wrong so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Gives each datagram that has come in, up to a bound, to `each`: who sent it, to which
    /// address of this host, and its content. Says how many there were.
    ///
    /// Poll again afterwards; where more are waiting, that returns at once. IPv4 addresses are
    /// given as such.
    pub fn recv(
        &mut self,
        mut each: impl FnMut(SocketAddr, Option<IpAddr>, &[u8]),
    ) -> io::Result<usize> {
        let mut datagrams = 0;
        for _ in 0..RECEIVE_CALLS {
            let mut metas = [RecvMeta::default(); UNITS];
            let units = match self.receive_units(&mut metas) {
                Ok(units) => units,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_transient(&error) => {
                    self.counters.receive += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (meta, unit) in metas[..units].iter().zip(self.buffer.chunks(UNIT)) {
                let from = plain(meta.addr);
                let to = meta.dst_ip.map(|ip| ip.to_canonical());
                for datagram in unit[..meta.len.min(UNIT)].chunks(meta.stride.max(1)) {
                    each(from, to, datagram);
                    datagrams += 1;
                }
            }
            if units < UNITS {
                break;
            }
        }
        Ok(datagrams)
    }

    fn receive_units(&mut self, metas: &mut [RecvMeta; UNITS]) -> io::Result<usize> {
        let mut units = self.buffer.chunks_mut(UNIT);
        // The buffer has UNITS units: none of the slices is the empty default.
        let mut slices: [IoSliceMut<'_>; UNITS] =
            std::array::from_fn(|_| IoSliceMut::new(units.next().unwrap_or_default()));
        self.state
            .recv(UdpSockRef::from(&self.socket), &mut slices, metas)
    }

    /// Sends `contents` to `to`, from the local address `from` where given. With `segment_size`,
    /// `contents` is several datagrams of that size in a row, of which the last may be shorter.
    ///
    /// `WouldBlock`: nothing was sent, the socket's buffer is full. All other troubles are
    /// those of a network that loses datagrams: counted, and `Ok`.
    pub fn send(
        &mut self,
        to: SocketAddr,
        from: Option<IpAddr>,
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
        // An empty datagram is one as well.
        let mut bursts = contents.chunks(burst);
        self.send_burst(to, from, size, bursts.next().unwrap_or_default())?;
        let mut sent = burst;
        for part in bursts {
            if self.send_burst(to, from, size, part).is_err() {
                self.counters.congested += count(contents.len() - sent, size);
                break;
            }
            sent += part.len();
        }
        Ok(())
    }

    /// Sends what the kernel takes at once. The only error is `WouldBlock`, with nothing sent.
    fn send_burst(
        &mut self,
        to: SocketAddr,
        from: Option<IpAddr>,
        size: usize,
        burst: &[u8],
    ) -> io::Result<()> {
        let several = burst.len() > size;
        let error = match self.transmit(to, from, several.then_some(size), burst) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
            Err(error) => error,
        };
        // A path that is narrower than the segments, or a driver that cannot cut them: one by one.
        let one_by_one = several
            && matches!(
                error.raw_os_error(),
                Some(libc::EMSGSIZE | libc::EIO | libc::EINVAL)
            );
        if !one_by_one {
            self.count_unsent(&error, count(burst.len(), size));
            return Ok(());
        }
        if error.raw_os_error() == Some(libc::EIO) {
            self.segmentation = false;
        }
        for datagram in burst.chunks(size) {
            match self.transmit(to, from, None, datagram) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.counters.congested += 1,
                Err(error) => self.count_unsent(&error, 1),
            }
        }
        Ok(())
    }

    fn transmit(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        segment_size: Option<usize>,
        contents: &[u8],
    ) -> io::Result<()> {
        let destination = match to {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            SocketAddr::V6(_) if !self.ipv6 => {
                return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
            }
            other => other,
        };
        // A source of the other family is of no use.
        let src_ip = from.filter(|from| from.is_ipv4() == to.is_ipv4());
        let transmit = Transmit {
            destination,
            ecn: None,
            contents,
            segment_size,
            src_ip,
        };
        self.state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn count_unsent(&mut self, error: &io::Error, datagrams: u64) {
        let counter = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => &mut self.counters.too_big,
            Some(libc::ENOBUFS | libc::ENOMEM) => &mut self.counters.congested,
            // EINVAL: the source address has gone.
            Some(libc::EINVAL) => &mut self.counters.unreachable,
            _ if is_transient(error) => &mut self.counters.unreachable,
            _ => &mut self.counters.other,
        };
        *counter += datagrams;
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

/// Many paths carry less than 1,500 bytes and tell nobody: over IPv4 routers may fragment (a
/// fragmented datagram arrives, one with DF set does not), over IPv6 the kernel fragments once it
/// knows the path.
fn allow_fragments(socket: &UdpSocket, ipv6: bool) {
    // Best effort: without these only large datagrams over narrow paths suffer.
    let _ = setsockopt(socket, option::MtuDiscoverV4, &libc::IP_PMTUDISC_DONT);
    if ipv6 {
        let _ = setsockopt(socket, option::MtuDiscoverV6, &libc::IPV6_PMTUDISC_WANT);
        let _ = setsockopt(socket, sockopt::Ipv6DontFrag, &false);
    }
}

/// Beyond the limits of the host where that is permitted, up to them where not.
fn enlarge_buffers(socket: &UdpSocket) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        SockRef::from(socket).set_send_buffer_size(SEND_BUFFER)?;
    }
    Ok(())
}

/// Errors that the network or a firewall causes.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
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

fn count(bytes: usize, size: usize) -> u64 {
    // Lossless: no platform of Linux has a usize wider than 64 bits.
    bytes.div_ceil(size) as u64
}

#[cfg(test)]
mod tests {
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
            socket
                .recv(|from, to, datagram| received.push((from, to, datagram.to_vec())))
                .unwrap();
        }
        received
    }

    fn at(ip: &str, socket: &Socket) -> SocketAddr {
        (ip.parse::<IpAddr>().unwrap(), socket.port().unwrap()).into()
    }

    #[test]
    fn ipv4_addresses_are_plain_in_both_directions() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        a.send(at("127.0.0.1", &b), None, None, b"hello").unwrap();
        let received = receive(&mut b, 1);
        let to = Some("127.0.0.1".parse().unwrap());
        assert_eq!(received, [(at("127.0.0.1", &a), to, b"hello".to_vec())]);
        b.send(received[0].0, received[0].1, None, b"back").unwrap();
        assert_eq!(receive(&mut a, 1)[0].2, b"back");
    }

    #[test]
    fn ipv6_works_where_the_host_has_it() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        if UdpSocket::bind("[::1]:0").is_err() {
            assert!(
                a.send(at("::1", &b), None, None, b"hello").is_ok(),
                "lost, not failed"
            );
            return;
        }
        a.send(at("::1", &b), Some("::1".parse().unwrap()), None, b"hello")
            .unwrap();
        let to = Some("::1".parse().unwrap());
        assert_eq!(receive(&mut b, 1), [(at("::1", &a), to, b"hello".to_vec())]);
    }

    #[test]
    fn the_source_address_is_the_one_asked_for() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        let from = "127.0.0.2".parse().unwrap();
        a.send(at("127.0.0.1", &b), Some(from), None, b"hello")
            .unwrap();
        assert_eq!(receive(&mut b, 1)[0].0, at("127.0.0.2", &a));
    }

    #[test]
    fn a_burst_arrives_as_its_datagrams() {
        for segmentation in [true, false] {
            let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
            a.segmentation &= segmentation;
            // More than one call takes, and a short one at the end.
            let contents: Vec<u8> = (0..100 * 1000 + 10).map(|i| (i / 1000) as u8).collect();
            a.send(at("127.0.0.1", &b), None, Some(1000), &contents)
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
            assert_eq!(a.counters(), Counters::default());
        }
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_harms_nothing() {
        let (mut a, mut b) = (Socket::open(0).unwrap(), Socket::open(0).unwrap());
        let to = at("127.0.0.1", &b);
        a.send(to, Some("192.0.2.1".parse().unwrap()), None, b"not ours")
            .unwrap();
        assert_eq!(
            a.counters(),
            Counters {
                unreachable: 1,
                ..Counters::default()
            }
        );
        a.send(to, None, None, &vec![0; 70_000]).unwrap();
        assert_eq!(a.counters().too_big, 1);
        // Nobody there: the answer is an ICMP error, which must not spoil the next datagram.
        let nobody = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        a.send(nobody, None, None, b"anybody?").unwrap();
        a.send(to, None, None, b"hello").unwrap();
        assert_eq!(receive(&mut b, 1)[0].2, b"hello");
        assert_eq!(a.recv(|_, _, _| ()).unwrap(), 0);
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let taken = Socket::open(0).unwrap();
        let error = Socket::open(taken.port().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}
