//! Relays (TURN, RFC 8656): for links without UDP, or with symmetric NATs at both ends.
//!
//! ```text
//! node A <== TURN over UDP, TCP or TLS ==> relay <---- UDP ----> node B, or a relay of its own
//! ```
//! Server and client are state machines without sockets. A relay carries the link's DTLS and SRTP.

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
pub use config::{HasAddress, RelayConfig, Strangers};
pub use credentials::mint;
pub use framing::{BadFrame, Framer, is_relay_stream};
pub use message::{is_relay_answer, relay_probe};
pub use quota::charged;
pub use server::{AllocationId, Client, RelayDrop, RelayOutput, RelayServer};
