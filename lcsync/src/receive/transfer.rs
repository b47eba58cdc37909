//! `lcsync lc:NAME DEST`: one transfer from the first record to the last rename.
//!
//! ```text
//! record -> root node -> listing, hash nodes -> compare with DEST -> missing blocks -> rename into place
//!    ^                                                                  |
//!    +------------------- the share has changed ------------------------+
//! ```

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::net::Ipv6Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use librecast::channel::{ROOT_CHANNEL, SharePrefix};
use librecast::id::PeerId;
use librecast::wire::WireError;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::interrupt;
use librecast_program::keyfile::SharedKey;
use librecast_program::units::count;
use serde_json::json;
use thiserror::Error;

use super::choice::{Choice, Decision, Proof};
use super::collector::Source;
use super::fetch::{Event, Fetch};
use super::finish;
use super::modes::Modes;
use super::network::Network;
use super::plan::Plan;
use super::stats::Stats;
use super::window::Window;
use crate::block::{BlockHash, BlockRef};
use crate::index::Index;
use crate::layout::Layout;
use crate::listing::{self, Entry, Kind, ListingError, METADATA_SIZE, Metadata, shown};
use crate::packet::Packet;
use crate::place::{Place, check_writable, current_umask};
use crate::progress::{Progress, Snapshot, human_bytes, print_line};
use crate::record::Record;
use crate::remembered::Remembered;
use crate::scan::Scan;
use crate::sealing::{Opener, ShareKey, group_key};
use crate::server::core::Share;
use crate::server::rescan::Watched;
use crate::server::seed::Seed;
use crate::signature::Trust;
use crate::tree::{Descent, Root, RootKind, Stream, TreeError};

/// Channels held until loss was judged first.
const START_WINDOW: usize = 16;
/// Channels held before a record says otherwise.
const MAX_WINDOW: usize = 128;
/// Blocks that may wait to be written.
const WRITE_QUEUE: usize = 192;
/// Longest listing in bytes; a longer one is refused, not held in memory.
const MAX_LISTING: u64 = 256 << 20;
/// Most entries of a listing.
const MAX_ENTRIES: u64 = 1 << 24;
/// In place of the number of blocks that wait to be written: nobody takes them any more.
const WRITER_GONE: usize = usize::MAX;
/// Corrupt sources that are named in warnings.
const MAX_NAMED: u32 = 8;
/// A version gives way to any other if its root node and metadata do not come for so long, or make no sense.
const VERSION_TIMEOUT: Duration = Duration::from_secs(3);

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// NAME of `lc:NAME`.
    pub name: String,
    /// What of the share is wanted: a path in it, or all.
    pub part: Option<Vec<u8>>,
    /// No other root hash will do.
    pub pinned: Option<BlockHash>,
    /// File of the key that the share is sealed with.
    pub keyfile: Option<PathBuf>,
    /// Serve what has come.
    pub seed: bool,
    /// Wait for changes and fetch them.
    pub watch: bool,
    /// Print what it has cost.
    pub stats: bool,
    /// No version will do that this key has not signed.
    pub trust: Option<PeerId>,
    /// File or folder that the share is written to.
    pub dest: PathBuf,
    /// Interfaces; empty for all.
    pub interfaces: Vec<String>,
    /// How long nothing may come.
    pub timeout: Duration,
    /// Say what would be done.
    pub dry_run: bool,
    /// Modes and times too.
    pub archive: bool,
    /// Remove from DEST what is not in the share.
    pub delete: bool,
    /// Bits per second to receive.
    pub limit: Option<u64>,
    /// JSON lines.
    pub json: bool,
    /// Print names.
    pub verbose: bool,
    /// Print nothing.
    pub quiet: bool,
}

impl Options {
    /// Whether modes and times are taken as they are. A root hash that is asked for does not cover them.
    fn keeps_metadata(&self) -> bool {
        let proven = self.trust.is_some() || self.keyfile.is_some();
        self.archive && (self.pinned.is_none() || proven)
    }
}

/// The share has a new version: what is being fetched may not be served any more.
#[derive(Debug, Error)]
#[error("the share has changed")]
struct Changed;

/// Why a part of a share cannot be fetched.
#[derive(Debug, Error)]
enum NoPart {
    #[error("the share has no {0}")]
    Missing(String),
    #[error("{0} is a link: fetch what it leads to")]
    Link(String),
    #[error("the share is a single file")]
    File,
}

