//! Admission of handshakes. A node with many unfinished handshakes leaves room for other nodes: an
//! address has few at a time, and nodes without permission have their own share. With many
//! unfinished ones, or some that others closed, an address must first prove that it receives.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lcroute_control::status::Contact;
use librecast::bucket::{Bucket, Rate};
use librecast::time::Instant;

/// Rate of handshakes of one node.
const OF_NODE: Rate = Rate::per_second(10, 20);
/// Rate of handshakes of all nodes with permission, and of all without.
const OF_ALL: Rate = Rate::per_second(100, 200);
/// Rate of handshakes of one node that it closes itself. quinn-proto keeps a connection, some 110 kB,
/// until its idle timeout if the first packet closes it. Chosen: 5 MB in five minutes.
const CLOSED_OF_NODE: Rate = Rate::every(Duration::from_secs(10), 16);
/// The same of all nodes with permission, and of all without. Chosen: 45 MB in five minutes.
const CLOSED_OF_ALL: Rate = Rate::per_second(1, 128);
/// Rate of questions to the daemon about addresses. Chosen: the rate of handshakes.
const QUESTIONS: Rate = Rate::per_second(100, 200);
/// Maximum number of unfinished handshakes of one node. Chosen: one is enough, and two may be lost.
const UNFINISHED_OF_NODE: usize = 4;
/// Maximum number of unfinished handshakes per class. Chosen: a second of [`OF_ALL`].
const UNFINISHED: usize = 64;
/// Unfinished handshakes beyond which addresses are validated (RFC 9000 §8.1.2). Chosen.
const CROWD: usize = 16;
/// Maximum number of nodes with counted handshakes or stored answers: a network's maximum.
const MAX_COUNTED: usize = 4_096;
/// Age after which the daemon is asked about an address again. Chosen: only the class may be old.
const KNOWN: Duration = Duration::from_secs(60);

/// The decision about a new handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It continues; [`Admission::end`] releases its place.
    GoesOn,
    /// Its address must be validated.
    Validate,
    /// It is refused.
    Refused,
}

/// The class of a handshake, before it proves an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The address of a node that may use some served protocol.
    Permitted,
    /// The address of another node, or an unknown one.
    Other,
}

/// The end of a handshake that continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It completed, or this node gave it up.
    Here,
    /// The other node closed it.
    ClosedByOther,
}

/// Recent and unfinished handshakes.
#[derive(Debug)]
pub struct Admission {
    nodes: BTreeMap<IpAddr, Node>,
    contacts: BTreeMap<IpAddr, (Option<Contact>, Instant)>,
    questions: Bucket,
    permitted: Share,
    others: Share,
    unfinished: usize,
}

#[derive(Debug)]
struct Node {
    bucket: Bucket,
    closed: Bucket,
    unfinished: usize,
}

impl Node {
    fn is_idle(&self, now: Instant) -> bool {
        self.unfinished == 0
            && self.bucket.left(OF_NODE, now) == OF_NODE.burst()
            && self.closed.left(CLOSED_OF_NODE, now) == CLOSED_OF_NODE.burst()
    }
}

#[derive(Debug)]
struct Share {
    bucket: Bucket,
    closed: Bucket,
    unfinished: usize,
}

impl Share {
    fn new(now: Instant) -> Self {
        Self {
            bucket: Bucket::full(now),
            closed: Bucket::full(now),
            unfinished: 0,
        }
    }
}

impl Admission {
    pub fn new(now: Instant) -> Self {
        Self {
            nodes: BTreeMap::new(),
            contacts: BTreeMap::new(),
            questions: Bucket::full(now),
            permitted: Share::new(now),
            others: Share::new(now),
            unfinished: 0,
        }
    }

