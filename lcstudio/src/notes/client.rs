//! The document, as its owner sees it: updates wait here until its process takes them, and a failed
//! process starts again without the harmful update.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use lcstudio_core::document::{Answer, MAX_TEXT, Request, Update};
use lcstudio_core::{Blamed, Edit, NotesBatches, NotesUpdate};
use librecast_log::AuthorId;
use librecast_program::process::Wake;

use super::drafts::Drafts;
use super::worker::{LIMIT, Next, Worker};

/// Time for the document's process to read its first line.
const LOADING: Duration = Duration::from_secs(30);
/// Failures of the document in a row without a harmful update.
const MAX_FAILURES: u32 = 3;

/// An event of the document.
#[derive(Debug)]
pub enum Event {
    /// It has done a request. Changes of this host by draft number.
    Done { drafts: Vec<(u32, Vec<u8>)> },
    /// It failed, and must be started again.
    Failed,
    /// The same; the entries of this author are left out from this number on.
    LeftOut {
        author: AuthorId,
        number: u32,
        why: String,
    },
}

/// The document's process, and updates for it.
#[derive(Debug)]
pub struct Client {
    program: PathBuf,
    wake: Wake,
    /// Author id of this host.
    own: u64,
    batches: NotesBatches,
    worker: Option<Worker>,
    /// Text of the document, once all known entries are read.
    text: Option<String>,
    is_full: bool,
    /// Drafts of this host that have become entries; the document has not learned it yet.
    appended: Vec<u32>,
    failures: u32,
    /// Whether it searches conflicting lines.
    is_looking: bool,
    /// Whether it shall not, as that failed.
    is_plain: bool,
}

impl Client {
    pub fn new(program: PathBuf, wake: Wake) -> Self {
        Self {
            program,
            wake,
            own: 0,
            batches: NotesBatches::default(),
            worker: None,
            text: None,
            is_full: false,
            appended: Vec::new(),
            failures: 0,
            is_looking: false,
            is_plain: false,
        }
    }

    /// Starts the document with this host's drafts only. `own`: its author id.
    pub fn start(&mut self, drafts: &Drafts, own: u64) -> anyhow::Result<()> {
        self.own = own;
        // before the next one, as two need twice the memory
        self.worker = None;
        self.text = None;
        self.batches.restart();
        let mut worker = Worker::start(Command::new(&self.program), self.wake.clone())?;
        let request = Request {
            drafts: drafts.waiting().map(|(_, body)| body.clone()).collect(),
            first_draft: Some(drafts.next()),
            ..self.request()
        };
        worker.ask(&request, LOADING, Instant::now())?;
        self.worker = Some(worker);
        Ok(())
    }

    fn request(&self) -> Request {
        Request {
            own: self.own,
            is_plain: self.is_plain,
            ..Request::default()
        }
    }

    /// Adds an update of a member.
    pub fn add(&mut self, update: NotesUpdate) {
        self.batches.add(update);
    }

    /// Notes that this draft is an entry now.
    pub fn appended(&mut self, draft: u32) {
        self.appended.push(draft);
    }

    /// Returns the text, once all known entries are read.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Returns the number of characters that can be added; `None` if no change is possible.
    pub fn room(&self) -> Option<usize> {
        let letters = self.text.as_ref().map_or(0, |text| text.chars().count());
        let room = MAX_TEXT.checked_sub(letters);
        room.filter(|_| !self.is_full)
    }

    /// Returns whether updates wait for the document.
    pub fn has_unread(&self) -> bool {
        self.batches.has_unread()
    }

    /// Returns whether it works on a request.
    pub fn is_busy(&self) -> bool {
        self.worker.as_ref().is_some_and(Worker::is_busy)
    }

    /// Returns whether it runs and has no request.
    pub fn is_idle(&self) -> bool {
        self.worker.is_some() && !self.is_busy()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.worker.as_ref().and_then(Worker::next_timeout)
    }

    /// Returns the next event.
    ///
    /// # Errors
    /// The document does not work at all.
    pub fn poll_event(&mut self, now: Instant) -> anyhow::Result<Option<Event>> {
        while let Some(worker) = &mut self.worker {
            match worker.next(now) {
                Next::Nothing => break,
                Next::Answer(Answer::Trying { author, number }) => {
                    self.batches.trying((author, number));
                }
                Next::Answer(Answer::Pending { author, number }) => {
                    self.batches.pending((author, number));
                }
                Next::Answer(Answer::Looking) => self.is_looking = true,
                Next::Answer(Answer::Done {
                    text,
                    drafts,
                    is_full,
                }) => {
                    self.batches.answered();
                    (self.failures, self.is_looking) = (0, false);
                    self.is_full = is_full;
                    self.text = text.or(self.text.take());
                    return Ok(Some(Event::Done { drafts }));
                }
                Next::Answer(Answer::Bad { why } | Answer::Failed { why }) => {
                    return self.blame(why).map(Some);
                }
                Next::Ended(why) => return self.blame(why.to_owned()).map(Some),
            }
        }
        Ok(None)
    }

    /// Finds the cause of a failure.
    fn blame(&mut self, why: String) -> anyhow::Result<Event> {
        if std::mem::take(&mut self.is_looking) {
            tracing::warn!(
                "lines that several have written at once are not marked any more: {why}"
            );
            self.is_plain = true;
            return Ok(Event::Failed);
        }
        match self.batches.blame() {
            Blamed::Nobody => {
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    anyhow::bail!("the document does not work: {why}");
                }
                Ok(Event::Failed)
            }
            Blamed::Waiting => Ok(Event::Failed),
            Blamed::Author((author, number)) => Ok(Event::LeftOut {
                author: AuthorId(author),
                number,
                why,
            }),
        }
    }

    /// Sends the next request to an idle document: changes of this host, and updates that wait.
    pub fn ask(&mut self, edits: Vec<Edit>, now: Instant) -> anyhow::Result<()> {
        let updates = self.batches.next_batch().into_iter().map(|update| Update {
            author: update.author,
            number: update.number,
            body: update.body,
        });
        let request = Request {
            updates: updates.collect(),
            edits,
            appended: std::mem::take(&mut self.appended),
            ..self.request()
        };
        if request.edits.is_empty() && request.updates.is_empty() && request.appended.is_empty() {
            return Ok(());
        }
        if let Some(worker) = &mut self.worker {
            worker.ask(&request, LIMIT, now)?;
        }
        Ok(())
    }
}