/// What a server says of a share contradicts itself.
#[derive(Debug, Error)]
enum Contradiction {
    #[error("the listing repeats itself")]
    Repetition,
    #[error("metadata and listing do not agree")]
    Metadata,
}

/// Blocks cannot be written any more; the writer's own error says why.
#[derive(Debug, Error)]
#[error("writing has failed")]
struct WriterGone;

/// Receives the share.
pub fn receive(options: &Options) -> anyhow::Result<Exit> {
    let complete = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&complete);
    let seeds = options.seed;
    interrupt::exit_on_interrupt(move || {
        if seeds {
            Seed::clean_up();
        }
        // who serves on has not been interrupted in anything
        if done.load(Ordering::SeqCst) {
            std::process::exit(Exit::Ok as i32);
        }
    })?;
    if !options.dry_run {
        check_writable(&options.dest)
            .map_err(|(folder, e)| anyhow!("{}: cannot be written to: {e}", folder.display()))?;
    }
    let mut transfer = Transfer::open(options)?;
    loop {
        transfer.wait_for_record()?;
        match transfer.sync() {
            Err(e) if e.is::<Changed>() => tracing::info!("the share has changed: starting over"),
            Err(e) if is_nonsense(&e) => transfer.wait_for_another(e)?,
            Ok(Exit::Ok) if options.seed || options.watch => {
                complete.store(true, Ordering::SeqCst);
                transfer.serve_on()?;
            }
            // the version before has come as a whole: what can be served of both is
            Err(e) if complete.load(Ordering::SeqCst) => {
                tracing::error!("{e:#}; serving on");
                transfer.serve_on()?;
            }
            result => {
                transfer.progress.finish();
                return result;
            }
        }
    }
}

struct Transfer<'a> {
    options: &'a Options,
    network: Network,
    opener: Opener,
    choice: Choice,
    /// Of earlier runs, where records prove anything.
    remembered: Option<Remembered>,
    fetch: Fetch,
    progress: Progress,
    started: Instant,
    /// When the first record was taken: waiting for it is not fetching.
    began: Option<Instant>,
    last_packet: Instant,
    symbol: Instant,
    changed: bool,
    /// Until then the next block of root node or metadata should come.
    due: Option<Instant>,
    corrupt_sources: u32,
    seed: Option<Seed>,
    /// Everything has come: nothing is waited for but a new version.
    resting: bool,
    stats: Stats,
    shown: Snapshot,
    /// Blocks that wait to be written.
    queued: Arc<AtomicUsize>,
}

/// A share's tree, or what is wanted of it, without the data.
struct Tree {
    root: Root,
    entries: Vec<Entry>,
    /// Of the root, then of each entry.
    metadata: Vec<Metadata>,
    leaves: Vec<BlockRef>,
    layout: Layout,
}

impl Tree {
    /// Of a folder, only what is at `path` in it, as if that were shared.
    fn choose(&mut self, path: &[u8]) -> Result<(), NoPart> {
        let name = || shown(path);
        let of_path = |entry: &Entry| entry.path == path;
        let at = self.entries.iter().position(of_path);
        let at = at.ok_or_else(|| NoPart::Missing(name()))?;
        let (chosen, cut) = match &self.entries[at].kind {
            Kind::Folder => {
                let below = [path, b"/"].concat();
                let inside = |entry: &&Entry| entry.path.starts_with(&below);
                let count = self.entries[at + 1..].iter().take_while(inside).count();
                (at + 1..at + 1 + count, below.len())
            }
            Kind::File { executable, .. } => {
                let kind = RootKind::File {
                    executable: *executable,
                };
                self.root.kind = kind;
                (at..at + 1, 0)
            }
            Kind::Link { .. } => return Err(NoPart::Link(name())),
        };
        let layout = std::mem::take(&mut self.layout);
        self.layout = layout.of(&chosen);
        // the first stands for the root
        self.metadata = self.metadata[at + 1..=chosen.end].to_vec();
        self.entries = self.entries[chosen].to_vec();
        for entry in &mut self.entries {
            entry.path.drain(..cut);
        }
        Ok(())
    }

    /// Bytes of all files.
    fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        });
        sizes.sum()
    }

    /// What is not in the listing is not in the share.
    fn is_whole_folder(&self) -> bool {
        self.root.kind == RootKind::Folder && !self.root.incomplete
    }
}

