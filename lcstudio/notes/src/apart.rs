//! Marks of conflicting lines: several members wrote them at once, each without the others' words.
//! The document puts the letters of all beside each other. The shown text has each member's line
//! with a mark. The document keeps its text until a member changes a marked line: then the shown
//! text becomes its text. No host writes by itself: hosts with the same history show the same text
//! and need no agreement. Pages do the same (`web/pages/studio/notes-apart.js`).
//!
//! ```text
//!   before       one           another        the document          shown
//!   They dance.  Ants dance.   Wasps dance.   AntsWasps dance.      [1 of 2, by 3f2a] Ants dance.
//!                                                                   [2 of 2, by b71c] Wasps dance.
//! ```
//!
//! A line is marked if two adjacent letters, or two letters of one word, did not know each other,
//! and no letter of the line knew both. It stays as it is if letters of it stood on several lines
//! of a version: a line was removed that another member wrote on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use lcstudio_core::{Edit, MAX_LINE_VERSIONS};
use loro::cursor::Side;
use loro::event::Diff;
use loro::{Frontiers, ID, LoroDoc, LoroText, PeerID, TextDelta, VersionVector};

/// Longest text with marks, in characters. Chosen: the bound of pages.
const MAX_LETTERS: usize = 50_000;
/// Longest line that is examined, in characters. Chosen.
const MAX_LINE: usize = 2_000;
/// Marked lines, the first ones of the text: each needs older texts. Chosen.
const MAX_MARKS: usize = 32;
/// Pieces of a line, by writer and time. Chosen.
const MAX_PIECES: usize = 128;
/// Lines that are remembered: of all marks and versions, after that they are found again.
const MAX_LINES: usize = 4 * MAX_MARKS * MAX_LINE_VERSIONS;
/// Changes of a writer that are followed until one knows of the other writers. Chosen.
const MAX_STEPS: usize = 256;

/// A line of the document, and the text shown in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marked {
    at: usize,
    length: usize,
    shown: Vec<char>,
}

/// A version, a letter of its writer in the line, the first and last letter of the line, and their
/// number.
type LineKey = (ID, ID, [ID; 2], usize);

/// State at the last look at the document.
#[derive(Debug, Default)]
pub struct Apart {
    /// Authors of entries with changes of this document peer: one, unless a member forges.
    authors: HashMap<PeerID, BTreeSet<u64>>,
    /// Lines as of their writers' last change; `None`: letters of the line stood on several lines.
    lines: HashMap<LineKey, Option<String>>,
    marked: Vec<Marked>,
    seen: Option<Frontiers>,
}

/// Changes of one writer with the same known changes of others.
#[derive(Debug)]
struct Piece {
    peer: PeerID,
    changes: Range<i32>,
    /// Changes that they knew.
    past: VersionVector,
    /// Last of them that is in the line.
    last: i32,
}

impl Piece {
    fn knows(&self, peer: PeerID, counter: i32) -> bool {
        match self.peer == peer {
            true => self.last > counter,
            false => knows(&self.past, peer, counter),
        }
    }
}

/// A letter of a line: its piece, its number among its writer's changes, and its place.
type Letter = (usize, i32, usize);

fn knows(past: &VersionVector, peer: PeerID, counter: i32) -> bool {
    past.get(&peer).is_some_and(|end| *end > counter)
}

impl Apart {
    /// Notes that an entry of this author has changes of this document peer.
    pub fn wrote(&mut self, author: u64, peer: PeerID) {
        self.authors.entry(peer).or_default().insert(author);
    }

