//! A simulated network of routers in a web page: `lcroute-sim`, which runs the real
//! `lcroute-engine`, behind C functions.
//!
//! ```text
//!   page (JavaScript) ── text in, JSON out ── page ── world ── lcroute_sim::Live ── engines
//! ```
//!
//! The page describes a network as a scenario of `lcroute sim`, and controls it by lines of the
//! simulator's scripts. It can also measure a topology policy (`comparison`). Inputs and outputs
//! are text, so neither side frees the other's memory.

mod comparison;
mod page;
mod world;

pub use comparison::PolicyComparison;
pub use world::World;
