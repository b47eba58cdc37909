//! Tests of servers and clients over the loopback interface.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod crowd;
mod relay;
mod rooms;
mod server;
mod tls;
mod two_nodes;
