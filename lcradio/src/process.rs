//! The process: dropped rights, signals, time.

pub use librecast_program::process::{Wake, confine};
