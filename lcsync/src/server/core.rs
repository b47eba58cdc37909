//! The server as a state machine: MLD messages in, queries, records and symbols out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::ops::Deref;
use std::sync::Arc;

use librecast::channel::{ROOT_CHANNEL, SharePrefix, channel_of};
use librecast::mld::{self, ALL_NODES, Message, Query, RecordType};
use librecast::querier::{Querier, group_query};
use librecast::time::{Duration, Instant};

use super::channel::{Action, Channel, Joined, Rates, Sent, Terms, Upcoming, Wanted};
use super::reporters::{Evidence, Reporters};
use super::rivals::SERVERS_CHANNEL;
use super::schedule::Schedule;
use super::traffic::Traffic;
use crate::block::{BlockHash, BlockRef};
use crate::carrying::{self, CarrierNumber, Carries, Had};
use crate::groups::Found;
use crate::outline::Outline;
use crate::packet::encode_record;
use crate::record::{MAX_SENDING, Record, Sending};
use crate::stretch::{OFFER_CHANNEL, STRETCH, STRETCH_LAYER, Stretch, symbols_of};

/// Interval of records on a joined root channel.
const RECORD_INTERVAL: Duration = Duration::from_millis(200);
/// The same while blocks are sent, so that receivers learn of them.
const BUSY_INTERVAL: Duration = Duration::from_millis(40);
/// The same after a JOIN of a block, which other receivers may want as well.
const LEAST_INTERVAL: Duration = Duration::from_millis(20);
/// Interval of a whole catalogue.
const CATALOGUE_INTERVAL: Duration = Duration::from_secs(1);
/// Records sent back to back when a receiver joins. Chosen: covers 4 losses.
const WELCOME: u8 = 5;
/// Divisor of the sending rate: records take at most this part.
const RECORD_SHARE: u64 = 200;
/// Bytes of IPv6 and UDP headers.
const HEADERS: u64 = 48;
/// Channels considered for a record: enough to fill it, with any number of joined ones.
const MAX_LOOKED_AT: usize = 1_024;
/// Silence after which a root channel's members are queried: above a querier's interval.
const ROOT_EVIDENCE: Duration = Duration::from_secs(12);
/// Interval of such queries.
const ROOT_ASK_AGAIN: Duration = Duration::from_secs(1);
/// Queries without a report after which a root channel ends.
const ROOT_ASKS: u8 = 3;
/// Most channels of a receiver: kernels check each for every packet (design §4).
pub const MAX_CHANNELS: u16 = 128;

/// A served share; `I`: its outline, and the way to its files.
#[derive(Debug)]
pub struct Share<I> {
    /// Its files and blocks.
    pub index: Arc<I>,
    /// Milliseconds of Unix time, or one more than the last generation, so that it grows.
    pub generation: u64,
    /// Signature of the version in records, if it is signed.
    pub authentication: Vec<u8>,
}

impl<I> Clone for Share<I> {
    fn clone(&self) -> Self {
        Self {
            index: Arc::clone(&self.index),
            generation: self.generation,
            authentication: self.authentication.clone(),
        }
    }
}

impl<I> Share<I> {
    /// Returns this version without a signature.
    #[must_use]
    pub fn unsigned(index: Arc<I>, generation: u64) -> Self {
        Self {
            index,
            generation,
            authentication: Vec::new(),
        }
    }
}

/// Counters of a share since it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Versions of it.
    pub versions: u64,
    /// When the last version came.
    pub changed_at: Instant,
    /// Files of the last version.
    pub files: u64,
    /// Rescans of its files.
    pub rescans: u64,
}

/// Counters of reports without effect, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Drops {
    /// Malformed MLD messages, or from beyond this link.
    pub malformed: u64,
    /// Groups in a prefix of a served share that are not a channel.
    pub unknown_channel: u64,
    /// Messages that the kernel lost as the queue was full.
    pub lost: u64,
    /// Messages from an interface that is not watched.
    pub unwatched: u64,
    /// Reports for a share that is not served on this interface.
    pub elsewhere: u64,
    /// JOINs beyond the bound of known channels.
    pub refused: u64,
}

/// An action for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this ICMPv6 message.
    Query {
        /// Index of the interface.
        interface: u32,
        /// Link-local address to send from.
        source: Ipv6Addr,
        /// Group, or all nodes of the link.
        destination: Ipv6Addr,
        /// The message without checksum.
        message: Vec<u8>,
    },
    /// Send the record of a share on its root channel.
    Record {
        /// Group and interface.
        channel: Channel,
        /// UDP payload.
        datagram: Vec<u8>,
    },
    /// Send these symbols of the channel.
    Symbols {
        /// Group and interface.
        channel: Channel,
        /// Sequence number of the first.
        sequence: u32,
        /// Encoding symbol ids (RFC 6330 §3.2), in the order of sending.
        ids: Vec<u32>,
    },
}

/// The part of a receiver that passes on, on an overlay, the blocks that have come.
#[derive(Debug)]
pub struct Carrying {
    /// Index of the overlay's interface.
    pub interface: u32,
    /// Number of its channels.
    pub number: CarrierNumber,
    /// Width of its uplink as in records; at least 1.
    pub width: u8,
    /// The blocks that it has.
    pub had: Had,
    /// No server of the whole share is there: it serves all channels, as one would.
    alone: bool,
    /// Joined channels of blocks that have not come, with the time of the first JOIN.
    awaited: BTreeMap<BlockHash, Awaited>,
}

