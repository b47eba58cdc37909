//! Sockets of a process that can receive from any sender, read from `/proc` as `ss -lntup` does.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

/// A socket that can receive from any sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// `tcp`, `tcp6`, `udp`, `udp6`, `udplite`, `udplite6`.
    pub protocol: &'static str,
    /// The local address and port, in the kernel's hexadecimal form.
    pub local: String,
}

/// Returns TCP sockets that listen, and UDP sockets without a connected peer, of one process.
pub fn open_sockets(pid: u32) -> Result<Vec<OpenSocket>> {
    const LISTENING: &str = "0A";
    const UNCONNECTED: &str = "07";
    let own = socket_inodes(pid)?;
    let mut open = Vec::new();
    for (protocol, state) in [
        ("tcp", LISTENING),
        ("tcp6", LISTENING),
        ("udp", UNCONNECTED),
        ("udp6", UNCONNECTED),
        ("udplite", UNCONNECTED),
        ("udplite6", UNCONNECTED),
    ] {
        // The kernel may lack UDP-Lite; the other tables are always there.
        let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")) else {
            continue;
        };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, found, ..] = fields[..] else {
                continue;
            };
            if found == state && fields.get(9).is_some_and(|inode| own.contains(*inode)) {
                open.push(OpenSocket {
                    protocol,
                    local: local.to_owned(),
                });
            }
        }
    }
    Ok(open)
}

fn socket_inodes(pid: u32) -> Result<BTreeSet<String>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).with_context(|| folder.clone())?;
    let targets = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |target: std::path::PathBuf| {
        Some(
            target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .to_owned(),
        )
    };
    Ok(targets.filter_map(inode).collect())
}
