//! Keys, certificates and a clock for tests; connections of a node that has none.

use std::net::SocketAddr;

use bytes::Bytes;
use lcroute_overlay::{
    Candidate, Closing, ConnectionEvent, Connections, Description, Fingerprint, LinkInfo, Path,
    SendError, Traffic,
};
use librecast::cert::{Chain, Grant};
use librecast::id::{LinkId, SecretKey};
use librecast::time::{Duration, Instant, UnixTime};

/// Returns the start of virtual time; no test reads another clock.
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// Returns a founder's chain in `network`, valid for 1,000 s, and its renewal.
pub(crate) fn chains(network: &SecretKey, now: UnixTime) -> (Chain, Chain) {
    let key = key(100);
    let grant = |name| Grant {
        core: true,
        ..Grant::new(name, (now.as_secs(), now.as_secs() + 1_000))
    };
    let founder = (key.peer_id(), grant("founder"));
    let old = Chain::sign(network, (&key, grant("")), founder).unwrap();
    let later = now + Duration::from_secs(500);
    let new = old.renew(old.issuer(), &key, later, 400).unwrap();
    (old, new)
}

/// Connections of a node that never gets one.
#[derive(Debug)]
pub(crate) struct NoConnections;

impl Connections for NoConnections {
    fn offer(&mut self, _: LinkId, _: Instant) {}
    fn answer(&mut self, _: LinkId, _: &Description, _: Instant) {}
    fn accept(&mut self, _: LinkId, _: &Description, _: Instant) {}
    fn add_candidates(&mut self, _: LinkId, _: &[Candidate], _: Instant) {}
    fn await_restart(&mut self, _: LinkId) {}
    fn restart(&mut self, _: LinkId, _: Option<&Description>, _: Instant) {}
    fn remote_fingerprint(&mut self, _: LinkId) -> Option<Fingerprint> {
        None
    }
    fn authenticated(&mut self, _: LinkId, _: bool, _: Instant) {}
    fn send_control(&mut self, _: LinkId, _: &[u8], _: Instant) -> Result<(), SendError> {
        Err(SendError::NoSuchLink)
    }
    fn send_routed(&mut self, _: LinkId, _: &[u8], _: Instant) -> Result<(), SendError> {
        Err(SendError::NoSuchLink)
    }
    fn send_data(&mut self, _: LinkId, _: [&[u8]; 2], _: Instant) -> Result<(), SendError> {
        Err(SendError::NoSuchLink)
    }
    fn suspect(&mut self, _: LinkId, _: Instant) {}
    fn close(&mut self, _: LinkId, _: Instant) -> Closing {
        Closing::default()
    }
    fn path(&self, _: LinkId) -> Option<Path> {
        None
    }
    fn send_straight(&mut self, _: Option<SocketAddr>, _: SocketAddr, _: &Bytes) {}
    fn candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }
    fn info(&self, _: LinkId) -> LinkInfo {
        LinkInfo::default()
    }
    fn round_trip(&self, _: LinkId) -> Option<Duration> {
        None
    }
    fn traffic(&self, _: LinkId) -> Traffic {
        Traffic::default()
    }
    fn handle_timeout(&mut self, _: Instant) {}
    fn next_timeout(&mut self) -> Option<Instant> {
        None
    }
    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        None
    }
    fn drops(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
