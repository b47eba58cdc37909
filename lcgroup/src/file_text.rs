//! Sealed files of a group in `lcgroup status`.

use std::io;

use librecast_program::cli::print_line;

use crate::request::FilesStatus;
use crate::shelf::megabytes;

/// The files of a group for `status`.
pub fn files_text(status: &FilesStatus) -> String {
    let missing = match status.missing {
        0 => String::new(),
        n => format!(", {n} on their way"),
    };
    match status.files {
        0 if status.missing == 0 => String::new(),
        1 => format!(", 1 file ({}){missing}", megabytes(status.bytes)),
        n => format!(", {n} files ({}){missing}", megabytes(status.bytes)),
    }
}

/// Shows why files cannot be served or fetched.
pub fn tell_problem(status: &FilesStatus) -> io::Result<()> {
    match &status.problem {
        Some(problem) => print_line(format!("  files: {problem}")),
        None => Ok(()),
    }
}
