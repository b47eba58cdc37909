//! Port mappings by UPnP IGD: SSDP finds the router, HTTP carries its description and requests.
//!
//! ```text
//! we ── M-SEARCH (UDP 1900) ──▶ router       where is your description?
//! we ── GET, HTTP ────────────▶ router       which service maps ports, and where?
//! we ── POST, SOAP ───────────▶ router       GetExternalIPAddress, AddPortMapping, DeletePortMapping
//! ```
//!
//! Only the router's own address is asked, and only its answers count.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use lcroute_netlink::Gateway;
use librecast::plain::clean;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::http;
use crate::status::is_offerable;

/// Port of SSDP (UPnP Device Architecture 1.0, 1.2.2).
const SSDP_PORT: u16 = 1900;
const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// Search target: version 2 routers also answer to version 1.
const SEARCH: &str = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
/// Timeout for answers to a search. Chosen.
const SEARCH_TRY: Duration = Duration::from_millis(700);
/// Searches, as UDP may lose some (UPnP Device Architecture 1.0, 1.2.2).
const SEARCH_TRIES: usize = 3;
/// Services that map ports, without version numbers.
const KINDS: [&str; 2] = [
    "urn:schemas-upnp-org:service:WANIPConnection:",
    "urn:schemas-upnp-org:service:WANPPPConnection:",
];
/// Most services of one router to try: usually one of two is connected.
const MAX_SERVICES: usize = 4;
/// Most external ports to try after conflicts.
const PORT_TRIES: usize = 4;

/// ConflictInMappingEntry: another host has the port (UPnP WANIPConnection 1, 2.4.16).
const CONFLICT: u16 = 718;
/// Refusals of mappings with an end: OnlyPermanentLeasesSupported (same section), and Invalid Args and Action Failed
/// (UPnP Device Architecture 1.0, 3.2.2), as some routers answer in its place.
const NO_LEASE: [u16; 3] = [725, 402, 501];

/// A mapping of a router.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    service: Service,
    /// The mapped address.
    pub(crate) external: SocketAddrV4,
}

/// The control address and type of a router's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The router's address and port.
    pub at: SocketAddrV4,
    /// The path: begins with `/`, without line breaks.
    pub path: String,
    kind: String,
}

/// Maps a UDP port of this host for this number of seconds. `unanswered` has the mapping while the
/// router has been asked for it and has not answered: it may make it after this call was dropped.
pub(crate) async fn map(
    gateway: Gateway,
    port: u16,
    seconds: u32,
    unanswered: &mut Option<Mapping>,
) -> anyhow::Result<Mapping> {
    let location = search(gateway).await?;
    let answer = http::ask(location.at.into(), &location.path, None).await?;
    let services = services(&answer.body, &location);
    ensure!(!services.is_empty(), "it has no service that maps ports");
    let mut failure = None;
    for service in services {
        let mapped = service.map(gateway.local, port, seconds, unanswered);
        match mapped.await {
            Ok(external) => return Ok(Mapping { service, external }),
            Err(e) => failure = Some(e),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow!("no service")))
}

impl Mapping {
    /// Renews the mapping.
    pub(crate) async fn renew(
        &mut self,
        local: Ipv4Addr,
        port: u16,
        secs: u32,
    ) -> anyhow::Result<()> {
        let suggested = self.external.port();
        // this mapping itself is given back
        let mapped = self
            .service
            .map_at(suggested, local, port, secs, &mut None)
            .await;
        self.external = mapped?;
        Ok(())
    }

    /// Deletes the mapping.
    pub(crate) async fn end(&self) -> anyhow::Result<()> {
        let args = remote(self.external.port());
        self.service.ask("DeletePortMapping", &args).await?;
        Ok(())
    }
}

/// An HTTP URL of the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    at: SocketAddrV4,
    path: String,
}

