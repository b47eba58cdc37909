//! Names of a session's tracks.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest tag of a language, in bytes (RFC 5646, 4.4.1).
const MAX_LANGUAGE: usize = 35;

/// Reason for which a text is not a track or language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is not a track.
    #[error(
        "slides, turn, pictures, screen, camera, questions, notes, captions/LANGUAGE or audio/LANGUAGE"
    )]
    Track,
    /// The text is not a language.
    #[error("a language is a tag such as en, de or pt-BR")]
    Language,
}

/// A language by its tag (RFC 5646), in small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Language(String);

impl Language {
    /// Returns its tag.
    pub fn tag(&self) -> &str {
        &self.0
    }

    /// Returns the closest of `found` to the preferred languages, the best first; else the first.
    #[must_use]
    pub fn closest<'a>(preferred: &[Self], found: &'a [Self]) -> Option<&'a Self> {
        fn main(tag: &Language) -> Option<&str> {
            tag.0.split('-').next()
        }
        let of_one = |wanted: &Self| {
            let exact = found.iter().find(|tag| *tag == wanted);
            let same = |tag: &&Self| main(tag) == main(wanted);
            exact.or_else(|| found.iter().find(same))
        };
        preferred.iter().find_map(of_one).or(found.first())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Language {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_part = |part: &str| {
            (1..=8).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric())
        };
        let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
        match begins && text.len() <= MAX_LANGUAGE && text.split('-').all(is_part) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(NameError::Language),
        }
    }
}

/// A track.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrackName {
    /// Slides, as Markdown.
    Slides,
    /// Turns: the shown slide.
    Turn,
    /// Pictures that slides name.
    Pictures,
    /// The presenter's screen, as still pictures.
    Screen,
    /// The presenter's camera.
    Camera,
    /// Questions that were taken up.
    Questions,
    /// The text that all attenders may write.
    Notes,
    /// Speech as text.
    Captions(Language),
    /// Speech as sound.
    Audio(Language),
}

impl TrackName {
    /// Returns whether its contents are entries of a log.
    pub fn has_entries(&self) -> bool {
        !matches!(self, Self::Screen | Self::Camera | Self::Audio(_))
    }
}

impl fmt::Display for TrackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slides => f.write_str("slides"),
            Self::Turn => f.write_str("turn"),
            Self::Pictures => f.write_str("pictures"),
            Self::Screen => f.write_str("screen"),
            Self::Camera => f.write_str("camera"),
            Self::Questions => f.write_str("questions"),
            Self::Notes => f.write_str("notes"),
            Self::Captions(language) => write!(f, "captions/{language}"),
            Self::Audio(language) => write!(f, "audio/{language}"),
        }
    }
}

impl FromStr for TrackName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Ok(match text.split_once('/') {
            Some(("captions", language)) => Self::Captions(language.parse()?),
            Some(("audio", language)) => Self::Audio(language.parse()?),
            None if text == "slides" => Self::Slides,
            None if text == "turn" => Self::Turn,
            None if text == "pictures" => Self::Pictures,
            None if text == "screen" => Self::Screen,
            None if text == "camera" => Self::Camera,
            None if text == "questions" => Self::Questions,
            None if text == "notes" => Self::Notes,
            _ => return Err(NameError::Track),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_language_is_taken() {
        let all = ["en", "de", "pt-br"].map(|tag| tag.parse::<Language>().unwrap());
        let find = |preferred: &[&str]| {
            let preferred = preferred.iter().map(|tag| tag.parse().unwrap());
            let preferred: Vec<Language> = preferred.collect();
            Language::closest(&preferred, &all).unwrap().to_string()
        };
        for (wanted, found) in [("de", "de"), ("de-AT", "de"), ("pt", "pt-br"), ("fr", "en")] {
            assert_eq!(find(&[wanted]), found);
        }
        assert_eq!(find(&["fr", "pt-PT", "de"]), "pt-br");
        assert_eq!(find(&[]), "en");
        assert_eq!(Language::closest(&all, &[]), None);
    }

    #[test]
    fn names_come_back_from_their_text() {
        for name in [
            "slides",
            "turn",
            "pictures",
            "screen",
            "camera",
            "questions",
            "notes",
            "captions/en",
            "audio/pt-br",
        ] {
            assert_eq!(name.parse::<TrackName>().unwrap().to_string(), name);
        }
        let brazil: TrackName = "captions/pt-BR".parse().unwrap();
        assert_eq!(brazil.to_string(), "captions/pt-br");
        let long = format!("captions/{}", "a-".repeat(20));
        for wrong in [
            "",
            "slide",
            "captions",
            "captions/",
            "captions/e/n",
            "video/en",
            "audio/-en",
            &long,
        ] {
            assert!(wrong.parse::<TrackName>().is_err(), "{wrong}");
        }
    }
}
