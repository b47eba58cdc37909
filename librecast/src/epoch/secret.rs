//! The secret of an epoch, by itself: tokens carry it, and tokens know nothing else of epochs.

use std::fmt;

use zeroize::Zeroizing;

/// A secret of members, which debug output does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochSecret(Zeroizing<[u8; 32]>);

impl EpochSecret {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochSecret")
    }
}