impl Location {
    /// Parses a URL; `None` if it has another address than the router's.
    fn parse(url: &str, router: Ipv4Addr) -> Option<Self> {
        let rest = url.get(..7).filter(|s| s.eq_ignore_ascii_case("http://"));
        let rest = rest.and(url.get(7..))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (ip, port) = authority.split_once(':').unwrap_or((authority, "80"));
        let ip: Ipv4Addr = ip.parse().ok()?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let at = SocketAddrV4::new(ip, port);
        (ip == router && is_path(path)).then(|| Self {
            at,
            path: path.to_owned(),
        })
    }

    /// Resolves a URL, or a path relative to this one.
    fn join(&self, url: &str) -> Option<Self> {
        if url.contains("://") {
            return Self::parse(url, *self.at.ip());
        }
        let folder = self.path.rfind('/').map_or("", |at| &self.path[..at]);
        let path = match url.starts_with('/') {
            true => url.to_owned(),
            false => format!("{folder}/{url}"),
        };
        is_path(&path).then_some(Self { at: self.at, path })
    }
}

/// Whether this is a path without line breaks.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 1_024 && path.bytes().all(|b| b.is_ascii_graphic())
}

/// Returns the URL of the router's description.
async fn search(gateway: Gateway) -> anyhow::Result<Location> {
    let socket = UdpSocket::bind((gateway.local, 0)).await?;
    SockRef::from(&socket).set_multicast_if_v4(&gateway.local)?;
    SockRef::from(&socket).set_multicast_ttl_v4(2)?;
    let router = SocketAddr::from((gateway.address, SSDP_PORT));
    let group = SocketAddr::from((SSDP_GROUP, SSDP_PORT));
    let mut buffer = [0; 2_048];
    let mut elsewhere = false;
    for attempt in 0..SEARCH_TRIES {
        // unicast first: that opens a closed firewall to the answer, and asks only this router
        socket.send_to(request(router).as_bytes(), router).await?;
        if attempt > 0 {
            socket.send_to(request(group).as_bytes(), group).await?;
        }
        let until = Instant::now() + SEARCH_TRY;
        while let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            // an ICMP error: the port is closed
            let Ok((length, from)) = received else { break };
            if from.ip() != IpAddr::V4(gateway.address) {
                continue;
            }
            match location(&buffer[..length], gateway.address) {
                Some(location) => return Ok(location),
                None => elsewhere = true,
            }
        }
    }
    match elsewhere {
        true => bail!("it answers, and names no place of its own"),
        false => bail!("no answer"),
    }
}

fn request(to: SocketAddr) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {to}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {SEARCH}\r\n\r\n"
    )
}

/// Returns `LOCATION:` of an answer, if it is an URL of the router itself.
#[must_use]
pub fn location(answer: &[u8], router: Ipv4Addr) -> Option<Location> {
    let text = std::str::from_utf8(answer).ok()?;
    let headers = text.lines().filter_map(|line| line.split_once(':'));
    let mut locations = headers.filter(|(name, _)| name.trim().eq_ignore_ascii_case("location"));
    locations.find_map(|(_, url)| Location::parse(url.trim(), router))
}

/// Returns the services of a description that map ports.
#[must_use]
pub fn services(description: &str, location: &Location) -> Vec<Service> {
    let base = element(description, "URLBase").and_then(|url| location.join(url));
    let base = base.unwrap_or_else(|| location.clone());
    let mut found = Vec::new();
    let mut rest = description;
    while let Some((service, after)) = split(rest, "service") {
        rest = after;
        let kind = element(service, "serviceType").filter(|kind| is_kind(kind));
        let control = element(service, "controlURL").filter(|url| !url.is_empty());
        let Some((kind, control)) = kind.zip(control) else {
            continue;
        };
        if let Some(Location { at, path }) = base.join(&control.replace("&amp;", "&")) {
            let kind = kind.to_owned();
            found.push(Service { at, path, kind });
        }
        if found.len() == MAX_SERVICES {
            break;
        }
    }
    found
}

/// Whether this is a service type that maps ports; it is repeated in headers and XML.
fn is_kind(kind: &str) -> bool {
    KINDS.iter().any(|known| {
        let version = kind.strip_prefix(known);
        version.is_some_and(|v| (1..=2).contains(&v.len()) && v.bytes().all(|b| b.is_ascii_digit()))
    })
}

