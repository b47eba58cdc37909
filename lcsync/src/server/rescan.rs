//! A thread that scans the shared files for changes, and publishes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use librecast::channel::SharePrefix;
use librecast::id::SecretKey;
use librecast_program::cli::ExitError;

use super::hosted::Share;
use super::notices::{Notices, explain};
use super::origin::{Origin, OriginFile};
use super::pace::{Pace, Reason};
use crate::block::BlockHash;
use crate::carrying::Had;
use crate::index::{HashCache, Index, IndexError};
use crate::record::Version;
use crate::remembered::{Remembered, milliseconds};
use crate::scan::{Scan, shown_paths};
use crate::sealing::{ShareKey, group_key};
use crate::signature::sign;
use crate::store::Store;

/// Interval of writing hashes to disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Least such interval in durations of a write.
const SAVE_FACTOR: u32 = 5;
/// Interval of checks for notices.
const TICK: Duration = Duration::from_millis(100);
/// Scans after which files that keep changing are published all the same.
const MAX_SCANS: u32 = 10;

/// A path and the name under which it is shared.
#[derive(Debug, Clone)]
pub struct Watched {
    pub name: String,
    /// Group prefix of the name.
    pub prefix: SharePrefix,
    /// Absolute path of the share; empty for chosen paths.
    pub path: PathBuf,
    /// Absolute paths that are together the share; none: `path` is it.
    pub chosen: Vec<PathBuf>,
    /// Signs each version.
    pub signer: Option<Arc<SecretKey>>,
    /// Seals everything.
    pub key: Option<Arc<ShareKey>>,
    /// Interfaces on which it is served; none for all.
    pub interfaces: Vec<String>,
    /// Bits per second over all its channels.
    pub limit: Option<u64>,
    /// Whether catalogues list it to holders of its key.
    pub listed: bool,
}

impl Watched {
    /// Loads the highest generation of earlier runs, for shares for which receivers store it, too.
    fn remembered(&self, folder: Option<&Path>) -> Result<Option<Remembered>, ExitError> {
        let signer = self.signer.as_ref().map(|s| *s.peer_id().public_key());
        let key = match (&signer, &self.key) {
            (Some(signer), _) => &signer[..],
            (None, Some(_)) => group_key(self.key.as_deref()),
            (None, None) => return Ok(None),
        };
        folder
            .map(|f| Remembered::load(f, &self.name, key))
            .transpose()
    }

    fn paths(&self) -> &[PathBuf] {
        match &self.chosen[..] {
            [] => std::slice::from_ref(&self.path),
            chosen => chosen,
        }
    }

    fn scan(&self) -> anyhow::Result<Scan> {
        Ok(match &self.chosen[..] {
            [] => Scan::of(&self.path).with_context(|| self.path.display().to_string())?,
            chosen => Scan::of_paths(chosen)?,
        })
    }

    /// Whether this is the same share; its limit may differ.
    pub fn is_same(&self, other: &Self) -> bool {
        let signer = |w: &Self| w.signer.as_ref().map(|k| k.peer_id());
        // the prefix depends on the key
        (self.prefix, &self.name, self.paths(), &self.interfaces)
            == (other.prefix, &other.name, other.paths(), &other.interfaces)
            && signer(self) == signer(other)
    }
}

/// A message of the thread.
#[derive(Debug)]
pub enum Update {
    /// A version of a share.
    Share {
        /// The changed share.
        watched: Watched,
        /// Its new version.
        share: Share,
        /// The highest generation that earlier runs have published, if known.
        earlier: Option<u64>,
        /// Whether it is the first one.
        first: bool,
    },
    /// The files of a share were scanned for changes.
    Rescanned(SharePrefix),
    /// The present files of a share are not published, or are again.
    Vanished(SharePrefix, Option<Vanished>),
    /// This receiver carries the next version of the share, with the blocks that have come.
    Carried(SharePrefix, Had),
    /// A block of a carried share has come.
    Came(SharePrefix, BlockHash),
    /// A path cannot be shared at all.
    Failed(anyhow::Error),
}

