//! Addresses of peers that can be reached without any server: from records, messages and last
//! paths.
//!
//! A peer whose link fell silent is asked twice a second for a minute on the last path, which NATs
//! and firewalls keep open for about that time. The addresses of a record are asked as often at
//! first: this finds a peer on a LAN, or behind firewalls and NATs that requests from both sides
//! open. Then they are asked four times a minute while the record is valid, which keeps these open
//! for a peer that receives the record later. ICE makes no attempt meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use librecast::bucket::{Bucket, Rate};
use librecast::id::PeerId;
use librecast::time::{Duration, Instant};

use crate::connections::Path;
use crate::event::CarrierKind;
use crate::record::PresenceRecord;

/// Maximum number of peers with known addresses.
const MAX_PEERS: usize = 1_024;
/// Pause between the first requests. Chosen: a restored path is used within a second.
const QUICK: Duration = Duration::from_millis(500);
/// Number of unanswered requests with that pause.
const QUICK_REQUESTS: u32 = 20;
/// Pause between later ones. The kernel's firewall keeps a pair open for 30 s.
const SLOW: Duration = Duration::from_secs(15);
/// Time for which a peer is asked at its last address. Chosen: twice the lifetime of consent (RFC
/// 7675), the least time for which NATs keep a pair open.
const HEARD_FOR: Duration = Duration::from_secs(60);
/// Time after a message for which its address alone is used.
const IS_THERE: Duration = Duration::from_secs(5);
/// Datagrams to unproven addresses: a record may name any host's. A message takes up to eight.
const UNPROVEN: Rate = Rate::per_second(100, 400);

/// Addresses of all peers.
#[derive(Debug)]
pub(crate) struct Places {
    peers: BTreeMap<PeerId, Place>,
    /// The last peer that sent from an address.
    heard: BTreeMap<SocketAddr, PeerId>,
    unproven: Bucket,
}

#[derive(Debug)]
struct Place {
    record: Option<Known>,
    /// The last proven path, and its time.
    heard: Option<(Path, Instant)>,
    /// An earlier path with another address: two hosts with one key both get messages.
    heard_before: Option<(Path, Instant)>,
    /// Ask at the last path even if not wanted: a node that can reach no peer wants none.
    insists: bool,
    requests: u32,
    next_request: Instant,
}

/// The content of its record.
#[derive(Debug)]
struct Known {
    kind: CarrierKind,
    addresses: Vec<SocketAddr>,
    made: u64,
    until: Instant,
}

/// The result of storing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    Taken,
    /// A newer record is known.
    Older,
    Full,
}

