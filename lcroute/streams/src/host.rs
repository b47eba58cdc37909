//! Both networks of streams of this host: that of its daemon, and keys outside of it.

use std::sync::Arc;

use lcroute_control::status::Contact;
use lcroute_control::streams::{Access, Who, who};
use librecast::id::PeerId;
use librecast::outside::{ContactText, Place};
use librecast::stream::{OutsideLook, Peer, Reason, Status};
use tokio::sync::watch;

use crate::agreement::Hello;
use crate::daemon::AskError;
use crate::network::{Client, Network, Number, Opened, Refusal, Waiting};
use crate::outside::Outside;
use crate::pump::Traffic;
use crate::registry::{Destination, Service};

/// Networks of streams.
#[derive(Debug, Clone)]
pub struct Host {
    /// That of the daemon; none without one.
    pub inside: Option<Arc<Network>>,
    /// Keys outside of it.
    pub outside: Arc<Outside>,
    /// Streams with them.
    pub abroad: Arc<Network>,
    /// Whether links with them would show what this host hides.
    pub hides: bool,
}

/// Places of keys.
pub type Places = Vec<(PeerId, Place)>;

/// What a program or the configuration serves.
#[derive(Debug)]
pub struct Offer {
    /// The protocols, by preference.
    pub protocols: Vec<librecast::stream::ProtocolName>,
    pub datagrams: bool,
    /// The permitted nodes; names of address books are resolved.
    pub access: Access,
    /// Places of permitted keys.
    pub places: Places,
    /// Whether keys may come from outside.
    pub outside: bool,
    /// Whether any key may from there.
    pub anyone: bool,
    pub destination: Destination,
    /// Closed when it has ended.
    pub ended: watch::Receiver<()>,
}

/// An offer that is served, until this is dropped.
#[derive(Debug)]
pub struct Served {
    host: Host,
    inside: Option<(u64, Arc<watch::Sender<Access>>)>,
    abroad: Option<(u64, Arc<watch::Sender<Access>>)>,
    named: Vec<PeerId>,
    anyone: bool,
}

impl Host {
    /// Returns the network that counts programs and streams of this host.
    fn first(&self) -> &Arc<Network> {
        self.inside.as_ref().unwrap_or(&self.abroad)
    }

    /// Counts a connected program of this host, until the result is dropped.
    pub fn client(&self) -> Client {
        self.first().client()
    }

    pub fn clients(&self) -> watch::Receiver<usize> {
        self.first().clients()
    }

    /// Begins a stream of a program of this host.
    pub fn begin(&self) -> Number {
        self.first().begin()
    }

    /// Returns the end of this stream; none if it is unknown.
    pub fn end_of(&self, number: u64) -> Option<Waiting> {
        self.first().end_of(number)
    }

    /// Returns the traffic of the network of this peer.
    pub fn traffic(&self, peer: &Peer) -> &Traffic {
        match &self.inside {
            Some(inside) if !peer.outside => inside.traffic(),
            _ => self.abroad.traffic(),
        }
    }

    pub fn status(&self) -> Status {
        let abroad = self.abroad.status();
        let Some(inside) = &self.inside else {
            return abroad;
        };
        let mut all = inside.status();
        all.connections += abroad.connections;
        all.streams += abroad.streams;
        all.accepted += abroad.accepted;
        all.rx_bytes += abroad.rx_bytes;
        all.tx_bytes += abroad.tx_bytes;
        for (reason, count) in abroad.refused {
            *all.refused.entry(reason).or_default() += count;
        }
        all
    }

    /// Returns what this host shares outside of its networks.
    pub fn look(&self) -> OutsideLook {
        let mut look = self.outside.look();
        if let Some(open) = &mut look.open {
            open.protocols = self.abroad.registry().open_protocols();
        }
        look
    }