/// Reason why the present files are not published: some may be gone without having been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    /// Explanation for users.
    pub why: String,
    /// File that a user removes to publish the present files; without one, only a restart does.
    pub file: Option<PathBuf>,
}

impl Vanished {
    /// Remedy for users.
    pub fn remedy(&self) -> String {
        let take = match &self.file {
            Some(file) => format!("remove {}", file.display()),
            None => "start the server again".to_owned(),
        };
        format!("mount it again, or, if what is there now is right, {take}")
    }
}

/// A share between two scans.
struct Watch {
    watched: Watched,
    store: Option<Store>,
    cache: HashCache,
    /// Last save of hashes, and its duration.
    saved: Option<(Instant, Duration)>,
    pace: Pace,
    notices: Option<Notices>,
    /// The logged reason why files cannot be found.
    missing: Option<String>,
    /// Folder of lasting state.
    state: Option<PathBuf>,
    /// Origin of the last version, of this run or of an earlier one.
    origin: Option<Origin>,
    /// File of the origin, for restarts.
    origin_file: Option<OriginFile>,
    vanished: Option<Vanished>,
    /// The last reported state of it.
    vanished_told: Option<Vanished>,
    published: Option<Share>,
    /// The highest generation of earlier runs, if stored.
    earlier: Option<u64>,
    /// Highest generation of a signed or sealed share: receivers take no lower one.
    remembered: Option<Remembered>,
    /// Its scan, if that has more than the version: unreadable files.
    found: Option<Scan>,
    /// A changed state that was seen once; it is published when seen again.
    pending: Option<Scan>,
    unsettled: u32,
    /// Left-out entries that were logged: files of other kinds, and paths that are too long.
    left_out: [Vec<Vec<u8>>; 2],
}

/// Starts the thread for the shares of the latest list in `wanted`. It calls `wake` after each
/// update; `urgent` requests a scan at once.
pub fn start(
    wanted: Receiver<Vec<Watched>>,
    kept: Kept,
    wake: impl Fn() + Send + 'static,
    urgent: Arc<AtomicBool>,
) -> std::io::Result<Receiver<Update>> {
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("rescan".into())
        .spawn(move || {
            // the receiver only goes at the end of the process
            let _ = run(&wanted, &kept, &sender, &wake, &urgent);
        })?;
    Ok(receiver)
}

/// Places of data that outlive a run.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Hashes, which can be made again.
    pub store: Option<Store>,
    /// Folder of lasting state, which cannot be made again.
    pub state: Option<PathBuf>,
}

impl Kept {
    /// Returns the places of this user's lcsync.
    #[must_use]
    pub fn of_user() -> Self {
        let state = Remembered::folder_of_user();
        if state.is_none() {
            tracing::warn!(
                "no folder for state (HOME, XDG_STATE_HOME): a disk that is not mounted at the next start looks like deleted files"
            );
        }
        Self {
            store: Store::of_user(),
            state,
        }
    }
}

fn run(
    wanted: &Receiver<Vec<Watched>>,
    kept: &Kept,
    updates: &Sender<Update>,
    wake: &impl Fn(),
    urgent: &AtomicBool,
) -> Option<()> {
    let publish = |update| {
        updates.send(update).ok()?;
        wake();
        Some(())
    };
    let mut watches = Vec::new();
    set_shares(&mut watches, wanted.recv().ok()?, kept);
    for watch in &mut watches {
        match watch.first() {
            Ok(update) => update.map_or(Some(()), publish)?,
            Err(error) => return publish(Update::Failed(error)),
        }
        watch.tell_vanished().map_or(Some(()), publish)?;
    }
    loop {
        thread::sleep(TICK);
        let mut urgent = urgent.swap(false, Ordering::SeqCst);
        if let Some(list) = wanted.try_iter().last() {
            set_shares(&mut watches, list, kept);
            urgent = true;
        }
        for watch in &mut watches {
            if let Some(update) = watch.poll(urgent) {
                // this alone wakes nobody
                let rescanned = Update::Rescanned(watch.watched.prefix);
                updates.send(rescanned).ok()?;
                update.map_or(Some(()), publish)?;
                watch.tell_vanished().map_or(Some(()), publish)?;
            }
            watch.save(Instant::now());
        }
    }
}