impl Places {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            peers: BTreeMap::new(),
            heard: BTreeMap::new(),
            unproven: Bucket::full(now),
        }
    }

    /// Stores a record that is valid until `until`.
    pub(crate) fn learn(
        &mut self,
        kind: CarrierKind,
        record: &PresenceRecord,
        until: Instant,
        now: Instant,
    ) -> Learned {
        let Some(place) = self.place(record.node, now) else {
            return Learned::Full;
        };
        let known = place.record.as_ref().filter(|known| now < known.until);
        if known.is_some_and(|known| known.made > record.made) {
            return Learned::Older;
        }
        let addresses = record.candidates.iter().map(|c| c.addr);
        let addresses: Vec<_> = addresses
            .filter(|address| is_elsewhere(kind, address.ip()))
            .collect();
        if known.is_none_or(|known| known.addresses != addresses) {
            (place.requests, place.next_request) = (0, now);
        }
        place.record = Some(Known {
            kind,
            addresses,
            made: record.made,
            until,
        });
        Learned::Taken
    }

    /// Removes a record that its carrier no longer has.
    pub(crate) fn unlearn(&mut self, peer: &PeerId, kind: CarrierKind) {
        if let Some(place) = self.peers.get_mut(peer)
            && place
                .record
                .as_ref()
                .is_some_and(|known| known.kind == kind)
        {
            place.record = None;
        }
    }

    /// Stores the path of a verified message, or of a link that fell silent.
    pub(crate) fn hear(&mut self, peer: PeerId, path: Path, now: Instant) {
        let Some(place) = self.place(peer, now) else {
            return;
        };
        let before = place.heard.replace((path, now));
        if let Some((before, at)) = before {
            if before.remote != path.remote {
                place.heard_before = Some((before, at));
            }
            if self.heard.get(&before.remote) == Some(&peer) {
                self.heard.remove(&before.remote);
            }
        }
        self.heard.insert(path.remote, peer);
        debug_assert!(
            self.heard.len() <= self.peers.len(),
            "a peer was last received at one address"
        );
    }

    /// Restarts quick requests after a link's end; with `insist`, also to an unwanted peer's last
    /// path.
    pub(crate) fn ask_again(&mut self, peer: &PeerId, insist: bool, now: Instant) {
        if let Some(place) = self.peers.get_mut(peer) {
            place.insists = insist;
            // the end of the link has caused one request already
            (place.requests, place.next_request) = (0, now + QUICK);
        }
    }

    /// Ends insistent requests: there is a link.
    pub(crate) fn found(&mut self, peer: &PeerId) {
        if let Some(place) = self.peers.get_mut(peer) {
            place.insists = false;
        }
    }

    /// Returns the last peer that sent from this address within a minute.
    pub(crate) fn at(&self, address: SocketAddr, now: Instant) -> Option<PeerId> {
        let peer = self.heard.get(&address)?;
        let heard = self.peers.get(peer)?.heard_within(HEARD_FOR, now);
        heard.map(|_| *peer)
    }

    /// Returns the kind of carrier that brought its record.
    pub(crate) fn kind(&self, peer: &PeerId) -> Option<CarrierKind> {
        Some(self.peers.get(peer)?.record.as_ref()?.kind)
    }

    /// Returns the targets of a message of `datagrams` datagrams, with this node's address if it
    /// matters.
    pub(crate) fn of(
        &mut self,
        peer: &PeerId,
        datagrams: usize,
        now: Instant,
    ) -> Vec<(Option<SocketAddr>, SocketAddr)> {
        let Some(place) = self.peers.get(peer) else {
            return Vec::new();
        };
        let heard = place.heard_within(HEARD_FOR, now);
        let mut all: Vec<_> = heard
            .map(|path| (Some(path.local), path.remote))
            .into_iter()
            .collect();
        let before = place.heard_before.filter(|(_, at)| now < *at + IS_THERE);
        if let (Some(last), Some((before, _))) = (heard, before)
            && last.remote != before.remote
        {
            all.push((Some(before.local), before.remote));
        }
        let known = place.record.as_ref().filter(|known| now < known.until);
        if let Some(known) = known
            && place.heard_within(IS_THERE, now).is_none()
        {
            let count = known.addresses.len();
            // rotates the order, since the budget may not suffice for all
            let first = place.requests as usize % count.max(1);
            let others = known.addresses.iter().cycle().skip(first).take(count);
            let others = others.filter(|address| heard.is_none_or(|path| path.remote != **address));
            let unproven = &mut self.unproven;
            let admitted = others.filter(|_| unproven.take(UNPROVEN, datagrams as u64, now));
            all.extend(admitted.map(|address| (None, *address)));
        }
        all
    }

    /// Returns the time of the next request to `peer`.
    pub(crate) fn deadline(&self, peer: &PeerId, wanted: bool, now: Instant) -> Option<Instant> {
        let place = self.peers.get(peer)?;
        let at = place.next_request.max(now);
        place.is_asked(wanted, at).then_some(place.next_request)
    }

    /// Returns whether `peer` is to be asked now; if so, a pause begins.
    pub(crate) fn take_due(&mut self, peer: &PeerId, wanted: bool, now: Instant) -> bool {
        let Some(place) = self.peers.get_mut(peer) else {
            return false;
        };
        if now < place.next_request || !place.is_asked(wanted, now) {
            return false;
        }
        place.requests = place.requests.saturating_add(1);
        let heard = place.heard_within(HEARD_FOR, now).is_some();
        let quick = heard || place.requests < QUICK_REQUESTS;
        place.next_request = now + if quick { QUICK } else { SLOW };
        true
    }

    /// Forgets a peer that left the network, unless it sent something lately or has a valid record.
    pub(crate) fn forget(&mut self, peer: &PeerId, now: Instant) {
        if self
            .peers
            .get(peer)
            .is_some_and(|place| !place.is_known(now))
        {
            self.peers.remove(peer);
            self.heard.retain(|_, heard| heard != peer);
        }
    }

    fn place(&mut self, peer: PeerId, now: Instant) -> Option<&mut Place> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            self.peers.retain(|_, place| place.is_known(now));
            let peers = &self.peers;
            self.heard.retain(|_, peer| peers.contains_key(peer));
        }
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            return None;
        }
        debug_assert!(
            self.peers.len() <= MAX_PEERS,
            "peers with addresses have a bound"
        );
        Some(self.peers.entry(peer).or_insert(Place {
            record: None,
            heard: None,
            heard_before: None,
            insists: false,
            requests: 0,
            next_request: now,
        }))
    }
}

