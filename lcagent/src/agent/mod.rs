//! The agent: [`core`] decides, with [`policy`] and [`revoked`] (permissions), `budget` (bounds the
//! cost of forgeries) and `delivery` (timing of answers).
//! It owns `jobs`, `payloads` (commands in parts) and `open_commands` (repeated to later agents).
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
mod jobs;
pub mod metrics;
pub(crate) mod modules;
mod open_commands;
pub mod output;
mod payloads;
pub mod policy;
pub mod reasons;
pub mod revoked;
pub(crate) mod shell;
pub(crate) mod supervisor;
