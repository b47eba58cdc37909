//! Tests of the program, and of simulated servers and receivers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod beside_rsync;
mod command_line;
mod program;
mod rsync;
mod simulation;
