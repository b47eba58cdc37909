//! Client of the DHT: it answers no requests.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use librecast::reach::{Item, Key};
use n0_mainline::errors::{PutMutableError, PutQueryError};
use n0_mainline::{DatagramHook, MutableItem};
use tokio::time::{Instant, timeout_at};

use crate::schedule::Refused;

/// Public entry nodes of BitTorrent's DHT, and one that stores items (BEP 44).
const WELL_KNOWN: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "relay.pkarr.org:6881",
];
/// Time limit for the resolution of one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a put or look-up: a dozen rounds of requests, each with seconds to answer.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of values of a look-up. Chosen: twice the nodes that store a value.
const MAX_ANSWERS: usize = 40;
/// End of a request in bencode, whose keys are sorted.
const REQUEST: &[u8] = b"1:y1:qe";

/// The values of a look-up, with their sequences, each with the number of its answers.
#[derive(Debug, Default)]
struct Answers(BTreeMap<(i64, Vec<u8>), usize>);

impl Answers {
    /// Adds an answer. Beyond the bound a value with the fewest answers gives way, of these the one
    /// with the highest sequence: a member that floods a mailbox hides nobody. The newest stays, as
    /// it counts under a key with one owner.
    fn add(&mut self, sequence: i64, value: Vec<u8>) {
        *self.0.entry((sequence, value)).or_default() += 1;
        if self.0.len() <= MAX_ANSWERS {
            return;
        }
        let others = self.0.iter().rev().skip(1);
        let rarest = others.min_by_key(|(_, answers)| **answers);
        if let Some(rarest) = rarest.map(|(value, _)| value.clone()) {
            self.0.remove(&rarest);
        }
    }
}

/// A client of the DHT.
#[derive(Debug, Clone)]
pub(crate) struct Dht(n0_mainline::Dht);

impl Dht {
    /// Enters by these nodes, or by the well-known ones; to be called within a tokio runtime.
    pub(crate) async fn enter(bootstrap: &[String]) -> io::Result<Self> {
        let known = WELL_KNOWN.map(str::to_owned);
        let names = if bootstrap.is_empty() {
            &known
        } else {
            bootstrap
        };
        // the crate's own resolution would block everything
        let addresses = resolve(names).await;
        let dht = n0_mainline::Dht::builder()
            .bootstrap(&addresses)
            // not 6881, which some firewalls take as a sign of BitTorrent
            .port(0)
            .build()?;
        // without requests, a client does not detect that it could be a server, and stays a client
        let filter = DatagramHook::new(|bytes, _| bytes.ends_with(REQUEST));
        dht.set_datagram_hook(Some(filter)).await?;
        Ok(Self(dht))
    }

    /// Returns the number of nodes that answer, and this host's address as they see it.
    pub(crate) async fn standing(&self) -> (usize, Option<Ipv4Addr>) {
        let Ok(info) = self.0.info().await else {
            return (0, None);
        };
        let local = info.local_addr().port();
        // a NAT that changes this port changes the links' port too
        let kept = info.public_address().filter(|seen| seen.port() == local);
        (info.routing_table_size(), kept.map(|seen| *seen.ip()))
    }

    /// Stores the item on the nodes nearest to its key.
    pub(crate) async fn put(&self, item: Item) -> Result<(), Refused> {
        let key = &item.key.0;
        let (value, signature) = (&item.value.0, &item.signature.0);
        let item = MutableItem::new_signed_unchecked(*key, *signature, value, item.sequence, None);
        let until = Instant::now() + TASK_TIMEOUT;
        match timeout_at(until, self.0.put_mutable(item, None)).await {
            Err(_) => Err(Refused::Silent),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(why(&e)),
        }
    }

    /// Returns values under this key, with their sequences; the crate has verified their
    /// signatures.
    pub(crate) async fn get(&self, key: Key) -> Vec<(i64, Vec<u8>)> {
        let mut found = Answers::default();
        let until = Instant::now() + TASK_TIMEOUT;
        let Ok(mut answers) = self.0.get_mutable(&key.0, None, None).await else {
            return Vec::new();
        };
        while let Ok(Some(item)) = timeout_at(until, answers.next()).await {
            found.add(item.seq(), item.value().to_vec());
        }
        found.0.into_keys().collect()
    }
}

fn why(error: &PutMutableError) -> Refused {
    match error {
        PutMutableError::Concurrency(_) => Refused::Newer,
        PutMutableError::Query(PutQueryError::ErrorResponse(_)) => Refused::Invalid,
        PutMutableError::Query(_) => Refused::Silent,
    }
}

