//! `lcgroup set`, `get --key`, `keys` and `watch`: the state that members share.

use std::io::{Read, Write};
use std::thread;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lcgroup_core::shared::MAX_VALUE;
use librecast_program::cli::{Exit, ExitError, note_of_input, print_line};
use librecast_program::standard;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Verbs, WAIT_INTERVAL, printable};
use crate::request::Request;
use crate::shared::Value;

/// The daemon's answer to [`Request::Changes`].
#[derive(Deserialize)]
struct Changes {
    last: u64,
    changes: Vec<Value>,
}

impl Verbs {
    /// Sets a key, or removes it. A dash reads the value from standard input.
    pub fn set(&self, group: String, key: String, value: Option<String>) -> anyhow::Result<Exit> {
        let of = group.clone();
        let (text, bytes) = match value {
            None => (None, None),
            Some(value) if value == "-" => read_value()?,
            Some(value) => (Some(Zeroizing::new(value)), None),
        };
        let request = Request::Set {
            group,
            key,
            text,
            bytes,
        };
        let answer = self.ask_when_checked(&request, &of)?;
        self.tell_sent(&of, answer)
    }

    /// Prints the value of a key: a text as a line, other bytes as they are.
    pub fn value(&self, group: String, key: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Value { group, key })?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        let value: Value = serde_json::from_value(answer)?;
        let mut bytes = value.value().unwrap_or_default();
        if value.text.is_some() {
            bytes.push(b'\n');
        }
        let mut out = standard::output();
        out.write_all(&bytes)?;
        out.flush()?;
        Ok(Exit::Ok)
    }

    /// Prints the keys, each in a line.
    pub fn keys(&self, group: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Keys { group })?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        for key in answer["keys"].as_array().into_iter().flatten() {
            print_line(key["key"].as_str().unwrap_or_default())?;
        }
        Ok(Exit::Ok)
    }

    /// Prints each change from now on, until the daemon ends.
    pub fn watch(&self, group: &str) -> anyhow::Result<Exit> {
        let mut after = None;
        loop {
            let group = group.to_owned();
            let answer = self.ask(&Request::Changes { group, after });
            let answer: Changes = serde_json::from_value(answer?).context("changes")?;
            for change in &answer.changes {
                match self.json {
                    true => print_line(serde_json::to_string(change)?)?,
                    false => print_line(shown(change))?,
                }
            }
            if answer.changes.is_empty() {
                thread::sleep(WAIT_INTERVAL);
            }
            after = Some(answer.last);
        }
    }
}

/// Formats a change as a line, without control characters.
fn shown(change: &Value) -> String {
    let key = &change.key;
    let what = match (&change.text, &change.bytes) {
        (Some(text), _) => format!("{key} = {}", printable(text)),
        (None, Some(bytes)) => format!("{key} = ({} characters of base64)", bytes.len()),
        (None, None) => format!("{key} was removed"),
    };
    format!("{}: {what}", printable(&change.name))
}

/// A value as text or in base64.
type Given = (Option<Zeroizing<String>>, Option<Zeroizing<String>>);

/// Reads a value from standard input. The final end of line does not belong to a text.
fn read_value() -> anyhow::Result<Given> {
    let mut value = Zeroizing::new(Vec::new());
    note_of_input("the value");
    let most = MAX_VALUE as u64 + 2;
    standard::input().take(most).read_to_end(&mut value)?;
    if value.len() as u64 == most {
        let text = format!("a value has at most {MAX_VALUE} bytes");
        return Err(ExitError::new(Exit::Usage, text).into());
    }
    let end = value.strip_suffix(b"\n").unwrap_or(&value);
    Ok(match std::str::from_utf8(end) {
        Ok(text) => (Some(Zeroizing::new(text.to_owned())), None),
        Err(_) => (None, Some(Zeroizing::new(BASE64.encode(&value[..])))),
    })
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn a_change_of_others_is_one_line_that_moves_no_cursor() {
        let mut change = Value {
            key: "colour".into(),
            text: Some("red\u{1b}[2J\nAnn: x".into()),
            bytes: None,
            author: SecretKey::from_seed(&[1; 32]).peer_id(),
            clock: 1,
            time: 0,
            name: "Bob".into(),
        };
        assert_eq!(shown(&change), "Bob: colour = red\u{fffd}[2J\n    Ann: x");
        change.text = None;
        assert_eq!(shown(&change), "Bob: colour was removed");
    }
}