impl Service {
    async fn map(
        &self,
        local: Ipv4Addr,
        port: u16,
        seconds: u32,
        unanswered: &mut Option<Mapping>,
    ) -> anyhow::Result<SocketAddrV4> {
        self.map_at(port, local, port, seconds, unanswered).await
    }

    async fn map_at(
        &self,
        suggested: u16,
        local: Ipv4Addr,
        port: u16,
        seconds: u32,
        unanswered: &mut Option<Mapping>,
    ) -> anyhow::Result<SocketAddrV4> {
        let answer = self.ask("GetExternalIPAddress", "").await?;
        let external = element(&answer, "NewExternalIPAddress").unwrap_or_default();
        // first, so that no useless mapping is made
        let ip: Ipv4Addr = external.parse().context("it has no address itself")?;
        ensure!(is_offerable(ip), "its own address is {ip}");
        let (mut external, mut lease) = (suggested, seconds);
        let mut tries = 0;
        loop {
            if self.is_taken(external, local, port).await {
                tries += 1;
                ensure!(tries < PORT_TRIES, "others have all ports that were tried");
                external = some_port();
                continue;
            }
            let args = format!(
                "{}<NewInternalPort>{port}</NewInternalPort><NewInternalClient>{local}</NewInternalClient>\
                 <NewEnabled>1</NewEnabled><NewPortMappingDescription>lcroute</NewPortMappingDescription>\
                 <NewLeaseDuration>{lease}</NewLeaseDuration>",
                remote(external)
            );
            let address = SocketAddrV4::new(ip, external);
            *unanswered = Some(Mapping {
                service: self.clone(),
                external: address,
            });
            let added = self.ask("AddPortMapping", &args).await;
            let is_refused = |e: &anyhow::Error| e.is::<Refusal>();
            if added.as_ref().err().is_none_or(is_refused) {
                *unanswered = None;
            }
            let Err(e) = added else {
                return Ok(address);
            };
            tries += 1;
            match e.downcast_ref::<Refusal>() {
                _ if tries == PORT_TRIES => return Err(e),
                Some(Refusal(CONFLICT, _)) => external = some_port(),
                // deleted at the end; after a crash the next run takes it again with the same port
                Some(Refusal(code, _)) if lease != 0 && NO_LEASE.contains(code) => lease = 0,
                _ => return Err(e),
            }
        }
    }

    /// Returns whether another program or host has an external port. A router overwrites the entry
    /// of another program of this host (UPnP WANIPConnection 1, 2.4.16), and does not refuse.
    async fn is_taken(&self, external: u16, local: Ipv4Addr, port: u16) -> bool {
        let args = remote(external);
        // an error: there is no entry, or the router states none
        let Ok(entry) = self.ask("GetSpecificPortMappingEntry", &args).await else {
            return false;
        };
        let client = element(&entry, "NewInternalClient").and_then(|ip| ip.parse().ok());
        let its_port = element(&entry, "NewInternalPort").and_then(|port| port.parse().ok());
        let holder = client.zip(its_port);
        // some routers answer with an empty entry where there is none
        holder.is_some_and(|(ip, its)| !Ipv4Addr::is_unspecified(&ip) && (ip, its) != (local, port))
    }

    async fn ask(&self, action: &str, args: &str) -> anyhow::Result<String> {
        let kind = &self.kind;
        let headers = format!(
            "Content-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"{kind}#{action}\"\r\n"
        );
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} xmlns:u=\"{kind}\">\
             {args}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let answer = http::ask(self.at.into(), &self.path, Some((&headers, &body))).await?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let code = element(&answer.body, "errorCode").and_then(|code| code.parse().ok());
        let says = element(&answer.body, "errorDescription").unwrap_or_default();
        match code {
            Some(code) => {
                let says: String = says.chars().take(80).collect();
                Err(Refusal(code, clean(&says)).into())
            }
            None => Err(anyhow!("{action}: HTTP {}", answer.status)),
        }
    }
}

