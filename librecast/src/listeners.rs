//! Groups with listeners, by interface, for a program that sends on a LAN only to listeners.
//!
//! It watches MLD (RFC 9777) for the few groups that a program sends to, and is the querier if a
//! link has none. Members on this host count too, except for the program's own memberships.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::interface::Interface;
use crate::listener::MldListener;
use crate::mld::{self, ALL_NODES, Message, Query, Record, RecordType};
use crate::querier::{self, Querier};

/// Time without a report after which a member is gone (multicast address listening interval, RFC
/// 9777 §9.4), while this host is the querier: five queries of 10 s, and the time for an answer.
const LISTENING: Duration = Duration::from_secs(51);
/// Bound of the same under another querier: anybody can send a query with long intervals.
const MAX_LISTENING: Duration = Duration::from_secs(600);
/// Time after a leave for answers to two queries (last listener query time, RFC 9777 §9.9).
const LAST_LISTENER: Duration = Duration::from_secs(2);
/// Time between the two queries.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Time for answers to the first query: 100 ms, and the transit time.
pub const FIRST_ANSWERS: Duration = Duration::from_millis(300);
/// MLD messages read in one turn.
const MESSAGES_PER_TURN: usize = 256;
/// The longest MLD message in an Ethernet jumbo frame.
const MESSAGE_SIZE: usize = 9_216;

/// A watched interface.
#[derive(Debug)]
struct Watched {
    interface: Interface,
    querier: Querier,
    listening: Duration,
}

/// The state from reports, without a socket.
#[derive(Debug, Default)]
struct Reported {
    /// Groups, and the number of the program's own sockets in each.
    groups: BTreeMap<Ipv6Addr, u32>,
    interfaces: BTreeMap<u32, Watched>,
    /// When a group's listeners end, by reports.
    until: BTreeMap<(u32, Ipv6Addr), Instant>,
    /// When a query for a group is due.
    ask_at: BTreeMap<(u32, Ipv6Addr), Instant>,
}

impl Reported {
    fn handle_message(&mut self, index: u32, source: Ipv6Addr, message: &Message, now: Instant) {
        let Some(watched) = self.interfaces.get_mut(&index) else {
            return;
        };
        // of this host, or of one that has no address yet (RFC 9777 §5.2.13)
        if source.is_unspecified() || watched.interface.addresses.contains(&source) {
            return;
        }
        match message {
            Message::Query(query) => {
                watched.querier.handle_query(source, query, now);
                if source < watched.querier.address() {
                    watched.listening = listening_of(query);
                }
            }
            Message::ReportV1 { group } => self.joined(index, *group, now),
            Message::DoneV1 { group } => self.left(index, *group, now),
            Message::Report(records) => {
                for record in records {
                    match says_left(record) {
                        Some(true) => self.left(index, record.group, now),
                        Some(false) => self.joined(index, record.group, now),
                        None => {}
                    }
                }
            }
        }
    }

    fn joined(&mut self, index: u32, group: Ipv6Addr, now: Instant) {
        if let Some(watched) = self.interfaces.get(&index)
            && self.groups.contains_key(&group)
        {
            self.until.insert((index, group), now + watched.listening);
        }
    }

    /// Queries the remaining members.
    fn left(&mut self, index: u32, group: Ipv6Addr, now: Instant) {
        let until = self.until.get_mut(&(index, group));
        if let Some(until) = until.filter(|until| **until > now) {
            *until = (*until).min(now + LAST_LISTENER);
            self.ask_at.entry((index, group)).or_insert(now);
        }
    }

    fn has_listener(&self, index: u32, group: Ipv6Addr, now: Instant) -> bool {
        self.until
            .get(&(index, group))
            .is_some_and(|until| now < *until)
    }

    fn set_interfaces(&mut self, found: &BTreeMap<u32, Interface>, now: Instant) {
        let addressed = found.values().filter_map(|i| Some((i, i.link_local()?)));
        let interfaces = addressed.map(|(interface, own)| {
            let known = self.interfaces.remove(&interface.index);
            let known = known.filter(|known| known.querier.address() == own);
            let watched = match known {
                Some(watched) => Watched {
                    interface: interface.clone(),
                    ..watched
                },
                None => Watched {
                    interface: interface.clone(),
                    querier: Querier::new(own, now),
                    listening: LISTENING,
                },
            };
            (interface.index, watched)
        });
        self.interfaces = interfaces.collect();
        let known = &self.interfaces;
        self.until.retain(|(index, _), _| known.contains_key(index));
        self.ask_at
            .retain(|(index, _), _| known.contains_key(index));
    }

