//! What the command line says about a local copy.

use std::path::PathBuf;

use nix::unistd::geteuid;

use super::changes::{Check, Keep, Source};
use super::filter::Filter;
use crate::listing::Kind;
use crate::place::{Found, Standing};
use crate::scan::Choice;

/// What the command line says.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of a command line"
)]
pub struct Options {
    /// SRC; with a slash at its end its content is meant.
    pub sources: Vec<PathBuf>,
    pub dest: PathBuf,
    /// Copies folders as well.
    pub recursive: bool,
    pub keep: Keep,
    pub check: Check,
    /// Names of one file stay names of one file.
    pub hard_links: bool,
    /// Copies devices, if this is root.
    pub devices: bool,
    /// Copies FIFOs and sockets.
    pub specials: bool,
    /// What is left out, and where deletions stop.
    pub filter: Filter,
    /// Not what is mounted below SRC.
    pub one_file_system: bool,
    /// Nothing that is newer in DEST.
    pub update: bool,
    /// Nothing that is not in DEST yet.
    pub existing: bool,
    /// Nothing that is in DEST already.
    pub ignore_existing: bool,
    /// Write into files that are there.
    pub inplace: bool,
    /// Make holes of zeroes.
    pub sparse: bool,
    /// Keep what was copied of a file when interrupted, and go on with it.
    pub partial: bool,
    /// End when all is on disk.
    pub fsync: bool,
    /// Delete from DEST what is not in SRC.
    pub delete: bool,
    /// What is left out is deleted as well.
    pub delete_excluded: bool,
    /// Delete no more entries than this.
    pub max_delete: Option<u64>,
    /// Bits per second.
    pub limit: Option<u64>,
    /// Say what would be done.
    pub dry_run: bool,
    /// Print names.
    pub verbose: bool,
    /// Print names with what changes about them.
    pub itemize: bool,
    /// Print what it came to.
    pub stats: bool,
    /// Print nothing but errors.
    pub quiet: bool,
}

impl Options {
    /// What of SRC is copied.
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

    /// Whether an entry is left as it is, whatever differs.
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
