//! A board: public text that anyone can follow. It is a space of the entry log with a public read
//! key; its owner grants other keys the right to post.
//!
//! ```text
//! lcb1 base58check { owner's key 32 | read key 32 | name, 1 to 64 characters }
//! ```
//!
//! | module | content |
//! |---|---|
//! | `posts` | posts: their entries, and the list of them |
//! | `feed` | the list as Atom (RFC 4287) |

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use librecast::durable;
use librecast::id::{PeerId, SecretKey};
use librecast::text::{self, TextError, TextKind};
use librecast::time::UnixTime;
use librecast::wire::Reader;
use librecast_log::{AppendError, GRANT_KIND, Grant, ReadKey, Role, Space};
use librecast_log_host::{KeptLog, seed};
use librecast_program::cli::{Exit, ExitError};
use zeroize::Zeroizing;

use crate::logs::log_status;
use crate::place;
use crate::request::BoardStatus;
use crate::shelf::remove_group;

mod feed;
mod posts;

pub use posts::{Content, Page, Post};
use posts::{POST_KIND, Posts};

/// Time for which writers' posts are kept; the owner's do not expire. Chosen: a year of a blog.
const KEEP: Duration = Duration::from_secs(365 * 86_400);
/// Bytes of both keys.
const KEYS: usize = 64;
/// Bytes of the longest text: less than each casting grant has.
const LONGEST: usize = KEYS + 64;

/// Files of a board.
const TEXT: &str = "board";
const KEY: &str = "key";
const LOG: &str = "log";

/// The reason why a request waits.
pub type Wait = Option<String>;

/// The keys of a board, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardText {
    pub owner: PeerId,
    pub read_key: [u8; 32],
    /// The owner's name for it, by [`is_name`](crate::request::is_name).
    pub name: String,
}

impl BoardText {
    /// Its text, `lcb1...`.
    pub fn encode(&self) -> String {
        let parts = [
            &self.owner.public_key()[..],
            &self.read_key,
            self.name.as_bytes(),
        ];
        text::encode(TextKind::Board, &parts.concat()).to_string()
    }

    /// Decodes its text.
    pub fn decode(line: &str) -> Result<Self, TextError> {
        let damaged = TextError::Damaged(TextKind::Board);
        let bytes = text::decode(TextKind::Board, line, LONGEST)?;
        let mut r = Reader::new(&bytes);
        let (Ok(owner), Ok(read_key)) = (r.array(), r.array()) else {
            return Err(damaged);
        };
        let name = std::str::from_utf8(&bytes[KEYS..]).map_err(|_| damaged)?;
        if !crate::request::is_name(name) {
            return Err(damaged);
        }
        Ok(Self {
            owner: PeerId::from_public_key(owner).map_err(|_| damaged)?,
            read_key,
            name: name.to_owned(),
        })
    }

    fn space(&self) -> Space {
        Space::new(self.owner, Some(ReadKey::new(self.read_key)), KEEP)
    }
}

/// A board that this host owns, or follows.
#[derive(Debug)]
pub struct Board {
    name: String,
    folder: PathBuf,
    text: BoardText,
    author: PeerId,
    log: KeptLog,
    posts: Posts,
    /// The folder was copied or put back, and no other host has shown that it is not an old copy.
    is_unsure: bool,
}

impl Board {
    /// Makes a board and its `folder`.
    pub fn create(folder: &Path, name: &str, now: Instant) -> io::Result<Self> {
        let key = SecretKey::generate();
        let text = BoardText {
            owner: key.peer_id(),
            read_key: *seed()?,
            name: name.to_owned(),
        };
        Self::make(folder, name, &text, &key, now)
    }

    /// Begins to follow a board; makes `folder`.
    pub fn follow(folder: &Path, name: &str, text: &BoardText, now: Instant) -> io::Result<Self> {
        Self::make(folder, name, text, &SecretKey::generate(), now)
    }

    fn make(
        folder: &Path,
        name: &str,
        text: &BoardText,
        key: &SecretKey,
        now: Instant,
    ) -> io::Result<Self> {
        std::fs::create_dir(folder)?;
        let made = || {
            durable::sync_folder_of(folder)?;
            durable::replace(&folder.join(KEY), &key.seed()[..])?;
            durable::replace(&folder.join(TEXT), text.encode().as_bytes())?;
            place::write(folder)?;
            Self::open(folder, name, now)
        };
        made().inspect_err(|_| {
            // half a board would block the next attempt
            let _ = std::fs::remove_dir_all(folder);
        })
    }

    /// Opens a board from its folder.
    pub fn open(folder: &Path, name: &str, now: Instant) -> io::Result<Self> {
        let invalid = |e: String| io::Error::new(io::ErrorKind::InvalidData, e);
        let text = std::fs::read_to_string(folder.join(TEXT))?;
        let text = BoardText::decode(&text).map_err(|e| invalid(e.to_string()))?;
        let bytes = Zeroizing::new(std::fs::read(folder.join(KEY))?);
        let bytes: Result<&[u8; 32], _> = bytes[..].try_into();
        let key = SecretKey::from_seed(bytes.map_err(|_| invalid("key: not 32 bytes".into()))?);
        let author = key.peer_id();
        let path = folder.join(LOG);
        let log = KeptLog::open(text.space(), Role::Member, vec![key], Some(&path), now)?;
        let mut posts = Posts::default();
        posts.follow(log.log());
        Ok(Self {
            is_unsure: place::is_another(folder)?,
            name: name.to_owned(),
            folder: folder.to_owned(),
            text,
            author,
            log,
            posts,
        })
    }

