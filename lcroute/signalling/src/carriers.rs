//! The carriers of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::server::{Role, Room};
use lcroute_overlay::{CarrierId, CarrierKind, Published, Sought};
use librecast::cert::Chain;
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::signalling;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::http::Uri;

use crate::carrier::{Carrier, CarrierEvent, Pace, PathChange};
use crate::client::{Me, WebSocket};
use crate::lan::{self, Lan};
use crate::proxy::Proxy;
use crate::ranking::Ranking;
use crate::reach::{Account, Reach, ReachIds, ReachProgram};
use crate::spool::Spool;

/// Name of the DHT in doors.
const DHT: &str = "mainline";

/// A place where other nodes find this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The carrier.
    pub carrier: CarrierId,
    /// Its kind.
    pub kind: CarrierKind,
    /// The URL of a server, an interface of a LAN, a folder, the name of a DHT, or a Matrix room.
    pub at: String,
    /// A note about its state, if there is one.
    pub note: Option<String>,
    /// Whether it works, as far as the carrier knows.
    pub open: bool,
}

impl Door {
    fn new(carrier: CarrierId, kind: CarrierKind, at: String) -> Self {
        Self {
            carrier,
            kind,
            at,
            note: None,
            open: true,
        }
    }
}

/// The carriers of a node. Dropping it ends them.
#[derive(Debug)]
pub struct Carriers {
    me: Me,
    network: NetworkId,
    chain: watch::Sender<Option<Chain>>,
    events: mpsc::Sender<CarrierEvent>,
    /// Signalling servers, as they are named.
    servers: BTreeMap<String, (CarrierId, WebSocket)>,
    proxy: Option<Proxy>,
    ranking: Ranking,
    lan: Option<(CarrierId, Lan)>,
    lan_keys: lan::Keys,
    spool: Option<(CarrierId, PathBuf, Spool)>,
    reach: Option<(ReachIds, Reach)>,
    seeking: Sought,
    record: Option<Published>,
    next: u32,
}

impl Carriers {
    /// Returns a node without carriers; to be called within a tokio runtime.
    pub fn new(
        key: Arc<SecretKey>,
        network: NetworkId,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let (chain, shown) = watch::channel(None);
        Self {
            me: Me {
                key,
                room: Room::of(&network),
                role: Role::Router,
                chain: shown,
            },
            network,
            chain,
            events,
            servers: BTreeMap::new(),
            proxy: None,
            ranking: Ranking::default(),
            lan: None,
            lan_keys: lan::PRESENCE,
            spool: None,
            reach: None,
            seeking: Sought::default(),
            record: None,
            next: 0,
        }
    }

    /// Does the same for a leaf: servers report a few routers to it, and it to no node.
    pub fn of_leaf(
        key: Arc<SecretKey>,
        network: NetworkId,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let mut carriers = Self::new(key, network, events);
        carriers.me.role = Role::Leaf;
        carriers
    }

    /// Does the same for the meeting point of a text, where records of texts are announced and looked
    /// for.
    pub fn of_text(
        key: Arc<SecretKey>,
        (meeting, role): (NetworkId, Role),
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let mut carriers = Self::new(key, meeting, events);
        (carriers.me.role, carriers.lan_keys) = (role, lan::TEXT);
        carriers
    }

    /// Sets the certificates for servers that relay for members; none: asks for no relays.
    pub fn set_chain(&mut self, chain: Option<Chain>) {
        self.chain.send_if_modified(|known| {
            let is_new = *known != chain;
            *known = chain;
            is_new
        });
    }

    /// Sets the servers (URLs or names of hosts) and the proxy; known servers keep their
    /// connections. Of many servers, it uses those that all members of the network use.
    pub fn set_servers(&mut self, urls: &[String], proxy: Option<Proxy>) {
        let same_way = self.proxy == proxy;
        self.proxy = proxy;
        self.servers.retain(|url, _| same_way && urls.contains(url));
        for url in urls {
            if !self.servers.contains_key(url) {
                let (id, events) = (self.new_id(), self.events.clone());
                let rank = self.ranking.add(&self.me.room, url, is_on_this_host(url));
                let me = self.me.clone();
                let carrier = WebSocket::start((url, self.proxy.clone()), id, rank, me, events);
                self.servers.insert(url.clone(), (id, carrier));
            }
        }
    }

