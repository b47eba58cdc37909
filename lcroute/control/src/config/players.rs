//! `[players]`: groups and stations for players that speak HTTP only.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use librecast_program::metrics::Listen;
use serde::Deserialize;

/// Most groups, and most stations, that can be offered. Chosen: each takes a share of the memory for
/// slow clients.
const MAX_OFFERED: usize = 32;
/// Longest name of an offer, in bytes. Chosen: it is a part of an address that people type.
const MAX_NAME: usize = 64;
/// Most clients that can be configured: each has a descriptor, of which the service has 4,096.
const MAX_CLIENTS: u16 = 1_024;

/// `[players]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Players {
    /// Address at which they are served. Off by default.
    pub listen: Option<SocketAddr>,
    /// Groups with ports, by the name in the list.
    #[serde(deserialize_with = "groups")]
    pub groups: BTreeMap<String, SocketAddr>,
    /// Texts of stations, by the name in the list.
    #[serde(deserialize_with = "stations")]
    pub stations: BTreeMap<String, StationText>,
    /// Whether public stations that announce themselves are offered.
    pub public: bool,
    /// Most clients at a time.
    #[serde(deserialize_with = "clients")]
    pub clients: NonZeroU16,
    /// Most clients of one address at a time.
    pub per_address: NonZeroU16,
    /// Address of its own metrics. Off by default.
    pub metrics: Option<Listen>,
}

impl Default for Players {
    fn default() -> Self {
        const CLIENTS: NonZeroU16 = NonZeroU16::new(200).unwrap();
        const PER_ADDRESS: NonZeroU16 = NonZeroU16::new(16).unwrap();
        Self {
            listen: None,
            groups: BTreeMap::new(),
            stations: BTreeMap::new(),
            public: false,
            clients: CLIENTS,
            per_address: PER_ADDRESS,
            metrics: None,
        }
    }
}

/// A station's text, which a private station keeps secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct StationText(pub String);

impl fmt::Debug for StationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StationText")
    }
}

fn check<T>(offered: &BTreeMap<String, T>) -> Result<(), String> {
    if offered.len() > MAX_OFFERED {
        return Err(format!("{} names: at most {MAX_OFFERED}", offered.len()));
    }
    let is_name = |name: &&String| {
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_plain)
    };
    match offered.keys().find(|name| !is_name(name)) {
        Some(name) => Err(format!(
            "`{}` is no name: 1 to {MAX_NAME} bytes of letters, digits, spaces, - and _",
            name.escape_debug()
        )),
        None => Ok(()),
    }
}

fn groups<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<BTreeMap<String, SocketAddr>, D::Error> {
    let groups = BTreeMap::<String, SocketAddr>::deserialize(d)?;
    check(&groups).map_err(serde::de::Error::custom)?;
    let mut all = groups.values();
    match all.find(|at| !at.ip().is_multicast() || at.port() == 0) {
        Some(at) => Err(serde::de::Error::custom(format!(
            "`{at}` is not the address of a group with a port"
        ))),
        None => Ok(groups),
    }
}

fn stations<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<BTreeMap<String, StationText>, D::Error> {
    let stations = BTreeMap::deserialize(d)?;
    check(&stations).map_err(serde::de::Error::custom)?;
    Ok(stations)
}

fn clients<'de, D: serde::Deserializer<'de>>(d: D) -> Result<NonZeroU16, D::Error> {
    let clients = NonZeroU16::deserialize(d)?;
    if clients.get() > MAX_CLIENTS {
        let message = format!("at most {MAX_CLIENTS} clients");
        return Err(serde::de::Error::custom(message));
    }
    Ok(clients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(content: &str) -> Result<Players, String> {
        let config = Config::parse("f", &format!("[players]\n{content}"));
        config
            .map(|config| config.players)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_is_offered_unless_it_is_named() {
        let players = Config::parse("f", "").unwrap().players;
        assert_eq!(players.listen, None);
        assert!(players.groups.is_empty() && players.stations.is_empty() && !players.public);
        assert_eq!(
            (players.clients.get(), players.per_address.get()),
            (200, 16)
        );
        let players = read("groups = { camera = \"[ff1e::42]:5004\" }").unwrap();
        let camera = "[ff1e::42]:5004".parse().unwrap();
        assert_eq!(players.groups.get("camera"), Some(&camera));
    }

    #[test]
    fn names_and_groups_that_no_address_can_have_are_refused() {
        for wrong in [
            "groups = { camera = \"[fd00::1]:5004\" }",
            "groups = { camera = \"[ff1e::42]:0\" }",
            "groups = { \"a/b\" = \"[ff1e::42]:5004\" }",
            "groups = { \"\" = \"[ff1e::42]:5004\" }",
            "stations = { \"a\\nb\" = \"lcr1x\" }",
            "clients = 0",
            "clients = 5000",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many: String = (0..=MAX_OFFERED)
            .map(|n| format!("s{n} = \"lcr1x\", "))
            .collect();
        assert!(read(&format!("stations = {{ {many} }}")).is_err());
    }

    #[test]
    fn texts_of_stations_are_not_printed() {
        let players = read("stations = { news = \"lcr1secret\" }").unwrap();
        assert!(!format!("{players:?}").contains("secret"));
    }
}
