//! Extended attributes of an open entry. ACLs are among them, and copied as such.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, listxattr, removexattr,
    setxattr,
};
use rustix::io::Errno;

use crate::place::Opened;

/// Names with their values.
pub type Attributes = BTreeMap<CString, Vec<u8>>;

/// Linux's bound of a value, and of all names, in bytes (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const MAX: usize = 64 << 10;
/// ACL of an entry, and of new entries in a folder.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Attribute of a file that runs with rights that its user may lack.
const CAPABILITY: &[u8] = b"security.capability";

/// Selection of attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// ACLs.
    pub acls: bool,
    /// All but ACLs and the file system's own.
    pub others: bool,
    /// Those that only root may set, too.
    pub is_root: bool,
}

impl Selection {
    pub fn is_empty(self) -> bool {
        !(self.acls || self.others)
    }

    fn takes(self, name: &[u8]) -> bool {
        if ACLS.contains(&name) {
            return self.acls;
        }
        if name.is_empty() {
            return false;
        }
        let user = name.starts_with(b"user.");
        let system = name.starts_with(b"system.");
        self.others && (user || self.is_root && !system)
    }
}

/// Whether this is an ACL.
pub fn is_acl(name: &CString) -> bool {
    ACLS.contains(&name.as_bytes())
}

/// Whether a file with these runs with rights that its user may lack.
pub fn gives_rights(attributes: &Attributes) -> bool {
    attributes.keys().any(|name| name.as_bytes() == CAPABILITY)
}

/// Reads the selected attributes of an entry; none on file systems without attributes.
pub fn read(entry: &Opened, selection: Selection) -> io::Result<Attributes> {
    let mut attributes = Attributes::new();
    if selection.is_empty() {
        return Ok(attributes);
    }
    let mut names = vec![0; 1024];
    let listed = loop {
        let listed = match entry.descriptor() {
            Ok(fd) => flistxattr(fd, &mut names[..]),
            Err(path) => listxattr(path, &mut names[..]),
        };
        match listed {
            Err(Errno::RANGE) if names.len() < MAX => names.resize(MAX, 0),
            Err(Errno::OPNOTSUPP) => return Ok(attributes),
            listed => break listed?,
        }
    };
    for name in names[..listed].split(|byte| *byte == 0) {
        if !selection.takes(name) {
            continue;
        }
        let Ok(name) = CString::new(name) else {
            continue;
        };
        let mut value = vec![0; 256];
        let length = loop {
            let length = match entry.descriptor() {
                Ok(fd) => fgetxattr(fd, &name, &mut value[..]),
                Err(path) => getxattr(path, &name, &mut value[..]),
            };
            match length {
                Err(Errno::RANGE) if value.len() < MAX => value.resize(MAX, 0),
                length => break length,
            }
        };
        match length {
            // removed meanwhile
            Err(Errno::NODATA) => {}
            length => {
                value.truncate(length?);
                attributes.insert(name, value);
            }
        }
    }
    Ok(attributes)
}

/// Sets the `chosen` attributes to the wanted values, and removes other chosen ones.
pub fn write(
    entry: &Opened,
    wanted: &Attributes,
    there: &Attributes,
    chosen: impl Fn(&CString) -> bool,
) -> io::Result<()> {
    for name in there.keys().filter(|name| chosen(name)) {
        if wanted.contains_key(name) {
            continue;
        }
        let removed = match entry.descriptor() {
            Ok(fd) => fremovexattr(fd, name),
            Err(path) => removexattr(path, name),
        };
        match removed {
            Err(Errno::NODATA) => {}
            removed => removed?,
        }
    }
    for (name, value) in wanted.iter().filter(|(name, _)| chosen(name)) {
        if there.get(name) == Some(value) {
            continue;
        }
        match entry.descriptor() {
            Ok(fd) => fsetxattr(fd, name, value, XattrFlags::empty())?,
            Err(path) => setxattr(path, name, value, XattrFlags::empty())?,
        }
    }
    Ok(())
}
