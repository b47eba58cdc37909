//! What the verbs do, a file for each family.

pub mod another;
pub mod book;
pub mod leaf;
pub mod meet;
pub mod membership;
pub mod ping;
pub mod query;
pub mod revoke;
pub mod selftest;
pub mod signal;
pub mod top;
pub mod up;

/// Writes a line to standard output: a reader that has gone is an error, no panic.
pub fn print_line(line: impl std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Tells the user something beside the result.
pub fn hint(line: impl std::fmt::Display) {
    use std::io::Write;
    // a result stays good when nobody reads the hint
    let _ = writeln!(std::io::stderr(), "lcroute: {line}");
}