/// A router's error code and text.
#[derive(Debug, thiserror::Error)]
#[error("it refuses: {1} ({0})")]
struct Refusal(u16, String);

/// Returns the arguments that identify a mapping.
fn remote(port: u16) -> String {
    format!(
        "<NewRemoteHost></NewRemoteHost><NewExternalPort>{port}</NewExternalPort><NewProtocol>UDP</NewProtocol>"
    )
}

fn some_port() -> u16 {
    let mut bytes = [0; 2];
    // any value will do: the router reports whether it is free
    let _ = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes) | 0x8000
}

/// Returns the text of the first element of this name. This is not a parser: it ignores nesting and
/// keeps no state. A hostile text can only make it return other words.
#[must_use]
pub fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    Some(split(xml, name)?.0.trim())
}

/// Returns the content of the first element of this name, with any prefix, and the text after it.
fn split<'a>(xml: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut rest = xml;
    loop {
        let at = rest.find('<')?;
        rest = &rest[at + 1..];
        let end = rest.find('>')?;
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        let tag = tag.split_ascii_whitespace().next().unwrap_or_default();
        if !local_name(tag).eq_ignore_ascii_case(name) || tag.starts_with('/') {
            continue;
        }
        let close = format!("</{tag}");
        // `</service` is also the beginning of `</serviceType>`
        let ends = |at: &usize| after[at + close.len()..].trim_start().starts_with('>');
        let mut closes = after.match_indices(&close).map(|(at, _)| at);
        let until = closes.find(ends)?;
        return Some((&after[..until], &after[until + close.len()..]));
    }
}

