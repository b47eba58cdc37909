//! A receiver: the core as the shell drives it, its kernel, its disk and its link.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash};
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lcsync::block::{BlockHash, BlockRef};
use lcsync::opener::Opener;
use lcsync::receive::changes::Changes;
use lcsync::receive::choice::Proof;
use lcsync::receive::core::{Event, Receiver, Settings};
use lcsync::receive::tree::Tree;
use librecast::channel::{ChannelId, ROOT_CHANNEL};
use librecast::random::Random;
use librecast::simulated::{Bottleneck, Path};

use super::content::{Blocks, Content};
use super::kernel::Kernel;

/// Interval in which a receiver passes changes to its kernel.
const TELL: Duration = Duration::from_millis(12);
/// Most blocks under way, or waiting to be written.
pub const MOST_BLOCKS: usize = 192;

pub struct Host {
    pub address: Ipv6Addr,
    core: Option<Receiver>,
    /// Interface on which blocks are divided.
    pub overlay: Option<u32>,
    /// Its number and width as a carrier.
    pub carries: Option<(u16, u8)>,
    /// The tree of the version, once it has come.
    pub tree: Option<Tree>,
    /// Blocks that have come to its disk since its server was told.
    pub fresh: Vec<BlockHash>,
    /// Blocks that others await at its server for too long.
    pub overdue: Vec<BlockRef>,
    pub longest_awaited: Duration,
    changes: Changes,
    pub kernel: Kernel,
    /// Channels that the switch forwards to it.
    pub forwarded: BTreeSet<ChannelId>,
    pub loss: f64,
    /// Datagrams in a loss burst.
    pub train: u32,
    /// Datagrams left in the present loss burst.
    losing: u32,
    pub path: Path,
    pub link: Option<Bottleneck<Duration>>,
    /// A second path, for half of the channels.
    pub detour: Option<Bottleneck<Duration>>,
    /// Only its answers to queries arrive.
    pub only_answers: bool,
    pub disk: Option<Bottleneck<Duration>>,
    writing: VecDeque<(Duration, BlockHash)>,
    /// Blocks on its disk.
    written: BTreeSet<BlockHash>,
    /// Continues after a whole version.
    pub follows: bool,
    pub starts: Duration,
    /// Time from the start until it has compared its disk, if the tree is received by then.
    pub compares: Duration,
    /// The blocks that it will then want.
    missing: Option<Vec<BlockRef>>,
    /// The number of the fetched version, and its blocks.
    version: usize,
    blocks: Option<Blocks>,
    /// When the first blocks were wanted.
    began: Duration,
    pub finished: Option<Duration>,
    /// Received symbols.
    pub arrived: u64,
    /// Received blocks.
    pub came: u64,
    /// Addresses found to be corrupt.
    pub corrupt: BTreeSet<Ipv6Addr>,
    pub conflicts: usize,
    pub changed: usize,
    /// All events of the core.
    pub trace: DefaultHasher,
}

impl Host {
    pub fn new(address: Ipv6Addr, starts: Duration, loss: f64) -> Self {
        Self {
            address,
            core: None,
            overlay: None,
            carries: None,
            tree: None,
            fresh: Vec::new(),
            overdue: Vec::new(),
            longest_awaited: Duration::MAX,
            changes: Changes::new(TELL),
            kernel: Kernel::default(),
            forwarded: BTreeSet::new(),
            loss,
            train: 1,
            losing: 0,
            path: Path::default(),
            link: None,
            detour: None,
            only_answers: false,
            disk: None,
            writing: VecDeque::new(),
            written: BTreeSet::new(),
            follows: false,
            starts,
            compares: Duration::from_secs(1),
            missing: None,
            version: 0,
            blocks: None,
            began: Duration::ZERO,
            finished: None,
            arrived: 0,
            came: 0,
            corrupt: BTreeSet::new(),
            conflicts: 0,
            changed: 0,
            trace: DefaultHasher::new(),
        }
    }

    /// Time of the fetch.
    pub fn took(&self) -> Option<Duration> {
        Some(self.finished? - self.began)
    }

    /// Whether it has everything, of this version if it continues.
    pub fn is_done(&self, version: usize) -> bool {
        self.finished.is_some() && (!self.follows || self.version == version)
    }

    /// Source symbols of the content.
    pub fn symbols_needed(&self) -> u32 {
        self.blocks.as_ref().unwrap().symbols()
    }

    /// Received symbols for each needed one.
    pub fn received(&self) -> f64 {
        self.arrived as f64 / f64::from(self.symbols_needed())
    }

    /// Whether the next datagram is lost, alone or in a burst.
    pub fn loses(&mut self, random: &mut Random) -> bool {
        if self.losing == 0 {
            let begins = self.loss / (self.loss + f64::from(self.train) * (1.0 - self.loss));
            if !random.chance(begins) {
                return false;
            }
            self.losing = self.train;
        }
        self.losing -= 1;
        true
    }

