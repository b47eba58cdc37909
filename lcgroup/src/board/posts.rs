//! Posts: their entries, and the list of them.
//!
//! A post is JSON in one or more entries of its author. The first byte of each body has flags:
//! 1 begins a post, 2 ends it.

use std::collections::{BTreeMap, VecDeque};

use librecast::id::PeerId;
use librecast_log::{AuthorId, Log, MAX_BODY};
use librecast_program::cli::{Exit, ExitError};
use serde::{Deserialize, Serialize};

use crate::request::MAX_TEXT;

/// Kind of the entries of posts.
pub const POST_KIND: u8 = 1;

/// Flags of a body.
const BEGINS: u8 = 1;
const ENDS: u8 = 2;

/// Bytes of a post as JSON. Chosen: all characters of the longest text may be escaped.
const MAX_POST: usize = 6 * MAX_TEXT + 4_096;
/// Bytes of a title.
const MAX_TITLE: usize = 200;
/// Posts in memory, and their bytes; the oldest give way.
const MAX_POSTS: usize = 4_096;
const MAX_POSTS_BYTES: usize = 16 << 20;
/// Bytes of posts in a page.
const PAGE: usize = 256 * 1_024;

/// The content of a post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Markdown.
    pub text: String,
}

impl Content {
    /// Its entries' bodies.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn encode(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        if self.text.is_empty() || !self.fits() {
            let text =
                format!("a post has 1 to {MAX_TEXT} bytes, and its title at most {MAX_TITLE}");
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        let whole = serde_json::to_vec(self)?;
        let parts: Vec<_> = whole.chunks(MAX_BODY - 1).collect();
        let last = parts.len() - 1;
        let body = |(at, part): (usize, &&[u8])| {
            let begins = if at == 0 { BEGINS } else { 0 };
            let ends = if at == last { ENDS } else { 0 };
            [&[begins | ends][..], part].concat()
        };
        Ok(parts.iter().enumerate().map(body).collect())
    }

    fn fits(&self) -> bool {
        self.text.len() <= MAX_TEXT && self.title.as_ref().is_none_or(|t| t.len() <= MAX_TITLE)
    }
}

/// A post in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Its number on this host, in this run.
    pub n: u64,
    /// Its id, equal on all hosts: the author's in the log, and the number of its last entry.
    pub id: String,
    pub author: PeerId,
    /// Milliseconds since 1970, by the author's clock.
    pub time: u64,
    #[serde(flatten)]
    pub content: Content,
}

impl Post {
    fn bytes(&self) -> usize {
        self.content.text.len() + self.content.title.as_ref().map_or(0, String::len)
    }
}

/// Consecutive posts.
#[derive(Debug, Serialize)]
pub struct Page<'a> {
    pub posts: Vec<&'a Post>,
}

/// What was read of an author.
#[derive(Debug, Default)]
struct Reading {
    number: u32,
    parts: Vec<u8>,
    is_within: bool,
}

impl Reading {
    /// Adds an entry's body; returns the post that it ends.
    fn add(&mut self, number: u32, body: &[u8]) -> Option<Content> {
        let follows = number == self.number.wrapping_add(1);
        self.number = number;
        let (flags, part) = body.split_first()?;
        if flags & BEGINS != 0 {
            self.parts.clear();
            self.is_within = true;
        } else if !follows {
            self.is_within = false;
        }
        if !self.is_within || self.parts.len() + part.len() > MAX_POST {
            self.is_within = false;
            self.parts = Vec::new();
            return None;
        }
        self.parts.extend_from_slice(part);
        if flags & ENDS == 0 {
            return None;
        }
        self.is_within = false;
        let whole = std::mem::take(&mut self.parts);
        let content = serde_json::from_slice::<Content>(&whole).ok()?;
        content.fits().then_some(content)
    }
}

/// All posts, in the order in which this host received them; those before its start by their times.
#[derive(Debug, Default)]
pub struct Posts {
    read: BTreeMap<AuthorId, Reading>,
    posts: VecDeque<Post>,
    bytes: usize,
    last: u64,
}

impl Posts {
    /// Reads new entries.
    pub fn follow(&mut self, log: &Log) {
        let mut new = Vec::new();
        for author in log.authors() {
            let reading = self.read.entry(author.author).or_default();
            while let Some(entry) = log.next_entry(author.author, reading.number) {
                if entry.kind != POST_KIND {
                    reading.number = entry.number;
                    reading.is_within = false;
                    continue;
                }
                if let Some(content) = reading.add(entry.number, &entry.body) {
                    new.push(Post {
                        n: 0,
                        id: format!("{:016x}-{}", author.author.0, entry.number),
                        author: author.key,
                        time: entry.time,
                        content,
                    });
                }
            }
        }
        new.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        for post in new {
            self.add(post);
        }
    }

    fn add(&mut self, post: Post) {
        self.last += 1;
        self.bytes += post.bytes();
        self.posts.push_back(Post {
            n: self.last,
            ..post
        });
        while self.posts.len() > MAX_POSTS || self.bytes > MAX_POSTS_BYTES {
            let oldest = self.posts.pop_front();
            self.bytes -= oldest.map_or(0, |post| post.bytes());
        }
    }

    /// Posts after number `after`: at least one if there is one.
    pub fn page(&self, after: u64) -> Page<'_> {
        let mut bytes = 0;
        let later = self.posts.iter().filter(|post| post.n > after);
        let posts = later.take_while(|post| {
            let is_first = bytes == 0;
            bytes += post.bytes();
            is_first || bytes <= PAGE
        });
        Page {
            posts: posts.collect(),
        }
    }

    /// All posts, the oldest first.
    pub fn iter(&self) -> std::collections::vec_deque::Iter<'_, Post> {
        self.posts.iter()
    }
}
