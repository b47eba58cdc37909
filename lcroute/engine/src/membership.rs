//! All local interfaces together: what their listeners join, and what they report. Today there is one, `lc0`.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use librecast::time::{Duration, Instant};

use crate::classify::CarriedScopes;
use crate::config::{Limits, Node};
use crate::drops::DropReason;
use crate::local_interface::{LC0, LocalInterface, LocalInterfaceId, LocalInterfaces};
use crate::outbox::Outbox;
use crate::small_map::SmallMap;
use crate::source_filter::{SourceFilter, merge};
use crate::timers::Timer;
use crate::traffic::Traffic;

/// Listeners and senders of all local interfaces.
#[derive(Debug, Default)]
pub struct Membership {
    interfaces: SmallMap<LocalInterfaceId, LocalInterface>,
    /// Groups whose joins of neighbours have changed since the last flush.
    joins_changed: BTreeSet<Ipv6Addr>,
}

impl Membership {
    /// `lc0` alone.
    pub fn new(limits: &Limits, mtu: u16, seed: u64) -> Self {
        let mut membership = Self::default();
        let interface = LocalInterface::new(limits, mtu, seed);
        membership.interfaces.insert(LC0, interface);
        membership
    }

    /// An interface is up.
    pub fn start(&mut self, interface: LocalInterfaceId, now: Instant) {
        if let Some(interface) = self.interfaces.get_mut(&interface) {
            interface.start(now);
        }
    }

    /// An MLD message that came in over an interface. Kept out of the code that packets run through.
    #[inline(never)]
    pub fn handle_mld(
        &mut self,
        interface: LocalInterfaceId,
        packet: &[u8],
        node: &Node,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.interfaces.get_mut(&interface) {
            Some(interface) => interface.handle_mld(packet, &node.scopes, outbox, now),
            None => Ok(()),
        }
    }

    /// Joins may have been missed, on any interface.
    pub fn query_again(&mut self, now: Instant) {
        for interface in self.interfaces.values_mut() {
            interface.querier.query_again(Duration::ZERO, now);
        }
    }

    /// Other groups are carried.
    pub fn set_scopes(&mut self, scopes: &CarriedScopes, now: Instant) {
        for interface in self.interfaces.values_mut() {
            interface.querier.retain(|group| scopes.contains(group));
        }
        self.query_again(now);
    }

    /// Does what is due at queriers.
    pub fn handle_timeout(&mut self, now: Instant) {
        for interface in self.interfaces.values_mut() {
            interface.querier.handle_timeout(now);
        }
    }

    /// Groups whose joins of listeners have changed since the last call.
    pub fn take_changes(&mut self) -> BTreeSet<Ipv6Addr> {
        let mut changed = BTreeSet::new();
        for interface in self.interfaces.values_mut() {
            changed.extend(interface.querier.take_changes().into_keys());
        }
        changed
    }

    /// What listeners of all interfaces together join of a group.
    pub fn filter(&self, group: Ipv6Addr) -> Option<SourceFilter> {
        let filters = self.interfaces.values();
        merge(filters.filter_map(|interface| interface.querier.filter(group)))
    }

    /// Groups that listeners have joined, in order.
    pub fn groups(&self) -> Vec<Ipv6Addr> {
        let groups = self.interfaces.values();
        let mut groups: Vec<_> = groups.flat_map(|i| i.querier.groups()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The interfaces whose listeners join packets of this source, which are counted there.
    pub fn count_listeners(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        len: usize,
        now: Instant,
    ) -> LocalInterfaces {
        let mut listening = LocalInterfaces::default();
        for (id, interface) in self.interfaces.iter_mut() {
            if let Some(traffic) = interface.querier.joined_traffic(group, source) {
                traffic.count(source, len, now);
                listening.insert(id);
            }
        }
        listening
    }

    /// The counters of a group, by interface.
    pub fn traffic(&self, group: Ipv6Addr) -> impl Iterator<Item = &Traffic> {
        let interfaces = self.interfaces.values();
        interfaces.filter_map(move |interface| interface.querier.traffic(group))
    }

    /// Joins of neighbours for these groups have changed, or who is to see them.
    pub fn touch(&mut self, groups: impl IntoIterator<Item = Ipv6Addr>) {
        self.joins_changed.extend(groups);
    }

    /// The same for all groups that are reported.
    pub fn touch_reported(&mut self) {
        for interface in self.interfaces.values() {
            self.joins_changed.extend(interface.proxy.groups());
        }
    }

    /// Queries and reports of all interfaces leave.
    pub fn flush(
        &mut self,
        scopes: &CarriedScopes,
        joins: impl Fn(Ipv6Addr) -> Option<SourceFilter>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let changed = std::mem::take(&mut self.joins_changed);
        for interface in self.interfaces.values_mut() {
            interface.flush(scopes, (&changed, &joins), outbox, now);
        }
    }

    /// The first timer of all interfaces.
    pub fn next_timeout(&self) -> Timer {
        let timers = self.interfaces.values();
        timers.filter_map(LocalInterface::next_timeout).min()
    }

    /// Groups with listeners, groups that are reported, and work that waits; summed over interfaces.
    pub fn sizes(&self) -> [usize; 3] {
        let sizes = self.interfaces.values().map(|i| {
            let pending = i.querier.pending() + i.proxy.pending();
            [i.querier.len(), i.proxy.len(), pending]
        });
        sizes.fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z])
    }
}
