//! A change of the notes' text, as requests carry it.

use lcstudio_core::Edit;
use serde::{Deserialize, Serialize};

/// An [`Edit`] in a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    pub at: usize,
    pub remove: usize,
    pub insert: String,
}

impl From<Edit> for Change {
    fn from(edit: Edit) -> Self {
        let Edit { at, remove, insert } = edit;
        Self { at, remove, insert }
    }
}
