//! Signalling servers of a node, and their STUN addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use lcroute_control::config::{Config, Relay, Silent};
use lcroute_signalling::Account;
use lcroute_signalling::proxy::{Proxy, WebProxy};
use lcroute_signalling::server::RelaySettings;
use lcroute_webrtc::relay::HasAddress;
use librecast::private_file;
use librecast::reach::{MAX_ACCESS_TOKEN, Room};
use librecast::signalling::stun_name;
use librecast_program::keyfile;

use crate::netlink;

/// Returns the settings of a signalling server's relay; `None`: it does not relay.
pub fn served_relay(relay: &Relay) -> Option<RelaySettings> {
    relay.serve.then(|| RelaySettings {
        open: relay.open,
        private: relay.private,
        rate: relay.rate,
        rate_total: relay.rate_total,
        leaf_rate: relay.leaf_rate,
        strangers: None,
        addresses: relay.addresses.clone(),
        is_near: near(relay),
    })
}

/// Returns a test for on-link addresses. Without answers of the kernel all count as such.
fn near(relay: &Relay) -> HasAddress {
    if relay.private {
        return Arc::new(|_| false);
    }
    match netlink::Near::open() {
        Ok(near) => Arc::new(move |ip| near.contains(ip)),
        Err(e) => {
            tracing::error!("the relay sends to nobody: prefixes of this host: {e}");
            Arc::new(|_| true)
        }
    }
}

/// Returns the servers of file or flags, and of the token, each once; excludes a room of the token.
pub fn servers(config: &Config, token: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let own = config.signal.listen.map(|listen| {
        // this daemon's own server, by loopback if it listens on all addresses
        let ip = match listen.ip() {
            ip if !ip.is_unspecified() => ip,
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        format!("ws://{}", SocketAddr::new(ip, listen.port()))
    });
    let all = own
        .into_iter()
        .chain(config.signal.servers.iter().cloned())
        .chain(
            token
                .iter()
                .filter(|url| Room::of_uri(url).is_none())
                .cloned(),
        );
    all.filter(|url| seen.insert(url.clone())).collect()
}

/// Longest `USER:PASSWORD` of a web proxy in bytes. Chosen: ten times a usual one.
const MAX_LOGIN: u64 = 512;

/// Returns the proxy to signalling servers and relays: of the configuration, else of the
/// environment, as curl takes it (`https_proxy`, `no_proxy`, or their names in capitals).
///
/// # Errors
/// It is not a web proxy, its login cannot be read, or there are two proxies.
pub fn proxy(config: &Config) -> anyhow::Result<Option<Proxy>> {
    let signal = &config.signal;
    let Some(text) = &signal.https_proxy else {
        ensure!(
            signal.https_proxy_login.is_none(),
            "[signal] https_proxy_login: https_proxy is not set"
        );
        return match signal.socks {
            Some(at) => Ok(Some(Proxy::Socks(at))),
            None => proxy_of_environment(|name| std::env::var(name).ok()),
        };
    };
    ensure!(
        signal.socks.is_none(),
        "[signal] socks and https_proxy: one of them"
    );
    let mut proxy = WebProxy::parse(text).context("[signal] https_proxy")?;
    if let Some(file) = &signal.https_proxy_login {
        let path = keyfile::named(file)?;
        let shown = || format!("[signal] https_proxy_login: {}", path.display());
        let bytes = private_file::read(&path, MAX_LOGIN).with_context(shown)?;
        let text = std::str::from_utf8(&bytes).with_context(shown)?;
        proxy
            .set_login(text.trim_end_matches(['\r', '\n']))
            .with_context(shown)?;
    }
    Ok(Some(Proxy::Web(proxy)))
}

fn proxy_of_environment(get: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Proxy>> {
    let said = |names: [&'static str; 2]| {
        let mut said = names
            .into_iter()
            .filter_map(|name| Some((name, get(name)?)));
        said.find(|(_, text)| !text.is_empty())
    };
    let Some((name, text)) = said(["https_proxy", "HTTPS_PROXY"]) else {
        return Ok(None);
    };
    let proxy = WebProxy::parse(&text).with_context(|| format!("${name}"))?;
    let except = said(["no_proxy", "NO_PROXY"]);
    let except = except.map(|(_, hosts)| hosts).unwrap_or_default();
    Ok(Some(Proxy::Web(proxy.for_tls_except(&except))))
}

/// Returns the Matrix room of the file, else of the token.
pub fn room(config: &Config, token: &[String]) -> Option<Room> {
    let of_token = || token.iter().find_map(|url| Room::of_uri(url));
    config.matrix.room.clone().or_else(of_token)
}

/// Returns the account and the room; `None` if the file has no account, or the host hides.
///
/// # Errors
/// The account is incomplete or unreadable.
pub fn account(config: &Config, token: &[String]) -> anyhow::Result<Option<Account>> {
    let Ok(matrix) = config.exposure().matrix() else {
        return Ok(None);
    };
    let homeserver = matrix.homeserver.clone();
    let homeserver = homeserver.context("[matrix] homeserver is not set")?;
    let file = matrix.token_file.as_ref();
    let file = file.context("[matrix] token-file is not set")?;
    if let Some(host) = homeserver.strip_prefix("http://")
        && !["localhost", "127.", "[::1]"]
            .iter()
            .any(|own| host.starts_with(own))
    {
        tracing::warn!(
            "[matrix] homeserver: {homeserver} is not https: the network on the way can read the access token"
        );
    }
    let room = room(config, token);
    let room = room.context("[matrix] room is not set, and this node's token names none")?;
    let path = keyfile::named(file)?;
    let shown = || format!("[matrix] token-file: {}", path.display());
    // two bytes for a line break
    let bytes = private_file::read(&path, MAX_ACCESS_TOKEN as u64 + 2).with_context(shown)?;
    let text = std::str::from_utf8(&bytes).with_context(shown)?;
    let token = text
        .parse()
        .map_err(anyhow::Error::msg)
        .with_context(shown)?;
    Ok(Some(Account {
        homeserver,
        room,
        user: matrix.user.clone(),
        token,
    }))
}

/// Returns STUN servers for this host's address; `servers` are those of signalling.
///
/// # Errors
/// The policy permits none.
pub fn stun_names(config: &Config, servers: &[String]) -> Result<Vec<String>, Silent> {
    let mut names = config.exposure().stun()?.to_vec();
    // SOCKS5 hides this host from signalling servers: datagrams to them would reveal it
    if config.signal.socks.is_none() {
        names.extend(servers.iter().filter_map(|url| stun_name(url)));
    }
    Ok(names)
}
