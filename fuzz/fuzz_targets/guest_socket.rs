//! The socket pair of a guest without a namespace: any bytes of its node, while a program joins and
//! leaves. A datagram to a joined group and port comes, nothing else does, and all that leaves is
//! whole.
#![no_main]

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lcroute_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use librecast::ipv6::{Datagram, udp_packet};
use librecast::listener::MldListener;
use librecast::mld::{self, Message, Query, Record, RecordType};
use librecast::socket::{GUEST_FD, ReceiveSockets, SendSocket};

const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
/// Port of the first socket; the second has the next one.
const PORT: u16 = 14_242;
/// Port and group of what is sent behind all else.
const MARKER: (u16, Ipv6Addr) = (9, Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 9, 9));
/// Time after which the reader of the pair counts as dead.
const DEAF: Duration = Duration::from_secs(5);

/// The node's end.
static NODE: OnceLock<UnixDatagram> = OnceLock::new();

fn init() {
    lcroute_fuzz::seeds::write("guest_socket");
    let (node, program) = UnixDatagram::pair().expect("a socket pair");
    node.set_nonblocking(true).expect("a flag");
    let value = format!("{},{OWN},{LINK_LOCAL}", program.into_raw_fd());
    // SAFETY: the process has one thread
    unsafe { std::env::set_var(GUEST_FD, value) };
    NODE.set(node).expect("once");
}

fn group(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, u16::from(n % 8))
}

/// Writes a packet of the node; a full queue makes room soon.
fn write(node: &UnixDatagram, packet: &[u8]) {
    while let Err(e) = node.send(packet) {
        if e.kind() != std::io::ErrorKind::WouldBlock {
            return;
        }
        std::thread::yield_now();
    }
}

/// Reads all that the program has sent.
fn drain(node: &UnixDatagram) {
    let mut buffer = [0; 2_048];
    while let Ok(length) = node.recv(&mut buffer) {
        let packet = &buffer[..length];
        let reports = mld::parse_packet(packet).is_ok_and(|(_, m)| matches!(m, Message::Report(_)));
        assert!(reports || Datagram::of_packet(packet).is_some(), "{packet:02x?}");
    }
}

/// A socket of the program, and what must come there.
struct Socket {
    port: u16,
    socket: ReceiveSockets,
    groups: BTreeSet<Ipv6Addr>,
    expected: VecDeque<(Ipv6Addr, Vec<u8>)>,
}

impl Socket {
    fn open(port: u16) -> Self {
        let socket = ReceiveSockets::open(port).expect("a socket");
        Self { port, socket, groups: BTreeSet::new(), expected: VecDeque::new() }
    }

    fn expect(&mut self, port: u16, group: Ipv6Addr, data: &[u8]) {
        if port == self.port && self.groups.contains(&group) && !data.is_empty() {
            self.expected.push_back((group, data.to_vec()));
        }
    }

    fn receive(&mut self) {
        let Self { socket, groups, expected, .. } = self;
        let more = socket.receive(|datagram| {
            assert!(groups.contains(&datagram.group), "{datagram:?}");
            let came = (datagram.group, datagram.payload.to_vec());
            // bytes of the input may be a datagram as well
            if expected.front() == Some(&came) {
                expected.pop_front();
            }
        });
        assert!(!more.expect("a queue"));
    }
}

/// Waits until the program has all that the node has sent.
fn settle(node: &UnixDatagram, marker: &mut ReceiveSockets, sockets: &mut [Socket]) {
    write(node, &udp_packet(OTHER, MARKER.1, (MARKER.0, 1), b"marker"));
    let begun = Instant::now();
    let mut came = false;
    while !came {
        marker.receive(|datagram| came |= datagram.payload == b"marker").expect("a queue");
        assert!(begun.elapsed() < DEAF, "nothing comes any more");
        std::thread::yield_now();
    }
    sockets.iter_mut().for_each(Socket::receive);
    drain(node);
}

fuzz_target!(init: init(), |data: &[u8]| {
    let node = NODE.get().expect("the pair");
    let mut marker = ReceiveSockets::open(MARKER.0).expect("a socket");
    marker.join(MARKER.1, 0).expect("a group");
    let mut listener = MldListener::open().expect("a socket");
    let mut sockets = [PORT, PORT + 1].map(Socket::open);
    for piece in pieces(data).take(64) {
        let Some(([kind, n], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        let (port, group) = (PORT + u16::from(kind >> 7), group(*n));
        let at = usize::from(kind >> 6 & 1);
        match kind % 8 {
            0 => write(node, bytes),
            1 | 2 => {
                let bytes = &bytes[..bytes.len().min(1_200)];
                write(node, &udp_packet(OTHER, group, (port, 1), bytes));
                sockets.iter_mut().for_each(|socket| socket.expect(port, group, bytes));
            }
            3 => {
                sockets[at].socket.join(group, 0).expect("fewer groups than may be");
                sockets[at].groups.insert(group);
            }
            4 => {
                settle(node, &mut marker, &mut sockets);
                sockets[at].socket.leave(group, 0);
                sockets[at].groups.remove(&group);
            }
            5 => {
                let query = Query {
                    group: (n & 8 == 0).then_some(group),
                    max_response: Duration::from_millis(bytes.len() as u64),
                    suppress_router_processing: n & 16 != 0,
                    robustness: n >> 5,
                    query_interval: Duration::from_secs(bytes.len() as u64),
                    sources: vec![OTHER; bytes.len() % 3],
                    ..Query::default()
                };
                write(node, &mld::query_packet(ROUTER, &query));
            }
            6 => {
                let kind = RecordType::from_code(n % 6 + 1).expect("1 to 6");
                let record = Record::new(kind, group, vec![OTHER; bytes.len() % 3]);
                write(node, &mld::report_packets(ROUTER, &[record], 1_280)[0]);
            }
            _ => {
                let out = SendSocket::open(0, group, port, 1).expect("a socket");
                // its own sockets have it as well, before what waits in the pair
                settle(node, &mut marker, &mut sockets);
                let size = 8 * usize::from(*n).max(8);
                // as many as have room in the pair
                let bytes = &bytes[..bytes.len().min(4 * size)];
                if out.send(group, bytes, size).is_ok() {
                    for part in bytes.chunks(size) {
                        sockets.iter_mut().for_each(|socket| socket.expect(port, group, part));
                    }
                }
            }
        }
        drain(node);
        let mut buffer = [0; 1_500];
        while let Some(message) = listener.receive(&mut buffer).expect("a queue") {
            let _ = mld::parse_message(message.source, &buffer[..message.length]);
        }
    }
    settle(node, &mut marker, &mut sockets);
    for socket in &sockets {
        assert!(socket.expected.is_empty(), "{:?} did not come", socket.expected);
    }
});
