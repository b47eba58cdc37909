//! Serving shares.
//!
//! [`core`] decides, with [`channel`] and [`schedule`] (what is sent when; `queue`: whose turn it is; `traffic`: what was sent) and `reporters` (who has
//! joined); `rivals` knows who else publishes under a key, `meeting` hears them; `shell` is the
//! process around it, [`config`] what it is told to share, `rescan` the thread that publishes changed files (`notices`
//! of the kernel and `pace` say when to look, `origin` whether files are gone or only their disk); [`metrics`] and [`status`] what it tells of itself, the latter at
//! `status_socket`; `seed` puts a server into a receiver.

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
