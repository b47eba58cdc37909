//! Rules of the repository, held against its sources, manifests and units.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod budget;
mod dependencies;
mod modules;
mod names;
mod sources;
mod units;
