//! The packet sockets of one LAN.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bytes::Bytes;
use lcroute_node::SegmentFrame;
use librecast::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::{ipv4, packet};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
use smallvec::SmallVec;
use socket2::{Socket, Type};

use super::frame::{self, ETHERNET_LEN, Extra, MARK, PACKETS_BUFFER, Wanted};
use super::programs::Programs;
use crate::tun::coalesce::{self, MAX_PACKETS, Runs};
use crate::tun::offload::{IPV6_LEN, OFFLOAD_LEN, Offload};
use crate::tun::packets::Packets;

/// Bytes before a packet.
const HEAD: usize = OFFLOAD_LEN + ETHERNET_LEN;
/// Longest read in bytes: the kernel coalesces datagrams of a flow up to 64 KiB.
const LONGEST: usize = HEAD + 65_575;
/// Most frames read in one system call.
const FRAMES: usize = 16;
/// Buffer in bytes: reports of some 10,000 simultaneous joins.
const CONTROL_BUFFER: usize = 4 << 20;

/// The sockets of an interface.
#[derive(Debug)]
pub struct LanSocket {
    ipv6: Pair,
    /// Only if IPv4 groups are carried, or in a segment.
    ipv4: Option<Pair>,
    /// Only in a segment.
    arp: Option<Socket>,
    /// Only in a segment, if the kernel supports them.
    programs: Option<Programs>,
    interface: u32,
    extra: Extra,
    /// The Ethernet address for hosts elsewhere, while this gateway serves the LAN of a segment.
    virtual_mac: Option<MacAddress>,
    inbox: Inbox,
    outlet: Outlet,
    runs: Runs<Way>,
}

/// The sockets of IPv6, or of IPv4: a socket's protocol is that of all packets that leave by it.
#[derive(Debug)]
struct Pair {
    /// Packets in and out.
    packets: Socket,
    /// MLD and PROBEs in, or IGMP.
    control: Socket,
}

/// Buffers for received frames.
#[derive(Debug)]
struct Inbox {
    frames: [Vec<u8>; FRAMES],
    packets: Packets,
    /// Frames that do not fit their offload header.
    bad_offload: u64,
}

/// Ethernet addresses of queued packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the group of the packet, with hop limit 1, from this interface.
    Group,
    /// Unchanged, from one Ethernet address to another.
    Frame { to: MacAddress, from: MacAddress },
}

/// State for sending frames.
#[derive(Debug)]
struct Outlet {
    own: MacAddress,
    /// Whether the kernel accepts super-packets.
    super_packets: bool,
    /// Packets that the kernel refused.
    failed: u64,
}

impl LanSocket {
    /// Opens the sockets on an interface with this Ethernet address; needs CAP_NET_RAW.
    pub fn open(interface: u32, own: MacAddress, extra: Extra) -> io::Result<Self> {
        let open = |wanted, buffer, protocol| -> io::Result<Socket> {
            let socket = packet::open(Type::RAW, &frame::filter(wanted, own), buffer)?;
            packet::set_offload_header(&socket)?;
            if extra.segment {
                socket.set_mark(MARK)?;
            }
            packet::bind_protocol(&socket, Some(interface), protocol)?;
            Ok(socket)
        };
        let pair = |packets, control, protocol| -> io::Result<Pair> {
            Ok(Pair {
                packets: open(packets, PACKETS_BUFFER, protocol)?,
                control: open(control, CONTROL_BUFFER, protocol)?,
            })
        };
        let [of_ipv6, of_ipv4] = extra.packets(None);
        let ipv6 = pair(of_ipv6, Wanted::Control, libc::ETH_P_IPV6)?;
        let ipv4 = || pair(of_ipv4, Wanted::Ipv4Control, libc::ETH_P_IP);
        let ipv4 = extra.ipv4.then(ipv4).transpose()?;
        let arp = || open(Wanted::Arp(None), CONTROL_BUFFER, libc::ETH_P_ARP);
        let arp = extra.segment.then(arp).transpose()?;
        packet::set_all_multicast(&ipv6.packets, interface, true)?;
        Ok(Self {
            ipv6,
            ipv4,
            arp,
            programs: None,
            interface,
            extra,
            virtual_mac: None,
            inbox: Inbox {
                frames: std::array::from_fn(|_| vec![0; LONGEST]),
                packets: Packets::default(),
                bad_offload: 0,
            },
            outlet: Outlet {
                own,
                super_packets: true,
                failed: 0,
            },
            runs: Runs::default(),
        })
    }