impl<'a> Transfer<'a> {
    fn open(options: &'a Options) -> anyhow::Result<Self> {
        let now = Instant::now();
        check_interfaces(&options.interfaces)?;
        let shared = options
            .keyfile
            .as_deref()
            .map(SharedKey::load)
            .transpose()?;
        let key = shared.map(|k| Arc::new(ShareKey::new(Arc::new(k), &options.name)));
        let group_key = group_key(key.as_deref());
        let prefix = SharePrefix::of_name(group_key, &options.name);
        let proof = match (options.trust, &key) {
            (Some(key), _) => Proof::Signed(Trust::new(key, &options.name, now)),
            (None, Some(_)) => Proof::Sealed,
            (None, None) => Proof::None,
        };
        let remembered = remembered(options, &proof, group_key)?;
        let floor = remembered.as_ref().map_or(0, Remembered::generation);
        let mut network = Network::open(prefix, &options.interfaces).context("receiving socket")?;
        network.join(ROOT_CHANNEL);
        network.apply_changes(now);
        let seed = if options.seed {
            let watched = Watched {
                name: options.name.clone(),
                prefix,
                path: options.dest.clone(),
                signer: None,
                key: key.clone(),
                interfaces: Vec::new(),
                limit: None,
                listed: false,
            };
            let interfaces = options.interfaces.clone();
            Some(Seed::start(watched, interfaces, options.limit)?)
        } else {
            None
        };
        network.refresh_interfaces(now)?;
        if options.archive && !options.keeps_metadata() {
            tracing::warn!(
                "a root hash covers neither modes nor times: they are not taken (with --trust or --keyfile they are)"
            );
        }
        Ok(Self {
            options,
            network,
            choice: Choice::new(options.pinned, proof, floor, now),
            remembered,
            fetch: Fetch::new(
                Window::new(START_WINDOW, MAX_WINDOW, now),
                options.limit,
                now,
            )
            .with_key(group_key),
            opener: Opener::new(key.clone()),
            progress: Progress::new(options.json, options.quiet, now),
            started: now,
            began: None,
            last_packet: now,
            symbol: now,
            changed: false,
            due: None,
            corrupt_sources: 0,
            seed,
            resting: false,
            stats: Stats::default(),
            shown: Snapshot::default(),
            queued: Arc::default(),
        })
    }

    fn wait_for_record(&mut self) -> anyhow::Result<()> {
        self.fetch.clear();
        self.changed = false;
        while self.choice.record().is_none() {
            self.step()?;
        }
        self.changed = false;
        self.began.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) -> anyhow::Result<Exit> {
        let record = self.choice.record().context("no record")?.clone();
        let name = &self.options.name;
        tracing::info!(
            "lc:{name} {} from server {:08x}",
            record.root.hash,
            record.server
        );
        let root = self.fetch_root(&record)?;
        let mut tree = self.fetch_tree(&record, root)?;
        let mut name = self.options.name.as_bytes();
        if let Some(part) = &self.options.part {
            let folder = tree.root.kind == RootKind::Folder;
            ensure!(folder, NoPart::File);
            tree.choose(part)?;
            name = part.rsplit(|c| *c == b'/').next().unwrap_or(part);
        }
        let (folder, file_name) = self.target(tree.root.kind, name)?;
        if let (Some(name), [file]) = (&file_name, &mut tree.entries[..]) {
            file.path.clone_from(name);
        }
        if file_name.is_none() && !self.options.dry_run {
            make_folder(&folder, tree.metadata[0].mode)?;
        }
        let mut place = if folder.exists() || !self.options.dry_run {
            Some(Place::open(&folder).with_context(|| folder.display().to_string())?)
        } else {
            None
        };
        if let (Some(place), false) = (&mut place, self.options.dry_run) {
            let label = file_name.as_deref().unwrap_or_default();
            place
                .open_partial(label)
                .with_context(|| folder.display().to_string())?;
            self.seed_version(&record, &tree, &folder, Place::partial_name(label));
        }
        let of_entries = match tree.root.kind {
            RootKind::Folder => &tree.metadata[1..],
            RootKind::File { .. } => &tree.metadata[..1],
        };
        let modes = Modes::new(of_entries, self.options.keeps_metadata(), current_umask());
        let stream = (tree.layout.clone(), &tree.leaves[..]);
        let mut plan = Plan::compare(&tree.entries, modes, stream, place.as_mut())?;
        let bytes = tree.bytes();
        let missing: u64 = plan.wanted().map(|b| u64::from(b.length)).sum();
        let wanted = plan.wanted().count() as u64;
        self.stats.blocks_found = (tree.leaves.len() as u64).saturating_sub(wanted);
        self.progress.event(&json!({
            "event": "start", "root": record.root.hash.to_string(), "generation": record.generation,
            "files": tree.entries.iter().filter(|e| matches!(e.kind, Kind::File { .. })).count(),
            "bytes": bytes, "missing_bytes": missing,
        }));
        self.shown = Snapshot {
            total: missing,
            ..Snapshot::default()
        };
        match place {
            Some(mut place) if !self.options.dry_run => {
                self.transfer(&record, &tree, plan, &mut place)
            }
            mut place => {
                if let Some(place) = &mut place {
                    let uncertain = plan.uncertain();
                    self.fetch_blocks(&uncertain, |block, bytes| {
                        plan.settle(block, &bytes, place);
                        Ok(())
                    })?;
                }
                let delete = self.options.delete && tree.is_whole_folder();
                finish::describe(delete, &tree.entries, &plan, place.as_mut())?;
                if self.options.delete && tree.root.incomplete {
                    tracing::warn!("{NOTHING_DELETED}");
                }
                self.say(&format!(
                    "{} to fetch of {}",
                    human_bytes(missing),
                    human_bytes(bytes)
                ));
                Ok(Exit::Ok)
            }
        }
    }

