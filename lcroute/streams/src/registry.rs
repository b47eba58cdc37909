//! The served protocols, and their permissions.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use lcroute_control::status::Contact;
use lcroute_control::streams::{Access, Target};
use librecast::stream::{Peer, ProtocolName};
use tokio::sync::{mpsc, watch};

use crate::agreement::{Answer, Hello};
use crate::shares::Shares;

/// Maximum number of serving programs. Chosen: each holds a connection.
const MAX_SERVICES: usize = 1_024;

#[derive(Debug, Clone)]
pub enum Destination {
    /// A server; with `true`, a Unix socket first receives a line about the peer.
    Server(Target, bool),
    /// The requesting program, over its connection; with `true`, it reports ends of commands.
    Program(mpsc::Sender<Handover>, bool),
}

/// A stream for a program: the node that opened it, and the program's end of it.
#[derive(Debug)]
pub struct Handover {
    /// The node, and the protocol.
    pub peer: Peer,
    /// The program's end, and the socket for the report of its command's end.
    pub sockets: Vec<OwnedFd>,
}

impl Handover {
    /// Returns a stream of `peer`, with a socket for reports if the program makes them.
    pub fn new(peer: Peer, socket: OwnedFd, report: Option<OwnedFd>) -> Self {
        let sockets = [Some(socket), report].into_iter().flatten().collect();
        Self { peer, sockets }
    }
}

/// A serving program, or an entry of the configuration.
#[derive(Debug)]
pub struct Service {
    /// Its protocols, by preference.
    pub protocols: Vec<ProtocolName>,
    /// Whether it takes datagrams instead of streams.
    pub datagrams: bool,
    /// The permitted nodes.
    pub access: Arc<watch::Sender<Access>>,
    pub destination: Destination,
    /// Places of its streams, whatever network they come from.
    pub shares: Arc<Mutex<Shares>>,
    /// Closed when the service has ended, which ends its streams.
    pub ended: watch::Receiver<()>,
}

/// All services, in order of registration.
#[derive(Debug, Default)]
pub struct Registry {
    services: BTreeMap<u64, Arc<Service>>,
    next: u64,
}

/// The decision about a stream of another node.
#[derive(Debug)]
pub enum Choice {
    /// This service takes it, in the protocol of this index in the hello.
    Service(Arc<Service>, u8),
    /// No service takes it.
    Not(Answer),
}

impl Registry {
    /// Adds a service; returns none if there are too many.
    pub fn add(&mut self, service: Service) -> Option<u64> {
        if self.services.len() >= MAX_SERVICES {
            return None;
        }
        self.next += 1;
        self.services.insert(self.next, Arc::new(service));
        Some(self.next)
    }

    pub fn remove(&mut self, service: u64) {
        self.services.remove(&service);
    }

    pub fn protocols(&self) -> Vec<ProtocolName> {
        let all = self.services.values().flat_map(|s| s.protocols.clone());
        all.collect()
    }

    /// Returns the protocols that all nodes may use.
    pub fn open_protocols(&self) -> Vec<ProtocolName> {
        let open = self.services.values().filter(|s| s.access.borrow().all);
        open.flat_map(|s| s.protocols.clone()).collect()
    }

    /// Returns whether this node may use any served protocol.
    pub fn knows(&self, node: &Contact) -> bool {
        self.services
            .values()
            .any(|s| s.access.borrow().permits(node))
    }

    /// Chooses the first protocol that this node may use and speaks.
    pub fn choose(&self, node: &Contact, hello: &Hello) -> Choice {
        let offered = &hello.protocols;
        let is_open =
            |s: &&Arc<Service>| s.datagrams == hello.datagrams && s.access.borrow().permits(node);
        let open = || self.services.values().filter(is_open);
        for service in open() {
            let index = |protocol| offered.iter().position(|o| o == protocol);
            if let Some(index) = service.protocols.iter().find_map(index) {
                return Choice::Service(Arc::clone(service), index as u8);
            }
        }
        let open: Vec<_> = open().flat_map(|s| s.protocols.clone()).collect();
        Choice::Not(match open.is_empty() {
            true => Answer::Refused,
            false => Answer::NoneCommon(open),
        })
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::{NodeAddresses, SecretKey};

    use super::*;

    fn contact(name: &str) -> Contact {
        let peer_id = SecretKey::from_seed(&[3; 32]).peer_id();
        Contact {
            peer_id,
            name: name.into(),
            address: NodeAddresses::derive(&peer_id, &peer_id).address,
            labels: BTreeMap::new(),
            present: true,
            not_after: 0,
            streams: true,
        }
    }

    fn names(names: &[&str]) -> Vec<ProtocolName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn service(protocols: &[&str], allowed: &str) -> Service {
        Service {
            protocols: names(protocols),
            datagrams: false,
            access: Arc::new(watch::Sender::new(Access {
                all: false,
                nodes: vec![allowed.parse().unwrap()],
            })),
            destination: Destination::Server("127.0.0.1:22".parse().unwrap(), false),
            shares: Arc::default(),
            ended: watch::channel(()).1,
        }
    }

    #[test]
    fn the_server_prefers_and_whoever_is_not_allowed_learns_nothing() {
        let mut registry = Registry::default();
        let id = registry
            .add(service(&["/echo/2", "/echo/1"], "alpha"))
            .unwrap();
        registry.add(service(&["/ssh/1"], "beta")).unwrap();
        let hello = |datagrams, offered: &[&str]| Hello {
            datagrams,
            protocols: names(offered),
        };
        let choose = |registry: &Registry, who: &str, offered: &[&str]| match registry
            .choose(&contact(who), &hello(false, offered))
        {
            Choice::Service(service, index) => format!("{} {index}", service.protocols[0]),
            Choice::Not(answer) => format!("{answer:?}"),
        };
        let agreed = choose(&registry, "alpha", &["/echo/3", "/echo/1", "/echo/2"]);
        assert_eq!(agreed, "/echo/2 2");
        let agreed = choose(&registry, "alpha", &["/echo/3", "/echo/1"]);
        assert_eq!(agreed, "/echo/2 1");
        let none = choose(&registry, "alpha", &["/ssh/1"]);
        assert!(none.contains("/echo/1") && !none.contains("ssh"), "{none}");
        assert_eq!(choose(&registry, "gamma", &["/echo/2"]), "Refused");
        assert!(registry.knows(&contact("beta")) && !registry.knows(&contact("gamma")));
        let choice = registry.choose(&contact("alpha"), &hello(true, &["/echo/2"]));
        assert!(
            matches!(choice, Choice::Not(Answer::Refused)),
            "it takes streams"
        );
        registry.remove(id);
        assert_eq!(choose(&registry, "alpha", &["/echo/2"]), "Refused");
        assert_eq!(registry.protocols(), names(&["/ssh/1"]));
    }

    #[test]
    fn there_is_a_bound() {
        let mut registry = Registry::default();
        for _ in 0..MAX_SERVICES {
            registry.add(service(&["/x"], "a")).unwrap();
        }
        assert_eq!(registry.add(service(&["/x"], "a")), None);
    }
}
