//! From the wire to the TUN.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Write};
use std::ops::Range;
use std::thread::sleep;

use anyhow::{Context, Result};
use aws_lc_rs::aead::Aad;
use nix::poll::PollFlags;
use quinn_udp::{RecvMeta, UdpSockRef};

use super::transmit::wait;
use super::{BUSY, HEADER, NAP, PACKET_HEADER, RUN, RUN_BYTES, Shared, TAG, nonce, tun};

/// Number of buffers per receive call, each for a coalesced train.
const UNITS: usize = 8;
const UNIT: usize = 65_536;

/// Carries packets until the socket fails.
pub fn run(shared: &Shared) -> Result<()> {
    let mut buffer = vec![0; UNITS * UNIT];
    let mut packets = Vec::new();
    loop {
        let mut got = 0;
        while receive(shared, &mut buffer, &mut packets)? {
            got += packets.len();
            write_all(shared, &buffer, &packets);
        }
        if got >= BUSY {
            sleep(NAP);
        } else {
            wait(&shared.socket, PollFlags::POLLIN)?;
        }
    }
}

/// Receives and opens datagrams in place; returns their places in `packets`. False: there are none.
fn receive(shared: &Shared, buffer: &mut [u8], packets: &mut Vec<Range<usize>>) -> Result<bool> {
    let mut metas = [RecvMeta::default(); UNITS];
    let mut units = buffer.chunks_exact_mut(UNIT);
    let mut slices: [IoSliceMut; UNITS] =
        std::array::from_fn(|_| IoSliceMut::new(units.next().unwrap_or_default()));
    let socket = UdpSockRef::from(&shared.socket);
    let count = match shared.state.recv(socket, &mut slices, &mut metas) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
        Err(error) => return Err(error).context("receiving"),
    };
    packets.clear();
    for (number, (meta, unit)) in metas[..count]
        .iter()
        .zip(buffer.chunks_exact_mut(UNIT))
        .enumerate()
    {
        let size = meta.stride.max(1);
        for (at, datagram) in unit[..meta.len].chunks_mut(size).enumerate() {
            if open(shared, datagram).is_some() {
                let begin = number * UNIT + at * size;
                packets.push(begin + HEADER..begin + datagram.len() - TAG);
            }
        }
    }
    Ok(true)
}

fn open(shared: &Shared, datagram: &mut [u8]) -> Option<()> {
    (datagram.len() >= HEADER + PACKET_HEADER + TAG).then_some(())?;
    let (header, sealed) = datagram.split_at_mut(HEADER);
    let opened = shared
        .key
        .open_in_place(nonce(header)?, Aad::from(&*header), sealed);
    opened.is_ok().then_some(())
}

/// Writes all packets, runs of one flow in one call.
fn write_all(shared: &Shared, buffer: &[u8], packets: &[Range<usize>]) {
    let mut rest = packets;
    while let Some(first) = rest.first() {
        let first = &buffer[first.clone()];
        let longest = RUN.min((RUN_BYTES - PACKET_HEADER) / first.len());
        let same = |packet: &&Range<usize>| {
            let packet = &buffer[(*packet).clone()];
            packet.len() == first.len() && same_flow(packet, first)
        };
        let run = rest[1..].iter().take(longest - 1).take_while(same).count() + 1;
        // The kernel drops unwanted packets, and may refuse some; a network loses packets.
        let _ = write_run(shared, buffer, &rest[..run]);
        rest = &rest[run..];
    }
}

/// Compares all header fields except lengths and checksum.
fn same_flow(a: &[u8], b: &[u8]) -> bool {
    a[6..44] == b[6..44] && a[..4] == b[..4]
}

fn write_run(shared: &Shared, buffer: &[u8], run: &[Range<usize>]) -> Result<()> {
    let payload = |packet: &Range<usize>| &buffer[packet.start + PACKET_HEADER..packet.end];
    let mut header = [0; PACKET_HEADER];
    let first = run.first().context("an empty run")?;
    header.copy_from_slice(&buffer[first.start..first.start + PACKET_HEADER]);
    let udp = u16::try_from(8 + payload(first).len() * run.len())?;
    header[4..6].copy_from_slice(&udp.to_be_bytes());
    header[44..46].copy_from_slice(&udp.to_be_bytes());
    let partial = pseudo_header(&header, udp).to_be_bytes();
    header[46..48].copy_from_slice(&partial);
    let size = u16::try_from(payload(first).len())?;
    let virtio = tun::header((run.len() > 1).then_some(size));
    let mut parts = [IoSlice::new(&[]); RUN + 2];
    parts[0] = IoSlice::new(&virtio);
    parts[1] = IoSlice::new(&header);
    for (part, packet) in parts[2..].iter_mut().zip(run) {
        *part = IoSlice::new(payload(packet));
    }
    // The driver accepts a packet whole or not at all.
    let _ = (&shared.tun).write_vectored(&parts[..run.len() + 2])?;
    Ok(())
}

/// The sum of addresses, length and protocol, which the kernel completes (RFC 8200 §8.1).
fn pseudo_header(header: &[u8; PACKET_HEADER], udp: u16) -> u16 {
    let words = header[8..40].chunks_exact(2);
    let addresses: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let mut sum = addresses + u32::from(udp) + 17;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded: 16 bits are left.
    sum as u16
}
