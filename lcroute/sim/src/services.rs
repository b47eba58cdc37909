//! Services of the host for the engine: each simulated node verifies with real keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lcroute_engine::{Credential, Revocation, SIGNATURE_CONTEXT, Services, signed_message};
use librecast::cert::{CertError, Chain};
use librecast::id::PeerId;
use librecast::revocation::RevocationError;
use librecast::time::UnixTime;

use crate::population::{Identity, Population, UNIX_START};

/// The clock of all hosts of a run.
#[derive(Debug, Default)]
pub struct Watch {
    /// Virtual time in seconds.
    seconds: AtomicU64,
    /// Seconds by which all clocks were advanced.
    ahead: AtomicU64,
}

impl Watch {
    pub fn set_seconds(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::Relaxed);
    }

    pub fn put_forward(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    pub fn unix(&self) -> UnixTime {
        let [seconds, ahead] = [&self.seconds, &self.ahead].map(|s| s.load(Ordering::Relaxed));
        UnixTime::from_secs(UNIX_START + seconds + ahead)
    }
}

#[derive(Debug)]
pub struct NodeServices {
    population: Arc<Population>,
    node: u32,
    watch: Arc<Watch>,
}

impl NodeServices {
    pub fn new(population: Arc<Population>, node: u32, watch: Arc<Watch>) -> Self {
        Self {
            population,
            node,
            watch,
        }
    }

    pub fn population(&self) -> &Population {
        &self.population
    }

    pub fn identity(&self) -> &Identity {
        self.population.get(self.node)
    }
}

impl Services for NodeServices {
    fn unix_now(&self) -> UnixTime {
        self.watch.unix()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let message = signed_message(&self.population.network, message);
        let key = &self.population.get(self.node).key;
        key.sign(SIGNATURE_CONTEXT, &message)
    }

    fn verify(&self, signer: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        let message = signed_message(&self.population.network, message);
        let verified = signer.verify(SIGNATURE_CONTEXT, &message, signature);
        verified.is_ok()
    }

    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, CertError> {
        let decoded = Chain::decode(chain)?;
        let member = decoded.verify(&self.population.network, self.unix_now())?;
        Ok(Arc::new(Credential {
            member,
            keys: vec![decoded.issuer().subject()],
            issued: UNIX_START,
            can_issue: false,
        }))
    }

    fn verify_revocation(&self, _: &[u8]) -> Result<Revocation, RevocationError> {
        // routers alone have no revocations
        Err(RevocationError::Forged)
    }
}
