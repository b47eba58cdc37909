//! The entry log on a host: what programs put around `librecast-log`.
//!
//! | module | what it holds |
//! |---|---|
//! | `kept` | a log and its file: on disk before it is sent |
//! | `records`, `appended` | the file: records of a log; bytes that are whole after each sync |
//! | `network` | multicast for all groups, on all interfaces in use |

mod appended;
mod kept;
mod network;
mod records;

pub use appended::AppendedFile;
pub use kept::{KeptLog, seed};
pub use network::Network;
pub use records::Records;
