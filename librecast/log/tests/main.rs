//! Tests of the entry log on simulated networks.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
mod presence;
mod readers;
mod restarts;
mod simulation;
