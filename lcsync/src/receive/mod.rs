//! Receiving shares.
//!
//! [`fetch`] (channels), [`collector`] (symbols), [`window`] (how many channels), [`changes`] (when they are told) and [`choice`] (which version) decide; [`network`] and
//! [`transfer`] are the process around them; [`stats`] is what it has cost; [`plan`] and [`finish`] put everything in place,
//! with the permissions that [`modes`] gives.

pub mod changes;
pub mod choice;
pub mod collector;
pub mod fetch;
pub mod finish;
pub mod modes;
mod moved;
pub mod network;
pub mod plan;
pub mod stats;
pub mod transfer;
pub mod window;
