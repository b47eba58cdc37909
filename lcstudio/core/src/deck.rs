//! Slides as entries: texts by hash, and the list of hashes. A change sends its difference only.
//!
//! ```text
//!   slides   kind 1  part of a slide   id 8 | part 8 | parts 8 | text <= 980
//!            kind 2  part of a deck    revision 32 | part 8 | parts 8 | n x id 8
//!   turn     kind 1  a slide is shown  number 16 | id 8          number: from 1; 0: none
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use librecast::id::derive;
use librecast::wire::{Reader, WireError, Writer};
use librecast_log::{Entry, GRANT_KIND};

use crate::drops::DropReason;
use crate::plain::clean;

/// Slides of a deck. Chosen: five times the longest deck that is expected.
pub const MAX_SLIDES: usize = 500;

/// Longest slide, in bytes of Markdown.
pub const MAX_SLIDE: usize = 64 << 10;

/// Bytes of text in an entry, as its body has room for.
const TEXT_IN_PART: usize = 980;

/// Slides in an entry of a deck, as its body has room for.
const SLIDES_IN_PART: usize = 120;

/// Bytes of slides that wait for the deck that names them. Chosen: one deck of long slides.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Kind of an entry of the slides' track: a part of a slide's text (docs/protocol.md §12).
const SLIDE_PART: u8 = 1;
/// Kind of an entry of the slides' track: a part of the slides' order.
const DECK_PART: u8 = 2;
/// The kind of all entries of the turns' track: a slide is shown.
const SHOWN: u8 = 1;

/// A slide by its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlideId(pub u64);

impl SlideId {
    /// Returns the id of a slide's text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let hash = derive("lcstudio 2026 slide", &[text.as_bytes()]);
        Self(u64::from_be_bytes(
            *hash.first_chunk().expect("a hash has 32 bytes"),
        ))
    }
}

impl fmt::Debug for SlideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A turn to a slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Number of the slide at the turn, from 1.
    pub number: u16,
    /// Id of the slide, whose number may change later.
    pub id: SlideId,
}

impl Turn {
    /// Returns kind and body of its entry.
    #[must_use]
    pub fn encode(self) -> (u8, Vec<u8>) {
        let mut w = Writer::new();
        w.u16(self.number).u64(self.id.0);
        (SHOWN, w.into_vec())
    }

    /// Returns the same turn after a change of the deck: to the new text of a corrected slide.
    pub(crate) fn moved(self, before: &[SlideId], after: &[SlideId]) -> Self {
        let at = usize::from(self.number).checked_sub(1);
        let Some(at) = at.filter(|at| before.get(*at) == Some(&self.id)) else {
            return self;
        };
        let is_corrected = before.len() == after.len();
        let place = place_in(at, before, after).or(is_corrected.then_some(at));
        let moved = place.and_then(|at| Some((at, *after.get(at)?)));
        moved.map_or(self, |(at, id)| Self {
            number: at as u16 + 1,
            id,
        })
    }

    /// Decodes kind and body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, DropReason> {
        if kind != SHOWN {
            return Err(DropReason::UnknownKind);
        }
        let read = |mut r: Reader<'_>| {
            let (number, id) = (r.u16()?, SlideId(r.u64()?));
            r.finish()?;
            Ok(Self { number, id })
        };
        read(Reader::new(body)).map_err(|_: WireError| DropReason::Malformed)
    }
}

/// Returns the numbers of slides that did not change at the beginning and at the end of a deck.
pub(crate) fn unchanged<T: PartialEq>(before: &[T], after: &[T]) -> (usize, usize) {
    let same = |(a, b): &(&T, &T)| a == b;
    let first = before.iter().zip(after).take_while(same).count();
    let ends = before[first..].iter().rev();
    let ends = ends.zip(after[first..].iter().rev());
    (first, ends.take_while(same).count())
}

/// Returns the index of the slide `at` after a change of the deck: its place between slides that
/// did not change, else that of its text. Equal slides keep their order.
pub(crate) fn place_in<T: PartialEq>(at: usize, before: &[T], after: &[T]) -> Option<usize> {
    let slide = before.get(at)?;
    let (first, last) = unchanged(before, after);
    let stays = before.len() == after.len() && after.get(at) == Some(slide);
    if at < first || stays {
        return Some(at);
    }
    let behind = before.len() - at;
    if behind <= last {
        return Some(after.len() - behind);
    }
    let nth = before[first..at].iter().filter(|one| *one == slide).count();
    let changed = after[first..after.len() - last].iter().enumerate();
    let mut equal = changed.filter(|(_, one)| *one == slide);
    equal.nth(nth).map(|(place, _)| first + place)
}

