//! Requests to the document of notes, and its answers: a line of JSON each, between `lcstudio notes`
//! and the program that reads updates of other members.

use serde::{Deserialize, Serialize};

use crate::edits::Edit;

/// Longest shown text, in characters: as in pages (chosen there, in UTF-16 units).
pub const MAX_TEXT: usize = 1_000_000;

/// A request to the document.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// Changes of this host, in characters of the last answer's text.
    pub edits: Vec<Edit>,
    /// Updates of other members.
    pub updates: Vec<Update>,
    /// Earlier changes of this host that are not entries yet.
    pub drafts: Vec<Vec<u8>>,
    /// Drafts that are entries now.
    pub appended: Vec<u32>,
    /// Number of the next draft.
    pub first_draft: Option<u32>,
    /// Author id of this host.
    pub own: u64,
    /// Whether conflicting lines are shown as the document has them, without marks.
    pub is_plain: bool,
}

/// An update in a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Update {
    /// Author id of its entry.
    pub author: u64,
    /// Number of its entry.
    pub number: u32,
    /// The update.
    pub body: Vec<u8>,
}

/// An answer of the document.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The document reads this update now.
    Trying {
        /// Author id of its entry.
        author: u64,
        /// Number of its entry.
        number: u32,
    },
    /// The update waits for other updates.
    Pending {
        /// Author id of its entry.
        author: u64,
        /// Number of its entry.
        number: u32,
    },
    /// All updates are read; the document searches conflicting lines.
    Looking,
    /// The request was done.
    Done {
        /// The shown text; `None`: unchanged.
        text: Option<String>,
        /// Changes of this host by draft number; a later one replaces one of the same number.
        drafts: Vec<(u32, Vec<u8>)>,
        /// Whether the text is longer than the shown one.
        is_full: bool,
    },
    /// The update that was tried last is harmful.
    Bad {
        /// The reason.
        why: String,
    },
    /// The document does not work.
    Failed {
        /// The reason.
        why: String,
    },
}

impl Answer {
    /// Returns whether it ends its request.
    #[must_use]
    pub fn is_last(&self) -> bool {
        use Answer::{Bad, Done, Failed, Looking, Pending, Trying};
        match self {
            Trying { .. } | Pending { .. } | Looking => false,
            Done { .. } | Bad { .. } | Failed { .. } => true,
        }
    }
}
