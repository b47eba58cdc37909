//! The common part of a page's WebAssembly modules beside the member of the node page
//! (`lcroute-web-node`). The member joins, sends and receives for them.
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
