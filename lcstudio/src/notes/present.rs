//! Present writers of the notes, on a terminal: a line for each change.

use std::time::{Duration, Instant};

use lcstudio_core::{DropReason, Others};

/// Time between two lines, so that an unstable network causes no flood of them. Chosen.
const SAY_INTERVAL: Duration = Duration::from_secs(3);

/// Present writers, and the last printed names.
#[derive(Debug, Default)]
pub struct Present {
    others: Others,
    said: Vec<String>,
    said_at: Option<Instant>,
}

impl Present {
    /// Handles presence of an author.
    pub fn handle(&mut self, author: u64, body: &[u8], now: Instant) -> Result<(), DropReason> {
        self.others.handle(author, body, now).map(drop)
    }

    /// Returns the names, if they have changed and a line is due. A writer may have an empty name.
    pub fn poll_names(&mut self, now: Instant) -> Option<&[String]> {
        self.others.handle_timeout(now);
        let names = self
            .others
            .iter()
            .map(|(_, presence)| presence.name.clone());
        let mut names: Vec<String> = names.collect();
        // empty names come last
        names.sort_by(|a, b| (a.is_empty(), a).cmp(&(b.is_empty(), b)));
        let is_early = self.said_at.is_some_and(|at| at + SAY_INTERVAL > now);
        if names == self.said || is_early {
            return None;
        }
        (self.said, self.said_at) = (names, Some(now));
        Some(&self.said)
    }
}

/// Returns a sentence for people.
pub fn words(names: &[String]) -> String {
    let called = |name: &String| match name.is_empty() {
        true => "somebody".to_owned(),
        false => name.clone(),
    };
    match names {
        [] => "nobody else shows himself in the notes".to_owned(),
        [one] => format!("{} is in the notes", called(one)),
        [one, other] => format!("{} and {} are in the notes", called(one), called(other)),
        [one, others @ ..] => format!(
            "{} and {} others are in the notes",
            called(one),
            others.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use lcstudio_core::Presence;

    use super::*;

    fn body(name: &str, writes: bool) -> Vec<u8> {
        let presence = Presence {
            name: name.to_owned(),
            writes,
            cursor: Vec::new(),
        };
        presence.encode().unwrap()
    }

    #[test]
    fn who_comes_and_goes_is_said_and_not_who_types() {
        let (mut present, begin) = (Present::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(present.poll_names(begin), None);
        for (author, name) in [(1, "Ann"), (2, ""), (3, "Bob")] {
            present.handle(author, &body(name, false), begin).unwrap();
        }
        let said = present.poll_names(begin).map(words);
        assert_eq!(said.unwrap(), "Ann and 2 others are in the notes");
        present
            .handle(1, &body("Ann", true), begin + second)
            .unwrap();
        assert_eq!(present.poll_names(begin + 5 * second), None);
        present.handle(3, b"", begin + 5 * second).unwrap();
        let said = present.poll_names(begin + 5 * second).map(words);
        assert_eq!(said.unwrap(), "Ann and somebody are in the notes");
        present.handle(2, b"", begin + 6 * second).unwrap();
        assert_eq!(present.poll_names(begin + 6 * second), None, "too soon");
        let said = present.poll_names(begin + 8 * second).map(words);
        assert_eq!(said.unwrap(), "Ann is in the notes");
        let said = present.poll_names(begin + 40 * second).map(words);
        assert_eq!(said.unwrap(), "nobody else shows himself in the notes");
    }
}
