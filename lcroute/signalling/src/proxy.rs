//! Proxies on the way to signalling servers and relays: SOCKS5, or a web proxy's CONNECT.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::Empty;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;
use zeroize::Zeroizing;

use crate::lookup;

/// Time limit for each step of a connection. Chosen.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// Time limit of TCP for an address, one repetition included: later ones come ever more rarely.
const DIAL: Duration = Duration::from_millis(2_500);
/// Maximum length of a proxy's answer in bytes; hyper accepts no less.
const MAX_HEAD: usize = 8 << 10;
/// Port of a web proxy that names none. curl and squid use the same.
const WEB_PROXY_PORT: u16 = 3_128;

/// A proxy for TCP connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// SOCKS5, such as Tor's: it hides this host, so datagrams to the same servers are not sent.
    Socks(SocketAddr),
    /// A web proxy: the only way out of some networks.
    Web(WebProxy),
}

impl Proxy {
    /// Returns whether this host must not be seen by the servers.
    pub fn hides(&self) -> bool {
        matches!(self, Self::Socks(_))
    }
}

/// A web proxy that passes connections by CONNECT (RFC 9110 9.3.6).
#[derive(Clone, PartialEq, Eq)]
pub struct WebProxy {
    host: String,
    port: u16,
    /// The value of Proxy-Authorization.
    authorization: Option<Zeroizing<String>>,
    /// Hosts that are reached without it, as `no_proxy` names them.
    except: Vec<String>,
    /// Whether only connections with TLS use it.
    tls_alone: bool,
}

/// Without the password.
impl fmt::Debug for WebProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebProxy({}:{})", self.host, self.port)
    }
}

impl fmt::Display for WebProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

impl WebProxy {
    /// Reads `http://[USER:PASSWORD@]HOST[:PORT]`, with or without the scheme.
    ///
    /// # Errors
    /// Another form; the text does not repeat the password.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        ensure!(
            !rest.contains("://"),
            "only a proxy at http:// is supported"
        );
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, at) = match rest.rsplit_once('@') {
            Some((login, at)) => (Some(login), at),
            None => (None, rest),
        };
        let authority: hyper::http::uri::Authority =
            at.parse().ok().context("not http://HOST:PORT of a proxy")?;
        let host = authority.host().trim_matches(['[', ']']);
        ensure!(!host.is_empty(), "not http://HOST:PORT of a proxy");
        let port = match at.strip_prefix(authority.host()) {
            Some("") => WEB_PROXY_PORT,
            _ => authority
                .port_u16()
                .context("the proxy's port is not a number")?,
        };
        let mut proxy = Self {
            host: host.to_owned(),
            port,
            authorization: None,
            except: Vec::new(),
            tls_alone: false,
        };
        if let Some(login) = login {
            let login = percent_decode_str(login).decode_utf8();
            proxy.set_login(&login.ok().context("not UTF-8: USER:PASSWORD")?)?;
        }
        Ok(proxy)
    }

    /// Sets `USER:PASSWORD`.
    ///
    /// # Errors
    /// Another form.
    pub fn set_login(&mut self, login: &str) -> anyhow::Result<()> {
        ensure!(
            login.contains(':') && !login.contains(char::is_control),
            "not one line USER:PASSWORD"
        );
        self.authorization = Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(login))));
        Ok(())
    }

    /// Uses the proxy for TLS alone, and not for these hosts, as curl uses one: names, which mean
    /// their subdomains too, addresses, or `*`, with commas between, as `no_proxy` has them.
    #[must_use]
    pub fn for_tls_except(mut self, hosts: &str) -> Self {
        self.tls_alone = true;
        let hosts = hosts.split(',').map(str::trim).filter(|h| !h.is_empty());
        self.except = hosts.map(|host| host.to_ascii_lowercase()).collect();
        self
    }

    /// Returns whether it is used for this host, with TLS or without.
    fn is_for(&self, host: &str, tls: bool) -> bool {
        let host = host.to_ascii_lowercase();
        let is_loopback = host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let excepted = |name: &String| {
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            let subdomain = host.strip_suffix(name).is_some_and(|h| h.ends_with('.'));
            name == "*" || host == name || subdomain
        };
        let fits = tls || !self.tls_alone;
        fits && !is_loopback && host != "localhost" && !self.except.iter().any(excepted)
    }

    /// Asks the proxy at the other end for a connection to this host.
    async fn connect(&self, tcp: TcpStream, host: &str, port: u16) -> anyhow::Result<TcpStream> {
        let target = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = target.parse()?;
        request.headers_mut().insert(HOST, target.parse()?);
        if let Some(authorization) = &self.authorization {
            let mut value = HeaderValue::from_str(authorization)?;
            value.set_sensitive(true);
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(tcp))
            .await?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            match answer.status() {
                StatusCode::OK => Ok(hyper::upgrade::on(answer).await?),
                StatusCode::PROXY_AUTHENTICATION_REQUIRED => match self.authorization {
                    Some(_) => bail!("it refuses this user and password (407)"),
                    None => bail!(
                        "it wants a user and a password (407): [signal] https_proxy_login = FILE, or https_proxy=http://USER:PASSWORD@..."
                    ),
                },
                StatusCode::FORBIDDEN => {
                    bail!("it permits no connection to {target} (403); most permit port 443 alone")
                }
                other => bail!("it answers {} for {target}", other.as_u16()),
            }
        };
        // a refusal leaves the connection open
        let upgraded = match select(pin!(answer), pin!(connection.with_upgrades())).await {
            Either::Left((upgraded, _)) => upgraded?,
            Either::Right((_, answer)) => answer.await?,
        };
        let parts = upgraded.downcast::<TokioIo<TcpStream>>();
        let parts = parts.map_err(|_| anyhow::anyhow!("another stream"))?;
        // neither TLS nor a WebSocket lets the server begin
        ensure!(parts.read_buf.is_empty(), "it sent more than its answer");
        Ok(parts.io.into_inner())
    }
}

