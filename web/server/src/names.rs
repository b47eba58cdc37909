//! Names of groups and nodes from this host's address book, announced stations, and lcgroup.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use lcradio_core::{Directory, SAP_GROUP, Station};
use lcroute_control::status::Look;
use lcroute_node::view::Network;
use librecast::channel::{agent_answers, look_group, report_group};
use librecast::id::PeerId;
use librecast::text::{self, TextKind};
use librecast_program::book::Book;
use serde::Serialize;

use crate::groups::Groups;

/// Interval of reads of the book and lcgroup. Chosen: a new name appears before a user wonders.
const REFRESH: Duration = Duration::from_secs(5);
/// Characters of a name for pages. Chosen: longer than stations' names, shorter than some topics.
const MAX_NAME: usize = 120;

/// The use of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A station with a signed announcement, or with a key in the book.
    Station,
    /// The same packets once more, for listeners that lose some.
    Copy,
    /// A stream with an unsigned announcement.
    Unsigned,
    /// A group of lcgroup.
    Conversation,
    /// Answers of agents to an operator of the book.
    Answers,
}

/// The name of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Name {
    pub kind: Kind,
    pub name: String,
}

/// Names that change rarely.
#[derive(Debug, Default)]
pub struct Known {
    groups: BTreeMap<Ipv6Addr, Name>,
    book: Book,
}

impl Known {
    /// Reads the names after a pause; none of an unreadable book or a silent lcgroup.
    pub async fn after(pause: Duration, groups: Option<&Groups>) -> Self {
        tokio::time::sleep(pause).await;
        let book = Book::of_user().unwrap_or_else(|e| {
            tracing::debug!("without the address book: {e}");
            Book::default()
        });
        let mut named = BTreeMap::new();
        for contact in &book.contacts {
            named.extend(of_contact(&contact.key, &contact.name));
        }
        if let Some(groups) = groups {
            match groups.addresses().await {
                Ok(addresses) => named.extend(addresses.into_iter().map(|(address, name)| {
                    let name = bounded(&name);
                    let kind = Kind::Conversation;
                    (address, Name { kind, name })
                })),
                Err(e) => tracing::debug!("without names of groups: {e:#}"),
            }
        }
        Self {
            groups: named,
            book,
        }
    }

    /// Reads the names after [`REFRESH`].
    pub async fn later(groups: Option<&Groups>) -> Self {
        Self::after(REFRESH, groups).await
    }
}

/// Groups that follow from a key: its public station, and answers to it as an operator.
fn of_contact(key: &PeerId, name: &str) -> Vec<(Ipv6Addr, Name)> {
    // the text of a public station is its key
    let station = text::encode(TextKind::Station, key.public_key());
    let station = Station::decode(&station).ok();
    let mut groups = station.map_or_else(Vec::new, |s| of_station(&s, name));
    let (kind, name) = (Kind::Answers, name.to_owned());
    groups.push((agent_answers(key), Name { kind, name }));
    groups
}

fn of_station(station: &Station, name: &str) -> Vec<(Ipv6Addr, Name)> {
    let named = |kind| Name {
        kind,
        name: bounded(name),
    };
    vec![
        (station.group(), named(Kind::Station)),
        (station.copy_group(), named(Kind::Copy)),
    ]
}

