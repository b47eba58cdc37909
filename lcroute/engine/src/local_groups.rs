//! The groups that programs on this host join and send to, and their trees.
//!
//! A group travels on the tree of its root. When the root changes, listeners join the new tree at
//! once and stay on the old one for [`OLD_JOIN`]. Senders stay on the old one for [`OLD_TREE`], as
//! long as its root is reachable and a neighbour has joined there. So a packet is sent on one tree
//! only, and listeners are on both, or have joined the new one first.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use crate::interface_id::LocalInterfaceId;
use crate::join::Join;
use crate::source_filter::SourceFilter;
use crate::table::Table;
use crate::timers::TimerKind;
use crate::trees::{LocalListeners, Trees};

/// Time for which listeners stay on a tree after its root is no longer the group's.
pub const OLD_JOIN: Duration = Duration::from_secs(5);
/// Time for which senders stay on such a tree.
const OLD_TREE: Duration = Duration::from_secs(1);
/// Idle time of a flow after which SourceActive is withdrawn.
const FLOW_IDLE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Listening {
    root: OriginId,
    /// Time at which the tree is left, as it is no longer the group's.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Sending {
    root: OriginId,
    last: Instant,
    /// Bytes since [`LocalGroups::take_sent`].
    sent: u64,
    /// The former root, and since when it is no longer the group's.
    before: Option<(OriginId, Instant)>,
    /// Time of this flow's entry in the timer list.
    wake: Instant,
}

impl Sending {
    /// The tree to send on now. Listeners that joined since the change are on the new tree alone, so
    /// the former one counts only while a neighbour has joined there.
    fn tree(&self, group: Ipv6Addr, trees: &Trees, now: Instant) -> OriginId {
        match self.before {
            Some((old, since)) if now < since + OLD_TREE && trees.is_joined(old, group) => old,
            _ => self.root,
        }
    }
}

/// Groups that programs on this host have joined or send to.
#[derive(Debug)]
pub struct LocalGroups {
    own: OriginId,
    listening: Table<Ipv6Addr, Vec<Listening>>,
    sending: Table<Ipv6Addr, Sending>,
    leaving: BTreeSet<(Instant, Ipv6Addr)>,
    timers: BTreeSet<(Instant, Ipv6Addr)>,
    max_flows: usize,
}

impl LocalGroups {
    /// No listeners or senders.
    pub fn new(own: OriginId, max_flows: usize, seed: u64) -> Self {
        Self {
            own,
            listening: Table::new(seed),
            sending: Table::new(seed),
            leaving: BTreeSet::new(),
            timers: BTreeSet::new(),
            max_flows,
        }
    }

    /// Sets the joins of a group's local listeners by tree. `rerooted`: only trees have changed.
    pub fn listen(
        &mut self,
        group: Ipv6Addr,
        (joined, listeners): (Vec<(OriginId, SourceFilter)>, LocalListeners),
        rerooted: bool,
        trees: &mut Trees,
        now: Instant,
    ) {
        let before = self.listening.remove(&group).unwrap_or_default();
        let mut after: Vec<Listening> = Vec::new();
        for (root, filter) in joined {
            trees.set_local(root, group, Some(filter).into(), listeners);
            after.push(Listening { root, until: None });
        }
        for old in before {
            if after.iter().any(|l| l.root == old.root) {
                continue;
            }
            if rerooted && !after.is_empty() {
                let until = old.until.unwrap_or(now + OLD_JOIN);
                self.leaving.insert((until, group));
                after.push(Listening {
                    root: old.root,
                    until: Some(until),
                });
            } else {
                trees.set_local(old.root, group, Join::None, LocalListeners::default());
            }
        }
        if !after.is_empty() {
            self.listening.insert(group, after);
        }
    }

    /// A program sends to the group, now with `root`: returns the tree to send on, and whether the
    /// flow is new, with SourceActive to send.
    pub fn send(
        &mut self,
        (from, group): (LocalInterfaceId, Ipv6Addr),
        len: usize,
        root: impl FnOnce() -> OriginId,
        trees: &mut Trees,
        now: Instant,
    ) -> (OriginId, bool) {
        if let Some(flow) = self.sending.get_mut(&group) {
            flow.last = now;
            flow.sent += len as u64;
            return (flow.tree(group, trees, now), false);
        }
        let root = root();
        if self.sending.len() >= from.part_of(self.max_flows) {
            return (root, false);
        }
        let wake = now + FLOW_IDLE;
        self.timers.insert((wake, group));
        self.sending.insert(
            group,
            Sending {
                root,
                last: now,
                sent: len as u64,
                before: None,
                wake,
            },
        );
        if root != self.own {
            trees.set_local_source_active(root, group, true);
        }
        self.check();
        (root, true)
    }

