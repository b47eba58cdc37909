//! Has the router map the UDP port of the daemon's links, and of guests that others have to reach.

use std::net::SocketAddr;

use lcroute_control::config::{Config, Silent};
use lcroute_control::status::{Mapping, Protocol};
use lcroute_mapping::{Settings, Status};
use librecast::id::{SecretKey, derive};

use crate::inbox::{Inbox, Message};

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

/// The mapping of the daemon's port, which the packet loop is told.
#[derive(Debug)]
pub struct PortMapping(lcroute_mapping::PortMapping);

impl PortMapping {
    /// Starts to ask, if the configuration permits it.
    pub fn start(inbox: Inbox, port: u16, key: &SecretKey, config: &Config) -> Self {
        let secret = secret(key, port);
        let mapping = lcroute_mapping::PortMapping::start(port, secret, settings(config));
        let mut told = mapping.status();
        tokio::spawn(async move {
            // ends with the mapping
            while told.changed().await.is_ok() {
                let status = shown(&told.borrow_and_update());
                inbox.send(Message::Mapping(status)).await;
            }
        });
        Self(mapping)
    }

    /// Applies a new configuration.
    pub fn configure(&self, config: &Config) {
        self.0.configure(settings(config));
    }

    /// Handles a change of this host's addresses.
    pub fn moved(&self) {
        self.0.moved();
    }

    /// Deletes the mapping, within a second.
    pub async fn end(self) {
        self.0.end().await;
    }
}

/// Converts the mapping for the control socket.
fn shown(status: &Status) -> Mapping {
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
