//! Order in which channels begin: fair between shares, and within a share between members.
//!
//! Start-time fair queuing, twice. A member of a thousand channels does not delay another's first
//! one. A thousand hosts of one share, which may all be one host, do not delay another share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use super::channel::Channel;

/// Reporters of a share with turns of their own; all beyond have one turn together.
const MAX_REPORTERS: usize = 512;
/// Shares with a known turn and an empty line.
const MAX_IDLE: usize = 1_024;
const ALL_OTHERS: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// A place in a share's queue: the virtual time of its turn, then the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    turn: u64,
    order: u64,
    cost: u32,
}

impl Ticket {
    /// Virtual time before which the same channel has no further turn.
    pub(super) fn end(self) -> u64 {
        self.turn + u64::from(self.cost)
    }
}

/// A share on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    interface: u32,
    prefix: u64,
}

impl Flow {
    fn of(channel: Channel) -> Self {
        let prefix = (u128::from(channel.group) >> 64) as u64;
        Self {
            interface: channel.interface,
            prefix,
        }
    }
}

/// Waiting channels of a share.
#[derive(Debug, Default)]
struct Line {
    /// Virtual time among the shares when its next channel begins.
    start: u64,
    /// Virtual time among the members of its channels.
    now: u64,
    /// Virtual time of each reporter's next turn.
    turns: BTreeMap<Ipv6Addr, u64>,
    waiting: BTreeMap<Ticket, Channel>,
}

impl Line {
    fn account(&self, reporter: Ipv6Addr) -> Ipv6Addr {
        let known = self.turns.contains_key(&reporter) || self.turns.len() < MAX_REPORTERS;
        if known { reporter } else { ALL_OTHERS }
    }

    fn turn_of(&self, reporter: Ipv6Addr) -> u64 {
        let own = self.turns.get(&self.account(reporter));
        own.map_or(self.now, |turn| self.now.max(*turn))
    }
}

/// All waiting channels.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    now: u64,
    next_order: u64,
    length: usize,
    lines: BTreeMap<Flow, Line>,
    /// Lines with waiting channels, by their start.
    active: BTreeSet<(u64, Flow)>,
}

impl FairQueue {
    /// Adds `channel` of `cost` symbols for its member `reporter`, with a turn not before
    /// `earliest` in the virtual time of its share.
    pub(super) fn push(
        &mut self,
        channel: Channel,
        reporter: Ipv6Addr,
        cost: u32,
        earliest: u64,
    ) -> Ticket {
        let flow = Flow::of(channel);
        if !self.lines.contains_key(&flow) && self.lines.len() >= MAX_IDLE {
            let now = self.now;
            self.lines
                .retain(|_, line| !line.waiting.is_empty() || line.start > now);
        }
        let line = self.lines.entry(flow).or_default();
        if line.turns.len() >= MAX_REPORTERS {
            let now = line.now;
            line.turns.retain(|_, next| *next > now);
        }
        let account = line.account(reporter);
        let turn = line.turn_of(reporter).max(earliest);
        line.turns.insert(account, turn + u64::from(cost));
        self.next_order += 1;
        let ticket = Ticket {
            turn,
            order: self.next_order,
            cost,
        };
        if line.waiting.is_empty() {
            line.start = line.start.max(self.now);
            self.active.insert((line.start, flow));
        }
        line.waiting.insert(ticket, channel);
        self.length += 1;
        self.check();
        ticket
    }

    /// Returns the next channel, except of shares for which `full` is true: those at their limit.
    pub(super) fn pop(&mut self, full: impl Fn(&Channel) -> bool) -> Option<(Ticket, Channel)> {
        let may_begin = |(_, flow): &&(u64, Flow)| {
            let first = self
                .lines
                .get(flow)
                .and_then(|l| l.waiting.first_key_value());
            first.is_some_and(|(_, channel)| !full(channel))
        };
        let (start, flow) = *self.active.iter().find(may_begin)?;
        self.active.remove(&(start, flow));
        self.now = self.now.max(start);
        let line = self.lines.get_mut(&flow)?;
        let (ticket, channel) = line.waiting.pop_first()?;
        self.length -= 1;
        line.now = line.now.max(ticket.turn);
        line.start = start + u64::from(ticket.cost);
        if !line.waiting.is_empty() {
            self.active.insert((line.start, flow));
        }
        self.check();
        Some((ticket, channel))
    }