    /// Examines changed lines. Returns the shown text, unless it is too long or has no marks.
    pub fn look(&mut self, doc: &LoroDoc, text: &LoroText, whole: &str) -> Option<String> {
        let chars: Vec<char> = whole.chars().take(MAX_LETTERS + 1).collect();
        if chars.len() > MAX_LETTERS {
            (self.marked, self.seen) = (Vec::new(), None);
            return None;
        }
        let now = doc.state_frontiers();
        let all = 0..chars.len();
        let changed = match self.seen.take() {
            Some(seen) if seen == now => None,
            Some(seen) if self.marked.len() < MAX_MARKS => Some(self.changed(doc, &seen, &now)),
            _ => Some(all),
        };
        if let Some(changed) = changed {
            // writers of a marked line may have written elsewhere meanwhile
            let old = self.marked.iter().map(|marked| marked.at..marked.at);
            let mut lines: BTreeMap<usize, usize> = BTreeMap::new();
            for range in old.chain([changed]) {
                for_lines(&chars, range, |line| {
                    lines.insert(line.start, line.end);
                });
            }
            let mut marked = Vec::new();
            for (at, end) in lines {
                if marked.len() < MAX_MARKS
                    && let Some(shown) = self.line(doc, text, &chars, at..end, &now)
                {
                    let length = end - at;
                    marked.push(Marked { at, length, shown });
                }
            }
            self.marked = marked;
        }
        self.seen = Some(now);
        (!self.marked.is_empty()).then(|| {
            let (mut shown, mut at) = (String::new(), 0);
            for marked in &self.marked {
                shown.extend(&chars[at..marked.at]);
                shown.extend(&marked.shown);
                at = marked.at + marked.length;
            }
            shown.extend(&chars[at..]);
            shown
        })
    }

    /// Returns the changed range, and moves the marks.
    fn changed(&mut self, doc: &LoroDoc, from: &Frontiers, to: &Frontiers) -> Range<usize> {
        let steps = steps(doc, from, to);
        let (mut first, mut last, mut at) = (None, 0, 0);
        for step in &steps {
            match step {
                TextDelta::Retain { retain, .. } => at += retain,
                TextDelta::Insert { insert, .. } => {
                    first.get_or_insert(at);
                    at += insert.chars().count();
                    last = at;
                }
                TextDelta::Delete { .. } => {
                    first.get_or_insert(at);
                    last = at;
                }
            }
        }
        for marked in &mut self.marked {
            marked.at = place(&steps, marked.at);
        }
        first.unwrap_or(0)..last
    }

