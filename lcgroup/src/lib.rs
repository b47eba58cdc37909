//! Private groups of people over multicast: the program around `lcgroup-core` and `librecast-log`.
//!
//! | module | content |
//! |---|---|
//! | `cli`, `verbs` | the command line; its requests to the running program |
//! | `request`, `server` | requests on the control socket; its connections |
//! | `daemon` | the program that runs: sockets, clock, signals |
//! | `room` | one group: its log, keys and conversation, and the order of their writes to disk; `room/devices` members with several devices |
//! | `room/clock`, `room/past`, `room/prefixes` | its clocks; what newcomers get and nobody has any more; lcroute's groups |
//! | `unread` | messages that were not read on any device |
//! | `names` | names of members: one spelling, and marks where two look alike |
//! | `desktop`, `bus` | notifications on the user's desktop; the message bus that carries them |
//! | `clocks` | members' clocks that differ, and refusals of the owner |
//! | `stored_list` | lists of members' items, in files |
//! | `content`, `offers` | the content of a message; shares of lcsync that members offer |
//! | `files`, `shelf` | files that members sent: names and keys; the sealed ones on this host |
//! | `carrier`, `child` | processes of lcsync that serve and fetch them |
//! | `transfer`, `get`, `file_text` | files between the daemon and a user's command; its part; `status` |
//! | `shared`, `room/shared` | keys and values that all members write: their file; their messages |
//! | `history` | what newcomers get of a conversation |
//! | `keyring`, `giver` | the epochs' secrets for private prefixes of lcroute; their delivery |
//! | `qr`, `hex` | codes for telephones; keys of files in hexadecimal digits |
//! | `place` | whether a group's folder was copied or put back |
//! | `outside`, `carry`, `hub` | networks that groups have of their own; the program inside of one; lc0 for several programs |
//! | `held` | a group that this host holds for other hosts and cannot read; `held/wake`, `room/wake` calls to absent members |
//! | `board` | public text that anyone can follow |
//! | `logs`, `conversation`, `holding_key` | files, and the text of a holder's key |

mod board;
mod bus;
mod carrier;
mod carry;
mod child;
mod cli;
mod clocks;
mod content;
mod conversation;
mod daemon;
mod desktop;
mod file_text;
mod files;
mod get;
mod giver;
mod held;
mod hex;
mod history;
mod holding_key;
mod hub;
mod keyring;
mod logs;
mod names;
mod offers;
mod outside;
mod place;
mod qr;
mod request;
mod room;
mod server;
mod shared;
mod shelf;
mod stored_list;
mod transfer;
mod unread;
mod verbs;

pub use cli::{command, main};
