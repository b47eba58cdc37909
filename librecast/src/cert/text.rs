//! Texts of certificates: names of nodes, labels, and terms of an invitation.

use crate::wire::WireError;

/// Longest node name and label in bytes.
pub const MAX_NAME: usize = 63;
/// Most nodes of one invitation: as many as a network has.
pub const MAX_USES: u32 = 4_096;

/// Returns whether a text can be a node's name: a host name (RFC 1123), usable in commands, logs
/// and selectors. Different names look different.
pub fn is_node_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        let letters = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-');
        letters && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

/// Terms of an invitation, in place of a node's name: programs ignore unknown terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub uses: Option<u32>,
    pub uplink: bool,
}

/// The term of leaves that may ask.
const UPLINK: &str = "uplink";

impl Terms {
    /// Returns `uses=N`, `uplink`, both with a space between, or nothing.
    pub fn text(self) -> Result<String, WireError> {
        let mut terms = Vec::new();
        match self.uses {
            None => {}
            Some(n @ 1..=MAX_USES) => terms.push(format!("uses={n}")),
            Some(_) => return Err(WireError::Bad("number of uses (1 to 4096)")),
        }
        if self.uplink {
            terms.push(UPLINK.to_owned());
        }
        Ok(terms.join(" "))
    }

    /// Parses terms, and ignores terms of later versions.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let mut terms = Self::default();
        for term in text.split(' ') {
            terms.uplink |= term == UPLINK;
            let Some(n) = term.strip_prefix("uses=") else {
                continue;
            };
            let read = Self {
                uses: n.parse().ok(),
                uplink: false,
            };
            if terms.uses.is_some() || read.uses.is_none() || read.text()? != term {
                return Err(WireError::Bad("number of uses"));
            }
            terms.uses = read.uses;
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_those_of_hosts() {
        for good in ["alpha", "a", "web-1.example.org", "3com", "B"] {
            assert!(is_node_name(good), "{good}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for bad in [
            "",
            "my host",
            "-a",
            "a-",
            "a..b",
            ".",
            "a_b",
            "\u{e4}",
            "alpha\u{200b}",
            "\u{202e}ahpla",
            &long,
        ] {
            assert!(!is_node_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn terms_have_one_spelling_and_those_of_later_versions_are_passed_over() {
        for uplink in [false, true] {
            for uses in [None, Some(1), Some(MAX_USES)] {
                let terms = Terms { uses, uplink };
                assert_eq!(Terms::parse(&terms.text().unwrap()), Ok(terms));
            }
            for uses in [Some(0), Some(MAX_USES + 1)] {
                assert!(Terms { uses, uplink }.text().is_err());
            }
        }
        let both = Terms {
            uses: Some(2),
            uplink: true,
        };
        assert_eq!(both.text().unwrap(), "uses=2 uplink");
        for other in ["uplinks", "Uplink", "uplink=1"] {
            assert!(!Terms::parse(other).unwrap().uplink, "{other}");
        }
        let read = |text| Terms::parse(text).map(|terms| terms.uses);
        assert_eq!(read("anything at all"), Ok(None));
        assert_eq!(read("leaf uses=3"), Ok(Some(3)));
        for bad in [
            "uses=",
            "uses=0",
            "uses=03",
            "uses=+3",
            "uses=4097",
            "uses=x",
            "uses=1 uses=2",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
