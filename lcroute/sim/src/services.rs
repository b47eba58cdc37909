//! What the engine asks of its host. All is real, but what one router of a simulation has verified or computed, no
//! other one does again.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lcroute_engine::database::{Advertisement, CredentialRecord};
use lcroute_engine::graph::{Graph, Tree};
use lcroute_engine::{
    Credential, RecordError, Revocation, SIGNATURE_CONTEXT, Services, signed_message,
};
use librecast::cert::Chain;
use librecast::id::{OriginId, PeerId};

use crate::fast;
use crate::population::{Identity, Population, UNIX_START};

/// Results that are kept as long as they are asked for: at least the last `limit` of them.
#[derive(Debug)]
struct Memo<K, V> {
    young: fast::Map<K, V>,
    old: fast::Map<K, V>,
    limit: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Memo<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            young: fast::Map::default(),
            old: fast::Map::default(),
            limit,
        }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

/// What is kept, or is made meanwhile: nobody waits for that.
fn get_or<K: Hash + Eq + Clone, V: Clone>(
    memo: &Mutex<Memo<K, V>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> V {
    if let Some(value) = lock(memo).get(key) {
        return value;
    }
    let value = make();
    lock(memo).insert(key.clone(), value.clone());
    value
}

/// What names a signed record: its signature, at the end.
type Signature = [u8; 64];

/// By graph and root.
type Trees = Memo<(u64, OriginId), Option<Arc<Tree>>>;

/// What all routers of a population have found out.
#[derive(Debug)]
pub struct Shared {
    credentials: Mutex<Memo<Signature, Arc<CredentialRecord>>>,
    advertisements: Mutex<Memo<Signature, (PeerId, Arc<Advertisement>)>>,
    graphs: Mutex<Memo<u64, Arc<Graph>>>,
    trees: Mutex<Trees>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            credentials: Mutex::new(Memo::new(8_192)),
            advertisements: Mutex::new(Memo::new(8_192)),
            graphs: Mutex::new(Memo::new(256)),
            trees: Mutex::new(Memo::new(4_096)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what a test that panicked has left is still right
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of all hosts of a run.
#[derive(Debug, Default)]
pub struct Watch {
    /// Virtual seconds.
    seconds: AtomicU64,
}

impl Watch {
    /// Virtual time goes on.
    pub fn set_seconds(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::Relaxed);
    }
}

/// The services of one node.
#[derive(Debug)]
pub struct NodeServices {
    population: Arc<Population>,
    node: u32,
    watch: Arc<Watch>,
    graph: AtomicU64,
    took_graph: AtomicBool,
}

impl NodeServices {
    /// Of a node in a run.
    pub fn new(population: Arc<Population>, node: u32, watch: Arc<Watch>) -> Self {
        Self {
            population,
            node,
            watch,
            graph: AtomicU64::new(0),
            took_graph: AtomicBool::new(false),
        }
    }

    /// Whether the router took another graph since it was asked last.
    pub fn took_graph(&self) -> bool {
        self.took_graph.swap(false, Ordering::Relaxed)
    }

    /// All nodes.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// This node.
    pub fn identity(&self) -> &Identity {
        self.population.get(self.node)
    }

    fn shared(&self) -> &Shared {
        &self.population.shared
    }
}

impl Services for NodeServices {
    fn unix_now(&self) -> u64 {
        UNIX_START + self.watch.seconds.load(Ordering::Relaxed)
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

    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, &'static str> {
        let decoded = Chain::decode(chain).map_err(|_| "not a chain")?;
        let member = decoded
            .verify(&self.population.network, self.unix_now())
            .map_err(|_| "chain does not count")?;
        Ok(Arc::new(Credential {
            member,
            keys: vec![decoded.issuer().subject()],
            issued: UNIX_START,
            can_issue: false,
        }))
    }

    fn verify_revocation(&self, _: &[u8]) -> Result<Revocation, &'static str> {
        Err("nobody is revoked in a simulation")
    }

    fn verify_credential(&self, record: &[u8]) -> Result<Arc<CredentialRecord>, RecordError> {
        let name: Option<&Signature> = record.last_chunk();
        let known = name.and_then(|name| lock(&self.shared().credentials).get(name));
        if let Some(known) = known.filter(|known| known.bytes() == record) {
            return Ok(known);
        }
        let new = Arc::new(CredentialRecord::verify(record, self)?);
        if let Some(name) = name {
            lock(&self.shared().credentials).insert(*name, Arc::clone(&new));
        }
        Ok(new)
    }

    fn verify_advertisement(
        &self,
        signer: &PeerId,
        record: &[u8],
    ) -> Result<Arc<Advertisement>, RecordError> {
        let name: Option<&Signature> = record.last_chunk();
        let known = name.and_then(|name| lock(&self.shared().advertisements).get(name));
        if let Some((of, known)) = known
            && of == *signer
            && known.bytes() == record
        {
            return Ok(known);
        }
        let new = Arc::new(Advertisement::verify(record, signer, self)?);
        if let Some(name) = name {
            let value = (*signer, Arc::clone(&new));
            lock(&self.shared().advertisements).insert(*name, value);
        }
        Ok(new)
    }

    fn graph(&self, digest: u64, build: &mut dyn FnMut() -> Graph) -> Arc<Graph> {
        if self.graph.swap(digest, Ordering::Relaxed) != digest {
            self.took_graph.store(true, Ordering::Relaxed);
        }
        get_or(&self.shared().graphs, &digest, || Arc::new(build()))
    }

    fn tree(
        &self,
        graph: &Arc<Graph>,
        root: OriginId,
        before: Option<&Arc<Tree>>,
    ) -> Option<Arc<Tree>> {
        let name = (graph.digest(), root);
        get_or(&self.shared().trees, &name, || {
            Tree::of(graph, root, before)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_kept() {
        let memo = Mutex::new(Memo::new(10));
        let mut made = 0;
        for round in 0..5 {
            for key in 0..8 {
                get_or(&memo, &key, || made += 1);
            }
            get_or(&memo, &(100 + round), || ());
        }
        assert_eq!(made, 8);
        for key in 1_000..1_100 {
            get_or(&memo, &key, || ());
        }
        get_or(&memo, &0, || made += 1);
        assert_eq!(made, 9, "what nobody asks for goes");
        let memo = lock(&memo);
        assert!(memo.young.len() + memo.old.len() <= 20);
    }
}
