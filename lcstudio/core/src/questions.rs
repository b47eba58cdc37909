//! Questions. Every attender may ask: a question is a request to the owner of the track. The owner
//! appends a question that is taken up, and all attenders receive it.
//!
//! ```text
//!   name text8 | text <= 720          body of a request, and of an entry of kind 1
//! ```

use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, WireError, Writer};

use crate::captions::{MAX_CAPTION, split_caption};
use crate::drops::DropReason;
use crate::plain::{clean, clean_line};

/// Longest question, in bytes.
pub const MAX_QUESTION: usize = MAX_CAPTION;

/// The kind of all entries of the questions' track: a question was taken up (docs/protocol.md §12).
pub(crate) const ASKED: u8 = 1;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Name that the questioner gives; may be empty.
    pub name: String,
    /// Text of the question.
    pub text: String,
}

impl Question {
    /// Returns the body of a request.
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

    /// Returns kind and body of the entry that takes it up.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn entry(&self) -> Result<(u8, Vec<u8>), WireError> {
        Ok((ASKED, self.encode()?))
    }

    /// Decodes the body of a request or entry.
    ///
    /// # Errors
    ///
    /// The reason for which the body is dropped.
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

/// Transmissions of a question, as requests are not repaired. A receiver drops the copies.
const ASKED_TIMES: u32 = 3;
/// Time between two transmissions of a question.
const ASK_AGAIN: Duration = Duration::from_millis(400);

/// Questions of an attender, on their way to the presenter.
#[derive(Debug, Default)]
pub struct Asking {
    /// Time of the next transmission, number of transmissions, and body of each.
    waiting: Vec<(Instant, u32, Vec<u8>)>,
}

impl Asking {
    /// Sends a question. A text that is too long for one question becomes several.
    ///
    /// # Errors
    ///
    /// The name is too long.
    pub fn ask(&mut self, name: &str, text: &str, now: Instant) -> Result<(), WireError> {
        for part in split_caption(text) {
            let question = Question {
                name: clean_line(name),
                text: clean(part),
            };
            self.waiting.push((now, 0, question.encode()?));
        }
        Ok(())
    }

    /// Returns the body of a due request.
    pub fn poll_request(&mut self, now: Instant) -> Option<Vec<u8>> {
        let due = |(at, ..): &&mut (Instant, u32, Vec<u8>)| *at <= now;
        let (at, times, body) = self.waiting.iter_mut().find(due)?;
        (*at, *times) = (now + ASK_AGAIN, *times + 1);
        let body = body.clone();
        self.waiting.retain(|(_, times, _)| *times < ASKED_TIMES);
        Some(body)
    }

    /// Returns the time at which the next request is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, ..)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    fn a_question_is_sent_three_times() {
        let begin = Instant::now();
        let mut asking = Asking::default();
        asking.ask("Bob", "how far?", begin).unwrap();
        let mut sent = Vec::new();
        while let Some(at) = asking.next_timeout() {
            let body = asking.poll_request(at).unwrap();
            let question = Question::decode(&body).unwrap();
            assert_eq!((&*question.name, &*question.text), ("Bob", "how far?"));
            assert_eq!(asking.poll_request(at), None);
            sent.push((at - begin).as_millis());
        }
        assert_eq!(sent, [0, 400, 800]);
        asking.ask("Bob", &"long ".repeat(400), begin).unwrap();
        assert!(asking.poll_request(begin).is_some() && asking.poll_request(begin).is_some());
    }
}
