//! lc0 of a guest without a namespace: a socket pair in place of the kernel's sockets.
//!
//! ```text
//! node of the guest ── IPv6 packets, a pair of datagram sockets ── this process: MLD, queues by port
//!                                                                  and group
//! ```
//!
//! `LCROUTE_GUEST_FD=FD,ADDRESS,LINK-LOCAL` names the end of this process and the addresses of its
//! lc0. Then [`crate::socket`] and [`crate::listener`] use it, and there is no other interface. A
//! thread reads the pair, so each socket has a queue and a descriptor of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::interface::Interface;
use crate::ipv6::{self, HEADER_LEN, udp_packet};
use crate::mld::{ICMPV6, parse_packet};
use crate::mld_host::MldHost;

/// Environment variable with the descriptor and the addresses.
pub const GUEST_FD: &str = "LCROUTE_GUEST_FD";
/// Name of the interface.
pub const INTERFACE: &str = "lc0";
/// Index of the interface: no kernel has this one.
pub const INDEX: u32 = i32::MAX as u32;
/// MTU of a guest's lc0: the smallest of IPv6.
const MTU: usize = 1_280;
/// Bytes of a buffer for a packet.
const PACKET: usize = 2_048;
/// Bytes that may wait in the queue of a socket. Chosen: as in the kernel's.
const QUEUE: usize = 16 << 20;
/// Longest wait for room in the pair, in milliseconds.
const ROOM_MILLIS: u16 = 200;
/// Bytes of a hop-by-hop header with a Router Alert.
const HOP_BY_HOP: usize = 8;

/// The process's end of the pair.
#[derive(Debug)]
pub struct Pair {
    fd: OwnedFd,
    pub address: Ipv6Addr,
    link_local: Ipv6Addr,
    state: Mutex<State>,
    /// The other side has closed the pair.
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct State {
    host: MldHost,
    /// Sockets in each group.
    members: BTreeMap<Ipv6Addr, usize>,
    sockets: Vec<Weak<Inbox>>,
    listeners: Vec<Weak<Inbox>>,
}

/// The queue of a socket.
#[derive(Debug)]
pub struct Inbox {
    port: u16,
    /// Readable while packets wait, by a byte from `ready`.
    waiting: UnixStream,
    ready: UnixStream,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    groups: BTreeSet<Ipv6Addr>,
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Packets that found no room.
    lost: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pair of this process.
static PAIR: OnceLock<Result<Option<Arc<Pair>>, String>> = OnceLock::new();

/// Returns the pair, if this process has one.
///
/// # Errors
/// The variable is set, and the descriptor is not open: it is for one process alone.
pub fn pair() -> io::Result<Option<&'static Arc<Pair>>> {
    let of_environment = || match GuestPair::take()? {
        Some(given) => Pair::start(given).map(Some),
        None => Ok(None),
    };
    match PAIR.get_or_init(|| of_environment().map_err(|e: io::Error| e.to_string())) {
        Ok(pair) => Ok(pair.as_ref()),
        Err(e) => Err(io::Error::other(format!("{GUEST_FD}: {e}"))),
    }
}

/// Whether the pair of this process is closed: it receives nothing any more.
pub fn is_closed() -> bool {
    let pair = PAIR.get().and_then(|pair| pair.as_ref().ok()?.as_ref());
    pair.is_some_and(|pair| pair.is_closed.load(Ordering::Relaxed))
}

/// An end of a pair, and the addresses of its lc0.
#[derive(Debug)]
pub struct GuestPair {
    /// Datagrams, each an IPv6 packet.
    pub fd: OwnedFd,
    /// The address of lc0.
    pub address: Ipv6Addr,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
}

impl GuestPair {
    /// Takes the pair that this process was given. To be called once, before a socket is opened.
    ///
    /// # Errors
    /// The variable has no such pair.
    pub fn take() -> io::Result<Option<Self>> {
        let Some(text) = std::env::var_os(GUEST_FD) else {
            return Ok(None);
        };
        let bad = || io::Error::other("no descriptor with two addresses");
        let text = text.into_string().map_err(|_| bad())?;
        let (fd, addresses) = text.split_once(',').ok_or_else(bad)?;
        let (address, link_local) = addresses.split_once(',').ok_or_else(bad)?;
        let number: i32 = fd.parse().map_err(|_| bad())?;
        if number <= nix::libc::STDERR_FILENO {
            return Err(bad());
        }
        // SAFETY: the number is checked by the next call, and nobody else in this process has it
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        // programs that this one starts would take its packets
        if let Err(e) = fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            std::mem::forget(fd);
            return Err(io::Error::other(format!(
                "{e}: without a user namespace a guest carries one program, and none that it starts"
            )));
        }
        let address = address.parse().map_err(|_| bad())?;
        let link_local = link_local.parse().map_err(|_| bad())?;
        Ok(Some(Self {
            fd,
            address,
            link_local,
        }))
    }

