//! The common code of our programs, of no use for other programs.
//!
//! | module | content |
//! |---|---|
//! | [`arguments`] | the arguments of a process, and secrets among them |
//! | [`book`] | the address book: names and purposes of keys |
//! | [`child`] | processes that run commands of other users: account and separation |
//! | [`children`] | the ends of this process's children |
//! | [`cli`] | exit codes, errors with exit codes, logging to stderr or the journal |
//! | [`code`] | offers under a code: beacons of senders, the wait of receivers |
//! | [`config`] | configuration files in TOML; an error names file, line and key |
//! | [`executable`] | places of our other programs, and starting one on a socket |
//! | [`guest`] | programs that enter a network by a token among their arguments, or by a code |
//! | [`guest_state`] | messages of a guest to the program inside |
//! | [`helper`] | helpers of a station: invitations and withdrawals |
//! | [`group_network`] | the network of a group's own: messages of lcgroup and its guest |
//! | [`groups`] | requests to `lcgroup run` on this host |
//! | [`interrupt`] | SIGINT, SIGTERM and SIGHUP as events |
//! | [`keygen`] | the subcommand that makes keys |
//! | [`keyfile`] | key files as users make and name them |
//! | [`metrics`] | metrics of a daemon as OpenMetrics text, over HTTP |
//! | [`outside`] | programs in the network that a text leads to |
//! | [`page_link`] | links of pages that enter a network |
//! | [`process`] | rights that a process gives up; waiting for datagrams, signals, threads, time |
//! | [`screen`] | `--watch`: frames on a terminal |
//! | [`service`] | notifications to the service manager, and its credentials |
//! | [`standard`] | standard input, output and error, also where they are non-blocking |
//! | [`state_lock`] | one owner of a state folder at a time |
//! | [`uplink`] | how long packets for lc0 wait in this host, for programs that send bulk |

pub mod arguments;
pub mod book;
pub mod child;
pub mod children;
pub mod cli;
pub mod code;
pub mod config;
pub mod executable;
pub mod group_network;
pub mod groups;
pub mod guest;
pub mod guest_state;
pub mod helper;
pub mod interrupt;
pub mod keyfile;
pub mod keygen;
pub mod metrics;
pub mod outside;
pub mod page_link;
pub mod process;
pub mod screen;
pub mod service;
pub mod standard;
pub mod state_lock;
pub mod uplink;

pub use librecast::units;
