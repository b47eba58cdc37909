//! Tests of the functions that pages call.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod calls;
mod stations;
