//! The arguments that parts of the engine receive with each input.

use librecast::time::Instant;

use crate::config::Node;
use crate::lsdb::Database;

/// This node, its database of the other routers, and the time of the input.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub node: &'a Node,
    /// The other routers.
    pub database: &'a Database,
    /// Arrival time of the input.
    pub now: Instant,
}
