//! Signed commands to a fleet over multicast.
//!
//! | module | what it holds |
//! |---|---|
//! | [`envelope`] | the signed command as one datagram, and what an agent checks in it |
//! | [`replay`] | which commands were seen already; survives a restart |
//! | [`selector`] | which nodes a command is for |
//! | `cli`, `keygen` | the command line and its verbs |
//!
//! All that decides is a state machine: the clock and the replay window are handed in, nothing is
//! read from or written to a socket or a disk. Only `keygen` touches files.

mod cli;
pub mod envelope;
mod keygen;
pub mod replay;
pub mod selector;

pub use cli::main;
