//! The links that a node wants: one [`Policy`] of several, and a driver around it.
//!
//! ```text
//!   members (link state, carriers) ─┐
//!   failures of direct links       ─┼─> Topology ──> Policy: mesh, regular, tree, fractal, auto
//!   links, RTTs, peers' requests   ─┘      │
//!                                          └──> Wanted (make), Keep (report), Retire (close)
//! ```
//!
//! A link stays as long as one of its ends wants it. Most links are wanted by both, because both
//! compute them from the same members. If views differ, LINK REQUEST shows it, and nothing flaps.
//!
//! | file | part |
//! |---|---|
//! | `driver` | inputs, debouncing, link requests, links retired |
//! | `policy` | inputs and answer of policies |
//! | `auto` | a mesh while the network is small |
//! | `mesh` | links with all members |
//! | `regular` | about k links: rings, and for k >= 6 two near ones |
//! | `tree` | a link with a parent, and those of children |
//! | `fractal` | cells of cells: a mesh of up to eight, and a link on each level above |
//! | `rings` | random rings on which each node knows its place |
//! | `near` | links chosen by latency |

mod auto;
mod driver;
mod fractal;
mod mesh;
mod near;
mod policy;
mod regular;
mod rings;
#[cfg(test)]
mod tests;
mod tree;

pub use driver::{Topology, TopologyEvent};
pub use policy::{Known, LinkRequest, LinkView, Policy, Prospect, View};

pub use crate::config::{PolicyKind, TopologyConfig};
