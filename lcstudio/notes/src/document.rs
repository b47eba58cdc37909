//! The document of notes. Loro runs here only, in a process of its own: updates of other members
//! may make it fail, run without end, or take all memory. Then the process ends, and another one
//! opens the document without the harmful update. It has no keys, opens nothing, and ends with its
//! parent. Pages do the same in a worker (`web/pages/studio/notes-worker.js`).
//!
//! ```text
//!   stdin   a line of JSON: Request
//!   stdout  lines of JSON: Answer::Trying before each update, Pending behind one that must wait,
//!           at the end Done, or Bad: this update is harmful, or Failed
//! ```

use std::io::{self, BufRead, Write};

use lcstudio_core::Edit;
use lcstudio_core::document::{Answer, MAX_TEXT, Request, Update};
use librecast::plain::is_deceptive;
use librecast_log::MAX_BODY;
use librecast_program::cli::Exit;
use loro::{EncodedBlobMode, ExportMode, IdSpan, LoroDoc, LoroText, PeerID};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

use crate::apart::Apart;

/// The document's only text.
const NAME: &str = "notes";

/// Memory of the document's process, in bytes. Chosen: 30 times the bound of all updates.
const MAX_MEMORY: u64 = 512 << 20;

/// Our operations (one for each letter) in the first try of an entry; halved until they fit.
const PIECE: i32 = 800;

/// Answers requests until standard input ends.
pub fn run() -> anyhow::Result<Exit> {
    librecast_program::process::confine()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    for (resource, most) in [
        (Resource::RLIMIT_AS, MAX_MEMORY),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        // standard input, output and error
        (Resource::RLIMIT_NOFILE, 3),
    ] {
        setrlimit(resource, most, most)?;
    }
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut document = Document::new();
    let mut line = String::new();
    // requests come from our own parent
    while input.read_line(&mut line)? > 0 {
        let request = serde_json::from_str(&line)?;
        let last = document.work(request, &mut |answer| say(&mut output, &answer))?;
        say(&mut output, &last)?;
        line.clear();
    }
    Ok(Exit::Ok)
}

