//! `lcroute-lab`, the program that `lcroute sim`, `lcroute demo` and `lcroute bench` execute.
//!
//! - [mod@bench] is `lcroute bench`
//! - [`sim`] is the command line of the simulator, `lcroute sim`
//! - `cli` selects one of them, or the demo; it combines the programs of demo and bench in one binary
//!
//! The demo, and the worlds of demo, bench and tests, are in `lcroute-demo`.

pub mod bench;
mod cli;
pub mod sim;

pub use cli::{VERBS, command, lcroute, main, main_with, programs};
