//! The audit log: a line for every command that an operator has signed and every end of a job. It only grows,
//! and what cannot be written to it is not done.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use librecast::id::PeerId;

use super::unix_now;
use crate::datagram::JobId;

/// An open log of JSON lines.
#[derive(Debug)]
pub struct Audit {
    file: File,
}

impl Audit {
    /// Opens `path` for appending, readable by its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }

    /// One line, on disk when this returns. `what` happened to `job`: what was asked for, or how it ended.
    pub fn write(
        &mut self,
        operator: &PeerId,
        job: JobId,
        event: &str,
        what: &str,
    ) -> io::Result<()> {
        let line = serde_json::json!({
            "time": unix_now(),
            "operator": operator,
            "job": job.to_string(),
            "event": event,
            "what": what,
        });
        tracing::info!("{event} {job} of {operator}: {what}");
        // one write, so that a line is whole or not there
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_data()
    }
}