/// Watches these shares from now on; shares that stay keep their state.
fn set_shares(watches: &mut Vec<Watch>, list: Vec<Watched>, kept: &Kept) {
    watches.retain(|watch| list.iter().any(|w| w.is_same(&watch.watched)));
    for watched in list {
        if !watches.iter().any(|w| w.watched.is_same(&watched)) {
            watches.push(Watch::new(watched, kept.clone()));
        }
    }
}

impl Watch {
    fn new(watched: Watched, Kept { store, state }: Kept) -> Self {
        let cache = store.as_ref().map(|s| s.load(&watched.path));
        let origin_file = state
            .as_ref()
            .map(|s| OriginFile::new(s, watched.prefix, &watched.path));
        Self {
            watched,
            store,
            cache: cache.unwrap_or_default(),
            saved: None,
            pace: Pace::new(Instant::now()),
            notices: None,
            missing: None,
            state,
            origin: None,
            origin_file,
            vanished: None,
            vanished_told: None,
            published: None,
            earlier: None,
            remembered: None,
            found: None,
            pending: None,
            unsettled: 0,
            left_out: Default::default(),
        }
    }

    /// Retries a share that could not be read when it was added.
    fn retry(&mut self) -> Option<Update> {
        let first = self.first();
        first
            .inspect_err(|e| tracing::warn!("lc:{}: {e:#}", self.watched.name))
            .ok()?
    }

    /// Returns the first version, unless the files seem to be gone since an earlier run.
    fn first(&mut self) -> anyhow::Result<Option<Update>> {
        self.remembered = self.watched.remembered(self.state.as_deref())?;
        self.earlier = self.remembered.as_ref().map(Remembered::generation);
        let origin_file = self.origin_file.as_ref();
        self.origin = origin_file.map(OriginFile::load).transpose()?.flatten();
        let scan = self.watched.scan()?;
        if self.has_vanished(&scan) {
            return Ok(None);
        }
        let paths = self.watched.paths();
        match Notices::of(paths) {
            Ok(notices) => self.notices = Some(notices),
            Err(e) => tracing::warn!("{}", explain(&e, &shown_paths(paths))),
        }
        self.watch(&scan);
        let index = self.index(scan)?;
        Ok(Some(self.publish(index, true)))
    }

    /// Whether a scan may lack files that no user has deleted. A user must confirm it.
    fn has_vanished(&mut self, scan: &Scan) -> bool {
        let told = self.vanished.as_ref().and_then(|v| v.file.as_ref());
        if told.is_some_and(|file| !file.exists()) {
            tracing::info!("lc:{}: what is there now is taken", self.watched.name);
            self.origin = None;
        }
        let last = self.published.as_ref().map(|share| &share.index.scan);
        let origin = self.origin.as_ref();
        let why = origin.and_then(|origin| origin.missing_in(scan, last));
        let file = self.origin_file.as_ref().map(OriginFile::path);
        let vanished = why.map(|why| Vanished {
            why,
            file: file.map(PathBuf::from),
        });
        self.vanished = vanished;
        self.vanished.is_some()
    }

    /// Returns the change of this state since the last call.
    fn tell_vanished(&mut self) -> Option<Update> {
        if self.vanished == self.vanished_told {
            return None;
        }
        self.vanished_told.clone_from(&self.vanished);
        Some(Update::Vanished(self.watched.prefix, self.vanished.clone()))
    }

