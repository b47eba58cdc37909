//! The members that a node has seen, present or absent.
//!
//! The engine forgets a router an hour after it left. This list is stored, so that
//! `lcroute members` shows absent members, `lcroute revoke NAME` finds them, and an issuer gives no
//! name twice. It contains only verified certificates. Ephemeral members leave it
//! [`EPHEMERAL_FORGOTTEN_AFTER`] after they have gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use librecast::cert::{
    CLOCK_SKEW, EPHEMERAL_FORGOTTEN_AFTER, KeysAbove, MAX_NAME, Member, is_ephemeral, is_node_name,
};
use librecast::id::{NetworkId, NodeAddresses, PeerId};
use librecast::revocation::Revocation;
use librecast::time::{Instant, UnixTime};
use serde::{Deserialize, Serialize};

/// Maximum number of stored members, a network's routers; the absent one seen longest ago is
/// dropped.
const MAX_MEMBERS: usize = 4_096;

/// A line of the file: a node by its last certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    peer_id: PeerId,
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// End of its certificate, in Unix seconds.
    not_after: u64,
    /// Number in order of first sight: of two nodes with one name, the lower keeps it.
    number: u64,
    /// Time in Unix seconds.
    last_seen: u64,
    /// The keys of its chain: its membership ends with one of them.
    keys: KeysAbove,
}

impl Known {
    fn new(peer_id: PeerId, number: u64) -> Self {
        Self {
            peer_id,
            name: String::new(),
            labels: BTreeMap::new(),
            not_after: 0,
            number,
            last_seen: 0,
            keys: KeysAbove::default(),
        }
    }
}

impl Known {
    fn row(
        &self,
        network: &NetworkId,
        is_present: impl Fn(&PeerId) -> bool,
        now: UnixTime,
    ) -> KnownMember {
        let present = is_present(&self.peer_id);
        KnownMember {
            peer_id: self.peer_id,
            name: self.name.clone(),
            address: NodeAddresses::derive(network, &self.peer_id).address,
            labels: self.labels.clone(),
            present,
            last_seen: if present {
                now.as_secs()
            } else {
                self.last_seen
            },
            not_after: self.not_after,
        }
    }
}

/// An element of `members --json`: a node that has been seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMember {
    /// Its identity.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its address on the network.
    pub address: Ipv6Addr,
    /// Labels of its certificate.
    pub labels: BTreeMap<String, String>,
    /// Whether it can be reached now.
    pub present: bool,
    /// Time in Unix seconds; the present time if it is present.
    pub last_seen: u64,
    /// End of its certificate, in Unix seconds.
    pub not_after: u64,
}

/// The members that this node has seen, this node among them.
#[derive(Debug, Clone, Default)]
pub struct Members {
    known: BTreeMap<PeerId, Known>,
    /// Absent ephemeral members, by the time at which they are forgotten.
    leaving: BTreeSet<(Instant, PeerId)>,
    /// Present members, this node among them: they stay.
    present: BTreeSet<PeerId>,
    changed: bool,
}