    /// Its text and keys.
    pub fn text(&self) -> &BoardText {
        &self.text
    }

    /// This host's key on it.
    pub fn author(&self) -> PeerId {
        self.author
    }

    /// The multicast address of its packets.
    pub fn address(&self) -> Ipv6Addr {
        self.log.address()
    }

    /// Handles a datagram of its group.
    pub fn handle_packet(&mut self, source: IpAddr, bytes: &[u8], time: UnixTime, now: Instant) {
        self.log.log_mut().handle_packet(source, bytes, time, now);
    }

    /// Handles a possible absence.
    pub fn come_back(&mut self, now: Instant) {
        self.log.log_mut().come_back(now);
    }

    /// When [`Self::turn`] is due.
    pub fn next_timeout(&self) -> Instant {
        self.log.log().next_timeout()
    }

    /// Runs the timers that are due; afterwards everything is on disk and may be sent.
    pub fn turn(&mut self, time: UnixTime, now: Instant) -> io::Result<()> {
        if !self.log.turn(time, now)?.is_empty() {
            self.posts.follow(self.log.log());
        }
        let own = self.text.space().author(&self.author);
        let log = self.log.log();
        let is_shown = log.caught_up_at().is_some_and(|at| at <= now);
        let may_conflict = log.authors().any(|author| author.author == own);
        if self.is_unsure && is_shown && (!may_conflict || log.is_settled(own, now)) {
            place::write(&self.folder)?;
            self.is_unsure = false;
        }
        Ok(())
    }

    /// Takes the packets to send.
    pub fn take_transmits(&mut self) -> Vec<(Ipv6Addr, Vec<u8>)> {
        self.log.take_transmits()
    }

    /// Rewrites the file, if most of it has expired.
    pub fn compact(&mut self) -> io::Result<()> {
        self.log.compact()
    }

    /// Deletes its files.
    pub fn delete(self) -> io::Result<()> {
        remove_group(&self.folder)
    }

    /// Posts; what it returns without a wait is on disk.
    ///
    /// # Errors
    /// This host may not post, the content is too long, or the disk takes nothing.
    pub fn post(
        &mut self,
        content: &Content,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Wait> {
        let bodies = content.encode()?;
        self.append(POST_KIND, &bodies, time, now)
    }

    /// Lets this key post.
    ///
    /// # Errors
    /// This host is not the owner, or the disk takes nothing.
    pub fn add_writer(
        &mut self,
        key: PeerId,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Wait> {
        if self.author != self.text.owner {
            let text = "only the board's owner can let others write on it: ask its owner";
            return Err(ExitError::new(Exit::NotPermitted, text).into());
        }
        // neither clock may be right
        let grant = Grant {
            author: key,
            not_before: 0,
            expires: u64::MAX,
            last: u32::MAX,
        };
        self.append(GRANT_KIND, &[Grant::encode(&[grant])], time, now)
    }

    fn append(
        &mut self,
        kind: u8,
        bodies: &[Vec<u8>],
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Wait> {
        if self.is_unsure {
            return Ok(Some(UNSURE.to_owned()));
        }
        let own = self.text.space().author(&self.author);
        for body in bodies {
            match self.log.log_mut().append(own, kind, body, time, now) {
                Ok(_) => {}
                Err(AppendError::Starting) => {
                    let wait = "waits a few seconds for entries of this board at other hosts";
                    return Ok(Some(wait.to_owned()));
                }
                Err(AppendError::NotGranted) => {
                    let text = format!(
                        "this host may not post on {}: its owner lets it by `lcgroup board writer add {} {}`",
                        self.name, self.text.name, self.author
                    );
                    return Err(ExitError::new(Exit::NotPermitted, text).into());
                }
                Err(e) => return Err(ExitError::new(Exit::Failed, e.to_string()).into()),
            }
        }
        if let Err(e) = self.turn(time, now) {
            // an entry that is not on disk must not leave later
            *self = Self::open(&self.folder, &self.name, now)?;
            return Err(e.into());
        }
        Ok(None)
    }

    /// A page of posts after number `after`.
    pub fn read(&self, after: u64) -> Page<'_> {
        self.posts.page(after)
    }

    /// The last posts as Atom.
    pub fn feed(&self) -> String {
        feed::atom(&self.text, &self.name, self.posts.iter())
    }

    /// The board for `status`.
    pub fn status(&self) -> BoardStatus {
        let own = self.text.space().author(&self.author);
        let log = self.log.log();
        let of_own = log.authors().find(|author| author.author == own);
        let conflict = of_own.is_some_and(|author| author.conflict.is_some());
        let problem = match (conflict, self.is_unsure) {
            (true, _) => Some(AppendError::Conflict.to_string()),
            (false, true) => Some(UNSURE.to_owned()),
            (false, false) => None,
        };
        BoardStatus {
            name: self.name.clone(),
            board: self.text.encode(),
            author: self.author,
            writes: of_own.is_some_and(|own| own.grant.is_some()) || self.author == self.text.owner,
            posts: self.posts.iter().len(),
            problem,
            log: log_status(log),
        }
    }
}

/// The problem of a copied folder.
const UNSURE: &str = "this folder was copied here or put back, and may be older than its posts: nothing is posted before another host that follows the board is heard";

#[cfg(test)]
mod tests;
