//! What a share may be called.

/// Longest NAME, in bytes.
const MAX_NAME: usize = 255;

/// Whether a share may have this name.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a name has 1 to 255 bytes");
    }
    if name.contains('#') || name.chars().any(char::is_control) {
        return Err("a name contains no # and no control characters; give another with --name");
    }
    Ok(())
}
