//! The address of `lcroute web`'s pages, which it stores with the key in a file.

use std::io;
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the file.
pub const ADDRESS_FILE: &str = "web.url";
/// Folder of the host's daemon.
const SYSTEM: &str = "/run/lcroute";
/// Folder of lcroute-web.service, which may not write into the daemon's.
const SERVICE: &str = "/run/lcroute-web";

/// Returns the address of the pages of the daemon with this control socket, if a server answers.
///
/// # Errors
/// This user has no permission; names the file.
pub fn served(control: &Path) -> io::Result<Option<String>> {
    let of_service = (control.parent() == Some(Path::new(SYSTEM)))
        .then(|| Path::new(SERVICE).join(ADDRESS_FILE));
    for file in [Some(beside(control)), of_service].into_iter().flatten() {
        match std::fs::read_to_string(&file) {
            Ok(text) if answers(text.trim()) => return Ok(Some(text.trim().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(io::Error::new(e.kind(), format!("{}: {e}", file.display())));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

/// Returns the address file of pages without a service.
#[must_use]
pub fn beside(control: &Path) -> PathBuf {
    control.with_file_name(ADDRESS_FILE)
}

fn answers(address: &str) -> bool {
    let authority = address.split('/').nth(2).unwrap_or_default();
    let connects = |at| TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok();
    authority
        .to_socket_addrs()
        .into_iter()
        .flatten()
        .any(connects)
}

/// Whether the page's address leads to the host that opens it, and is useless to other hosts.
#[must_use]
pub fn is_own_host(page: &str) -> bool {
    let authority = page.split('/').nth(2).unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_name = host.eq_ignore_ascii_case("localhost") || host.ends_with(".localhost");
    is_name
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_own_host_is_told_from_others() {
        for own in [
            "http://[::1]:7180",
            "http://127.1.2.3/",
            "https://localhost:7180/node/",
            "http://0.0.0.0:1",
        ] {
            assert!(is_own_host(own), "{own}");
        }
        for other in [
            "https://alpha.example:7180",
            "http://192.0.2.1/",
            "http://[fd00::1]:7180/node/",
        ] {
            assert!(!is_own_host(other), "{other}");
        }
    }

    #[test]
    fn pages_are_served_while_somebody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        assert_eq!(served(&control).unwrap(), None);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/#k", listener.local_addr().unwrap());
        std::fs::write(beside(&control), format!("{address}\n")).unwrap();
        assert_eq!(served(&control).unwrap(), Some(address));
        drop(listener);
        assert_eq!(served(&control).unwrap(), None, "nobody answers");
    }
}
