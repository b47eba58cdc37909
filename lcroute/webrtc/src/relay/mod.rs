//! Relays (TURN, RFC 8656): for links where UDP is dead, or both ends are behind symmetric NATs.
//!
//! ```text
//! node A <== TURN over UDP, TCP or TLS ==> relay <---- UDP ----> node B, or a relay of its own
//! ```
//! The server and the client of it are state machines without sockets. What passes is DTLS and SRTP of the link.

mod client;
mod config;
mod credentials;
mod framing;
mod message;
mod peers;
mod quota;
mod server;

pub(crate) use client::{Change, Relays};
pub use client::{RelayOffer, RelayStatus, StreamCommand, StreamEvent};
pub use config::{HasAddress, RelayConfig};
pub use credentials::mint;
pub use framing::{BadFrame, Framer, is_relay_stream};
pub use message::{is_relay_answer, relay_probe};
pub use quota::charged;
pub use server::{AllocationId, Client, RelayDrop, RelayOutput, RelayServer};