    fn transfer(
        &mut self,
        record: &Record,
        tree: &Tree,
        mut plan: Plan<'_>,
        place: &mut Place,
    ) -> anyhow::Result<Exit> {
        let (needed, room) = (plan.room_needed(place), place.room()?);
        if let Some(room) = room.filter(|room| *room < needed) {
            bail!(
                "{}: No space left for all of it: {} are needed and {} are free; nothing was fetched",
                self.options.dest.display(),
                human_bytes(needed),
                human_bytes(room)
            );
        }
        plan.begin(place, self.options.delete)?;
        let wanted: Vec<BlockRef> = plan.wanted().collect();
        self.fetch_and_write(&wanted, &mut plan, place)?;
        let folder = tree.root.kind == RootKind::Folder && self.options.keeps_metadata();
        let removed = finish::finish(
            self.options.delete,
            self.options.delete && tree.is_whole_folder(),
            &tree.entries,
            tree.metadata.first().filter(|_| folder),
            &mut plan,
            place,
        )?;
        self.report(record, tree, &plan, &removed);
        if plan.is_placed() {
            place.remove_partial()?;
        }
        if plan.failures.is_empty() {
            ensure!(
                !(self.options.delete && tree.root.incomplete),
                NOTHING_DELETED
            );
            return Ok(Exit::Ok);
        }
        for failure in &plan.failures {
            tracing::error!("{failure}");
        }
        bail!(
            "{} of {} entries could not be put in place",
            plan.failures.len(),
            tree.entries.len()
        );
    }