#[derive(Debug)]
struct Awaited {
    block: BlockRef,
    channel: Channel,
    since: Instant,
    /// The receiver of this process was told.
    told: bool,
}

impl Carrying {
    /// Nothing is joined.
    #[must_use]
    pub fn new(interface: u32, number: CarrierNumber, width: u8, had: Had) -> Self {
        Self {
            interface,
            number,
            width: width.max(1),
            had,
            alone: false,
            awaited: BTreeMap::new(),
        }
    }

    fn lacks(&self, block: &BlockHash) -> bool {
        self.had.lacks(block)
    }
}

/// A joined root channel.
#[derive(Debug)]
struct Root {
    reporters: Reporters,
    next: Instant,
    sent_at: Option<Instant>,
    /// Bytes of the last record.
    bytes: usize,
    evidence_at: Instant,
    asked: u8,
    ask_at: Instant,
    /// Records that a new member still gets at the short interval.
    welcome: u8,
    /// Next part of a catalogue.
    part: usize,
}

impl Root {
    /// Moves the next record forward to `interval` after the last one.
    fn hasten(&mut self, interval: Duration, now: Instant) {
        let earliest = self.sent_at.map_or(now, |at| at + interval);
        self.next = self.next.min(earliest.max(now));
    }

    /// Returns the interval of records: at least `least`, and within [`RECORD_SHARE`].
    fn interval(&self, load: u64, least: Duration) -> Duration {
        let bits = (self.bytes as u64 + HEADERS) * 8;
        let fair = Duration::from_micros(bits * RECORD_SHARE * 1_000_000 / load.max(1));
        fair.clamp(least, RECORD_INTERVAL)
    }
}

/// Shares, interfaces and joined channels.
#[derive(Debug)]
pub struct Server<I> {
    id: u32,
    rates: Rates,
    started: Instant,
    shares: BTreeMap<SharePrefix, Share<I>>,
    histories: BTreeMap<SharePrefix, History>,
    catalogues: BTreeMap<(SharePrefix, u32), Vec<Vec<u8>>>,
    /// Interfaces of shares that are not served on all.
    only: BTreeMap<SharePrefix, BTreeSet<u32>>,
    /// Shares of receivers that carry.
    carrying: BTreeMap<SharePrefix, Carrying>,
    queriers: BTreeMap<u32, Querier>,
    roots: BTreeMap<Channel, Root>,
    schedule: Schedule,
    drops: Drops,
    root_joins: u64,
}

impl<I: Deref<Target = Outline>> Server<I> {
    /// Starts without shares and interfaces. `id` is the server's number, `seed` for first symbols.
    #[must_use]
    pub fn new(id: u32, rates: Rates, seed: u64, now: Instant) -> Self {
        Self {
            id,
            rates,
            started: now,
            shares: BTreeMap::new(),
            histories: BTreeMap::new(),
            catalogues: BTreeMap::new(),
            only: BTreeMap::new(),
            carrying: BTreeMap::new(),
            queriers: BTreeMap::new(),
            roots: BTreeMap::new(),
            schedule: Schedule::new(rates, seed, now),
            drops: Drops::default(),
            root_joins: 0,
        }
    }

    /// Changes the rates of channels, also of those that are being sent.
    pub fn set_rates(&mut self, rates: Rates, now: Instant) {
        if self.rates != rates {
            self.rates = rates;
            self.schedule.set_rates(rates, now);
        }
    }

    /// Serves a share, or a new version of it, and stops channels of removed blocks.
    pub fn set_share(&mut self, prefix: SharePrefix, share: Share<I>, now: Instant) {
        let index = Arc::clone(&share.index);
        let gone = |c: &Channel| {
            SharePrefix::of_group(c.group) == Some(prefix)
                && index.find(channel_of(c.group)).is_none()
        };
        self.schedule.stop_all(gone, now);
        let before = self.histories.get(&prefix);
        if before.is_none() {
            // its earlier JOINs were dropped
            self.queriers.values_mut().for_each(|q| q.ask_all(now));
        }
        let history = History {
            versions: before.map_or(0, |h| h.versions) + 1,
            changed_at: now,
            files: share.index.files(),
            rescans: before.map_or(0, |h| h.rescans),
        };
        self.histories.insert(prefix, history);
        self.shares.insert(prefix, share);
        for (channel, root) in &mut self.roots {
            if SharePrefix::of_group(channel.group) == Some(prefix) {
                root.next = now;
            }
        }
    }

    /// Counts a rescan of a share.
    pub fn handle_rescan(&mut self, prefix: SharePrefix) {
        if let Some(history) = self.histories.get_mut(&prefix) {
            history.rescans += 1;
        }
    }

    /// Stops serving a share.
    pub fn remove_share(&mut self, prefix: SharePrefix, now: Instant) {
        self.shares.remove(&prefix);
        self.histories.remove(&prefix);
        self.only.remove(&prefix);
        self.carrying.remove(&prefix);
        self.schedule.set_terms(prefix, Terms::default(), now);
        let gone = |c: &Channel| SharePrefix::of_group(c.group) == Some(prefix);
        self.schedule.stop_all(gone, now);
        self.roots.retain(|c, _| !gone(c));
        self.schedule.forget(prefix);
    }

    /// Sets the catalogues of each interface: datagrams for the prefix on which they are requested.
    pub fn set_catalogues(&mut self, catalogues: BTreeMap<(SharePrefix, u32), Vec<Vec<u8>>>) {
        self.catalogues = catalogues;
        self.catalogues.retain(|_, parts| !parts.is_empty());
        let (shares, catalogues) = (&self.shares, &self.catalogues);
        self.roots.retain(|c, _| {
            SharePrefix::of_group(c.group).is_some_and(|p| {
                shares.contains_key(&p) || catalogues.contains_key(&(p, c.interface))
            })
        });
    }