    /// Stores the origin of a version that will be served.
    fn remember_origin(&mut self, scan: &Scan) {
        let origin = Origin::of(scan);
        if self.origin.as_ref() == Some(&origin) {
            return;
        }
        if let Some(file) = &self.origin_file
            && let Err(e) = file.save(&origin)
        {
            let (name, file) = (&self.watched.name, file.path().display());
            tracing::warn!(
                "lc:{name}: {file}: {e}: a disk that is not mounted at the next start looks like deleted files"
            );
            self.origin_file = None;
        }
        self.origin = Some(origin);
    }

    /// Scans if that is due or `urgent`; returns the change.
    fn poll(&mut self, urgent: bool) -> Option<Option<Update>> {
        let now = Instant::now();
        if self.notices.as_ref().is_some_and(Notices::take) {
            self.pace.notice(now);
        }
        let reason = self.pace.due(now);
        if reason.is_none() && !urgent {
            return None;
        }
        self.pace.look();
        let update = if self.published.is_some() {
            self.look(reason == Some(Reason::Noticed))
        } else {
            self.retry()
        };
        let whole = self.missing.is_none() && self.vanished.is_none();
        let watching = self.notices.is_some() && whole;
        let settling = self.pending.is_some();
        self.pace
            .looked(Instant::now(), now.elapsed(), watching, settling);
        Some(update)
    }

    /// Watches the folders of a scan.
    fn watch(&mut self, scan: &Scan) {
        let Some(notices) = &mut self.notices else {
            return;
        };
        match notices.watch(scan) {
            // something may have changed in new folders before they were watched
            Ok(true) => self.pace.notice(Instant::now()),
            Ok(false) => {}
            Err(e) => {
                let paths = shown_paths(self.watched.paths());
                tracing::warn!("{}", explain(&e, &paths));
                self.notices = None;
            }
        }
    }

    /// Returns a new version, if it has settled: as `at_rest` states, or as two scans are equal.
    fn look(&mut self, at_rest: bool) -> Option<Update> {
        let scan = match self.watched.scan() {
            Ok(scan) => scan,
            Err(e) => {
                self.tell_missing(Some(format!("{e:#}; still serving the last version")));
                return None;
            }
        };
        let gone = shown_paths(&scan.missing);
        let missing = !gone.is_empty();
        self.tell_missing(missing.then(|| format!("{gone}: not there any more; left out")));
        self.watch(&scan);
        if self.has_vanished(&scan) {
            self.pending = None;
            return None;
        }
        let published = self.published.as_ref().map(|s| &s.index.scan);
        if self.found.as_ref().or(published) == Some(&scan) {
            self.pending = None;
            return None;
        }
        let settled = at_rest || self.pending.as_ref() == Some(&scan);
        self.unsettled += 1;
        if !settled && self.unsettled < MAX_SCANS {
            self.pending = Some(scan);
            return None;
        }
        (self.pending, self.unsettled) = (None, 0);
        match self.index(scan) {
            Ok(index) => Some(self.publish(index, false)),
            Err(e) => {
                let name = &self.watched.name;
                tracing::warn!("lc:{name}: {e}; still serving the last version");
                None
            }
        }
    }

    /// Logs why files cannot be found, once, and that all of them are there again.
    fn tell_missing(&mut self, missing: Option<String>) {
        if self.missing == missing {
            return;
        }
        let name = &self.watched.name;
        match &missing {
            Some(why) => tracing::warn!("lc:{name}: {why}"),
            // at the level of the warning, so that its readers see this, too
            None => tracing::warn!("lc:{name}: all of it is there again"),
        }
        self.missing = missing;
    }