fn bounded(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

#[derive(Debug)]
pub struct Names {
    pub known: Known,
    /// Stations that were announced while a page is open.
    pub stations: Directory,
}

impl Names {
    pub fn new(now: Instant) -> Self {
        Self {
            known: Known::default(),
            stations: Directory::new(now),
        }
    }

    /// Names of the groups on a page.
    pub fn of(&self, look: &Look, network: &Network) -> BTreeMap<IpAddr, Name> {
        let mut all = BTreeMap::new();
        for entry in self.stations.stations() {
            let description = &entry.description;
            match &description.station {
                Some(station) => all.extend(of_station(station, &description.name)),
                None => {
                    let (kind, name) = (Kind::Unsigned, bounded(&description.name));
                    // a signed name takes precedence
                    all.entry(description.group).or_insert(Name { kind, name });
                }
            }
        }
        // this host's own names take precedence over announced ones
        all.extend(
            self.known
                .groups
                .iter()
                .map(|(at, name)| (*at, name.clone())),
        );
        let shown = look.groups.iter().map(|g| g.group);
        let shown: BTreeSet<_> = shown.chain(network.flows.iter().map(|f| f.group)).collect();
        let all = all.into_iter().map(|(at, name)| (IpAddr::V6(at), name));
        all.filter(|(at, _)| shown.contains(at)).collect()
    }

    /// Puts the book's names before the nodes' own, which follow in parentheses; no node's own name
    /// has parentheses.
    pub fn rename(&self, look: &mut Look, network: &mut Network) {
        let named = |key: &PeerId, name: &mut Option<String>| {
            if let Some(own) = self.known.book.name_of(key)
                && name.as_deref() != Some(own)
            {
                *name = Some(match name.take() {
                    Some(name) => format!("{own} ({name})"),
                    None => own.to_owned(),
                });
            }
        };
        for peer in &mut look.peers {
            named(&peer.peer_id, &mut peer.name);
        }
        for node in &mut network.nodes {
            if let Some(key) = node.peer_id.as_ref().and_then(|id| id.parse().ok()) {
                named(&key, &mut node.name);
            }
        }
    }
}

/// Whether a group serves the pages themselves: reports of nodes, and announcements of stations.
pub fn is_own(group: IpAddr) -> bool {
    [report_group(), look_group(), SAP_GROUP].contains(&match group {
        IpAddr::V6(group) => group,
        IpAddr::V4(_) => return false,
    })
}

#[cfg(test)]
mod tests {
    use lcradio_core::StationKey;
    use librecast::id::SecretKey;

    use super::*;
    use crate::line::tests::{look, network};

    fn known(groups: Vec<(Ipv6Addr, Name)>) -> Known {
        Known {
            groups: groups.into_iter().collect(),
            book: Book::default(),
        }
    }

    #[test]
    fn a_key_of_the_book_names_its_station_and_its_copy() {
        let station = StationKey::from_seed(&[7; 32]);
        let (public, private) = (station.station(true), station.station(false));
        let groups = known(of_contact(&station.id(), "ann")).groups;
        let name = |kind| {
            let name = "ann".to_owned();
            Some(Name { kind, name })
        };
        assert_eq!(groups.get(&public.group()).cloned(), name(Kind::Station));
        assert_eq!(groups.get(&public.copy_group()).cloned(), name(Kind::Copy));
        assert_eq!(groups.get(&private.group()), None, "its text is a secret");
        assert_eq!(groups.len(), 3);
    }

    #[test]
    fn only_groups_in_view_are_named() {
        let (mut look, network) = (look(), network());
        let station = StationKey::from_seed(&[7; 32]);
        let mut names = Names::new(Instant::now());
        names.known = known(of_contact(&station.id(), "ann"));
        assert!(names.of(&look, &network).is_empty());
        let group = station.station(true).group().into();
        look.groups[0].group = group;
        assert_eq!(names.of(&look, &network)[&group].name, "ann");
    }

    #[test]
    fn the_book_says_who_a_node_is_and_the_node_what_it_calls_itself() {
        let (mut look, mut network) = (look(), network());
        let key = SecretKey::from_seed(&[2; 32]).peer_id();
        network.nodes[1].peer_id = Some(key.to_string());
        let mut names = Names::new(Instant::now());
        let contact = toml_contact("mum", &key);
        names.known.book.contacts.push(contact);
        names.rename(&mut look, &mut network);
        assert_eq!(network.nodes[1].name.as_deref(), Some("mum (n2)"));
        assert_eq!(look.peers[0].name.as_deref(), Some("mum (n2)"));
        assert_eq!(network.nodes[0].name.as_deref(), Some("n1"));
    }

    fn toml_contact(name: &str, key: &PeerId) -> librecast_program::book::Contact {
        let contact = serde_json::json!({ "name": name, "key": key.to_string() });
        serde_json::from_value(contact).unwrap()
    }
}