    /// Begins a handshake at `address`; `is_validated`: it has proven that it receives.
    pub fn begin(&mut self, address: IpAddr, is_validated: bool, now: Instant) -> Begun {
        let of_node = self.nodes.get(&address).map_or(0, |node| node.unfinished);
        // forged sources can take one place of an address, and none of its handshakes
        let is_calm = of_node == 0 && self.unfinished < CROWD && self.closed_none(now);
        if !is_validated && !is_calm {
            return Begun::Validate;
        }
        // the sum of both shares: the class is determined later
        if of_node >= UNFINISHED_OF_NODE || self.unfinished >= 2 * UNFINISHED {
            return Begun::Refused;
        }
        if self.nodes.len() >= MAX_COUNTED {
            self.nodes.retain(|_, node| !node.is_idle(now));
        }
        if self.nodes.len() >= MAX_COUNTED && !self.nodes.contains_key(&address) {
            return Begun::Refused;
        }
        let node = self.nodes.entry(address).or_insert_with(|| Node {
            bucket: Bucket::full(now),
            closed: Bucket::full(now),
            unfinished: 0,
        });
        if !node.closed.ready(CLOSED_OF_NODE, now) || !node.bucket.take(OF_NODE, 1, now) {
            return Begun::Refused;
        }
        node.unfinished += 1;
        self.unfinished += 1;
        Begun::GoesOn
    }

    /// Returns the daemon's answer about an address; `None` if it is to be asked.
    pub fn contact(&mut self, address: IpAddr, now: Instant) -> Option<Option<Contact>> {
        let known = self.contacts.get(&address);
        if let Some((contact, since)) = known
            && now.saturating_duration_since(*since) < KNOWN
        {
            return Some(contact.clone());
        }
        match self.questions.take(QUESTIONS, 1, now) {
            true => None,
            false => Some(known.and_then(|(contact, _)| contact.clone())),
        }
    }

    /// Stores the daemon's answer about an address.
    pub fn remember(&mut self, address: IpAddr, contact: Option<Contact>, now: Instant) {
        if self.contacts.len() >= MAX_COUNTED {
            let is_new = |since: Instant| now.saturating_duration_since(since) < KNOWN;
            self.contacts.retain(|_, (_, since)| is_new(*since));
        }
        if self.contacts.len() < MAX_COUNTED {
            self.contacts.insert(address, (contact, now));
        }
    }

    /// Returns whether a handshake of this class gets a place in its share.
    pub fn admit(&mut self, class: Class, now: Instant) -> bool {
        let share = self.share(class);
        let has_place = share.unfinished < UNFINISHED
            && share.closed.ready(CLOSED_OF_ALL, now)
            && share.bucket.take(OF_ALL, 1, now);
        share.unfinished += usize::from(has_place);
        has_place
    }

    /// Ends a handshake that continued; `admitted`: the class of its place.
    pub fn end(&mut self, address: IpAddr, admitted: Option<Class>, ended: Ended, now: Instant) {
        let closed = u64::from(ended == Ended::ClosedByOther);
        self.unfinished -= 1;
        if let Some(node) = self.nodes.get_mut(&address) {
            node.unfinished -= 1;
            node.closed.spend(CLOSED_OF_NODE, closed, now);
        }
        if let Some(class) = admitted {
            let share = self.share(class);
            share.unfinished -= 1;
            share.closed.spend(CLOSED_OF_ALL, closed, now);
        }
    }

    /// Returns whether no handshake was closed by another node recently.
    fn closed_none(&self, now: Instant) -> bool {
        [&self.permitted, &self.others]
            .iter()
            .all(|share| share.closed.left(CLOSED_OF_ALL, now) == CLOSED_OF_ALL.burst())
    }

    fn share(&mut self, class: Class) -> &mut Share {
        match class {
            Class::Permitted => &mut self.permitted,
            Class::Other => &mut self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv6Addr::from_bits(n.into()).into()
    }

    #[test]
    fn one_node_cannot_use_up_the_handshakes_of_others() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        let mut finish = |n: u32, class: Class, now: Instant| {
            let begun = admission.begin(address(n), true, now) == Begun::GoesOn;
            let admitted = begun && admission.admit(class, now);
            if begun {
                admission.end(address(n), admitted.then_some(class), Ended::Here, now);
            }
            admitted
        };
        let of_one = (0..1_000).filter(|_| finish(1, Class::Other, now)).count();
        assert_eq!(of_one, 20);
        assert!(finish(2, Class::Other, now));
        let of_many = (0..10_000)
            .filter(|n| finish(3 + n, Class::Other, now))
            .count();
        assert!(of_many < 200, "{of_many}");
        assert!(
            finish(20_000, Class::Permitted, now) || {
                // the table is full of addresses
                finish(20_000, Class::Permitted, now + Duration::from_secs(60))
            }
        );
        let later = now + Duration::from_secs(60);
        assert!(finish(1, Class::Other, later));
        assert!(admission.nodes.len() <= MAX_COUNTED);
    }

