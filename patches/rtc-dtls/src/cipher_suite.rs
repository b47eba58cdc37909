//! Cipher suites: the interface of `rtc-dtls`; `dimpl` has its own.

use std::fmt;

/// A configurable suite: none exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherSuiteId {}

/// Name of a version's suites, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suites(pub(crate) &'static str);

impl fmt::Display for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