/// A slide or deck with missing parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    parts: Vec<Option<Vec<u8>>>,
}

impl Waiting {
    fn new(parts: u8) -> Self {
        Self {
            parts: vec![None; usize::from(parts)],
        }
    }

    /// Adds a part. Returns the complete bytes once no part is missing.
    fn put(&mut self, part: u8, parts: u8, bytes: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        if usize::from(parts) != self.parts.len() {
            return Err(DropReason::WrongPart);
        }
        let place = self.parts.get_mut(usize::from(part));
        *place.ok_or(DropReason::WrongPart)? = Some(bytes.to_vec());
        let whole: Option<Vec<&Vec<u8>>> = self.parts.iter().map(Option::as_ref).collect();
        Ok(whole.map(|parts| parts.into_iter().flatten().copied().collect()))
    }

    fn bytes(&self) -> usize {
        self.parts.iter().flatten().map(Vec::len).sum()
    }
}

/// The slides, by the entries read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deck {
    order: Vec<SlideId>,
    texts: BTreeMap<SlideId, String>,
    waiting: BTreeMap<SlideId, Waiting>,
    waiting_bytes: usize,
    revision: u32,
    next: Option<(u32, Waiting)>,
}

impl Deck {
    /// Returns the number of slides.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns whether the deck is empty.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns the ids of the slides in order.
    pub(crate) fn order(&self) -> &[SlideId] {
        &self.order
    }

    /// Returns the slides in order; `None` for a slide without its text.
    pub fn slides(&self) -> impl Iterator<Item = Option<&str>> {
        self.order.iter().map(|id| self.text(*id))
    }

    /// Returns the text of a slide.
    pub fn text(&self, id: SlideId) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    /// Returns the current number, from 1, and text of a turn's slide, which may have moved: of
    /// equal slides, the nearest one to its place at the turn.
    pub fn shown(&self, turn: Turn) -> Option<(usize, &str)> {
        let place = usize::from(turn.number).checked_sub(1);
        let equal = self.order.iter().enumerate().rev();
        let equal = equal.filter(|(_, id)| **id == turn.id).map(|(at, _)| at);
        // of two at the same distance the later one: slides come more often than they go
        let at = equal.min_by_key(|at| at.abs_diff(place.unwrap_or(0)));
        // the text of the slide has changed since
        let at = at.or(place)?;
        let text = self.text(*self.order.get(at)?)?;
        Some((at + 1, text))
    }

    /// Reads the next entry of the track's owner. Returns whether the view has changed.
    pub fn read(&mut self, entry: &Entry) -> Result<bool, DropReason> {
        let malformed = |_: WireError| DropReason::Malformed;
        let mut r = Reader::new(&entry.body);
        match entry.kind {
            GRANT_KIND => Ok(false),
            SLIDE_PART => {
                let id = SlideId(r.u64().map_err(malformed)?);
                let (part, parts) = (r.u8().map_err(malformed)?, r.u8().map_err(malformed)?);
                self.slide_part(id, part, parts, r.rest())
            }
            DECK_PART => {
                let revision = r.u32().map_err(malformed)?;
                let (part, parts) = (r.u8().map_err(malformed)?, r.u8().map_err(malformed)?);
                self.deck_part(revision, part, parts, r.rest())
            }
            _ => Err(DropReason::UnknownKind),
        }
    }

