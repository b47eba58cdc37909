//! Has the router map the UDP port of the daemon's links, and of guests that others have to reach.

use std::net::SocketAddr;

use lcroute_control::config::{Config, Silent};
use lcroute_control::status::{Mapping, Protocol};
use lcroute_mapping::{PortMapping, Settings, Status};
use librecast::id::{SecretKey, derive};

/// Returns which router may be asked, by the configuration.
pub fn settings(config: &Config) -> Settings {
    let silent = config.exposure().router().err();
    Settings {
        silent: silent.map(|silent| match silent {
            Silent::Off => "[ice] map_port = false",
            Silent::Hidden => "[ice] policy = \"relay\"",
        }),
        exclude: vec![config.tun.name.clone()],
        only: config.ice.interfaces.clone(),
    }
}

/// Returns the secret by which a router knows this port again after a crash: it refuses a mapping
/// to another nonce (RFC 6887 §11.3).
pub fn secret(key: &SecretKey, port: u16) -> [u8; 32] {
    let secret = key.sign("lcroute 2026 port mapping", &port.to_be_bytes());
    derive("lcroute 2026 port mapping", &[&secret])
}

/// Starts to ask for the port of this key's links, if the configuration permits it.
pub fn start(port: u16, key: &SecretKey, config: &Config) -> PortMapping {
    PortMapping::start(port, secret(key, port), settings(config))
}

/// Converts the mapping for the control socket.
pub fn shown(status: &Status) -> Mapping {
    use lcroute_mapping::Protocol as By;
    Mapping {
        address: status.address.map(SocketAddr::V4),
        by: status.by.map(|by| match by {
            By::Pcp => Protocol::Pcp,
            By::NatPmp => Protocol::NatPmp,
            By::Upnp => Protocol::Upnp,
        }),
        failure: status.failure.clone(),
    }
}
