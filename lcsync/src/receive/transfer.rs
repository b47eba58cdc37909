//! `lcsync lc:NAME DEST`: executes the decisions of the receiver's core.
//!
//! ```text
//! version -> tree -> compare with DEST -> missing blocks -> rename into place
//!    ^                                         |
//!    +---------- the share has changed --------+
//! ```
//!
//! A file for a device is written in place instead ([`super::image`]), and one for standard output
//! leaves in order ([`super::in_order`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Blocks, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use librecast::channel::{LCSYNC_PORT, ROOT_CHANNEL, SharePrefix, carrier_number};
use librecast::id::PeerId;
use librecast::socket::{SendSocket, multicast_interfaces};
use librecast_program::cli::{Exit, ExitError, note};
use librecast_program::keyfile::SharedKey;
use librecast_program::units::count;
use librecast_program::uplink::UplinkWait;
use librecast_program::{guest, interrupt};
use serde_json::json;
use thiserror::Error;

use super::choice::Proof;
use super::collector::Source;
use super::core::{Event, Failure, Receiver, Settings};
use super::finish::{self, Deletion};
use super::image::Image;
use super::in_order::InOrder;
use super::modes::Modes;
use super::network::Network;
use super::parts::{Part, parts};
use super::plan::Plan;
use super::sent::{self, Hidden, Sent};
use super::standard_output::write_out;
use super::stats::Stats;
use super::tree::Tree;
use crate::block::{BlockHash, BlockRef};
use crate::carrying::UNKNOWN_WIDTH;
use crate::device::Device;
use crate::index::Index;
use crate::listing::{self, shown};
use crate::opener::Opener;
use crate::place::{Place, check_replaceable, check_writable, current_umask};
use crate::progress::{Progress, Snapshot, human_bytes, print_line};
use crate::record::Record;
use crate::remembered::Remembered;
use crate::scan::Scan;
use crate::sealing::{ShareKey, group_key};
use crate::server::hosted::Share;
use crate::server::overlay::Overlay;
use crate::server::rescan::Watched;
use crate::server::seed::Seed;
use crate::signature::Trust;
use crate::tree::RootKind;

/// Most blocks that wait to be written.
const WRITE_QUEUE: usize = 192;
/// Most blocks that wait to be written to standard output. Chosen: they bridge a pause of packets.
const PIPE_QUEUE: usize = 16;
/// Value of the count of waiting blocks after the writer has failed.
const WRITER_GONE: usize = usize::MAX;
/// Pause before a mirror retries an incomplete version: the disk may have room then.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Least such pause in durations of an attempt.
const RETRY_FACTOR: u32 = 5;
/// Time without a sent block, at the end, after which nobody fetches from here any more, and the most
/// for which this is waited for. Chosen.
const LINGER: Duration = Duration::from_secs(2);
const LONGEST_LINGER: Duration = Duration::from_secs(15);
/// Most corrupt sources named in warnings.
const MAX_NAMED: u32 = 8;
/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// NAME of `lc:NAME`.
    pub name: String,
    /// A path in the share, if not all is wanted.
    pub part: Option<Vec<u8>>,
    /// The only root hash to take, if set.
    pub pinned: Option<BlockHash>,
    /// The key that seals the share.
    pub key: Option<Arc<SharedKey>>,
    /// Serve received blocks, and go on with that afterwards.
    pub seed: bool,
    /// Pass no blocks on to other receivers on lc0.
    pub no_seed: bool,
    /// Wait for changes and fetch them.
    pub watch: bool,
    /// Print figures of the transfer.
    pub stats: bool,
    /// The key that must have signed a version, if set.
    pub trust: Option<PeerId>,
    /// The share of a sender under a code.
    pub sent: Option<Sent>,
    /// Take hidden names and replace links without a question.
    pub hidden: bool,
    /// File, folder or device that the share is written to; `-` for standard output.
    pub dest: PathBuf,
    /// DEST is a block device, written in place.
    pub write_devices: bool,
    /// Interfaces; empty for all.
    pub interfaces: Vec<String>,
    /// Longest time without packets.
    pub timeout: Duration,
    /// Print actions without executing them.
    pub dry_run: bool,
    /// Take modes and times, too.
    pub archive: bool,
    /// Remove from DEST entries that are not in the share.
    pub delete: bool,
    /// Most of them removed for each version.
    pub max_delete: Option<u64>,
    /// Make holes of pages of zeroes.
    pub sparse: bool,
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
    /// Whether modes and times are taken as they are. A pinned root hash does not cover them.
    fn keeps_metadata(&self) -> bool {
        let proven = self.trust.is_some() || self.key.is_some();
        self.archive && (self.pinned.is_none() || proven)
    }
}

/// The share has a new version: the fetched one may not be served any more.
#[derive(Debug, Error)]
#[error("the share has changed")]
struct Changed;

/// Blocks cannot be written any more; the writer's own error has the reason.
#[derive(Debug, Error)]
#[error("writing has failed")]
struct WriterGone;

/// Kind of DEST.
#[derive(Debug)]
enum Target {
    /// A file or folder.
    Files,
    /// A block device.
    Device(Device),
    /// Standard output.
    Pipe,
}