fn say(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// The draft that may still grow.
#[derive(Debug)]
struct Growing {
    id: u32,
    /// First of its operations among ours.
    from: i32,
}

pub(crate) struct Document {
    doc: LoroDoc,
    text: LoroText,
    peer: PeerID,
    growing: Option<Growing>,
    next_draft: u32,
    apart: Apart,
    shown: Option<String>,
}

impl Document {
    fn new() -> Self {
        let doc = LoroDoc::new();
        Self {
            text: doc.get_text(NAME),
            peer: doc.peer_id(),
            doc,
            growing: None,
            next_draft: 1,
            apart: Apart::default(),
            shown: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn of_peer(peer: PeerID) -> Self {
        let mut document = Self::new();
        document.doc.set_peer_id(peer).unwrap_or_default();
        document.peer = peer;
        document
    }

    pub(crate) fn work(
        &mut self,
        request: Request,
        say: &mut dyn FnMut(Answer) -> io::Result<()>,
    ) -> io::Result<Answer> {
        self.next_draft = request.first_draft.unwrap_or(self.next_draft);
        let is_appended = |growing: &Growing| request.appended.contains(&growing.id);
        self.growing.take_if(|growing| is_appended(growing));
        self.apart.wrote(request.own, self.peer);
        let edits = match request.edits.is_empty() {
            true => Vec::new(),
            false => {
                let whole = self.text.to_string();
                self.apart.of_document(&whole, &request.edits)
            }
        };
        let drafts = match self.write(&edits) {
            Ok(drafts) => drafts,
            Err(why) => return Ok(Answer::Failed { why }),
        };
        // ours, of an earlier process
        for body in &request.drafts {
            let _ = self.take(request.own, body);
        }
        for Update {
            author,
            number,
            body,
        } in request.updates
        {
            say(Answer::Trying { author, number })?;
            match self.take(author, &body) {
                Ok(false) => {}
                Ok(true) => say(Answer::Pending { author, number })?,
                Err(why) => return Ok(Answer::Bad { why }),
            }
        }
        let whole = self.text.to_string();
        let marked = if request.is_plain {
            None
        } else {
            say(Answer::Looking)?;
            self.apart.look(&self.doc, &self.text, &whole)
        };
        let whole = marked.unwrap_or(whole);
        let shown: String = whole.chars().take(MAX_TEXT).map(shown).collect();
        let is_new = self.shown.as_ref() != Some(&shown);
        self.shown = Some(shown.clone());
        Ok(Answer::Done {
            text: is_new.then_some(shown),
            drafts,
            is_full: self.text.len_unicode() > MAX_TEXT,
        })
    }

    /// Reads an update. Returns whether it waits for others.
    fn take(&mut self, author: u64, body: &[u8]) -> Result<bool, String> {
        // other members may send changes only, no whole documents
        let meta = LoroDoc::decode_import_blob_meta(body, true).map_err(|e| e.to_string())?;
        match meta.mode {
            EncodedBlobMode::Updates => {}
            other => return Err(format!("not a change but a {other}")),
        }
        let read = self.doc.import(body).map_err(|e| e.to_string())?;
        for (peer, _) in meta.partial_end_vv.iter() {
            self.apart.wrote(author, *peer);
        }
        Ok(read.pending.is_some())
    }

    /// Applies our changes. Returns the drafts with them.
    fn write(&mut self, changes: &[Edit]) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let from = self.count();
        // the last one first, as places before it stay
        for Edit { at, remove, insert } in changes.iter().rev() {
            self.text.delete(*at, *remove).map_err(|e| e.to_string())?;
            self.text.insert(*at, insert).map_err(|e| e.to_string())?;
        }
        self.doc.commit();
        let to = self.count();
        if from == to {
            return Ok(Vec::new());
        }
        if let Some(Growing { id, from }) = &self.growing {
            let longer = self.export(*from, to)?;
            if longer.len() <= MAX_BODY {
                return Ok(vec![(*id, longer)]);
            }
        }
        let (mut drafts, mut begin) = (Vec::new(), from);
        while begin < to {
            let mut length = PIECE.min(to - begin);
            let mut body = self.export(begin, begin + length)?;
            while body.len() > MAX_BODY {
                length /= 2;
                if length == 0 {
                    return Err(format!("a letter of {} bytes", body.len()));
                }
                body = self.export(begin, begin + length)?;
            }
            let id = self.next_draft;
            self.growing = Some(Growing { id, from: begin });
            drafts.push((id, body));
            self.next_draft += 1;
            begin += length;
        }
        Ok(drafts)
    }

    /// Returns the number of our operations.
    fn count(&self) -> i32 {
        self.doc.oplog_vv().get(&self.peer).copied().unwrap_or(0)
    }

    fn export(&self, from: i32, to: i32) -> Result<Vec<u8>, String> {
        let spans = vec![IdSpan::new(self.peer, from, to)];
        let exported = self.doc.export(ExportMode::updates_in_range(spans));
        exported.map_err(|e| e.to_string())
    }
}

/// Replaces a deceptive character by one other character, so that places stay.
fn shown(c: char) -> char {
    match is_deceptive(c) && !matches!(c, '\n' | '\t') {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(document: &mut Document, request: Request) -> (Answer, Vec<Answer>) {
        let mut before = Vec::new();
        let last = document.work(request, &mut |answer| {
            before.push(answer);
            Ok(())
        });
        (last.unwrap(), before)
    }

    fn written(
        document: &mut Document,
        at: usize,
        remove: usize,
        insert: &str,
    ) -> Vec<(u32, Vec<u8>)> {
        let insert = insert.to_owned();
        let edits = vec![Edit { at, remove, insert }];
        let (answer, _) = ask(
            document,
            Request {
                edits,
                ..Request::default()
            },
        );
        let Answer::Done { drafts, .. } = answer else {
            panic!("{answer:?}");
        };
        drafts
    }

    fn updates(author: u64, bodies: Vec<Vec<u8>>) -> Request {
        let updates = (1..).zip(bodies).map(|(number, body)| Update {
            author,
            number,
            body,
        });
        Request {
            updates: updates.collect(),
            ..Request::default()
        }
    }

    fn text(document: &mut Document, request: Request) -> String {
        match ask(document, request).0 {
            Answer::Done { text, .. } => text.unwrap_or_else(|| document.shown.clone().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn bodies(drafts: Vec<(u32, Vec<u8>)>) -> Vec<Vec<u8>> {
        drafts.into_iter().map(|(_, body)| body).collect()
    }

    #[test]
    fn two_that_write_at_once_have_one_text() {
        let [mut one, mut other] = [Document::new(), Document::new()];
        let first = bodies(written(&mut one, 0, 0, "Bees dance.\n"));
        assert_eq!(text(&mut other, updates(1, first)), "Bees dance.\n");
        let ours = bodies(written(&mut one, 0, 4, "🐝s"));
        let theirs = bodies(written(&mut other, 12, 0, "A second is a kilometre.\n"));
        let texts = [
            text(&mut one, updates(2, theirs)),
            text(&mut other, updates(1, ours)),
        ];
        assert_eq!(texts, ["🐝s dance.\nA second is a kilometre.\n"; 2]);
    }

    /// Made by web/pages/vendor/loro.js: a text, two letters less, more at the end.
    const OF_A_PAGE: [&str; 3] = [
        "6c6f726f000000000000000000000000f1b0628d000457001700170110014d00000000000000010100000000000501000001000601040102000006056e6f7465\
         73000e0104020100020100020105020117001b1a23204e6f7465730a0a4265657320f09f909d2064616e63652e0a",
        "6c6f726f0000000000000000000000005244db6b000448170217020111014d0000000000000000010100000000000501000001000601040102000006056e6f74\
         6573000e01040201000201000201090201020b010302010002010002010400",
        "6c6f726f0000000000000000000000006b3ab5be000454191119110111014d0000000000000000010100000000000501000001000601040102000006056e6f74\
         6573000e010402010002012a02010502011100171645696e2054616e7a2066c3bc7220e6bca2e5ad972e0a",
    ];

    #[test]
    fn what_a_page_writes_is_read() {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let bytes = |hex: &&str| {
            hex.as_bytes()
                .chunks(2)
                .map(|two| byte(two).unwrap())
                .collect()
        };
        let bodies = OF_A_PAGE.iter().map(bytes).collect();
        let read = text(&mut Document::new(), updates(1, bodies));
        assert_eq!(read, "Notes\n\nBees 🐝 dance.\nEin Tanz für 漢字.\n");
    }

    #[test]
    fn the_last_draft_grows_until_it_is_an_entry_or_full() {
        let mut document = Document::new();
        let ids = |drafts: &[(u32, Vec<u8>)]| drafts.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&written(&mut document, 0, 0, "a")), [1]);
        assert_eq!(ids(&written(&mut document, 1, 0, "b")), [1]);
        let appended = vec![1];
        ask(
            &mut document,
            Request {
                appended,
                ..Request::default()
            },
        );
        assert_eq!(ids(&written(&mut document, 2, 0, "c")), [2]);
        let long = written(&mut document, 3, 0, &"漢字🐝 ".repeat(2_000));
        assert!(long.len() > 20 && long.iter().all(|(_, body)| body.len() <= MAX_BODY));
        let gone = written(&mut document, 0, 6_000, "");
        assert!(!gone.is_empty());
    }

    #[test]
    fn what_is_long_comes_in_entries_that_others_read_in_any_order() {
        let [mut one, mut other] = [Document::new(), Document::new()];
        let long: String = (0..3_000).map(|n| format!("{n} ")).collect();
        let mut all = bodies(written(&mut one, 0, 0, &long));
        all.extend(bodies(written(&mut one, 100, 5_000, "")));
        all.reverse();
        let expected = one.text.to_string();
        let (_, before) = ask(&mut other, updates(1, all));
        assert!(before.iter().any(|a| matches!(a, Answer::Pending { .. })));
        assert_eq!(other.text.to_string(), expected);
    }

    #[test]
    fn bytes_that_are_no_change_are_bad_and_named_before() {
        let mut document = Document::new();
        let (answer, before) = ask(&mut document, updates(7, vec![b"no update".to_vec()]));
        assert!(matches!(answer, Answer::Bad { .. }), "{answer:?}");
        assert_eq!(
            before,
            [Answer::Trying {
                author: 7,
                number: 1
            }]
        );
        let snapshot = document.doc.export(ExportMode::Snapshot).unwrap();
        let (answer, _) = ask(&mut document, updates(7, vec![snapshot]));
        let Answer::Bad { why } = answer else {
            panic!("{answer:?}")
        };
        assert!(why.starts_with("not a change but a"), "{why}");
    }

    #[test]
    fn what_nobody_sees_is_shown_as_a_mark_and_places_stay() {
        let [mut one, mut other] = [Document::new(), Document::new()];
        let hidden = bodies(written(&mut one, 0, 0, "a\u{202e}b\r\u{1b}"));
        assert_eq!(
            text(&mut other, updates(1, hidden)),
            "a\u{fffd}b\u{fffd}\u{fffd}"
        );
        written(&mut other, 2, 1, "c");
        assert_eq!(other.text.to_string(), "a\u{202e}c\r\u{1b}");
    }
}
