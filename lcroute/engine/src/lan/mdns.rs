//! Multicast DNS (RFC 6762) between links: its group stays on a link, so gateways repeat messages.
//!
//! ```text
//! host ──ff02::fb──> gateway ──ff02::fb, from its node──> gateways ──ff02::fb, from each──> hosts
//! ```
//!
//! Hosts accept messages of their own link only (RFC 6762 §11): a gateway sends from its address.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::ipv6::{self, Datagram};
use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, WireError};
use siphasher::sip::SipHasher13;

use crate::config::ROUTER_ADDRESS;

/// The group (RFC 6762 §3).
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// UDP port (RFC 6762 3).
const PORT: u16 = 5_353;
/// Hop limit of messages (RFC 6762 11).
const HOP_LIMIT: u8 = 255;
/// Top bit of a question's class: asks for a unicast reply (RFC 6762 §5.4), lost at the gateway.
const WANTS_UNICAST: u8 = 0x80;
/// Time in which a message is not repeated (RFC 6762 §6): a copy is from another reflector.
const REPEATED: Duration = Duration::from_secs(1);
/// Messages remembered for [`REPEATED`]. Chosen: more than the rates of a LAN allow.
const MAX_RECENT: usize = 1_024;

/// The message, for another link. `None` for a query from another port, which only its own link
/// can answer (RFC 6762 §6.7).
pub fn message(packet: &[u8]) -> Option<Vec<u8>> {
    let datagram = Datagram::of_packet(packet)?;
    if (datagram.source_port, datagram.destination_port) != (PORT, PORT) {
        return None;
    }
    let mut message = datagram.data.to_vec();
    for class in question_classes(datagram.data).ok()? {
        message[class] &= !WANTS_UNICAST;
    }
    Some(message)
}

/// Offsets of the questions' classes.
fn question_classes(message: &[u8]) -> Result<Vec<usize>, WireError> {
    let mut r = Reader::new(message);
    let (_id, _flags) = (r.u16()?, r.u16()?);
    let questions = r.u16()?;
    r.take(6)?;
    let mut classes = Vec::new();
    for _ in 0..questions {
        skip_name(&mut r)?;
        let _kind = r.u16()?;
        classes.push(message.len() - r.rest().len());
        let _class = r.u16()?;
    }
    Ok(classes)
}

/// Skips a name: its labels end with an empty one, or with a pointer (RFC 1035 §4.1.4).
fn skip_name(r: &mut Reader<'_>) -> Result<(), WireError> {
    loop {
        match r.u8()? {
            0 => return Ok(()),
            length @ 1..64 => drop(r.take(length.into())?),
            0xc0.. => return r.u8().map(drop),
            _ => return Err(WireError::Bad("label")),
        }
    }
}

/// A packet with a message for a link.
pub fn packet(from: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    ipv6::udp_packet(from, GROUP, (PORT, HOP_LIMIT), message)
}

/// The message of a packet in a packet for programs of this host.
pub fn from_router(own: &[u8]) -> Bytes {
    let message = message(own).unwrap_or_default();
    packet(ROUTER_ADDRESS, &message).into()
}

/// Messages of the last second on a link.
#[derive(Debug)]
pub struct Recent {
    /// Random, so that no sender can find two messages with one sum.
    key: (u64, u64),
    messages: BTreeMap<u64, Instant>,
}

impl Recent {
    /// No messages; `key` is random.
    pub fn new(key: (u64, u64)) -> Self {
        Self {
            key,
            messages: BTreeMap::new(),
        }
    }

    /// Whether a message was sent within [`REPEATED`].
    pub fn has(&self, message: &[u8], now: Instant) -> bool {
        let at = self.messages.get(&self.sum(message));
        at.is_some_and(|at| now < *at + REPEATED)
    }

    /// Remembers a message, up to the bound: callers send fewer in a second.
    pub fn remember(&mut self, message: &[u8], now: Instant) {
        self.messages.retain(|_, at| now < *at + REPEATED);
        if self.messages.len() < MAX_RECENT {
            self.messages.insert(self.sum(message), now);
        }
    }

    fn sum(&self, message: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(message);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;

    const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    /// Two PTR questions for _ipp._tcp.local, the second by a pointer; the first asks for unicast.
    fn question() -> Vec<u8> {
        let mut message = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
        message.extend(b"\x04_ipp\x04_tcp\x05local\x00\x00\x0c\x80\x01");
        message.extend(b"\xc0\x0c\x00\x0c\x00\x01");
        message
    }

    #[test]
    fn questions_ask_for_multicast_on_the_other_link() {
        let asked = question();
        let said = message(&packet(HOST, &asked)).unwrap();
        let expected: Vec<_> = asked
            .iter()
            .map(|byte| if *byte == 0x80 { 0 } else { *byte })
            .collect();
        assert_eq!(said, expected);
        assert_eq!(message(&packet(HOST, &said)), Some(expected));
    }

    #[test]
    fn what_is_no_mdns_is_left_out() {
        let packet = packet(HOST, &question());
        let other = ipv6::udp_packet(HOST, GROUP, (5_354, HOP_LIMIT), &question());
        assert_eq!(message(&other), None);
        for length in 0..packet.len() {
            assert_eq!(message(&packet[..length]), None);
        }
        let asked = question();
        for length in 0..asked.len() {
            assert_eq!(message(&super::packet(HOST, &asked[..length])), None);
        }
    }

    #[test]
    fn nothing_is_said_twice_in_a_second() {
        let now = start();
        let mut recent = Recent::new((1, 2));
        assert!(!recent.has(b"a", now));
        recent.remember(b"a", now);
        assert!(!recent.has(b"b", now));
        assert!(recent.has(b"a", now + REPEATED / 2));
        assert!(!recent.has(b"a", now + REPEATED));
        for n in 0..2 * MAX_RECENT {
            recent.remember(&n.to_be_bytes(), now + REPEATED);
        }
        assert_eq!(recent.messages.len(), MAX_RECENT);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let said = message(&packet(HOST, &bytes));
            if let Some(said) = said {
                prop_assert_eq!(said.len(), bytes.len());
            }
        }
    }
}
