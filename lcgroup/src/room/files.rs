//! Files of a group's messages on a member's host: sent ones, and those that a user fetched.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use lcgroup_core::file::{Candidate, FileId, MAX_FILE, SealedFile, choose, sealed_length};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use serde::{Deserialize, Serialize};

use super::Room;
use crate::carrier::{Carrier, Plan, Served, Wanted};
use crate::content::{Files, encode_file};
use crate::conversation::{FileOf, Message};
use crate::files::{Listed, SentFile, Which};
use crate::request::FilesStatus;
use crate::shelf::{check_room, megabytes};
use crate::transfer::{Here, Stage};

/// Bytes of sealed files that a member keeps for a group. Chosen: eight of the longest.
const MEMBER_SPACE: u64 = 8 * MAX_FILE;
/// Time after a user's last request in which a file is fetched. Chosen: requests come each second.
const AWAITED: Duration = Duration::from_secs(10);
/// Time in which a file that a user sends may wait for its message. Chosen: lcsync needs seconds.
const SENDING: Duration = Duration::from_secs(60);

/// What a message brings beside its text.
#[derive(Debug)]
pub enum Attached {
    /// A share of lcsync.
    Share(Files),
    /// A file.
    File(SentFile),
}

impl Attached {
    pub fn share_name(&self) -> Option<String> {
        match self {
            Self::Share(files) => Some(files.name.clone()),
            Self::File(_) => None,
        }
    }
}

impl FileOf {
    /// Returns name and length, for readers of the conversation.
    pub fn of(attached: &Attached) -> Option<Self> {
        match attached {
            Attached::Share(_) => None,
            Attached::File(SentFile { name, length, .. }) => Some(Self {
                name: name.clone(),
                length: *length,
            }),
        }
    }
}

/// The answer to a user who wants a file.
#[derive(Debug)]
pub enum FileAnswer {
    /// It is here.
    Here(Here),
    /// It is fetched.
    Waits(Listed),
}

impl Room {
    /// Shows a message, and remembers its files. Returns whether it is new.
    pub(super) fn show_message(&mut self, message: Message, attached: Option<Attached>) -> bool {
        let (author, id, time) = (message.author, message.id.clone(), message.time);
        let added = self.conversation.add(message);
        match attached {
            Some(Attached::Share(files)) => self.offers.add(author, &files),
            Some(Attached::File(file)) => {
                if let Some(n) = added {
                    self.files.add(n, author, (&id, time), &file);
                }
            }
            None => {}
        }
        added.is_some()
    }

    /// The folder of its files.
    pub fn file_folder(&self) -> &Path {
        self.shelf.folder()
    }

