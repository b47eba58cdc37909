//! The network that a text leads to: of a station, or of a session.
//!
//! The owner's program executes itself in a guest that is the network's first router; further
//! programs of the owner are members beside it. Whoever has the text executes a program in a leaf.
//! Inside, the guest tells the program its text.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::thread;

use librecast::outside::Place;
use librecast::reach::MAX_VALUE;
use librecast::text::TextKind;
use librecast::time::UnixTime;
use librecast::wire::Reader;
use zeroize::Zeroizing;

use crate::arguments;
use crate::cli::{Exit, ExitError};
use crate::guest::{self, MAX_TEXT_PLACES, TextEntry};
use crate::guest_state::Inside;

/// Seconds around the present day for which the guest may have records signed.
const DAY: u64 = 86_400;

/// The network of a text, seen from inside.
#[derive(Debug)]
pub struct Within {
    /// The text; for its owner, what [`TextEntry::text`] said.
    pub text: Zeroizing<String>,
    /// Where the network meets, as it stands behind the text; empty: on LANs alone.
    pub place: String,
}

/// Returns the network of a text in which this program runs; none: in none of a text.
///
/// # Errors
/// The guest's state cannot be read.
pub fn within() -> io::Result<Option<Within>> {
    let Some(inside) = Inside::of_environment()? else {
        return Ok(None);
    };
    let state = inside.read()?;
    Ok((!state.text.is_empty()).then(|| Within {
        text: Zeroizing::new(state.text.clone()),
        place: state.place.clone(),
    }))
}

/// Splits `TEXT@PLACE`.
///
/// # Errors
/// The place is none.
pub fn split(text: &str) -> Result<(&str, Option<Place>), ExitError> {
    match text.split_once('@') {
        Some((text, place)) if TextKind::of(text).is_some() => {
            Ok((text, Some(place.parse().map_err(usage)?)))
        }
        _ => Ok((text, None)),
    }
}

/// Executes this program in the network of its own text. Precedes other threads. Returns only inside.
///
/// # Errors
/// The places, or the guest's state; the key is another one; `lcroute` cannot be executed.
pub fn own(entry: &TextEntry) -> anyhow::Result<OnAir> {
    if entry.places.len() > MAX_TEXT_PLACES {
        return Err(usage(format!("{MAX_TEXT_PLACES} places at most")).into());
    }
    match within()? {
        Some(within) if *within.text == entry.text => Ok(OnAir {
            place: within.place,
            questions: guest::questions()?,
        }),
        Some(_) => Err(usage("the key is another one than this network's").into()),
        None => Err(execute(entry).into()),
    }
}

/// Executes this program in the network of a text. Precedes other threads. Returns only on failure.
#[must_use]
pub fn execute(entry: &TextEntry) -> ExitError {
    // other users see arguments
    let shown = |given: &OsString| match given.to_str() {
        Some(text) => OsString::from(arguments::without_secrets(text)),
        None => given.clone(),
    };
    let given: Vec<_> = arguments::given().iter().skip(1).map(shown).collect();
    guest::by_text(entry, &given)
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
fn usage(message: impl ToString) -> ExitError {
    ExitError::new(Exit::Usage, message.to_string())
}

/// The owner's program in its network.
#[derive(Debug)]
pub struct OnAir {
    /// Where others find it, as it stands behind its text.
    pub place: String,
    questions: Option<UnixDatagram>,
}

impl OnAir {
    /// Signs the text's record for a DHT with `sign`, in a thread of its own, as often as the guest
    /// asks. The guest reads what strangers send, so the key stays here. Signals and rights are set
    /// before: a thread has those of its start.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn sign(
        self,
        sign: impl Fn((i64, &[u8]), UnixTime) -> [u8; 64] + Send + 'static,
    ) -> io::Result<()> {
        let Some(questions) = self.questions else {
            return Ok(());
        };
        let thread = thread::Builder::new().name("signer".into());
        let run = move || {
            let mut buffer = [0; 16 + MAX_VALUE];
            // the guest ends with this program
            while let Ok(length) = questions.recv(&mut buffer) {
                // each question has an answer: the guest counts them
                let signature = answer(&buffer[..length], UnixTime::now(), &sign);
                if questions.send(&signature.unwrap_or([0; 64])).is_err() {
                    return;
                }
            }
        };
        thread.spawn(run).map(drop)
    }
}

/// Signs what [`guest::SIGN_FD`] asks, around the present day.
fn answer(
    question: &[u8],
    now: UnixTime,
    sign: impl Fn((i64, &[u8]), UnixTime) -> [u8; 64],
) -> Option<[u8; 64]> {
    let mut question = Reader::new(question);
    let (time, sequence) = (question.u64().ok()?, question.u64().ok()?);
    let item = (i64::try_from(sequence).ok()?, question.rest());
    let is_near = time.abs_diff(now.as_secs()) <= DAY;
    is_near.then(|| sign(item, UnixTime::from_secs(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_have_places() {
        for text in ["news", "news@home", "@home", "lcr1abc"] {
            assert_eq!(split(text).unwrap(), (text, None));
        }
        let (text, place) = split("lcs1abc@meet.example").unwrap();
        assert_eq!(text, "lcs1abc");
        assert_eq!(place.unwrap().to_string(), "meet.example");
        for wrong in ["lcr1abc@", "lcs1abc@a b"] {
            assert_eq!(split(wrong).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn records_are_signed_around_the_present_day_alone() {
        const NOW: u64 = 1_800_000_000;
        let sign = |(sequence, value): (i64, &[u8]), time: UnixTime| {
            assert_eq!((sequence, value), (7, &b"value"[..]));
            assert!(time.as_secs().abs_diff(NOW) <= DAY);
            [9; 64]
        };
        let asked = |time: u64, sequence: u64| {
            let numbers = [time, sequence].map(u64::to_be_bytes).concat();
            let question = [&numbers[..], b"value"].concat();
            answer(&question, UnixTime::from_secs(NOW), sign)
        };
        assert_eq!(asked(NOW - DAY, 7), Some([9; 64]));
        assert_eq!(asked(NOW + DAY + 1, 7), None);
        assert_eq!(asked(0, 7), None);
        assert_eq!(asked(NOW, u64::MAX), None);
        assert_eq!(answer(&[0; 15], UnixTime::from_secs(NOW), sign), None);
    }
}