/// Resolves names of nodes; skips those that fail.
async fn resolve(names: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for name in names {
        let until = Instant::now() + LOOKUP_TIMEOUT;
        match timeout_at(until, tokio::net::lookup_host(name)).await {
            Ok(Ok(found)) => addresses.extend(found.filter(SocketAddr::is_ipv4)),
            Ok(Err(e)) => tracing::debug!("{name}: {e}"),
            Err(_) => tracing::debug!("{name}: its name does not resolve in time"),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use librecast::reach::{Base58, MAX_VALUE, Value, signed_bytes};
    use n0_mainline::Testnet;
    use tokio::net::UdpSocket;

    use super::*;

    const SECRET: [u8; 32] = [3; 32];

    fn item(seed: u8, sequence: i64, value: Vec<u8>) -> Item {
        let key = SecretKey::from_seed(&[seed; 32]);
        let signature = key.sign_blinded(&SECRET, &signed_bytes(sequence, &value));
        Item {
            key: Base58(key.peer_id().blinded(&SECRET).unwrap()),
            sequence,
            value: Value(value),
            signature: Base58(signature),
        }
    }

    #[tokio::test]
    async fn what_a_blinded_key_signed_is_held_and_found_and_an_older_one_is_refused() {
        let swarm = Testnet::new(5).await.unwrap();
        let (writer, reader) = (
            Dht::enter(&swarm.bootstrap).await.unwrap(),
            Dht::enter(&swarm.bootstrap).await.unwrap(),
        );
        let first = item(1, 5, vec![1; MAX_VALUE]);
        writer.put(first.clone()).await.unwrap();
        assert!(writer.standing().await.0 > 0);
        assert_eq!(reader.get(first.key).await, [(5, vec![1; MAX_VALUE])]);
        let older = writer.put(item(1, 4, vec![2; 256])).await;
        assert_eq!(older, Err(Refused::Newer));
        writer.put(item(1, 6, vec![3; 256])).await.unwrap();
        let found = reader.get(first.key).await;
        assert_eq!(found.last(), Some(&(6, vec![3; 256])));
        // the key has not signed this
        let mut foreign = item(2, 1, vec![4; 256]);
        foreign.signature = item(1, 1, vec![4; 256]).signature;
        writer.put(foreign.clone()).await.unwrap_err();
        assert_eq!(reader.get(foreign.key).await, []);
    }

    /// Returns one field of a dictionary in bencode.
    fn field(name: &str, value: &[u8]) -> Vec<u8> {
        let head = format!("{}:{name}{}:", name.len(), value.len());
        [head.as_bytes(), value].concat()
    }

    /// Runs a node that answers every request with `item`.
    async fn answer(socket: UdpSocket, item: Item) {
        let mut request = [0; 2_048];
        loop {
            let (length, from) = socket.recv_from(&mut request).await.unwrap();
            let request = &request[..length];
            // "1:t4:" and four bytes
            let at = request.windows(5).rposition(|w| w == b"1:t4:").unwrap();
            let sequence = format!("3:seqi{}e", item.sequence);
            let fields = [
                b"d2:ip6:\x7f\0\0\x01\x10\x101:rd".to_vec(),
                field("id", &[9; 20]),
                field("k", &item.key.0),
                field("nodes", b""),
                sequence.into_bytes(),
                field("sig", &item.signature.0),
                field("token", b"abcd"),
                field("v", &item.value.0),
                b"e".to_vec(),
                field("t", &request[at + 5..at + 9]),
                field("y", b"r"),
                b"e".to_vec(),
            ];
            socket.send_to(&fields.concat(), from).await.unwrap();
            // sends garbage too
            for garbage in [&b"d1:y1:re"[..], b"", b"\xff\xff", &[b'd'; 1_500]] {
                socket.send_to(garbage, from).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_node_that_invents_values_is_not_believed() {
        let honest = item(1, 7, vec![7; 256]);
        let mut foreign = honest.clone();
        foreign.value = Value(vec![8; 256]);
        let mut other_key = honest.clone();
        other_key.key = item(2, 1, Vec::new()).key;
        let mut sequence = honest.clone();
        sequence.sequence = i64::MAX;
        for (hostile, found) in [
            (&honest, vec![(7, vec![7; 256])]),
            (&foreign, vec![]),
            (&other_key, vec![]),
            (&sequence, vec![]),
        ] {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let node = socket.local_addr().unwrap().to_string();
            let node_task = tokio::spawn(answer(socket, hostile.clone()));
            let dht = Dht::enter(&[node]).await.unwrap();
            assert_eq!(dht.get(honest.key).await, found);
            assert!(!node_task.is_finished());
            node_task.abort();
        }
    }

    #[test]
    fn a_flood_of_values_hides_neither_one_that_several_nodes_have_nor_the_newest() {
        let honest = (1_000, vec![1]);
        for first in [0, i64::MAX - 200] {
            let mut answers = Answers::default();
            for _ in 0..2 {
                answers.add(honest.0, honest.1.clone());
            }
            let newest = (i64::MAX, vec![3]);
            answers.add(newest.0, newest.1.clone());
            for n in 0..200 {
                answers.add(first + n, vec![2]);
                assert!(answers.0.len() <= MAX_ANSWERS);
            }
            for kept in [&honest, &newest] {
                assert!(answers.0.contains_key(kept), "{first}: {kept:?}");
            }
        }
    }

    #[test]
    fn of_values_with_one_answer_the_highest_sequences_give_way() {
        let mut answers = Answers::default();
        answers.add(1_000, vec![1]);
        for n in 0..200 {
            answers.add(i64::MAX - n, vec![2]);
        }
        assert!(answers.0.contains_key(&(1_000, vec![1])));
        assert!(answers.0.contains_key(&(i64::MAX, vec![2])), "the newest");
    }

    #[tokio::test]
    async fn names_that_do_not_resolve_leave_the_others() {
        let names = ["127.0.0.1:7", "[::1]:7", "nonsense", ""].map(str::to_owned);
        let addresses = resolve(&names).await;
        assert_eq!(addresses, ["127.0.0.1:7".parse().unwrap()]);
    }
}
