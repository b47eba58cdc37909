//! What parts of the engine are handed while an input is handled.

use librecast::time::Instant;

use crate::config::Node;
use crate::lsdb::Database;

/// This node, what it knows of the others, and the time of the input.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// This node.
    pub node: &'a Node,
    /// The other routers.
    pub database: &'a Database,
    /// When the input came.
    pub now: Instant,
}