    /// Sets the LAN interfaces, or none, and the links' `port`; returns the carrier without
    /// records.
    pub fn set_lan(
        &mut self,
        interfaces: Option<BTreeSet<String>>,
        port: u16,
    ) -> Option<CarrierId> {
        let Some(interfaces) = interfaces else {
            return self.lan.take().map(|(id, _)| id);
        };
        if self.lan.is_none() {
            let (id, events) = (self.new_id(), self.events.clone());
            let lan = Lan::of(self.lan_keys, id, port, events);
            self.record.iter().for_each(|record| lan.publish(record));
            self.lan = Some((id, lan));
        }
        if let Some((_, lan)) = &self.lan {
            lan.set_interfaces(interfaces);
        }
        None
    }

    /// Sets the folder, or none; removes this node's file from the last one, and returns its
    /// carrier.
    pub fn set_spool(&mut self, folder: Option<&Path>) -> Option<CarrierId> {
        if self.spool.as_ref().map(|(_, folder, _)| &**folder) == folder {
            return None;
        }
        let before = self.spool.take().map(|(id, _, spool)| {
            spool.withdraw();
            id
        });
        if let Some(folder) = folder {
            let (id, events) = (self.new_id(), self.events.clone());
            let spool = Spool::start(id, folder, events);
            self.record.iter().for_each(|record| spool.publish(record));
            self.spool = Some((id, folder.to_owned(), spool));
        }
        before
    }

    /// Sets the DHT's entry nodes (none listed: the well-known ones) and the room's account, each
    /// if used. `open` returns the way to the program. Returns the carriers whose records are gone.
    ///
    /// # Errors
    /// The errors of `open`.
    pub fn set_reach<E>(
        &mut self,
        dht: Option<&[String]>,
        account: Option<&Account>,
        open: impl FnOnce() -> Result<ReachProgram, E>,
    ) -> Result<Vec<CarrierId>, E> {
        let mut gone = Vec::new();
        if let Some((ids, reach)) = &self.reach {
            let room = account.map(|account| &account.room);
            gone.extend((dht.is_none() && reach.uses_dht()).then_some(ids.dht));
            let left = reach.room().is_some_and(|left| Some(&left) != room);
            gone.extend(left.then_some(ids.matrix));
        }
        let is_used = dht.is_some() || account.is_some();
        // the program stays connected, to learn that it has nothing to do
        if self.reach.is_none() && is_used {
            let program = open()?;
            let ids = ReachIds {
                dht: self.new_id(),
                matrix: self.new_id(),
            };
            let me = (self.me.key.clone(), self.network);
            let reach = Reach::start(ids, program, me, self.events.clone());
            self.record.iter().for_each(|record| reach.publish(record));
            reach.seek(&self.seeking);
            self.reach = Some((ids, reach));
        }
        if let Some((_, reach)) = &self.reach {
            reach.set(dht, account);
        }
        Ok(gone)
    }

    /// Sets the nodes that this node searches for, for carriers that look up names.
    pub fn seek(&mut self, seeking: Sought) {
        if let Some((_, reach)) = &self.reach {
            reach.seek(&seeking);
        }
        self.seeking = seeking;
    }

    /// Returns the doors by which other nodes find this one.
    pub fn doors(&self) -> Vec<Door> {
        let servers = self
            .servers
            .iter()
            .map(|(url, carrier)| Door::new(carrier.0, CarrierKind::Server, url.clone()));
        let lan = self.lan.iter().flat_map(|(id, lan)| {
            let interfaces = lan.interfaces().into_iter();
            interfaces.map(|at| Door::new(*id, CarrierKind::Lan, at))
        });
        let spool = self.spool.iter().map(|(id, folder, _)| {
            Door::new(*id, CarrierKind::Spool, folder.display().to_string())
        });
        let door = |(open, note), door| Door {
            open,
            note: Some(note),
            ..door
        };
        let dht = self.reach.iter().filter(|(_, reach)| reach.uses_dht());
        let dht = dht.map(|(ids, reach)| {
            let at = Door::new(ids.dht, CarrierKind::Dht, DHT.into());
            door(reach.dht_standing(), at)
        });
        let room = self.reach.iter().filter_map(|(ids, reach)| {
            let room = reach.room()?.to_string();
            let at = Door::new(ids.matrix, CarrierKind::Matrix, room);
            Some(door(reach.room_standing(), at))
        });
        let programs = dht.chain(room);
        servers.chain(lan).chain(spool).chain(programs).collect()
    }

