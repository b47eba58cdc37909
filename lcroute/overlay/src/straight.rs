//! Sealed messages from node to node, as datagrams outside of any connection.
//!
//! ```text
//! tag 64 | part 4 (from 0), parts 4 | if there are several: message 32 | bytes
//! ```
//!
//! The tag covers all that follows, under a key from the network's public key. So only present and
//! former members, and holders of any token, can make a node store parts or open a seal. Messages
//! with a valid tag have a budget ([`crate::signal_budget`]).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use librecast::id::{NetworkId, derive};
use librecast::wire::Reader;

use crate::random::Random;

/// Context of the hash in a datagram's tag ([`TAG`] bytes).
const CONTEXT: &str = "lcroute 2026 straight";
/// Bytes of a datagram's tag, which excludes senders without the network's key. Chosen.
const TAG: usize = 8;
/// Message bytes per datagram: with IPv6 and UDP headers within 1,280 bytes, IPv6's minimum MTU.
const PART: usize = 1_180;
/// Maximum number of parts of a message; four bits encode them.
const MAX_PARTS: usize = 8;
/// Maximum number of incomplete messages.
const MAX_PARTIAL: usize = 32;

/// Encoder and decoder of such datagrams.
#[derive(Debug)]
pub(crate) struct Straight {
    network: NetworkId,
    partial: BTreeMap<(SocketAddr, u32), Vec<Option<Vec<u8>>>>,
    /// Keys of `partial`, in order of arrival.
    order: VecDeque<(SocketAddr, u32)>,
}

/// The content of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A sealed message.
    Message(Bytes),
    /// A part of a message; other parts are missing.
    Part,
    /// A datagram that is not from a node of this network.
    Foreign,
}

impl Straight {
    pub(crate) fn new(network: NetworkId) -> Self {
        Self {
            network,
            partial: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(crate) fn count(sealed: &[u8]) -> usize {
        sealed.len().div_ceil(PART)
    }

    /// Returns the datagrams of a sealed message; none if it is too long.
    pub(crate) fn datagrams(&self, sealed: &[u8], random: &mut Random) -> Vec<Bytes> {
        let parts: Vec<_> = sealed.chunks(PART).collect();
        if parts.len() > MAX_PARTS {
            return Vec::new();
        }
        let message: [u8; 4] = random.array();
        let message = if parts.len() > 1 { &message[..] } else { &[] };
        let datagram = |(at, part): (usize, &&[u8])| {
            let head = (at << 4 | parts.len()) as u8;
            let body = [&[head], message, part].concat();
            Bytes::from([&self.tag(&body)[..], &body].concat())
        };
        parts.iter().enumerate().map(datagram).collect()
    }

    pub(crate) fn receive(&mut self, from: SocketAddr, datagram: &Bytes) -> Received {
        let Some((tag, body)) = datagram.split_at_checked(TAG) else {
            return Received::Foreign;
        };
        if tag != self.tag(body) {
            return Received::Foreign;
        }
        let mut r = Reader::new(body);
        let head = usize::from(r.u8().unwrap_or_default());
        let (at, parts) = (head >> 4, head & 15);
        if at >= parts || parts > MAX_PARTS {
            return Received::Foreign;
        }
        if parts == 1 {
            return Received::Message(datagram.slice(TAG + 1..));
        }
        let Ok(message) = r.u32() else {
            return Received::Foreign;
        };
        self.keep((from, message), (at, parts), r.rest())
    }

    fn keep(
        &mut self,
        key: (SocketAddr, u32),
        (at, parts): (usize, usize),
        part: &[u8],
    ) -> Received {
        if !self.partial.contains_key(&key) {
            if self.order.len() == MAX_PARTIAL {
                let oldest = self.order.pop_front();
                oldest.map(|oldest| self.partial.remove(&oldest));
            }
            self.order.push_back(key);
            self.partial.insert(key, vec![None; parts]);
        }
        debug_assert!(
            self.order.len() == self.partial.len() && self.order.len() <= MAX_PARTIAL,
            "the oldest message in parts gives way"
        );
        let Some(kept) = self.partial.get_mut(&key) else {
            return Received::Part;
        };
        if let Some(place) = kept.get_mut(at) {
            *place = Some(part.to_vec());
        }
        let Some(whole) = kept.iter().cloned().collect::<Option<Vec<_>>>() else {
            return Received::Part;
        };
        self.partial.remove(&key);
        self.order.retain(|other| *other != key);
        Received::Message(whole.concat().into())
    }

    fn tag(&self, body: &[u8]) -> [u8; TAG] {
        let hash = derive(CONTEXT, &[self.network.public_key(), body]);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hash[..TAG]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn network(n: u8) -> Straight {
        Straight::new(SecretKey::from_seed(&[n; 32]).peer_id())
    }

    fn from() -> SocketAddr {
        "[2001:db8::1]:7".parse().unwrap()
    }

    proptest! {
        #[test]
        fn messages_come_whole_in_any_order(
            sealed in prop::collection::vec(any::<u8>(), 1..PART * MAX_PARTS), reversed: bool,
        ) {
            let (sender, mut receiver) = (network(1), network(1));
            let mut datagrams = sender.datagrams(&sealed, &mut Random::new([1; 32]));
            prop_assert!(datagrams.iter().all(|d| d.len() < 1_200));
            prop_assert_eq!(datagrams.len(), Straight::count(&sealed));
            if reversed {
                datagrams.reverse();
            }
            let last = datagrams.pop().unwrap();
            for datagram in datagrams {
                prop_assert_eq!(receiver.receive(from(), &datagram), Received::Part);
            }
            prop_assert_eq!(receiver.receive(from(), &last), Received::Message(sealed.into()));
            prop_assert!(receiver.partial.is_empty() && receiver.order.is_empty());
        }

        #[test]
        fn what_no_node_of_the_network_sent_is_foreign(
            bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0_usize..100, by in 1_u8..,
        ) {
            let datagram = network(2).datagrams(&bytes, &mut Random::new([1; 32]));
            for datagram in &datagram {
                prop_assert_eq!(network(1).receive(from(), datagram), Received::Foreign);
                let mut changed = datagram.to_vec();
                let at = at % changed.len();
                changed[at] ^= by;
                let changed = Bytes::from(changed);
                prop_assert_eq!(network(2).receive(from(), &changed), Received::Foreign);
            }
            prop_assert_eq!(network(1).receive(from(), &bytes.into()), Received::Foreign);
        }
    }

    #[test]
    fn parts_of_few_messages_are_kept() {
        let (sender, mut receiver) = (network(1), network(1));
        let mut random = Random::new([1; 32]);
        for _ in 0..10 * MAX_PARTIAL {
            let datagrams = sender.datagrams(&[7; 3 * PART], &mut random);
            assert_eq!(receiver.receive(from(), &datagrams[0]), Received::Part);
        }
        assert_eq!(receiver.partial.len(), MAX_PARTIAL);
        assert_eq!(receiver.order.len(), MAX_PARTIAL);
    }

    #[test]
    fn too_long_a_message_does_not_go() {
        let sealed = vec![1; PART * MAX_PARTS + 1];
        let datagrams = network(1).datagrams(&sealed, &mut Random::new([1; 32]));
        assert!(datagrams.is_empty());
    }
}
