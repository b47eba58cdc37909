//! A hub between lc0 of a guest and several programs, each with a socket pair of its own.
//!
//! ```text
//! node of the guest ── lc0 ── hub ──┬── lcgroup carry
//!                                   ├── lcsync, for files of the group
//!                                   └── lcradio, for a user's call
//! ```
//!
//! Towards the node the hub is one host: it joins what any program has joined, answers the node's
//! queries itself, and leaves for programs that were killed. Programs do not hear each other.
//!
//! The hub's first datagram on a port is one byte: whether the port is open, or all are in use.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use librecast::ipv6::HEADER_LEN;
use librecast::mld::{Message, Record, RecordType, parse_packet};
use librecast::mld_host::{MAX_GROUPS, MldHost};
use librecast::socket::GUEST_FD;
use librecast_program::group_network::keep_open;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockFlag, SockType,
    recv, send, sendmsg, setsockopt, socketpair, sockopt,
};

/// Bytes of a buffer for a packet: more than the MTU of lc0.
pub const MAX_PACKET: usize = 2_048;
/// Bytes of packets that wait in a pair, each way.
const BUFFER: usize = 1 << 20;
/// Programs at a time: lcgroup's own, one that serves files, two that fetch, and calls. Chosen.
pub const MAX_PORTS: usize = 16;
/// First datagram of the hub on a port: shorter than any packet.
const OPEN: [u8; 1] = [1];
/// The same where all ports are in use.
const FULL: [u8; 1] = [0];
/// Longest wait for the first datagram, in milliseconds. Chosen: `lcgroup carry` answers at once.
const OPEN_MILLIS: u16 = 2_000;
/// MTU of a guest's lc0.
const MTU: usize = 1_280;
/// Place of the next header in a packet.
const NEXT_HEADER_AT: usize = 6;
/// Next header of a packet with hop-by-hop options, as MLD has.
const HOP_BY_HOP: u8 = 0;
/// Packets read from one program in a turn.
const AT_ONCE: usize = 64;
/// Longest wait for room towards the node, in milliseconds.
const ROOM_MILLIS: u16 = 200;

/// The groups of all programs, and reports on them to the node.
#[derive(Debug)]
struct Groups {
    host: MldHost,
    /// Groups that each program has joined, by its port.
    joined: Vec<BTreeSet<Ipv6Addr>>,
}

impl Groups {
    fn new(link_local: Ipv6Addr) -> Self {
        Self {
            host: MldHost::new(link_local, MTU),
            joined: Vec::new(),
        }
    }

    fn open(&mut self) {
        self.joined.push(BTreeSet::new());
    }

    /// Ends a port; returns reports to the node.
    fn close(&mut self, port: usize) -> Vec<Vec<u8>> {
        let groups = self.joined.remove(port);
        groups
            .into_iter()
            .flat_map(|group| self.left(group))
            .collect()
    }

    /// Handles a packet of a program; returns packets to the node.
    fn packet_of_program(&mut self, port: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        let records = match packet.get(NEXT_HEADER_AT) {
            Some(&HOP_BY_HOP) => match parse_packet(packet) {
                Ok((_, Message::Report(records))) => records,
                _ => return vec![packet.to_vec()],
            },
            _ => return vec![packet.to_vec()],
        };
        let mut told = Vec::new();
        for Record {
            kind,
            group,
            sources,
            ..
        } in records
        {
            let Some(joined) = self.joined.get_mut(port) else {
                break;
            };
            match (kind, sources.is_empty()) {
                (RecordType::ModeIsInclude | RecordType::ChangeToInclude, true) => {
                    let left = joined.remove(&group).then(|| self.left(group));
                    told.extend(left.into_iter().flatten());
                }
                (RecordType::BlockOldSources, _) => {}
                // bounded as the host's own
                _ if joined.len() < MAX_GROUPS && joined.insert(group) => {
                    told.extend(self.host.join(group));
                }
                _ => {}
            }
        }
        told
    }

    fn left(&mut self, group: Ipv6Addr) -> Vec<Vec<u8>> {
        match self.joined.iter().any(|joined| joined.contains(&group)) {
            true => Vec::new(),
            false => self.host.leave(group),
        }
    }