    /// Returns this host's address as nodes of the DHT see it, if its NAT keeps ports.
    pub fn outer_address(&self) -> Option<Ipv4Addr> {
        let (_, reach) = self.reach.as_ref()?;
        reach.outer_address()
    }

    /// Publishes this node's presence record on all carriers that store one.
    pub fn publish(&mut self, record: Published) {
        for carrier in self.all().filter(|carrier| carrier.pace() == Pace::Slow) {
            carrier.publish(&record);
        }
        self.record = Some(record);
    }

    /// Ends the carriers, with a goodbye on LANs.
    pub async fn end(mut self) {
        if let Some((_, lan)) = self.lan.take() {
            lan.end().await;
        }
    }

    fn new_id(&mut self) -> CarrierId {
        self.next += 1;
        CarrierId(self.next - 1)
    }

    fn all(&self) -> impl Iterator<Item = &dyn Carrier> {
        let servers = self.servers.values();
        let servers = servers.map(|(_, carrier)| carrier as &dyn Carrier);
        let lan = self.lan.iter().map(|(_, carrier)| carrier as &dyn Carrier);
        let spool = self.spool.iter();
        let spool = spool.map(|(.., carrier)| carrier as &dyn Carrier);
        let reach = self.reach.iter();
        let reach = reach.map(|(_, carrier)| carrier as &dyn Carrier);
        servers.chain(lan).chain(spool).chain(reach)
    }

    /// Reports a possible change of paths to all carriers.
    pub fn path_changed(&self, change: PathChange) {
        self.all().for_each(|carrier| carrier.path_changed(change));
    }

    /// Sends a sealed message over every carrier that accepts it; the recipient ignores copies.
    pub fn send(&self, to: PeerId, sealed: &Bytes) {
        for carrier in self.all() {
            if sealed.len() <= carrier.longest() && !carrier.send(to, sealed) {
                tracing::debug!("{carrier:?}: queue full, message dropped");
            }
        }
    }
}

/// Returns whether the server is on this host: other members know it by another name.
fn is_on_this_host(server: &str) -> bool {
    let url = signalling::urls(server).pop();
    let uri: Option<Uri> = url.and_then(|url| url.parse().ok());
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use librecast::reach::ToReach;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::UnixStream;

    use super::*;
    use crate::reach::ReachSocket;

    async fn line(stream: &mut BufReader<UnixStream>) -> ToReach {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn the_program_for_a_dht_hears_that_none_is_used_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reach.sock");
        let (events, mut told) = mpsc::channel(4);
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let key = Arc::new(SecretKey::from_seed(&[1; 32]));
        let network = SecretKey::from_seed(&[9; 32]).peer_id();
        let mut carriers = Carriers::new(key, network, events);
        let open = || -> std::io::Result<ReachProgram> {
            let listener = std::os::unix::net::UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            let path = path.clone();
            Ok(ReachProgram::Service(ReachSocket { listener, path }))
        };
        assert_eq!(carriers.set_reach(None, None, open).unwrap(), []);
        assert!(!path.exists());
        carriers.set_reach(Some(&[]), None, open).unwrap();
        let stream = UnixStream::connect(&path).await.unwrap();
        let mut program = BufReader::new(stream);
        assert!(matches!(line(&mut program).await, ToReach::Plan(Some(_))));
        assert_eq!(carriers.set_reach(None, None, open).unwrap().len(), 1);
        assert!(matches!(line(&mut program).await, ToReach::Plan(None)));
        assert!(carriers.doors().is_empty());
    }
}