    fn index(&mut self, scan: Scan) -> Result<Index, IndexError> {
        let found = scan.clone();
        let left_out = [scan.special.clone(), scan.too_long.clone()];
        if self.left_out != left_out {
            scan.name_special();
            scan.name_too_long();
            self.left_out = left_out;
        }
        let began = Instant::now();
        let key = group_key(self.watched.key.as_deref());
        let index = Index::of(scan, key, &mut self.cache)?;
        self.pace.made(began.elapsed());
        self.found = (found.unread != index.scan.unread).then_some(found);
        Ok(index)
    }

    /// Saves new hashes, at intervals. Hashes lost in a crash are made again.
    fn save(&mut self, now: Instant) {
        let due = self
            .saved
            .is_none_or(|(at, took)| now >= at + SAVE_INTERVAL.max(took * SAVE_FACTOR));
        let Some(store) = self.store.as_ref().filter(|_| self.cache.fresh && due) else {
            return;
        };
        if let Err(e) = store.save(&self.watched.path, &self.cache) {
            let name = &self.watched.name;
            tracing::warn!("lc:{name}: what was hashed cannot be kept for the next start: {e}");
            self.store = None;
        }
        self.cache.fresh = false;
        self.saved = Some((now, now.elapsed()));
    }

    fn publish(&mut self, index: Index, first: bool) -> Update {
        // whoever receives chosen files deletes none
        if self.watched.chosen.is_empty() {
            self.remember_origin(&index.scan);
        }
        let last = self.published.as_ref().map_or(0, |s| s.generation);
        let earlier = self.remembered.as_ref().map_or(0, Remembered::generation);
        let clock = milliseconds(SystemTime::now());
        let generation = clock.max(last + 1).max(earlier + 1);
        if let Some(remembered) = &mut self.remembered
            && let Err(e) = remembered.raise(generation)
        {
            let file = remembered.file().display();
            tracing::warn!(
                "{file}: {e}: after a restart with a clock that is behind receivers refuse lc:{}",
                self.watched.name
            );
            self.remembered = None;
        }
        let version = Version {
            generation,
            root: index.root,
            metadata: index.metadata,
        };
        let mut share = Share::unsigned(Arc::new(index), version.generation);
        if let Some(key) = &self.watched.signer {
            share.authentication = sign(key, &self.watched.name, &version);
        }
        self.published = Some(share.clone());
        Update::Share {
            watched: self.watched.clone(),
            share,
            earlier: self.earlier,
            first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use librecast::channel::block_channel;
    use std::fs;

    fn watch(path: &Path) -> Watch {
        watch_chosen(path, &[])
    }

    fn watch_chosen(path: &Path, chosen: &[PathBuf]) -> Watch {
        let watched = Watched {
            name: "t".into(),
            prefix: SharePrefix::of_name(b"", "t"),
            path: path.to_path_buf(),
            chosen: chosen.to_vec(),
            signer: None,
            key: None,
            interfaces: Vec::new(),
            limit: None,
            listed: false,
        };
        Watch::new(watched, Kept::default())
    }

    fn generation(update: Update) -> u64 {
        let Update::Share { share, .. } = update else {
            panic!("{update:?}");
        };
        share.generation
    }

    #[test]
    fn a_change_is_published_once_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"1").unwrap();
        let mut watch = watch(dir.path());
        let first = generation(watch.first().unwrap().unwrap());
        assert!(watch.look(false).is_none());
        fs::write(dir.path().join("f"), b"22").unwrap();
        assert!(watch.look(false).is_none(), "may still be being written");
        assert!(generation(watch.look(false).unwrap()) > first);
        assert!(watch.look(false).is_none());
    }

