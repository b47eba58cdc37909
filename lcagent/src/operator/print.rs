//! The user's view of the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::net::Ipv6Addr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use librecast::id::PeerId;
use librecast::plain::clean;
pub(crate) use librecast_program::cli::print_line;
use librecast_program::standard;
use serde_json::json;

use super::core::{Event, Fate, NodeFate, Sender};
use super::lines::{Lines, MAX_WAITING, incomplete};
use crate::datagram::{JobId, StreamId};
use crate::files::AGENT_KEY;
use crate::record::{Ended, Ending, Record};

/// Bytes of output kept of one node for the folded view.
const MAX_FOLDED: usize = 16 << 20;
/// The same for all nodes together.
const MAX_FOLDED_OF_ALL: usize = 256 << 20;

/// The presentation of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each line at once, after the node's name.
    Prefixed,
    /// Equal output once, at the end.
    Folded,
    /// A JSON document for each event.
    Json,
}

/// Writes a line to stderr; a closed stderr does not stop the program.
pub(crate) fn complain(line: impl std::fmt::Display) {
    librecast_program::cli::hint("lcagent", line);
}

/// Shows the answers to one command, or to several in turn.
#[derive(Debug)]
pub struct Printer {
    style: Style,
    job: JobId,
    names: BTreeMap<Sender, (String, Ipv6Addr)>,
    /// Keys of several hosts.
    shared: BTreeSet<PeerId>,
    /// Senders of lines that were shown.
    shown: BTreeSet<Sender>,
    /// Standard output and standard error.
    lines: [Lines; 2],
    /// For each output, the first bytes of an incomplete character.
    tails: BTreeMap<(Sender, bool), Vec<u8>>,
    folded: BTreeMap<Sender, Folded>,
    /// Bytes in `folded`.
    kept: usize,
    is_terminal: bool,
    /// The progress, on a terminal.
    bar: ProgressBar,
}

/// Output of a node.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Folded {
    text: Vec<u8>,
    /// Bytes after `text` that found no room.
    cut: usize,
}