    /// Asserts that each flow ends.
    fn check(&self) {
        debug_assert_eq!(
            self.timers.len(),
            self.sending.len(),
            "each flow has one timer"
        );
        debug_assert!(self.sending.len() <= self.max_flows, "flows have a bound");
    }

    /// The tree of a flow now, if there is one.
    pub fn sending_root(&self, group: Ipv6Addr, trees: &Trees, now: Instant) -> Option<OriginId> {
        Some(self.sending.get(&group)?.tree(group, trees, now))
    }

    /// Bytes that programs sent to each group since the last call, and the tree that the flow
    /// travels on. Idle groups are left out.
    pub fn take_sent(&mut self, trees: &Trees, now: Instant) -> Vec<(Ipv6Addr, OriginId, u64)> {
        let mut all = Vec::new();
        for group in self.sending.sorted_keys() {
            let Some(flow) = self.sending.get_mut(&group) else {
                continue;
            };
            let sent = std::mem::take(&mut flow.sent);
            if sent > 0 {
                all.push((group, flow.tree(group, trees, now), sent));
            }
        }
        all
    }

    /// Moves flows to their new roots. `is_reachable`: whether a root can still be reached.
    pub fn reroot(
        &mut self,
        root_of: impl Fn(Ipv6Addr) -> OriginId,
        is_reachable: impl Fn(OriginId) -> bool,
        trees: &mut Trees,
        now: Instant,
    ) {
        for group in self.sending.sorted_keys() {
            let Some(flow) = self.sending.get_mut(&group) else {
                continue;
            };
            if let Some((old, _)) = flow.before
                && !is_reachable(old)
            {
                trees.set_local_source_active(old, group, false);
                flow.before = None;
            }
            let root = root_of(group);
            if root == flow.root {
                continue;
            }
            if let Some((oldest, _)) = flow.before.take()
                && oldest != root
            {
                trees.set_local_source_active(oldest, group, false);
            }
            let old = std::mem::replace(&mut flow.root, root);
            if root != self.own {
                trees.set_local_source_active(root, group, true);
            }
            if is_reachable(old) {
                flow.before = Some((old, now));
                self.timers.remove(&(flow.wake, group));
                flow.wake = now + OLD_JOIN;
                self.timers.insert((flow.wake, group));
            } else {
                trees.set_local_source_active(old, group, false);
            }
        }
    }

    /// Groups with local listeners, in order.
    pub fn listened(&self) -> Vec<Ipv6Addr> {
        self.listening.sorted_keys()
    }

    /// Whether a program on this host sends to the group, or did so within a minute.
    pub fn is_sending(&self, group: Ipv6Addr) -> bool {
        self.sending.get(&group).is_some()
    }

    /// Leaves trees that are due; returns the groups that have lost their last local sender.
    pub fn handle_timeout(&mut self, trees: &mut Trees, now: Instant) -> Vec<Ipv6Addr> {
        let mut idle_groups = Vec::new();
        while let Some(&(at, group)) = self.leaving.first()
            && at <= now
        {
            self.leaving.pop_first();
            let Some(list) = self.listening.get_mut(&group) else {
                continue;
            };
            list.retain(|l| {
                let over = l.until.is_some_and(|until| until <= now);
                if over {
                    trees.set_local(l.root, group, Join::None, LocalListeners::default());
                }
                !over
            });
            if list.is_empty() {
                self.listening.remove(&group);
            }
        }
        while let Some(&(at, group)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(flow) = self.sending.get_mut(&group) else {
                continue;
            };
            if let Some((old, since)) = flow.before
                && since + OLD_JOIN <= now
            {
                flow.before = None;
                trees.set_local_source_active(old, group, false);
            }
            let idle = flow.last + FLOW_IDLE;
            if idle > now {
                flow.wake = flow.before.map_or(idle, |(_, since)| since + OLD_JOIN);
                self.timers.insert((flow.wake, group));
                continue;
            }
            let roots = [Some(flow.root), flow.before.map(|(old, _)| old)];
            for root in roots.into_iter().flatten() {
                trees.set_local_source_active(root, group, false);
            }
            self.sending.remove(&group);
            idle_groups.push(group);
        }
        idle_groups
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let leaving = self
            .leaving
            .first()
            .map(|(at, _)| (*at, TimerKind::TreeChange));
        let idle = self
            .timers
            .first()
            .map(|(at, _)| (*at, TimerKind::FlowIdle));
        [leaving, idle].into_iter().flatten().min()
    }

    pub fn flows(&self) -> usize {
        self.sending.len()
    }
}