impl Members {
    /// Parses the file's text, a member a line. Skips damaged lines, which the network can replace.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().take(MAX_MEMBERS);
        let members = lines.filter_map(|line| serde_json::from_str::<Known>(line).ok());
        let sound = |k: &Known| is_node_name(&k.name);
        Self {
            known: members.filter(sound).map(|k| (k.peer_id, k)).collect(),
            leaving: BTreeSet::new(),
            present: BTreeSet::new(),
            changed: false,
        }
    }

    /// Returns the file's text, if it has changed since the last call.
    pub fn take_text(&mut self) -> Option<String> {
        std::mem::take(&mut self.changed).then(|| {
            let lines = self
                .known
                .values()
                .filter_map(|k| serde_json::to_string(k).ok());
            lines.map(|line| line + "\n").collect()
        })
    }

    /// Starts the timeout of all ephemeral members but `own`, for a new run.
    pub(crate) fn begin(&mut self, own: &PeerId, now: Instant) {
        self.present.insert(*own);
        let ephemeral = self.known.values().filter(|k| is_ephemeral(&k.labels));
        let others = ephemeral.map(|k| k.peer_id).filter(|peer| peer != own);
        let at = now + EPHEMERAL_FORGOTTEN_AFTER;
        self.leaving = others.map(|peer| (at, peer)).collect();
    }

    /// Notes `member` as present now.
    pub fn note(&mut self, member: &Member, now: UnixTime) {
        self.leaving.retain(|(_, peer)| *peer != member.peer);
        self.present.insert(member.peer);
        let last = self.known.values().map(|k| k.number).max();
        let next = last.map_or(0, |n| n.saturating_add(1));
        let known = self.known.entry(member.peer);
        let known = known.or_insert_with(|| Known::new(member.peer, next));
        known.name.clone_from(&member.name);
        known.labels.clone_from(&member.labels);
        known.not_after = member.not_after;
        known.keys.clone_from(&member.keys);
        known.last_seen = now.as_secs();
        self.changed = true;
        self.make_room(now);
    }

    /// Notes that `peer` has gone; `time` is `now` by the host's clock.
    pub(crate) fn note_gone(&mut self, peer: &PeerId, time: UnixTime, now: Instant) {
        self.present.remove(peer);
        if let Some(known) = self.known.get_mut(peer) {
            known.last_seen = time.as_secs();
            self.changed = true;
            if is_ephemeral(&known.labels) {
                self.leaving
                    .insert((now + EPHEMERAL_FORGOTTEN_AFTER, *peer));
            }
        }
    }

    /// Forgets ephemeral members whose timeout is over; returns them.
    pub(crate) fn forget_gone(&mut self, now: Instant) -> Vec<PeerId> {
        let mut forgotten = Vec::new();
        while let Some((_, peer)) = self.leaving.first().copied().filter(|(at, _)| *at <= now) {
            self.leaving.pop_first();
            self.changed |= self.known.remove(&peer).is_some();
            forgotten.push(peer);
        }
        forgotten
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.leaving.first().map(|(at, _)| *at)
    }

    /// Returns all members but `peer` that joined by this invitation.
    pub(crate) fn that_came_by(&self, invitation: &PeerId, peer: &PeerId) -> BTreeSet<PeerId> {
        let known = self.known.values();
        let known = known.filter(|k| k.keys.invitations.first() == Some(invitation));
        let known = known.map(|k| k.peer_id);
        known.filter(|other| other != peer).collect()
    }

    /// Removes expelled members.
    pub fn expel(&mut self, revocation: &Revocation) {
        let (key, by_network) = (revocation.key(), revocation.is_by_network());
        let before = self.known.len();
        self.known
            .retain(|peer, k| !k.keys.end_with(peer, &key, by_network));
        self.changed |= self.known.len() < before;
    }

    /// Removes expired members, then those seen longest ago, down to the bound; of absent ones
    /// only.
    fn make_room(&mut self, now: UnixTime) {
        if self.known.len() <= MAX_MEMBERS {
            return;
        }
        let present = &self.present;
        self.known.retain(|peer, k| {
            present.contains(peer) || k.not_after.saturating_add(CLOCK_SKEW) >= now.as_secs()
        });
        while self.known.len() > MAX_MEMBERS {
            let absent = self
                .known
                .values()
                .filter(|k| !present.contains(&k.peer_id));
            let oldest = absent.min_by_key(|k| (k.last_seen, k.peer_id));
            let Some(peer) = oldest.map(|k| k.peer_id) else {
                return;
            };
            self.known.remove(&peer);
        }
    }

    /// Returns the name for `peer`, with a number if a member that was seen earlier has `name`.
    pub fn free_name(&self, peer: &PeerId, name: &str, now: UnixTime) -> String {
        let own = self.known.get(peer).map_or(u64::MAX, |k| k.number);
        let is_taken = |name: &str| {
            self.known.values().any(|other| {
                other.peer_id != *peer
                    && other.name.eq_ignore_ascii_case(name)
                    && (other.number, other.peer_id) < (own, *peer)
                    && other.not_after.saturating_add(CLOCK_SKEW) >= now.as_secs()
            })
        };
        if !is_taken(name) {
            return name.to_owned();
        }
        let numbered = |n: usize| {
            let number = format!("-{n}");
            let mut stem = name.to_owned();
            // a name has no hyphen before a dot or at an end
            while stem.len() + number.len() > MAX_NAME || stem.ends_with(['.', '-']) {
                stem.pop();
            }
            stem + &number
        };
        // one of the candidates is free, since they outnumber the members
        let mut names = (2..=self.known.len() + 2).map(numbered);
        names
            .find(|name| !is_taken(name))
            .unwrap_or_else(|| name.to_owned())
    }

    /// Returns whether this member was seen.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        self.known.contains_key(peer)
    }

    /// Returns absent members that may come back, the last seen first.
    pub(crate) fn away(&self, is_present: impl Fn(&PeerId) -> bool, now: UnixTime) -> Vec<PeerId> {
        let mut away: Vec<_> = self
            .known
            .values()
            .filter(|k| !is_present(&k.peer_id) && !is_ephemeral(&k.labels))
            .filter(|k| k.not_after.saturating_add(CLOCK_SKEW) >= now.as_secs())
            .collect();
        away.sort_by_key(|k| (std::cmp::Reverse(k.last_seen), k.peer_id));
        away.into_iter().map(|k| k.peer_id).collect()
    }

    /// Returns all members by name; `is_present`: whether one can be reached now.
    #[must_use]
    pub fn rows(
        &self,
        network: &NetworkId,
        is_present: impl Fn(&PeerId) -> bool,
        now: UnixTime,
    ) -> Vec<KnownMember> {
        let row = |k: &Known| k.row(network, &is_present, now);
        let mut rows: Vec<KnownMember> = self.known.values().map(row).collect();
        rows.sort_by(|a, b| (&a.name, a.peer_id).cmp(&(&b.name, b.peer_id)));
        rows
    }

    /// Returns the members that `node` identifies: a PeerId, an address, or a name.
    #[must_use]
    pub fn find(
        &self,
        network: &NetworkId,
        node: &str,
        is_present: impl Fn(&PeerId) -> bool,
        now: UnixTime,
    ) -> Vec<KnownMember> {
        let row = |k: &Known| k.row(network, &is_present, now);
        if let Ok(peer) = node.parse::<PeerId>() {
            return self.known.get(&peer).map(row).into_iter().collect();
        }
        let address = node.parse::<Ipv6Addr>().ok();
        let is_meant = |k: &&Known| match address {
            Some(address) => NodeAddresses::derive(network, &k.peer_id).address == address,
            None => k.name == node,
        };
        self.known.values().filter(is_meant).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use librecast::time::Duration;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;

    const NOW: u64 = 1_800_000_000;

    fn network() -> PeerId {
        SecretKey::from_seed(&[9; 32]).peer_id()
    }

    fn member(seed: u16, name: &str) -> Member {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        let peer = SecretKey::from_seed(&bytes).peer_id();
        Member {
            peer,
            name: name.into(),
            labels: BTreeMap::from([("site".into(), "berlin".into())]),
            prefixes: Vec::new(),
            gateway: Vec::new(),
            core: false,
            leaf: false,
            uplink: false,
            not_after: NOW + 1_000,
            addresses: NodeAddresses::derive(&network(), &peer),
            keys: KeysAbove::default(),
            bound: None,
        }
    }

    #[test]
    fn who_has_gone_is_still_listed_after_a_restart() {
        let mut members = Members::default();
        let (here, away) = (member(1, "alpha"), member(2, "beta"));
        members.note(&here, UnixTime::from_secs(NOW));
        members.note(&away, UnixTime::from_secs(NOW + 5));
        let text = members.take_text().unwrap();
        assert_eq!(members.take_text(), None, "nothing has changed since");
        let read = Members::parse(&(text + "damage\n{}\n"));
        let rows = read.rows(
            &network(),
            |peer| *peer == here.peer,
            UnixTime::from_secs(NOW + 60),
        );
        let seen: Vec<_> = rows
            .iter()
            .map(|r| (r.name.as_str(), r.present, r.last_seen - NOW))
            .collect();
        assert_eq!(seen, [("alpha", true, 60), ("beta", false, 5)]);
        assert_eq!(rows[1].labels["site"], "berlin");
        assert_eq!(rows[1].address, away.addresses.address);
        let find = |node: &str| read.find(&network(), node, |_| false, UnixTime::from_secs(NOW));
        let address = away.addresses.address.to_string();
        for node in ["beta", &address, &away.peer.to_string()] {
            assert_eq!(find(node)[0].peer_id, away.peer, "{node}");
        }
        assert_eq!(find("gamma"), []);
    }

    #[test]
    fn those_that_are_away_come_last_seen_first_without_the_ephemeral_and_the_expired() {
        let mut members = Members::default();
        let mut brief = member(4, "brief");
        let (label, value) = librecast::cert::EPHEMERAL;
        brief.labels = BTreeMap::from([(label.into(), value.into())]);
        for (at, member) in [
            (1, member(1, "alpha")),
            (3, member(2, "beta")),
            (2, member(3, "gamma")),
            (4, brief),
        ] {
            members.note(&member, UnixTime::from_secs(NOW + at));
        }
        let peer = |n| member(n, "x").peer;
        let away = members.away(|other| *other == peer(3), UnixTime::from_secs(NOW));
        assert_eq!(away, [peer(2), peer(1)]);
        let later = NOW + 1_000 + CLOCK_SKEW + 1;
        assert_eq!(members.away(|_| false, UnixTime::from_secs(later)), []);
    }

    #[test]
    fn the_later_of_two_nodes_of_one_name_gets_a_number() {
        let mut members = Members::default();
        let [first, second, third] = [1, 2, 3].map(|seed| member(seed, "beta"));
        // both within one second
        members.note(&first, UnixTime::from_secs(NOW));
        members.note(&second, UnixTime::from_secs(NOW));
        let name =
            |m: &Members, of: &Member| m.free_name(&of.peer, "beta", UnixTime::from_secs(NOW + 9));
        assert_eq!(name(&members, &first), "beta");
        assert_eq!(name(&members, &second), "beta-2");
        let mut renamed = second.clone();
        renamed.name = "beta-2".into();
        members.note(&renamed, UnixTime::from_secs(NOW + 2));
        assert_eq!(name(&members, &third), "beta-3", "not seen yet: the last");
        assert_eq!(
            members.free_name(&third.peer, "BETA", UnixTime::from_secs(NOW)),
            "BETA-3"
        );
        let network = SecretKey::from_seed(&[9; 32]);
        let out = Revocation::by_network(&network, first.peer, UnixTime::from_secs(NOW), NOW + 9)
            .unwrap();
        members.expel(&out);
        assert_eq!(
            name(&members, &third),
            "beta",
            "an expelled node has no name"
        );
        assert_eq!(
            members.free_name(&third.peer, "gamma", UnixTime::from_secs(NOW)),
            "gamma"
        );
        // an expired certificate reserves no name
        members.note(&first, UnixTime::from_secs(NOW));
        let late = NOW + 2_000 + CLOCK_SKEW;
        assert_eq!(
            members.free_name(&third.peer, "beta", UnixTime::from_secs(late)),
            "beta"
        );
    }

    #[test]
    fn ephemeral_members_are_forgotten_after_a_while_and_others_are_not() {
        let ephemeral = |seed: u16| {
            let (label, value) = librecast::cert::EPHEMERAL;
            let labels = BTreeMap::from([(label.into(), value.into())]);
            Member {
                labels,
                ..member(seed, "pod")
            }
        };
        let (begin, own) = (start(), member(1, "own"));
        let mut members = Members::default();
        members.note(&own, UnixTime::from_secs(NOW));
        members.note(&member(2, "away"), UnixTime::from_secs(NOW));
        members.note_gone(&member(2, "away").peer, UnixTime::from_secs(NOW), begin);
        let minute = Duration::from_secs(60);
        // each minute another one of the same name
        let mut now = begin;
        for run in 100..400 {
            members.note(&ephemeral(run), UnixTime::from_secs(NOW));
            now += minute;
            members.note_gone(&ephemeral(run).peer, UnixTime::from_secs(NOW), now);
            members.forget_gone(now);
            assert!(members.known.len() <= 2 + 6, "{run}");
        }
        // a member that returns is not forgotten
        let back = ephemeral(399);
        members.note(&back, UnixTime::from_secs(NOW));
        assert_eq!(members.forget_gone(now + 60 * minute).len(), 4);
        assert_eq!((members.known.len(), members.next_timeout()), (3, None));
        // after a restart, absent ones time out
        let mut again = Members::parse(&members.take_text().unwrap());
        again.begin(&own.peer, now);
        assert_eq!(again.forget_gone(now + minute), []);
        assert_eq!(again.next_timeout(), Some(now + EPHEMERAL_FORGOTTEN_AFTER));
        let forgotten = again.forget_gone(now + EPHEMERAL_FORGOTTEN_AFTER);
        assert_eq!(forgotten, [back.peer]);
        let names: Vec<_> = again.known.values().map(|k| k.name.as_str()).collect();
        assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(["own", "away"]));
        // except this node itself
        let mut own = Members::default();
        own.note(&back, UnixTime::from_secs(NOW));
        own.begin(&back.peer, now);
        assert_eq!(own.next_timeout(), None);
    }

    #[test]
    fn of_too_many_who_is_absent_and_was_seen_longest_ago_is_forgotten() {
        let (own, there) = (member(0, "x"), member(1, "x"));
        let mut members = Members::default();
        members.note(&own, UnixTime::from_secs(NOW));
        members.begin(&own.peer, start());
        members.note(&there, UnixTime::from_secs(NOW + 1));
        for seed in 2..=MAX_MEMBERS as u16 + 1 {
            let member = member(seed, "x");
            members.note(&member, UnixTime::from_secs(NOW + u64::from(seed)));
            members.note_gone(
                &member.peer,
                UnixTime::from_secs(NOW + u64::from(seed)),
                start(),
            );
        }
        assert_eq!(members.known.len(), MAX_MEMBERS);
        let known = |seed| members.known.contains_key(&member(seed, "x").peer);
        assert_eq!([0, 1, 2, 3, 4].map(known), [true, true, false, false, true]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_what_is_written_is_a_name(text in "\\PC{0,300}", name in "[a-z]{50,59}[.-]{0,1}[a-z]{1,3}") {
            let _ = Members::parse(&text);
            let mut members = Members::default();
            members.note(&member(1, &name), UnixTime::from_secs(NOW));
            let other = members.free_name(&member(2, &name).peer, &name, UnixTime::from_secs(NOW));
            prop_assert!(is_node_name(&other) && other != name, "{}", other);
        }
    }
}