impl Target {
    /// Returns the target of the options, before the wait for a server.
    fn of(options: &Options) -> anyhow::Result<Self> {
        let target = match (options.dest.as_os_str() == "-", options.write_devices) {
            (true, true) => bail!("-: is no device; --write-devices writes into block devices"),
            (true, false) => Self::Pipe,
            (false, true) => Self::Device(Device::open(&options.dest).map_err(anyhow::Error::msg)?),
            (false, false) => {
                // a shared file's name in DEST is known later
                check_replaceable(&options.dest).map_err(anyhow::Error::msg)?;
                if !options.dry_run {
                    check_writable(&options.dest).map_err(|(folder, e)| {
                        anyhow!("{}: cannot be written to: {e}", folder.display())
                    })?;
                }
                Self::Files
            }
        };
        let usage = |message: &str| Err(ExitError::new(Exit::Usage, message).into());
        match target {
            Self::Files => Ok(target),
            _ if options.seed || options.watch => {
                usage("--seed and --watch are for files and folders, not for a device or pipe")
            }
            Self::Pipe if options.json => {
                usage("--json prints to standard output, which is DEST here: leave one of them out")
            }
            _ => Ok(target),
        }
    }
}

/// Incomplete in a way that only another version can change.
#[derive(Debug, Error)]
#[error("{0}")]
struct Lacking(String);

/// Receives the share.
pub fn receive(options: &Options) -> anyhow::Result<Exit> {
    let complete = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&complete);
    let seeds = options.seed;
    let device = (options.write_devices && !options.quiet).then(|| options.dest.clone());
    interrupt::exit_on_interrupt(move || {
        if seeds {
            Seed::clean_up();
        }
        // with a whole version at DEST, nothing is interrupted
        if done.load(Ordering::SeqCst) {
            std::process::exit(Exit::Ok as i32);
        }
        if let Some(device) = device {
            let device = device.display();
            note(format_args!(
                "{device}: may be written in part; the same command continues"
            ));
        }
    })?;
    let target = Target::of(options)?;
    Transfer::open(options, target)?.run(&complete)
}

/// The part of a receiver that passes blocks on.
struct Carrier {
    number: u16,
    /// Blocks that others await here for too long.
    overdue: Blocks<BlockRef>,
}

struct Transfer<'a> {
    options: &'a Options,
    target: Arc<Target>,
    network: Network,
    core: Receiver,
    key: Option<Arc<ShareKey>>,
    /// Highest generation of earlier runs, if records are proven.
    remembered: Option<Remembered>,
    progress: Progress,
    started: Instant,
    /// When the first record was taken; the wait for it is not fetching.
    began: Option<Instant>,
    corrupt_sources: u32,
    seed: Option<Seed>,
    /// This receiver passes blocks on over lc0.
    carrier: Option<Carrier>,
    /// Figures of the version that the core does not count.
    stats: Stats,
    /// Bytes of the tree, which are not progress.
    shown_from: u64,
    shown: Snapshot,
    /// Blocks that wait to be written.
    queued: Arc<AtomicUsize>,
    /// Last reported reason why a version is incomplete.
    owed: Option<String>,
}

impl<'a> Transfer<'a> {
    fn open(options: &'a Options, target: Target) -> anyhow::Result<Self> {
        let now = Instant::now();
        check_interfaces(&options.interfaces)?;
        let shared = options.key.clone();
        let key = shared.map(|k| Arc::new(ShareKey::new(k, &options.name)));
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
        // positions of blocks are those of the whole share
        let whole = options.part.is_none();
        let overlay = UplinkWait::open().filter(|_| whole);
        let overlay = overlay.and_then(|lc0| lc0.interface());
        let (seed, carrier) = start_seed(options, prefix, key.clone(), overlay)?;
        network.refresh_interfaces(now)?;
        if options.archive && !options.keeps_metadata() {
            tracing::warn!(
                "a root hash covers neither modes nor times: they are not taken (with --trust or --keyfile they are)"
            );
        }
        let settings = Settings {
            pinned: options.pinned,
            proof,
            floor,
            opener: Opener::new(key.clone()),
            limit: options.limit.or_else(guest::rate_in_leaf),
            timeout: options.timeout,
            own_server: seed.as_ref().map(Seed::id),
            overlay,
        };
        Ok(Self {
            options,
            target: target.into(),
            network,
            core: Receiver::new(settings, now),
            key,
            remembered,
            progress: Progress::new(options.json, options.quiet, now),
            started: now,
            began: None,
            corrupt_sources: 0,
            seed,
            carrier,
            stats: Stats::default(),
            shown_from: 0,
            shown: Snapshot::default(),
            queued: Arc::default(),
            owed: None,
        })
    }

