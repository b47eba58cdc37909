//! Sealed files that a holder keeps, within the space that its user allows.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lcgroup_core::file::{Candidate, FileId, MAX_FILES, SealedFile, choose};
use lcgroup_core::kind;
use librecast::durable;
use librecast_log::Log;

use super::Held;
use crate::carrier::{Carrier, Plan, Served, Wanted};
use crate::request::FilesStatus;

/// Bytes of sealed files that a holder keeps, if its user says nothing. Chosen: sixteen of the
/// longest.
pub const DEFAULT_SPACE: u64 = 16 << 26;
/// The file with the number that the user said.
const SPACE: &str = "space";
/// Interval at which the log is read again in any case: entries expire.
const READ_INTERVAL: Duration = Duration::from_secs(600);

/// Files that authors announced in the log.
#[derive(Debug)]
pub struct Announced {
    path: PathBuf,
    space: u64,
    files: Vec<Candidate>,
    /// When the log is read again; none: now.
    read_at: Option<Instant>,
    /// Files that this holder wants and lacks.
    missing: Vec<SealedFile>,
}

impl Announced {
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(SPACE);
        let text = std::fs::read_to_string(&path).ok();
        let space = text.and_then(|text| text.trim().parse().ok());
        Self {
            path,
            space: space.unwrap_or(DEFAULT_SPACE),
            files: Vec::new(),
            read_at: None,
            missing: Vec::new(),
        }
    }

    /// Notes that the log has changed.
    pub fn look_again(&mut self) {
        self.read_at = None;
    }

    fn read(&mut self, log: &Log, now: Instant) {
        if self.read_at.is_some_and(|at| at > now) {
            return;
        }
        self.read_at = Some(now + READ_INTERVAL);
        self.files.clear();
        for author in log.authors() {
            let mut of_author = Vec::new();
            for entry in log.entries_after(author.author, 0) {
                let file = (entry.kind == kind::FILE).then(|| SealedFile::decode(&entry.body));
                if let Some(Some(file)) = file {
                    let candidate = Candidate {
                        author: author.key,
                        order: entry.number.into(),
                        file,
                    };
                    add(&mut of_author, candidate);
                }
            }
            self.files.append(&mut of_author);
        }
    }
}

/// Adds a file to the earlier ones of its author. The last ones stay, each once, as many as a host
/// keeps of all: each turn reads all announcements.
fn add(of_author: &mut Vec<Candidate>, candidate: Candidate) {
    of_author.retain(|known| known.file != candidate.file);
    of_author.push(candidate);
    if of_author.len() > MAX_FILES {
        of_author.remove(0);
    }
}

impl Held {
    /// Changes the bytes of files that this host keeps.
    pub fn set_space(&mut self, space: u64) -> io::Result<()> {
        durable::replace(&self.files.path, format!("{space}\n").as_bytes())?;
        self.files.space = space;
        Ok(())
    }

    /// Bytes of files that this host keeps.
    pub fn space(&self) -> u64 {
        self.files.space
    }

    /// The folder of its files.
    pub fn file_folder(&self) -> &Path {
        self.shelf.folder()
    }

    /// Reads once more whether a file is here.
    pub fn look_at_file(&mut self, id: FileId) {
        self.shelf.look(id);
    }

    /// Adds its files to a plan; removes those that have expired or exceed the space.
    pub fn plan_files(&mut self, plan: &mut Plan, carrier: &Carrier, now: Instant) {
        self.files.read(self.log.log(), now);
        let folder = self.shelf.folder().to_owned();
        // an announcement displaces nothing, only a file of which a part is here or comes now
        let unfinished = self.shelf.unfinished();
        let (mut present, mut here) = (Vec::new(), BTreeSet::new());
        for candidate in &self.files.files {
            let is_here = self.shelf.has(&candidate.file);
            if is_here {
                here.insert(candidate.file.id);
            }
            if is_here
                || unfinished.contains(&candidate.file.id)
                || carrier.progress(&folder, &candidate.file).found
            {
                present.push(*candidate);
            }
        }
        let kept = choose(&present, self.files.space).into_iter();
        let kept: BTreeSet<FileId> = kept.map(|candidate| candidate.file.id).collect();
        let all: Vec<FileId> = self.shelf.ids().copied().collect();
        for id in all.into_iter().filter(|id| !kept.contains(id)) {
            self.shelf.remove(id);
        }
        // parts take room, too
        for id in unfinished.into_iter().filter(|id| !kept.contains(id)) {
            self.shelf.forget_unfinished(id);
        }
        let (mut wanted, mut seen) = (Vec::new(), BTreeSet::new());
        for Candidate { author, file, .. } in choose(&self.files.files, self.files.space) {
            if !self.shelf.has(&file) && seen.insert(file) {
                wanted.push(Wanted {
                    folder: folder.clone(),
                    file,
                    author,
                    awaited: false,
                });
            }
        }
        if !wanted.is_empty()
            && let Err(e) = self.shelf.prepare()
        {
            tracing::warn!("{}: {e}", folder.display());
            wanted.clear();
        }
        self.files.missing = wanted.iter().map(|wanted| wanted.file).collect();
        plan.wanted.extend(wanted);
        plan.served.extend(self.shelf.ids().map(|id| Served {
            folder: folder.clone(),
            id: *id,
        }));
    }

    /// Removes unfinished files that nobody announces any more.
    pub fn tidy_files(&self) {
        let wanted: BTreeSet<FileId> = self.files.missing.iter().map(|file| file.id).collect();
        self.shelf.tidy_unfinished(|id| wanted.contains(id));
    }

    /// Its files for `status`.
    pub fn file_status(&self, carrier: &Carrier) -> FilesStatus {
        let (files, bytes) = self.shelf.size();
        let missing = &self.files.missing;
        let problem = |file| carrier.progress(self.shelf.folder(), file).problem;
        let problem = missing.iter().find_map(problem);
        let served = carrier.server_problem().filter(|_| files > 0);
        FilesStatus {
            files,
            bytes,
            space: self.files.space,
            missing: missing.len(),
            problem: problem.or(served),
        }
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn of_an_author_the_last_files_count_each_once() {
        let author = SecretKey::from_seed(&[1; 32]).peer_id();
        let mut files = Vec::new();
        let mut announce = |order: u64, number: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let file = SealedFile {
                id: FileId(id),
                length: 100,
            };
            let candidate = Candidate {
                author,
                order,
                file,
            };
            add(&mut files, candidate);
        };
        (0..600).for_each(|n| announce(n, n as u16));
        // again
        (600..700).for_each(|n| announce(n, 599));
        let orders: Vec<u64> = files.iter().map(|candidate| candidate.order).collect();
        let last = MAX_FILES as u64;
        let expected: Vec<u64> = (600 - last..599).chain([699]).collect();
        assert_eq!(orders, expected);
    }
}
