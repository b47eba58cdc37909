//! Who is who: members by the daemon, or keys outside of this host's networks.

use std::net::IpAddr;
use std::sync::Arc;

use lcroute_control::Request;
use lcroute_control::status::Contact;
use librecast::id::PeerId;

use crate::daemon::{AskError, Daemon};
use crate::identity::Sign;
use crate::outside::Outside;

#[derive(Debug, Clone)]
pub enum Directory {
    /// The daemon, which knows the members of its network.
    Daemon(Daemon),
    /// Keys that are named or sought here.
    Outside(Arc<Outside>),
}

impl Directory {
    /// Returns the node with this name, PeerId or address.
    pub async fn member(&self, node: &str) -> Result<Contact, AskError> {
        match self {
            Self::Daemon(daemon) => {
                let node = node.to_owned();
                daemon.ask(&Request::Member { node }).await
            }
            Self::Outside(outside) => outside.contact(node),
        }
    }

    /// Returns a node by the key that it has proven, and the address that it has. `None`, in an
    /// answer: this address is of another key.
    pub async fn proven(&self, peer: &PeerId, from: IpAddr) -> Result<Option<Contact>, AskError> {
        if let Self::Outside(outside) = self
            && outside.prefix_of(&from).is_some()
        {
            return Ok(outside.prove(&from, *peer));
        }
        let contact = self.member(&peer.to_string()).await?;
        Ok(Some(contact).filter(|contact| IpAddr::from(contact.address) == from))
    }

    /// Returns the text by which a connected node is looked at again.
    pub fn text_of(&self, contact: &Contact) -> String {
        match self {
            Self::Daemon(_) => contact.peer_id.to_string(),
            // a caller of the open key is known by its way alone
            Self::Outside(_) => contact.address.to_string(),
        }
    }

    /// Returns the prefix of a caller of this host's open key with this address.
    pub fn prefix_of(&self, address: &IpAddr) -> Option<String> {
        match self {
            Self::Daemon(_) => None,
            Self::Outside(outside) => outside.prefix_of(address),
        }
    }

    /// Returns the signer of this host's key.
    pub fn signer(&self) -> Arc<dyn Sign> {
        match self {
            Self::Daemon(daemon) => Arc::new(daemon.clone()),
            Self::Outside(outside) => Arc::new(outside.keys().clone()),
        }
    }
}
