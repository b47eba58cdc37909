//! Multicast routing as pure state machines: no sockets, no clocks, no threads.
//!
//! Time comes in as `now`, randomness as a seed, packets as bytes; [`Engine::poll_output`] says what is
//! to be done, [`Engine::poll_timeout`] when to call again and why. The same inputs in the same order
//! always give the same outputs.
//!
//! A packet's way: [`Engine::handle_local_packet`] -> [`classify`] -> `forward` (who wants it) ->
//! [`Output::Data`] -> [`Engine::handle_data`] -> [`header`] -> `duplicate` -> `querier` (did a local
//! program join) -> [`Output::Local`].
//!
//! A JOIN's way: an MLD report in [`Engine::handle_local_packet`] -> `querier` -> `interest` ->
//! [`control`] -> [`Output::Control`] -> [`Engine::handle_control`] -> `forward` -> `proxy` ->
//! [`Output::LocalMld`].

pub mod classify;
mod config;
pub mod control;
mod drops;
mod duplicate;
mod engine;
mod filter;
mod flush;
mod forward;
pub mod header;
mod hold;
mod interest;
mod output;
mod proxy;
mod querier;
mod random;
mod snapshot;
mod table;
#[cfg(test)]
mod testing;
pub mod topology;
mod traffic;

pub use config::{Config, Limits, LinkId, Neighbor};
pub use drops::{DropReason, Drops};
pub use engine::Engine;
pub use filter::Filter;
pub use output::{Links, Output, TimerKind};
pub use proxy::ROUTER_ADDRESS;
pub use snapshot::{Counters, GroupSnapshot, NeighborSnapshot, Snapshot, Tables};
