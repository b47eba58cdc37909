//! What the user sees of the answers.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use librecast::id::PeerId;
use serde_json::json;

use super::core::{Event, Fate};
use crate::datagram::JobId;
use crate::record::{Ended, Ending, Record};

/// Longest line that is held back until it is whole, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// Output kept of one node for the folded view.
const MAX_FOLDED: usize = 16 << 20;

/// How answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each line with the node's name, as it comes.
    Prefixed,
    /// Equal output once, at the end.
    Folded,
    /// A JSON document for each event.
    Json,
}

/// One line on stdout.
pub(crate) fn print_line(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Shows the answers to one command, or to several one after the other.
#[derive(Debug)]
pub struct Printer {
    style: Style,
    job: JobId,
    names: BTreeMap<PeerId, String>,
    lines: BTreeMap<(PeerId, bool), Vec<u8>>,
    folded: BTreeMap<PeerId, Vec<u8>>,
    /// On terminals control characters of nodes are not let through.
    plain: [bool; 2],
    /// How far it is, on a terminal.
    bar: ProgressBar,
}

impl Printer {
    /// Nothing has been shown yet.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self {
            style,
            job: JobId([0; 8]),
            names: BTreeMap::new(),
            lines: BTreeMap::new(),
            folded: BTreeMap::new(),
            plain: [io::stdout().is_terminal(), io::stderr().is_terminal()],
            bar: ProgressBar::hidden(),
        }
    }

    /// Shows an event of `job`.
    pub fn event(&mut self, job: JobId, event: &Event) -> io::Result<()> {
        if self.job != job {
            self.job = job;
            self.bar = progress_bar(self.style);
        }
        if let Event::Progress(far) = event {
            // not in `suspend`, which holds the bar
            self.bar.set_message(far.to_string());
            return Ok(());
        }
        let bar = self.bar.clone();
        bar.suspend(|| self.show(event))
    }

    fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Progress(_) => Ok(()),
            Event::Appeared { id, node, known } => {
                self.names.insert(*id, node.name.clone());
                if !known {
                    tell_of_stranger(event);
                }
                Ok(())
            }
            Event::Rejected { .. } => {
                tell_of_stranger(event);
                Ok(())
            }
            Event::Said { id, record } => match self.style {
                Style::Json => self.json(id, record),
                _ => self.text(id, record),
            },
        }
    }

    /// Shows what is left of a command, once nothing more comes.
    pub fn end(&mut self, fates: &[(PeerId, String, Fate)]) -> io::Result<()> {
        self.bar.finish_and_clear();
        for ((id, is_error), line) in std::mem::take(&mut self.lines) {
            self.line(&id, is_error, &line)?;
        }
        for (id, name, fate) in fates {
            if self.style == Style::Json {
                if let Some(event) = silence(fate) {
                    self.document(id, name, event, json!({}))?;
                }
            } else if let Some(complaint) = complaint(fate) {
                eprintln!("lcagent: {name}: {complaint}");
            }
        }
        Ok(())
    }

    fn name(&self, id: &PeerId) -> String {
        self.names
            .get(id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    fn text(&mut self, id: &PeerId, record: &Record) -> io::Result<()> {
        let (bytes, is_error) = match record {
            Record::Stdout(bytes) => (bytes, false),
            Record::Stderr(bytes) => (bytes, true),
            Record::Warning(text) => {
                eprintln!("lcagent: {}: {}", self.name(id), clean(text));
                return Ok(());
            }
            _ => return Ok(()),
        };
        if self.style == Style::Folded {
            let folded = self.folded.entry(*id).or_default();
            let room = MAX_FOLDED - folded.len();
            folded.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return Ok(());
        }
        let mut text = self.lines.remove(&(*id, is_error)).unwrap_or_default();
        text.extend_from_slice(bytes);
        let mut rest = text.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.line(id, is_error, &rest[..end])?;
            rest = &rest[end + 1..];
        }
        while rest.len() > MAX_LINE {
            self.line(id, is_error, &rest[..MAX_LINE])?;
            rest = &rest[MAX_LINE..];
        }
        if !rest.is_empty() {
            self.lines.insert((*id, is_error), rest.to_vec());
        }
        Ok(())
    }

    fn line(&self, id: &PeerId, is_error: bool, line: &[u8]) -> io::Result<()> {
        let mut out = self.name(id).into_bytes();
        out.extend_from_slice(b": ");
        if self.plain[usize::from(is_error)] {
            out.extend_from_slice(clean_line(line).as_bytes());
        } else {
            out.extend_from_slice(line);
        }
        out.push(b'\n');
        if is_error {
            // a reader of stderr that has gone is no reason to stop
            let _ = io::stderr().write_all(&out);
            Ok(())
        } else {
            io::stdout().write_all(&out)
        }
    }

    /// Shows equal output once, after all commands.
    pub fn fold(&mut self) -> io::Result<()> {
        if self.style != Style::Folded {
            return Ok(());
        }
        self.bar.finish_and_clear();
        let mut same: BTreeMap<&[u8], Vec<String>> = BTreeMap::new();
        for (id, output) in &self.folded {
            same.entry(output).or_default().push(self.name(id));
        }
        let mut groups: Vec<_> = same.into_iter().collect();
        groups.iter_mut().for_each(|(_, names)| names.sort());
        // most nodes first, then by name
        groups.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.1.cmp(&b.1)));
        let mut out = io::stdout().lock();
        for (output, names) in groups {
            let rule = "-".repeat(15);
            writeln!(out, "{rule}\n{} ({})\n{rule}", names.join(","), names.len())?;
            if self.plain[0] {
                let text = String::from_utf8_lossy(output);
                for line in text.lines() {
                    writeln!(out, "{}", clean(line))?;
                }
            } else {
                out.write_all(output)?;
                if output.last().is_some_and(|b| *b != b'\n') {
                    writeln!(out)?;
                }
            }
        }
        Ok(())
    }

    fn json(&self, id: &PeerId, record: &Record) -> io::Result<()> {
        let (event, more) = match record {
            Record::Started(at) => ("started", json!({ "at_ms": at })),
            Record::Stdout(b) => ("stdout", json!({ "data": String::from_utf8_lossy(b) })),
            Record::Stderr(b) => ("stderr", json!({ "data": String::from_utf8_lossy(b) })),
            Record::Ended(ended) => ("ended", ended_json(ended)),
            Record::Refused(why) => ("refused", json!({ "reason": why })),
            Record::Warning(text) => ("warning", json!({ "text": text })),
            Record::Done => ("done", json!({})),
            Record::Node(_) | Record::Facts(_) | Record::Job(_) | Record::NotSelected => {
                return Ok(());
            }
        };
        self.document(id, &self.name(id), event, more)
    }

    fn document(
        &self,
        id: &PeerId,
        name: &str,
        event: &str,
        mut more: serde_json::Value,
    ) -> io::Result<()> {
        more["node"] = name.into();
        more["id"] = id.to_string().into();
        more["event"] = event.into();
        more["job"] = self.job.to_string().into();
        print_line(clean_json(&more))
    }
}

