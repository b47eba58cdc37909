//! The entry log on a host: file and sockets of `librecast-log`.
//!
//! | module | content |
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
