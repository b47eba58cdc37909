//! Serving shares.
//!
//! [`core`] decides, with [`channel`], [`schedule`] (order of sending; `queue`: of channels;
//! `traffic`: counters) and `reporters` (members). `rivals` detects copied keys, on sockets of
//! `meeting`. `shell` does the I/O; [`config`] reads the list of shares. `rescan` is the thread
//! that publishes changed files: `notices` (of the kernel) and `pace` set its times, `origin`
//! detects unmounted disks. [`metrics`] and [`status`] report, the latter on `status_socket`.
//! `seed` runs a server in a receiver.

pub mod channel;
pub mod config;
pub mod core;
mod meeting;
pub mod metrics;
mod notices;
mod origin;
mod pace;
mod queue;
mod reporters;
pub(crate) mod rescan;
pub mod rivals;
pub mod schedule;
pub(crate) mod seed;
pub(crate) mod shell;
pub mod status;
pub(crate) mod status_socket;
mod traffic;
