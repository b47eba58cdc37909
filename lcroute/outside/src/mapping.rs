//! The router's mapping of the port, while others wait to be called by a DHT.

use std::net::SocketAddr;

use lcroute_mapping::{PortMapping, Settings};
use librecast::id::derive;
use librecast::outside::{Plan, PortSecret};
use tokio::task::JoinSet;

/// The reason without an address to map.
const NOBODY_WAITS: &str = "nobody waits to be called by a DHT";

/// Returns which router may be asked for a port where somebody may call, or nobody.
pub(crate) fn settings(plan: &Plan, is_called: bool) -> Settings {
    let only = plan.map_port.clone();
    let silent = match (&only, is_called && plan.dht.is_some()) {
        (None, _) => Some("[ice] map_port = false"),
        (Some(_), false) => Some(NOBODY_WAITS),
        (Some(_), true) => None,
    };
    Settings {
        silent,
        exclude: plan.exclude.clone(),
        only: only.unwrap_or_default(),
    }
}

/// One port.
#[derive(Debug)]
struct Mapped {
    port: u16,
    settings: Settings,
    mapping: PortMapping,
}

/// The mapping of the present port, and the ends of earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    now: Option<Mapped>,
    ends: JoinSet<()>,
}

impl Mappings {
    /// Has this port mapped, as these settings permit; none: no port. Returns whether the mapping of
    /// another port has ended.
    pub(crate) fn set(
        &mut self,
        port: Option<u16>,
        settings: Settings,
        secret: Option<&PortSecret>,
    ) -> bool {
        if let Some(now) = &mut self.now
            && Some(now.port) == port
        {
            if now.settings != settings {
                now.mapping.configure(settings.clone());
                now.settings = settings;
            }
            return false;
        }
        let before = self.now.take();
        let has_ended = before.is_some();
        if let Some(before) = before {
            self.ends.spawn(before.mapping.end());
        }
        let Some(port) = port.filter(|_| settings.silent.is_none()) else {
            return has_ended;
        };
        let secret = secret.map_or_else(random, |secret| secret.0.0);
        let secret = derive(
            "lcroute 2026 outside port mapping",
            &[&secret, &port.to_be_bytes()],
        );
        self.now = Some(Mapped {
            port,
            mapping: PortMapping::start(port, secret, settings.clone()),
            settings,
        });
        has_ended
    }

    /// Handles a change of this host's addresses.
    pub(crate) fn moved(&self) {
        if let Some(now) = &self.now {
            now.mapping.moved();
        }
    }

    /// Waits for a change of the mapped address; for ever without a mapping. Cancellation loses none.
    pub(crate) async fn changed(&mut self) -> Option<SocketAddr> {
        // ends of mappings say nothing
        while self.ends.try_join_next().is_some() {}
        match &mut self.now {
            Some(now) => now.mapping.changed().await.address.map(SocketAddr::V4),
            None => std::future::pending().await,
        }
    }

    /// Deletes all mappings.
    pub(crate) async fn end(&mut self) {
        if let Some(now) = self.now.take() {
            self.ends.spawn(now.mapping.end());
        }
        while self.ends.join_next().await.is_some() {}
    }
}

/// Returns a secret of this run: after a crash the router refuses another one for a while.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    // without randomness there were no links either
    let _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_asked_only_where_strangers_call_by_a_dht_and_its_owner_lets_it() {
        let plan = |dht: bool, map_port: bool| Plan {
            exclude: vec!["lc0".into()],
            meet: Some(Vec::new()),
            dht: dht.then(Vec::new),
            lan: true,
            rate: 0,
            port: None,
            map_port: map_port.then(|| vec!["eth0".into()]),
        };
        let found = settings(&plan(true, true), true);
        let expected = Settings {
            silent: None,
            exclude: vec!["lc0".into()],
            only: vec!["eth0".into()],
        };
        assert_eq!(found, expected);
        for (dht, map_port, is_called) in [
            (false, true, true),
            (true, false, true),
            (true, true, false),
        ] {
            let found = settings(&plan(dht, map_port), is_called);
            assert!(found.silent.is_some(), "{dht} {map_port} {is_called}");
        }
    }
}
