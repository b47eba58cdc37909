//! Settings of an interface that only /proc/sys offers.
//!
//! A sandbox may make them read-only. That does no harm: the router drops packets that the kernel
//! sends because of them, and never writes into `lc0` the packets that they concern.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;

/// No router configures `lc0`, and MLD on it is version 2 regardless of queries of local programs.
const WANTED: [(&str, &str); 5] = [
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("force_mld_version", "2"),
    ("router_solicitations", "0"),
];

/// The IPv4 settings: IGMP is version 3.
const WANTED_IPV4: [(&str, &str); 2] = [("accept_redirects", "0"), ("force_igmp_version", "3")];

/// Applies differing settings; logs failures.
pub(super) fn apply(name: &str, ipv4: bool) -> Result<(), Error> {
    let directory = PathBuf::from("/proc/sys/net/ipv6/conf").join(name);
    enable(&directory, name)?;
    set_all(&directory, name, &WANTED);
    if ipv4 {
        let directory = PathBuf::from("/proc/sys/net/ipv4/conf").join(name);
        set_all(&directory, name, &WANTED_IPV4);
    }
    Ok(())
}

fn set_all(directory: &Path, name: &str, wanted: &[(&str, &str)]) {
    for (key, value) in wanted {
        if let Err(error) = set(&directory.join(key), value) {
            tracing::debug!(interface = name, key, %error, "left a kernel setting as it is");
        }
    }
}

fn enable(directory: &Path, name: &str) -> Result<(), Error> {
    match set(&directory.join("disable_ipv6"), "0") {
        Ok(()) => Ok(()),
        // Without /proc: adding the address will fail instead.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => Err(Error::Ipv6Disabled {
            name: name.to_owned(),
        }),
    }
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let directory = std::env::temp_dir().join(format!("sysctl-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let key = directory.join("key");
        fs::write(&key, "1\n").unwrap();
        set(&key, "1").unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "1\n");
        set(&key, "0").unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "0");
        assert!(set(&directory.join("none"), "0").is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
