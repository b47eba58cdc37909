//! Names of nodes, in place of keys and addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::status::{Look, Route, Status, short_id};
use librecast::id::PeerId;

/// Returns names by node address, as the daemon knows them; none without a daemon.
pub fn by_address(control: &Path) -> BTreeMap<IpAddr, String> {
    let mut known = BTreeMap::new();
    let Ok(mut daemon) = Client::connect_to_look(control) else {
        return known;
    };
    match daemon.ask::<Vec<Route>>(&Request::Routes) {
        Ok(routes) => {
            for route in routes {
                let ipv4 = route.ipv4.map(|ipv4| (ipv4.into(), route.name.clone()));
                known.extend(ipv4);
                known.insert(route.address.into(), route.name);
            }
        }
        // the view socket has only the network's state
        Err(_) => {
            let look =
                Client::connect_to_look(control).and_then(|mut c| c.ask::<Look>(&Request::Watch));
            let routers = look.ok().into_iter().flat_map(|look| look.network.routers);
            known.extend(routers.filter_map(|r| Some((r.address?.into(), r.name?))));
        }
    }
    if let Ok(own) =
        Client::connect_to_look(control).and_then(|mut c| c.ask::<Status>(&Request::Status))
    {
        let ipv4 = own.ipv4.map(|ipv4| (ipv4.into(), own.name.clone()));
        known.extend(ipv4);
        known.insert(own.address.into(), own.name);
    }
    known
}

/// Returns a name for each of these nodes; missing and duplicate names get the end of the PeerId.
pub fn distinct<'a>(nodes: impl Iterator<Item = (Option<&'a str>, PeerId)> + Clone) -> Vec<String> {
    let mut uses = BTreeMap::new();
    for (name, _) in nodes.clone() {
        *uses.entry(name).or_insert(0_usize) += 1;
    }
    nodes
        .map(|(name, peer)| match name {
            None => short_id(&peer),
            Some(name) if uses[&Some(name)] > 1 => format!("{name} ({})", short_id(&peer)),
            Some(name) => name.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn equal_names_are_told_apart() {
        let id = |seed: u8| SecretKey::from_seed(&[seed; 32]).peer_id();
        let nodes = [
            (Some("a"), id(1)),
            (Some("b"), id(2)),
            (Some("a"), id(3)),
            (None, id(4)),
        ];
        let names = distinct(nodes.into_iter());
        assert_eq!(names[1], "b");
        assert!(names[0].starts_with("a (...") && names[0] != names[2]);
        assert!(
            id(4)
                .to_string()
                .ends_with(names[3].trim_start_matches('.'))
        );
    }
}
