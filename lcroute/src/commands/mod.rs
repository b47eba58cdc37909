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

use std::net::IpAddr;

pub use librecast_program::cli::print_line;

/// Parses a group of the command line.
pub fn multicast_group(text: &str) -> Result<IpAddr, String> {
    let group: IpAddr = text.parse().map_err(|e| format!("{e}"))?;
    match group.is_multicast() {
        true => Ok(group),
        false => Err("not a multicast address (ff00::/8, 224.0.0.0/4)".into()),
    }
}

/// Prints a message to the user on standard error.
pub fn hint(line: impl std::fmt::Display) {
    librecast_program::cli::hint("lcroute", line);
}
