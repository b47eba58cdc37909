//! The operator's side: [`core`] decides, with `assembly` (assembles a node's answer).
//!
//! Around it: `shell` (sockets and time), `known` (nodes that were met), `rolling` (groups of nodes
//! in turn), `print` with `lines` and `plain` (output for the user).

mod assembly;
pub mod core;
pub(crate) mod known;
mod lines;
pub(crate) mod print;
pub(crate) mod rolling;
pub(crate) mod shell;
