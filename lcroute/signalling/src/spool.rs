//! A folder that nodes share in any way, as a carrier: Syncthing, NFS, a USB stick.
//!
//! Each node stores its presence record in a file with a daily name, `NAME.lcroute`, and reads
//! those of other nodes. The folder's carriers see only sealed bytes and daily names.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lcroute_overlay::{CarrierId, CarrierKind, MAX_RECORD, Published};
use rustix::fs::OFlags;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::carrier::{Carrier, CarrierEvent, Pace};

/// Interval of checks of the folder: the kernel does not report changes by other hosts.
const LOOK: Duration = Duration::from_secs(2);
/// Maximum number of files that are read.
const MAX_FILES: usize = 4_096;
const EXTENSION: &str = "lcroute";
/// Age after which a file counts as abandoned.
const FORGOTTEN: Duration = Duration::from_secs(3 * 86_400);

/// A shared folder. Dropping it leaves this node's file, whose record ends; `withdraw` removes it.
#[derive(Debug)]
pub struct Spool {
    record: watch::Sender<Option<Published>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

impl Spool {
    /// Uses `folder`, which need not exist yet; to be called within a tokio runtime.
    pub(crate) fn start(
        carrier: CarrierId,
        folder: &Path,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let (record, records) = watch::channel(None);
        let reader = Reader {
            carrier,
            folder: folder.to_owned(),
            seen: BTreeMap::new(),
            own: None,
            problem: None,
        };
        Self {
            record,
            task: Some(tokio::spawn(run(reader, records, events))),
        }
    }

