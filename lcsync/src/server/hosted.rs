//! The server's types for shares of files on disk.

use super::core;
use crate::index::Index;

/// A served share of files on disk.
pub type Share = core::Share<Index>;
/// A server of such shares.
pub type Server = core::Server<Index>;
