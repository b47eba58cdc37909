//! Receiving shares.
//!
//! [`core`] decides, with [`choice`] (which version), [`assembly`] ([`tree`]: what there is in it), [`fetch`] (channels),
//! `stretches` (of blocks), [`collector`] and `streams` (symbols), [`window`] (how many channels) and [`changes`] (when they are told). `network` and `transfer` are
//! the process around it; `stats` is what it has cost; `plan` and `finish` put everything in place, with the permissions
//! that `modes` gives. `browse` asks what is shared.

pub mod assembly;
pub(crate) mod browse;
pub mod changes;
pub mod choice;
pub mod collector;
pub mod core;
pub mod fetch;
mod finish;
pub(crate) mod modes;
mod moved;
mod network;
pub(crate) mod plan;
pub(crate) mod stats;
mod streams;
mod stretches;
pub(crate) mod transfer;
pub mod tree;
pub mod window;
