//! Permissions and targets of streams, in the command line and the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use librecast::cert::is_node_name;
use librecast::id::PeerId;
use librecast::outside::ContactText;
use librecast::stream::ProtocolName;
use librecast_program::book::{self, Book};
use serde::{Deserialize, Deserializer};

use crate::status::Contact;

/// Most protocols that one program serves, or requests: their names share one message.
pub const MAX_PROTOCOLS: usize = 16;
/// Most entries of a list of permitted nodes. Chosen: a label suits more.
pub const MAX_ALLOWED: usize = 1_024;

/// A node or several nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The node of this key.
    Peer(PeerId),
    /// The node of this name; of several, the first one seen.
    Name(String),
    /// Nodes whose certificate has this label, which their inviter gave.
    Label(String, String),
    /// A name in the host's address book, or all keys with this purpose.
    Book(String),
}

impl Who {
    /// Whether it includes this node.
    pub fn is(&self, node: &Contact) -> bool {
        match self {
            Self::Peer(peer) => *peer == node.peer_id,
            Self::Name(name) => *name == node.name,
            Self::Label(key, value) => node.labels.get(key) == Some(value),
            // resolved before: [`resolved`]
            Self::Book(_) => false,
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(label) = text.strip_prefix("label:") {
            return match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok(Self::Label(key.into(), value.into())),
                _ => Err("write it as label:key=value".into()),
            };
        }
        if let Some(name) = text.strip_prefix(book::PREFIX) {
            return Ok(Self::Book(name.into()));
        }
        if let Ok(contact) = text.parse::<ContactText>() {
            return Ok(Self::Peer(contact.key));
        }
        match is_node_name(text) {
            true => Ok(Self::Name(text.into())),
            false => Err(
                "neither a node's name, nor a PeerId, nor label:key=value, nor book:NAME".into(),
            ),
        }
    }
}

/// Replaces names by their keys in a book; returns the result, and unknown names.
#[must_use]
pub fn resolved(nodes: Vec<Who>, book: &Book) -> (Vec<Who>, Vec<String>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for who in nodes {
        let Who::Book(name) = who else {
            known.push(who);
            continue;
        };
        let keys = book.meant_by(&name);
        match keys.is_empty() {
            true => unknown.push(name),
            false => known.extend(keys.into_iter().map(Who::Peer)),
        }
    }
    (known, unknown)
}

/// Permitted nodes; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// All members.
    pub all: bool,
    /// These nodes.
    pub nodes: Vec<Who>,
}

impl Access {
    /// Replaces names by their keys in a book; also returns unknown names.
    #[must_use]
    pub fn resolved(self, book: &Book) -> (Self, Vec<String>) {
        let (nodes, unknown) = resolved(self.nodes, book);
        let all = self.all;
        (Self { all, nodes }, unknown)
    }

    /// Returns the permissions outside of this host's networks: keys alone.
    #[must_use]
    pub fn outside(&self) -> Self {
        let keys = self.keys().map(Who::Peer).collect();
        Self {
            all: false,
            nodes: keys,
        }
    }

    /// Returns the permitted keys.
    pub fn keys(&self) -> impl Iterator<Item = PeerId> {
        self.nodes.iter().filter_map(|who| match who {
            Who::Peer(key) => Some(*key),
            _ => None,
        })
    }

    /// Whether it permits this node.
    pub fn permits(&self, node: &Contact) -> bool {
        self.all || self.nodes.iter().any(|who| who.is(node))
    }
}

/// Target of streams of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP server.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("the path of a Unix socket is absolute".into()),
            None => {
                let address = text.parse().map(Self::Tcp);
                address.map_err(|_| "write it as ADDRESS:PORT or unix:/PATH".into())
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[[serve]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// The protocol.
    pub protocol: ProtocolName,
    /// Its target.
    #[serde(deserialize_with = "parsed")]
    pub to: Target,
    /// Permitted nodes.
    #[serde(default, deserialize_with = "parsed_list")]
    pub allow: Vec<Who>,
    /// Whether all members are permitted.
    #[serde(default)]
    pub allow_all: bool,
    /// Whether keys in `allow` are permitted from outside of this host's networks, too.
    #[serde(default)]
    pub outside: bool,
    /// Whether any key is permitted from there.
    #[serde(default)]
    pub anyone: bool,
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(d: D) -> Result<T, D::Error> {
    let text = String::deserialize(d)?;
    let error = |e| serde::de::Error::custom(format!("`{text}`: {e}"));
    text.parse().map_err(error)
}

fn parsed_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Who>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    who(&texts).map_err(serde::de::Error::custom)
}

/// Parses a list of nodes.
///
/// # Errors
/// An entry is invalid, or there are more than [`MAX_ALLOWED`].
pub fn who(texts: &[String]) -> Result<Vec<Who>, String> {
    if texts.len() > MAX_ALLOWED {
        return Err(format!("more than {MAX_ALLOWED} nodes: give them a label"));
    }
    let read = |text: &String| text.parse().map_err(|e| format!("`{text}`: {e}"));
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use librecast::id::{NodeAddresses, SecretKey};

    use super::*;

    fn contact(seed: u8, name: &str, label: (&str, &str)) -> Contact {
        let network = SecretKey::from_seed(&[9; 32]).peer_id();
        let peer_id = SecretKey::from_seed(&[seed; 32]).peer_id();
        Contact {
            peer_id,
            name: name.into(),
            address: NodeAddresses::derive(&network, &peer_id).address,
            labels: BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]),
            present: true,
            not_after: 0,
            streams: true,
        }
    }

    #[test]
    fn a_list_permits_whom_it_names_and_nobody_by_default() {
        let (alpha, beta) = (
            contact(1, "alpha", ("role", "admin")),
            contact(2, "beta", ("role", "adminx")),
        );
        assert!(!Access::default().permits(&alpha));
        let all = Access {
            all: true,
            nodes: vec![],
        };
        assert!(all.permits(&beta));
        for text in ["alpha", "label:role=admin", &alpha.peer_id.to_string()] {
            let nodes = who(&[text.to_owned()]).unwrap();
            let access = Access { all: false, nodes };
            assert!(access.permits(&alpha) && !access.permits(&beta), "{text}");
        }
        let key = alpha.peer_id;
        let text = format!("[[contact]]\nname = \"al\"\nkey = \"{key}\"\nfor = [\"ops\"]");
        let book: Book = librecast_program::config::parse("book", &text).unwrap();
        for word in ["book:al", "book:ops"] {
            let nodes = who(&[word.to_owned(), "book:nobody".into()]).unwrap();
            let (access, unknown) = Access { all: false, nodes }.resolved(&book);
            assert!(access.permits(&alpha) && !access.permits(&beta), "{word}");
            assert_eq!(unknown, ["nobody"]);
        }
        for bad in ["", "label:role", "label:=x", "a b", "-x", "12D3KooWnot"] {
            let read = who(&[bad.to_owned()]);
            assert!(read.is_err() || bad.starts_with("12D3"), "{bad}: {read:?}");
        }
    }

    #[test]
    fn a_target_is_an_address_or_an_absolute_path() {
        for good in ["127.0.0.1:22", "[::1]:80", "unix:/run/x.sock"] {
            assert_eq!(good.parse::<Target>().unwrap().to_string(), good);
        }
        for bad in ["22", "localhost:22", "unix:x", "/run/x.sock", ""] {
            bad.parse::<Target>().unwrap_err();
        }
    }
}