    /// Answers a query of the node.
    fn answer(&self, packet: &[u8]) -> Vec<Vec<u8>> {
        match packet.get(NEXT_HEADER_AT) {
            Some(&HOP_BY_HOP) => self.host.answer(packet),
            _ => Vec::new(),
        }
    }

    /// Whether a packet of the node is for this program.
    fn is_for(&self, port: usize, packet: &[u8]) -> bool {
        let to = packet.get(24..HEADER_LEN);
        let to = to.and_then(|to| <[u8; 16]>::try_from(to).ok());
        let Some(to) = to.map(Ipv6Addr::from) else {
            return false;
        };
        // queries, and reports of others, go to groups that nobody joins
        let is_for_all = packet.get(NEXT_HEADER_AT) == Some(&HOP_BY_HOP) || !to.is_multicast();
        is_for_all || { self.joined.get(port) }.is_some_and(|joined| joined.contains(&to))
    }
}

/// The way to add programs to a hub that runs.
#[derive(Debug, Clone)]
pub struct Ports {
    new: Arc<Mutex<Vec<OwnedFd>>>,
    wake: Arc<EventFd>,
}

impl Ports {
    /// Adds a program by the hub's end of its pair.
    pub fn add(&self, port: OwnedFd) {
        self.new
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(port);
        // a full counter wakes as well
        let _ = self.wake.write(1);
    }
}

/// Returns a pair: the hub's end, and the program's.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    for end in [&ours, &theirs] {
        // the system may permit less
        let _ = setsockopt(end, sockopt::SndBuf, &BUFFER);
    }
    Ok((ours, theirs))
}

