//! Carriers of signalling: each says who is present, delivers sealed messages, and takes sealed messages.
//!
//! [`server`] is met by [`client`] over WebSocket, in the words of `wire`. [`Carriers`] holds those that a node has.

mod carrier;
mod carriers;
pub mod client;
mod relay;
pub mod relay_stream;
pub mod server;
mod tls;
mod wire;

pub use carrier::{Carrier, CarrierEvent, PathChange};
pub use carriers::Carriers;