    /// Lets this host's own programs take part in the segment; the error names what is missing.
    pub fn open_programs(&mut self) -> Result<(), String> {
        let programs = Programs::open(self.interface, self.outlet.own)?;
        let set = programs.set_virtual_mac(self.virtual_mac);
        set.map_err(|e| format!("a packet filter: {e}"))?;
        self.programs = Some(programs);
        Ok(())
    }

    /// Whether they take part.
    pub fn has_programs(&self) -> bool {
        self.programs.is_some()
    }

    /// Receives frames for this virtual address, in place of the one before.
    pub fn set_virtual_mac(&mut self, mac: Option<MacAddress>) -> io::Result<()> {
        if self.virtual_mac == mac {
            return Ok(());
        }
        let [of_ipv6, of_ipv4] = self.extra.packets(mac);
        let sockets = [(Some(&self.ipv6.packets), of_ipv6)].into_iter();
        let ipv4 = self.ipv4.as_ref().map(|pair| &pair.packets);
        let sockets = sockets.chain([(ipv4, of_ipv4), (self.arp.as_ref(), Wanted::Arp(mac))]);
        for (socket, wanted) in sockets {
            if let Some(socket) = socket {
                socket.attach_filter(&frame::filter(wanted, self.outlet.own))?;
            }
        }
        if let Some(programs) = &self.programs {
            programs.set_virtual_mac(mac)?;
        }
        let socket = &self.ipv6.packets;
        if let Some(mac) = self.virtual_mac.take() {
            packet::set_unicast(socket, self.interface, mac, false)?;
        }
        if let Some(mac) = mac {
            packet::set_unicast(socket, self.interface, mac, true)?;
        }
        self.virtual_mac = mac;
        Ok(())
    }

