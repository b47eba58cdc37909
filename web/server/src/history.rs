//! The last minutes for a new page, in memory and bounded: rates, changes of links and nodes.

use std::collections::{BTreeMap, VecDeque};

use lcroute_control::status::{Peer, Status};
use lcroute_node::view::Network;
use librecast::id::PeerId;
use serde::Serialize;

/// Interval of stored rates, in seconds. Chosen: fine enough for a curve of a quarter of an hour.
pub const INTERVAL: u64 = 5;
/// Stored points: a quarter of an hour.
const MAX_POINTS: usize = 180;
/// Stored events. Chosen: as many as a page lists.
const MAX_EVENTS: usize = 100;

/// Rates of an interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Point {
    /// Unix seconds at its end.
    at: f64,
    /// Bytes of groups a second, in and out.
    rates: [f64; 2],
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Unix seconds.
    at: f64,
    kind: &'static str,
    /// The peer of the link, or the node.
    name: String,
    /// The daemon's reason.
    why: Option<String>,
}

/// Recent points and events.
#[derive(Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
    events: VecDeque<Event>,
    /// When bytes were last counted, and their number.
    counted: Option<(f64, [u64; 2])>,
    /// Links that were up. None: the earlier state is unknown.
    links: Option<BTreeMap<PeerId, String>>,
    /// Nodes that were present; known only while a page is open.
    nodes: Option<BTreeMap<String, String>>,
    is_silent: bool,
}

/// The first message to a page.
#[derive(Debug, Serialize)]
pub struct Beginning<'a> {
    points: &'a VecDeque<Point>,
    events: &'a VecDeque<Event>,
    /// Whether pages may ask for invitations.
    invites: bool,
}

impl History {
    /// Compares the current state with the last one; returns the events since.
    pub fn note(
        &mut self,
        status: &Status,
        peers: &[Peer],
        network: Option<&Network>,
        at: f64,
    ) -> Vec<Event> {
        let counters = &status.counters;
        self.count([counters.link_rx_bytes, counters.link_tx_bytes], at);
        let mut events = Vec::new();
        let mut tell = |kind, name: &str, why: Option<String>| {
            let name = name.to_owned();
            events.push(Event {
                at,
                kind,
                name,
                why,
            });
        };
        if std::mem::take(&mut self.is_silent) {
            tell("daemon_back", "", None);
        }
        let up = peers.iter().filter(|p| p.state == "connected");
        let named = |p: &Peer| p.name.clone().unwrap_or_else(|| p.peer_id.to_string());
        let up: BTreeMap<_, _> = up.map(|p| (p.peer_id, named(p))).collect();
        if let Some(before) = &self.links {
            for (peer, name) in before.iter().filter(|(peer, _)| !up.contains_key(peer)) {
                let id = peer.to_string();
                let is_there =
                    |n: &Network| n.nodes.iter().any(|n| n.peer_id.as_ref() == Some(&id));
                match peers.iter().find(|p| p.peer_id == *peer) {
                    // the topology gave the node other links
                    None if network.is_some_and(is_there) => tell("link_ended", name, None),
                    now => tell("link_lost", name, now.and_then(|p| p.reason.clone())),
                }
            }
            for (_, name) in up.iter().filter(|(peer, _)| !before.contains_key(peer)) {
                tell("link_up", name, None);
            }
        }
        self.links = Some(up);
        let nodes = network.map(|network| {
            let named =
                |n: &lcroute_node::view::Node| n.name.clone().unwrap_or_else(|| n.id.clone());
            let all = network.nodes.iter().map(|n| (n.id.clone(), named(n)));
            all.collect::<BTreeMap<_, _>>()
        });
        if let (Some(before), Some(now)) = (&self.nodes, &nodes) {
            for (_, name) in before.iter().filter(|(id, _)| !now.contains_key(*id)) {
                tell("node_gone", name, None);
            }
            for (_, name) in now.iter().filter(|(id, _)| !before.contains_key(*id)) {
                tell("node_came", name, None);
            }
        }
        self.nodes = nodes;
        self.keep(&events);
        events
    }

    /// Records that the daemon does not answer; returns an event, if that is new.
    pub fn note_silence(&mut self, at: f64) -> Vec<Event> {
        (self.counted, self.links, self.nodes) = (None, None, None);
        if std::mem::replace(&mut self.is_silent, true) {
            return Vec::new();
        }
        let (name, why) = (String::new(), None);
        let events = vec![Event {
            at,
            kind: "daemon_gone",
            name,
            why,
        }];
        self.keep(&events);
        events
    }

