//! Tests of groups of simulated members.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod deputies;
mod devices;
mod simulation;
mod thousand;
#[path = "simulation/world.rs"]
mod world;
