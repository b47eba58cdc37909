//! The secret of an epoch, apart from it: tokens carry only the secret.

use zeroize::Zeroizing;

/// A secret of members, which debug output does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochSecret(Zeroizing<[u8; 32]>);

impl EpochSecret {
    /// Wraps these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

crate::debug_by_name!(EpochSecret);
