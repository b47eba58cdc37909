//! Private groups of people over multicast: the program around `lcgroup-core` and `librecast-log`.
//!
//! | module | content |
//! |---|---|
//! | `cli`, `verbs` | the command line; its requests to the running program |
//! | `request`, `server` | requests on the control socket; its connections |
//! | `daemon` | the program that runs: sockets, clock, signals |
//! | `room` | one group: its log, keys and conversation, and the order of their writes to disk |
//! | `names` | names of members: one spelling, and marks where two look alike |
//! | `clocks` | members' clocks that differ, and refusals of the owner |
//! | `content`, `offers` | the content of a message; shares of lcsync that members offer |
//! | `history` | what newcomers get of a conversation |
//! | `keyring`, `giver` | the epochs' secrets for private prefixes of lcroute; their delivery |
//! | `place` | whether a group's folder was copied or put back |
//! | `outside`, `carry` | networks that groups have of their own; the program inside of one |
//! | `held` | a group that this host holds for other hosts and cannot read |
//! | `logs`, `conversation`, `holding_key` | files, and the text of a holder's key |

mod carry;
mod cli;
mod clocks;
mod content;
mod conversation;
mod daemon;
mod giver;
mod held;
mod history;
mod holding_key;
mod keyring;
mod logs;
mod names;
mod offers;
mod outside;
mod place;
mod request;
mod room;
mod server;
mod verbs;

pub use cli::{command, main};