    /// Sets `complete` while the whole version in hand is at DEST.
    fn run(mut self, complete: &AtomicBool) -> anyhow::Result<Exit> {
        let stays = self.options.seed || self.options.watch;
        let mut follows = false;
        loop {
            let result = match self.next()? {
                Event::Version(record) => {
                    let (name, root) = (&self.options.name, record.root.hash);
                    tracing::info!("lc:{name} {root} from server {:08x}", record.server);
                    self.began.get_or_insert_with(Instant::now);
                    continue;
                }
                Event::Tree(version) => self.sync(&version.0, version.1),
                Event::Changed => Err(Changed.into()),
                Event::Failed(failure) => Err(self.explain(failure)),
                _ => continue,
            };
            match result {
                Err(e) if e.is::<Changed>() => {
                    tracing::info!("the share has changed: starting over");
                }
                Ok(Exit::Ok) if stays => {
                    follows = true;
                    complete.store(true, Ordering::SeqCst);
                    self.serve_on();
                }
                // the previous version, or a part of this one, can be served
                Err(e) if follows || stays && e.is::<Lacking>() => {
                    follows = true;
                    complete.store(false, Ordering::SeqCst);
                    self.serve_on_owing(&e);
                }
                result => {
                    self.progress.finish();
                    if matches!(result, Ok(Exit::Ok)) {
                        complete.store(true, Ordering::SeqCst);
                        self.linger();
                    }
                    return result;
                }
            }
        }
    }

    fn sync(&mut self, record: &Record, mut tree: Tree) -> anyhow::Result<Exit> {
        let mut name = self.options.name.as_bytes();
        if let Some(part) = &self.options.part {
            tree.choose(part)?;
            name = part.rsplit(|c| *c == b'/').next().unwrap_or(part);
        }
        match &*Arc::clone(&self.target) {
            Target::Files => {}
            Target::Device(device) => return self.write_device(record, &tree, device),
            Target::Pipe => {
                if let Some(sent) = &self.options.sent {
                    sent::choose_only_file(&mut tree)?;
                    sent::check_size(sent, &Hidden::default(), &tree, self.options.quiet)?;
                }
                return self.write_pipe(record, &tree);
            }
        }
        let (folder, file_name) = self.target(tree.root.kind, name)?;
        if let (Some(name), [file]) = (&file_name, &mut tree.entries[..]) {
            file.path.clone_from(name);
        }
        let hidden = self.hidden(&folder, file_name.is_some());
        if let Some(sent) = &self.options.sent {
            sent::check_size(
                sent,
                &hidden,
                &tree,
                self.options.quiet || self.options.json,
            )?;
        }
        if self.asks() {
            hidden.check(&tree.entries)?;
        }
        if file_name.is_none() && !self.options.dry_run {
            make_folder(&folder, tree.metadata[0].mode)?;
        }
        let mut place = if folder.exists() || !self.options.dry_run {
            Some(Place::open(&folder).with_context(|| folder.display().to_string())?)
        } else {
            None
        };
        let mut continues = false;
        if let (Some(place), false) = (&mut place, self.options.dry_run) {
            let label = file_name.as_deref().unwrap_or_default();
            let partial = Place::partial_name(label);
            continues = place.look(partial.as_bytes())?.is_some();
            place
                .open_partial(label)
                .with_context(|| folder.display().to_string())?;
        }
        let of_entries = match tree.root.kind {
            RootKind::Folder => &tree.metadata[1..],
            RootKind::File { .. } => &tree.metadata[..1],
        };
        let modes = Modes::new(of_entries, self.options.keeps_metadata(), current_umask());
        let stream = (tree.layout.clone(), &tree.leaves[..]);
        let mut plan = Plan::compare(&tree.entries, modes, stream, place.as_mut())?;
        plan.sparse = self.options.sparse;
        if let (Some(sent), Some(place)) = (&self.options.sent, &mut place)
            && !sent.overwrite
        {
            let uncertain = plan.uncertain();
            self.fetch(&uncertain, &[], |block, bytes| {
                plan.settle(block, &bytes, place);
                Ok(())
            })?;
            let mut checked = sent::check_places(&tree, &plan, place);
            if checked.is_ok() && self.asks() {
                checked = sent::check_folders(&tree.entries, continues, place);
            }
            if let Err(e) = checked {
                place.remove_empty_partial();
                return Err(e);
            }
        }
        if let (true, Some(place)) = (self.asks() && self.options.sent.is_some(), &mut place)
            && let Err(e) = sent::check_links(&tree.entries, place)
        {
            place.remove_empty_partial();
            return Err(e);
        }
        let wanted: Vec<BlockRef> = plan.wanted().collect();
        let missing = self.start((record, &tree), &wanted);
        if !self.options.dry_run {
            let label = file_name.as_deref().unwrap_or_default();
            let partial = Place::partial_name(label);
            self.seed_version(record, &tree, &wanted, &folder, partial);
        }
        match place {
            Some(mut place) if !self.options.dry_run => {
                self.transfer(record, &tree, plan, &mut place)
            }
            mut place => {
                if let Some(place) = &mut place {
                    let uncertain = plan.uncertain();
                    self.fetch(&uncertain, &[], |block, bytes| {
                        plan.settle(block, &bytes, place);
                        Ok(())
                    })?;
                }
                let deletion = self.deletion(&tree);
                let skipped = finish::describe(deletion, &tree.entries, &plan, place.as_mut())?;
                self.say_missing(missing, &tree);
                match self.lacking(&tree, skipped) {
                    Some(lacking) => Err(lacking.into()),
                    None => Ok(Exit::Ok),
                }
            }
        }
    }

    /// Whether the user is asked about hidden names and links.
    fn asks(&self) -> bool {
        !self.options.hidden && !self.options.dry_run
    }

