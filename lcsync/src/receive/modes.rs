//! Permission bits of files and folders at DEST.

use crate::listing::{Kind, Metadata};

/// Modes and times of a share, and how far they are taken.
#[derive(Debug, Clone, Copy)]
pub struct Modes<'a> {
    of: &'a [Metadata],
    exact: bool,
    umask: u16,
}

impl<'a> Modes<'a> {
    /// `of` each entry. `exact` sets them as they are; else they only restrict the umask's.
    #[must_use]
    pub fn new(of: &'a [Metadata], exact: bool, umask: u16) -> Self {
        Self { of, exact, umask }
    }

    /// Returns mode and time of entry `n`, if they are set exactly.
    #[must_use]
    pub fn exact(&self, n: usize) -> Option<&'a Metadata> {
        self.of.get(n).filter(|_| self.exact)
    }

    /// Returns the permission bits of entry `n`, a `kind`; `existing` are the present ones. They
    /// never exceed those of the source, of the umask, or the present ones. The executable bit
    /// comes from the listing, which is proven.
    #[must_use]
    pub fn bits(&self, n: usize, kind: &Kind, existing: Option<u16>) -> u16 {
        let source = self.of.get(n).map_or(0o700, |m| m.mode & 0o777);
        if self.exact {
            return source;
        }
        let executable = match kind {
            Kind::File { executable, .. } => *executable,
            _ => return source & existing.unwrap_or(0o777 & !self.umask),
        };
        let here = existing.unwrap_or(0o666 & !self.umask) & 0o666;
        if !executable {
            return here & source;
        }
        // a user with permission to read may execute it here, if the source permits
        here & source | (here >> 2) & 0o111 & source | 0o100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(executable: bool) -> Kind {
        Kind::File {
            size: 1,
            executable,
        }
    }

    fn bits(source: u16, kind: &Kind, umask: u16, existing: Option<u16>) -> u16 {
        let of = [Metadata {
            mode: source,
            ..Metadata::default()
        }];
        Modes::new(&of, false, umask).bits(0, kind, existing)
    }

    #[test]
    fn what_is_private_at_the_source_is_private_here() {
        for (source, umask, existing, expected) in [
            (0o600, 0o022, None, 0o600),
            (0o644, 0o022, None, 0o644),
            (0o664, 0o022, None, 0o644),
            (0o644, 0o077, None, 0o600),
            (0o600, 0o022, Some(0o644), 0o600),
            (0o644, 0o022, Some(0o600), 0o600),
            (0o644, 0o077, Some(0o664), 0o644),
            (0o6666, 0o022, None, 0o644),
        ] {
            let got = bits(source, &file(false), umask, existing);
            assert_eq!(got, expected, "{source:o} {umask:o} {existing:?}");
        }
        assert_eq!(bits(0o755, &file(true), 0o022, None), 0o755);
        assert_eq!(bits(0o700, &file(true), 0o022, None), 0o700);
        assert_eq!(bits(0o755, &file(true), 0o022, Some(0o640)), 0o750);
        assert_eq!(bits(0o700, &Kind::Folder, 0o022, None), 0o700);
        assert_eq!(bits(0o775, &Kind::Folder, 0o022, None), 0o755);
        assert_eq!(bits(0o750, &Kind::Folder, 0o022, Some(0o755)), 0o750);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_source_umask_and_what_was_there(
            source in 0..0o10000_u16, umask in 0..0o1000_u16, executable: bool, folder: bool,
            existing in proptest::option::of(0..0o1000_u16),
        ) {
            let kind = if folder { Kind::Folder } else { file(executable) };
            let got = bits(source, &kind, umask, existing);
            // the listing decides: the root hash covers it
            let proven = if kind == file(true) { 0o100 } else { 0 };
            prop_assert_eq!(got & !(source & 0o777) & !proven, 0);
            let read = existing.unwrap_or(0o666 & !umask);
            let here = existing.unwrap_or(0o777 & !umask);
            prop_assert_eq!(got & !(here | (read >> 2) & 0o111) & !proven, 0);
            prop_assert!(folder || executable || got & 0o111 == 0);
        }
    }
}
