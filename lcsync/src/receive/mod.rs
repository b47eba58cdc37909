//! Receiving shares.
//!
//! [`fetch`] (channels), [`collector`] (symbols), [`window`] (how many channels), [`changes`] (when they are told) and `choice` (which version) decide; `network` and
//! `transfer` are the process around them; `stats` is what it has cost; `plan` and `finish` put everything in place,
//! with the permissions that `modes` gives. `browse` asks what is shared.

pub(crate) mod browse;
pub mod changes;
mod choice;
pub mod collector;
pub mod fetch;
mod finish;
pub(crate) mod modes;
mod moved;
mod network;
pub(crate) mod plan;
pub(crate) mod stats;
pub(crate) mod transfer;
pub mod window;
