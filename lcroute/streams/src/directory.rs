//! Who is who: members by the daemon, or keys outside of this host's networks.

use std::sync::Arc;

use lcroute_control::Request;
use lcroute_control::status::Contact;

use crate::daemon::{AskError, Daemon};
use crate::identity::Sign;
use crate::outside::Outside;

/// The directory of one network of streams.
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

    /// Returns the signer of this host's key.
    pub fn signer(&self) -> Arc<dyn Sign> {
        match self {
            Self::Daemon(daemon) => Arc::new(daemon.clone()),
            Self::Outside(outside) => Arc::new(outside.keys().clone()),
        }
    }
}