/// Tells, whatever is shown beside it, that somebody was met for the first time, or is not believed.
pub fn tell_of_stranger(event: &Event) {
    match event {
        Event::Appeared {
            id,
            node,
            known: false,
        } => eprintln!(
            "lcagent: met for the first time: {} {id}",
            clean(&node.name)
        ),
        Event::Rejected { id, why } => eprintln!("lcagent: {id} is not believed: {}", clean(why)),
        _ => {}
    }
}

/// A line at the bottom of the terminal on stderr; hidden where there is none, and where machines read.
fn progress_bar(style: Style) -> ProgressBar {
    if style == Style::Json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn ended_json(ended: &Ended) -> serde_json::Value {
    json!({
        "how": ended.how.name(),
        "code": ended.how.code(),
        "duration_ms": ended.duration_us as f64 / 1_000.0,
        "user_ms": ended.user_us as f64 / 1_000.0,
        "system_ms": ended.system_us as f64 / 1_000.0,
        "memory_kib": ended.memory_kib,
        "cut_bytes": ended.cut,
    })
}

fn silence(fate: &Fate) -> Option<&'static str> {
    match fate {
        Fate::Silent => Some("silent"),
        Fate::Unfinished => Some("unfinished"),
        Fate::Answered(_) => None,
    }
}

