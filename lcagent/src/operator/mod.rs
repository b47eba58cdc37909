//! The operator's side: [`core`] decides, with `assembly` (a node's answer put together).
//!
//! Around it: `shell` (sockets and time), `known` (nodes that were met), `rolling` (one group of them
//! after the other), `print` with `lines` and `plain` (what the user sees).

mod assembly;
pub mod core;
pub(crate) mod known;
mod lines;
pub(crate) mod print;
pub(crate) mod rolling;
pub(crate) mod shell;