    /// Returns the text shown in place of a line; `None`: the line itself.
    fn line(
        &mut self,
        doc: &LoroDoc,
        text: &LoroText,
        chars: &[char],
        line: Range<usize>,
        now: &Frontiers,
    ) -> Option<Vec<char>> {
        if line.len() > MAX_LINE {
            return None;
        }
        let (pieces, letters) = pieces(doc, text, line.clone())?;
        let mut pairs: BTreeSet<(Letter, Letter)> = BTreeSet::new();
        let mut word: BTreeMap<usize, Letter> = BTreeMap::new();
        for (n, letter) in letters.iter().copied().enumerate() {
            if n > 0 && letters[n - 1].0 != letter.0 {
                pairs.insert((letters[n - 1], letter));
            }
            let is_last = letters.get(n + 1).is_none();
            let is_in_word = chars[letter.2].is_alphanumeric();
            if is_in_word {
                let last = word.entry(letter.0).or_insert(letter);
                *last = (*last).max(letter);
            }
            if is_last || !is_in_word {
                let all: Vec<Letter> = std::mem::take(&mut word).into_values().collect();
                for (n, one) in all.iter().enumerate() {
                    pairs.extend(all[n + 1..].iter().map(|other| (*one, *other)));
                }
            }
        }
        let stands = |(a, b): &(Letter, Letter)| {
            let [(a, a_counter, _), (b, b_counter, _)] = [a, b].map(|l| (&pieces[l.0], l.1, l.2));
            let is_known =
                |piece: &Piece| piece.knows(a.peer, a_counter) && piece.knows(b.peer, b_counter);
            a.peer != b.peer
                && !knows(&a.past, b.peer, b_counter)
                && !knows(&b.past, a.peer, a_counter)
                && !pieces.iter().any(is_known)
        };
        let live: Vec<Letter> = pairs
            .into_iter()
            .filter(stands)
            .flat_map(|(a, b)| [a, b])
            .collect();
        if live.is_empty() {
            return None;
        }
        // last letter, with its place, of each writer that some of the others did not know
        let is_common = |(piece, counter, _): &Letter| {
            let peer = pieces[*piece].peer;
            let is_known = |other: &Letter| {
                let of = &pieces[other.0];
                of.peer == peer && other.1 >= *counter || knows(&of.past, peer, *counter)
            };
            live.iter().all(is_known)
        };
        let mut writers: BTreeMap<PeerID, (i32, usize)> = BTreeMap::new();
        for (piece, counter, at) in letters.iter().filter(|letter| !is_common(letter)) {
            let last = writers
                .entry(pieces[*piece].peer)
                .or_insert((*counter, *at));
            *last = (*last).max((*counter, *at));
        }
        let versions = versions(doc, &writers)?;
        let mut shown: Vec<(String, BTreeSet<u64>)> = Vec::new();
        for (peer, counter) in versions {
            let (letter, at) = writers[&peer];
            let id = |letter: &Letter| ID::new(pieces[letter.0].peer, letter.1);
            let ends = [id(letters.first()?), id(letters.last()?)];
            let version = ID::new(peer, counter);
            let key = (version, ID::new(peer, letter), ends, letters.len());
            let line = match self.lines.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let past = doc.frontiers_to_vv(&Frontiers::from(version))?;
                    let in_version = letters
                        .iter()
                        .filter(|(piece, counter, _)| knows(&past, pieces[*piece].peer, *counter));
                    let places = in_version.map(|letter| letter.2).collect::<Vec<_>>();
                    let line = line_at(doc, now, chars, version, at, &places);
                    if self.lines.len() >= MAX_LINES {
                        self.lines.clear();
                    }
                    self.lines.insert(key, line.clone());
                    line
                }
            };
            let line = line?;
            let authors = self.authors.get(&peer);
            if line.chars().count() > MAX_LINE {
                return None;
            }
            let same = shown.iter_mut().find(|(other, _)| *other == line);
            match same {
                Some((_, all)) => all.extend(authors.into_iter().flatten()),
                None => shown.push((line, authors.cloned().unwrap_or_default())),
            }
        }
        let count = shown.len();
        let lines = shown.into_iter().zip(1..).map(|((line, authors), n)| {
            let authors = authors.iter().map(|author| short(*author));
            let authors = authors.collect::<Vec<_>>().join("+");
            match count {
                // all wrote the same
                1 => line,
                _ => format!("[{n} of {count}, by {authors}] {line}"),
            }
        });
        let shown: Vec<char> = lines.collect::<Vec<_>>().join("\n").chars().collect();
        (shown != chars[line]).then_some(shown)
    }

    /// Translates changes of the shown text to the document. One of a marked line replaces it all.
    pub fn of_document(&self, whole: &str, changes: &[Edit]) -> Vec<Edit> {
        if self.marked.is_empty() {
            return changes.to_vec();
        }
        let chars: Vec<char> = whole.chars().collect();
        let mut shown: Vec<char> = Vec::new();
        // place of each in the shown text
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        for marked in &self.marked {
            shown.extend(&chars[at..marked.at]);
            places.push(shown.len()..shown.len() + marked.shown.len());
            shown.extend(&marked.shown);
            at = marked.at + marked.length;
        }
        shown.extend(&chars[at..]);
        let mut regions: Vec<(Range<usize>, Vec<&Edit>)> = Vec::new();
        for change in changes {
            let mut region = change.at..change.at + change.remove;
            for place in places.iter().filter(|place| touches(&shown, change, place)) {
                region = region.start.min(place.start)..region.end.max(place.end);
            }
            match regions.last_mut() {
                Some((last, within)) if region.start < last.end => {
                    last.end = last.end.max(region.end);
                    within.push(change);
                }
                _ => regions.push((region, vec![change])),
            }
        }
        let in_document = |at: usize| {
            let before = places.iter().zip(&self.marked).filter(|(p, _)| p.end <= at);
            let grown = before.map(|(place, marked)| place.len() as isize - marked.length as isize);
            at.saturating_add_signed(-grown.sum::<isize>())
        };
        let regions = regions.into_iter().map(|(region, within)| {
            let (at, end) = (in_document(region.start), in_document(region.end));
            let (mut insert, mut from) = (String::new(), region.start);
            for change in within {
                insert.extend(&shown[from..change.at]);
                insert.push_str(&change.insert);
                from = change.at + change.remove;
            }
            insert.extend(&shown[from..region.end]);
            let remove = end - at;
            Edit { at, remove, insert }
        });
        regions.collect()
    }
}