    /// Returns the descriptors.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pairs = [&self.ipv6].into_iter().chain(&self.ipv4);
        let pairs = pairs.flat_map(|pair| [pair.packets.as_fd(), pair.control.as_fd()]);
        let outgoing = self.programs.as_ref();
        let outgoing = outgoing.map(|programs| programs.outgoing.as_fd());
        pairs
            .chain(self.arp.as_ref().map(AsFd::as_fd))
            .chain(outgoing)
    }

    /// Returns frames lost before they were read, since the last call: of packets, and of control.
    pub fn take_overruns(&self) -> io::Result<(u32, u32)> {
        let (mut packets, mut control) = (0, 0);
        for pair in [&self.ipv6].into_iter().chain(&self.ipv4) {
            packets += packet::take_overruns(&pair.packets)?;
            control += packet::take_overruns(&pair.control)?;
        }
        if let Some(arp) = &self.arp {
            // hosts repeat their questions
            packets += packet::take_overruns(arp)?;
        }
        if let Some(programs) = &self.programs {
            // reports of own programs are among them
            control += packet::take_overruns(&programs.outgoing)?;
        }
        Ok((packets, control))
    }

    /// Returns the number of frames that could not be cut or completed since the last call.
    pub fn take_bad_offload(&mut self) -> u64 {
        std::mem::take(&mut self.inbox.bad_offload)
    }

    /// Reads packets, and ARP; false: no more for now.
    pub fn read_packets(&mut self, each: &mut dyn FnMut(SegmentFrame)) -> io::Result<bool> {
        let mut has_more = self.inbox.read(&self.ipv6.packets, each)?;
        let ipv4 = self.ipv4.as_ref().map(|pair| &pair.packets);
        let outgoing = self.programs.as_ref().map(|programs| &programs.outgoing);
        for socket in ipv4.into_iter().chain(&self.arp).chain(outgoing) {
            has_more |= self.inbox.read(socket, each)?;
        }
        Ok(has_more)
    }

    /// Reads some frames of MLD, PROBEs and IGMP, as [`Self::read_packets`].
    pub fn read_control(&mut self, each: &mut dyn FnMut(SegmentFrame)) -> io::Result<bool> {
        let has_more = self.inbox.read(&self.ipv6.control, each)?;
        match &self.ipv4 {
            Some(pair) => Ok(self.inbox.read(&pair.control, each)? || has_more),
            None => Ok(has_more),
        }
    }

    /// Queues a packet for a group; it leaves with hop limit 1 at the next [`Self::flush`].
    pub fn inject(&mut self, packet: Bytes) {
        self.queue(Way::Group, packet);
    }

    fn queue(&mut self, way: Way, packet: Bytes) {
        let Self {
            outlet,
            runs,
            ipv6,
            ipv4,
            ..
        } = self;
        let sockets = (&*ipv6, ipv4.as_ref());
        match outlet.super_packets {
            true => runs.push(way, packet, &mut |way, run| {
                outlet.write_run(sockets, way, run);
            }),
            false => outlet.write_run(sockets, way, &[packet]),
        }
    }

    /// Sends the queued packets; returns the number that failed since the last call.
    pub fn flush(&mut self) -> u64 {
        let Self {
            outlet,
            runs,
            ipv6,
            ipv4,
            ..
        } = self;
        let sockets = (&*ipv6, ipv4.as_ref());
        runs.flush(&mut |way, run| outlet.write_run(sockets, way, run));
        std::mem::take(&mut outlet.failed)
    }

    /// Sends a packet to a group unchanged; a query to this host as well.
    pub fn send_to_group(&self, packet: &[u8]) -> io::Result<()> {
        if let Some(programs) = &self.programs {
            programs.ask(packet)?;
        }
        let parts = [IoSlice::new(packet)];
        let socket = socket_of((&self.ipv6, self.ipv4.as_ref()), packet);
        self.outlet.write_to_group(socket?, packet, &parts)
    }

    /// Sends a frame of a segment: to a host, group or all; to this host as well if it takes part.
    /// IP packets leave at the next [`Self::flush`].
    pub fn send_frame(&mut self, frame: SegmentFrame) -> io::Result<()> {
        if let Some(programs) = self.programs.as_ref().filter(|p| p.takes(&frame)) {
            programs.deliver(frame.destination, frame.ethertype, &frame.payload)?;
            if !frame.destination.is_group() {
                return Ok(());
            }
        }
        let (to, from) = (frame.destination, frame.source);
        if [ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&frame.ethertype) {
            self.queue(Way::Frame { to, from }, frame.payload);
            return Ok(());
        }
        let socket = self.arp.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let ethernet = frame::ethernet(to, from, frame.ethertype);
        let parts = [IoSlice::new(&frame.payload)];
        write(socket, (Offload::default(), ethernet), &parts)
    }

    /// Sends an IPv6 packet to one host unchanged.
    pub fn send(&self, to: MacAddress, packet: &[u8]) -> io::Result<()> {
        let (offload, parts) = (Offload::default(), [IoSlice::new(packet)]);
        let ethernet = frame::ethernet(to, self.outlet.own, ETHERTYPE_IPV6);
        write(&self.ipv6.packets, (offload, ethernet), &parts)
    }
}

/// Returns the socket for a packet.
fn socket_of<'a>(
    (ipv6, ipv4): (&'a Pair, Option<&'a Pair>),
    packet: &[u8],
) -> io::Result<&'a Socket> {
    let pair = match frame::is_ipv4(packet) {
        true => ipv4.ok_or(io::ErrorKind::Unsupported)?,
        false => ipv6,
    };
    Ok(&pair.packets)
}

