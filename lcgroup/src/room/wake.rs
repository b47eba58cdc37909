//! The line by which holders call this member while it is absent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lcgroup_core::waking::{MAX_LINE, SIGN_PAUSE, is_line};
use lcgroup_core::{Standing, kind};
use librecast::time::UnixTime;
use librecast::{durable, private_file};
use librecast_program::cli::{Exit, ExitError};
use zeroize::Zeroizing;

use super::{LogName, Room, Shown};

/// The file of the line.
const FILE: &str = "wake";

/// The line, and when this member showed itself last.
#[derive(Debug)]
pub(super) struct OwnLine {
    path: PathBuf,
    /// Empty: none.
    line: Zeroizing<String>,
    shown: Option<Instant>,
}

impl OwnLine {
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let line = match path.try_exists()? {
            true => {
                let bytes = private_file::read(&path, MAX_LINE as u64)?;
                Zeroizing::new(std::str::from_utf8(&bytes)?.to_owned())
            }
            false => Zeroizing::default(),
        };
        let shown = None;
        Ok(Self { path, line, shown })
    }
}

impl Room {
    /// Leaves a line with the holders; an empty one ends that.
    pub fn leave_line(&mut self, line: Zeroizing<String>) -> anyhow::Result<()> {
        self.check_usable()?;
        if !is_line(&line) {
            let text = format!("a line has at most {MAX_LINE} bytes of text, and no end of line");
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        self.group.leave_line(&line)?;
        durable::replace(&self.wake.path, line.as_bytes())?;
        (self.wake.line, self.state_changed) = (line, true);
        Ok(())
    }

    /// When this member shows itself next; none without a line.
    pub(super) fn sign_due(&self, now: Instant) -> Option<Instant> {
        let is_member = self.group.standing() == Standing::Member;
        if self.wake.line.is_empty() || !is_member || self.is_unsure {
            return None;
        }
        let pause = Duration::from_millis(SIGN_PAUSE);
        Some(self.wake.shown.map_or(now, |shown| shown + pause))
    }

    /// Shows holders that this member is here; leaves its line again once that has expired.
    pub(super) fn give_sign(&mut self, time: UnixTime, now: Instant) {
        if self.sign_due(now).is_none_or(|due| due > now) {
            return;
        }
        self.wake.shown = Some(now);
        self.show(LogName::Own, &Shown::Clock, time);
        let own = self.author_of(LogName::Own);
        let mut entries = self.log.log().entries_after(own, 0);
        let is_left = entries.any(|entry| entry.kind == kind::WAKE);
        drop(entries);
        if !is_left && self.appends.is_empty() && self.group.leave_line(&self.wake.line).is_ok() {
            self.state_changed = true;
        }
    }
}