    fn catalogue(&self, channel: Channel) -> Option<&[Vec<u8>]> {
        let prefix = SharePrefix::of_group(channel.group)?;
        let parts = self.catalogues.get(&(prefix, channel.interface))?;
        Some(parts)
    }

    /// Sets limit and sealing of a share.
    pub fn set_terms(&mut self, prefix: SharePrefix, terms: Terms, now: Instant) {
        self.schedule.set_terms(prefix, terms, now);
    }

    /// Serves a share on these interfaces only, or on all again.
    pub fn restrict(&mut self, prefix: SharePrefix, interfaces: Option<BTreeSet<u32>>) {
        match interfaces {
            Some(only) => self.only.insert(prefix, only),
            None => self.only.remove(&prefix),
        };
    }

    /// Carries a share on an overlay: there, only the channels of its number count.
    pub fn set_carrying(&mut self, prefix: SharePrefix, carrying: Carrying) {
        self.carrying.insert(prefix, carrying);
    }

    /// Sets the width of the uplink in records.
    pub fn set_width(&mut self, prefix: SharePrefix, width: u8) {
        if let Some(carrying) = self.carrying.get_mut(&prefix) {
            carrying.width = width.max(1);
        }
    }

    /// Serves all channels of a share that it carries, or its own again.
    pub fn set_alone(&mut self, prefix: SharePrefix, alone: bool, now: Instant) {
        let Some(carrying) = self.carrying.get_mut(&prefix) else {
            return;
        };
        if std::mem::replace(&mut carrying.alone, alone) != alone && alone {
            // its earlier JOINs were dropped
            self.queriers.values_mut().for_each(|q| q.ask_all(now));
        }
    }

    /// Sends a block that has come to those who wait for it.
    pub fn handle_block(&mut self, prefix: SharePrefix, block: BlockHash, now: Instant) {
        let Some(carrying) = self.carrying.get_mut(&prefix) else {
            return;
        };
        carrying.had.add(&block);
        if let Some(awaited) = carrying.awaited.remove(&block) {
            self.schedule.came(awaited.channel, now);
        }
    }

    /// Returns blocks that others have awaited here for this long, each once.
    pub fn overdue(
        &mut self,
        prefix: SharePrefix,
        longest: Duration,
        now: Instant,
    ) -> Vec<BlockRef> {
        let Some(carrying) = self.carrying.get_mut(&prefix) else {
            return Vec::new();
        };
        let schedule = &self.schedule;
        carrying.awaited.retain(|_, a| schedule.has(a.channel));
        let mut overdue = Vec::new();
        for awaited in carrying.awaited.values_mut().filter(|a| !a.told) {
            if now.saturating_duration_since(awaited.since) >= longest {
                awaited.told = true;
                overdue.push(awaited.block);
            }
        }
        overdue
    }

    /// The part of a share that this receiver carries on `channel`'s interface.
    fn carried_on(&self, channel: Channel) -> Option<&Carrying> {
        let carrying = self.carrying.get(&SharePrefix::of_group(channel.group)?)?;
        (carrying.interface == channel.interface).then_some(carrying)
    }

    fn is_served_on(&self, group: Ipv6Addr, interface: u32) -> bool {
        let prefix = SharePrefix::of_group(group);
        let only = prefix.and_then(|p| self.only.get(&p));
        only.is_none_or(|only| only.contains(&interface))
    }

    /// Returns the share of a channel.
    #[must_use]
    pub fn share_of(&self, group: Ipv6Addr) -> Option<&Share<I>> {
        self.shares.get(&SharePrefix::of_group(group)?)
    }

    /// Sets the watched interfaces, with a link-local address of each.
    pub fn set_interfaces(&mut self, all: &BTreeMap<u32, Ipv6Addr>, now: Instant) {
        self.queriers
            .retain(|i, q| all.get(i) == Some(&q.address()));
        let gone: BTreeSet<u32> = self
            .schedule_interfaces()
            .difference(&all.keys().copied().collect())
            .copied()
            .collect();
        self.schedule.stop_all(|c| gone.contains(&c.interface), now);
        self.roots.retain(|c, _| !gone.contains(&c.interface));
        for (interface, address) in all {
            self.queriers
                .entry(*interface)
                .or_insert_with(|| Querier::new(*address, now));
        }
    }

    fn schedule_interfaces(&self) -> BTreeSet<u32> {
        let joined = self.schedule.interfaces();
        joined
            .into_iter()
            .chain(self.roots.keys().map(|c| c.interface))
            .collect()
    }

    /// Handles an ICMPv6 packet with an MLD message.
    pub fn handle_mld(
        &mut self,
        interface: u32,
        source: Ipv6Addr,
        hop_limit: u8,
        icmpv6: &[u8],
        now: Instant,
    ) {
        if !self.queriers.contains_key(&interface) {
            self.drops.unwatched += 1;
            return;
        }
        // other hop limits: from beyond this link
        match mld::parse_message(source, icmpv6) {
            Ok(message) if hop_limit == 1 => self.handle_message(interface, source, message, now),
            _ => self.drops.malformed += 1,
        }
    }