impl Inbox {
    fn read(&mut self, socket: &Socket, each: &mut dyn FnMut(SegmentFrame)) -> io::Result<bool> {
        let lengths = match receive(socket, &mut self.frames) {
            Ok(lengths) => lengths,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        for (frame, length) in self.frames.iter_mut().zip(&lengths) {
            let frame = frame.get_mut(..*length).unwrap_or_default();
            let Some((head, packet)) = frame.split_at_mut_checked(HEAD) else {
                continue;
            };
            let offload = head.first_chunk().copied().unwrap_or_default();
            let offload = Offload::decode(offload, ETHERNET_LEN as u16);
            let Some(header) = frame::read_ethernet(&head[OFFLOAD_LEN..]) else {
                continue;
            };
            let (destination, source, ethertype) = header;
            let each = &mut |parts: [&[u8]; 2]| {
                each(SegmentFrame {
                    source,
                    destination,
                    ethertype,
                    payload: self.packets.put(parts),
                });
            };
            let unpacked = offload.and_then(|offload| offload.unpack(packet, each));
            self.bad_offload += u64::from(unpacked.is_err());
        }
        Ok(lengths.len() == FRAMES)
    }
}

/// Returns the lengths of received frames, one in each buffer.
fn receive(
    socket: &Socket,
    frames: &mut [Vec<u8>; FRAMES],
) -> nix::Result<SmallVec<[usize; FRAMES]>> {
    let mut headers = MultiHeaders::<()>::preallocate(FRAMES, None);
    let mut slices = frames.each_mut().map(|frame| [IoSliceMut::new(frame)]);
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
    Ok(received.map(|message| message.bytes).collect())
}

impl Way {
    fn set_hop_limit(self, header: &mut [u8]) {
        if self == Self::Group {
            frame::set_hop_limit(header, 1);
        }
    }
}

impl Outlet {
    /// Sends packets of one flow; in one call if the kernel supports it.
    fn write_run(&mut self, sockets: (&Pair, Option<&Pair>), way: Way, run: &[Bytes]) {
        let Some(first) = run.first() else { return };
        let socket = match socket_of(sockets, first) {
            Ok(socket) => socket,
            Err(e) => return self.fail(&e, run.len()),
        };
        if run.len() > 1 && self.super_packets {
            match self.write_super_packet(socket, way, run) {
                Ok(()) => return,
                // before Linux 6.2
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => self.super_packets = false,
                Err(e) => return self.fail(&e, run.len()),
            }
        }
        for packet in run {
            let length = match frame::is_ipv4(packet) {
                true => ipv4::HEADER_LEN,
                false => IPV6_LEN,
            };
            let Some((first, rest)) = packet.split_at_checked(length) else {
                continue;
            };
            let mut header = coalesce::Headers::from_slice(first);
            way.set_hop_limit(&mut header);
            let parts = [IoSlice::new(&header), IoSlice::new(rest)];
            let ethernet = self.ethernet(way, packet);
            let written = ethernet.and_then(|e| write(socket, (Offload::default(), e), &parts));
            if let Err(e) = written {
                self.fail(&e, 1);
            }
        }
    }

    fn fail(&mut self, error: &io::Error, packets: usize) {
        tracing::debug!("into a LAN: {error}");
        self.failed += packets as u64;
    }

    fn write_super_packet(&self, socket: &Socket, way: Way, run: &[Bytes]) -> io::Result<()> {
        let (mut headers, shape) = coalesce::headers(run).ok_or(io::ErrorKind::InvalidData)?;
        way.set_hop_limit(&mut headers);
        let mut parts: SmallVec<[_; 1 + MAX_PACKETS]> = SmallVec::new();
        parts.push(IoSlice::new(&headers));
        parts.extend(
            run.iter()
                .map(|packet| IoSlice::new(&packet[headers.len()..])),
        );
        // a run's size is bounded
        let offload = shape.offload((run[0].len() - headers.len()) as u16);
        let ethernet = self.ethernet(way, &headers)?;
        write(socket, (offload, ethernet), &parts)
    }

    fn write_to_group(
        &self,
        socket: &Socket,
        packet: &[u8],
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let ethernet = self.ethernet(Way::Group, packet)?;
        write(socket, (Offload::default(), ethernet), parts)
    }

    /// Returns the Ethernet header of a packet.
    fn ethernet(&self, way: Way, packet: &[u8]) -> io::Result<[u8; ETHERNET_LEN]> {
        let (to, from) = match way {
            Way::Group => {
                let to = frame::group(packet).ok_or(io::ErrorKind::InvalidInput)?;
                (to, self.own)
            }
            Way::Frame { to, from } => (to, from),
        };
        let ethertype = match frame::is_ipv4(packet) {
            true => ETHERTYPE_IPV4,
            false => ETHERTYPE_IPV6,
        };
        Ok(frame::ethernet(to, from, ethertype))
    }
}

fn write(
    socket: &Socket,
    (offload, ethernet): (Offload, [u8; ETHERNET_LEN]),
    packet: &[IoSlice<'_>],
) -> io::Result<()> {
    let offload = offload.encode(ETHERNET_LEN as u16);
    let mut parts: SmallVec<[_; 3 + MAX_PACKETS]> = SmallVec::new();
    parts.extend([IoSlice::new(&offload), IoSlice::new(&ethernet)]);
    parts.extend_from_slice(packet);
    socket.send_vectored(&parts).map(drop)
}
