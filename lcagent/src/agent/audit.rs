//! The audit log: a line for every signed command and every end of a job. It only grows; an action
//! without its line is not executed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use crate::datagram::JobId;
use librecast::durable::sync_folder_of;
use librecast::events::{COMMAND_ENDED, COMMAND_REFUSED, COMMAND_RUN, LogLimit, TARGET};
use librecast::id::PeerId;
use librecast::time::UnixTime;

/// An open log of JSON lines.
#[derive(Debug)]
pub struct Audit {
    file: File,
    /// Limits the copy to the system's log.
    journal: LogLimit,
}

impl Audit {
    /// Opens `path` for appending, readable by its owner only.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        sync_folder_of(path)?;
        Ok(Self {
            file,
            journal: LogLimit::default(),
        })
    }

    /// Writes a line durably. `what`: the request, or how `job` ended.
    pub fn write(
        &mut self,
        (operator, name): (&PeerId, Option<&str>),
        job: JobId,
        event: &str,
        what: &str,
    ) -> io::Result<()> {
        let mut line = serde_json::json!({
            "time": UnixTime::now().as_secs(),
            "operator": operator,
            "job": job.to_string(),
            "event": event,
            "what": what,
        });
        if let Some(name) = name {
            line["name"] = name.into();
        }
        if self.journal.admit(Instant::now()).is_some() {
            log((operator, name), job, event, what);
        }
        // one write: the line is whole or absent
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_data()
    }
}

/// Writes the same to the system's log.
fn log((operator, name): (&PeerId, Option<&str>), job: JobId, event: &str, what: &str) {
    let who = match name {
        Some(name) => format!("{name} ({operator})"),
        None => operator.to_string(),
    };
    let refused = event.strip_prefix("refused: ");
    // a failed start did not run either
    let refused = refused.or((event == "failed").then_some(what));
    match (event, refused) {
        ("started", _) => tracing::info!(
            target: TARGET,
            message_id = COMMAND_RUN.id,
            lcagent_job = %job,
            lcagent_operator = %operator,
            lcagent_command = what,
            "started {job} of {who}: {what}"
        ),
        ("ended", _) => tracing::info!(
            target: TARGET,
            message_id = COMMAND_ENDED.id,
            lcagent_job = %job,
            lcagent_operator = %operator,
            lcagent_result = what,
            "ended {job} of {who}: {what}"
        ),
        (_, Some(reason)) => tracing::warn!(
            target: TARGET,
            message_id = COMMAND_REFUSED.id,
            lcagent_job = %job,
            lcagent_operator = %operator,
            lcagent_command = what,
            lcagent_reason = reason,
            "{event} {job} of {who}: {what}"
        ),
        _ => tracing::info!("{event} {job} of {who}: {what}"),
    }
}
