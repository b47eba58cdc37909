//! What the verbs do, a file for each family.

pub mod demo;
pub mod membership;
pub mod query;
pub mod selftest;
pub mod signal;
