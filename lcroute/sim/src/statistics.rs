//! Counts of a run.

use std::ops::AddAssign;

use serde::Serialize;

/// Kinds of elements in control messages, by their type on the wire.
const KINDS: [&str; 9] = [
    "other",
    "hello",
    "join_state",
    "refusal",
    "summary",
    "lsa",
    "routed",
    "audit",
    "link_request",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Statistics {
    pub events: u64,
    /// Daemons that started.
    pub starts: u64,
    /// Daemons that stopped or crashed.
    pub stops: u64,
    pub links_made: u64,
    /// Links that failed silently, without those of crashed nodes.
    pub links_broken: u64,
    /// Links closed by routers.
    pub links_retired: u64,
    /// Changed memberships.
    pub joins: u64,
    /// Packets sent by programs.
    pub sent: u64,
    /// Packets delivered to programs.
    pub delivered: u64,
    /// Delivered packets that the rules required.
    pub required: u64,
    pub data_messages: u64,
    /// Bytes of data messages, without DTLS handshakes.
    pub data_bytes: u64,
    /// Data messages lost on links.
    pub lost: u64,
    pub control: Control,
}

impl AddAssign<&Self> for Statistics {
    fn add_assign(&mut self, other: &Self) {
        self.events += other.events;
        self.starts += other.starts;
        self.stops += other.stops;
        self.links_made += other.links_made;
        self.links_broken += other.links_broken;
        self.links_retired += other.links_retired;
        self.joins += other.joins;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.required += other.required;
        self.data_messages += other.data_messages;
        self.data_bytes += other.data_bytes;
        self.lost += other.lost;
        self.control += &other.control;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Control {
    pub messages: u64,
    pub bytes: u64,
    pub join_messages: u64,
    /// Elements by type.
    #[serde(serialize_with = "by_name")]
    pub elements: [u64; KINDS.len()],
    /// Bytes of elements by type, with their headers.
    #[serde(serialize_with = "by_name")]
    pub element_bytes: [u64; KINDS.len()],
}

fn by_name<S: serde::Serializer>(counts: &[u64; KINDS.len()], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(KINDS.iter().zip(counts).filter(|(_, n)| **n > 0))
}

impl AddAssign<&Self> for Control {
    fn add_assign(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.join_messages += other.join_messages;
        for kind in 0..KINDS.len() {
            self.elements[kind] += other.elements[kind];
            self.element_bytes[kind] += other.element_bytes[kind];
        }
    }
}

/// Index of join state in [`Control::elements`].
pub const JOIN_STATE: usize = 2;

impl Control {
    /// Counts a message and its elements: type (1 byte), length (2 bytes), value.
    pub fn count(&mut self, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len() as u64;
        let (mut at, mut joins) = (0, false);
        while let Some(&[kind, high, low]) = message.get(at..at + 3) {
            let len = 3 + usize::from(u16::from_be_bytes([high, low]));
            let kind = usize::from(kind);
            let kind = if kind < KINDS.len() { kind } else { 0 };
            self.elements[kind] += 1;
            self.element_bytes[kind] += len as u64;
            joins |= kind == JOIN_STATE;
            at += len;
        }
        self.join_messages += u64::from(joins);
    }

    /// Returns the counts since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let difference =
            |a: &[u64; KINDS.len()], b: &[u64; KINDS.len()]| std::array::from_fn(|i| a[i] - b[i]);
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            join_messages: self.join_messages - before.join_messages,
            elements: difference(&self.elements, &before.elements),
            element_bytes: difference(&self.element_bytes, &before.element_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted_by_type() {
        let mut control = Control::default();
        control.count(&[1, 0, 4, 0, 0, 0, 1, 2, 0, 1, 9, 2, 0, 0]);
        control.count(&[200, 0, 0]);
        assert_eq!((control.messages, control.bytes), (2, 17));
        assert_eq!(control.join_messages, 1);
        assert_eq!(control.elements[..3], [1, 1, 2]);
        assert_eq!(control.element_bytes[..3], [3, 7, 7]);
        let before = control;
        control += &before;
        assert_eq!(control.since(&before), before);
        let before = control;
        control.count(&[2, 0, 0]);
        assert_eq!(control.since(&before).elements[JOIN_STATE], 1);
    }
}