    /// The first message to a page.
    pub fn beginning(&self, invites: bool) -> Beginning<'_> {
        Beginning {
            points: &self.points,
            events: &self.events,
            invites,
        }
    }

    fn keep(&mut self, events: &[Event]) {
        self.events.extend(events.iter().cloned());
        let over = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..over);
    }

    /// Adds a point for each interval that has passed.
    fn count(&mut self, bytes: [u64; 2], at: f64) {
        let Some((since, before)) = self.counted else {
            self.counted = Some((at, bytes));
            return;
        };
        let span = at - since;
        // a check may be half a second early
        if span < INTERVAL as f64 - 0.5 {
            return;
        }
        self.counted = Some((at, bytes));
        // a restarted daemon counts from 0
        let grown = [0, 1].map(|i| bytes[i].checked_sub(before[i]));
        if let [Some(rx), Some(tx)] = grown {
            let rates = [rx, tx].map(|grown| grown as f64 / span);
            self.points.push_back(Point { at, rates });
            let over = self.points.len().saturating_sub(MAX_POINTS);
            self.points.drain(..over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::tests::{look, network};

    fn kinds(events: &[Event]) -> Vec<(&str, &str)> {
        events.iter().map(|e| (e.kind, e.name.as_str())).collect()
    }

    #[test]
    fn rates_are_kept_for_a_quarter_of_an_hour_and_restarts_make_none() {
        let (mut history, mut look) = (History::default(), look());
        for n in 0..=1_000_u64 {
            look.status.counters.link_rx_bytes = n * 100;
            let _ = history.note(&look.status, &[], None, n as f64);
        }
        assert_eq!(history.points.len(), MAX_POINTS);
        assert_eq!(history.points.back().unwrap().rates, [100.0, 0.0]);
        assert_eq!(history.points.back().unwrap().at, 1_000.0);
        look.status.counters.link_rx_bytes = 7;
        let _ = history.note(&look.status, &[], None, 1_005.0);
        assert_eq!(history.points.back().unwrap().at, 1_000.0);
    }

    #[test]
    fn what_came_and_went_is_told_once() {
        let (mut history, look) = (History::default(), look());
        let (status, mut peers, mut network) = (look.status, look.peers, network());
        assert!(
            history
                .note(&status, &peers, Some(&network), 1.0)
                .is_empty()
        );
        assert!(
            history
                .note(&status, &peers, Some(&network), 2.0)
                .is_empty()
        );
        let (peer, node) = (peers[0].name.clone().unwrap(), network.nodes.pop().unwrap());
        (peers[0].state, peers[0].reason) = ("lost".into(), Some("silent".into()));
        let lost = history.note(&status, &peers, Some(&network), 3.0);
        let name = node.name.clone().unwrap();
        assert_eq!(
            kinds(&lost),
            [("link_lost", &peer[..]), ("node_gone", &name)]
        );
        assert_eq!(lost[0].why.as_deref(), Some("silent"));
        peers[0].state = "connected".into();
        network.nodes.push(node);
        let back = history.note(&status, &peers, Some(&network), 4.0);
        assert_eq!(kinds(&back), [("link_up", &peer[..]), ("node_came", &name)]);
        // not tried again while the node is present: the link was given up
        network.nodes.last_mut().unwrap().peer_id = Some(peers[0].peer_id.to_string());
        let ended = history.note(&status, &[], Some(&network), 4.2);
        assert_eq!(kinds(&ended), [("link_ended", &peer[..])]);
        let _ = history.note(&status, &peers, Some(&network), 4.4);
        assert_eq!(
            kinds(&history.note(&status, &[], None, 4.6)),
            [("link_lost", &peer[..])]
        );
        let _ = history.note(&status, &peers, Some(&network), 4.8);
        // no page was open for a while: earlier changes are not reported as new events
        assert!(history.note(&status, &peers, None, 5.0).is_empty());
        network.nodes.pop();
        assert!(
            history
                .note(&status, &peers, Some(&network), 6.0)
                .is_empty()
        );
        assert_eq!(kinds(&history.note_silence(7.0)), [("daemon_gone", "")]);
        assert!(history.note_silence(8.0).is_empty());
        let back = history.note(&status, &peers, None, 9.0);
        assert_eq!(kinds(&back), [("daemon_back", "")]);
        for n in 0..1_000 {
            peers[0].state = ["lost", "connected"][n % 2].into();
            let _ = history.note(&status, &peers, None, 10.0);
        }
        assert_eq!(history.events.len(), MAX_EVENTS);
    }
}