impl Printer {
    /// Makes a printer that has shown nothing.
    #[must_use]
    pub fn new(style: Style) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            style,
            job: JobId([0; 8]),
            names: BTreeMap::new(),
            shared: BTreeSet::new(),
            shown: BTreeSet::new(),
            lines: [
                Lines::new(is_terminal),
                Lines::new(io::stderr().is_terminal()),
            ],
            tails: BTreeMap::new(),
            folded: BTreeMap::new(),
            kept: 0,
            is_terminal,
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
        tell_of_stranger(event);
        match event {
            Event::Progress(_) | Event::Rejected { .. } => Ok(()),
            Event::Appeared {
                id, address, node, ..
            } => {
                self.names.insert(*id, (node.name.clone(), *address));
                Ok(())
            }
            Event::SharedKey {
                key,
                name,
                addresses,
            } => {
                if self.shared.insert(*key) {
                    self.earlier_lines(key).iter().for_each(complain);
                }
                if self.style != Style::Json {
                    return Ok(());
                }
                self.document(
                    &Sender::of(*key),
                    name,
                    "shared_key",
                    json!({ "addresses": addresses }),
                )
            }
            Event::Said { id, record } => {
                match self.style {
                    Style::Json => self.json(id, record)?,
                    _ => self.text(id, record)?,
                }
                match record.is_last() {
                    true => self.end_of(id),
                    false => Ok(()),
                }
            }
        }
    }

    /// Shows the rest of a command after its end.
    pub fn end(&mut self, fates: &[NodeFate]) -> io::Result<()> {
        self.bar.finish_and_clear();
        let begun = self.lines.iter().flat_map(Lines::begun);
        let begun: BTreeSet<Sender> = begun.chain(self.tails.keys().map(|(id, _)| *id)).collect();
        for id in begun {
            self.end_of(&id)?;
        }
        for NodeFate { id, name, fate } in fates {
            if self.style == Style::Json {
                if let Some(event) = silence(fate) {
                    self.document(id, name, event, json!({}))?;
                }
            } else if let Some(complaint) = complaint(fate) {
                let label = self.names.get(id).map(|_| self.label(id));
                complain(format_args!(
                    "{}: {complaint}",
                    label.as_ref().unwrap_or(name)
                ));
            }
        }
        Ok(())
    }

    /// Shows the rest of this node's output.
    fn end_of(&mut self, id: &Sender) -> io::Result<()> {
        let label = self.label(id);
        let [out, err] = &mut self.lines;
        let _ = err.end(*id, &label, &mut standard::errors());
        let mut stdout = standard::output();
        out.end(*id, &label, &mut stdout)?;
        stdout.flush()
    }

    fn name(&self, id: &Sender) -> String {
        let name = self.names.get(id).map(|(name, _)| name.clone());
        name.unwrap_or_else(|| id.key.to_string())
    }

    /// Returns the node's name, with its address if another host has the same key.
    fn label(&self, id: &Sender) -> String {
        let name = self.name(id);
        let address = self.names.get(id).map(|(_, address)| address);
        match (address, id.stream) {
            (Some(address), Some(stream)) if self.shared.contains(&id.key) => {
                shared_label(&name, address, stream)
            }
            _ => name,
        }
    }

    /// Returns sentences about lines that were shown before their key turned out to be shared.
    fn earlier_lines(&self, key: &PeerId) -> Vec<String> {
        let senders = self.shown.iter().filter(|id| id.key == *key);
        let lines = senders.map(|id| {
            let (name, label) = (self.name(id), self.label(id));
            format!("{name}: its lines above come from {label}")
        });
        lines.collect()
    }

    fn text(&mut self, id: &Sender, record: &Record) -> io::Result<()> {
        let (bytes, is_error) = match record {
            Record::Stdout(bytes) => (bytes, false),
            Record::Stderr(bytes) => (bytes, true),
            Record::Warning(text) => {
                complain(format_args!("{}: {}", self.label(id), clean(text)));
                return Ok(());
            }
            _ => return Ok(()),
        };
        if self.style == Style::Folded {
            let folded = self.folded.entry(*id).or_default();
            let room = (MAX_FOLDED - folded.text.len()).min(MAX_FOLDED_OF_ALL - self.kept);
            // no gap between two pieces
            let taken = if folded.cut > 0 {
                0
            } else {
                bytes.len().min(room)
            };
            folded.text.extend_from_slice(&bytes[..taken]);
            folded.cut += bytes.len() - taken;
            self.kept += taken;
            return Ok(());
        }
        self.shown.insert(*id);
        let label = self.label(id);
        let lines = &mut self.lines[usize::from(is_error)];
        let broken = if is_error {
            // a closed stderr does not stop the program
            lines
                .take(*id, &label, bytes, &mut standard::errors())
                .ok()
                .flatten()
        } else {
            let mut stdout = standard::output();
            let broken = lines.take(*id, &label, bytes, &mut stdout)?;
            stdout.flush()?;
            broken
        };
        if let Some(long) = broken {
            complain(format_args!(
                "{}: a long line of its output is broken here, as {} MiB of others wait behind it (--json breaks none)",
                self.label(&long),
                MAX_WAITING >> 20
            ));
        }
        Ok(())
    }

    /// Shows equal output once, after all commands.
    pub fn fold(&mut self) -> io::Result<()> {
        if self.style != Style::Folded {
            return Ok(());
        }
        self.bar.finish_and_clear();
        // cut output equals no other
        let mut same: BTreeMap<(&Folded, Option<&Sender>), Vec<String>> = BTreeMap::new();
        for (id, output) in &self.folded {
            let alone = (output.cut > 0).then_some(id);
            same.entry((output, alone))
                .or_default()
                .push(self.label(id));
        }
        let mut groups: Vec<_> = same.into_iter().collect();
        groups.iter_mut().for_each(|(_, names)| names.sort());
        // most nodes first, then by name
        groups.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.1.cmp(&b.1)));
        let mut out = standard::output();
        for ((output, _), names) in groups {
            let rule = "-".repeat(15);
            writeln!(out, "{rule}\n{} ({})\n{rule}", names.join(","), names.len())?;
            if self.is_terminal {
                let text = String::from_utf8_lossy(&output.text);
                for line in text.lines() {
                    writeln!(out, "{}", clean(line))?;
                }
            } else {
                out.write_all(&output.text)?;
                if output.text.last().is_some_and(|b| *b != b'\n') {
                    writeln!(out)?;
                }
            }
            if output.cut > 0 {
                complain(format_args!(
                    "{}: {} more bytes of its output are not shown: -b keeps {} MiB of a node and {} MiB of all",
                    names.join(","),
                    output.cut,
                    MAX_FOLDED >> 20,
                    MAX_FOLDED_OF_ALL >> 20
                ));
            }
        }
        out.flush()
    }

    /// Returns whether output is missing in the folded view.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        self.folded.values().any(|output| output.cut > 0)
    }

    fn json(&mut self, id: &Sender, record: &Record) -> io::Result<()> {
        let (event, more) = match record {
            Record::Started(at) => ("started", json!({ "at_ms": at })),
            Record::Stdout(bytes) => return self.json_output(id, false, bytes, false),
            Record::Stderr(bytes) => return self.json_output(id, true, bytes, false),
            Record::Ended(ended) => {
                self.json_output(id, false, &[], true)?;
                self.json_output(id, true, &[], true)?;
                ("ended", ended_json(ended))
            }
            Record::Refused(why) => ("refused", json!({ "reason": why })),
            Record::Warning(text) => ("warning", json!({ "text": text })),
            Record::Done => ("done", json!({})),
            Record::Node(_) | Record::Facts(_) | Record::Job(_) | Record::NotSelected => {
                return Ok(());
            }
        };
        self.document(id, &self.name(id), event, more)
    }

    /// Shows output as text. An incomplete character waits for the rest, unless `all` has come.
    /// Bytes that are not text are added.
    fn json_output(
        &mut self,
        id: &Sender,
        is_error: bool,
        bytes: &[u8],
        all: bool,
    ) -> io::Result<()> {
        let mut text = self.tails.remove(&(*id, is_error)).unwrap_or_default();
        text.extend_from_slice(bytes);
        if !all {
            let tail = text.split_off(text.len() - incomplete(&text));
            if !tail.is_empty() {
                self.tails.insert((*id, is_error), tail);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        let event = if is_error { "stderr" } else { "stdout" };
        self.document(id, &self.name(id), event, output_json(&text))
    }

    fn document(
        &self,
        id: &Sender,
        name: &str,
        event: &str,
        mut more: serde_json::Value,
    ) -> io::Result<()> {
        more["node"] = name.into();
        more["id"] = id.key.to_string().into();
        more["event"] = event.into();
        more["job"] = self.job.to_string().into();
        if let Some(stream) = id.stream {
            more["stream"] = stream.to_string().into();
        }
        if let Some((_, address)) = self.names.get(id)
            && self.shared.contains(&id.key)
        {
            more["address"] = address.to_string().into();
        }
        print_line(more)
    }
}

/// Returns the label of a node with a shared key. Two may be at one address.
pub(crate) fn shared_label(name: &str, address: &Ipv6Addr, stream: StreamId) -> String {
    let stream = stream.to_string();
    format!("{name} at {address} ({})", &stream[..4])
}

/// Returns output as text; unless it is all text, its bytes in base64 as well.
fn output_json(bytes: &[u8]) -> serde_json::Value {
    let mut output = json!({ "data": String::from_utf8_lossy(bytes) });
    if std::str::from_utf8(bytes).is_err() {
        output["base64"] = STANDARD.encode(bytes).into();
    }
    output
}

/// Warns, in any style, of a node met for the first time, rejected, or with a shared key.
pub fn tell_of_stranger(event: &Event) {
    match event {
        Event::Appeared {
            id,
            node,
            known: false,
            ..
        } => complain(format_args!(
            "met for the first time: {} {}",
            clean(&node.name),
            id.key
        )),
        Event::Rejected { id, why } => {
            complain(format_args!("{} is not believed: {}", id.key, clean(why)));
        }
        Event::SharedKey {
            name, addresses, ..
        } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            complain(format_args!(
                "{}: {} hosts have one key ({}): a state folder was copied. On the copy stop lcagent, remove {AGENT_KEY} from its \
                 state folder and start it again: it makes a key of its own; give it a name of its own as well",
                clean(name),
                addresses.len(),
                addresses.join(", ")
            ));
        }
        _ => {}
    }
}