    /// Returns the hidden names that count in `folder`; the user has named a single file.
    fn hidden(&self, folder: &Path, is_file: bool) -> Hidden {
        match &self.options.sent {
            _ if is_file => Hidden::default(),
            Some(_) => Hidden::of_words(folder),
            None => Hidden::of_share(folder, std::env::home_dir().as_deref()),
        }
    }

    /// Reports the begin of a fetch of these blocks; returns their bytes.
    fn start(&mut self, (record, tree): (&Record, &Tree), wanted: &[BlockRef]) -> u64 {
        let missing = wanted.iter().map(|b| u64::from(b.length)).sum();
        self.stats.blocks_found = tree.leaves.len().saturating_sub(wanted.len()) as u64;
        self.progress.event(&json!({
            "event": "start", "root": record.root.hash.to_string(), "generation": record.generation,
            "files": tree.files(), "bytes": tree.bytes(), "missing_bytes": missing,
        }));
        self.shown_from = self.core.counters().bytes;
        self.shown = Snapshot {
            total: missing,
            ..Snapshot::default()
        };
        missing
    }

    fn say_missing(&self, missing: u64, tree: &Tree) {
        self.say(&format!(
            "{} to fetch of {}",
            human_bytes(missing),
            human_bytes(tree.bytes())
        ));
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
            place.remove_empty_partial();
            bail!(
                "{}: No space left for all of it: {} are needed and {} are free; nothing was fetched",
                self.options.dest.display(),
                human_bytes(needed),
                human_bytes(room)
            );
        }
        plan.begin(place, self.options.delete)?;
        let wanted: Vec<BlockRef> = plan.wanted().collect();
        let tell = self.seed.as_ref().map(Seed::teller);
        self.fetch_and_write((&wanted, &tree.leaves), |blocks, queued| {
            write_all(blocks, &mut plan, place, queued, tell.as_ref())
        })?;
        let folder = tree.root.kind == RootKind::Folder && self.options.keeps_metadata();
        let deleted = finish::finish(
            self.options.delete,
            self.deletion(tree),
            &tree.entries,
            tree.metadata.first().filter(|_| folder),
            &mut plan,
            place,
        )?;
        let lacking = self.lacking(tree, deleted.skipped);
        let done = plan.failures.is_empty() && lacking.is_none();
        self.report((record, tree), &plan, &deleted.paths, done);
        if plan.is_placed() {
            place.remove_partial()?;
        }
        if plan.failures.is_empty() {
            return match lacking {
                Some(lacking) => Err(lacking.into()),
                None => Ok(Exit::Ok),
            };
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

    /// Writes a file to a device in place, and reads it back.
    fn write_device(
        &mut self,
        record: &Record,
        tree: &Tree,
        device: &Device,
    ) -> anyhow::Result<Exit> {
        let parts = self.parts_of(tree)?;
        let path = device.path().display();
        let (size, bytes) = (device.size(), tree.bytes());
        ensure!(
            bytes <= size,
            "{path}: is too small: it has {size} bytes, and the file has {bytes}"
        );
        let mut image = Image::new(device, parts);
        let compared = image.sample().and_then(|some| {
            if some {
                self.say(&format!("{path}: has some of it already: comparing all"));
                image.compare()?;
            }
            Ok(())
        });
        compared.with_context(|| path.to_string())?;
        let wanted = image.wanted();
        let missing = self.start((record, tree), &wanted);
        if self.options.dry_run {
            self.say_missing(missing, tree);
            return Ok(Exit::Ok);
        }
        self.fetch_and_write((&wanted, &tree.leaves), |blocks, queued| {
            image.put_zeroes()?;
            for (block, bytes) in blocks {
                image.put(block, &bytes)?;
                queued.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(())
        })?;
        let written = image.written();
        let all = human_bytes(written);
        self.progress.finish();
        if written > 0 {
            self.say(&format!(
                "{path}: {all} written; flushing them, and reading them back"
            ));
        }
        image.verify()?;
        let root = record.root.hash;
        self.report_done((record, tree), (usize::from(written > 0), 0), true);
        self.say_done(&format!("{path}: is {root}, {all} written"));
        Ok(Exit::Ok)
    }

    /// Writes a file to standard output, in order.
    fn write_pipe(&mut self, record: &Record, tree: &Tree) -> anyhow::Result<Exit> {
        let mut order = InOrder::new(self.parts_of(tree)?);
        let missing = self.start((record, tree), &tree.leaves);
        if self.options.dry_run {
            self.say_missing(missing, tree);
            return Ok(Exit::Ok);
        }
        let queued = Arc::clone(&self.queued);
        let (sender, receiver) = sync_channel::<Vec<u8>>(PIPE_QUEUE);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let result = write_out(receiver);
                if result.is_err() {
                    queued.store(WRITER_GONE, Ordering::SeqCst);
                }
                result
            });
            let fed = self.feed(&mut order, &sender, &tree.leaves);
            drop(sender);
            let written = writer.join().map_err(|_| WriterGone)?;
            written.context("standard output")?;
            fed
        })?;
        self.report_done((record, tree), (1, 0), true);
        let all = human_bytes(tree.bytes());
        self.say_done(&format!("{all} written"));
        Ok(Exit::Ok)
    }

    /// Fetches the blocks of the window, and hands over those whose turn it is.
    fn feed(
        &mut self,
        order: &mut InOrder,
        sender: &SyncSender<Vec<u8>>,
        leaves: &[BlockRef],
    ) -> anyhow::Result<()> {
        let (mut is_fetching, mut handed) = (false, 0);
        let mut waiting = None;
        loop {
            let blocks = order.advance();
            if !blocks.is_empty() {
                self.core.fetch(&blocks, leaves, Instant::now());
                is_fetching = true;
            }
            if let Some(bytes) = waiting.take().or_else(|| order.next_bytes()) {
                let length = bytes.len() as u64;
                // packets do not wait for the reader
                waiting = hand_over(sender, bytes, !is_fetching)?;
                if waiting.is_none() {
                    handed += length;
                    continue;
                }
            } else if order.is_done() {
                return Ok(());
            }
            match self.next()? {
                Event::Block { block, bytes } => order.take(block, bytes),
                Event::Fetched => is_fetching = false,
                Event::Changed if handed == 0 => bail!(Changed),
                Event::Changed => bail!(
                    "the share has changed, and {handed} bytes of its last version are written: start again"
                ),
                Event::Failed(failure) => return Err(self.explain(failure)),
                _ => {}
            }
        }
    }

    /// Returns the parts of a single file.
    fn parts_of(&self, tree: &Tree) -> anyhow::Result<Vec<Part>> {
        let name = &self.options.name;
        ensure!(
            matches!(tree.root.kind, RootKind::File { .. }),
            "lc:{name} is a folder, and a device or pipe takes one file (lcsync get lc:{name}/PATH DEST)"
        );
        Ok(parts(&tree.layout, &tree.leaves))
    }

    fn deletion(&self, tree: &Tree) -> Deletion {
        Deletion {
            delete: self.options.delete && tree.is_whole_folder(),
            most: self.options.max_delete,
        }
    }

    /// Returns the reason why the result is incomplete although all went well.
    fn lacking(&self, tree: &Tree, skipped: u64) -> Option<Lacking> {
        let mut what = Vec::new();
        if tree.is_incomplete() {
            let then = match self.options.delete {
                true => "so nothing is deleted here",
                false => "and its log names what is missing here",
            };
            what.push(format!(
                "the server could not read all of the share, {then}"
            ));
        }
        if skipped > 0 {
            what.push(format!(
                "deletions stopped due to --max-delete limit ({skipped} skipped)"
            ));
        }
        (!what.is_empty()).then(|| Lacking(what.join("; ")))
    }

    /// Fetches, and writes on another thread: packets do not wait for disks.
    fn fetch_and_write(
        &mut self,
        (wanted, leaves): (&[BlockRef], &[BlockRef]),
        write: impl FnOnce(Blocks<(BlockRef, Vec<u8>)>, &AtomicUsize) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<()> {
        let queued = Arc::clone(&self.queued);
        let (sender, receiver) = sync_channel::<(BlockRef, Vec<u8>)>(WRITE_QUEUE);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let result = write(receiver, &queued);
                if result.is_err() {
                    queued.store(WRITER_GONE, Ordering::SeqCst);
                }
                result
            });
            let fetched = self.fetch(wanted, leaves, |block, bytes| {
                queued.fetch_add(1, Ordering::SeqCst);
                // the writer has failed: its error has the reason
                sender.send((block, bytes)).map_err(|_| WriterGone.into())
            });
            drop(sender);
            let written = writer.join().map_err(|_| WriterGone)?;
            queued.store(0, Ordering::SeqCst);
            written.context("writing to DEST (what has come is kept there)")?;
            fetched
        })
    }

    fn report(
        &self,
        (record, tree): (&Record, &Tree),
        plan: &Plan<'_>,
        removed: &[Vec<u8>],
        done: bool,
    ) {
        self.progress.finish();
        if self.options.verbose {
            for path in plan.installed.iter().map(|n| &tree.entries[*n].path) {
                print_line(&shown(path));
            }
            for path in removed {
                print_line(&format!("deleting {}", shown(path)));
            }
        }
        let numbers = (plan.installed.len(), removed.len());
        let changed = count(plan.installed.len(), "file");
        self.report_done((record, tree), numbers, done);
        self.say_done(&format!("{changed} changed"));
    }

    fn report_done(
        &self,
        (record, tree): (&Record, &Tree),
        (changed, deleted): (usize, usize),
        done: bool,
    ) {
        self.progress.finish();
        let stats = self.stats();
        let (seconds, counters) = (stats.seconds, stats.symbols);
        self.progress.event(&json!({
            "event": if done { "done" } else { "incomplete" }, "root": record.root.hash.to_string(), "bytes": tree.bytes(),
            "fetched_bytes": counters.bytes, "received_bytes": stats.received_bytes(), "lost_packets": counters.lost,
            "duplicate_packets": counters.duplicate, "files_changed": changed,
            "files_deleted": deleted, "seconds": (seconds * 1e3).round() / 1e3,
            "stats": stats.json(),
        }));
    }

    /// Prints the result and its cost.
    fn say_done(&self, result: &str) {
        let stats = self.stats();
        let (rate, seconds) = (stats.rate() / 1e6, stats.seconds);
        let fetched = human_bytes(stats.symbols.bytes);
        self.say(&format!(
            "{result}, {fetched} fetched in {seconds:.1} s ({rate:.0} Mbit/s)"
        ));
        if self.options.stats && !self.options.json {
            stats.lines().iter().for_each(note);
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            symbols: self.core.counters(),
            unopened: self.core.unopened(),
            untrusted: self.core.choice().trust().map_or(0, |(_, refused)| refused),
            seconds: self.began.map_or(0.0, |at| at.elapsed().as_secs_f64()),
            ..self.stats
        }
    }

    /// Serves the received parts of this version from now on.
    fn seed_version(
        &self,
        record: &Record,
        tree: &Tree,
        missing: &[BlockRef],
        folder: &Path,
        partial: String,
    ) {
        let Some(seed) = &self.seed else {
            return;
        };
        let scan = Scan {
            root: folder.to_path_buf(),
            chosen: Vec::new(),
            missing: Vec::new(),
            kind: tree.root.kind,
            entries: tree.entries.clone(),
            stamps: Vec::new(),
            metadata: tree.metadata.clone(),
            owners: Vec::new(),
            unread: usize::from(tree.root.incomplete),
            vanished: Vec::new(),
            special: Vec::new(),
            too_long: Vec::new(),
            mounts: Vec::new(),
            not_entered: Vec::new(),
            linked: BTreeMap::new(),
        };
        match Index::known(
            scan,
            &tree.leaves,
            partial,
            group_key(self.key.as_deref()),
            self.carrier.as_ref().map(|carrier| carrier.number),
        ) {
            Ok(index) if index.root == record.root && index.metadata == record.metadata => {
                seed.has(&tree.leaves, missing);
                seed.serve(Share {
                    index: Arc::new(index),
                    generation: record.generation,
                    authentication: record.authentication.clone(),
                });
            }
            // valid, but this host would cut other blocks
            _ => {
                tracing::warn!("this version was laid out by another program: it is not served on");
            }
        }
    }

    /// Waits for a new version while the seed serves this whole one.
    fn serve_on(&mut self) {
        self.progress.finish();
        self.owed = None;
        let doing = self.serving_on();
        self.say(&format!("everything has come; {doing} until stopped"));
        self.rest(None);
    }

    /// Waits with an incomplete version; retries where a retry can help.
    fn serve_on_owing(&mut self, error: &anyhow::Error) {
        self.progress.finish();
        let took = self.began.map_or(Duration::ZERO, |at| at.elapsed());
        let pause = RETRY_INTERVAL.max(took * RETRY_FACTOR);
        let pause = (!error.is::<Lacking>()).then_some(pause);
        let again = match pause {
            Some(pause) => format!("trying again every {} s", pause.as_secs()),
            None => "waiting for another version".to_owned(),
        };
        let error = format!("{error:#}");
        self.progress.event(
            &json!({"event": "failed", "error": error, "retry_s": pause.map(|p| p.as_secs())}),
        );
        let doing = self.serving_on();
        let message = format!("{error}; not everything has come: {again}; {doing}");
        // repeating it would hide other messages
        if self.owed.as_ref() == Some(&error) {
            tracing::info!("{message}");
        } else {
            tracing::error!("{message}");
        }
        self.owed = Some(error);
        self.rest(pause.map(|pause| Instant::now() + pause));
    }

    fn serving_on(&self) -> String {
        let name = &self.options.name;
        match self.options.seed {
            true => format!("serving lc:{name} on"),
            false => format!("following lc:{name}"),
        }
    }

    fn rest(&mut self, retry_at: Option<Instant>) {
        self.core.rest(retry_at);
        self.began = None;
        (self.stats, self.shown, self.shown_from) = (Stats::default(), Snapshot::default(), 0);
    }

    /// Prints a line for users.
    fn say(&self, line: &str) {
        if !self.options.quiet && !self.options.json {
            note(line);
        }
    }

    /// Returns the folder to write in, and for a shared file its name in it.
    fn target(&self, kind: RootKind, name: &[u8]) -> anyhow::Result<(PathBuf, Option<Vec<u8>>)> {
        let dest = &self.options.dest;
        let usage = |message: String| ExitError::new(Exit::Usage, message);
        match kind {
            RootKind::Folder => {
                // checked once: another lcsync may be making it
                ensure!(
                    std::fs::metadata(dest).map_or(true, |found| found.is_dir()),
                    "{}: is a file, and lc:{} is a folder",
                    dest.display(),
                    self.options.name
                );
                Ok((dest.clone(), None))
            }
            RootKind::File { .. } => {
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
                check_replaceable(&folder.join(OsStr::from_bytes(name)))
                    .map_err(anyhow::Error::msg)?;
                Ok((folder.to_path_buf(), Some(name.to_vec())))
            }
        }
    }

    /// Fetches blocks of the content with these leaves; passes each to `take`.
    fn fetch(
        &mut self,
        blocks: &[BlockRef],
        leaves: &[BlockRef],
        mut take: impl FnMut(BlockRef, Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.core.fetch(blocks, leaves, Instant::now());
        loop {
            match self.next()? {
                Event::Block { block, bytes } => take(block, bytes)?,
                Event::Fetched => return Ok(()),
                Event::Changed => return Err(Changed.into()),
                Event::Failed(failure) => return Err(self.explain(failure)),
                _ => {}
            }
        }
    }

    /// Returns the next event about the version; executes the remaining ones.
    fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            let queued = self.queued.load(Ordering::SeqCst);
            ensure!(queued != WRITER_GONE, WriterGone);
            let room = WRITE_QUEUE.saturating_sub(queued);
            self.core.set_room(room, Instant::now());
            while let Some(event) = self.core.poll_event(Instant::now()) {
                match event {
                    Event::Join(channel) => self.network.join(channel),
                    Event::Leave(channel) => self.network.leave(channel),
                    Event::Record {
                        server,
                        interface,
                        proven,
                    } => {
                        self.remember(proven);
                        self.network.note_server(server, interface, Instant::now());
                    }
                    Event::Conflict {
                        server,
                        address,
                        root,
                    } => tracing::warn!(
                        "server {server:08x} at {address} shares something else under this name, {root}: ignored"
                    ),
                    Event::Rival { followed, other } => tracing::warn!(
                        "{followed} and {other} share different things under one name and key (a copied host?): \
                         {other} is ignored as long as {followed} is there. Stop one of them, or give it another key \
                         (lcsync keygen) or another name"
                    ),
                    Event::Untrusted(source) => tracing::warn!(
                        "{source} shares something under this name that the trusted key has not signed: ignored"
                    ),
                    Event::RolledBack(source) => tracing::warn!(
                        "{source} shares an older version than this host has had: ignored"
                    ),
                    Event::CorruptSource(source) => self.report_corrupt_source(source),
                    other => return Ok(other),
                }
            }
            self.step()?;
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

    /// Waits for packets and handles them.
    fn step(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.network.refresh_interfaces(now)?;
        self.network.apply_changes(now);
        self.network.wait(self.core.next_timeout())?;
        self.network.receive(|channel, datagram| {
            let (source, interface) = (datagram.source, datagram.interface);
            let now = Instant::now();
            self.core
                .handle_datagram(channel, datagram.payload, source, interface, now);
        })?;
        let now = Instant::now();
        self.carry(now);
        self.core.handle_timeout(now);
        self.show(now);
        Ok(())
    }

    /// Exchanges with the part that passes blocks on what each knows.
    fn carry(&mut self, now: Instant) {
        let (Some(carrier), Some(seed)) = (&self.carrier, &self.seed) else {
            return;
        };
        let shared = seed.shared();
        let width = shared.width.load(Ordering::Relaxed).max(UNKNOWN_WIDTH);
        self.core.carry(Some((carrier.number, width)));
        let longest = self.core.longest_awaited().as_millis();
        let longest = u64::try_from(longest).unwrap_or(u64::MAX);
        shared.longest_awaited.store(longest, Ordering::Relaxed);
        let alone = self.core.lacks_origin(now);
        shared.alone.store(alone, Ordering::Relaxed);
        for block in carrier.overdue.try_iter() {
            self.core.take_over(block, now);
        }
    }

    /// Passes on what others still await here, for a while.
    fn linger(&mut self) {
        if self.carrier.is_none() {
            return;
        }
        self.core.rest(None);
        let (start, mut sent, mut said) = (Instant::now(), (0, Instant::now()), false);
        while start.elapsed() < LONGEST_LINGER {
            let now = Instant::now();
            while let Some(event) = self.core.poll_event(now) {
                // nothing new is fetched
                if let Event::Leave(channel) = event {
                    self.network.leave(channel);
                }
            }
            let stepped = self.step();
            let Some(seed) = self.seed.as_ref().filter(|_| stepped.is_ok()) else {
                return;
            };
            if seed.sent() != sent.0 {
                sent = (seed.sent(), Instant::now());
            }
            let awaited = seed.shared().joined.load(Ordering::Relaxed) > 0;
            if !awaited || sent.1.elapsed() >= LINGER {
                return;
            }
            if start.elapsed() >= LINGER && !std::mem::replace(&mut said, true) {
                self.say("other receivers still fetch from here: passing it on (Ctrl-C ends that)");
            }
        }
    }

    /// Stores the proven generation, behind which later runs do not go back.
    fn remember(&mut self, proven: u64) {
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
        if self.core.is_resting() {
            return;
        }
        if self.core.choice().record().is_none() {
            let share = format!("lc:{}", self.options.name);
            let left = (self.started + self.options.timeout).saturating_duration_since(now);
            self.progress
                .wait(&share, &self.network.interface_names(), left, now);
            return;
        }
        let done = self.core.counters().bytes;
        self.shown.done = done.saturating_sub(self.shown_from);
        self.shown.loss = self.core.loss();
        self.shown.channels = self.core.channels();
        self.stats.channels = self.stats.channels.max(self.shown.channels);
        self.progress.show(&self.shown, now);
    }

    /// Explains that servers are present, but none has the wanted version.
    fn nothing_acceptable(&self) -> String {
        let name = &self.options.name;
        if let (Some(remembered), 1..) = (&self.remembered, self.core.choice().rolled_back()) {
            let file = remembered.file().display();
            return format!(
                "lc:{name} is served in older versions only than this host has had: somebody sends again what he has \
                 recorded, or the server's clock is behind. If an older one is right, remove {file}"
            );
        }
        match self.core.choice().trust() {
            Some((key, refused)) if refused > 0 => {
                format!(
                    "lc:{name} is served, but nothing of it is signed by {key} ({refused} records refused)"
                )
            }
            _ => format!("no server of lc:{name} has this root hash"),
        }
    }

    fn explain(&self, failure: Failure) -> anyhow::Error {
        let name = &self.options.name;
        let message = match failure {
            Failure::Tree(why) => return why.into(),
            Failure::Silence if self.options.sent.is_some() => format!(
                "the sender is silent for {:?}: has `lcsync send` ended? What has come is kept: into the same folder the rest comes, under whatever words",
                self.options.timeout
            ),
            Failure::Silence => {
                let on = self.network.interface_names();
                let timeout = self.options.timeout;
                // a wrong key gives other groups, which look the same
                let or_key = match self.options.key {
                    Some(_) => ": the name or the key may be wrong",
                    None => "",
                };
                format!(
                    "nothing heard of lc:{name} for {timeout:?} on {on}{or_key}; is `lcsync share --name {name} PATH` running on a host of that network? (-i names an interface, --timeout waits longer)"
                )
            }
            Failure::NoVersion => self.nothing_acceptable(),
            Failure::NoBlocks => {
                format!("the server of lc:{name} answers, but sends none of the blocks asked for")
            }
        };
        ExitError::new(Exit::Unreachable, message).into()
    }
}