    /// Removes a waiting channel.
    pub(super) fn remove(&mut self, channel: Channel, ticket: Ticket) {
        let flow = Flow::of(channel);
        let Some(line) = self.lines.get_mut(&flow) else {
            return;
        };
        if line.waiting.remove(&ticket).is_some() {
            self.length -= 1;
            if line.waiting.is_empty() {
                self.active.remove(&(line.start, flow));
            }
        }
        self.check();
    }

    /// Asserts that a line is active while channels wait in it.
    fn check(&self) {
        debug_assert_eq!(
            self.active.is_empty(),
            self.length == 0,
            "a line with waiting channels comes to its turn"
        );
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the channel that stops for a JOIN of `reporter`: the last of the longest line,
    /// unless the new one comes later.
    pub(super) fn last_before(&self, channel: Channel, reporter: Ipv6Addr) -> Option<Channel> {
        let (longest, line) = self.lines.iter().max_by_key(|(_, l)| l.waiting.len())?;
        let (last, its) = line.waiting.last_key_value()?;
        let gives_way = *longest != Flow::of(channel) || last.turn > line.turn_of(reporter);
        gives_way.then_some(*its)
    }

    /// Waiting channels of the share of `of`, in order.
    pub(super) fn of_share(&self, of: Channel) -> impl Iterator<Item = &Channel> {
        let line = self.lines.get(&Flow::of(of));
        line.into_iter().flat_map(|line| line.waiting.values())
    }

    /// Whether channels of an interface wait.
    pub(super) fn has_any_on(&self, interface: u32) -> bool {
        let mut waiting = self.active.iter();
        waiting.any(|(_, flow)| flow.interface == interface)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(share: u16, n: u16) -> Channel {
        Channel {
            interface: 1,
            group: Ipv6Addr::new(0xff1e, 0, 0, share, 0, 0, 0, n),
        }
    }

    fn host(n: u32) -> Ipv6Addr {
        Ipv6Addr::from((0xfe80 << 112) + u128::from(n))
    }

    fn share_of(channel: Channel) -> u16 {
        channel.group.segments()[3]
    }

    #[test]
    fn a_share_asked_for_by_thousands_has_no_more_turns_than_another() {
        let mut queue = FairQueue::default();
        for n in 0..5_000 {
            queue.push(channel(1, n as u16), host(n), 100, 0);
        }
        for n in 0..50 {
            queue.push(channel(2, n), host(9_999), 100, 0);
        }
        let first: Vec<Channel> = (0..100).map(|_| queue.pop(|_| false).unwrap().1).collect();
        assert_eq!(first.iter().filter(|c| share_of(**c) == 2).count(), 50);
        assert_eq!(queue.length, 4_950);
    }

    #[test]
    fn a_share_that_is_full_waits_and_holds_up_no_other() {
        let mut queue = FairQueue::default();
        queue.push(channel(1, 1), host(1), 100, 0);
        queue.push(channel(2, 1), host(1), 100, 0);
        let full = |c: &Channel| share_of(*c) == 1;
        assert_eq!(queue.pop(full).map(|(_, c)| c), Some(channel(2, 1)));
        assert_eq!(queue.pop(full), None);
        assert_eq!(queue.pop(|_| false).map(|(_, c)| c), Some(channel(1, 1)));
    }

    #[test]
    fn a_channel_that_new_hosts_join_again_and_again_waits_for_the_others() {
        let mut queue = FairQueue::default();
        for n in 1..=10 {
            queue.push(channel(1, n), host(1), 100, 0);
        }
        queue.push(channel(1, 0), host(2), 100, 0);
        let mut order = Vec::new();
        for n in 0..20 {
            let (ticket, next) = queue.pop(|_| false).unwrap();
            order.push(next.group.segments()[7]);
            if next == channel(1, 0) {
                queue.push(next, host(1_000 + n), 100, ticket.end());
            }
        }
        let others = order.iter().filter(|n| **n != 0).count();
        assert_eq!(others, 10, "{order:?}");
    }

    #[test]
    fn what_is_given_up_leaves_nothing_behind_and_memory_is_bounded() {
        let mut queue = FairQueue::default();
        for n in 0..20_000 {
            let one = channel(n as u16, 1);
            let ticket = queue.push(one, host(n), 1, 0);
            queue.remove(one, ticket);
            let one = channel(7, 7);
            let ticket = queue.push(one, host(n), 100, 0);
            queue.remove(one, ticket);
        }
        assert!(queue.is_empty() && queue.active.is_empty());
        assert!(queue.lines.len() <= MAX_IDLE + 1, "{}", queue.lines.len());
        assert!(
            queue
                .lines
                .values()
                .all(|l| l.turns.len() <= MAX_REPORTERS + 1)
        );
        assert_eq!(queue.pop(|_| false), None);
    }
}