/// Connects to the server's first answering address, or through a proxy by name; `tls` is what the
/// connection is for.
pub(crate) async fn dial(
    (host, port): (&str, u16),
    tls: bool,
    proxy: Option<&Proxy>,
) -> anyhow::Result<TcpStream> {
    let tcp = match proxy {
        Some(Proxy::Socks(at)) => {
            let connecting = timeout(CONNECT, Socks5Stream::connect(*at, (host, port)));
            let connected = connecting.await.map_err(|_| no_answer())?;
            let stream = connected.with_context(|| format!("[signal] socks = \"{at}\""))?;
            stream.into_inner()
        }
        Some(Proxy::Web(web)) if web.is_for(host, tls) => {
            let connecting = async {
                let tcp = direct(&web.host, web.port).await?;
                let connecting = timeout(CONNECT, web.connect(tcp, host, port)).await;
                connecting.unwrap_or_else(|_| Err(no_answer()))
            };
            let connected = connecting.await;
            connected.with_context(|| format!("web proxy {web}"))?
        }
        _ => direct(host, port).await?,
    };
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn direct(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let mut error = anyhow::anyhow!("{host} has no address");
    let found = lookup::addresses(host, port).await;
    for address in found.map_err(|e| anyhow::anyhow!("{host} has no address: {e}"))? {
        error = match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(e)) => e.into(),
            Err(_) => anyhow::anyhow!("{address}: no answer within {DIAL:?}"),
        };
    }
    Err(error)
}