    /// Handles a correct message.
    pub fn handle_message(
        &mut self,
        interface: u32,
        source: Ipv6Addr,
        message: Message,
        now: Instant,
    ) {
        if !self.queriers.contains_key(&interface) {
            self.drops.unwatched += 1;
            return;
        }
        // before the host had an address (RFC 9777 §5.2.13)
        if source.is_unspecified() {
            self.drops.malformed += 1;
            return;
        }
        match message {
            Message::Query(query) => self.handle_query(interface, source, &query, now),
            Message::ReportV1 { group } => {
                let channel = Channel { interface, group };
                self.joined(channel, source, Evidence::Version1, now);
            }
            Message::DoneV1 { group } => self.done(Channel { interface, group }, source, now),
            Message::Report(records) => {
                for record in records {
                    self.handle_record(interface, source, &record, now);
                }
            }
        }
    }

    /// Sources do not matter: a filter that admits any may admit this server.
    fn handle_record(
        &mut self,
        interface: u32,
        source: Ipv6Addr,
        record: &mld::Record,
        now: Instant,
    ) {
        let channel = Channel {
            interface,
            group: record.group,
        };
        let nobody = record.sources.is_empty();
        let evidence = match record.kind {
            RecordType::ModeIsExclude => Evidence::Confirmed,
            RecordType::ModeIsInclude if !nobody => Evidence::Confirmed,
            RecordType::ChangeToExclude => Evidence::Joined,
            RecordType::ChangeToInclude | RecordType::AllowNewSources if !nobody => {
                Evidence::Joined
            }
            RecordType::ChangeToInclude | RecordType::BlockOldSources => {
                self.parted(channel, source, now);
                return;
            }
            RecordType::ModeIsInclude | RecordType::AllowNewSources => return,
        };
        self.joined(channel, source, evidence, now);
    }

    fn handle_query(&mut self, interface: u32, source: Ipv6Addr, query: &Query, now: Instant) {
        if let Some(querier) = self.queriers.get_mut(&interface) {
            querier.handle_query(source, query, now);
        }
    }

    /// Counts a malformed message.
    pub fn handle_malformed(&mut self) {
        self.drops.malformed += 1;
    }

    /// Counts `count` messages that the kernel lost, and queries all hosts.
    pub fn handle_lost(&mut self, count: u32, now: Instant) {
        self.drops.lost += u64::from(count);
        for querier in self.queriers.values_mut() {
            querier.ask_all(now);
        }
    }

    /// Stops a channel, as its block can no longer be read.
    pub fn handle_block_gone(&mut self, channel: Channel, now: Instant) {
        self.schedule.stop(channel, now);
    }

    /// Returns counters of reports without effect.
    #[must_use]
    pub fn drops(&self) -> Drops {
        Drops {
            refused: self.schedule.refused(),
            ..self.drops
        }
    }

    /// Joined channels without root channels.
    #[must_use]
    pub fn joined_channels(&self) -> usize {
        self.schedule.joined()
    }

    /// Symbols sent since the start.
    #[must_use]
    pub fn symbols_sent(&self) -> Sent {
        self.schedule.sent()
    }

    /// Served shares, by prefix.
    pub fn shares(&self) -> impl Iterator<Item = (&SharePrefix, &Share<I>)> {
        self.shares.iter()
    }

    /// Versions and rescans of a share.
    #[must_use]
    pub fn history(&self, share: SharePrefix) -> Option<&History> {
        self.histories.get(&share)
    }

    /// Traffic of a share, if any.
    #[must_use]
    pub fn traffic(&self, share: SharePrefix) -> Option<&Traffic> {
        self.schedule.traffic(share)
    }

    /// Members of a share's root channel, by index of the interface.
    pub fn followers(&self, share: SharePrefix) -> impl Iterator<Item = (u32, &Reporters)> {
        let group = share.group(ROOT_CHANNEL);
        self.queriers.keys().filter_map(move |interface| {
            let interface = *interface;
            let root = self.roots.get(&Channel { interface, group })?;
            Some((interface, &root.reporters))
        })
    }

    /// Joined root channels.
    pub fn roots(&self) -> impl Iterator<Item = Channel> {
        self.roots.keys().copied()
    }

    /// Record of a share for its other servers.
    #[must_use]
    pub fn record_for_servers(&self, channel: Channel) -> Option<Vec<u8>> {
        let record = Record {
            sending: Vec::new(),
            ..self.record(channel)?
        };
        encode_record(&record).ok()
    }