    /// Has the sockets of this process use it. To be called once, before one is opened.
    ///
    /// # Errors
    /// This process uses another one.
    pub fn set(self) -> io::Result<()> {
        let pair = Pair::start(self)?;
        let set = PAIR.set(Ok(Some(pair)));
        set.map_err(|_| io::ErrorKind::AlreadyExists.into())
    }
}

impl Pair {
    fn start(given: GuestPair) -> io::Result<Arc<Self>> {
        let pair = Arc::new(Self::new(given.fd, given.address, given.link_local));
        let read = Arc::clone(&pair);
        thread::Builder::new()
            .name("lc0".into())
            .spawn(move || read.read())?;
        Ok(pair)
    }

    fn new(fd: OwnedFd, address: Ipv6Addr, link_local: Ipv6Addr) -> Self {
        Self {
            fd,
            address,
            link_local,
            state: Mutex::new(State {
                host: MldHost::new(link_local, MTU),
                members: BTreeMap::new(),
                sockets: Vec::new(),
                listeners: Vec::new(),
            }),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Returns lc0.
    pub fn interface(&self) -> Interface {
        Interface {
            index: INDEX,
            name: INTERFACE.to_owned(),
            up: true,
            multicast: true,
            addresses: [self.address, self.link_local].into(),
        }
    }

    /// Reads packets until the guest is gone.
    fn read(&self) {
        let mut buffer = [0; PACKET];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                // the end of a SOCK_SEQPACKET
                Ok(0) | Err(_) => {
                    self.is_closed.store(true, Ordering::Relaxed);
                    return;
                }
                Ok(length) => self.handle(buffer.get(..length).unwrap_or_default()),
            }
        }
    }

    /// Hands a packet of the guest to the sockets that it is for.
    fn handle(&self, packet: &[u8]) {
        if packet.get(6) != Some(&0) {
            self.deliver(packet);
            return;
        }
        let mut state = lock(&self.state);
        for report in state.host.answer(packet) {
            // the next query has it
            let _ = self.send(&report);
        }
        let is_mld = packet.get(HEADER_LEN) == Some(&ICMPV6);
        if let (true, Some(message)) = (is_mld, packet.get(HEADER_LEN + HOP_BY_HOP..)) {
            let source = packet.get(8..24).unwrap_or_default();
            let hop_limit = packet.get(ipv6::HOP_LIMIT_AT..=ipv6::HOP_LIMIT_AT);
            let told = [source, hop_limit.unwrap_or_default(), message].concat();
            // checksum and form
            if parse_packet(packet).is_ok() {
                state.listeners.retain(|inbox| push_to(inbox, &told));
            }
        }
    }

    /// Hands a datagram to the sockets of its port and group.
    fn deliver(&self, packet: &[u8]) {
        let Some(datagram) = ipv6::Datagram::of_packet(packet) else {
            return;
        };
        let Some(group) = address(packet, 24).filter(Ipv6Addr::is_multicast) else {
            return;
        };
        let addresses = packet.get(8..HEADER_LEN).unwrap_or_default();
        let told = [addresses, datagram.data].concat();
        let mut state = lock(&self.state);
        state.sockets.retain(|inbox| match inbox.upgrade() {
            Some(inbox) => {
                if inbox.port == datagram.destination_port
                    && lock(&inbox.queue).groups.contains(&group)
                {
                    inbox.push(&told);
                }
                true
            }
            None => false,
        });
    }