/// Makes a line at the bottom of a terminal's stderr; hidden without one, and for JSON.
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

/// Returns the line for any result but success.
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

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn lines_before_a_second_host_with_their_key_are_ascribed_afterwards() {
        let mut printer = Printer::new(Style::Prefixed);
        let key = SecretKey::from_seed(&[1; 32]).peer_id();
        let stream = Some(StreamId([0xab; 8]));
        let id = Sender { key, stream };
        printer
            .names
            .insert(id, ("beta".to_owned(), Ipv6Addr::LOCALHOST));
        printer.text(&id, &Record::Stdout(Vec::new())).unwrap();
        assert_eq!(printer.label(&id), "beta");
        printer.shared.insert(key);
        assert_eq!(
            printer.earlier_lines(&key),
            ["beta: its lines above come from beta at ::1 (abab)"]
        );
        let other = SecretKey::from_seed(&[2; 32]).peer_id();
        assert!(printer.earlier_lines(&other).is_empty());
    }

    #[test]
    fn what_is_no_text_has_its_bytes_beside() {
        assert_eq!(output_json("é".as_bytes()), json!({ "data": "é" }));
        let bytes = output_json(b"a\xff\0\xc3");
        assert_eq!(
            bytes,
            json!({ "data": "a\u{fffd}\0\u{fffd}", "base64": "Yf8Aww==" })
        );
    }
}