    /// Removes the file of this node, and stops using the folder.
    pub(crate) fn withdraw(mut self) {
        self.record.send_replace(None);
        // the task then ends by itself
        self.task = None;
    }
}

impl Carrier for Spool {
    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn publish(&self, record: &Published) {
        self.record.send_replace(Some(record.clone()));
    }
}

async fn run(
    mut reader: Reader,
    mut records: watch::Receiver<Option<Published>>,
    events: mpsc::Sender<CarrierEvent>,
) {
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            changed = records.changed() => if changed.is_err() {
                return;
            },
            _ = look.tick() => {}
        }
        let record = records.borrow_and_update().clone();
        // a network file system may be slow
        let work = tokio::task::spawn_blocking(move || {
            let said = reader.work(record.as_ref());
            (reader, said)
        });
        let Ok((back, said)) = work.await else { return };
        reader = back;
        for event in said {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// The state of the folder.
#[derive(Debug)]
struct Reader {
    carrier: CarrierId,
    folder: PathBuf,
    /// Files of other nodes, with their last content.
    seen: BTreeMap<String, Vec<u8>>,
    /// Name and content of this node's last file.
    own: Option<(String, Published)>,
    /// The last logged problem.
    problem: Option<String>,
}

impl Reader {
    /// Writes this node's record, reads those of other nodes.
    fn work(&mut self, record: Option<&Published>) -> Vec<CarrierEvent> {
        let result = self.write(record).and_then(|()| self.read());
        match result {
            Ok(said) => {
                self.problem = None;
                said
            }
            Err(e) => {
                let problem = format!("[signal] spool = {}: {e}", self.folder.display());
                if self.problem.as_ref() != Some(&problem) {
                    tracing::warn!("{problem}");
                    self.problem = Some(problem);
                }
                Vec::new()
            }
        }
    }

    fn write(&mut self, record: Option<&Published>) -> io::Result<()> {
        let Some(record) = record else {
            let withdrawn = self.own.take();
            // it may be removed already
            withdrawn.map(|(own, _)| fs::remove_file(self.folder.join(own)));
            return Ok(());
        };
        let name = file_name(&record.name);
        let is_written = self.own.as_ref().is_some_and(|(_, own)| own == record);
        if is_written && self.folder.join(&name).exists() {
            return Ok(());
        }
        let temporary = self.folder.join(format!(".{name}.new"));
        // other users may write to the folder: a link at this name must not redirect the write
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = File::create_new(&temporary)?;
        file.write_all(&record.sealed)?;
        // a program of another user may carry it; some file systems have no permissions
        let _ = file.set_permissions(fs::Permissions::from_mode(0o644));
        file.sync_all()?;
        fs::rename(&temporary, self.folder.join(&name))?;
        let before = self.own.replace((name.clone(), record.clone()));
        if let Some((before, _)) = before.filter(|(before, _)| *before != name) {
            // the file of the day before, if it still exists
            let _ = fs::remove_file(self.folder.join(before));
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Vec<CarrierEvent>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let is_record = Path::new(&name).extension().is_some_and(|e| e == EXTENSION);
            let is_own = self.own.as_ref().is_some_and(|(own, _)| *own == name);
            if !is_record || is_own || name.starts_with('.') || found.len() >= MAX_FILES {
                continue;
            }
            match read_record(&entry.path()) {
                Ok(Some(sealed)) => drop(found.insert(name, sealed)),
                Ok(None) => {}
                // it may have been renamed meanwhile
                Err(e) => tracing::debug!("{}: {e}", entry.path().display()),
            }
        }
        let carrier = self.carrier;
        let gone = self.seen.keys().filter(|name| !found.contains_key(*name));
        let gone = gone.cloned();
        let mut said: Vec<_> = gone
            .map(|name| CarrierEvent::RecordGone { carrier, name })
            .collect();
        let new = found
            .iter()
            .filter(|(name, sealed)| self.seen.get(*name) != Some(sealed));
        said.extend(new.map(|(name, sealed)| CarrierEvent::Record {
            carrier,
            kind: CarrierKind::Spool,
            name: name.clone(),
            sealed: sealed.clone(),
        }));
        self.seen = found;
        Ok(said)
    }
}

/// Reads a record file; none if it is too long, or so old that it is removed.
fn read_record(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // follows no link, and does not wait for the writer of a pipe
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.cast_signed());
    let file = options.open(path)?;
    let status = file.metadata()?;
    if !status.is_file() || status.len() > MAX_RECORD as u64 {
        return Ok(None);
    }
    let age = SystemTime::now().duration_since(status.modified()?);
    if age.is_ok_and(|age| age > FORGOTTEN) {
        fs::remove_file(path)?;
        return Ok(None);
    }
    let mut sealed = Vec::new();
    file.take(MAX_RECORD as u64 + 1).read_to_end(&mut sealed)?;
    Ok((sealed.len() <= MAX_RECORD).then_some(sealed))
}

fn file_name(name: &[u8; 32]) -> String {
    let digits: String = name[..16].iter().map(|b| format!("{b:02x}")).collect();
    format!("{digits}.{EXTENSION}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use lcroute_overlay::Rendezvous;
    use librecast::id::SecretKey;

    use super::*;

    fn reader(folder: &Path) -> Reader {
        Reader {
            carrier: CarrierId(1),
            folder: folder.to_owned(),
            seen: BTreeMap::new(),
            own: None,
            problem: None,
        }
    }

    fn record(name: u8, sealed: u8) -> Published {
        Published {
            name: [name; 32],
            sealed: vec![sealed; 256].into(),
            until: 9,
            epoch: Rendezvous::new(SecretKey::from_seed(&[9; 32]).peer_id()),
        }
    }

    fn names(said: &[CarrierEvent]) -> Vec<(&str, Option<u8>)> {
        let name = |event: &'_ CarrierEvent| match event {
            CarrierEvent::Record { sealed, .. } => Some(sealed[0]),
            _ => None,
        };
        let of = said.iter().map(|event| match event {
            CarrierEvent::Record { name: of, .. } | CarrierEvent::RecordGone { name: of, .. } => {
                (of.as_str(), name(event))
            }
            other => panic!("{other:?}"),
        });
        of.collect()
    }

    #[test]
    fn records_of_others_are_told_once_and_when_they_change_or_go() {
        let folder = tempfile::tempdir().unwrap();
        let (mut a, mut b) = (reader(folder.path()), reader(folder.path()));
        assert!(a.work(Some(&record(1, 10))).is_empty());
        let first = file_name(&[1; 32]);
        assert_eq!(
            names(&b.work(Some(&record(2, 20)))),
            [(first.as_str(), Some(10))]
        );
        assert!(b.work(Some(&record(2, 20))).is_empty());
        assert_eq!(
            names(&a.work(Some(&record(1, 11)))),
            [(file_name(&[2; 32]).as_str(), Some(20))]
        );
        assert_eq!(
            names(&b.work(Some(&record(2, 20)))),
            [(first.as_str(), Some(11))]
        );
        // the next day
        a.work(Some(&record(3, 12)));
        let next = file_name(&[3; 32]);
        assert_eq!(
            names(&b.work(Some(&record(2, 20)))),
            [(first.as_str(), None), (next.as_str(), Some(12))]
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_folder_that_is_used_no_more_keeps_no_record_of_this_node() {
        let folder = tempfile::tempdir().unwrap();
        let (events, _told) = mpsc::channel(4);
        let spool = Spool::start(CarrierId(1), folder.path(), events);
        let own = folder.path().join(file_name(&[1; 32]));
        spool.publish(&record(1, 10));
        while !own.exists() {
            tokio::task::yield_now().await;
        }
        spool.withdraw();
        while own.exists() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("long.lcroute"), [0; MAX_RECORD + 1]).unwrap();
        fs::write(folder.path().join("notes.txt"), "x").unwrap();
        fs::write(folder.path().join(".new.lcroute"), "x").unwrap();
        fs::create_dir(folder.path().join("dir.lcroute")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("link.lcroute")).unwrap();
        let pipe = folder.path().join("pipe.lcroute");
        let made = Command::new("mkfifo").arg(pipe).status().unwrap();
        assert!(made.success());
        assert!(reader(folder.path()).work(None).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
    }

    #[test]
    fn a_link_where_we_write_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("node.key");
        fs::write(&key, "secret").unwrap();
        let name = file_name(&[1; 32]);
        let planted = folder.path().join(format!(".{name}.new"));
        std::os::unix::fs::symlink(&key, planted).unwrap();
        let mut reader = reader(folder.path());
        reader.work(Some(&record(1, 1)));
        assert_eq!(reader.problem, None);
        assert_eq!(fs::read(&key).unwrap(), b"secret");
        let written = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!(written.permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_folder_that_is_not_there_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let later = folder.path().join("later");
        let mut reader = reader(&later);
        assert!(reader.work(Some(&record(1, 1))).is_empty());
        assert!(reader.problem.is_some());
        fs::create_dir(&later).unwrap();
        reader.work(Some(&record(1, 1)));
        assert!(reader.problem.is_none() && later.join(file_name(&[1; 32])).exists());
    }
}