/// Makes DEST, with no more access than the shared folder.
fn make_folder(path: &Path, mode: u16) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new(""));
    let made = fs::create_dir_all(above).and_then(|()| {
        let mode = u32::from(mode & 0o777 | 0o700);
        DirBuilder::new().mode(mode).create(path)
    });
    match made {
        // another lcsync was faster; the lock decides which of them writes
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.with_context(|| path.display().to_string()),
    }
}

/// Writes blocks as they come.
fn write_all(
    blocks: Blocks<(BlockRef, Vec<u8>)>,
    plan: &mut Plan<'_>,
    place: &mut Place,
    queued: &AtomicUsize,
    tell: Option<&impl Fn(BlockHash)>,
) -> anyhow::Result<()> {
    for (block, bytes) in blocks {
        plan.put(block, &bytes, place)?;
        queued.fetch_sub(1, Ordering::SeqCst);
        if let Some(tell) = tell {
            tell(block.hash);
        }
    }
    plan.flush(place)
}

/// Gives bytes to the writer; returns them if it has no room now and need not be waited for.
fn hand_over(
    sender: &SyncSender<Vec<u8>>,
    bytes: Vec<u8>,
    waits: bool,
) -> Result<Option<Vec<u8>>, WriterGone> {
    match sender.try_send(bytes) {
        Ok(()) => Ok(None),
        Err(TrySendError::Disconnected(_)) => Err(WriterGone),
        Err(TrySendError::Full(bytes)) if waits => {
            sender.send(bytes).map_err(|_| WriterGone)?;
            Ok(None)
        }
        Err(TrySendError::Full(bytes)) => Ok(Some(bytes)),
    }
}

