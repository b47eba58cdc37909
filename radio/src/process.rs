//! The process: what it gives up before others' bytes come.

use anyhow::Context;

pub use librecast_program::wake::{Wake, unix_ms};

/// No core dumps, as keys are in memory; no more rights than now, as libopus reads what others send.
pub fn confine() -> anyhow::Result<()> {
    nix::sys::prctl::set_dumpable(false).context("no core dumps")?;
    nix::sys::prctl::set_no_new_privs().context("no new privileges")
}
