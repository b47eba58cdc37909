//! Serving shares.
//!
//! [`core`] decides, with [`schedule`] (what is sent when) and [`querier`] (MLD's election); [`shell`] is the
//! process around it, [`rescan`] the thread that looks for changed files, [`announce`] the one that tells lcroute.

pub mod announce;
pub mod core;
pub mod querier;
pub mod rescan;
pub mod schedule;
pub mod shell;