    /// Starts the program, if that is due.
    pub fn start(&mut self, time: Duration, now: Instant) {
        if self.core.is_some() || self.finished.is_some() || self.starts > time {
            return;
        }
        let settings = Settings {
            pinned: None,
            proof: Proof::None,
            floor: 0,
            opener: Opener::default(),
            limit: None,
            timeout: Duration::from_secs(30),
            own_server: None,
            overlay: self.overlay,
        };
        self.core = Some(Receiver::new(settings, now));
        self.changes.set(ROOT_CHANNEL, true);
    }

    /// Kills the program; written blocks remain.
    pub fn kill(&mut self, time: Duration, again_at: Duration, random: &mut Random) {
        (self.core, self.missing, self.finished) = (None, None, None);
        self.changes = Changes::new(TELL);
        self.kernel.leave_all(time, random);
        self.writing.clear();
        self.starts = again_at;
    }

    pub fn take(
        &mut self,
        channel: ChannelId,
        payload: &[u8],
        from: (Ipv6Addr, u32),
        now: Instant,
    ) {
        self.arrived += u64::from(channel != ROOT_CHANNEL);
        if let Some(core) = &mut self.core {
            core.handle_datagram(channel, payload, from.0, from.1, now);
        }
    }

    /// Executes the core's events, as the shell does.
    pub fn drive(
        &mut self,
        contents: &[Rc<Content>],
        time: Duration,
        now: Instant,
        random: &mut Random,
    ) {
        while let Some((_, block)) = self.writing.pop_front_if(|(at, _)| *at <= time) {
            self.written.insert(block);
        }
        if let Some(mut core) = self.core.take() {
            if self.overlay.is_some() {
                core.carry(self.carries);
                self.longest_awaited = core.longest_awaited();
                for block in self.overdue.drain(..) {
                    core.take_over(block, now);
                }
            }
            core.handle_timeout(now);
            core.set_room(MOST_BLOCKS - self.writing.len(), now);
            if time >= self.starts + self.compares
                && let Some(missing) = self.missing.take()
            {
                self.began = time;
                let leaves = self.blocks.as_ref().map_or(&[][..], |b| &b.leaves);
                core.fetch(&missing, leaves, now);
            }
            while let Some(event) = core.poll_event(now) {
                self.handle(event, &mut core, contents, time);
                core.set_room(MOST_BLOCKS - self.writing.len(), now);
            }
            assert!(core.blocks_held() + self.writing.len() <= MOST_BLOCKS);
            self.core = (self.finished.is_none() || self.follows).then_some(core);
            if self.core.is_none() {
                self.changes.set(ROOT_CHANNEL, false);
            }
        }
        for (channel, join) in self.changes.poll(now).unwrap_or_default() {
            self.kernel.set(channel, join, time, random);
        }
    }

    fn handle(
        &mut self,
        event: Event,
        core: &mut Receiver,
        contents: &[Rc<Content>],
        time: Duration,
    ) {
        (time, std::mem::discriminant(&event)).hash(&mut self.trace);
        match event {
            Event::Join(channel) => {
                assert!(!core.is_resting(), "asks for more than everything");
                channel.hash(&mut self.trace);
                self.changes.set(channel, true);
            }
            Event::Leave(channel) => {
                channel.hash(&mut self.trace);
                self.changes.set(channel, false);
            }
            Event::Tree(version) => {
                let (record, tree) = *version;
                let is_it = |c: &Rc<Content>| c.index.root == record.root;
                self.version = contents.iter().position(is_it).unwrap();
                let blocks = contents[self.version].blocks(&tree);
                let is_missing = |b: &&BlockRef| !self.written.contains(&b.hash);
                let missing = blocks.leaves.iter().filter(is_missing);
                self.missing = Some(missing.copied().collect());
                self.blocks = Some(blocks);
                self.tree = Some(tree);
            }
            Event::Block { block, bytes } => {
                let blocks = self.blocks.as_ref().unwrap();
                assert!(contents[self.version].has(blocks, block, &bytes));
                let queued = self.writing.iter().any(|(_, hash)| *hash == block.hash);
                assert!(
                    !queued && !self.written.contains(&block.hash),
                    "a block twice"
                );
                match self.disk.as_mut().and_then(|d| d.pass(bytes.len(), time)) {
                    Some(at) => self.writing.push_back((at, block.hash)),
                    None => drop(self.written.insert(block.hash)),
                }
                self.came += 1;
                if self.overlay.is_some() {
                    self.fresh.push(block.hash);
                }
                block.hash.hash(&mut self.trace);
            }
            Event::Fetched => {
                // the shell waits for its writer
                self.written
                    .extend(self.writing.drain(..).map(|(_, hash)| hash));
                let leaves = &self.blocks.as_ref().unwrap().leaves;
                assert!(leaves.iter().all(|l| self.written.contains(&l.hash)));
                self.finished = Some(time);
                core.rest(None);
            }
            Event::CorruptSource(source) => drop(self.corrupt.insert(source.address)),
            Event::Conflict { .. } | Event::Rival { .. } => self.conflicts += 1,
            Event::Changed => {
                self.missing = None;
                self.changed += 1;
            }
            Event::Failed(failure) => panic!("{failure:?}"),
            Event::Version(_) => self.finished = None,
            Event::Record { .. } | Event::Untrusted(_) | Event::RolledBack(_) => {}
        }
    }
}
