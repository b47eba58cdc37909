//! All local interfaces together: the joins of their listeners, and the joins reported to them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::time::{Duration, Instant};

use crate::classify::{CarriedScopes, Flow, is_source_specific};
use crate::config::Node;
use crate::drops::DropReason;
use crate::interface_id::{LC0, LocalInterfaceId, LocalInterfaces};
use crate::leaves::Leaves;
use crate::local_interface::{InterfaceSettings, LocalInterface, Reporter, Senders};
use crate::outbox::Outbox;
use crate::segment_id::SegmentId;
use crate::small_map::SmallMap;
use crate::source_filter::{SourceFilter, merge};
use crate::timers::Timer;
use crate::traffic::Traffic;
use crate::trees::LocalListeners;

/// Least time between two general queries out of turn on a LAN. Chosen.
const LAN_GAP: Duration = Duration::from_secs(5);

/// Listeners and senders of all local interfaces.
#[derive(Debug, Default)]
pub struct Membership {
    interfaces: SmallMap<LocalInterfaceId, LocalInterface>,
    /// Listeners with links of their own.
    pub leaves: Leaves,
    /// Groups for which joins of neighbours or other interfaces have changed since the last flush.
    joins_changed: BTreeSet<Ipv6Addr>,
    /// Groups of interfaces that came or went since [`Self::take_changes`].
    changed: BTreeSet<Ipv6Addr>,
    seed: u64,
}

/// Interfaces.
impl Membership {
    /// Membership with only `lc0`.
    pub fn new(host: InterfaceSettings, seed: u64) -> Self {
        let mut membership = Self {
            seed,
            ..Self::default()
        };
        membership.add(LC0, host);
        membership
    }

    /// Adds or replaces an interface; it sends nothing before [`Self::start`].
    pub fn add(&mut self, id: LocalInterfaceId, settings: InterfaceSettings) {
        self.remove(id);
        let seed = self.seed.wrapping_add(id.0.into());
        let interface = LocalInterface::new(id, settings, seed);
        self.interfaces.insert(id, interface);
    }

    pub fn remove(&mut self, id: LocalInterfaceId) {
        if let Some(gone) = self.interfaces.remove(&id) {
            self.changed.extend(gone.groups());
        }
    }

    /// An interface is up, and served by this node. `reported`: groups that may be joined.
    pub fn start(
        &mut self,
        id: LocalInterfaceId,
        reported: impl IntoIterator<Item = Ipv6Addr>,
        now: Instant,
    ) {
        if let Some(interface) = self.interfaces.get_mut(&id) {
            interface.start(now);
            self.changed.extend(interface.groups());
            self.joins_changed.extend(reported);
        }
    }

    /// An interface is no longer served by this node.
    pub fn stop(&mut self, id: LocalInterfaceId) {
        if let Some(interface) = self.interfaces.get_mut(&id)
            && interface.is_active()
        {
            interface.stop();
            self.changed.extend(interface.groups());
        }
    }

    /// Sets the senders of an interface. `reported`: groups that may be joined.
    pub fn set_senders(
        &mut self,
        id: LocalInterfaceId,
        senders: Senders,
        reported: impl IntoIterator<Item = Ipv6Addr>,
    ) {
        if let Some(interface) = self.interfaces.get_mut(&id) {
            interface.set_senders(senders);
            self.joins_changed.extend(reported);
        }
    }

    pub fn set_lan_ipv4(&mut self, id: LocalInterfaceId, address: Option<Ipv4Addr>, now: Instant) {
        if let Some(interface) = self.interfaces.get_mut(&id) {
            interface.set_lan_ipv4(address, now);
        }
    }

    pub fn set_segment(
        &mut self,
        id: LocalInterfaceId,
        segment: Option<SegmentId>,
        scopes: &CarriedScopes,
    ) {
        if let Some(interface) = self.interfaces.get_mut(&id) {
            self.changed.extend(interface.groups());
            interface.set_segment(segment, scopes);
            self.changed.extend(interface.groups());
        }
    }

    pub fn interface(&self, id: LocalInterfaceId) -> Option<&LocalInterface> {
        self.interfaces.get(&id)
    }

    /// Whether there are interfaces other than `lc0`.
    pub fn has_lans(&self) -> bool {
        self.interfaces.len() > 1
    }
}

impl Membership {
    /// Handles an MLD message from an interface. Not inlined into the path of packets.
    #[inline(never)]
    pub fn handle_mld(
        &mut self,
        interface: LocalInterfaceId,
        packet: &[u8],
        node: &Node,
        by: impl Fn(Ipv6Addr) -> Reporter,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.interfaces.get_mut(&interface) {
            Some(interface) => interface.handle_mld(packet, &node.scopes, by, outbox, now),
            None => Ok(()),
        }
    }

    /// Queries an interface again, as joins may have been missed.
    pub fn query_again(&mut self, id: LocalInterfaceId, now: Instant) {
        // all hosts of a LAN answer, and too many answers may be the reason
        let gap = if id == LC0 { Duration::ZERO } else { LAN_GAP };
        if let Some(interface) = self.interfaces.get_mut(&id) {
            interface.query_again(gap, now);
        }
    }