    /// Sends a packet; waits a moment for room.
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            match send(self.fd.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => {
                    let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut fds, PollTimeout::from(ROOM_MILLIS)) == Ok(0) {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends a datagram to a group, and to the sockets of this process in it, as kernels do.
    pub fn send_datagram(
        &self,
        group: Ipv6Addr,
        (port, hop_limit): (u16, u8),
        data: &[u8],
    ) -> io::Result<()> {
        if HEADER_LEN + 8 + data.len() > MTU {
            return Err(nix::Error::EMSGSIZE.into());
        }
        let packet = udp_packet(self.address, group, (port, hop_limit), data);
        self.deliver(&packet);
        self.send(&packet)
    }

    /// Sends a message of MLD.
    pub fn send_mld(&self, source: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> io::Result<()> {
        self.send(&crate::mld::packet(source, to, message))
    }

    /// Opens a queue for datagrams to a port.
    pub fn open(&self, port: u16) -> io::Result<Arc<Inbox>> {
        let inbox = Inbox::new(port)?;
        lock(&self.state).sockets.push(Arc::downgrade(&inbox));
        Ok(inbox)
    }

    /// Opens a queue for messages of MLD: the source, the hop limit, and ICMPv6.
    pub fn open_mld(&self) -> io::Result<Arc<Inbox>> {
        let inbox = Inbox::new(0)?;
        lock(&self.state).listeners.push(Arc::downgrade(&inbox));
        Ok(inbox)
    }

    /// Joins a group on a socket.
    pub fn join(&self, inbox: &Inbox, group: Ipv6Addr) -> io::Result<()> {
        if !lock(&inbox.queue).groups.insert(group) {
            return Ok(());
        }
        let mut state = lock(&self.state);
        let members = state.members.entry(group).or_insert(0);
        *members += 1;
        if *members > 1 {
            return Ok(());
        }
        let reports = state.host.join(group);
        if reports.is_empty() {
            state.members.remove(&group);
            drop(state);
            lock(&inbox.queue).groups.remove(&group);
            return Err(nix::Error::ENOBUFS.into());
        }
        reports.iter().try_for_each(|report| self.send(report))
    }

    /// Leaves a group on a socket.
    pub fn leave(&self, inbox: &Inbox, group: Ipv6Addr) {
        if lock(&inbox.queue).groups.remove(&group) {
            self.left(group);
        }
    }

    fn left(&self, group: Ipv6Addr) {
        let mut state = lock(&self.state);
        if let Some(members) = state.members.get_mut(&group) {
            *members -= 1;
            if *members == 0 {
                state.members.remove(&group);
                for report in state.host.leave(group) {
                    // lost if the guest is gone
                    let _ = self.send(&report);
                }
            }
        }
    }

    /// Leaves all groups of a socket.
    pub fn leave_all(&self, inbox: &Inbox) {
        let groups = std::mem::take(&mut lock(&inbox.queue).groups);
        groups.into_iter().for_each(|group| self.left(group));
    }
}

impl Inbox {
    pub fn new(port: u16) -> io::Result<Arc<Self>> {
        let (waiting, ready) = UnixStream::pair()?;
        waiting.set_nonblocking(true)?;
        ready.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            port,
            waiting,
            ready,
            queue: Mutex::default(),
        }))
    }

    fn push(&self, packet: &[u8]) {
        let mut queue = lock(&self.queue);
        if queue.bytes + packet.len() > QUEUE {
            queue.lost = queue.lost.saturating_add(1);
            return;
        }
        queue.bytes += packet.len();
        queue.packets.push_back(packet.to_vec());
        if queue.packets.len() == 1 {
            // readable until it is empty
            let _ = (&self.ready).write(&[0]);
        }
    }

    /// Takes the next packet.
    pub fn pop(&self) -> Option<Vec<u8>> {
        let mut queue = lock(&self.queue);
        let packet = queue.packets.pop_front();
        queue.bytes -= packet.as_ref().map_or(0, Vec::len);
        if queue.packets.is_empty() {
            let _ = (&self.waiting).read(&mut [0]);
        }
        packet
    }

