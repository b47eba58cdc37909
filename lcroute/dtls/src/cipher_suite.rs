//! Suites, which `rtc` lets its users choose: `dimpl` has its own.

use std::fmt;

/// A suite that a caller asks for. There is none to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherSuiteId {}

/// The name of a version's suites, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suites(pub(crate) &'static str);

impl fmt::Display for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
