//! What is asked. Anybody who attends may ask: a question is a request to the owner of the track. What he takes up, he
//! appends, and everybody sees it.
//!
//! ```text
//!   name text8 | text <= 720          body of a request, and of an entry of kind 1
//! ```

use librecast::wire::{Reader, WireError, Writer};

use crate::captions::MAX_CAPTION;
use crate::drops::DropReason;
use crate::plain::{clean, clean_line};

/// Longest question, in bytes.
pub const MAX_QUESTION: usize = MAX_CAPTION;

pub(crate) const ASKED: u8 = 1;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who asks, as he says; empty where he does not.
    pub name: String,
    /// What.
    pub text: String,
}

impl Question {
    /// The body of a request.
    ///
    /// # Errors
    ///
    /// Name or text are too long.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        if self.text.len() > MAX_QUESTION {
            return Err(WireError::Bad("length of a question"));
        }
        let mut w = Writer::new();
        w.text8(&self.name)?.put(self.text.as_bytes());
        Ok(w.into_vec())
    }

    /// Kind and body of the entry with which it is taken up.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn entry(&self) -> Result<(u8, Vec<u8>), WireError> {
        Ok((ASKED, self.encode()?))
    }

    /// From a request's body, or an entry's.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        let read = |mut r: Reader<'_>| {
            let name = clean_line(r.text8()?);
            let text = std::str::from_utf8(r.rest()).map_err(|_| WireError::Bad("text"))?;
            Ok(Self {
                name,
                text: clean(&text.replace('\n', " ")).trim().to_owned(),
            })
        };
        let question: Self =
            read(Reader::new(body)).map_err(|_: WireError| DropReason::Malformed)?;
        match question.text.is_empty() || question.text.len() > MAX_QUESTION {
            true => Err(DropReason::Malformed),
            false => Ok(question),
        }
    }
}
