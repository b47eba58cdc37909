//! A mapping by each of the protocols.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Context;
use crab_nat::pcp::{self, BaseMapRequest, Nonce};
use crab_nat::{
    InternetProtocol, PortMapping as Crab, PortMappingOptions, PortMappingType, TimeoutConfig,
    natpmp,
};
use lcroute_netlink::Gateway;
use librecast::id::derive;

use crate::schedule::{LIFETIME, Lease};
use crate::status::{Protocol, is_offerable};
use crate::upnp;

/// Timeouts of 0.25, 0.5 and 1 s.
const UDP_TRIES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

/// A mapping of a router.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) lease: Lease,
    by: By,
}

#[derive(Debug)]
enum By {
    /// PCP or NAT-PMP.
    Udp(Box<Crab>),
    Upnp(upnp::Mapping),
}

/// Returns the nonce that identifies a program to a PCP server; no other host can guess it.
pub(crate) fn nonce(secret: &[u8; 32], gateway: Gateway) -> Nonce {
    let parts = [gateway.local.octets(), gateway.address.octets()].concat();
    let hash = derive("lcroute 2026 PCP nonce", &[secret, &parts]);
    let word = |at: usize| u32::from_be_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]);
    [word(0), word(4), word(8)]
}

impl Mapping {
    /// Asks the router. `unanswered`: a mapping by UPnP that it may have made without an answer yet.
    pub(crate) async fn request(
        protocol: Protocol,
        gateway: Gateway,
        port: u16,
        nonce: Nonce,
        unanswered: &mut Option<upnp::Mapping>,
    ) -> anyhow::Result<Self> {
        let router = gateway.address.into();
        let internal = NonZeroU16::new(port).context("no port")?;
        let options = PortMappingOptions {
            external_port: Some(internal),
            lifetime_seconds: Some(LIFETIME),
            timeout_config: Some(UDP_TRIES),
        };
        let udp = InternetProtocol::Udp;
        let crab = match protocol {
            Protocol::Upnp => {
                let mapping = upnp::map(gateway, port, LIFETIME, unanswered).await?;
                return Ok(Self::of_upnp(mapping));
            }
            Protocol::Pcp => {
                let request = BaseMapRequest::new(router, gateway.local.into(), udp, internal);
                pcp::port_mapping(request, Some(nonce), None, options).await?
            }
            Protocol::NatPmp => natpmp::port_mapping(router, udp, internal, options).await?,
        };
        Self::of_udp(crab).await
    }

    /// Asks for more time.
    pub(crate) async fn renew(&mut self, gateway: Gateway, port: u16) -> anyhow::Result<()> {
        *self = match &mut self.by {
            By::Udp(crab) => {
                crab.renew().await?;
                Self::of_udp((**crab).clone()).await?
            }
            By::Upnp(mapping) => {
                mapping.renew(gateway.local, port, LIFETIME).await?;
                Self::of_upnp(mapping.clone())
            }
        };
        Ok(())
    }

    /// Deletes it.
    pub(crate) async fn give_back(self) -> anyhow::Result<()> {
        match self.by {
            By::Udp(crab) => crab.try_drop().await.map_err(|(e, _)| e.into()),
            By::Upnp(mapping) => mapping.end().await,
        }
    }

    /// Creates a mapping; with NAT-PMP it asks for the address first.
    async fn of_udp(crab: Crab) -> anyhow::Result<Self> {
        let (external, by) = match crab.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => (external_ip.to_canonical(), Protocol::Pcp),
            PortMappingType::NatPmp => {
                let asked = natpmp::external_address(crab.gateway(), Some(UDP_TRIES));
                let address = asked.await.unwrap_or(Ipv4Addr::UNSPECIFIED);
                (address.into(), Protocol::NatPmp)
            }
        };
        let port = crab.external_port().get();
        let seconds = crab.lifetime();
        match external {
            IpAddr::V4(ip) if is_offerable(ip) && seconds > 0 => Ok(Self {
                lease: Lease {
                    address: SocketAddrV4::new(ip, port),
                    by,
                    seconds,
                },
                by: By::Udp(Box::new(crab)),
            }),
            ip => {
                // an unusable address
                let _ = crab.try_drop().await;
                anyhow::bail!("it maps {ip} for {seconds} s")
            }
        }
    }

    fn of_upnp(mapping: upnp::Mapping) -> Self {
        Self {
            lease: Lease {
                address: mapping.external,
                by: Protocol::Upnp,
                seconds: LIFETIME,
            },
            by: By::Upnp(mapping),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_the_same_after_a_crash_and_different_elsewhere() {
        let at = |last| Gateway {
            address: Ipv4Addr::new(192, 168, 1, 1),
            local: Ipv4Addr::new(192, 168, 1, last),
            interface: 2,
        };
        assert_eq!(nonce(&[1; 32], at(2)), nonce(&[1; 32], at(2)));
        assert_ne!(nonce(&[1; 32], at(2)), nonce(&[1; 32], at(3)));
        assert_ne!(nonce(&[1; 32], at(2)), nonce(&[2; 32], at(2)));
    }
}