/// Returns an author id in four digits.
fn short(author: u64) -> String {
    format!("{:04x}", author >> 48)
}

/// Returns whether a change is one of a marked place. Lines before and after are not.
fn touches(shown: &[char], change: &Edit, place: &Range<usize>) -> bool {
    let end = change.at + change.remove;
    if end < place.start || change.at > place.end {
        return false;
    }
    let is_break = |c: Option<char>| c.is_none_or(|c| c == '\n');
    if end == place.start {
        let before = change.at.checked_sub(1).map(|at| shown[at]);
        return !is_break(change.insert.chars().next_back().or(before));
    }
    if change.at == place.end {
        return !is_break(change.insert.chars().next().or(shown.get(end).copied()));
    }
    true
}

/// Calls `each` for the lines of a range, without their ends.
fn for_lines(chars: &[char], range: Range<usize>, mut each: impl FnMut(Range<usize>)) {
    let is_end = |c: &char| *c == '\n';
    let range = range.start.min(chars.len())..range.end.min(chars.len());
    let before = chars[..range.start].iter().rposition(is_end);
    let mut at = before.map_or(0, |end| end + 1);
    loop {
        let end = chars[at..].iter().position(is_end);
        let end = end.map_or(chars.len(), |end| at + end);
        each(at..end);
        if end >= range.end {
            return;
        }
        at = end + 1;
    }
}

/// Returns a line's letters, and its pieces by writer and known changes.
fn pieces(doc: &LoroDoc, text: &LoroText, line: Range<usize>) -> Option<(Vec<Piece>, Vec<Letter>)> {
    let (mut pieces, mut letters): (Vec<Piece>, Vec<Letter>) = (Vec::new(), Vec::new());
    for at in line {
        let ID { peer, counter } = text.get_cursor(at, Side::Middle)?.id?;
        let is_of = |piece: &Piece| piece.peer == peer && piece.changes.contains(&counter);
        let last = letters.last().map(|letter| letter.0);
        let known = last.filter(|last| is_of(&pieces[*last]));
        let n = match known.or_else(|| pieces.iter().position(is_of)) {
            Some(n) => n,
            None if pieces.len() == MAX_PIECES => return None,
            None => {
                let change = doc.get_change(ID::new(peer, counter))?;
                let begin = change.id.counter;
                pieces.push(Piece {
                    peer,
                    changes: begin..begin + i32::try_from(change.len).ok()?,
                    past: doc.frontiers_to_vv(&change.deps)?,
                    last: counter,
                });
                pieces.len() - 1
            }
        };
        pieces[n].last = pieces[n].last.max(counter);
        letters.push((n, counter, at));
    }
    Some((pieces, letters))
}

/// Returns each writer's last change before knowing another, without writers that another one knew.
/// `None`: fewer than two are left, or too many.
fn versions(doc: &LoroDoc, writers: &BTreeMap<PeerID, (i32, usize)>) -> Option<Vec<(PeerID, i32)>> {
    let mut versions = Vec::new();
    for (&peer, &(letter, _)) in writers {
        let known = doc.get_change(ID::new(peer, letter))?;
        let known = doc.frontiers_to_vv(&known.deps)?;
        let others = writers.iter().filter(|(other, _)| **other != peer);
        let others: Vec<_> = others
            .filter(|(other, (counter, _))| !knows(&known, **other, *counter))
            .collect();
        let mut last = letter;
        for _ in 0..MAX_STEPS {
            let Some(next) = doc.get_change(ID::new(peer, last + 1)) else {
                break;
            };
            let past = doc.frontiers_to_vv(&next.deps)?;
            if others
                .iter()
                .any(|(other, (counter, _))| knows(&past, **other, *counter))
            {
                break;
            }
            last = next.id.counter + i32::try_from(next.len).ok()? - 1;
        }
        versions.push((peer, last, known));
    }
    let is_known = |peer: PeerID| {
        let (letter, _) = writers[&peer];
        let others = versions.iter().filter(|(other, ..)| *other != peer);
        others
            .into_iter()
            .any(|(_, _, past)| knows(past, peer, letter))
    };
    let last: Vec<_> = versions
        .iter()
        .map(|(peer, last, _)| (*peer, *last))
        .filter(|(peer, _)| !is_known(*peer))
        .collect();
    (2..=MAX_LINE_VERSIONS)
        .contains(&last.len())
        .then_some(last)
}

