//! Valid names of shares.

use librecast::plain::is_name;
use thiserror::Error;

/// Longest NAME, in bytes, as of a file's name on Linux.
const MAX_NAME: usize = 255;

/// Reason why a name is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty, or longer than 255 bytes.
    #[error("a name has 1 to {MAX_NAME} bytes")]
    Length,
    /// `#` begins the root hash in lc:NAME#ROOTHASH; control characters deceive readers.
    #[error(
        "a name contains no #, no control characters, and none that are invisible or reverse text; give another with --name"
    )]
    Characters,
}

/// Checks the name of a share.
///
/// # Errors
/// The name is invalid.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(NameError::Length);
    }
    if name.contains('#') || !is_name(name) {
        return Err(NameError::Characters);
    }
    Ok(())
}