    fn slide_part(
        &mut self,
        id: SlideId,
        part: u8,
        parts: u8,
        text: &[u8],
    ) -> Result<bool, DropReason> {
        if self.texts.contains_key(&id) {
            return Ok(false);
        }
        if usize::from(parts) * TEXT_IN_PART > MAX_SLIDE + TEXT_IN_PART {
            return Err(DropReason::TooManySlides);
        }
        let known = self.texts.len() + self.waiting.len();
        let is_new = !self.waiting.contains_key(&id);
        // slides of the current deck and of the next one
        if is_new && known >= 2 * MAX_SLIDES || self.waiting_bytes + text.len() > MAX_WAITING_BYTES
        {
            return Err(DropReason::TooManySlides);
        }
        let waiting = self
            .waiting
            .entry(id)
            .or_insert_with(|| Waiting::new(parts));
        let before = waiting.bytes();
        let whole = waiting.put(part, parts, text);
        self.waiting_bytes = self.waiting_bytes + waiting.bytes() - before;
        let Some(whole) = whole? else {
            return Ok(false);
        };
        if let Some(waiting) = self.waiting.remove(&id) {
            self.waiting_bytes -= waiting.bytes();
        }
        let text = String::from_utf8(whole).map_err(|_| DropReason::Malformed)?;
        if SlideId::of(&text) != id {
            return Err(DropReason::WrongPart);
        }
        self.texts.insert(id, clean(&text));
        Ok(self.order.contains(&id))
    }

    fn deck_part(
        &mut self,
        revision: u32,
        part: u8,
        parts: u8,
        ids: &[u8],
    ) -> Result<bool, DropReason> {
        if usize::from(parts) > MAX_SLIDES.div_ceil(SLIDES_IN_PART)
            || ids.len() > 8 * SLIDES_IN_PART
        {
            return Err(DropReason::TooManySlides);
        }
        if revision <= self.revision && self.revision > 0 {
            return Ok(false);
        }
        let (of, waiting) = self
            .next
            .get_or_insert_with(|| (revision, Waiting::new(parts)));
        if *of != revision {
            (*of, *waiting) = (revision, Waiting::new(parts));
        }
        let Some(whole) = waiting.put(part, parts, ids)? else {
            return Ok(false);
        };
        self.next = None;
        let (ids, rest) = whole.as_chunks::<8>();
        if !rest.is_empty() || ids.len() > MAX_SLIDES {
            return Err(DropReason::Malformed);
        }
        self.revision = revision;
        self.order = ids
            .iter()
            .map(|id| SlideId(u64::from_be_bytes(*id)))
            .collect();
        // forget slides that the deck does not name; parts for the next deck follow it
        let named: BTreeSet<SlideId> = self.order.iter().copied().collect();
        self.texts.retain(|id, _| named.contains(id));
        self.waiting.retain(|id, _| named.contains(id));
        self.waiting_bytes = self.waiting.values().map(Waiting::bytes).sum();
        Ok(true)
    }
}

/// Encodes slides as entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeckWriter;

impl DeckWriter {
    /// Returns the entries that turn `deck` into `slides`; none if they are equal.
    ///
    /// # Errors
    /// [`DropReason::TooManySlides`]: more than [`MAX_SLIDES`], or one longer than [`MAX_SLIDE`].
    pub fn entries(deck: &Deck, slides: &[&str]) -> Result<Vec<(u8, Vec<u8>)>, DropReason> {
        let ids: Vec<SlideId> = slides.iter().map(|text| SlideId::of(text)).collect();
        if ids.len() > MAX_SLIDES || slides.iter().any(|text| text.len() > MAX_SLIDE) {
            return Err(DropReason::TooManySlides);
        }
        if deck.order == ids && deck.revision > 0 {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        let mut made = BTreeSet::new();
        for (id, text) in ids.iter().zip(slides) {
            if deck.texts.contains_key(id) || !made.insert(*id) {
                continue;
            }
            let parts = chunks(text.as_bytes(), TEXT_IN_PART);
            for (at, part) in parts.iter().enumerate() {
                let mut w = Writer::new();
                w.u64(id.0).u8(at as u8).u8(parts.len() as u8).put(part);
                entries.push((SLIDE_PART, w.into_vec()));
            }
        }
        let all: Vec<u8> = ids.iter().flat_map(|id| id.0.to_be_bytes()).collect();
        let parts = chunks(&all, 8 * SLIDES_IN_PART);
        for (at, part) in parts.iter().enumerate() {
            let mut w = Writer::new();
            w.u32(deck.revision + 1);
            w.u8(at as u8).u8(parts.len() as u8).put(part);
            entries.push((DECK_PART, w.into_vec()));
        }
        Ok(entries)
    }
}

/// Splits bytes into chunks; no bytes are one empty chunk.
fn chunks(bytes: &[u8], length: usize) -> Vec<&[u8]> {
    if bytes.is_empty() {
        return vec![bytes];
    }
    bytes.chunks(length).collect()
}