    /// Joined channels of a share without its root channel.
    pub fn joined_of(&self, share: SharePrefix) -> impl Iterator<Item = Joined<'_>> {
        let interfaces = self.queriers.keys();
        interfaces.flat_map(move |interface| self.schedule.joined_of(share, *interface))
    }

    /// Time since this server started.
    #[must_use]
    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Bits per second over all shares: the limit, and the capacity, if measured.
    #[must_use]
    pub fn limits(&self) -> (Option<u64>, Option<u64>) {
        (self.rates.total, self.schedule.least_capacity())
    }

    /// The last bits per second that left while more waited.
    #[must_use]
    pub fn last_capacity(&self) -> Option<u64> {
        self.schedule.last_capacity()
    }

    /// Joined root channels, on all interfaces.
    #[must_use]
    pub fn joined_roots(&self) -> usize {
        self.roots.len()
    }

    /// JOINs since the start, of root channels and of other channels, without repeated reports.
    #[must_use]
    pub fn joins(&self) -> (u64, u64) {
        (self.root_joins, self.schedule.joins())
    }

    /// Channels in a burst, and their bits per second.
    #[must_use]
    pub fn bursts(&self) -> (usize, u64) {
        (self.schedule.bursting(), self.schedule.load())
    }

    fn joined(&mut self, channel: Channel, source: Ipv6Addr, evidence: Evidence, now: Instant) {
        if !self.is_served_on(channel.group, channel.interface) {
            self.drops.elsewhere += 1;
            return;
        }
        if self.share_of(channel.group).is_none() && self.catalogue(channel).is_none() {
            return;
        }
        if channel_of(channel.group) == ROOT_CHANNEL {
            let root = self.roots.entry(channel).or_insert_with(|| Root {
                reporters: Reporters::default(),
                next: now,
                sent_at: None,
                bytes: 0,
                evidence_at: now,
                asked: 0,
                ask_at: now,
                welcome: 0,
                part: 0,
            });
            // a new receiver gets records soon, but any number of reporters gets no more
            if root.reporters.add(source, evidence) {
                self.root_joins += 1;
                root.welcome = WELCOME;
                root.hasten(LEAST_INTERVAL, now);
            }
            (root.evidence_at, root.asked) = (now, 0);
            return;
        }
        // members are servers, this one among them; they request nothing
        if channel_of(channel.group) == SERVERS_CHANNEL {
            return;
        }
        let share = self.share_of(channel.group);
        let found = share.and_then(|s| Some((s, s.index.find(channel_of(channel.group))?)));
        let carrying = self.carried_on(channel);
        let is_own = |number| carrying::is_of(channel_of(channel.group), number);
        if carrying.is_some_and(|c| !c.alone && !is_own(c.number)) {
            self.drops.elsewhere += 1;
            return;
        }
        let sent = |found: &Found| match found {
            Found::Block { .. } => true,
            Found::Stretch(_) => self.rates.stretch.is_some(),
        };
        let Some((share, found)) = found.filter(|(_, found)| sent(found)) else {
            self.drops.unknown_channel += 1;
            return;
        };
        let before = self.schedule.joined();
        let group = SharePrefix::of_group(channel.group).map(|p| p.group(ROOT_CHANNEL));
        let root = group.and_then(|group| self.roots.get(&Channel { group, ..channel }));
        let list = share.index.is_list(channel_of(channel.group));
        let lacking = match &found {
            Found::Block { block, .. } if !list => {
                Some(*block).filter(|block| carrying.is_some_and(|c| c.lacks(&block.hash)))
            }
            _ => None,
        };
        let (symbols, layer, start, blocks) = match &found {
            Found::Block { block, layer } => (symbols_of(block), *layer, 0, 1),
            Found::Stretch(stretch) => {
                let blocks = stretch.blocks().len() as u32;
                let start = self.start_of(stretch);
                (stretch.symbols(), STRETCH_LAYER, start, blocks)
            }
        };
        let wanted = Wanted {
            symbols,
            layer,
            start,
            blocks,
            receivers: root.map_or(0, |r| r.reporters.count()),
            list,
            absent: lacking.is_some(),
        };
        if let Some(block) = lacking
            && let Some(prefix) = SharePrefix::of_group(channel.group)
            && let Some(carrying) = self.carrying.get_mut(&prefix)
        {
            carrying.awaited.entry(block.hash).or_insert(Awaited {
                block,
                channel,
                since: now,
                told: false,
            });
        }
        self.schedule.join(channel, wanted, source, evidence, now);
        if self.schedule.joined() > before {
            self.announce(channel, now);
        }
    }

    /// First symbol of a stretch: servers of a share begin with different blocks.
    fn start_of(&self, stretch: &Stretch) -> u32 {
        let nth = self.id as usize % stretch.blocks().len();
        stretch.spans().nth(nth).map_or(0, |span| span.first)
    }

    /// Sends a record soon, as other receivers may want this block, too.
    fn announce(&mut self, channel: Channel, now: Instant) {
        let load = self.schedule.load().max(self.rates.channel);
        let group = SharePrefix::of_group(channel.group).map(|p| p.group(ROOT_CHANNEL));
        let root = group.and_then(|group| self.roots.get_mut(&Channel { group, ..channel }));
        if let Some(root) = root {
            root.hasten(root.interval(load, LEAST_INTERVAL), now);
        }
    }

    fn parted(&mut self, channel: Channel, source: Ipv6Addr, now: Instant) {
        let Some(root) = self.roots.get_mut(&channel) else {
            self.schedule.part(channel, source, now);
            return;
        };
        match root.reporters.remove(source) {
            Some(true) => {
                self.roots.remove(&channel);
            }
            Some(false) => {}
            None => root.evidence_at = now.checked_sub(ROOT_EVIDENCE).unwrap_or(now),
        }
    }

    /// Handles a Done of MLDv1: members may remain that suppressed their own report.
    fn done(&mut self, channel: Channel, source: Ipv6Addr, now: Instant) {
        match self.roots.get_mut(&channel) {
            Some(root) if root.reporters.version_1() => {
                root.reporters.remove(source);
                root.evidence_at = now.checked_sub(ROOT_EVIDENCE).unwrap_or(now);
            }
            Some(_) => self.parted(channel, source, now),
            None => self.schedule.done(channel, source, now),
        }
    }

    /// Holds the symbols of an interface back until then, as packets `wait` there; records, queries and
    /// other interfaces go on.
    pub fn hold(&mut self, interface: u32, wait: Duration, until: Instant, now: Instant) {
        self.schedule.hold(interface, wait, until, now);
    }

    /// Returns when [`poll_output`](Self::poll_output) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let queries = self.queriers.values().map(Querier::next_timeout);
        let records = self.roots.values().map(|r| r.next);
        queries
            .chain(records)
            .chain(self.schedule.next_timeout())
            .min()
    }

    /// Returns the next action.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        self.poll_query(now)
            .or_else(|| self.poll_root(now))
            .or_else(|| self.poll_schedule(now))
    }

    fn poll_query(&mut self, now: Instant) -> Option<Output> {
        self.queriers.iter_mut().find_map(|(interface, querier)| {
            let query = querier.poll(now)?;
            Some(Output::Query {
                interface: *interface,
                source: querier.address(),
                destination: ALL_NODES,
                message: mld::query_message(&query),
            })
        })
    }

    fn poll_schedule(&mut self, now: Instant) -> Option<Output> {
        loop {
            match self.schedule.poll(now)? {
                Action::Symbols {
                    channel,
                    sequence,
                    ids,
                } => {
                    return Some(Output::Symbols {
                        channel,
                        sequence,
                        ids,
                    });
                }
                Action::Ask { channel } => {
                    if let Some(output) = self.ask(channel) {
                        return Some(output);
                    }
                }
            }
        }
    }

    fn ask(&self, channel: Channel) -> Option<Output> {
        let source = self.queriers.get(&channel.interface)?.address();
        Some(Output::Query {
            interface: channel.interface,
            source,
            destination: channel.group,
            message: mld::query_message(&group_query(channel.group)),
        })
    }

    fn poll_root(&mut self, now: Instant) -> Option<Output> {
        let channel = *self.roots.iter().find(|(_, r)| r.next <= now)?.0;
        let carries = self.carried_on(channel).is_some();
        let busy = !carries && self.upcoming(channel).next().is_some();
        let load = self.schedule.load();
        let root = self.roots.get_mut(&channel)?;
        let welcome = root.welcome > 0;
        root.welcome = root.welcome.saturating_sub(1);
        root.next = now
            + match (busy, welcome) {
                (_, true) => LEAST_INTERVAL,
                (true, false) => root.interval(load, BUSY_INTERVAL),
                (false, false) => RECORD_INTERVAL,
            };
        let stale = now.saturating_duration_since(root.evidence_at) >= ROOT_EVIDENCE;
        if stale && now >= root.ask_at {
            if root.asked == ROOT_ASKS {
                self.roots.remove(&channel);
                return self.poll_root(now);
            }
            root.asked += 1;
            root.ask_at = now + ROOT_ASK_AGAIN;
            if let Some(output) = self.ask(channel) {
                return Some(output);
            }
        }
        if let Some(datagram) = self.next_of_catalogue(channel, now) {
            return Some(Output::Record { channel, datagram });
        }
        let record = self.record(channel)?;
        let datagram = encode_record(&record).ok()?;
        if let Some(root) = self.roots.get_mut(&channel) {
            (root.sent_at, root.bytes) = (Some(now), datagram.len());
        }
        Some(Output::Record { channel, datagram })
    }

    /// Returns the next part; the whole repeats while the channel has members.
    fn next_of_catalogue(&mut self, channel: Channel, now: Instant) -> Option<Vec<u8>> {
        let parts = self.catalogue(channel)?;
        let count = parts.len();
        let part = self.roots.get(&channel)?.part % count;
        let datagram = parts[part].clone();
        let root = self.roots.get_mut(&channel)?;
        root.part = (part + 1) % count;
        root.sent_at = Some(now);
        root.next = now
            + match root.part {
                0 => CATALOGUE_INTERVAL,
                _ => LEAST_INTERVAL,
            };
        Some(datagram)
    }

    /// Channels that the root channel's share sends next.
    fn upcoming(&self, root: Channel) -> impl Iterator<Item = Upcoming> + '_ {
        self.schedule.upcoming(root, MAX_LOOKED_AT)
    }

    fn record(&self, channel: Channel) -> Option<Record> {
        let share = self.share_of(channel.group)?;
        let limits = [self.rates.total, self.schedule.limit_of(channel.group)];
        let carrying = self.carried_on(channel);
        // all channels of a carrier are joined in time
        let upcoming = self.upcoming(channel).filter(|_| carrying.is_none());
        let upcoming = most_useful(upcoming.collect());
        let sending = upcoming.iter().map(|u| Sending {
            channel: channel_of(u.group),
            left: u16::try_from(u.left).unwrap_or(u16::MAX),
        });
        // under a limit, only single blocks are sent, of which few fit at once; behind full links a
        // stretch would be too much for its carrier
        let offer = self.rates.stretch.is_some()
            && share.index.has_stretches()
            && limits.iter().all(Option::is_none)
            && !self.schedule.is_held(channel.interface);
        let offer = offer.then_some(Sending {
            channel: OFFER_CHANNEL,
            left: STRETCH as u16,
        });
        let kilobits = |rate: u64| u32::try_from(rate / 1_000).unwrap_or(u32::MAX);
        let total = limits
            .into_iter()
            .flatten()
            .chain(self.schedule.capacity(channel.interface));
        Some(Record {
            server: self.id,
            generation: share.generation,
            root: share.index.root,
            metadata: share.index.metadata,
            channel_rate: kilobits(self.rates.channel).max(1),
            slow_rate: kilobits(self.rates.slow),
            total_rate: total.min().map_or(0, |r| kilobits(r).max(1)),
            max_channels: MAX_CHANNELS,
            carries: carrying.map(|c| Carries {
                width: c.width,
                progress: c.had.progress(),
            }),
            authentication: share.authentication.clone(),
            sending: offer.into_iter().chain(sending).take(MAX_SENDING).collect(),
        })
    }
}