/// Returns the line of this version that contains the letter now at this place; `None` if one of
/// these `letters` was on another line.
fn line_at(
    doc: &LoroDoc,
    now: &Frontiers,
    chars: &[char],
    version: ID,
    at: usize,
    letters: &[usize],
) -> Option<String> {
    let steps = steps(doc, now, &Frontiers::from(version));
    let (mut text, mut from) = (Vec::new(), 0);
    for step in &steps {
        match step {
            TextDelta::Retain { retain, .. } => {
                text.extend(&chars[from..from + retain]);
                from += retain;
            }
            TextDelta::Insert { insert, .. } => text.extend(insert.chars()),
            TextDelta::Delete { delete } => from += delete,
        }
    }
    text.extend(&chars[from..]);
    let at = place(&steps, at);
    let mut found = 0..0;
    for_lines(&text, at..at, |line| found = line);
    let is_inside = |letter: &usize| found.contains(&place(&steps, *letter));
    letters
        .iter()
        .all(is_inside)
        .then(|| text[found.clone()].iter().collect())
}

/// Returns the changes between the texts of two versions.
fn steps(doc: &LoroDoc, from: &Frontiers, to: &Frontiers) -> Vec<TextDelta> {
    let Ok(batch) = doc.diff(from, to) else {
        return Vec::new();
    };
    // the document has one text
    let texts = batch.iter().filter_map(|(_, diff)| match diff {
        Diff::Text(steps) => Some(steps.clone()),
        _ => None,
    });
    texts.flatten().collect()
}

