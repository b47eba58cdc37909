//! The agent: [`core`] decides, with [`policy`] and [`revoked`] (permissions), `budget` (bounds the
//! cost of forgeries) and `delivery` (timing of answers).
//!
//! Around it: `shell` (sockets and time), `job` (a job's folder), `modules`, `supervisor` with
//! `contain` (runs a job), `audit`, `facts`, [`metrics`], [`config`].

mod audit;
mod budget;
pub mod config;
mod contain;
pub mod core;
mod delivery;
mod facts;
mod job;
pub mod metrics;
pub(crate) mod modules;
pub mod policy;
pub mod reasons;
pub mod revoked;
pub(crate) mod shell;
pub(crate) mod supervisor;