    /// Takes the number of packets that found no room.
    pub fn take_lost(&self) -> u32 {
        std::mem::take(&mut lock(&self.queue).lost)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}

fn push_to(inbox: &Weak<Inbox>, packet: &[u8]) -> bool {
    inbox.upgrade().is_some_and(|inbox| {
        inbox.push(packet);
        true
    })
}

/// Returns the address at this place of a packet.
pub fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::mld::{Query, RecordType, query_packet};

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 7);
    const PORT: u16 = 14_242;

    fn pair() -> (Pair, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags);
        let (own, guest) = made.unwrap();
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        (Pair::new(own, OWN, link_local), guest)
    }

    /// Returns the packets that the guest has received.
    fn sent(guest: &OwnedFd) -> Option<Vec<u8>> {
        let mut buffer = [0; PACKET];
        let length = recv(guest.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        Some(buffer[..length].to_vec())
    }

    fn change(guest: &OwnedFd) -> Option<(RecordType, Ipv6Addr)> {
        match parse_packet(&sent(guest)?) {
            Ok((_, crate::mld::Message::Report(records))) => {
                Some((records[0].kind, records[0].group))
            }
            other => panic!("{other:?}"),
        }
    }

    fn is_readable(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn joins_are_reported_once_and_datagrams_come_by_port_and_group() {
        let (pair, guest) = pair();
        let [one, other] = [PORT, PORT].map(|port| pair.open(port).unwrap());
        let elsewhere = pair.open(PORT + 1).unwrap();
        for inbox in [&one, &other, &elsewhere, &one] {
            pair.join(inbox, GROUP).unwrap();
        }
        assert_eq!(change(&guest), Some((RecordType::ChangeToExclude, GROUP)));
        assert_eq!(sent(&guest), None, "one report for all");
        pair.handle(&udp_packet(OTHER, GROUP, (PORT, 8), b"hello"));
        let expected = [&OTHER.octets()[..], &GROUP.octets(), b"hello"].concat();
        for inbox in [&one, &other] {
            assert!(is_readable(inbox));
            assert_eq!(inbox.pop().as_ref(), Some(&expected));
            assert!(!is_readable(inbox));
        }
        assert_eq!(elsewhere.pop(), None);
        pair.leave(&one, GROUP);
        pair.handle(&udp_packet(OTHER, GROUP, (PORT, 8), b"again"));
        assert_eq!(one.pop(), None);
        assert!(other.pop().is_some());
        // its own packets come back, too, as from a kernel
        pair.send_datagram(GROUP, (PORT, 8), b"own").unwrap();
        let packet = sent(&guest).unwrap();
        assert_eq!(ipv6::Datagram::of_packet(&packet).unwrap().data, b"own");
        assert_eq!(other.pop().unwrap()[..16], OWN.octets());
        pair.leave_all(&other);
        assert_eq!(sent(&guest), None, "one is left");
        pair.leave_all(&elsewhere);
        assert_eq!(change(&guest), Some((RecordType::ChangeToInclude, GROUP)));
        assert!(pair.send_datagram(GROUP, (PORT, 8), &[0; MTU]).is_err());
    }

    #[test]
    fn a_pair_whose_other_side_is_gone_is_closed() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let made = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
        let (own, other) = made.unwrap();
        let pair = Pair::new(own, OWN, OTHER);
        // less than a packet is no end
        send(other.as_raw_fd(), &[1], MsgFlags::empty()).unwrap();
        assert!(!pair.is_closed.load(Ordering::Relaxed));
        drop(other);
        pair.read();
        assert!(pair.is_closed.load(Ordering::Relaxed));
    }

    #[test]
    fn queries_are_answered_and_handed_to_listeners_and_garbage_is_nothing() {
        let (pair, guest) = pair();
        let inbox = pair.open(PORT).unwrap();
        let listener = pair.open_mld().unwrap();
        pair.join(&inbox, GROUP).unwrap();
        change(&guest).unwrap();
        let query = Query {
            max_response: std::time::Duration::from_secs(1),
            group: None,
            suppress_router_processing: false,
            robustness: 2,
            query_interval: std::time::Duration::from_secs(125),
            sources: Vec::new(),
            truncated: false,
            version_1: false,
        };
        let packet = query_packet(ROUTER, &query);
        pair.handle(&packet);
        assert_eq!(change(&guest), Some((RecordType::ModeIsExclude, GROUP)));
        let told = listener.pop().unwrap();
        assert_eq!((&told[..16], told[16]), (&ROUTER.octets()[..], 1));
        assert_eq!(told[17..], packet[HEADER_LEN + HOP_BY_HOP..]);
        let udp = udp_packet(OTHER, GROUP, (PORT, 8), b"hello");
        for packet in [packet, udp] {
            for length in 0..packet.len() {
                pair.handle(&packet[..length]);
            }
        }
        assert_eq!((listener.pop(), inbox.pop()), (None, None));
        drop(guest);
        assert!(pair.send_datagram(GROUP, (PORT, 8), b"gone").is_err());
    }

    #[test]
    fn a_queue_is_bounded_and_counts_what_it_lost() {
        let inbox = Inbox::new(PORT).unwrap();
        for _ in 0..20 {
            inbox.push(&vec![0; 1 << 20]);
        }
        assert_eq!((inbox.take_lost(), inbox.take_lost()), (4, 0));
        assert_eq!(std::iter::from_fn(|| inbox.pop()).count(), 16);
        assert!(!is_readable(&inbox));
    }
}