pub(crate) fn no_answer() -> anyhow::Error {
    anyhow::anyhow!("no answer within {CONNECT:?}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_proxy_is_written_as_curl_takes_it() {
        for (text, shown) in [
            ("http://proxy.example:8080/", "http://proxy.example:8080"),
            ("proxy.example", "http://proxy.example:3128"),
            ("http://[2001:db8::1]:81", "http://[2001:db8::1]:81"),
            ("http://ann:p%40ss@10.0.0.1:3128", "http://10.0.0.1:3128"),
        ] {
            assert_eq!(WebProxy::parse(text).unwrap().to_string(), shown);
        }
        let with_login = WebProxy::parse("http://ann:p%40ss@10.0.0.1").unwrap();
        let mut by_file = WebProxy::parse("10.0.0.1").unwrap();
        by_file.set_login("ann:p@ss").unwrap();
        assert_eq!(with_login, by_file);
        assert_eq!(format!("{with_login:?}"), "WebProxy(10.0.0.1:3128)");
        for bad in [
            "",
            "http://",
            "https://proxy.example",
            "socks5://10.0.0.1:1080",
            "http://proxy.example:port",
            "http://ann%ff:secret@proxy.example",
            "http://annsecret@proxy.example",
        ] {
            let error = format!("{:#}", WebProxy::parse(bad).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn some_hosts_are_reached_without_it() {
        let proxy = WebProxy::parse("10.0.0.1").unwrap();
        let proxy = proxy.for_tls_except(" .example.org, meet.example.com,198.18.0.1,");
        for (host, used) in [
            ("example.org", false),
            ("Meet.Example.ORG", false),
            ("badexample.org", true),
            ("meet.example.com", false),
            ("example.com", true),
            ("198.18.0.1", false),
            ("198.18.0.11", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("localhost", false),
        ] {
            assert_eq!(proxy.is_for(host, true), used, "{host}");
            assert!(!proxy.is_for(host, false), "{host}");
        }
        assert!(!proxy.for_tls_except("*").is_for("example.net", true));
        let configured = WebProxy::parse("10.0.0.1").unwrap();
        assert!(configured.is_for("example.net", false));
    }

    /// Serves one connection with this answer; returns the request.
    async fn answer_once(listener: TcpListener, answer: Vec<u8>) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(&answer).await.unwrap();
        let mut echo = [0; 4];
        if stream.read_exact(&mut echo).await.is_ok() {
            stream.write_all(&echo).await.unwrap();
        }
        String::from_utf8(request).unwrap()
    }

    async fn ask(login: &str, answer: &[u8]) -> (anyhow::Result<TcpStream>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let proxy = WebProxy::parse(&format!("http://{login}{at}")).unwrap();
        let served = tokio::spawn(answer_once(listener, answer.to_vec()));
        let proxy = Proxy::Web(proxy);
        let dialled = dial(("meet.example", 443), true, Some(&proxy)).await;
        let dialled = match dialled {
            Ok(mut stream) => {
                stream.write_all(b"ping").await.unwrap();
                let mut echo = [0; 4];
                stream.read_exact(&mut echo).await.unwrap();
                assert_eq!(&echo, b"ping");
                Ok(stream)
            }
            error => error,
        };
        (dialled, served.await.unwrap())
    }

    #[tokio::test]
    async fn a_connection_is_asked_for_by_name_and_passes_bytes() {
        let (stream, request) = ask("", b"HTTP/1.1 200 Connection established\r\n\r\n").await;
        stream.unwrap();
        let lower = request.to_ascii_lowercase();
        assert!(lower.starts_with("connect meet.example:443 http/1.1\r\n"));
        assert!(
            lower.contains("\r\nhost: meet.example:443\r\n"),
            "{request}"
        );
        assert!(!lower.contains("authorization"), "{request}");
        let (stream, request) = ask("ann:pass@", b"HTTP/1.1 200 OK\r\n\r\n").await;
        stream.unwrap();
        assert!(request.contains("Basic YW5uOnBhc3M="), "{request}");
    }

    #[tokio::test]
    async fn refusals_and_garbage_are_named() {
        let long = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'x'; 20_000]].concat();
        for (answer, named) in [
            (
                &b"HTTP/1.1 407 No\r\ncontent-length: 9\r\n\r\nsorry"[..],
                "407",
            ),
            (b"HTTP/1.1 403 No\r\ncontent-length: 9\r\n\r\nsorry", "403"),
            (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "503"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "web proxy"),
            (b"\xff\xff\xff\xff", "web proxy"),
            (&long, "web proxy"),
            (b"", "web proxy"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let answer = answer.to_vec();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1_000];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
                // a refusal that is not whole, and no end
                if answer.ends_with(b"sorry") {
                    let _ = stream.read(&mut request).await;
                }
            });
            let proxy = Proxy::Web(WebProxy::parse(&at.to_string()).unwrap());
            let error = dial(("meet.example", 443), true, Some(&proxy))
                .await
                .unwrap_err();
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }
}
