//! The process: what it gives up before others' bytes come, signals, time.

pub use librecast_program::process::{Wake, confine, unix_ms};
