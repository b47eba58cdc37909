//! Standard input and texts as temporary files: receivers fetch blocks in any order, and late ones
//! fetch them again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// Most bytes of standard input. Chosen: a large archive; the folder for temporary files may be in
/// memory.
pub const MOST_BYTES: u64 = 8 << 30;

/// A file in a folder of its own, which only this user can enter.
#[derive(Debug)]
pub struct Spool {
    folder: TempDir,
    path: PathBuf,
}

impl Spool {
    /// Makes the folder for a file with this name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("lcsync-").tempdir();
        let folder = folder.context("the folder for temporary files")?;
        let path = folder.path().join(name);
        Ok(Self { folder, path })
    }

    /// Returns the folder, which goes with this value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file: all of the content, `most` bytes at most.
    pub fn fill(&self, content: impl Read, most: u64) -> anyhow::Result<()> {
        let mut file = File::create_new(&self.path).context("temporary file")?;
        let folder = || format!("copying to {}", self.folder().display());
        let length = io::copy(&mut content.take(most + 1), &mut file).with_context(folder)?;
        ensure!(length > 0, "there was nothing in it: nothing is sent");
        ensure!(
            length <= most,
            "it is longer than {most} bytes: write it to a file, and send that"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_kept_whole_or_refused_and_goes_with_the_spool() {
        let spool = Spool::new("log.txt").unwrap();
        spool.fill(&b"words"[..], 5).unwrap();
        assert_eq!(std::fs::read(spool.path()).unwrap(), b"words");
        assert_eq!(spool.path().file_name().unwrap(), "log.txt");
        let folder = spool.folder().to_owned();
        drop(spool);
        assert!(!folder.exists());
        for (content, told) in [(&b""[..], "nothing"), (b"longer", "longer than 5 bytes")] {
            let refused = Spool::new("stdin").unwrap().fill(content, 5).unwrap_err();
            assert!(refused.to_string().contains(told), "{refused}");
        }
    }
}
