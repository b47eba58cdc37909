//! The common part of a page's WebAssembly modules that run beside the member of the node page
//! (`lcroute-web-node`). The member transports their datagrams, and joins and sends on their
//! commands.
//!
//! ```text
//!   page (JavaScript) ── bytes ── Exchange ── a state machine of the module
//!   member (JavaScript) ── datagram ──►  Command ──► join, leave, send
//! ```

mod clock;
mod command;
mod exchange;

pub use clock::at;
pub use command::{Command, Datagram};
pub use exchange::Exchange;