    /// Returns the queries that are due, each with its interface.
    fn poll(&mut self, now: Instant) -> Vec<(u32, Query)> {
        let mut due = Vec::new();
        for (index, watched) in &mut self.interfaces {
            due.extend(watched.querier.poll(now).map(|query| (*index, query)));
        }
        let until = &self.until;
        self.ask_at.retain(|(index, group), at| {
            if *at > now {
                return true;
            }
            due.push((*index, querier::group_query(*group)));
            *at = now + ASK_AGAIN;
            // twice within the time for answers
            until
                .get(&(*index, *group))
                .is_some_and(|until| *until > *at)
                && until[&(*index, *group)] <= now + LAST_LISTENER
        });
        due
    }

    fn next_timeout(&self) -> Option<Instant> {
        let queries = self.interfaces.values().map(|w| w.querier.next_timeout());
        queries.chain(self.ask_at.values().copied()).min()
    }
}

fn listening_of(query: &Query) -> Duration {
    /// Query interval of a version 1 querier, which names none: the default (RFC 9777 §9.2).
    const INTERVAL: Duration = Duration::from_secs(125);
    let interval = if query.version_1 {
        INTERVAL
    } else {
        query.query_interval
    };
    let all = interval * u32::from(query.robustness.max(2)) + query.max_response;
    all.clamp(LISTENING, MAX_LISTENING)
}

/// Returns whether a record reports a leave (true) or a member (false). Source filters do not
/// matter: a member may want this program's source.
fn says_left(record: &Record) -> Option<bool> {
    let nobody = record.sources.is_empty();
    match record.kind {
        RecordType::ModeIsExclude | RecordType::ChangeToExclude => Some(false),
        RecordType::ChangeToInclude if nobody => Some(true),
        RecordType::BlockOldSources => Some(true),
        RecordType::ModeIsInclude | RecordType::AllowNewSources if nobody => None,
        RecordType::ModeIsInclude | RecordType::ChangeToInclude | RecordType::AllowNewSources => {
            Some(false)
        }
    }
}

/// Listeners of a few groups, from a raw socket.
#[derive(Debug)]
pub struct Listeners {
    socket: MldListener,
    reported: Reported,
    /// Groups that programs of this host have joined, by interface.
    of_host: BTreeMap<(u32, Ipv6Addr), u32>,
    buffer: Vec<u8>,
}

impl Listeners {
    /// Watches `groups`, each with the number of sockets on which the program itself joins it.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open(groups: impl IntoIterator<Item = (Ipv6Addr, u32)>) -> io::Result<Self> {
        Ok(Self {
            socket: MldListener::open()?,
            reported: Reported {
                groups: groups.into_iter().collect(),
                ..Reported::default()
            },
            of_host: BTreeMap::new(),
            buffer: vec![0; MESSAGE_SIZE],
        })
    }

    /// Watches these interfaces from now on. To be repeated: it also finds members on this host.
    pub fn set_interfaces(&mut self, found: &BTreeMap<u32, Interface>, now: Instant) {
        let gone = self.reported.interfaces.keys();
        for index in gone.filter(|index| !found.contains_key(index)) {
            self.socket.unwatch(*index);
        }
        for index in found.keys() {
            // again each time: the kernel drops memberships of interfaces that were away
            let _ = self.socket.watch(*index);
        }
        self.reported.set_interfaces(found, now);
        // without it, only members on other hosts are found
        let members = fs::read_to_string("/proc/net/igmp6").unwrap_or_default();
        self.of_host = members.lines().filter_map(member).collect();
    }

    /// Reads received reports, and sends queries that are due.
    ///
    /// # Errors
    /// Socket errors.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        let mut lost = self.socket.take_lost()?;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(received) = self.socket.receive(&mut self.buffer)? else {
                break;
            };
            lost = lost.saturating_add(received.lost);
            let bytes = self.buffer.get(..received.length).unwrap_or_default();
            // rejects packets from beyond this link
            if received.hop_limit == 1
                && let Ok(message) = mld::parse_message(received.source, bytes)
            {
                let (index, source) = (received.interface, received.source);
                self.reported.handle_message(index, source, &message, now);
            }
        }
        if lost > 0 {
            for watched in self.reported.interfaces.values_mut() {
                watched.querier.ask_all(now);
            }
        }
        for (index, query) in self.reported.poll(now) {
            if let Some(watched) = self.reported.interfaces.get(&index) {
                let (from, to) = (watched.querier.address(), query.group.unwrap_or(ALL_NODES));
                // lost like any packet: the next one follows
                let _ = self
                    .socket
                    .send(index, from, to, &mld::query_message(&query));
            }
        }
        Ok(())
    }

    /// Returns when [`turn`](Self::turn) must be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.reported.next_timeout()
    }

    /// Returns whether another host, or another program of this one, listens to the group.
    pub fn has_listener(&self, interface: u32, group: Ipv6Addr, now: Instant) -> bool {
        let own = self.reported.groups.get(&group).copied().unwrap_or(0);
        let of_host = self.of_host.get(&(interface, group));
        of_host.is_some_and(|users| *users > own)
            || self.reported.has_listener(interface, group, now)
    }
}

