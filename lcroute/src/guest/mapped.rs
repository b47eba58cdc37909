//! The router's mapping of a guest's port, and its user's sentences about the way in.

use std::net::SocketAddrV4;

use lcroute_mapping::{PortMapping, Settings, Status};

use crate::commands::hint;

/// The mapping of one guest.
#[derive(Debug)]
pub struct Mapped {
    port: u16,
    mapping: PortMapping,
    told: Option<Hints>,
}

/// The sentences for the owner of a text.
#[derive(Debug)]
pub struct Hints {
    /// How the owner is found without a place, until it is told.
    found: Option<&'static str>,
    reached: Option<SocketAddrV4>,
}

impl Hints {
    /// Begins to tell the user; `found`: how a guest without a place is found.
    pub fn new(found: Option<&'static str>) -> Self {
        Self {
            found,
            reached: None,
        }
    }

    /// Returns the sentence about a mapping of this port, if there is something new.
    fn sentence(&mut self, port: u16, status: &Status) -> Option<String> {
        let reached = status.public();
        let before = std::mem::replace(&mut self.reached, reached);
        match (self.found.take(), reached) {
            (Some(found), Some(at)) => Some(format!(
                "without a place it is found {found}; reached at {at} (mapped), where the firewall of this host lets in UDP port {port}"
            )),
            (Some(found), None) => Some(format!(
                "without a place it is found {found}, where the firewall of this host lets it in; closed: forward UDP port {port}, or name a place (--at HOST)"
            )),
            (None, Some(at)) if before != reached => Some(format!("reached at {at} (mapped)")),
            (None, None) if before.is_some() => {
                let why = status.failure.as_deref().unwrap_or("it ended");
                Some(format!("the router maps UDP port {port} no more: {why}"))
            }
            (None, _) => None,
        }
    }
}

impl Mapped {
    /// Starts to ask for this port, and to tell its user; to be called within a tokio runtime.
    pub fn start(port: u16, secret: [u8; 32], settings: Settings, told: Option<Hints>) -> Self {
        Self {
            port,
            mapping: PortMapping::start(port, secret, settings),
            told,
        }
    }

    /// Handles a change of this host's addresses.
    pub fn moved(&self) {
        self.mapping.moved();
    }

    /// Prints the hint of a change, if there is one.
    pub fn tell(&mut self, status: &Status) {
        let told = self.told.as_mut();
        if let Some(sentence) = told.and_then(|told| told.sentence(self.port, status)) {
            hint(sentence);
        }
    }

    /// Deletes the mapping, within a second.
    pub async fn end(self) {
        self.mapping.end().await;
    }
}

/// Waits for a change; for ever without a mapping. Cancellation loses none.
pub async fn changed(mapped: &mut Option<Mapped>) -> Status {
    match mapped {
        Some(mapped) => mapped.mapping.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(address: &str) -> Status {
        Status {
            address: address.parse().ok(),
            failure: address.is_empty().then(|| "it refuses".to_owned()),
            ..Status::default()
        }
    }

    /// Returns the sentences after these answers.
    fn told(mut told: Hints, answers: &[&str]) -> Vec<Option<String>> {
        let answers = answers.iter();
        let sentences = answers.map(|answer| told.sentence(61_000, &mapped(answer)));
        sentences.collect()
    }

    #[test]
    fn without_a_place_the_first_answer_says_how_it_is_reached() {
        let found = || Hints::new(Some("by the DHT"));
        let all = told(found(), &["203.0.113.5:61000"]);
        let sentence = all[0].as_deref().unwrap();
        assert!(sentence.contains("reached at 203.0.113.5:61000 (mapped)"));
        assert!(!sentence.contains("closed"), "{sentence}");
        // a router behind another NAT leads nobody in
        for answer in ["", "100.64.0.5:61000"] {
            let all = told(found(), &[answer, answer]);
            let sentence = all[0].as_deref().unwrap();
            assert!(sentence.contains("closed: forward UDP port 61000"));
            assert_eq!(all[1], None);
        }
    }

    #[test]
    fn changes_are_told_once() {
        let answers = [
            "",
            "203.0.113.5:1",
            "203.0.113.5:1",
            "203.0.113.5:2",
            "",
            "",
        ];
        let all = told(Hints::new(None), &answers);
        let expected = [
            None,
            Some("reached at 203.0.113.5:1 (mapped)"),
            None,
            Some("reached at 203.0.113.5:2 (mapped)"),
            Some("the router maps UDP port 61000 no more: it refuses"),
            None,
        ];
        let all: Vec<_> = all.iter().map(Option::as_deref).collect();
        assert_eq!(all, expected);
    }
}