    /// Opens a stream: to a member of the network, else to a key outside of it.
    pub async fn open(&self, node: &str, hello: &Hello) -> Result<Opened, Refusal> {
        let contact = node.parse::<ContactText>().ok();
        let Some(contact) = contact else {
            return match &self.inside {
                Some(inside) => inside.open(node, hello).await,
                None => Err(Refusal(Reason::Unreachable, no_network(node))),
            };
        };
        let key = contact.key.to_string();
        if let Some(inside) = &self.inside {
            let known = inside.directory().member(&key).await;
            let is_member = |contact: &Contact| contact.peer_id == inside.own().peer;
            match known {
                Ok(known) if known.present || is_member(&known) => {
                    return inside.open(&key, hello).await;
                }
                Err(AskError::NoDaemon(_)) | Ok(_) => {
                    // a member that is away may wait outside, too
                    if contact.place.is_none() && !self.outside.names(&contact.key) {
                        return inside.open(&key, hello).await;
                    }
                }
                Err(AskError::Refused(_)) => {}
            }
        }
        let no_member = |Refusal(reason, why): Refusal| {
            let why = match (&self.inside, why.split_once(": not found outside")) {
                (Some(_), Some((key, why))) => {
                    format!("{key}: no member of this host's network, and not found outside{why}")
                }
                _ => why,
            };
            Refusal(reason, why)
        };
        if self.hides {
            return Err(Refusal(Reason::Refused, HIDES.into()));
        }
        let opened = self.abroad.open_outside(&contact, hello).await;
        opened.map_err(no_member)
    }

    /// Serves an offer; none if too many are served.
    pub fn serve(&self, offer: &Offer) -> Option<Served> {
        let shares = Arc::default();
        let service = |access: &Arc<watch::Sender<Access>>| Service {
            protocols: offer.protocols.clone(),
            datagrams: offer.datagrams,
            access: Arc::clone(access),
            destination: offer.destination.clone(),
            shares: Arc::clone(&shares),
            ended: offer.ended.clone(),
        };
        let mut served = Served {
            host: self.clone(),
            inside: None,
            abroad: None,
            named: Vec::new(),
            anyone: false,
        };
        if let Some(inside) = &self.inside {
            let access = Arc::new(watch::Sender::new(offer.access.clone()));
            served.inside = Some((inside.registry().add(service(&access))?, access));
        }
        if offer.outside {
            let access = abroad(&offer.access, offer.anyone);
            let access = Arc::new(watch::Sender::new(access));
            served.abroad = Some((self.abroad.registry().add(service(&access))?, access));
            served.rename(&offer.access, &offer.places);
            if offer.anyone {
                served.anyone = true;
                self.outside.open();
            }
        }
        Some(served)
    }
}

/// Returns the permissions outside of this host's networks: keys, or all.
fn abroad(access: &Access, anyone: bool) -> Access {
    let mut abroad = access.outside();
    // nobody else is in that network
    abroad.all = anyone;
    abroad
}

/// Refusal of a host that hides.
pub const HIDES: &str =
    "[ice] policy = \"relay\": a link outside of the network would show this host's addresses";

fn no_network(node: &str) -> String {
    format!(
        "{node}: no daemon answers here, so only a key is found: KEY, KEY@PLACE or book:NAME; is `lcroute run` running, with this --control?"
    )
}

impl Served {
    /// Replaces the permitted nodes; streams of others end.
    pub fn amend(&mut self, access: &Access, places: &[(PeerId, Place)]) {
        if let Some((_, inside)) = &self.inside {
            inside.send_replace(access.clone());
        }
        if let Some((_, abroad)) = &self.abroad {
            abroad.send_replace(self::abroad(access, self.anyone));
            self.rename(access, places);
        }
    }

    fn rename(&mut self, access: &Access, places: &[(PeerId, Place)]) {
        let place = |key: &PeerId| places.iter().find(|(other, _)| other == key);
        let named = access
            .keys()
            .map(|key| (key, place(&key).map(|(_, place)| place.clone())));
        let named: Vec<_> = named.collect();
        let gone = self.host.outside.rename(&self.named, &named);
        self.named = named.into_iter().map(|(key, _)| key).collect();
        for key in gone {
            self.host.abroad.close_with(&key);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let (Some((id, _)), Some(inside)) = (&self.inside, &self.host.inside) {
            inside.registry().remove(*id);
        }
        if let Some((id, _)) = &self.abroad {
            self.host.abroad.registry().remove(*id);
            self.rename(&Access::default(), &[]);
        }
        if self.anyone {
            self.host.outside.close();
        }
    }
}

/// Reads a list of permitted nodes, and places of keys.
///
/// # Errors
/// An entry is invalid, or there are too many.
pub fn permitted(allow: &[String]) -> Result<(Vec<Who>, Places), String> {
    let contacts = allow
        .iter()
        .filter_map(|text| text.parse::<ContactText>().ok());
    let places = contacts.filter_map(|contact| Some((contact.key, contact.place?)));
    let places = places.collect();
    Ok((who(allow)?, places))
}