    pub fn set_scopes(&mut self, scopes: &CarriedScopes, now: Instant) {
        for id in self.interfaces.keys().to_vec() {
            if let Some(interface) = self.interfaces.get_mut(&id) {
                interface.retain(scopes);
            }
            self.query_again(id, now);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        for interface in self.interfaces.values_mut() {
            interface.handle_timeout(now);
        }
    }

    /// Groups for which listeners' joins have changed since the last call.
    pub fn take_changes(&mut self) -> BTreeSet<Ipv6Addr> {
        let mut changed = std::mem::take(&mut self.changed);
        for interface in self.interfaces.values_mut() {
            changed.extend(interface.take_changes());
        }
        let of_leaves = self.leaves.take_changes();
        if self.has_lans() {
            self.joins_changed.extend(&changed);
        }
        self.joins_changed.extend(&of_leaves);
        changed.extend(of_leaves);
        changed
    }

    /// The joins of all interfaces and leaves for a group. A source list that is too long would
    /// join nothing, so leaves give way first, and own programs last.
    pub fn filter(&self, group: Ipv6Addr) -> Option<SourceFilter> {
        let leaves = self.leaves.filter(group);
        let interfaces = self.interfaces.values();
        let filters = interfaces.filter_map(|interface| interface.filter(group));
        let filters = filters.chain(&leaves);
        if !is_source_specific(group) {
            return merge(filters);
        }
        filters.fold(None, |merged, filter| {
            let union = merge(merged.iter().chain([filter]));
            let is_list = |f: &SourceFilter| matches!(f, SourceFilter::Include(_));
            let is_kept = union.as_ref().is_some_and(is_list) || !is_list(filter);
            if is_kept { union } else { merged.or(union) }
        })
    }

    /// The same without leaves.
    pub fn interface_filter(&self, group: Ipv6Addr) -> Option<SourceFilter> {
        let filters = self.interfaces.values();
        merge(filters.filter_map(|interface| interface.filter(group)))
    }

    pub fn listeners(&self, group: Ipv6Addr) -> LocalListeners {
        let mut listeners = LocalListeners {
            leaves: self.leaves.listeners(group) > 0,
            ..LocalListeners::default()
        };
        let interfaces = self.interfaces.iter();
        for (id, _) in interfaces.filter(|(_, i)| i.filter(group).is_some()) {
            listeners.interfaces.insert(id);
        }
        listeners
    }

    /// The joins of all other interfaces, and of leaves.
    fn filter_beside(&self, id: LocalInterfaceId, group: Ipv6Addr) -> Option<SourceFilter> {
        let others = self.interfaces.iter().filter(|(other, _)| *other != id);
        let others = others.filter_map(|(_, interface)| interface.filter(group));
        let leaves = self.leaves.filter(group);
        merge(others.chain(&leaves))
    }

    /// Groups that listeners and leaves have joined, in order.
    pub fn groups(&self) -> Vec<Ipv6Addr> {
        let mut groups = self.interface_groups();
        if self.leaves.len() > 0 {
            groups.extend(self.leaves.groups());
            groups.sort_unstable();
            groups.dedup();
        }
        groups
    }

    /// The same without leaves.
    pub fn interface_groups(&self) -> Vec<Ipv6Addr> {
        let groups = self.interfaces.values();
        let mut groups: Vec<_> = groups.flat_map(LocalInterface::groups).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Whether listeners of any interface join packets of this source.
    pub fn has_listeners(&mut self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        let mut interfaces = self.interfaces.values_mut();
        interfaces.any(|interface| interface.has_listeners(group, source))
    }

    /// The interfaces with listeners for this packet, except `from`; counts it there.
    pub fn count_listeners(
        &mut self,
        flow: Flow,
        from: Option<LocalInterfaceId>,
        len: usize,
        now: Instant,
    ) -> LocalInterfaces {
        let mut listening = LocalInterfaces::default();
        for (id, interface) in self.interfaces.iter_mut() {
            if Some(id) != from && interface.count(flow.group, flow.source, len, now) {
                listening.insert(id);
            }
        }
        listening
    }

    pub fn traffic(&self, group: Ipv6Addr) -> impl Iterator<Item = &Traffic> {
        let interfaces = self.interfaces.values();
        interfaces.filter_map(move |interface| interface.traffic(group))
    }

    /// Notes that reports of these groups may change.
    pub fn touch(&mut self, groups: impl IntoIterator<Item = Ipv6Addr>) {
        self.joins_changed.extend(groups);
    }

    /// Notes that reports of all reported groups may change.
    pub fn touch_reported(&mut self) {
        for interface in self.interfaces.values() {
            self.joins_changed.extend(interface.proxy.groups());
        }
    }

    /// Sends due queries and reports of all interfaces.
    pub fn flush(
        &mut self,
        scopes: &CarriedScopes,
        joins: impl Fn(Ipv6Addr) -> Option<SourceFilter>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let changed = std::mem::take(&mut self.joins_changed);
        let ids = self.interfaces.keys().to_vec();
        for id in ids {
            let interface = self.interfaces.get(&id);
            let changed = match interface {
                Some(interface) => interface.with_both_names(&changed),
                None => continue,
            };
            // joins of the other interfaces are looked up before this interface changes
            let others: Vec<_> = match self.has_lans() || self.leaves.were_used() {
                true => changed
                    .iter()
                    .map(|g| (*g, self.filter_beside(id, *g)))
                    .collect(),
                false => Vec::new(),
            };
            let all = |group| {
                let at = others.binary_search_by_key(&group, |(g, _)| *g);
                let others = at.ok().and_then(|at| others[at].1.clone());
                merge(joins(group).iter().chain(&others))
            };
            if let Some(interface) = self.interfaces.get_mut(&id) {
                interface.flush(scopes, &changed, all, outbox, now);
            }
        }
    }

    /// The first timer of all interfaces.
    pub fn next_timeout(&self) -> Timer {
        let timers = self.interfaces.values();
        timers.filter_map(LocalInterface::next_timeout).min()
    }

    /// Groups with listeners, groups that are reported, and pending work; summed over interfaces.
    pub fn sizes(&self) -> [usize; 3] {
        let sizes = self.interfaces.values().map(LocalInterface::sizes);
        sizes.fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z])
    }
}
