//! Changes of an entry by a copy, and rsync's letters for them.

use nix::libc;

use crate::attributes::{Attributes, Selection, is_acl};
use crate::folder::Owner;
use crate::listing::{Kind, Metadata, Node};
use crate::place::{Found, Standing};

/// Kept properties of an entry beside its content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep {
    pub links: bool,
    pub modes: bool,
    pub times: bool,
    pub owner: bool,
    pub group: bool,
    pub attributes: Selection,
}

/// Test whether a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// By size and time.
    #[default]
    Quick,
    SizeOnly,
    /// All files differ.
    IgnoreTimes,
    /// By every byte.
    Content,
}

/// An entry of SRC.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub kind: &'a Kind,
    pub metadata: &'a Metadata,
    pub owner: Owner,
}

/// Differences of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Missing in DEST, or of another kind there.
    pub new: bool,
    /// Bytes of a file, target of a link; a folder has none.
    pub content: bool,
    pub size: bool,
    pub time: bool,
    pub mode: bool,
    pub owner: bool,
    pub group: bool,
    pub acls: bool,
    pub xattrs: bool,
}

impl Changes {
    /// Compares both sides. The caller compares bytes of equal size if `check` requires it.
    #[must_use]
    pub fn between(source: Source<'_>, there: Option<&Standing>, keep: Keep, check: Check) -> Self {
        let Some(there) = there.filter(|there| is_same_kind(source.kind, &there.found)) else {
            return Self {
                new: true,
                content: !matches!(source.kind, Kind::Folder | Kind::Node(_)),
                ..Self::default()
            };
        };
        let time = !is_same_time(source.metadata, &there.metadata);
        let mut changes = Self {
            time: time && keep.times,
            owner: keep.owner && source.owner.user != there.owner.user,
            group: keep.group && source.owner.group != there.owner.group,
            ..Self::default()
        };
        match (source.kind, &there.found) {
            (Kind::File { size, .. }, Found::File(size_there)) => {
                changes.size = size != size_there;
                changes.content = changes.size
                    || match check {
                        Check::Quick => time,
                        Check::SizeOnly | Check::Content => false,
                        Check::IgnoreTimes => true,
                    };
            }
            (Kind::Link { target }, Found::Link(target_there)) => {
                changes.content = target != target_there;
            }
            _ => {}
        }
        let link = matches!(source.kind, Kind::Link { .. });
        changes.mode = keep.modes && !link && source.metadata.mode != there.metadata.mode;
        changes
    }

    /// Compares the kept attributes.
    pub fn compare_attributes(&mut self, source: &Attributes, there: &Attributes) {
        let differ = |acls| {
            let chosen = |of| Attributes::iter(of).filter(move |(name, _)| is_acl(name) == acls);
            !chosen(source).eq(chosen(there))
        };
        (self.acls, self.xattrs) = (differ(true), differ(false));
    }

    /// Whether anything differs.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Returns the eleven letters of rsync's `-i`.
    #[must_use]
    pub fn letters(self, kind: &Kind, keep: Keep, check: Check) -> String {
        let (update, letter) = match kind {
            Kind::File { .. } => ('>', 'f'),
            Kind::Folder => ('c', 'd'),
            Kind::Link { .. } => ('c', 'L'),
            Kind::Node(node) if is_device(*node) => ('c', 'D'),
            Kind::Node(_) => ('c', 'S'),
        };
        let update = match self.new || self.content {
            true => update,
            false => '.',
        };
        if self.new {
            return format!("{update}{letter}+++++++++");
        }
        let is = |flag: bool, letter: char| if flag { letter } else { '.' };
        let checked = match kind {
            Kind::File { .. } => self.content && check == Check::Content,
            _ => self.content,
        };
        let time = match keep.times {
            true => is(self.time, 't'),
            // it becomes the time of the copy
            false => is(self.content, 'T'),
        };
        [
            update,
            letter,
            is(checked, 'c'),
            is(self.size, 's'),
            time,
            is(self.mode, 'p'),
            is(self.owner, 'o'),
            is(self.group, 'g'),
            '.',
            is(self.acls, 'a'),
            is(self.xattrs, 'x'),
        ]
        .iter()
        .collect()
    }
}

/// Whether only root can make one.
#[must_use]
pub fn is_device(node: Node) -> bool {
    matches!(node.file_type, libc::S_IFBLK | libc::S_IFCHR)
}

fn is_same_kind(kind: &Kind, found: &Found) -> bool {
    if let (Kind::Node(node), Found::Node(there)) = (kind, found) {
        return node == there;
    }
    matches!(
        (kind, found),
        (Kind::File { .. }, Found::File(_))
            | (Kind::Folder, Found::Folder)
            | (Kind::Link { .. }, Found::Link(_))
    )
}

/// Whether times are equal; a file system with whole seconds keeps no nanoseconds.
fn is_same_time(source: &Metadata, there: &Metadata) -> bool {
    source.mtime == there.mtime && (there.nanos == 0 || source.nanos == there.nanos)
}