    /// Checks that a user may send a file, and prepares a place for it.
    pub fn stage_file(&mut self, name: &str, length: u64) -> anyhow::Result<Stage> {
        self.check_usable()?;
        if length > MAX_FILE {
            let text = format!(
                "{name:?} has {}: a message carries a file of at most {}. `lcsync share --lcgroup {} PATH` offers files of any size while it runs",
                megabytes(length),
                megabytes(MAX_FILE),
                self.name
            );
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        if !self.is_member() {
            let text = format!(
                "this host is not a member of {} (lcgroup status)",
                self.name
            );
            return Err(ExitError::new(Exit::Failed, text).into());
        }
        check_room(self.shelf.folder(), sealed_length(length))
            .map_err(|text| ExitError::new(Exit::Failed, text))?;
        self.shelf.prepare()?;
        Ok(Stage {
            folder: self.shelf.folder().to_owned(),
            incoming: self.shelf.incoming(),
        })
    }

    /// Begins to serve a file whose message follows.
    pub fn serve_file(&mut self, id: FileId, now: Instant) {
        self.shelf.look(id);
        self.kept_files.insert(id, now + SENDING);
    }

    /// Reads once more whether a file is here.
    pub fn look_at_file(&mut self, id: FileId) {
        self.shelf.look(id);
    }

    /// Sends the message of a file; returns its id.
    pub fn say_file(
        &mut self,
        file: &SentFile,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<u64> {
        self.check_usable()?;
        // holders fetch it before its key is public, or not at all
        self.group.announce(&file.sealed())?;
        let id = self.say_content(&encode_file(file), time)?;
        self.show_clock(time, now);
        Ok(id)
    }

    /// Answers a user who wants a file.
    pub fn answer_file(&mut self, which: &Which, now: Instant) -> anyhow::Result<FileAnswer> {
        let found = self
            .files
            .find(which, &self.name, |author| self.name_of(author));
        let listed = found?.clone();
        let damaged = || ExitError::new(Exit::Failed, "the list of files is damaged here");
        let (file, key) = listed.sealed().zip(listed.key()).ok_or_else(damaged)?;
        self.kept_files.insert(file.id, now + AWAITED);
        if self.shelf.has(&file) {
            return Ok(FileAnswer::Here(Here {
                path: self.shelf.path(&file.id),
                id: file.id,
                key,
                n: listed.n,
                from: self.name_of(&listed.author),
                name: listed.name,
                length: listed.length,
            }));
        }
        self.shelf.prepare()?;
        Ok(FileAnswer::Waits(listed))
    }

    /// Adds its files to a plan; removes those that have expired or exceed the space.
    pub fn plan_files(&mut self, plan: &mut Plan, time: UnixTime, now: Instant) {
        self.kept_files.retain(|_, until| *until > now);
        // a clock that nobody confirms, or that differs, ends no file
        if self.log.log().has_received() && self.own_clock().is_none() {
            let keep = u64::try_from(self.kept.ttl().as_millis()).unwrap_or(u64::MAX);
            self.files.expire(time.as_millis().saturating_sub(keep));
        }
        let mut candidates = Vec::new();
        for listed in self.files.all() {
            let Some(file) = listed.sealed() else {
                continue;
            };
            if self.shelf.has(&file) {
                candidates.push(Candidate {
                    author: listed.author,
                    order: listed.n,
                    file,
                });
            } else if self.kept_files.contains_key(&file.id) {
                plan.wanted.push(Wanted {
                    folder: self.shelf.folder().to_owned(),
                    file,
                    author: listed.author,
                    awaited: true,
                });
            }
        }
        let chosen = choose(&candidates, MEMBER_SPACE);
        let chosen: BTreeSet<FileId> = chosen.iter().map(|c| c.file.id).collect();
        let here: Vec<FileId> = self.shelf.ids().copied().collect();
        for id in here {
            if !chosen.contains(&id) && !self.kept_files.contains_key(&id) {
                self.shelf.remove(id);
            }
        }
        let served = self.shelf.ids().map(|id| Served {
            folder: self.shelf.folder().to_owned(),
            id: *id,
        });
        plan.served.extend(served);
    }

    /// Removes unfinished files whose messages have expired.
    pub fn tidy_files(&self) {
        let listed: BTreeSet<FileId> = { self.files.all().iter() }
            .filter_map(|listed| Some(listed.sealed()?.id))
            .collect();
        self.shelf.tidy_unfinished(|id| listed.contains(id));
    }

    /// Its files for `status`.
    pub fn file_status(&self, carrier: &Carrier) -> FilesStatus {
        let (files, bytes) = self.shelf.size();
        FilesStatus {
            files,
            bytes,
            space: MEMBER_SPACE,
            missing: 0,
            problem: carrier.server_problem().filter(|_| files > 0),
        }
    }

    /// Whether a file of a plan is one of this group.
    pub fn waits_for(&self, listed: &Listed, carrier: &Carrier) -> Option<Waits> {
        let file: SealedFile = listed.sealed()?;
        let progress = carrier.progress(self.shelf.folder(), &file);
        let from = self.name_of(&listed.author);
        Some(Waits {
            bytes: progress.bytes,
            found: progress.found,
            why: match (&progress.problem, progress.found) {
                (Some(problem), _) => problem.clone(),
                (None, true) => format!("fetches it ({})", megabytes(listed.length)),
                (None, false) => format!(
                    "waits for a host that has it: {from}'s, a mailbox, or that of a member who has fetched it. {}",
                    carrier.question()
                ),
            },
            is_problem: progress.problem.is_some(),
            from,
        })
    }
}

/// The state of a file that a user waits for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waits {
    pub bytes: u64,
    pub found: bool,
    pub why: String,
    pub is_problem: bool,
    pub from: String,
}