    #[test]
    fn unfinished_ones_of_others_leave_places_for_nodes_with_permission() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        let mut open = Vec::new();
        for n in 0..1_000 {
            for _ in 0..10 {
                if admission.begin(address(n), true, now) == Begun::GoesOn {
                    let admitted = admission.admit(Class::Other, now);
                    if admitted {
                        open.push(address(n));
                    } else {
                        admission.end(address(n), None, Ended::Here, now);
                    }
                }
            }
        }
        assert_eq!(open.len(), UNFINISHED);
        let of_first = open.iter().filter(|a| **a == address(0)).count();
        assert_eq!(of_first, UNFINISHED_OF_NODE);
        let me = address(5_000);
        for _ in 0..5 {
            // beyond `CROWD`, one more round trip
            assert_eq!(admission.begin(me, false, now), Begun::Validate);
            assert_eq!(admission.begin(me, true, now), Begun::GoesOn);
            assert!(admission.admit(Class::Permitted, now));
            admission.end(me, Some(Class::Permitted), Ended::Here, now);
        }
        for address in open {
            admission.end(address, Some(Class::Other), Ended::Here, now);
        }
        assert_eq!(admission.unfinished, 0);
        assert_eq!(admission.begin(me, false, now), Begun::GoesOn);
        // without a validated address, no second handshake
        assert_eq!(admission.begin(me, false, now), Begun::Validate);
    }

    #[test]
    fn handshakes_that_others_close_are_few_for_a_node_and_leave_room_for_nodes_with_permission() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        // a source that may be forged uses up no more than one
        assert_eq!(admission.begin(address(0), false, now), Begun::GoesOn);
        assert!(admission.admit(Class::Other, now));
        admission.end(address(0), Some(Class::Other), Ended::ClosedByOther, now);
        assert_eq!(admission.begin(address(1), false, now), Begun::Validate);
        // as many as the other rates admit in five minutes
        let (mut of_one, mut of_all) = (0, 0);
        for second in 0..300 {
            let now = now + Duration::from_secs(second);
            for n in 0..200 {
                let from = address(n % 64);
                if admission.begin(from, true, now) != Begun::GoesOn {
                    continue;
                }
                let admitted = admission.admit(Class::Other, now).then_some(Class::Other);
                let closed = admitted.map_or(Ended::Here, |_| Ended::ClosedByOther);
                of_all += u64::from(admitted.is_some());
                of_one += u64::from(admitted.is_some() && n % 64 == 0);
                admission.end(from, admitted, closed, now);
            }
        }
        let most = |rate: Rate, seconds: u64| rate.burst() + seconds;
        assert!(of_one <= most(CLOSED_OF_NODE, 30) + 1, "{of_one}");
        assert!(of_all <= most(CLOSED_OF_ALL, 300) + 1, "{of_all}");
        assert!(of_all > 300, "{of_all}");
        let now = now + Duration::from_secs(300);
        assert_eq!(admission.begin(address(5_000), true, now), Begun::GoesOn);
        assert!(admission.admit(Class::Permitted, now));
        admission.end(address(5_000), Some(Class::Permitted), Ended::Here, now);
        // the one that was refused is accepted again
        let later = now + Duration::from_secs(10);
        assert_eq!(admission.begin(address(0), true, later), Begun::GoesOn);
        assert!(admission.admit(Class::Other, later));
    }

    #[test]
    fn the_daemon_is_asked_once_about_an_address_and_seldom_in_all() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        assert_eq!(admission.contact(address(1), now), None);
        admission.remember(address(1), None, now);
        assert_eq!(admission.contact(address(1), now), Some(None));
        let questions = (2..10_000)
            .filter(|n| admission.contact(address(*n), now).is_none())
            .count();
        assert_eq!(questions, 199);
        let later = now + KNOWN;
        assert_eq!(admission.contact(address(1), later), None);
        for n in 0..10_000 {
            admission.remember(address(n), None, later);
        }
        assert!(admission.contacts.len() <= MAX_COUNTED);
    }
}
