//! What newcomers get of a conversation, as its owner's host has it.
//!
//! ```text
//! version 8 = 1 | n x { author 256 | id 64 | time 64 (ms since 1970) | name (length 8)
//!                     | text 8 (1: text, 0: other bytes) | length 32 | content }
//! ```
//!
//! Offers of files are left out: their keys belong to the members of that time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lcgroup_core::MAX_HISTORY;
use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};
use librecast_log::MAX_ENTRIES_OF_AUTHOR;
use zeroize::Zeroizing;

use crate::conversation::{Message, REMEMBERED};
use crate::names::normal;
use crate::request::MAX_TEXT;

/// Version of the content, its first byte.
const VERSION: u8 = 1;
/// Bytes of the longest name.
const MAX_NAME: usize = 255;

/// Most messages: as many as a reader recognises when they come twice.
pub const MAX_MESSAGES: u64 = REMEMBERED as u64;

/// Entries of the owner's own log that what was said before may fill. Chosen: half of all.
const MAX_HISTORY_ENTRIES: usize = MAX_ENTRIES_OF_AUTHOR / 2;
/// Bytes of a history in each of its entries, at least.
const IN_ENTRY: usize = 900;

/// Bytes of the next history while entries of earlier ones fill `used` places: at most half of the
/// rest, so that many joins leave the owner's own words where they are.
pub fn room_beside(used: usize) -> usize {
    (MAX_HISTORY_ENTRIES.saturating_sub(used) / 2 * IN_ENTRY).min(MAX_HISTORY)
}

/// Encodes the last of `messages` that fit into `room` bytes, earliest first.
pub fn encode(messages: &[Message], room: usize) -> Zeroizing<Vec<u8>> {
    let (mut chosen, mut length) = (Vec::new(), 1);
    for message in messages.iter().rev().filter_map(encode_one) {
        length += message.len();
        if length > room {
            break;
        }
        chosen.push(message);
    }
    let mut all = Zeroizing::new(vec![VERSION]);
    for message in chosen.iter().rev() {
        all.extend_from_slice(message);
    }
    all
}

fn encode_one(message: &Message) -> Option<Zeroizing<Vec<u8>>> {
    let (is_text, content) = match (&message.text, &message.bytes) {
        (Some(text), _) => (true, text.as_bytes().to_vec()),
        (None, Some(bytes)) => (false, BASE64.decode(bytes).ok()?),
        (None, None) => return None,
    };
    let content = Zeroizing::new(content);
    let name = message.name.as_bytes();
    let id = u64::from_str_radix(&message.id, 16).ok()?;
    if name.len() > MAX_NAME || content.len() > MAX_TEXT {
        return None;
    }
    let mut w = Writer::new();
    // a newcomer cannot check the signature of a former device
    let author = message.person.unwrap_or(message.author);
    w.put(author.public_key()).u64(id).u64(message.time);
    w.u8(name.len() as u8).put(name).u8(is_text.into());
    w.u32(content.len() as u32).put(&content);
    Some(w.into_vec().into())
}

/// Decodes all messages; `until`: their latest time (ms since 1970).
pub fn decode(content: &[u8], until: u64) -> Result<Vec<Message>, WireError> {
    let mut r = Reader::new(content);
    r.version(VERSION)?;
    let mut all = Vec::new();
    while !r.is_empty() && (all.len() as u64) < MAX_MESSAGES {
        let author = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("author"))?;
        let (id, time) = (r.u64()?, r.u64()?);
        let name = normal(&librecast::plain::clean(r.text8()?));
        let is_text = r.u8()? != 0;
        let length = r.u32()? as usize;
        if length > MAX_TEXT {
            return Err(WireError::Bad("message length"));
        }
        let content = r.take(length)?;
        let text = std::str::from_utf8(content).ok().filter(|_| is_text);
        all.push(Message {
            n: 0,
            author,
            person: None,
            name,
            id: format!("{id:016x}"),
            entry: None,
            time: time.min(until),
            text: text.map(str::to_owned),
            bytes: text.is_none().then(|| BASE64.encode(content)),
            files: None,
            file: None,
            call: None,
            earlier: true,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn message(n: u64, text: &str) -> Message {
        Message {
            n: 0,
            author: SecretKey::from_seed(&[n as u8; 32]).peer_id(),
            time: n,
            earlier: true,
            ..Message::of_ann(n, text)
        }
    }

    #[test]
    fn messages_come_back_without_files_and_with_times_until_now() {
        let bytes = Message {
            text: None,
            bytes: Some(BASE64.encode([0, 0xff])),
            ..message(2, "")
        };
        let files = Message {
            text: None,
            files: Some("plans".into()),
            ..message(3, "")
        };
        let all = [message(1, "one"), bytes.clone(), files, message(4, "")];
        let encoded = encode(&all, MAX_HISTORY);
        assert_eq!(encoded[..2], [1, all[0].author.public_key()[0]]);
        let back = decode(&encoded, 2).unwrap();
        let last = Message {
            time: 2,
            ..message(4, "")
        };
        assert_eq!(back, [message(1, "one"), bytes, last]);
        for cut in [0, 5, encoded.len() - 1] {
            assert!(decode(&encoded[..cut], 9).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_last_messages_that_fit_are_taken() {
        let long = "x".repeat(MAX_TEXT);
        let all: Vec<Message> = (0..40).map(|n| message(n, &long)).collect();
        let encoded = encode(&all, MAX_HISTORY);
        assert!(encoded.len() <= MAX_HISTORY);
        let back = decode(&encoded, 99).unwrap();
        assert_eq!(back, all[40 - back.len()..]);
        assert_eq!(back.len(), MAX_HISTORY / (MAX_TEXT + 57));
        assert_eq!(decode(&encode(&[], MAX_HISTORY), 0), Ok(vec![]));
    }

    #[test]
    fn many_joins_fill_no_more_than_their_part() {
        let all: Vec<Message> = (0..999)
            .map(|n| message(n % 200, &"x".repeat(900)))
            .collect();
        let (mut used, mut first) = (0, 0);
        for join in 0..100 {
            let encoded = encode(&all, room_beside(used));
            // an empty one is not sent
            used += (encoded.len() - 1).div_ceil(IN_ENTRY);
            first = if join == 0 { used } else { first };
        }
        assert!(first > 500 && used > 13 * first, "{first} {used}");
        assert!(used <= MAX_HISTORY_ENTRIES, "{used}");
        assert_eq!(encode(&all, room_beside(MAX_HISTORY_ENTRIES + 1)).len(), 1);
    }

    #[test]
    fn no_changed_byte_panics() {
        let all = encode(&[message(1, "one"), message(2, "two")], MAX_HISTORY);
        for at in 0..all.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = all.to_vec();
                changed[at] = value;
                let _ = decode(&changed, 9);
                let _ = decode(&changed[..at], 9);
            }
        }
    }
}
