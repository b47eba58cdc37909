//! Which links there should be: one [`Policy`] of several, and a driver that feeds it and acts on what it asks for.
//!
//! ```text
//!   who is there (link state, carriers) ─┐
//!   what cannot be reached directly     ─┼─> Topology ──> Policy: mesh, regular, tree, fractal, auto
//!   links, their RTT, the peers' requests ┘      │
//!                                               └──> Wanted (to make), Keep (to tell), Retire (to close)
//! ```
//!
//! A link is there as long as one of its ends wants it. Most links are wanted by both, because both compute
//! them from the same members; where their views differ, LINK REQUEST says so, and nothing flaps.
//!
//! | file | what |
//! |---|---|
//! | `driver` | inputs, debouncing, link requests, links retired |
//! | `policy` | what policies decide from |
//! | `auto` | a mesh while the network is small |
//! | `mesh` | everybody |
//! | `regular` | about k links: rings, and for k >= 6 two near ones |
//! | `tree` | a link with a parent, and those of children |
//! | `fractal` | cells of cells: a mesh of up to eight, and a link on each level above |
//! | `rings` | random rings on which everybody knows his place |
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
