//! The verbs, a file for each family.

pub mod another;
pub mod book;
pub mod group;
pub mod guest;
pub mod lan;
pub mod leaf;
pub mod meet;
pub mod meeting_places;
pub mod membership;
pub mod names;
pub mod ping;
pub mod query;
pub mod revoke;
pub mod selftest;
pub mod signal;
pub mod top;
pub mod up;
pub mod words;

pub use librecast_program::cli::print_line;

/// Prints a message to the user on standard error.
pub fn hint(line: impl std::fmt::Display) {
    librecast_program::cli::hint("lcroute", line);
}
