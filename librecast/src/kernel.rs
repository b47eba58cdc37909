//! Multicast by the kernel of this host.

mod datagrams;
mod interfaces;
mod mld;
mod mld_v1;

pub use datagrams::{Receiver, Sender};
pub use interfaces::interfaces;
pub use mld::MldSocket;
pub use mld_v1::MldV1Socket;
