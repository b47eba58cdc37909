//! Options of a local copy.

use std::path::PathBuf;

use nix::unistd::geteuid;

use super::changes::{Check, Keep, Source};
use super::filter::Filter;
use crate::listing::Kind;
use crate::place::{Found, Standing};
use crate::scan::Choice;

/// Options of the command line.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of a command line"
)]
pub struct Options {
    /// SRC; with a slash at its end, the folder's content.
    pub sources: Vec<PathBuf>,
    pub dest: PathBuf,
    /// Copies folders, too.
    pub recursive: bool,
    pub keep: Keep,
    pub check: Check,
    /// Keeps hard links between copied files.
    pub hard_links: bool,
    /// Copies devices, if this is root.
    pub devices: bool,
    /// Copies FIFOs and sockets.
    pub specials: bool,
    /// Patterns of `--exclude` and `--include`.
    pub filter: Filter,
    /// Leaves out file systems mounted below SRC.
    pub one_file_system: bool,
    /// Leaves out files that are newer in DEST.
    pub update: bool,
    /// Leaves out files that DEST lacks.
    pub existing: bool,
    /// Leaves out files that DEST has.
    pub ignore_existing: bool,
    /// Writes into existing files.
    pub inplace: bool,
    /// Makes holes of zeroes.
    pub sparse: bool,
    /// Keeps the copied part of an interrupted file, and continues it.
    pub partial: bool,
    /// Ends when all is on disk.
    pub fsync: bool,
    /// Deletes from DEST entries that are not in SRC.
    pub delete: bool,
    /// Deletes left-out entries, too.
    pub delete_excluded: bool,
    /// Most entries deleted.
    pub max_delete: Option<u64>,
    /// Bits per second.
    pub limit: Option<u64>,
    /// Prints actions without executing them.
    pub dry_run: bool,
    /// Prints names.
    pub verbose: bool,
    /// Prints names with their changes.
    pub itemize: bool,
    /// Prints the counters in the end.
    pub stats: bool,
    /// Prints nothing but errors.
    pub quiet: bool,
}

impl Options {
    /// Returns the selection of SRC's entries.
    pub fn choice<'a>(&self, leaves_out: &'a dyn Fn(&[u8], bool) -> bool) -> Choice<'a> {
        Choice {
            leaves_out,
            one_file_system: self.one_file_system,
            for_listing: false,
            devices: self.devices && geteuid().is_root(),
            specials: self.specials,
            hard_links: self.hard_links,
        }
    }

    pub fn say(&self, line: &str) {
        if !self.quiet {
            librecast_program::cli::note(line);
        }
    }

    /// Whether names are printed.
    pub fn names(&self) -> bool {
        !self.quiet && (self.verbose || self.dry_run)
    }

    /// Whether an entry stays as it is, despite differences.
    pub fn passes_over(&self, source: Source<'_>, there: Option<&Standing>) -> bool {
        let Some(there) = there else {
            return self.existing;
        };
        let file =
            matches!(source.kind, Kind::File { .. }) && matches!(there.found, Found::File(_));
        let newer = there.metadata.mtime > source.metadata.mtime;
        let folders = *source.kind == Kind::Folder && there.found == Found::Folder;
        !folders && self.ignore_existing || file && self.update && newer
    }
}
