//! The entry log on a host: what programs put around `librecast-log`.
//!
//! | module | what it holds |
//! |---|---|
//! | `kept` | a log and its file: on disk before it is sent |
//! | `records` | the file |
//! | `network` | multicast for all groups, on all interfaces in use |

mod kept;
mod network;
mod records;

pub use kept::{KeptLog, seed};
pub use network::Network;
pub use records::Records;