/// Loads the highest generation of a proven share, if this user has a folder for it.
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
    // a key of the run has no earlier versions
    let folder = match options.sent {
        Some(_) => None,
        None => Remembered::folder_of_user(),
    };
    let load = |folder: PathBuf| Remembered::load(&folder, &options.name, key);
    Ok(folder.map(load).transpose()?)
}

/// Starts the part that serves blocks: until stopped, if that is wanted; and on lc0, where each copy
/// costs an uplink, for those who fetch at the same time.
fn start_seed(
    options: &Options,
    prefix: SharePrefix,
    key: Option<Arc<ShareKey>>,
    lc0: Option<u32>,
) -> anyhow::Result<(Option<Seed>, Option<Carrier>)> {
    let watched = Watched {
        name: options.name.clone(),
        prefix,
        path: options.dest.clone(),
        chosen: Vec::new(),
        signer: None,
        key,
        interfaces: Vec::new(),
        limit: None,
        listed: false,
    };
    let to_files = !options.write_devices && options.dest.as_os_str() != "-";
    let whole = options.part.is_none() && !options.dry_run;
    let carries = !options.no_seed && whole && to_files;
    let overlay = lc0.filter(|_| carries).and_then(|interface| {
        let socket = SendSocket::open(interface, prefix.address(), LCSYNC_PORT, 1).ok()?;
        let address = socket.source().ok()?;
        let name = multicast_interfaces(&options.interfaces).ok()?;
        let name = name.get(&interface)?.name.clone();
        Some((Overlay { interface, address }, name))
    });
    let Some((overlay, name)) = overlay else {
        let interfaces = options.interfaces.clone();
        let start = || Seed::start(watched, interfaces, options.limit);
        return Ok((options.seed.then(start).transpose()?, None));
    };
    let number = carrier_number(overlay.address);
    let interfaces = match options.seed {
        true => options.interfaces.clone(),
        false => vec![name],
    };
    match Seed::carry(watched, interfaces, options.limit, overlay) {
        Ok((seed, overdue)) => Ok((Some(seed), Some(Carrier { number, overdue }))),
        Err(e) if options.seed => Err(e),
        Err(e) => {
            tracing::info!("this receiver passes nothing on: {e:#}");
            Ok((None, None))
        }
    }
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