/// Returns whether an address in a record of this carrier can be another host's. IPv6 link-local
/// addresses would need the link's name. IPv4 link-local ones count if the record came over that
/// link or by hand.
fn is_elsewhere(kind: CarrierKind, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_usual = !matches!(ip.octets()[0], 0 | 127 | 224..);
            let far = [CarrierKind::Spool, CarrierKind::Dht, CarrierKind::Matrix].contains(&kind);
            is_usual && !(far && ip.is_link_local())
        }
        IpAddr::V6(ip) => {
            let never = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
            !(never || ip.is_unicast_link_local())
        }
    }
}

impl Place {
    fn heard_within(&self, time: Duration, now: Instant) -> Option<Path> {
        let (path, at) = self.heard?;
        (now < at + time).then_some(path)
    }

    fn is_known(&self, now: Instant) -> bool {
        let recorded = self.record.as_ref().is_some_and(|known| now < known.until);
        recorded || self.heard_within(HEARD_FOR, now).is_some()
    }

    fn is_asked(&self, wanted: bool, now: Instant) -> bool {
        let insists = self.insists && self.heard_within(HEARD_FOR, now).is_some();
        insists || (wanted && self.is_known(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::{Candidate, CandidateKind};
    use crate::tests::{peer, start};

    fn address(n: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(0xc612_0000 + n).into(), 7)
    }

    fn record(node: PeerId, made: u64, addresses: impl Iterator<Item = u32>) -> PresenceRecord {
        let candidate = |n| Candidate {
            kind: CandidateKind::Host,
            addr: address(n),
        };
        PresenceRecord {
            node,
            made,
            until: made + 60,
            candidates: addresses.map(candidate).collect(),
        }
    }

    fn learn(places: &mut Places, record: &PresenceRecord, now: Instant) -> Learned {
        places.learn(
            CarrierKind::Lan,
            record,
            now + Duration::from_secs(3_600),
            now,
        )
    }

    #[test]
    fn a_recorded_peer_is_asked_quickly_at_first_and_as_long_as_the_record_is_good() {
        let (mut places, begin) = (Places::new(start()), start());
        learn(&mut places, &record(peer(1), 1, 1..2), begin);
        assert_eq!(places.deadline(&peer(1), false, begin), None);
        let (mut now, mut asked) = (begin, Vec::new());
        while let Some(at) = places.deadline(&peer(1), true, now) {
            now = at;
            assert!(places.take_due(&peer(1), true, now));
            assert!(!places.take_due(&peer(1), true, now));
            asked.push(now.saturating_duration_since(begin).as_secs());
        }
        assert_eq!(asked.iter().filter(|s| **s < 10).count(), 20);
        let pauses = asked.windows(2).skip(20).all(|w| w[1] - w[0] <= 15);
        assert!(pauses && *asked.last().unwrap() >= 3_600 - 15, "{asked:?}");
    }

    #[test]
    fn messages_go_to_all_addresses_until_the_peer_is_heard_at_one() {
        let (mut places, now) = (Places::new(start()), start());
        learn(&mut places, &record(peer(1), 1, 1..4), now);
        let all: Vec<_> = (1..4).map(|n| (None, address(n))).collect();
        assert_eq!(places.of(&peer(1), 1, now), all);
        let path = Path {
            local: address(9),
            remote: address(7),
        };
        places.hear(peer(1), path, now);
        assert_eq!(places.at(address(7), now), Some(peer(1)));
        assert_eq!(
            places.of(&peer(1), 1, now),
            [(Some(address(9)), address(7))]
        );
        // it does not answer at this address any more: it may have moved
        let later = now + IS_THERE;
        assert_eq!(places.of(&peer(1), 1, later).len(), 4);
        let later = now + HEARD_FOR;
        assert_eq!(places.of(&peer(1), 1, later), all);
        assert_eq!(places.at(address(7), later), None);
    }

    #[test]
    fn two_hosts_with_one_key_are_both_sent_to_while_both_are_heard() {
        let (mut places, now) = (Places::new(start()), start());
        let path = |n| Path {
            local: address(9),
            remote: address(n),
        };
        let at = |n| (Some(address(9)), address(n));
        places.hear(peer(1), path(1), now);
        places.hear(peer(1), path(2), now);
        places.hear(peer(1), path(2), now);
        assert_eq!(places.of(&peer(1), 1, now), [at(2), at(1)]);
        places.hear(peer(1), path(1), now);
        assert_eq!(places.of(&peer(1), 1, now), [at(1), at(2)]);
        let later = now + IS_THERE;
        assert_eq!(places.of(&peer(1), 1, later), [at(1)]);
    }

    #[test]
    fn who_knows_of_no_record_is_asked_for_a_minute_where_its_link_fell_silent() {
        let (mut places, now) = (Places::new(start()), start());
        let path = Path {
            local: address(9),
            remote: address(7),
        };
        places.hear(peer(1), path, now);
        places.ask_again(&peer(1), true, now);
        let mut at = now;
        let mut asked = 0;
        while let Some(next) = places.deadline(&peer(1), false, at) {
            at = next;
            asked += u32::from(places.take_due(&peer(1), false, at));
        }
        assert_eq!(asked, 119);
        places.ask_again(&peer(1), false, now);
        assert_eq!(places.deadline(&peer(1), false, now), None);
    }

    #[test]
    fn an_older_record_changes_nothing_and_room_is_bounded() {
        let (mut places, now) = (Places::new(start()), start());
        assert_eq!(
            learn(&mut places, &record(peer(0), 5, 1..2), now),
            Learned::Taken
        );
        assert_eq!(
            learn(&mut places, &record(peer(0), 4, 2..3), now),
            Learned::Older
        );
        assert_eq!(places.of(&peer(0), 1, now), [(None, address(1))]);
        for n in 1..MAX_PEERS as u32 {
            assert_eq!(
                learn(&mut places, &record(peer(n), 5, 1..2), now),
                Learned::Taken
            );
        }
        let other = || record(peer(9_999), 5, 1..2);
        assert_eq!(learn(&mut places, &other(), now), Learned::Full);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(learn(&mut places, &other(), later), Learned::Taken);
        assert_eq!(places.peers.len(), 1);
    }

    #[test]
    fn who_has_left_is_forgotten_unless_it_was_heard_lately_or_has_a_record() {
        let (mut places, now) = (Places::new(start()), start());
        let path = |n| Path {
            local: address(0),
            remote: address(n),
        };
        for n in 1..50 {
            places.hear(peer(n), path(n), now);
            places.forget(&peer(n), now);
        }
        assert_eq!((places.peers.len(), places.heard.len()), (49, 49));
        learn(&mut places, &record(peer(1), 1, 1..2), now);
        for n in 1..50 {
            places.forget(&peer(n), now + HEARD_FOR);
        }
        assert_eq!((places.peers.len(), places.heard.len()), (1, 1));
    }

    #[test]
    fn records_that_name_strangers_make_few_datagrams() {
        let (mut places, now) = (Places::new(start()), start());
        let mut sent = 0;
        for n in 0..1_000 {
            learn(&mut places, &record(peer(n), 1, 0..16), now);
            sent += places.of(&peer(n), 1, now).len();
        }
        assert_eq!(sent, 400);
        assert_eq!(
            places
                .of(&peer(1), 1, now + Duration::from_millis(20))
                .len(),
            2
        );
    }

    #[test]
    fn a_message_costs_what_its_datagrams_do() {
        let (mut places, now) = (Places::new(start()), start());
        let mut sent = 0;
        for n in 0..1_000 {
            learn(&mut places, &record(peer(n), 1, 0..16), now);
            sent += 6 * places.of(&peer(n), 6, now).len();
        }
        assert_eq!(sent, 396);
        // all addresses of a peer are tried in turn if the budget does not suffice
        let (mut tried, mut later) = (std::collections::BTreeSet::new(), now);
        while tried.len() < 16 {
            assert!(later < now + Duration::from_secs(60), "{tried:?}");
            later += Duration::from_millis(500);
            places.take_due(&peer(1), true, later);
            tried.extend(places.of(&peer(1), 6, later));
        }
    }

    #[test]
    fn a_record_names_no_address_of_this_host() {
        let now = start();
        let known = |kind, address: &str| {
            let mut places = Places::new(now);
            let mut record = record(peer(1), 1, 0..1);
            record.candidates[0].addr = address.parse().unwrap();
            places.learn(kind, &record, now + QUICK, now);
            !places.of(&peer(1), 1, now).is_empty()
        };
        for never in [
            "127.0.0.1:7",
            "127.9.9.9:7",
            "0.1.2.3:7",
            "239.1.1.1:7",
            "255.255.255.255:7",
            "[::1]:7",
            "[::]:7",
            "[ff02::1]:7",
            "[fe80::1]:7",
        ] {
            assert!(!known(CarrierKind::Lan, never), "{never}");
        }
        for address in [
            "192.0.2.1:7",
            "10.0.0.1:7",
            "[2001:db8::1]:7",
            "[fd00::1]:7",
        ] {
            assert!(known(CarrierKind::Spool, address), "{address}");
        }
        assert!(known(CarrierKind::Lan, "169.254.1.1:7"));
        assert!(!known(CarrierKind::Spool, "169.254.169.254:7"));
        assert!(!known(CarrierKind::Dht, "169.254.169.254:7"));
        assert!(!known(CarrierKind::Matrix, "169.254.169.254:7"));
    }
}
