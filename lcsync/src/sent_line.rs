//! The line of a beacon of `lcsync send`: the key that signs the files, with ` text` behind it for
//! a text.

use std::fmt;
use std::str::FromStr;

use librecast::id::{IdError, PeerId};

/// Ends the line of a text.
const TEXT: &str = " text";

/// What a receiver learns from the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentLine {
    /// The key that signs the share.
    pub signer: PeerId,
    /// The share is one file with a text, which receivers print.
    pub is_text: bool,
}

impl fmt::Display for SentLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_text { TEXT } else { "" };
        write!(f, "{}{end}", self.signer)
    }
}

impl FromStr for SentLine {
    type Err = IdError;

    fn from_str(line: &str) -> Result<Self, IdError> {
        let signer = line.strip_suffix(TEXT);
        Ok(Self {
            signer: signer.unwrap_or(line).parse()?,
            is_text: signer.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let signer = SecretKey::from_seed(&[7; 32]).peer_id();
        for is_text in [false, true] {
            let line = SentLine { signer, is_text };
            assert_eq!(line.to_string().parse::<SentLine>().unwrap(), line);
        }
        for wrong in [
            "",
            " text",
            &format!("{signer} texts"),
            &format!("{signer} "),
        ] {
            assert!(wrong.parse::<SentLine>().is_err(), "{wrong}");
        }
    }
}
