//! How people name a signalling server: by a URL, or as `HOST` or `HOST:PORT`.

/// Port of signalling servers without TLS, and of their STUN, where a name has none.
const PORT: u16 = 7_117;
/// Port of HTTPS: a server there speaks TLS.
const TLS_PORT: u16 = 443;

/// Returns the URLs at which a server is tried, in this order. A URL stands for itself; a host is
/// tried with TLS first, and without it unless its port is that of HTTPS.
pub fn urls(server: &str) -> Vec<String> {
    if server.contains('/') {
        return vec![server.to_owned()];
    }
    match port_of(server) {
        Some((host, TLS_PORT)) => vec![format!("wss://{host}")],
        Some(_) => vec![format!("wss://{server}"), format!("ws://{server}")],
        None => vec![format!("wss://{server}"), format!("ws://{server}:{PORT}")],
    }
}

/// Returns the shortest name of `HOST` or `HOST:PORT` that leads to the server of this URL too.
/// `None`: it has a path, or asks for another port of TLS.
pub fn host_of(server: &str) -> Option<String> {
    let (is_tls, rest) = match server.strip_prefix("wss://") {
        Some(rest) => (Some(true), rest),
        None => match server.strip_prefix("ws://") {
            Some(rest) => (Some(false), rest),
            None => (None, server),
        },
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority = match (is_tls, port_of(rest)) {
        _ if rest.is_empty() || rest.contains('/') => return None,
        (Some(true), None) => format!("{rest}:{TLS_PORT}"),
        // a name with this port would ask for TLS
        (Some(false), Some((_, TLS_PORT))) => return None,
        (Some(false), Some((host, PORT))) => host.to_owned(),
        (Some(false), None) => format!("{rest}:80"),
        _ => rest.to_owned(),
    };
    Some(authority)
}

/// Returns `HOST:PORT` at which a server answers STUN: on the UDP port of its URL.
pub fn stun_name(server: &str) -> Option<String> {
    let url = urls(server).pop()?;
    let rest = url
        .strip_prefix("ws://")
        .or_else(|| url.strip_prefix("wss://"))?;
    let host = rest.split('/').next()?;
    Some(match port_of(host) {
        Some(_) => host.to_owned(),
        None => format!("{host}:{PORT}"),
    })
}

/// Splits `HOST:PORT`; the colons of an IPv6 address are within brackets.
pub fn port_of(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let is_port = !host.starts_with('[') || host.ends_with(']');
    let port = port.parse().ok().filter(|_| is_port)?;
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_tried_with_tls_first_and_a_url_stands_for_itself() {
        for (name, tried) in [
            ("meet.example", "wss://meet.example ws://meet.example:7117"),
            (
                "meet.example:8443",
                "wss://meet.example:8443 ws://meet.example:8443",
            ),
            ("meet.example:443", "wss://meet.example"),
            ("[fd00::1]", "wss://[fd00::1] ws://[fd00::1]:7117"),
            ("[fd00::1]:443", "wss://[fd00::1]"),
            ("ws://10.0.0.1:80/x", "ws://10.0.0.1:80/x"),
            ("wss://meet.example", "wss://meet.example"),
            ("matrix:r/team:a.example", "matrix:r/team:a.example"),
        ] {
            assert_eq!(urls(name).join(" "), tried, "{name}");
        }
    }

    #[test]
    fn the_name_of_a_url_leads_to_the_same_server() {
        for (url, name) in [
            ("ws://meet.example:7117", "meet.example"),
            ("ws://10.0.0.1:99/", "10.0.0.1:99"),
            ("ws://meet.example", "meet.example:80"),
            ("wss://meet.example:443/", "meet.example:443"),
            ("wss://meet.example", "meet.example:443"),
            ("wss://meet.example:7117", "meet.example:7117"),
            ("ws://[fd00::1]:7117", "[fd00::1]"),
            ("meet.example", "meet.example"),
        ] {
            assert_eq!(host_of(url).as_deref(), Some(name), "{url}");
        }
        for url in ["http://a", "ws://a/path", "ws://a:443", "", "ws://"] {
            assert_eq!(host_of(url), None, "{url}");
        }
    }

    #[test]
    fn a_signalling_server_answers_stun_on_its_own_port() {
        for (server, name) in [
            ("ws://meet.example:7000", "meet.example:7000"),
            ("wss://meet.example/path", "meet.example:7117"),
            ("ws://[fd00::1]:7117", "[fd00::1]:7117"),
            ("ws://[fd00::1]", "[fd00::1]:7117"),
            ("ws://10.0.0.1:7117/", "10.0.0.1:7117"),
            ("meet.example", "meet.example:7117"),
            ("meet.example:8443", "meet.example:8443"),
            ("meet.example:443", "meet.example:7117"),
        ] {
            assert_eq!(stun_name(server).as_deref(), Some(name), "{server}");
        }
        assert_eq!(stun_name("http://x"), None);
        assert_eq!(stun_name("matrix:r/team:a.example"), None);
    }
}
