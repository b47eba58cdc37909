//! Serving shares.
//!
//! [`core`] decides, with [`schedule`] (what is sent when) and [`querier`] (MLD's election); [`shell`] is the
//! process around it, [`rescan`] the thread that publishes changed files (`notices` of the kernel and `pace` say when to look).

pub mod core;
mod notices;
mod pace;
pub mod querier;
pub mod rescan;
pub mod schedule;
pub mod shell;
