//! A network of routers to play with in a web page: `lcroute-sim`, which runs the real `lcroute-engine`, behind C functions.
//!
//! ```text
//!   page (JavaScript) ── text in, JSON out ── page ── world ── lcroute_sim::Live ── engines
//! ```
//!
//! The page describes a network as a scenario of `lcroute sim`, and does things to it by lines of the simulator's
//! scripts. Or it lets a topology policy be measured (`comparison`). What it hands in and out is text, so nobody frees memory of the other side.

mod comparison;
mod page;
mod world;

pub use comparison::PolicyComparison;
pub use world::World;
