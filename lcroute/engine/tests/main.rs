//! Tests of the whole engine by its public interface.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
mod engine;
mod gateways;
mod hostile;
mod ipv4;
mod lans;
mod leaves;
mod network;
mod segments;
