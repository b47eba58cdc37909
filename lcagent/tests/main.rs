//! Tests of agent and operator by their public interfaces.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cli;
mod one_agent;
mod simulation;
