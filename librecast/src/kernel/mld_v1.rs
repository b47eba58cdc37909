//! MLD version 1 on a packet socket.
//!
//! A filter in the kernel (classic BPF) passes only Report and Done about groups of one /16: no
//! other packet is copied, and nothing can be sent to this socket.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{SockFilter, Socket, Type};

use crate::mld;
use crate::packet;
use crate::received::ReceivedV1;
use crate::socket_option::{drops_of, lost_since};

/// Offset of the next header in an IPv6 packet.
const NEXT_HEADER: u32 = 6;
/// Offset of the hop-by-hop header, which has 8 bytes in MLD.
const HOP_BY_HOP: u32 = 40;
/// Offset of the ICMPv6 message behind it.
const ICMPV6: u32 = 48;
/// Offset of the group in the message.
const GROUP: u32 = ICMPV6 + 8;
/// Length of a message without trailing bytes.
const PACKET: usize = GROUP as usize + 16;
/// Bytes of the receive buffer: room for reports of some 10,000 joins at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A packet socket for version 1 reports and Done messages on many interfaces.
#[derive(Debug)]
pub struct MldV1Socket {
    socket: Socket,
    /// Watched interfaces: the kernel counts requests, so each is made once.
    watched: BTreeSet<u32>,
    lost: u32,
}

impl MldV1Socket {
    /// Opens the socket for groups with these first 16 bits; needs CAP_NET_RAW.
    pub fn open(prefix: u16) -> io::Result<Self> {
        let socket = packet::open(Type::DGRAM, &filter(prefix), RECEIVE_BUFFER)?;
        packet::bind(&socket, None)?;
        Ok(Self {
            socket,
            watched: BTreeSet::new(),
            lost: 0,
        })
    }

    /// Makes the interface receive reports to groups that this host has not joined.
    pub fn watch(&mut self, interface: u32) -> io::Result<()> {
        if !self.watched.contains(&interface) {
            packet::set_all_multicast(&self.socket, interface, true)?;
            self.watched.insert(interface);
        }
        Ok(())
    }

    /// Ends that. An interface that is gone is not an error.
    pub fn unwatch(&mut self, interface: u32) {
        if self.watched.remove(&interface) {
            let _ = packet::set_all_multicast(&self.socket, interface, false);
        }
    }

    /// Returns the next message of any interface, watched or not; `None` if there is none.
    pub fn receive(&mut self) -> io::Result<Option<ReceivedV1>> {
        // valid messages are not longer
        let mut buffer = [0; PACKET * 2];
        let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            // an interface went down: messages of other interfaces still arrive
            Err(nix::Error::ENETDOWN) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let interface = from.map_or(0, |from| from.ifindex());
        Ok(Some(ReceivedV1 {
            interface: u32::try_from(interface).unwrap_or(0),
            message: mld::parse_packet(&buffer[..length]),
        }))
    }

    /// Returns the messages that found the queue full since the last call.
    pub fn take_lost(&mut self) -> io::Result<u32> {
        Ok(lost_since(&mut self.lost, drops_of(&self.socket)?))
    }
}

impl AsFd for MldV1Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Passes: next header hop-by-hop, 8 bytes of it, ICMPv6, Report or Done, and the group.
fn filter(prefix: u16) -> [SockFilter; 11] {
    /// Loads the byte at an offset (linux/filter.h, as all below).
    const BYTE: u16 = (libc::BPF_LD | libc::BPF_ABS | libc::BPF_B) as u16;
    /// Loads the 16 bits at an offset.
    const HALF: u16 = (libc::BPF_LD | libc::BPF_ABS | libc::BPF_H) as u16;
    /// Jumps if the loaded value equals the operand.
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    /// Ends, and passes this number of bytes of the packet.
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let load = |size, at| SockFilter::new(size, 0, 0, at);
    // continues, or skips `skip` instructions
    let unless = |value, skip| SockFilter::new(EQUAL, 0, skip, value);
    let give = |bytes| SockFilter::new(RETURN, 0, 0, bytes);
    [
        load(BYTE, NEXT_HEADER),
        unless(0, 8),
        // next header, and length in units of 8 bytes beyond the first
        load(HALF, HOP_BY_HOP),
        unless(u32::from(mld::ICMPV6) << 8, 6),
        load(BYTE, ICMPV6),
        SockFilter::new(EQUAL, 1, 0, mld::TYPE_REPORT_V1.into()),
        unless(mld::TYPE_DONE_V1.into(), 3),
        load(HALF, GROUP),
        unless(prefix.into(), 1),
        give(u32::MAX),
        give(0),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    /// Executes a short filter as the kernel does.
    fn passes(filter: &[libc::sock_filter], packet: &[u8]) -> bool {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &filter[at];
            let k = step.k as usize;
            at += 1;
            match u32::from(step.code) {
                0x30 => value = packet.get(k).map_or(u32::MAX, |b| u32::from(*b)),
                0x28 => {
                    let half = packet.get(k..k + 2);
                    value = half.map_or(u32::MAX, |h| u32::from(u16::from_be_bytes([h[0], h[1]])));
                }
                0x15 => at += usize::from(if value == step.k { step.jt } else { step.jf }),
                0x06 => return k > 0,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn instructions(prefix: u16) -> Vec<libc::sock_filter> {
        let filter = filter(prefix);
        // SAFETY: a SockFilter is a transparent sock_filter, as its documentation says.
        filter
            .iter()
            .map(|f| unsafe { *std::ptr::from_ref(f).cast::<libc::sock_filter>() })
            .collect()
    }

    fn packet(kind: u8, group: &str) -> Vec<u8> {
        let group: Ipv6Addr = group.parse().unwrap();
        let mut packet = vec![0x60, 0, 0, 0, 0, 32, 0, 1];
        packet.extend([0; 32]);
        packet.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        packet.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(group.octets());
        packet
    }

    #[test]
    fn reports_and_done_of_version_1_for_these_groups_pass_and_nothing_else() {
        let filter = instructions(0xff1e);
        for kind in 0..=255 {
            let right = passes(&filter, &packet(kind, "ff1e:27fd::7"));
            assert_eq!(right, kind == 131 || kind == 132, "type {kind}");
            assert!(!passes(&filter, &packet(kind, "ff02::fb")));
        }
        let mut without_alert = packet(131, "ff1e::7");
        without_alert[6] = 58;
        assert!(!passes(&filter, &without_alert));
        let whole = packet(131, "ff1e::7");
        for length in 0..58 {
            assert!(!passes(&filter, &whole[..length]), "{length} bytes");
        }
    }
}