    #[test]
    fn a_change_that_is_known_to_be_at_rest_is_published_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path());
        let first = generation(watch.first().unwrap().unwrap());
        fs::create_dir(dir.path().join("new")).unwrap();
        fs::write(dir.path().join("new/f"), b"1").unwrap();
        assert!(watch.notices.as_ref().unwrap().take());
        let second = generation(watch.look(true).unwrap());
        fs::write(dir.path().join("new/f"), b"22").unwrap();
        assert!(
            watch.notices.as_ref().unwrap().take(),
            "new folders are watched"
        );
        assert!(generation(watch.look(true).unwrap()) > second && second > first);
    }

    #[test]
    fn what_never_rests_is_published_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path());
        watch.first().unwrap();
        let published = (1..=2 * MAX_SCANS as usize)
            .filter(|n| {
                fs::write(dir.path().join("f"), vec![0; *n]).unwrap();
                watch.look(false).is_some()
            })
            .count();
        assert_eq!(published, 2);
    }

    #[test]
    fn a_corrected_file_among_chosen_ones_does_not_wait_for_a_log_that_never_rests() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/log"), b"").unwrap();
        fs::write(at("stored"), b"wrong").unwrap();
        std::os::unix::fs::symlink("stored", at("report")).unwrap();
        let mut watch = watch_chosen(Path::new(""), &["d", "report"].map(at));
        let first = generation(watch.first().unwrap().unwrap());
        let share = watch.published.clone().unwrap();
        let paths: Vec<_> = share
            .index
            .scan
            .entries
            .iter()
            .map(|e| &e.path[..])
            .collect();
        assert_eq!(paths, [&b"d"[..], b"d/log", b"report"]);
        let notices = watch.notices.take().unwrap();
        notices.take();
        // behind the link, and beside it
        for file in ["stored", "d/log"] {
            fs::write(at(file), b"right").unwrap();
            assert!(notices.take(), "{file}");
        }
        // without notices, too
        let update = (1..=MAX_SCANS as usize).find_map(|n| {
            fs::write(at("d/log"), vec![0; n]).unwrap();
            watch.look(false)
        });
        assert!(generation(update.unwrap()) > first);
        let index = watch.published.unwrap().index;
        let pack = [&[0_u8; MAX_SCANS as usize][..], b"right"].concat();
        let channel = block_channel(b"", &BlockHash::of(&pack).0, 0);
        assert_eq!(index.read(channel).unwrap(), pack);
    }

    #[test]
    fn what_is_gone_is_named_once_and_what_is_there_again_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/f"), b"1").unwrap();
        fs::write(at("g"), b"2").unwrap();
        let mut watch = watch_chosen(Path::new(""), &["d", "g"].map(at));
        let first = generation(watch.first().unwrap().unwrap());
        fs::rename(at("d"), at("away")).unwrap();
        let second = generation(watch.look(true).unwrap());
        let why = watch.missing.clone().unwrap();
        assert!(why.starts_with(&at("d").display().to_string()), "{why}");
        assert!(watch.look(true).is_none() && watch.missing == Some(why));
        // the last of them: its version stays
        fs::rename(at("g"), at("other")).unwrap();
        assert!(watch.look(true).is_none());
        let why = watch.missing.clone().unwrap();
        assert!(why.contains("still serving"), "{why}");
        fs::rename(at("away"), at("d")).unwrap();
        fs::rename(at("other"), at("g")).unwrap();
        assert!(generation(watch.look(true).unwrap()) > second && second > first);
        assert_eq!(watch.missing, None);
    }

    #[test]
    fn what_was_found_is_compared_and_not_what_could_be_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"a").unwrap();
        std::fs::write(dir.path().join("b"), b"b").unwrap();
        let mut watch = watch(dir.path());
        let scan = Scan::of(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("b")).unwrap();
        let index = watch.index(scan.clone()).unwrap();
        assert_eq!(index.scan.entries.len(), 1);
        watch.publish(index, true);
        assert_eq!(watch.found, Some(scan));
        assert!(watch.look(false).is_none());
        generation(watch.look(false).unwrap());
        assert_eq!(watch.found, None);
        assert!(watch.look(false).is_none() && watch.look(false).is_none());
    }

    #[test]
    fn after_a_restart_with_a_clock_that_is_behind_versions_still_grow() {
        let dir = tempfile::tempdir().unwrap();
        let later = milliseconds(SystemTime::now()) + 3_600_000;
        let mut remembered = Remembered::load(dir.path(), "t", b"key").unwrap();
        remembered.raise(later).unwrap();
        let mut watch = watch(dir.path());
        watch.remembered = Some(remembered);
        let index = watch.index(Scan::of(dir.path()).unwrap()).unwrap();
        assert_eq!(generation(watch.publish(index, true)), later + 1);
        let kept = Remembered::load(dir.path(), "t", b"key").unwrap();
        assert_eq!(kept.generation(), later + 1);
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_published_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"1").unwrap();
        let mut watch = watch(dir.path());
        let scan = Scan::of(dir.path()).unwrap();
        fs::write(dir.path().join("f"), b"22").unwrap();
        let index = watch.index(scan).unwrap();
        assert_eq!(index.bytes(), 2);
        watch.publish(index, true);
        assert!(watch.look(true).is_none());
    }

    /// Keeps only the content of `state`, as a restart does.
    fn restart(path: &std::path::Path, state: &std::path::Path) -> Watch {
        let kept = Kept {
            store: None,
            state: Some(state.to_path_buf()),
        };
        Watch::new(watch(path).watched, kept)
    }

    #[test]
    fn a_folder_that_is_emptied_is_served_as_it_was_until_somebody_says_that_this_is_right() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("sub")).unwrap();
        let file = dir.path().join("sub/f");
        fs::write(&file, b"1").unwrap();
        let mut watch = restart(dir.path(), state.path());
        let first = generation(watch.first().unwrap().unwrap());
        fs::remove_file(&file).unwrap();
        for at_rest in [true, false, false] {
            assert!(watch.look(at_rest).is_none());
        }
        let Some(Update::Vanished(_, Some(vanished))) = watch.tell_vanished() else {
            panic!("not told");
        };
        assert!(vanished.why.contains("1 files"), "{}", vanished.why);
        assert!(watch.tell_vanished().is_none(), "told once");
        let mut again = restart(dir.path(), state.path());
        assert!(again.first().unwrap().is_none(), "over restarts as well");
        assert!(again.retry().is_none());

        fs::remove_file(vanished.file.unwrap()).unwrap();
        assert!(generation(watch.look(true).unwrap()) > first);
        assert!(matches!(
            watch.tell_vanished(),
            Some(Update::Vanished(_, None))
        ));
        assert!(restart(dir.path(), state.path()).first().unwrap().is_some());
    }

    #[test]
    fn a_share_that_is_there_again_is_served_without_a_word_from_anybody() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), b"1").unwrap();
        restart(&path, state.path()).first().unwrap().unwrap();
        fs::rename(path.join("f"), dir.path().join("f")).unwrap();
        let mut watch = restart(&path, state.path());
        assert!(watch.first().unwrap().is_none());
        fs::rename(dir.path().join("f"), path.join("f")).unwrap();
        assert!(watch.retry().is_some());
        // another folder of the same file system is a change on disk
        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("other"), b"2").unwrap();
        assert!(watch.look(true).is_some());
    }

    #[test]
    fn without_a_place_to_remember_only_a_restart_takes_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"1").unwrap();
        let mut watch = watch(dir.path());
        watch.first().unwrap();
        fs::remove_file(dir.path().join("f")).unwrap();
        assert!(watch.look(true).is_none() && watch.look(true).is_none());
        assert_eq!(watch.vanished.unwrap().file, None);
    }

    #[test]
    fn a_path_that_vanishes_leaves_the_last_version() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, b"1").unwrap();
        let mut watch = watch(&file);
        watch.first().unwrap();
        fs::remove_file(&file).unwrap();
        assert!(watch.look(false).is_none());
        assert!(watch.published.is_some());
    }
}
