//! Carriers of signalling. Each gives presence and sealed messages, and takes sealed messages.
//!
//! The backbone is the first: `server` is met by `client` over WebSocket, in the words of `wire`.

pub mod client;
pub mod server;
mod tls;
mod wire;
