//! From the TUN to the wire.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::thread::sleep;

use anyhow::{Context, Result};
use aws_lc_rs::aead::Aad;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn_udp::{Transmit, UdpSockRef};

use super::tun::{self, VIRTIO};
use super::{BUSY, HEADER, NAP, PACKET_HEADER, RUN, RUN_BYTES, Shared, TAG, nonce};

/// Maximum length of a packet from a TUN.
const LARGEST: usize = 65_536 + VIRTIO;

/// Carries packets until the TUN fails.
pub fn run(shared: &Shared, peers: Vec<SocketAddr>) -> Result<()> {
    let mut batch = Batch::new(shared, peers);
    loop {
        let before = batch.packets;
        while batch.read()? {}
        batch.flush()?;
        if batch.packets - before >= BUSY {
            sleep(NAP);
        } else {
            wait(&shared.tun, PollFlags::POLLIN)?;
        }
    }
}

pub(super) fn wait(on: &impl AsFd, what: PollFlags) -> Result<()> {
    poll(&mut [PollFd::new(on.as_fd(), what)], PollTimeout::NONE).context("poll")?;
    Ok(())
}

/// Datagrams of one size, adjacent as they will be sent. Each packet is read to its final place.
struct Batch<'a> {
    shared: &'a Shared,
    peers: Vec<SocketAddr>,
    bytes: Vec<u8>,
    /// Copy for all peers but one: sealing destroys the packets.
    copy: Vec<u8>,
    used: usize,
    datagrams: usize,
    size: usize,
    /// Number of packets read so far.
    packets: usize,
    who: [u8; 4],
    counter: u64,
}

impl<'a> Batch<'a> {
    fn new(shared: &'a Shared, peers: Vec<SocketAddr>) -> Batch<'a> {
        Batch {
            shared,
            peers,
            bytes: vec![0; RUN_BYTES + HEADER + LARGEST + TAG],
            copy: Vec::with_capacity(RUN_BYTES),
            used: 0,
            datagrams: 0,
            size: 0,
            packets: 0,
            who: std::process::id().to_ne_bytes(),
            counter: 0,
        }
    }

    /// Reads one packet, or one train; returns whether there was one.
    fn read(&mut self) -> Result<bool> {
        let at = self.used + HEADER;
        let room = &mut self.bytes[at - VIRTIO..at + LARGEST - VIRTIO];
        let length = match (&self.shared.tun).read(room) {
            Ok(length) => length.saturating_sub(VIRTIO),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("reading from the TUN"),
        };
        self.packets += 1;
        let packet = at..at + length;
        if !is_udp_multicast(&self.bytes[packet.clone()]) {
            return Ok(true);
        }
        match tun::train(&self.bytes[at - VIRTIO..at]) {
            None => self.add(at, length)?,
            Some(size) => {
                let train = self.bytes[packet].to_vec();
                let (header, payload) = train.split_at(PACKET_HEADER);
                for part in payload.chunks(size) {
                    self.add_part(header, part)?;
                }
            }
        }
        Ok(true)
    }

    /// Adds one datagram of a train, with its own lengths; the receiver completes the checksum.
    fn add_part(&mut self, header: &[u8], payload: &[u8]) -> Result<()> {
        let at = self.used + HEADER;
        let length = PACKET_HEADER + payload.len();
        let udp = u16::try_from(8 + payload.len())?.to_be_bytes();
        self.bytes[at..at + PACKET_HEADER].copy_from_slice(header);
        self.bytes[at + 4..at + 6].copy_from_slice(&udp);
        self.bytes[at + 44..at + 46].copy_from_slice(&udp);
        self.bytes[at + PACKET_HEADER..at + length].copy_from_slice(payload);
        self.add(at, length)
    }

    /// Adds the packet at `at`, just behind the batch.
    fn add(&mut self, at: usize, length: usize) -> Result<()> {
        let size = HEADER + length + TAG;
        if self.datagrams > 0
            && (size != self.size || self.datagrams == RUN || self.used + size > RUN_BYTES)
        {
            let from = self.used;
            self.flush()?;
            self.bytes.copy_within(at..at + length, at - from);
        }
        self.size = size;
        self.used += size;
        self.datagrams += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (used, size) = (self.used, self.size);
        if used == 0 {
            return Ok(());
        }
        (self.used, self.datagrams) = (0, 0);
        let mut copy = std::mem::take(&mut self.copy);
        for at in 0..self.peers.len() {
            let last = at + 1 == self.peers.len();
            if !last {
                copy.clear();
                copy.extend_from_slice(&self.bytes[..used]);
            }
            self.seal(size, used)?;
            send(self.shared, self.peers[at], size, &self.bytes[..used])?;
            if !last {
                self.bytes[..used].copy_from_slice(&copy);
            }
        }
        self.copy = copy;
        Ok(())
    }

    fn seal(&mut self, size: usize, used: usize) -> Result<()> {
        for datagram in self.bytes[..used].chunks_exact_mut(size) {
            let (header, rest) = datagram.split_at_mut(HEADER);
            let (packet, room) = rest.split_at_mut(size - HEADER - TAG);
            self.counter += 1;
            header.fill(0);
            header[..8].copy_from_slice(&self.counter.to_be_bytes());
            header[8..12].copy_from_slice(&self.who);
            let nonce = nonce(header).context("nonce")?;
            let tag =
                self.shared
                    .key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), packet);
            room.copy_from_slice(tag.ok().context("sealing")?.as_ref());
        }
        Ok(())
    }
}

fn send(shared: &Shared, to: SocketAddr, size: usize, contents: &[u8]) -> Result<()> {
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents,
        segment_size: (contents.len() > size).then_some(size),
        src_ip: None,
    };
    loop {
        let sent = shared
            .state
            .try_send(UdpSockRef::from(&shared.socket), &transmit);
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait(&shared.socket, PollFlags::POLLOUT)?;
            }
            // A network may lose datagrams.
            _ => return Ok(()),
        }
    }
}

fn is_udp_multicast(packet: &[u8]) -> bool {
    packet.len() >= PACKET_HEADER && packet[0] >> 4 == 6 && packet[6] == 17 && packet[24] == 0xff
}
