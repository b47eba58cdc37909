//! Questions. Every attender may ask: a question is a request to the owner of the track. The owner
//! appends a question that is taken up, and all attenders receive it.
//!
//! ```text
//!   name text8 | text <= 720          body of a request, and of an entry of kind 1
//!   n x id 8                          kind 2: the presenter has these questions
//! ```
//!
//! Its author repeats a request until an entry acknowledges it.

use librecast::id::derive;
use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::captions::{MAX_CAPTION, split_caption};
use crate::drops::DropReason;
use crate::plain::{clean, clean_line};

/// Longest question, in bytes.
pub const MAX_QUESTION: usize = MAX_CAPTION;

/// Kind of an entry of the questions' track: a question was taken up (docs/protocol.md §12).
pub(crate) const ASKED: u8 = 1;
/// Kind of an entry of the questions' track: the presenter has received questions.
pub(crate) const RECEIVED: u8 = 2;

/// Questions that an entry acknowledges, as its body has room for.
pub(crate) const IDS_IN_RECEIPT: usize = 120;
/// Questions of a session that are acknowledged. Chosen: half of the entries of an author's log.
pub(crate) const MAX_RECEIVED: usize = 8_192;

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
    /// As [`encode`](Self::encode).
    pub fn entry(&self) -> Result<(u8, Vec<u8>), WireError> {
        Ok((ASKED, self.encode()?))
    }

    /// Decodes the body of a request or entry.
    ///
    /// # Errors
    /// The reason for which the body is dropped.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        let read = |mut r: Reader<'_>| {
            let name = clean_line(r.text8()?);
            let text = std::str::from_utf8(r.rest()).map_err(|_| WireError::Bad("text"))?;
            Ok(Self {
                name,
                text: clean(text).replace('\n', " ").trim().to_owned(),
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

/// A question by the body of its request: the same one, asked again, has the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId([u8; 8]);

impl QuestionId {
    /// Returns the id of the question with this body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let hash = derive("lcstudio 2026 question", &[body]);
        Self(*hash.first_chunk().expect("a hash has 32 bytes"))
    }

    /// Returns kind and body of the entry that acknowledges questions, at most
    /// [`IDS_IN_RECEIPT`].
    pub(crate) fn receipt(ids: &[Self]) -> (u8, Vec<u8>) {
        debug_assert!(ids.len() <= IDS_IN_RECEIPT, "they do not fit into an entry");
        (RECEIVED, ids.iter().flat_map(|id| id.0).collect())
    }

    /// Decodes the body of such an entry.
    pub(crate) fn decode_receipt(body: &[u8]) -> Result<Vec<Self>, DropReason> {
        let (ids, rest) = body.as_chunks::<8>();
        match rest.is_empty() && ids.len() <= IDS_IN_RECEIPT {
            true => Ok(ids.iter().copied().map(Self).collect()),
            false => Err(DropReason::Malformed),
        }
    }
}

/// Time between the first two transmissions of a question; it doubles. Requests are not repaired,
/// and the presenter's host takes only some a second.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Longest time between two transmissions. Chosen: 120 questions at once all arrive within it.
const ASK_LONGEST: Duration = Duration::from_secs(8);
/// Time after which a question without a receipt is given up. Chosen: a presenter may begin again.
const ASK_FOR: Duration = Duration::from_secs(120);
/// Questions of an attender without a receipt. Chosen: more than anybody types in that time.
const MAX_WAITING: usize = 64;

/// Reason for which a question is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AskError {
    /// The name is too long.
    #[error("this question cannot be sent: {0}")]
    TooLong(#[from] WireError),
    /// Too many questions wait for their receipt.
    #[error("{MAX_WAITING} questions wait already for the presenter to get them")]
    TooMany,
}

/// A question without a receipt.
#[derive(Debug)]
struct Waiting {
    id: QuestionId,
    text: String,
    body: Vec<u8>,
    /// Time of the next transmission, and the time from it to the one after.
    at: Instant,
    pause: Duration,
    /// Time at which it is given up.
    until: Instant,
}

/// Questions of an attender, on their way to the presenter.
#[derive(Debug, Default)]
pub struct Asking {
    waiting: Vec<Waiting>,
}

impl Asking {
    /// Sends a question. A text that is too long for one question becomes several.
    pub fn ask(&mut self, name: &str, text: &str, now: Instant) -> Result<(), AskError> {
        for part in split_caption(text) {
            if self.waiting.len() >= MAX_WAITING {
                return Err(AskError::TooMany);
            }
            let question = Question {
                name: clean_line(name),
                text: clean(part),
            };
            let body = question.encode()?;
            self.waiting.push(Waiting {
                id: QuestionId::of(&body),
                text: question.text,
                body,
                at: now,
                pause: ASK_AGAIN,
                until: now + ASK_FOR,
            });
        }
        Ok(())
    }

    /// Forgets questions whose receipt has come. Returns whether there were any.
    pub fn acknowledge(&mut self, has_received: impl Fn(QuestionId) -> bool) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !has_received(waiting.id));
        self.waiting.len() < before
    }

    /// Returns the text of a question that is given up, for its author.
    pub fn poll_lost(&mut self, now: Instant) -> Option<String> {
        let lost = self.waiting.iter().position(|waiting| waiting.until <= now);
        lost.map(|at| self.waiting.remove(at).text)
    }

    /// Returns the body of a due request.
    pub fn poll_request(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut waiting = self.waiting.iter_mut();
        let waiting = waiting.find(|waiting| waiting.at <= now)?;
        waiting.at = now + waiting.pause;
        waiting.pause = (waiting.pause * 2).min(ASK_LONGEST);
        Some(waiting.body.clone())
    }

    /// Returns the number of questions without a receipt.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the time at which the next request is due, or a question is given up.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.iter();
        waiting.map(|waiting| waiting.at.min(waiting.until)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_line_whatever_ends_its_lines() {
        let body = [&[0][..], b" one\ntwo\r\nthree\x0cfour\x0b"].concat();
        let question = Question::decode(&body).unwrap();
        assert_eq!(question.text, "one two three four");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    fn a_question_without_a_receipt_is_repeated_and_then_told_to_its_author() {
        let begin = Instant::now();
        let mut asking = Asking::default();
        asking.ask("Bob", "how far?", begin).unwrap();
        let mut sent = Vec::new();
        let lost = loop {
            let at = asking.next_timeout().unwrap();
            if let Some(lost) = asking.poll_lost(at) {
                break lost;
            }
            let body = asking.poll_request(at).unwrap();
            let question = Question::decode(&body).unwrap();
            assert_eq!((&*question.name, &*question.text), ("Bob", "how far?"));
            assert_eq!(asking.poll_request(at), None);
            assert!(!asking.acknowledge(|_| false));
            sent.push((at - begin).as_millis());
        };
        assert_eq!(sent[..5], [0, 400, 1_200, 2_800, 6_000]);
        assert!(sent.len() > 15 && sent.windows(2).all(|two| two[1] - two[0] <= 8_000));
        assert_eq!(lost, "how far?");
        assert_eq!((asking.waiting(), asking.next_timeout()), (0, None));
        asking.ask("Bob", &"long ".repeat(400), begin).unwrap();
        assert!(asking.poll_request(begin).is_some() && asking.poll_request(begin).is_some());
        let mut more = 0..=MAX_WAITING;
        let refused = more.find_map(|n| asking.ask("Bob", &n.to_string(), begin).err());
        assert_eq!(refused, Some(AskError::TooMany));
    }
}