    /// Writing has a thread of its own: packets do not wait for disks.
    fn fetch_and_write(
        &mut self,
        wanted: &[BlockRef],
        plan: &mut Plan<'_>,
        place: &mut Place,
    ) -> anyhow::Result<()> {
        let queued = Arc::clone(&self.queued);
        let (sender, receiver) = sync_channel::<(BlockRef, Vec<u8>)>(WRITE_QUEUE);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let result = write_all(receiver, plan, place, &queued);
                if result.is_err() {
                    queued.store(WRITER_GONE, Ordering::SeqCst);
                }
                result
            });
            let fetched = self.fetch_blocks(wanted, |block, bytes| {
                queued.fetch_add(1, Ordering::SeqCst);
                // the writer has failed: its error says why
                sender.send((block, bytes)).map_err(|_| WriterGone.into())
            });
            drop(sender);
            let written = writer.join().map_err(|_| WriterGone)?;
            queued.store(0, Ordering::SeqCst);
            written.context("writing to DEST (what has come is kept there)")?;
            fetched
        })
    }

    fn report(&self, record: &Record, tree: &Tree, plan: &Plan<'_>, removed: &[Vec<u8>]) {
        self.progress.finish();
        if self.options.verbose {
            for path in plan.installed.iter().map(|n| &tree.entries[*n].path) {
                print_line(&shown(path));
            }
            for path in removed {
                print_line(&format!("deleting {}", shown(path)));
            }
        }
        let stats = self.stats();
        let (seconds, counters) = (stats.seconds, stats.symbols);
        self.progress.event(&json!({
            "event": "done", "root": record.root.hash.to_string(), "bytes": tree.bytes(),
            "fetched_bytes": stats.bytes, "received_bytes": stats.received_bytes(), "lost_packets": counters.lost,
            "duplicate_packets": counters.duplicate, "files_changed": plan.installed.len(),
            "files_deleted": removed.len(), "seconds": (seconds * 1e3).round() / 1e3,
            "stats": stats.json(),
        }));
        let rate = stats.rate() / 1e6;
        let fetched = human_bytes(stats.bytes);
        self.say(&format!(
            "{} changed, {fetched} fetched in {seconds:.1} s ({rate:.0} Mbit/s)",
            count(plan.installed.len(), "file")
        ));
        if self.options.stats && !self.options.json {
            stats.lines().iter().for_each(|line| eprintln!("{line}"));
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            symbols: self.fetch.counters(),
            unopened: self.opener.drops(),
            untrusted: self.choice.trust().map_or(0, |(_, refused)| refused),
            seconds: self.began.map_or(0.0, |at| at.elapsed().as_secs_f64()),
            ..self.stats
        }
    }

    /// Serves this version from now on, as far as it is there.
    fn seed_version(&self, record: &Record, tree: &Tree, folder: &Path, partial: String) {
        let Some(seed) = &self.seed else {
            return;
        };
        let scan = Scan {
            root: folder.to_path_buf(),
            kind: tree.root.kind,
            entries: tree.entries.clone(),
            stamps: Vec::new(),
            metadata: tree.metadata.clone(),
            owners: Vec::new(),
            unread: usize::from(tree.root.incomplete),
            special: Vec::new(),
        };
        match Index::known(scan, &tree.leaves, partial, self.opener.group_key()) {
            Ok(index) if index.root == record.root && index.metadata == record.metadata => {
                seed.serve(Share {
                    index: Arc::new(index),
                    generation: record.generation,
                    authentication: record.authentication.clone(),
                });
            }
            // nothing wrong with it, but its blocks are not those that would be made of it here
            _ => {
                tracing::warn!("this version was laid out by another program: it is not served on");
            }
        }
    }

    /// Everything has come: waits for a new version, while the seed serves this one.
    fn serve_on(&mut self) -> anyhow::Result<()> {
        self.progress.finish();
        let name = &self.options.name;
        self.say(&match self.options.seed {
            true => format!("everything has come; serving lc:{name} on until stopped"),
            false => format!("everything has come; following lc:{name} until stopped"),
        });
        self.fetch.clear();
        self.resting = true;
        while !self.changed {
            self.step()?;
        }
        let now = Instant::now();
        self.resting = false;
        (self.started, self.last_packet, self.symbol) = (now, now, now);
        self.began = None;
        self.stats = Stats::default();
        Ok(())
    }

    /// A line for people.
    fn say(&self, line: &str) {
        if !self.options.quiet && !self.options.json {
            eprintln!("{line}");
        }
    }

    /// The folder to write in, and for a shared file its name there.
    fn target(&self, kind: RootKind, name: &[u8]) -> anyhow::Result<(PathBuf, Option<Vec<u8>>)> {
        let dest = &self.options.dest;
        let usage = |message: String| ExitError::new(Exit::Usage, message);
        match kind {
            RootKind::Folder => {
                ensure!(
                    dest.is_dir() || !dest.exists(),
                    "{}: is a file, and lc:{} is a folder",
                    dest.display(),
                    self.options.name
                );
                Ok((dest.clone(), None))
            }
            RootKind::File { .. } => {
                use std::os::unix::ffi::OsStrExt;
                let into = dest.is_dir() || dest.as_os_str().as_bytes().ends_with(b"/");
                let (folder, name) = if into {
                    (dest.as_path(), name)
                } else {
                    let parent = dest.parent().filter(|p| !p.as_os_str().is_empty());
                    let name = dest.file_name().context("DEST has no name")?;
                    (parent.unwrap_or(Path::new(".")), name.as_bytes())
                };
                if !listing::is_plain_name(name) {
                    let text = shown(name);
                    return Err(usage(format!(
                        "{text:?} cannot be a file's name: name the file in DEST"
                    ))
                    .into());
                }
                Ok((folder.to_path_buf(), Some(name.to_vec())))
            }
        }
    }

    fn fetch_root(&mut self, record: &Record) -> anyhow::Result<Root> {
        self.due = Some(Instant::now() + VERSION_TIMEOUT);
        let bytes = self.fetch_all(&[record.root])?;
        self.due = None;
        let bytes = bytes.get(&record.root.hash).context("root node")?;
        Root::decode(bytes).context("root node")
    }

    /// The tree; a shared file has no name yet.
    fn fetch_tree(&mut self, record: &Record, root: Root) -> anyhow::Result<Tree> {
        ensure!(
            root.entries <= MAX_ENTRIES,
            "a listing of {} entries is too long",
            root.entries
        );
        let entries = match root.kind {
            RootKind::File { executable } => {
                vec![Entry {
                    path: Vec::new(),
                    kind: Kind::File {
                        size: root.content.length,
                        executable,
                    },
                }]
            }
            RootKind::Folder => listing::decode(&self.fetch_listing(root.listing)?, root.entries)?,
        };
        self.due = Some(Instant::now() + VERSION_TIMEOUT);
        let metadata = self.fetch_metadata(record.metadata, root.entries + 1)?;
        self.due = None;
        let leaves = self.fetch_leaves(root.content, root.entries)?;
        let layout = Layout::new(&entries).context("sizes beyond all numbers")?;
        Ok(Tree {
            root,
            entries,
            metadata,
            leaves,
            layout,
        })
    }

    fn fetch_listing(&mut self, stream: Stream) -> anyhow::Result<Vec<u8>> {
        ensure!(
            stream.length <= MAX_LISTING,
            "a listing of {} bytes is too large",
            stream.length
        );
        let leaves = self.fetch_leaves(stream, 0)?;
        // no path comes twice, so no block does
        let different: HashSet<BlockHash> = leaves.iter().map(|l| l.hash).collect();
        ensure!(different.len() == leaves.len(), Contradiction::Repetition);
        self.fetch_bytes(&leaves)
    }

    fn fetch_metadata(&mut self, stream: Stream, expected: u64) -> anyhow::Result<Vec<Metadata>> {
        ensure!(
            stream.length == expected * METADATA_SIZE as u64,
            Contradiction::Metadata
        );
        let leaves = self.fetch_leaves(stream, 0)?;
        let bytes = self.fetch_bytes(&leaves)?;
        Ok(listing::decode_metadata(&bytes, expected)?)
    }

    fn fetch_bytes(&mut self, leaves: &[BlockRef]) -> anyhow::Result<Vec<u8>> {
        let blocks = self.fetch_all(leaves)?;
        let mut bytes = Vec::new();
        for leaf in leaves {
            bytes.extend_from_slice(blocks.get(&leaf.hash).context("block of a listing")?);
        }
        Ok(bytes)
    }

    /// The leaf blocks of a stream of so many files, in order.
    fn fetch_leaves(&mut self, stream: Stream, files: u64) -> anyhow::Result<Vec<BlockRef>> {
        let mut descent = Descent::new(&stream, files);
        while let Some(blocks) = descent.wanted()? {
            let nodes = self.fetch_all(&blocks)?;
            descent.take(|hash| nodes.get(hash).map(Vec::as_slice))?;
        }
        Ok(descent.leaves()?)
    }

    /// What was fetched makes no sense: waits for somebody who says something else.
    fn wait_for_another(&mut self, why: anyhow::Error) -> anyhow::Result<()> {
        self.choice.mark_unreachable();
        self.due = None;
        self.fetch.clear();
        let until = Instant::now() + VERSION_TIMEOUT;
        while !self.changed {
            if Instant::now() >= until {
                return Err(why);
            }
            self.step()?;
        }
        Ok(())
    }

    fn fetch_all(&mut self, blocks: &[BlockRef]) -> anyhow::Result<HashMap<BlockHash, Vec<u8>>> {
        let mut found = HashMap::new();
        self.fetch_blocks(blocks, |block, bytes| {
            found.insert(block.hash, bytes);
            Ok(())
        })?;
        Ok(found)
    }

    /// Fetches blocks; gives each to `take` as it comes.
    fn fetch_blocks(
        &mut self,
        blocks: &[BlockRef],
        mut take: impl FnMut(BlockRef, Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for block in blocks {
            self.fetch.want(*block);
        }
        self.symbol = Instant::now();
        loop {
            let queued = self.queued.load(Ordering::SeqCst);
            if queued == WRITER_GONE {
                return Err(WriterGone.into());
            }
            let room = WRITE_QUEUE.saturating_sub(queued);
            self.fetch.set_room(room);
            if room == 0 {
                // the disk is slow, not the network
                self.symbol = Instant::now();
            }
            while let Some(event) = self.fetch.poll_event(Instant::now()) {
                match event {
                    Event::Join(channel) => self.network.join(channel),
                    Event::Leave(channel) => self.network.leave(channel),
                    Event::CorruptSource(source) => self.report_corrupt_source(source),
                    Event::Block { block, bytes } => {
                        self.due = self.due.map(|_| Instant::now() + VERSION_TIMEOUT);
                        self.stats.blocks_fetched += 1;
                        self.stats.bytes += u64::from(block.length);
                        self.shown.done += u64::from(block.length);
                        take(block, bytes)?;
                    }
                }
            }
            if self.fetch.missing() == 0 {
                return Ok(());
            }
            self.step()?;
            if self.changed {
                return Err(Changed.into());
            }
        }
    }

    fn report_corrupt_source(&mut self, source: Source) {
        self.corrupt_sources += 1;
        if self.corrupt_sources <= MAX_NAMED {
            tracing::warn!(
                "{} sends symbols that do not make the block: not listened to for a while",
                source.address
            );
        }
        if self.corrupt_sources == MAX_NAMED {
            tracing::warn!("further ones are not named");
        }
    }

    /// Waits for packets and takes them.
    fn step(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.network.refresh_interfaces(now)?;
        self.fetch.handle_timeout(now);
        self.network.apply_changes(now);
        self.network.wait(self.fetch.poll_timeout())?;
        self.take_packets()?;
        let now = Instant::now();
        if self.due.is_some_and(|due| now >= due) {
            self.choice.mark_unreachable();
        }
        self.show(now);
        self.check_timeout(now)
    }

    fn take_packets(&mut self) -> anyhow::Result<()> {
        let mut records = Vec::new();
        let own = self.seed.as_ref().map(Seed::id);
        let Self {
            network,
            opener,
            fetch,
            last_packet,
            symbol: last_symbol,
            ..
        } = self;
        network.receive(|channel, datagram| {
            let now = Instant::now();
            match opener.open(channel, datagram.payload, now) {
                Ok(Packet::Symbol(symbol)) => {
                    let source = Source {
                        address: datagram.source,
                        interface: datagram.interface,
                        server: symbol.server,
                    };
                    *last_packet = now;
                    if fetch.handle_symbol(channel, source, &symbol, now) {
                        *last_symbol = now;
                    }
                }
                // our own seed says what it was told
                Ok(Packet::Record(record)) if own == Some(record.server) => {}
                Ok(Packet::Record(record)) if channel == ROOT_CHANNEL => {
                    *last_packet = now;
                    records.push((record, datagram.source, datagram.interface));
                }
                Ok(Packet::Record(_) | Packet::Catalogue(_)) => {
                    tracing::debug!("a datagram of another channel");
                }
                Err(e) => tracing::debug!("packet from {}: {e}", datagram.source),
            }
        })?;
        for (record, source, interface) in records {
            self.take_record(&record, source, interface);
        }
        Ok(())
    }

    fn take_record(&mut self, record: &Record, source: Ipv6Addr, interface: u32) {
        let now = Instant::now();
        let (server, root) = (record.server, record.root.hash);
        match self.choice.handle(record, source, now) {
            Decision::Current => {}
            Decision::Changed => self.changed = true,
            Decision::Conflict => {
                tracing::warn!(
                    "server {server:08x} shares something else under this name, {root}: ignored"
                );
                return;
            }
            Decision::Untrusted => {
                tracing::warn!(
                    "{source} shares something under this name that the trusted key has not signed: ignored"
                );
                return;
            }
            Decision::RolledBack => {
                tracing::warn!("{source} shares an older version than this host has had: ignored");
                return;
            }
            Decision::Ignored => return,
        }
        self.remember();
        self.network.note_server(server, interface, now);
        if let Some(followed) = self.choice.record() {
            let limit = window_limit(followed, self.options.limit);
            self.fetch.set_record(record, limit, now);
        }
    }

    /// Behind what is proven nobody leads this host back, in later runs either.
    fn remember(&mut self) {
        let proven = self.choice.proven();
        let Some(remembered) = self.remembered.as_mut().filter(|_| !self.options.dry_run) else {
            return;
        };
        if let Err(e) = remembered.raise(proven) {
            let file = remembered.file().display();
            tracing::warn!("{file}: {e}: which version this was is not remembered");
            self.remembered = None;
        }
    }

    fn show(&mut self, now: Instant) {
        if self.resting {
            return;
        }
        if self.choice.record().is_none() {
            let share = format!("lc:{}", self.options.name);
            let left = (self.started + self.options.timeout).saturating_duration_since(now);
            self.progress
                .wait(&share, &self.network.interface_names(), left, now);
            return;
        }
        self.shown.loss = self.fetch.window().loss();
        self.shown.channels = self.fetch.channels();
        self.stats.channels = self.stats.channels.max(self.shown.channels);
        self.progress.show(&self.shown, now);
    }

    /// Servers have been heard, and none of them has the version that is wanted.
    fn nothing_acceptable(&self) -> String {
        let name = &self.options.name;
        if let (Some(remembered), 1..) = (&self.remembered, self.choice.rolled_back()) {
            let file = remembered.file().display();
            return format!(
                "lc:{name} is served in older versions only than this host has had: somebody sends again what he has \
                 recorded, or the server's clock is behind. If an older one is right, remove {file}"
            );
        }
        match self.choice.trust() {
            Some((key, refused)) if refused > 0 => {
                format!(
                    "lc:{name} is served, but nothing of it is signed by {key} ({refused} records refused)"
                )
            }
            _ => format!("no server of lc:{name} has this root hash"),
        }
    }

    fn check_timeout(&self, now: Instant) -> anyhow::Result<()> {
        if self.resting {
            return Ok(());
        }
        let timeout = self.options.timeout;
        let message = if now.saturating_duration_since(self.last_packet) >= timeout {
            let on = self.network.interface_names();
            let name = &self.options.name;
            // a wrong key has other groups: nobody can tell the one from the other
            let or_key = match self.options.keyfile {
                Some(_) => ": the name or the key may be wrong",
                None => "",
            };
            format!("nothing heard of lc:{name} for {timeout:?} on {on}{or_key}")
        } else if self.choice.record().is_none()
            && now.saturating_duration_since(self.started) >= timeout
        {
            self.nothing_acceptable()
        } else if self.fetch.missing() > 0 && now.saturating_duration_since(self.symbol) >= timeout
        {
            format!(
                "the server of lc:{} answers, but sends none of the blocks asked for",
                self.options.name
            )
        } else {
            return Ok(());
        };
        Err(ExitError::new(Exit::Unreachable, message).into())
    }
}