impl AsFd for Listeners {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Parses a line of `/proc/net/igmp6`: index of the interface, its name, the group in hexadecimal,
/// the number of sockets, and more.
fn member(line: &str) -> Option<((u32, Ipv6Addr), u32)> {
    let mut fields = line.split_ascii_whitespace();
    let index = fields.next()?.parse().ok()?;
    let group = u128::from_str_radix(fields.nth(1)?, 16).ok()?;
    let users = fields.next()?.parse().ok()?;
    Some(((index, Ipv6Addr::from(group)), users))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 7);

    fn link_local(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn reported(now: Instant) -> Reported {
        let mut interface = Interface {
            index: 3,
            name: "eth0".into(),
            up: false,
            multicast: false,
            addresses: Default::default(),
        };
        interface.addresses.insert(link_local(5));
        let mut reported = Reported {
            groups: [(GROUP, 1)].into(),
            ..Reported::default()
        };
        reported.set_interfaces(&[(3, interface)].into(), now);
        reported
    }

    fn report(kind: RecordType, group: Ipv6Addr) -> Message {
        Message::Report(vec![Record::new(kind, group, Vec::new())])
    }

    #[test]
    fn a_group_has_listeners_from_a_report_until_it_is_not_repeated() {
        let now = Instant::now();
        let mut reported = reported(now);
        assert!(!reported.has_listener(3, GROUP, now));
        let joined = report(RecordType::ChangeToExclude, GROUP);
        // of this host, of another interface, of another group
        reported.handle_message(3, link_local(5), &joined, now);
        reported.handle_message(4, link_local(9), &joined, now);
        let other = report(RecordType::ChangeToExclude, link_local(1));
        reported.handle_message(3, link_local(9), &other, now);
        assert!(!reported.has_listener(3, GROUP, now) && reported.until.is_empty());
        reported.handle_message(3, link_local(9), &joined, now);
        assert!(reported.has_listener(3, GROUP, now + LISTENING - ASK_AGAIN));
        assert!(!reported.has_listener(3, GROUP, now + LISTENING));
    }

    #[test]
    fn when_a_member_leaves_others_are_asked_and_keep_the_group() {
        let now = Instant::now();
        let mut reported = reported(now);
        reported.poll(now);
        let (joined, left) = (
            report(RecordType::ModeIsExclude, GROUP),
            report(RecordType::ChangeToInclude, GROUP),
        );
        let asked = |reported: &mut Reported, from: Instant| {
            let mut asked = 0;
            for ms in (0..5_000).step_by(50) {
                let due = reported.poll(from + Duration::from_millis(ms));
                asked += due.iter().filter(|(_, q)| q.group == Some(GROUP)).count();
            }
            asked
        };
        reported.handle_message(3, link_local(9), &joined, now);
        reported.handle_message(3, link_local(9), &left, now);
        assert!(reported.has_listener(3, GROUP, now));
        assert_eq!(asked(&mut reported, now), 2);
        assert!(!reported.has_listener(3, GROUP, now + LAST_LISTENER));
        reported.handle_message(3, link_local(9), &joined, now);
        reported.handle_message(3, link_local(9), &left, now);
        reported.handle_message(3, link_local(8), &joined, now + ASK_AGAIN);
        assert!(reported.has_listener(3, GROUP, now + LAST_LISTENER));
    }

    #[test]
    fn the_kernel_names_members_of_this_host() {
        let line = "2    eth0            ff1e0000000000000000000000000007     2 00000004 0";
        assert_eq!(member(line), Some(((2, GROUP), 2)));
        for line in ["", "2 eth0", "2 eth0 xyz 1 4 0", "eth0 2 ff1e 1 4 0"] {
            assert_eq!(member(line), None);
        }
    }
}
