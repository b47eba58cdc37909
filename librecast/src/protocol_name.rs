//! Names of the protocols of streams.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::plain::is_name;

/// Longest name in bytes: its length field has one byte.
pub const MAX_PROTOCOL_NAME: usize = 255;

/// The reason why a text is not a protocol name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no protocol name: it begins with /, has 2 to 255 bytes, and neither spaces, commas nor control characters"
)]
pub struct BadProtocolName(String);

/// The protocol of a stream, such as `/voice/rtp` or `/doc/automerge/v2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolName(String);

impl ProtocolName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProtocolName {
    type Err = BadProtocolName;

    fn from_str(text: &str) -> Result<Self, BadProtocolName> {
        let is_good = text.starts_with('/')
            && (2..=MAX_PROTOCOL_NAME).contains(&text.len())
            && !text.contains(|c: char| c == ',' || c.is_whitespace())
            && is_name(text);
        match is_good {
            true => Ok(Self(text.to_owned())),
            false => {
                let shown = text.chars().take(80).flat_map(char::escape_default);
                Err(BadProtocolName(shown.collect()))
            }
        }
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ProtocolName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ProtocolName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_one_can_type_and_see() {
        for good in [
            "/x",
            "/doc/automerge/v2",
            "/straße/1",
            &format!("/{}", "x".repeat(254)),
        ] {
            assert_eq!(good.parse::<ProtocolName>().unwrap().as_str(), good);
        }
        let long = format!("/{}", "x".repeat(255));
        for bad in [
            "",
            "/",
            "x",
            "ssh/1",
            "/a b",
            "/a,b",
            "/a\n",
            "/\u{1b}[2J",
            "/\u{85}x",
            "/a\u{202e}b",
            "/a\u{200b}b",
            &long,
        ] {
            let error = bad.parse::<ProtocolName>().unwrap_err().to_string();
            assert!(is_name(&error), "{error:?}");
        }
    }
}