const NOTHING_DELETED: &str =
    "the server could not read all of the share, so nothing is deleted here";

/// Whether a server has said something that nobody can follow.
fn is_nonsense(e: &anyhow::Error) -> bool {
    e.is::<WireError>() || e.is::<ListingError>() || e.is::<TreeError>() || e.is::<Contradiction>()
}

/// Makes DEST, which nobody may enter who may not enter what is shared.
fn make_folder(path: &Path, mode: u16) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new(""));
    let made = fs::create_dir_all(above).and_then(|()| {
        let mode = u32::from(mode & 0o777 | 0o700);
        DirBuilder::new().mode(mode).create(path)
    });
    made.with_context(|| path.display().to_string())
}

/// Writes blocks as they come.
fn write_all(
    blocks: Receiver<(BlockRef, Vec<u8>)>,
    plan: &mut Plan<'_>,
    place: &mut Place,
    queued: &AtomicUsize,
) -> anyhow::Result<()> {
    for (block, bytes) in blocks {
        plan.put(block, &bytes, place)?;
        queued.fetch_sub(1, Ordering::SeqCst);
    }
    plan.flush(place)
}

/// What earlier runs have heard of a share whose records are proven. Without a place to keep it nothing is remembered.
fn remembered(
    options: &Options,
    proof: &Proof,
    group_key: &[u8],
) -> anyhow::Result<Option<Remembered>> {
    let key = match proof {
        Proof::None => return Ok(None),
        Proof::Sealed => group_key,
        Proof::Signed(trust) => trust.key().public_key(),
    };
    let folder = Remembered::folder_of_user();
    let load = |folder: PathBuf| Remembered::load(&folder, &options.name, key);
    Ok(folder.map(load).transpose()?)
}

/// Channels of the normal rate that make sense: what the server allows, what this side wants.
fn window_limit(record: &Record, limit: Option<u64>) -> f64 {
    let channels = f64::from(record.max_channels);
    let wanted = limit.map(|l| l as f64 / 1e3 / f64::from(record.channel_rate.max(1)));
    wanted.map_or(channels, |w| w.min(channels))
}

fn check_interfaces(names: &[String]) -> anyhow::Result<()> {
    let known: BTreeSet<String> = librecast::socket::interfaces()?
        .into_values()
        .map(|i| i.name)
        .collect();
    match names.iter().find(|n| !known.contains(*n)) {
        Some(name) => Err(ExitError::new(Exit::Usage, format!("no interface {name:?}")).into()),
        None => Ok(()),
    }
}
