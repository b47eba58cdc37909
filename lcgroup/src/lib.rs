//! Private groups of people over multicast: the program around `lcgroup-core` and `librecast-log`.
//!
//! | module | what it holds |
//! |---|---|
//! | `cli`, `verbs` | the command line; what it asks the program that runs |
//! | `request`, `server` | what may be asked on the control socket; who asks there |
//! | `daemon` | the program that runs: sockets, clock, signals |
//! | `room` | one group: its log, its keys, its conversation, in the order in which they go to disk |
//! | `names` | names of members: one spelling, and marks where two look alike |
//! | `clocks` | clocks of others that differ, and refusals of the owner |
//! | `content`, `offers` | what a message holds; shares of lcsync that members offer |
//! | `keyring`, `giver` | which epochs' secrets seal private prefixes of lcroute, and how it gets them |
//! | `held` | a group that this host holds for others and cannot read |
//! | `logs`, `conversation`, `holding_key` | files, and the text that a holder is given |

mod cli;
mod clocks;
mod content;
mod conversation;
mod daemon;
mod giver;
mod held;
mod holding_key;
mod keyring;
mod logs;
mod names;
mod offers;
mod request;
mod room;
mod server;
mod verbs;

pub use cli::{command, main};
