//! Readers: they send wants, requests and their own entries to the asking group, and nothing else.
//!
//! ```text
//!   SATISFIED --entries are missing--> ASKING --all are here--> SATISFIED, 5 s later
//!                                      joins the history group; asks after 0 to 500 ms, then
//!                                      after 0.8 s, doubled while nothing comes
//! ```
//! A new reader lacks heads of a holder, so it asks at once.

use librecast::random::Random;
use librecast::time::{Duration, Instant};

use super::*;
use crate::packet::WANTED_AT_ONCE;

/// Longest wait for the first wants behind a join of the history group. Chosen: readers that lost
/// the same packet ask in this time.
const FIRST_ASK: Duration = Duration::from_millis(500);
/// Pause between two packets of wants; each without an answer doubles it. Chosen.
const ASK_AGAIN: Duration = Duration::from_millis(800);
/// Longest pause between two packets of wants. Chosen: with 40 % loss an answer comes in a minute.
const ASK_AGAIN_LONGEST: Duration = Duration::from_secs(15);
/// The same for a reader that has heard of no holder. Chosen.
const ASK_NOBODY_LONGEST: Duration = Duration::from_secs(60);
/// Time for which the history group stays joined after the last missing entry came. Chosen.
const STAY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Heads of a holder came since the start, so it is known which entries exist.
    knows_extent: bool,
    /// The history group is joined.
    pub(super) has_joined: bool,
    ask_at: Option<Instant>,
    leave_at: Option<Instant>,
    /// Packets of wants since the last answer.
    tries: u32,
}

impl Reading {
    /// `expects`: heads that show entries of this reader.
    fn review(&mut self, lacks: bool, expects: bool, random: &mut Random, now: Instant) {
        if !lacks {
            self.ask_at = None;
        } else if self.ask_at.is_none() {
            self.tries = 0;
            self.ask_at = Some(now + FIRST_ASK.mul_f64(random.unit()));
        }
        if lacks || expects {
            (self.has_joined, self.leave_at) = (true, None);
        } else {
            let stays = self.has_joined.then_some(now + STAY);
            self.leave_at = self.leave_at.or(stays);
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            (self.has_joined, self.leave_at) = (false, None);
        }
        debug_assert!(
            self.has_joined || self.leave_at.is_none() && self.ask_at.is_none(),
            "a reader asks and leaves only where it has joined"
        );
    }

    fn take_ask(&mut self, random: &mut Random, now: Instant) -> bool {
        if self.ask_at.is_none_or(|at| at > now) {
            return false;
        }
        let doubled = ASK_AGAIN * 2_u32.saturating_pow(self.tries.min(8));
        let pause = doubled.min(match self.knows_extent {
            true => ASK_AGAIN_LONGEST,
            false => ASK_NOBODY_LONGEST,
        });
        self.tries += 1;
        self.ask_at = Some(now + pause.mul_f64(1.0 + random.unit() / 2.0));
        true
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.leave_at).min()
    }
}

impl Log {
    /// Begins to read anew: entries may have come while this reader was away.
    pub(super) fn begin_reading(&mut self, now: Instant) {
        (self.reading.knows_extent, self.reading.ask_at) = (false, None);
        self.writing.expect(now);
        self.review_reading(now);
    }

    fn review_reading(&mut self, now: Instant) {
        let mut authors = self.authors.values();
        let lacks = authors.any(|author| author.missing().next().is_some());
        let lacks = lacks || !self.reading.knows_extent;
        let expects = self.unshown().is_some();
        let random = &mut self.random;
        self.reading.review(lacks, expects, random, now);
    }

    pub(super) fn read_on(&mut self, now: Instant) {
        self.review_reading(now);
        if self.reading.take_ask(&mut self.random, now) {
            self.ask(now);
            // a claim may have been given up
            self.review_reading(now);
        }
    }

    /// Handles a packet of the live group or the history group.
    pub(super) fn read(
        &mut self,
        from: Channel,
        source: IpAddr,
        packet: Packet,
        time: UnixTime,
        now: Instant,
    ) {
        match packet {
            Packet::Entries(entries) => {
                let mut has_new = false;
                for entry in entries {
                    match self.take(from, Some(source), entry, time, now) {
                        Ok(()) => has_new = true,
                        Err(reason) => self.drops.count(reason),
                    }
                }
                if has_new && from == Channel::History && self.reading.ask_at.is_some() {
                    self.reading.tries = 0;
                    let pause = ASK_AGAIN.mul_f64(1.0 + self.random.unit() / 2.0);
                    self.reading.ask_at = Some(now + pause);
                }
            }
            Packet::Heads { heads, .. } => {
                for head in heads {
                    self.note_claim(&head);
                    self.note_shown(&head, now);
                }
                self.reading.knows_extent |= from == Channel::History;
            }
            // of members, for members
            Packet::Wants(_) | Packet::Request(_) | Packet::Presence(_) => {}
        }
        self.review_reading(now);
    }

    /// Notes a head; a claim that comes again after it was given up is asked for again.
    fn note_claim(&mut self, head: &Head) {
        let lacks = |author: &Author| author.missing().next().is_some();
        let lacked = self.authors.get(&head.author).is_some_and(lacks);
        self.note_head(head);
        let author = self.authors.get_mut(&head.author);
        if let Some(author) = author.filter(|author| !lacked && lacks(author)) {
            author.tries = 0;
        }
    }

    /// Sends a packet of wants: for authors that were asked for least, the owner first. A reader
    /// without heads wants the owner's next entries, whether they exist or not.
    fn ask(&mut self, now: Instant) {
        let missing = |author: &Author| author.missing().next().is_some();
        let lacking = self.authors.iter().filter(|(_, author)| missing(author));
        let mut lacking: Vec<_> = lacking
            .map(|(id, author)| (author.tries, *id != self.owner, *id))
            .collect();
        lacking.sort_unstable();
        lacking.truncate(WANTS_IN_PACKET - 1);
        let mut wants = Vec::new();
        for (_, _, id) in lacking {
            wants.extend(self.want(id, now));
        }
        let asks_owner = wants.iter().any(|want| want.author == self.owner);
        if !self.reading.knows_extent
            && !asks_owner
            && let Some(owner) = self.authors.get(&self.owner)
        {
            let first = owner.highest().saturating_add(1);
            let numbers = first..first.saturating_add(WANTED_AT_ONCE);
            wants.extend(Want::of(self.owner, numbers));
        }
        if !wants.is_empty() {
            self.transmit_to(Channel::Asking, &Packet::Wants(wants));
        }
    }
}
