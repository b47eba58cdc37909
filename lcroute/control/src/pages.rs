//! The address of `lcroute web`'s pages, which it stores with the key in a file.

use std::io;
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use librecast::plain::is_name;

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

/// Returns the link of a page with a token, and a session of Studio if given: after the `#`, which
/// browsers do not send. A page without a path is one of `lcroute web`.
///
/// # Errors
/// It is no URL of a page.
pub fn link(page: &str, token: &str, session: Option<&str>) -> Result<String, String> {
    let schemes = ["https://", "http://"];
    let rest = schemes.iter().find_map(|scheme| page.strip_prefix(scheme));
    let (host, path) = rest
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .unwrap_or_default();
    if host.is_empty() || page.contains(|c: char| c == '#' || c.is_whitespace()) || !is_name(page) {
        return Err(format!(
            "{page:?} is no address of a page, such as https://alpha.example:7180"
        ));
    }
    // browsers keep the page of lectures, which opens without a network
    let folder = match (path.is_empty(), session) {
        (false, _) => "",
        (true, Some(_)) => "/studio/",
        (true, None) => "/node/",
    };
    let page = if path.is_empty() {
        page.trim_end_matches('/')
    } else {
        page
    };
    let session = session.map(|session| format!(",{session}"));
    Ok(format!(
        "{page}{folder}#{token}{}",
        session.unwrap_or_default()
    ))
}

/// Whether the page's address is that of the host that opens it, useless to other hosts.
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
    fn a_link_has_its_token_where_no_server_sees_it() {
        for (page, expected) in [
            ("https://a.example:7180", "https://a.example:7180/node/#t"),
            ("http://[::1]:7180/", "http://[::1]:7180/node/#t"),
            (
                "https://a.example/lc/node/?x",
                "https://a.example/lc/node/?x#t",
            ),
        ] {
            assert_eq!(link(page, "t", None).as_deref(), Ok(expected));
            let both = format!("{expected},s");
            let both = both.replace("7180/node/", "7180/studio/");
            assert_eq!(link(page, "t", Some("s")), Ok(both));
        }
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "https:///node/",
            "http://a/#b",
            "http://a b",
            "http://a/\n",
        ] {
            assert!(link(bad, "t", None).is_err(), "{bad:?}");
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
