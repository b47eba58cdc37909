//! `lcroute-lab`, the program that `lcroute sim`, `lcroute demo` and `lcroute bench` execute.
//!
//! - [`lab`] holds worlds made of namespaces, in which hosts run programs
//! - [`programs`] holds ordinary multicast programs (`mc-send`, `mc-recv`)
//! - [`demo`] is `lcroute demo`
//! - [mod@bench] is `lcroute bench`
//! - [`sim`] is the command line of the simulator, `lcroute sim`
//! - `cli` selects one of them; it combines the programs of demo and bench in one binary

pub mod bench;
mod cli;
pub mod demo;
pub mod lab;
pub mod programs;
pub mod sim;

pub use cli::{Applet, VERBS, command, lcroute, main, main_with};