fn local_name(tag: &str) -> &str {
    tag.rsplit(':').next().unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn at(url: &str) -> Option<Location> {
        Location::parse(url, ROUTER)
    }

    #[test]
    fn nobody_but_the_router_is_asked() {
        let found = at("http://192.168.1.1:5000/rootDesc.xml").unwrap();
        assert_eq!(found.at.port(), 5_000);
        assert_eq!(found.path, "/rootDesc.xml");
        assert_eq!(at("HTTP://192.168.1.1").unwrap().path, "/");
        for url in [
            "http://192.168.1.2/",
            "http://127.0.0.1/",
            "http://router/",
            "http://192.168.1.1@evil/",
            "http://192.168.1.1:0/",
            "http://192.168.1.1:99999/",
            "https://192.168.1.1/",
            "http://192.168.1.1/a b",
            "http://192.168.1.1/a\r\nX: y",
            "é",
            "",
        ] {
            assert_eq!(at(url), None, "{url}");
        }
        for (url, path) in [
            ("/ctl", Some("/ctl")),
            ("ctl?x", Some("/a/ctl?x")),
            ("http://192.168.1.1:80/x", Some("/x")),
            ("http://192.168.1.9/x", None),
            ("ftp://192.168.1.1/x", None),
            ("a b", None),
        ] {
            let joined = at("http://192.168.1.1/a/b").unwrap().join(url);
            assert_eq!(joined.map(|l| l.path).as_deref(), path, "{url}");
        }
        let says = |url| format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {url}\r\n\r\n");
        assert!(location(says("http://192.168.1.1:1/d").as_bytes(), ROUTER).is_some());
        assert!(location(says("http://192.168.1.7:1/d").as_bytes(), ROUTER).is_none());
    }

    #[test]
    fn services_are_found_as_routers_write_them() {
        let description = "<?xml version=\"1.0\"?><root xmlns=\"urn:x\"><serviceList>\
            <service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
            <controlURL>/l3</controlURL></service>\
            <service>\n<serviceType> urn:schemas-upnp-org:service:WANPPPConnection:1\n</serviceType>\
            <SCPDURL>/x</SCPDURL><controlURL>ppp?a=1&amp;b=2</controlURL></service>\
            <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType>\
            <controlURL>http://192.168.1.1:81/ip</controlURL></service>\
            <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
            <controlURL>http://192.0.2.1/ip</controlURL></service>\
            <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\"</serviceType>\
            <controlURL>/bad</controlURL></service>\
            </serviceList></root>";
        let found = services(description, &at("http://192.168.1.1:5000/d/r.xml").unwrap());
        let shown: Vec<_> = found
            .iter()
            .map(|s| (s.at.port(), s.path.as_str(), s.kind.rsplit(':').nth(1)))
            .collect();
        assert_eq!(
            shown,
            [
                (5_000, "/d/ppp?a=1&b=2", Some("WANPPPConnection")),
                (81, "/ip", Some("WANIPConnection")),
            ]
        );
    }

    #[test]
    fn elements_are_found_with_any_prefix() {
        let fault = "<s:Fault><detail><u:UPnPError xmlns:u=\"x\"><u:errorCode>718</u:errorCode></u:UPnPError></s:Fault>";
        assert_eq!(element(fault, "errorCode"), Some("718"));
        assert_eq!(element("<a/><b>x", "b"), None);
        assert_eq!(element("<é>x</é>", "b"), None);
    }

    /// A router that knows entries by external port, as WANIPConnection 1 describes it.
    struct Router {
        service: Service,
        entries: Arc<Mutex<BTreeMap<u16, (String, String)>>>,
    }

    impl Router {
        async fn start() -> Self {
            Self::with(None, false).await
        }

        /// `leases`: answers mappings with an end by this error. `is_slow`: makes mappings, and does
        /// not answer.
        async fn with(leases: Option<u16>, is_slow: bool) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
                panic!("IPv4")
            };
            let entries = Arc::new(Mutex::new(BTreeMap::new()));
            let known = entries.clone();
            tokio::spawn(async move {
                let mut unanswered = Vec::new();
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"</s:Envelope>\r\n") {
                        stream.read_buf(&mut request).await.unwrap();
                    }
                    let request = String::from_utf8(request).unwrap();
                    let (status, body) = answer(&request, &mut known.lock().unwrap(), leases);
                    if is_slow && request.contains("#AddPortMapping\"") {
                        unanswered.push(stream);
                        continue;
                    }
                    let length = body.len();
                    let text =
                        format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}");
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
            });
            let (path, kind) = ("/ctl".to_owned(), format!("{}1", KINDS[0]));
            Self {
                service: Service { at, path, kind },
                entries,
            }
        }

        fn set(&self, external: u16, client: Ipv4Addr, port: u16) {
            let entry = (client.to_string(), port.to_string());
            self.entries.lock().unwrap().insert(external, entry);
        }

        fn has(&self, external: u16) -> Option<(String, String)> {
            self.entries.lock().unwrap().get(&external).cloned()
        }

        async fn map(&self, port: u16) -> anyhow::Result<u16> {
            let external = self.service.map(HOST, port, 7_200, &mut None).await?;
            assert_eq!(external.ip().to_string(), "203.0.113.5");
            Ok(external.port())
        }
    }

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const OTHER_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 3);

    fn answer(
        request: &str,
        entries: &mut BTreeMap<u16, (String, String)>,
        leases: Option<u16>,
    ) -> (u16, String) {
        let fault = |code| (500, format!("<errorCode>{code}</errorCode>"));
        let text = |name| element(request, name).unwrap_or_default().to_owned();
        let external: u16 = text("NewExternalPort").parse().unwrap_or_default();
        if request.contains("#GetExternalIPAddress\"") {
            let ip = "203.0.113.5";
            return (
                200,
                format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>"),
            );
        }
        if request.contains("#GetSpecificPortMappingEntry\"") {
            return match entries.get(&external) {
                Some((client, port)) => (
                    200,
                    format!(
                        "<NewInternalPort>{port}</NewInternalPort><NewInternalClient>{client}</NewInternalClient>"
                    ),
                ),
                None => fault(714),
            };
        }
        if request.contains("#DeletePortMapping\"") {
            entries.remove(&external);
            return (200, String::new());
        }
        if let Some(code) = leases.filter(|_| text("NewLeaseDuration") != "0") {
            return fault(code);
        }
        let client = text("NewInternalClient");
        if entries
            .get(&external)
            .is_some_and(|(other, _)| *other != client)
        {
            return fault(CONFLICT);
        }
        entries.insert(external, (client, text("NewInternalPort")));
        (200, String::new())
    }

    #[tokio::test]
    async fn programs_and_hosts_do_not_take_each_other_s_ports() {
        let router = Router::start().await;
        router.set(50_000, OTHER_HOST, 50_000);
        router.set(50_001, HOST, 7_000);
        router.set(50_002, HOST, 50_002);
        for (port, keeps) in [
            (50_000, false),
            (50_001, false),
            (50_002, true),
            (50_003, true),
        ] {
            let external = router.map(port).await.unwrap();
            assert_eq!(external == port, keeps, "{port}");
            let entry = (HOST.to_string(), port.to_string());
            assert_eq!(router.has(external), Some(entry));
        }
        let other = Some((OTHER_HOST.to_string(), "50000".to_owned()));
        assert_eq!(router.has(50_000), other);
        let other = Some((HOST.to_string(), "7000".to_owned()));
        assert_eq!(
            router.has(50_001),
            other,
            "a router would have overwritten it"
        );
    }

    #[tokio::test]
    async fn a_mapping_keeps_its_port_and_is_deleted_at_the_end() {
        let router = Router::start().await;
        router.set(50_000, HOST, 7_000);
        let mut unanswered = None;
        let mapped = router.service.map(HOST, 50_000, 7_200, &mut unanswered);
        let external = mapped.await.unwrap();
        let service = router.service.clone();
        let mut mapping = Mapping { service, external };
        mapping.renew(HOST, 50_000, 7_200).await.unwrap();
        assert_eq!(mapping.external, external);
        mapping.end().await.unwrap();
        assert_eq!(router.has(external.port()), None);
        assert!(router.has(50_000).is_some(), "of the other program");
    }

    #[tokio::test]
    async fn a_router_that_takes_no_lease_gets_a_mapping_without_an_end() {
        for code in NO_LEASE {
            let router = Router::with(Some(code), false).await;
            let external = router.map(50_000).await.unwrap();
            assert_eq!(external, 50_000, "{code}");
            assert!(router.has(external).is_some(), "{code}");
        }
        let refused = Router::with(Some(600), false).await.map(50_000).await;
        assert!(refused.unwrap_err().to_string().contains("600"));
    }

    #[tokio::test]
    async fn a_mapping_whose_answer_nobody_awaited_can_be_withdrawn() {
        let router = Router::with(None, true).await;
        let mut unanswered = None;
        {
            let mapped = router.service.map(HOST, 50_000, 7_200, &mut unanswered);
            tokio::pin!(mapped);
            while router.has(50_000).is_none() {
                tokio::select! {
                    _ = &mut mapped => panic!("the router answers nothing"),
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
        }
        unanswered.unwrap().end().await.unwrap();
        assert_eq!(router.has(50_000), None);
        // an answer leaves nothing to withdraw
        let (quick, mut unanswered) = (Router::start().await, None);
        let mapped = quick.service.map(HOST, 50_000, 7_200, &mut unanswered);
        mapped.await.unwrap();
        assert!(unanswered.is_none());
    }

    #[tokio::test]
    async fn a_router_that_has_no_port_left_is_asked_a_few_times() {
        let router = Router::start().await;
        for port in 0..=u16::MAX {
            router.set(port, OTHER_HOST, port);
        }
        let refused = router.map(50_000).await.unwrap_err();
        assert!(refused.to_string().contains("others have all"), "{refused}");
    }

    proptest! {
        #[test]
        fn arbitrary_descriptions_do_not_panic(text in "(<[/a-z: ]{0,9}>|service|controlURL|.){0,60}") {
            let base = at("http://192.168.1.1/").unwrap();
            let _ = services(&text, &base);
            let _ = base.join(&text);
            let _ = location(text.as_bytes(), ROUTER);
        }
    }
}