/// Returns the descriptor that comes with a message, for this process alone.
pub fn descriptor(message: &RecvMsg<'_, '_, ()>) -> nix::Result<Option<OwnedFd>> {
    let mut last = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(given) = control {
            for fd in given {
                // SAFETY: the kernel has opened it for this process alone
                last = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok(last)
}

/// Has a program speak by a port, which must be open until it has started. `addresses` are those
/// in [`Lc0`].
pub fn lead(command: &mut Command, port: BorrowedFd<'_>, addresses: (Ipv6Addr, Ipv6Addr)) {
    let (number, (address, link_local)) = (port.as_raw_fd(), addresses);
    command.env(GUEST_FD, format!("{number},{address},{link_local}"));
    // SAFETY: the caller keeps it open until the child has executed its program
    let open = move || keep_open(unsafe { BorrowedFd::borrow_raw(number) }, true);
    // SAFETY: between fork and exec; makes system calls only, and allocates nothing
    unsafe { command.pre_exec(open) };
}

/// lc0 of a guest that runs, for programs of `lcgroup run` and of its users.
#[derive(Debug, Clone)]
pub struct Lc0 {
    /// The socket to `lcgroup carry`.
    pub packets: Arc<OwnedFd>,
    /// Its address, and the link-local one.
    pub addresses: (Ipv6Addr, Ipv6Addr),
    /// The number of the guest's start.
    pub run: u64,
}

impl Lc0 {
    /// Has a program speak on it. The returned descriptor must be open until it has started.
    pub fn give(&self, command: &mut Command) -> io::Result<OwnedFd> {
        let port = self.open()?;
        lead(command, port.as_fd(), self.addresses);
        Ok(port)
    }

    /// Opens a port of the hub, and returns the program's end. Waits for the hub's answer.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair()?;
        let rights = [ours.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let text = [IoSlice::new(b"port")];
        let sent = sendmsg::<()>(self.packets.as_raw_fd(), &text, &rights, flags, None);
        sent.map_err(|e| {
            io::Error::other(format!("the group's network takes no program now: {e}"))
        })?;
        // the hub alone has it now, so its end is seen
        drop(ours);
        await_open(&theirs)?;
        Ok(theirs)
    }
}

/// Reads the hub's first datagram on a port.
fn await_open(port: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
    let ready = loop {
        match poll(&mut fds, PollTimeout::from(OPEN_MILLIS)) {
            Err(Errno::EINTR) => {}
            ready => break ready?,
        }
    };
    if ready == 0 {
        return Err(io::Error::other("the group's network does not answer"));
    }
    let mut first = [0; 1];
    let length = recv(port.as_raw_fd(), &mut first, MsgFlags::MSG_DONTWAIT)?;
    match (length, first) {
        (1, OPEN) => Ok(()),
        (1, FULL) => Err(io::Error::other(format!(
            "all {MAX_PORTS} places for programs in the group's network are in use: end a call, or wait until files have come"
        ))),
        _ => Err(io::Error::other("the group's network has ended")),
    }
}

/// Starts a hub on a thread of its own, between the node's pair and programs.
pub fn start(node: OwnedFd, link_local: Ipv6Addr) -> io::Result<Ports> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let ports = Ports {
        new: Arc::default(),
        wake: Arc::new(EventFd::from_flags(flags)?),
    };
    let hub = Hub {
        node,
        groups: Groups::new(link_local),
        programs: Vec::new(),
        ports: ports.clone(),
    };
    thread::Builder::new()
        .name("hub".into())
        .spawn(move || hub.run())?;
    Ok(ports)
}

struct Hub {
    node: OwnedFd,
    groups: Groups,
    /// The hub's ends, by port.
    programs: Vec<OwnedFd>,
    ports: Ports,
}

impl Hub {
    /// Passes packets on until the process ends.
    fn run(mut self) {
        let mut buffer = [0; MAX_PACKET];
        loop {
            let wake = Arc::clone(&self.ports.wake);
            let all = [self.node.as_fd(), wake.as_fd()].into_iter();
            let all = all.chain(self.programs.iter().map(AsFd::as_fd));
            let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => {
                    tracing::error!("hub: {e}");
                    return;
                }
            }
            let readable = |at: usize| fds.get(at).is_some_and(|fd| fd.any() == Some(true));
            let is_node = readable(0);
            let programs = 0..self.programs.len();
            let programs: Vec<_> = programs.filter(|at| readable(at + 2)).collect();
            let _ = wake.read();
            if is_node {
                self.read_node(&mut buffer);
            }
            // from the last one on, as ports move up behind one that ends
            for port in programs.into_iter().rev() {
                self.read_program(port, &mut buffer);
            }
            self.open_ports();
        }
    }

    fn open_ports(&mut self) {
        let new = &mut *self
            .ports
            .new
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for port in new.drain(..) {
            let is_open = self.programs.len() < MAX_PORTS;
            let first = if is_open { OPEN } else { FULL };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // its program may have gone already
            let _ = send(port.as_raw_fd(), &first, flags);
            if is_open {
                self.programs.push(port);
                self.groups.open();
            }
        }
    }

    fn read_node(&self, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let length = match recv(self.node.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            let packet = buffer.get(..length).unwrap_or_default();
            for (port, program) in self.programs.iter().enumerate() {
                if self.groups.is_for(port, packet) {
                    // a program that is too slow loses packets, as with a device
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    let _ = send(program.as_raw_fd(), packet, flags);
                }
            }
            self.tell_node(&self.groups.answer(packet));
        }
    }

    fn read_program(&mut self, port: usize, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let Some(program) = self.programs.get(port) else {
                return;
            };
            match recv(program.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Ok(length) if length > 0 => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    let told = self.groups.packet_of_program(port, packet);
                    self.tell_node(&told);
                }
                _ => {
                    self.programs.remove(port);
                    let told = self.groups.close(port);
                    self.tell_node(&told);
                    return;
                }
            }
        }
    }

    /// Sends packets to the node; waits a moment for room.
    fn tell_node(&self, packets: &[Vec<u8>]) {
        for packet in packets {
            while let Err(e) = send(self.node.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT) {
                let mut fds = [PollFd::new(self.node.as_fd(), PollFlags::POLLOUT)];
                let waited = match e {
                    Errno::EINTR => continue,
                    Errno::EAGAIN => poll(&mut fds, PollTimeout::from(ROOM_MILLIS)),
                    e => Err(e),
                };
                // lost; receivers repair it
                if !matches!(waited, Ok(1..)) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use librecast::ipv6::udp_packet;
    use librecast::mld::{Query, query_packet};

    use super::*;

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    fn told(packets: &[Vec<u8>]) -> Vec<(RecordType, Ipv6Addr)> {
        let records = packets.iter().map(|packet| match parse_packet(packet) {
            Ok((OWN, Message::Report(records))) => records,
            other => panic!("{other:?}"),
        });
        records.flatten().map(|r| (r.kind, r.group)).collect()
    }

    /// A program's host, and its reports.
    fn program() -> MldHost {
        MldHost::new(OWN, MTU)
    }

    #[test]
    fn the_node_sees_one_host_whatever_programs_join_and_leave() {
        let mut groups = Groups::new(OWN);
        let (mut one, mut other) = (program(), program());
        groups.open();
        groups.open();
        let joined = one.join(group(1)).concat();
        let joined = groups.packet_of_program(0, &joined);
        assert_eq!(told(&joined), [(RecordType::ChangeToExclude, group(1))]);
        for n in [1, 2] {
            let joined = other.join(group(n)).concat();
            assert_eq!(
                groups.packet_of_program(1, &joined).len(),
                usize::from(n == 2)
            );
        }
        let left = one.leave(group(1)).concat();
        assert_eq!(groups.packet_of_program(0, &left), Vec::<Vec<u8>>::new());
        let query = Query {
            max_response: Duration::from_secs(1),
            robustness: 2,
            query_interval: Duration::from_secs(125),
            ..Query::default()
        };
        let query = query_packet(ROUTER, &query);
        let state = |n| (RecordType::ModeIsExclude, group(n));
        assert_eq!(told(&groups.answer(&query)), [state(1), state(2)]);
        // a program's own answer is no news, and it sees the query
        assert!(groups.is_for(0, &query));
        let answer = other.answer(&query).concat();
        assert!(groups.packet_of_program(1, &answer).is_empty());
        // the other one was killed
        let left = |n| (RecordType::ChangeToInclude, group(n));
        assert_eq!(told(&groups.close(1)), [left(1), left(2)]);
        assert!(groups.answer(&query).is_empty());
    }

    #[test]
    fn packets_go_to_who_joined_and_garbage_goes_nowhere() {
        let mut groups = Groups::new(OWN);
        groups.open();
        groups.open();
        groups.packet_of_program(1, &program().join(group(1)).concat());
        let packet = udp_packet(OTHER, group(1), (7, 8), b"hello");
        assert_eq!(
            [0, 1].map(|port| groups.is_for(port, &packet)),
            [false, true]
        );
        let straight = udp_packet(OTHER, OTHER, (7, 8), b"hello");
        assert!(groups.is_for(0, &straight));
        assert_eq!(
            groups.packet_of_program(0, &packet),
            std::slice::from_ref(&packet)
        );
        for length in 0..HEADER_LEN {
            assert!(!groups.is_for(1, &packet[..length]));
            assert!(groups.answer(&packet[..length]).is_empty());
        }
        // more than a host has
        let mut all = program();
        for n in 0..2 * MAX_GROUPS as u16 {
            let joined = all.join(group(n)).concat();
            groups.packet_of_program(0, &joined);
        }
        assert!(groups.joined[0].len() <= MAX_GROUPS);
    }

    #[test]
    fn a_program_that_ends_leaves_its_groups() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let node = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags);
        let (node, hubs) = node.unwrap();
        let ports = start(hubs, OWN).unwrap();
        let mut buffer = [0; MAX_PACKET];
        let mut hear = || {
            let length = recv(node.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            buffer[..length].to_vec()
        };
        let (ours, theirs) = pair().unwrap();
        ports.add(ours);
        await_open(&theirs).unwrap();
        for packet in program().join(group(1)) {
            send(theirs.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
        }
        assert_eq!(told(&[hear()]), [(RecordType::ChangeToExclude, group(1))]);
        let packet = udp_packet(OTHER, group(1), (7, 8), b"hello");
        send(node.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
        let mut got = [0; MAX_PACKET];
        let length = recv(theirs.as_raw_fd(), &mut got, MsgFlags::empty()).unwrap();
        assert_eq!(got[..length], packet);
        drop(theirs);
        assert_eq!(told(&[hear()]), [(RecordType::ChangeToInclude, group(1))]);
    }
}
