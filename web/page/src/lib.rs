//! What WebAssembly modules of pages have in common that work beside the member of the node page (`lcroute-web-node`): it carries
//! their datagrams, and joins and sends as they say.
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
