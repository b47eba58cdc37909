//! Serving shares.
//!
//! [`core`] decides, with [`channel`], [`schedule`] (order of sending; `queue`: of channels;
//! `traffic`: counters) and `reporters` (members). `rivals` detects copied keys, on sockets of
//! `meeting`. `shell` does the I/O; [`config`] reads the list of shares. `rescan` is the thread
//! that publishes changed files: `notices` (of the kernel) and `pace` set its times, `origin`
//! detects unmounted disks. [`metrics`] and [`status`] report, the latter on `status_socket`.
//! `seed` runs a server in a receiver; `overlay` has the values that both share. [`uplink`] holds symbols on lc0 while packets wait there. [`hosted`] names the core's types for files on disk; a page
//! has [`core`] with files of its own.

pub mod channel;
#[cfg(feature = "host")]
pub mod config;
pub mod core;
#[cfg(feature = "host")]
pub mod hosted;
#[cfg(feature = "host")]
mod meeting;
#[cfg(feature = "host")]
pub mod metrics;
#[cfg(feature = "host")]
mod notices;
#[cfg(feature = "host")]
mod origin;
#[cfg(feature = "host")]
pub(crate) mod overlay;
#[cfg(feature = "host")]
mod pace;
mod queue;
mod reporters;
#[cfg(feature = "host")]
pub(crate) mod rescan;
pub mod rivals;
pub mod schedule;
#[cfg(feature = "host")]
pub(crate) mod seed;
#[cfg(feature = "host")]
pub(crate) mod shell;
#[cfg(feature = "host")]
pub mod status;
#[cfg(feature = "host")]
pub(crate) mod status_socket;
mod traffic;
#[cfg(feature = "host")]
pub mod uplink;