/// Selects the channels that a record has room for: first those that not all receivers have joined,
/// then by symbols left, then by time.
fn most_useful(mut upcoming: Vec<Upcoming>) -> Vec<Upcoming> {
    upcoming.sort_by_key(|u| (!u.missed, std::cmp::Reverse(u.left)));
    upcoming.truncate(MAX_SENDING);
    upcoming
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{HashCache, Index};
    use crate::packet::{Packet, decode};
    use crate::server::hosted::Server;
    use librecast::mld::report_messages;

    fn server(now: Instant) -> (Server, SharePrefix, Arc<Index>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), vec![1; 5_000]).unwrap();
        let index = Arc::new(Index::build(dir.path(), b"", &mut HashCache::default()).unwrap());
        let prefix = SharePrefix::of_name(b"", "test");
        let rates = Rates {
            stretch: None,
            channel: 20_000_000,
            slow: 2_000_000,
            total: None,
        };
        let mut server = Server::new(7, rates, 1, now);
        server.set_share(prefix, Share::unsigned(Arc::clone(&index), 1), now);
        server.set_interfaces(&BTreeMap::from([(3, host(99))]), now);
        (server, prefix, index, dir)
    }

    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn report(server: &mut Server, kind: RecordType, group: Ipv6Addr, from: u16, now: Instant) {
        let record = mld::Record::new(kind, group, Vec::new());
        for message in report_messages(&[record], 1280) {
            server.handle_mld(3, host(from), 1, &message, now);
        }
    }

    /// Records, symbols and queries until `span` has passed.
    fn run(server: &mut Server, from: Instant, span: Duration) -> (usize, usize, usize) {
        let (mut now, mut counts) = (from, (0, 0, 0));
        loop {
            while let Some(output) = server.poll_output(now) {
                match output {
                    Output::Record { .. } => counts.0 += 1,
                    Output::Symbols { ids, .. } => counts.1 += ids.len(),
                    Output::Query { .. } => counts.2 += 1,
                }
            }
            match server.next_timeout() {
                Some(at) if at <= from + span => now = at.max(now),
                _ => return counts,
            }
        }
    }

    #[test]
    fn a_record_tells_first_what_somebody_misses_who_is_there() {
        let upcoming = |n: u16, left, missed| Upcoming {
            group: host(n),
            left,
            missed,
        };
        let all = (0..200).map(|n| upcoming(n, u32::from(n / 2 % 50), n % 2 == 0));
        let told = most_useful(all.collect());
        assert_eq!(told.len(), MAX_SENDING);
        assert!(told.iter().all(|u| u.missed));
        assert!(
            told.is_sorted_by(|a, b| { a.left > b.left || a.left == b.left && a.group < b.group })
        );
        assert_eq!((told[0].left, told[63].left), (49, 18));

        let few = [upcoming(1, 9, false), upcoming(2, 1, true)];
        assert_eq!(most_useful(few.to_vec()), [few[1], few[0]]);
    }

    #[test]
    fn nothing_but_queries_until_somebody_joins() {
        let now = Instant::now();
        let (mut server, prefix, ..) = server(now);
        let (records, symbols, queries) = run(&mut server, now, Duration::from_secs(10));
        assert_eq!((records, symbols), (0, 0));
        assert!(queries >= 3);
        let later = now + Duration::from_secs(10);
        report(
            &mut server,
            RecordType::ChangeToExclude,
            prefix.group(0),
            1,
            later,
        );
        let (records, symbols, _) = run(&mut server, later, Duration::from_secs(1));
        assert_eq!(records, 10, "a few at once, then five a second");
        assert_eq!(symbols, 0);
        let end = later + Duration::from_secs(1);
        report(
            &mut server,
            RecordType::ChangeToInclude,
            prefix.group(0),
            1,
            end,
        );
        assert_eq!(run(&mut server, end, Duration::from_secs(10)).0, 0);
    }

    #[test]
    fn a_root_channel_whose_members_do_not_answer_ends() {
        let now = Instant::now();
        let (mut server, prefix, ..) = server(now);
        report(
            &mut server,
            RecordType::ChangeToExclude,
            prefix.group(0),
            1,
            now,
        );
        run(&mut server, now, Duration::from_secs(20));
        let later = now + Duration::from_secs(20);
        assert_eq!(run(&mut server, later, Duration::from_secs(10)).0, 0);
    }

    #[test]
    fn who_asks_what_is_shared_is_told_each_second_until_it_leaves() {
        let now = Instant::now();
        let (mut server, _, _, _dir) = server(now);
        let prefix = crate::catalogue::prefix(b"");
        let asked = prefix.group(ROOT_CHANNEL);
        report(&mut server, RecordType::ChangeToExclude, asked, 1, now);
        assert_eq!(
            run(&mut server, now, Duration::from_secs(2)).0,
            0,
            "nothing is listed"
        );
        let parts = vec![vec![1], vec![2], vec![3]];
        server.set_catalogues(BTreeMap::from([
            ((prefix, 3), parts),
            ((prefix, 4), vec![]),
        ]));
        let mut at = now + Duration::from_secs(2);
        for from in 1..6 {
            report(&mut server, RecordType::ChangeToExclude, asked, from, at);
        }
        let said = run(&mut server, at, Duration::from_millis(2_500)).0;
        assert!(
            (9..12).contains(&said),
            "{said} in 2.5 s, of 3 for each second"
        );
        at += Duration::from_millis(2_500);
        for from in 1..6 {
            report(&mut server, RecordType::ChangeToInclude, asked, from, at);
        }
        assert_eq!(run(&mut server, at, Duration::from_secs(3)).0, 0, "silence");
        let block = prefix.group(99);
        report(&mut server, RecordType::ChangeToExclude, block, 1, at);
        assert_eq!(server.drops().unknown_channel, 1);
    }

    #[test]
    fn any_number_of_reporters_gets_a_few_records_only() {
        let now = Instant::now();
        let (mut server, prefix, ..) = server(now);
        let mut records = 0;
        for n in 0..1_000_u16 {
            let at = now + Duration::from_millis(n.into());
            let kind = RecordType::ChangeToExclude;
            report(&mut server, kind, prefix.group(0), n + 1, at);
            records += run(&mut server, at, Duration::ZERO).0;
        }
        assert!((10..=51).contains(&records), "{records}");
    }

    #[test]
    fn a_joined_block_is_sent_and_shown_in_the_record() {
        let now = Instant::now();
        let (mut server, prefix, index, _dir) = server(now);
        let channel = librecast::channel::block_channel(b"", &index.root.hash.0, 0);
        report(
            &mut server,
            RecordType::ChangeToExclude,
            prefix.group(channel),
            1,
            now,
        );
        let channel_here = Channel {
            interface: 3,
            group: prefix.group(0),
        };
        let record = server.record(channel_here).unwrap();
        assert_eq!(record.sending, [Sending { channel, left: 1 }]);
        let bytes = encode_record(&record).unwrap();
        assert!(matches!(decode(&bytes), Ok(Packet::Record(r)) if *r == record));
        assert!(run(&mut server, now, Duration::from_secs(30)).1 >= 3);
        assert_eq!(server.joined_channels(), 0);
    }

    #[test]
    fn reports_from_elsewhere_count_as_dropped() {
        let now = Instant::now();
        let (mut server, prefix, ..) = server(now);
        let record = mld::Record::new(RecordType::ChangeToExclude, prefix.group(0), Vec::new());
        let message = report_messages(&[record], 1280).remove(0);
        server.handle_mld(3, host(1), 2, &message, now);
        server.handle_mld(3, "2001:db8::1".parse().unwrap(), 1, &message, now);
        server.handle_mld(3, Ipv6Addr::UNSPECIFIED, 1, &message, now);
        server.handle_mld(4, host(1), 1, &message, now);
        assert_eq!(
            server.drops(),
            Drops {
                malformed: 3,
                unwatched: 1,
                ..Drops::default()
            }
        );
        assert_eq!(run(&mut server, now, Duration::from_secs(5)).0, 0);
        report(
            &mut server,
            RecordType::ChangeToExclude,
            prefix.group(12345),
            1,
            now,
        );
        report(
            &mut server,
            RecordType::ChangeToExclude,
            "ff1e::99".parse().unwrap(),
            1,
            now,
        );
        assert_eq!(server.drops().unknown_channel, 1);
    }

    #[test]
    fn hosts_of_version_1_are_served_and_those_who_are_left_are_asked() {
        let now = Instant::now();
        let (mut server, prefix, ..) = server(now);
        let group = prefix.group(0);
        for n in [1, 2] {
            server.handle_message(3, host(n), Message::ReportV1 { group }, now);
        }
        assert!(run(&mut server, now, Duration::from_secs(9)).0 >= 40);
        // the other one suppressed its reports after this one's
        let mut at = now + Duration::from_secs(9);
        server.handle_message(3, host(1), Message::DoneV1 { group }, at);
        let (records, _, queries) = run(&mut server, at, Duration::from_millis(500));
        assert!(records > 0 && queries == 1, "{records}, {queries}");
        at += Duration::from_millis(500);
        server.handle_message(3, host(2), Message::ReportV1 { group }, at);
        let (records, ..) = run(&mut server, at, Duration::from_secs(8));
        assert!(records >= 40, "{records}");
        at += Duration::from_secs(8);
        server.handle_message(3, host(2), Message::DoneV1 { group }, at);
        run(&mut server, at, Duration::from_secs(4));
        at += Duration::from_secs(4);
        assert_eq!(run(&mut server, at, Duration::from_secs(5)).0, 0);
    }

    #[test]
    fn blocks_that_a_new_version_does_not_have_stop() {
        let now = Instant::now();
        let (mut server, prefix, index, dir) = server(now);
        let channel = librecast::channel::block_channel(b"", &index.root.hash.0, 0);
        report(
            &mut server,
            RecordType::ChangeToExclude,
            prefix.group(channel),
            1,
            now,
        );
        assert_eq!(server.joined_channels(), 1);
        std::fs::write(dir.path().join("g"), b"new").unwrap();
        let index = Arc::new(Index::build(dir.path(), b"", &mut HashCache::default()).unwrap());
        server.set_share(prefix, Share::unsigned(index, 2), now);
        assert_eq!(server.joined_channels(), 0);
    }

    #[test]
    fn an_interface_that_is_gone_takes_its_channels_along() {
        let now = Instant::now();
        let (mut server, prefix, ..) = server(now);
        report(
            &mut server,
            RecordType::ChangeToExclude,
            prefix.group(0),
            1,
            now,
        );
        server.set_interfaces(&BTreeMap::new(), now);
        assert_eq!(server.next_timeout(), None);
    }
}