/// What is worth a line of its own: everything but success.
pub(crate) fn complaint(fate: &Fate) -> Option<String> {
    Some(match fate {
        Fate::Silent => "no answer".to_owned(),
        Fate::Unfinished => "did not come to an end in time".to_owned(),
        Fate::Answered(Record::Refused(why)) => format!("refused: {}", clean(why)),
        Fate::Answered(Record::Ended(ended)) => {
            let cut = match ended.cut {
                0 => None,
                1 => Some("1 byte of output was cut off".to_owned()),
                n => Some(format!("{n} bytes of output were cut off")),
            };
            let how = Some(ended.how).filter(|how| *how != Ending::Exited(0));
            let how = how.map(|how| how.to_string());
            let said: Vec<String> = how.into_iter().chain(cut).collect();
            if said.is_empty() {
                return None;
            }
            said.join("; ")
        }
        Fate::Answered(_) => return None,
    })
}

/// Text of a node without what a terminal would execute, or show as other than it is.
#[must_use]
pub fn clean(text: &str) -> String {
    let keep = |c: char| match is_deceptive(c) && c != '\t' {
        true => '\u{fffd}',
        false => c,
    };
    text.chars().map(keep).collect()
}

/// JSON on one line: what a terminal would execute or show as other than it is stands there by its number.
#[must_use]
pub fn clean_json(document: &serde_json::Value) -> String {
    escape(&document.to_string())
}

/// The same for JSON that is text already.
#[must_use]
pub fn escape(document: &str) -> String {
    let mut line = String::new();
    // only strings hold such characters, and there an escape is the same
    for c in document.chars() {
        if is_deceptive(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                line += &format!("\\u{unit:04x}");
            }
        } else {
            line.push(c);
        }
    }
    line
}

/// Whether a terminal would execute the character, or it changes the order in which others are shown, or it is invisible
/// and no part of any writing: controls, marks of direction, ends of lines and paragraphs, annotations, tags.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A line as a terminal gets it: the end of a line of other systems is no part of it.
fn clean_line(line: &[u8]) -> String {
    clean(&String::from_utf8_lossy(
        line.strip_suffix(b"\r").unwrap_or(line),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_what_is_there() {
        for deceptive in [
            "\u{1b}[2J",
            "\u{202e}",
            "\u{2066}",
            "\u{200f}",
            "\u{61c}",
            "\u{9b}",
            "\u{2028}",
            "\u{feff}",
            "\u{e0041}",
        ] {
            let shown = clean(&format!("a{deceptive}b"));
            assert!(shown.starts_with("a\u{fffd}"), "{shown:?}");
        }
        let plain = "tab\tbüro 日本 \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{1f468}\u{200d}\u{1f469}";
        assert_eq!(
            clean(plain),
            plain,
            "writings of all directions, joined ones too"
        );
        assert_eq!(clean_line(b"dos\r"), "dos");
        assert_eq!(clean_line(b"10%\r20%\r"), "10%\u{fffd}20%");
    }

    #[test]
    fn json_is_the_same_data_and_harmless_on_a_terminal() {
        let text = "a\u{202e}b\u{9b}2J\u{7f}\u{e0041}é\n";
        let document = json!({ "data": text });
        let line = clean_json(&document);
        assert_eq!(line, r#"{"data":"a\u202eb\u009b2J\u007f\udb40\udc41é\n"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            document
        );
    }
}