/// Returns the place of a letter after these steps.
fn place(steps: &[TextDelta], at: usize) -> usize {
    let (mut before, mut now) = (0, 0);
    for step in steps {
        match step {
            TextDelta::Retain { retain, .. } if before + retain > at => break,
            TextDelta::Retain { retain, .. } => (before, now) = (before + retain, now + retain),
            TextDelta::Insert { insert, .. } => now += insert.chars().count(),
            TextDelta::Delete { delete } if before + delete > at => return now,
            TextDelta::Delete { delete } => before += delete,
        }
    }
    now + at - before
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use lcstudio_core::document::{Answer, Request, Update};

    use super::*;
    use crate::document::Document;

    /// Hosts, and the entries of each that others may lack.
    struct World {
        hosts: Vec<Document>,
        shown: Vec<String>,
        entries: Vec<Vec<Vec<u8>>>,
        /// Entries of each author that each host has read.
        come: Vec<Vec<usize>>,
    }

    impl World {
        fn new(count: usize) -> Self {
            Self {
                hosts: (1..=count as u64)
                    .map(|peer| Document::of_peer(peer << 8))
                    .collect(),
                shown: vec![String::new(); count],
                entries: vec![Vec::new(); count],
                come: vec![vec![0; count]; count],
            }
        }

        fn author(host: usize) -> u64 {
            (host as u64 + 1) << 60
        }

        fn ask(&mut self, host: usize, request: Request) -> Vec<(u32, Vec<u8>)> {
            let own = Self::author(host);
            let request = Request { own, ..request };
            match self.hosts[host].work(request, &mut |_| Ok(())).unwrap() {
                Answer::Done { text, drafts, .. } => {
                    self.shown[host] = text.unwrap_or(std::mem::take(&mut self.shown[host]));
                    drafts
                }
                other => panic!("{other:?}"),
            }
        }

        /// Saves as an editor does: a change of words.
        fn save(&mut self, host: usize, text: &str) {
            self.change(host, text);
            assert_eq!(self.shown[host], text, "a save stays as it is");
        }

        fn change(&mut self, host: usize, text: &str) {
            let edits = lcstudio_core::difference(&self.shown[host], text);
            let appended = (1..1_000).collect();
            let drafts = self.ask(
                host,
                Request {
                    edits,
                    appended,
                    ..Request::default()
                },
            );
            self.entries[host].extend(drafts.into_iter().map(|(_, body)| body));
        }

        fn hear(&mut self, host: usize, of: usize) {
            let from = std::mem::replace(&mut self.come[host][of], self.entries[of].len());
            let bodies = self.entries[of][from..].iter().cloned();
            let update = |(number, body)| Update {
                author: Self::author(of),
                number,
                body,
            };
            let updates = (from as u32 + 1..).zip(bodies).map(update).collect();
            if host != of {
                self.ask(
                    host,
                    Request {
                        updates,
                        ..Request::default()
                    },
                );
            }
        }

        /// Exchanges all entries, in a different order for each. Returns the text that all show.
        fn meet(&mut self) -> String {
            let count = self.hosts.len();
            for host in 0..count {
                (0..count).for_each(|n| self.hear(host, (host + n) % count));
            }
            // updates that lacked others
            for host in 0..count {
                self.ask(host, Request::default());
            }
            assert!(
                self.shown.iter().all(|text| *text == self.shown[0]),
                "{:?}",
                self.shown
            );
            self.shown[0].clone()
        }
    }

    fn after(before: &str, texts: &[&str]) -> (World, String) {
        let mut world = World::new(texts.len());
        world.save(0, before);
        world.meet();
        for (host, text) in texts.iter().enumerate() {
            world.save(host, text);
        }
        let shown = world.meet();
        (world, shown)
    }

    #[test]
    fn who_rewrote_the_same_words_apart_finds_both_marked_until_somebody_chooses() {
        let before = "# Bees\nThe bees dance.\nEnd\n";
        let one = "# Bees\nAll ants run.\nEnd\n";
        let (mut world, shown) = after(before, &[one, "# Bees\nThe wasps sleep.\nEnd\n"]);
        let marks =
            "# Bees\n[1 of 2, by 1000] All ants run.\n[2 of 2, by 2000] The wasps sleep.\nEnd\n";
        assert_eq!(shown, marks);
        // elsewhere, before and behind
        world.save(0, &marks.replace("# Bees\n", "# Insects\nNew\n"));
        world.save(1, &marks.replace("End", "And\nEnd"));
        let marks = marks
            .replace("# Bees\n", "# Insects\nNew\n")
            .replace("End", "And\nEnd");
        assert_eq!(world.meet(), marks);
        let chosen = "# Insects\nNew\nAll ants run.\nAnd\nEnd\n";
        world.save(1, chosen);
        assert_eq!(world.meet(), chosen);
    }

    #[test]
    fn three_that_were_apart_have_three_lines_whoever_hears_whom_first() {
        let texts = ["Ants run.", "Wasps sleep.", "Flies hum."];
        let (mut world, shown) = after("Bees dance.", &texts);
        let marks = "[1 of 3, by 1000] Ants run.\n[2 of 3, by 2000] Wasps sleep.\n[3 of 3, by 3000] Flies hum.";
        assert_eq!(shown, marks);
        // two choose at once
        world.save(0, "Ants run.");
        world.save(2, "Flies hum.");
        let shown = world.meet();
        assert!(
            shown.contains("Ants run.") && shown.contains("Flies hum."),
            "{shown}"
        );
        world.save(1, "All of them.");
        assert_eq!(world.meet(), "All of them.");
    }

    #[test]
    fn a_word_of_which_two_changed_other_letters_is_marked() {
        let (_, shown) = after("The cat\n", &["The cut\n", "The cap\n"]);
        assert_eq!(
            shown,
            "[1 of 2, by 1000] The cut\n[2 of 2, by 2000] The cap\n"
        );
    }

    #[test]
    fn what_does_not_overlap_or_is_the_same_has_no_mark() {
        let (_, shown) = after("one two three\n", &["1 two three\n", "one two 3\n"]);
        assert_eq!(shown, "1 two 3\n");
        let (_, shown) = after("- a\n", &["- a\n- b\n", "- a\n- c\n"]);
        assert_eq!(shown, "- a\n- b\n- c\n");
        let (_, shown) = after("bees\n", &["ants\n", "ants\n"]);
        assert_eq!(shown, "ants\n");
        let (mut world, _) = after("bees\n", &["ants\n", "bees\n"]);
        world.save(1, "wasps\n");
        assert_eq!(world.meet(), "wasps\n");
    }

    #[test]
    fn who_wrote_on_while_apart_is_shown_as_he_left_the_line() {
        let mut world = World::new(2);
        world.save(0, "one two three\n");
        world.meet();
        world.save(0, "one 2 three\n");
        world.save(1, "one zwei three\n");
        assert_eq!(
            world.meet(),
            "[1 of 2, by 1000] one 2 three\n[2 of 2, by 2000] one zwei three\n"
        );
        let (mut world, _) = after("one two three\n", &["one 2 three\n", "one two three\n"]);
        world.save(1, "one II three\n");
        world.save(0, "2 three\nmore\n");
        world.save(1, "one II three\n");
        assert_eq!(world.meet(), "2 three\nmore\n".replace("2", "II"));
    }

    /// One member removed the end of a line on both sides of which the other one wrote.
    #[test]
    fn lines_that_were_joined_meanwhile_keep_all_words() {
        let mut world = World::new(2);
        world.save(0, "a b\nc d\ne f\n");
        world.meet();
        world.save(0, "a b\nc DDD\n");
        world.save(1, "a b\nCCC c d\nEEE e f\n");
        let shown = world.meet();
        for word in ["CCC", "DDD", "EEE"] {
            assert!(shown.contains(word), "{word} of {shown}");
        }
    }

    /// The number of marked lines is bounded for any number of conflicts.
    #[test]
    fn only_so_many_lines_are_marked() {
        let lines = |word: &str| {
            (0..200)
                .map(|n| format!("{word}{n} x\n"))
                .collect::<String>()
        };
        let (one, other) = (lines("ant"), lines("wasp"));
        let (mut world, shown) = after(&lines("bee"), &[&one, &other]);
        assert_eq!(shown.matches("[1 of 2").count(), MAX_MARKS);
        let text = shown.replacen("[1 of 2, by 1000] ", "", 1);
        world.change(0, &text);
        assert_eq!(world.meet().matches("[1 of 2").count(), MAX_MARKS);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// This host replaces this many words, from this one on, by a new word.
        Write(usize, usize, usize),
        Hear(usize, usize),
    }

    /// A word without letters of another.
    fn word(n: usize) -> String {
        char::from_u32(u32::from('A') + n as u32)
            .unwrap()
            .to_string()
            .repeat(3)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize, 0..12_usize, 0..3_usize).prop_map(|(h, at, n)| Step::Write(h, at, n)),
            (0..3_usize, 0..3_usize).prop_map(|(host, of)| Step::Hear(host, of)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// All show the same in any order of entries; text that no member removed stays whole.
        #[test]
        fn all_show_one_text(steps in proptest::collection::vec(step(), 0..25)) {
            let mut world = World::new(3);
            world.save(0, "a b\nc d\ne f\n");
            world.meet();
            let mut gone = String::new();
            for (n, step) in steps.iter().enumerate() {
                match step {
                    Step::Write(host, at, count) => {
                        let before = world.shown[*host].clone();
                        let words: Vec<&str> = before.split_inclusive([' ', '\n']).collect();
                        let at = (*at).min(words.len());
                        let end = (at + count).min(words.len());
                        // two words are one if another member removed the space between them
                        gone.extend(words[at..end].iter().copied());
                        let break_after = words[at..end].iter().any(|word| word.ends_with('\n'));
                        let new = format!("{}{}", word(n), if break_after { "\n" } else { " " });
                        let text = format!("{}{new}{}", words[..at].concat(), words[end..].concat());
                        world.save(*host, &text);
                    }
                    Step::Hear(host, of) => world.hear(*host, *of),
                }
            }
            let shown = world.meet();
            for n in (0..steps.len()).filter(|n| matches!(steps[*n], Step::Write(..))) {
                let word = word(n);
                prop_assert!(gone.contains(&word) || shown.contains(&word), "{word} of {shown}");
            }
        }
    }
}
