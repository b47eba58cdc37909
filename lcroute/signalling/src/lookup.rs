//! Names of servers. Each family is asked by itself: a name server that never answers for one does
//! not delay the other.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::pin::pin;
use std::ptr;
use std::time::Duration;

use futures_util::future::{Either, select};
use nix::libc;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Time for the other family after the first answer (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Time limit for all answers. Chosen: the system's own for two tries of three servers
/// (resolv.conf(5)); within it a late answer counts.
const LOOKUP: Duration = Duration::from_secs(30);

type Found = io::Result<Vec<SocketAddr>>;

/// Looks up `HOST:PORT`.
///
/// # Errors
/// The text has no port, or the name has no address.
pub async fn look_up(name: &str) -> Found {
    let parts = name.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = parts.ok_or(io::ErrorKind::InvalidInput)?;
    addresses(host.trim_matches(['[', ']']), port).await
}

/// Looks up a host; addresses that this host reaches precede others.
pub(crate) async fn addresses(host: &str, port: u16) -> Found {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = CString::new(host).map_err(|_| io::ErrorKind::InvalidInput)?;
    let asked = |family| ask(name.clone(), port, family);
    let found = merge(asked(libc::AF_INET6), asked(libc::AF_INET));
    let mut found = timeout(LOOKUP, found)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no name server answers"))??;
    found.sort_by_cached_key(rank);
    Ok(found)
}

/// Asks the system on a thread of its own, which delays the end of no runtime.
async fn ask(host: CString, port: u16, family: libc::c_int) -> Found {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("lookup".into());
    // the asker may have gone
    thread.spawn(move || drop(answer.send(ask_system(&host, port, family))))?;
    answered
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

/// Returns the addresses of the family that answers first, and those of the other if they come soon.
async fn merge(ipv6: impl Future<Output = Found>, ipv4: impl Future<Output = Found>) -> Found {
    match select(pin!(ipv6), pin!(ipv4)).await {
        Either::Left((Ok(first), other)) => Ok(with(first, timeout(RESOLUTION_DELAY, other).await)),
        Either::Right((Ok(first), other)) => {
            Ok(with(first, timeout(RESOLUTION_DELAY, other).await))
        }
        Either::Left((Err(_), other)) => other.await,
        Either::Right((Err(e), other)) => other.await.map_err(|_| e),
    }
}

fn with<E>(first: Vec<SocketAddr>, other: Result<Found, E>) -> Vec<SocketAddr> {
    let other = other.ok().and_then(Result::ok).unwrap_or_default();
    let all = first.into_iter().chain(other);
    let (mut sorted, ipv4): (Vec<_>, Vec<_>) = all.partition(SocketAddr::is_ipv6);
    sorted.extend(ipv4);
    sorted
}

/// Returns the place of an address. Last is one without a route, and before it one that the kernel
/// reaches only from an address within the site (RFC 6724, section 6, rules 1 and 5).
fn rank(address: &SocketAddr) -> u8 {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // connecting a datagram socket sends nothing
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    let is_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unique_local());
    match source {
        Ok(source) if is_local(source.ip()) && !is_local(address.ip()) => 1,
        Ok(_) => 0,
        Err(_) => 2,
    }
}

fn ask_system(host: &CStr, port: u16, family: libc::c_int) -> Found {
    // SAFETY: zero is a value of each of its fields: numbers and pointers
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = family;
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: name and hints live longer than the call, which sets the list if it returns 0
    let code =
        unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(lookup_error(code));
    }
    let mut found = Vec::new();
    let mut next = list.cast_const();
    // SAFETY: the system's list ends with null, and each entry is valid until it is freed
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: the entry has an address of its family
        found.extend(unsafe { address_of(entry, port) });
        next = entry.ai_next.cast_const();
    }
    // SAFETY: the list is the system's, and nothing refers to it any more
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// Returns an entry's address.
///
/// # Safety
/// The entry's address must be of the entry's family.
unsafe fn address_of(entry: &libc::addrinfo, port: u16) -> Option<SocketAddr> {
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: by the caller
            let at = unsafe { ptr::read_unaligned(entry.ai_addr.cast::<libc::sockaddr_in>()) };
            let ip = Ipv4Addr::from_bits(u32::from_be(at.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), port))
        }
        libc::AF_INET6 => {
            // SAFETY: by the caller
            let at = unsafe { ptr::read_unaligned(entry.ai_addr.cast::<libc::sockaddr_in6>()) };
            let ip = Ipv6Addr::from(at.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, port, 0, at.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn lookup_error(code: libc::c_int) -> io::Error {
    if code == libc::EAI_SYSTEM {
        return io::Error::last_os_error();
    }
    // SAFETY: the system returns a static text for any code
    let reason = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    let reason = reason.to_string_lossy();
    io::Error::other(format!("failed to lookup address information: {reason}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn found(address: &str) -> Found {
        Ok(vec![address.parse().unwrap()])
    }

    fn none() -> Found {
        Err(io::Error::other("no address"))
    }

    #[tokio::test]
    async fn a_family_that_never_answers_does_not_delay_the_other() {
        let (four, six) = ("192.0.2.1:80", "[2001:db8::1]:80");
        let all = merge(pending(), ready(found(four))).await;
        assert_eq!(all.unwrap(), found(four).unwrap());
        let all = merge(ready(found(six)), pending()).await;
        assert_eq!(all.unwrap(), found(six).unwrap());
    }

    #[tokio::test]
    async fn a_late_answer_counts_where_the_other_family_has_none() {
        let late = async {
            tokio::task::yield_now().await;
            found("192.0.2.1:80")
        };
        assert!(merge(ready(none()), late).await.is_ok());
        assert!(merge(ready(none()), ready(none())).await.is_err());
    }

    #[tokio::test]
    async fn the_system_is_asked_for_both_families() {
        let all = look_up("localhost:80").await.unwrap();
        assert!(
            !all.is_empty()
                && all
                    .iter()
                    .all(|at| at.ip().is_loopback() && at.port() == 80),
            "{all:?}"
        );
        let literal = look_up("[::1]:81").await.unwrap();
        assert_eq!(literal, found("[::1]:81").unwrap());
        for bad in ["localhost", "localhost:x", "local\0host:80"] {
            assert!(look_up(bad).await.is_err(), "{bad:?}");
        }
    }
}
