//! `lcsync SRC... DEST`: local copies as rsync makes them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use librecast_program::cli::{Exit, ExitError, hint};
use librecast_program::interrupt;

use crate::place::{Drafts, Place};
use copier::{Copier, PARTIAL_LABEL};
use job::{Job, jobs};
use options::Options;
use shared::Shared;

pub mod changes;
pub mod content;
mod copier;
mod delete;
mod file;
pub mod filter;
mod job;
pub mod options;
mod queue;
mod shared;
#[cfg(test)]
mod tests;

/// Copies entries that differ.
pub fn copy(options: &Options) -> anyhow::Result<Exit> {
    if options.delete && !options.recursive {
        let message = "--delete does not work without -r or -a";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    for remark in options.filter.remarks() {
        options.say(&format!("lcsync: {remark}"));
    }
    let mut jobs = jobs(options)?;
    let partial: Vec<PathBuf> = jobs
        .iter()
        .map(|job| job.folder.join(Place::partial_name(PARTIAL_LABEL)))
        .collect();
    let keep_partial = options.dry_run || options.partial;
    let drafts = Arc::new(Drafts::new()?);
    let ending = Arc::clone(&drafts);
    interrupt::exit_on_interrupt(move || {
        ending.end();
        if !keep_partial {
            for partial in &partial {
                // nothing to remove if it was not made yet
                let _ = fs::remove_dir_all(partial);
            }
        }
    })?;
    run(options, &mut jobs, drafts)
}

fn run(options: &Options, jobs: &mut [Job], drafts: Arc<Drafts>) -> anyhow::Result<Exit> {
    let mut shared = Shared::new(options, jobs, drafts);
    for job in jobs {
        let mut copier = Copier::open(options, job, &mut shared)?;
        let result = copier.run(job);
        // also when the disk is full
        let closed = copier.close(job);
        result.and(closed)?;
    }
    shared.progress.finish();
    if options.stats && !options.quiet {
        shared.tally.print();
    }
    let lacks = std::mem::take(
        &mut *shared
            .common
            .lacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    for (what, error) in &lacks {
        let dest = options.dest.display();
        hint(
            "lcsync",
            format_args!("{dest}: {what} cannot be kept there: {error}"),
        );
    }
    let tally = &shared.tally;
    if tally.vanished > 0 {
        let vanished = tally.vanished;
        hint(
            "lcsync",
            format_args!("{vanished} entries of SRC vanished before they were copied"),
        );
    }
    let problems = [
        (lacks.len(), "properties of entries could not be kept"),
        (tally.failed, "entries could not be copied"),
        (tally.not_deleted, "entries could not be deleted"),
        (
            tally.beyond_limit,
            "deletions skipped: the limit of --max-delete was reached",
        ),
    ];
    let problems = problems.iter().filter(|(count, _)| *count > 0);
    let problems: Vec<_> = problems
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(Exit::Ok)
}
