//! Tests of stations and calls on simulated networks.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod call;
mod simulation;
mod step;
