//! The network as one node sees it: reachable nodes, links, and the flows that this node sends.

use std::net::Ipv6Addr;

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};

/// The present view of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look {
    /// All reachable nodes; the first is this one.
    pub routers: Vec<Router>,
    /// Links between them: two indices of that list, and the cost in units of 100 us.
    pub links: Vec<(u32, u32, u16)>,
    /// The flows that this node sends.
    pub flows: Vec<Flow>,
    /// Number of links, and of groups of this node, beyond the bounds.
    #[serde(default)]
    pub left_out: usize,
}

/// Maximum number of links in a view. Chosen: a mesh of 128 nodes; a browser can still draw them.
const MAX_LINKS: usize = 8_192;

/// A node on the map of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Router {
    /// Its origin id.
    pub origin: u64,
    /// Its identity.
    pub peer_id: Option<PeerId>,
    /// Its name.
    pub name: Option<String>,
    /// Its address on the network.
    pub address: Option<Ipv6Addr>,
    /// Whether no path leads through it.
    pub stub: bool,
}

/// The packets of a group that a node sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flow {
    /// The group.
    pub group: Ipv6Addr,
    /// Whether a program on the node's host has joined it.
    pub local: bool,
    /// Packets to each neighbour.
    pub edges: Vec<Edge>,
}

/// The packets of a group that a node sends to one neighbour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edge {
    /// The neighbour's origin id.
    pub to: u64,
    /// Packets a second.
    pub packets_s: f64,
    /// Bytes a second.
    pub bytes_s: f64,
}

/// Limits links between `nodes` nodes to `MAX_LINKS`; returns them and the number of omitted ones.
pub(crate) fn fit(mut links: Vec<(u32, u32, u16)>, nodes: usize) -> (Vec<(u32, u32, u16)>, usize) {
    let all = links.len();
    if all > MAX_LINKS {
        let mut degrees = vec![0; nodes];
        for (a, b, _) in &links {
            degrees[*a as usize] += 1;
            degrees[*b as usize] += 1;
        }
        let mut room = vec![share(MAX_LINKS, degrees); nodes];
        // a link takes room of one end that has some
        links.retain(|(a, b, _)| {
            let end = [*a, *b].into_iter().find(|end| room[*end as usize] > 0);
            end.map(|end| room[end as usize] -= 1).is_some()
        });
    }
    let left_out = all - links.len();
    (links, left_out)
}

/// Returns the share of `room` that each entry may use; small entries leave more for the rest.
pub(crate) fn share(mut room: usize, mut wanted: Vec<usize>) -> usize {
    wanted.sort_unstable();
    let mut left = wanted.len();
    for amount in wanted {
        let share = room / left;
        if amount > share {
            return share;
        }
        (room, left) = (room - amount, left - 1);
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_does_not_want_is_for_the_others() {
        assert_eq!(share(10, vec![2, 3, 5]), usize::MAX);
        assert_eq!(share(10, vec![9, 2, 9]), 4);
        assert_eq!(share(2, vec![9, 9, 9]), 0);
        assert_eq!(share(0, Vec::new()), usize::MAX);
    }

    #[test]
    fn links_are_bounded_and_small_nodes_keep_theirs() {
        let few = vec![(0, 1, 10), (1, 2, 10)];
        assert_eq!(fit(few.clone(), 3), (few, 0));
        let mesh = (1..600u32).flat_map(|b| (1..b).map(move |a| (a, b, 10)));
        let mut links: Vec<_> = mesh.collect();
        links.push((0, 1, 10));
        let all = links.len();
        let (shown, left_out) = fit(links, 600);
        assert!(shown.len() <= MAX_LINKS && shown.len() > MAX_LINKS / 2);
        assert_eq!(shown.len() + left_out, all);
        assert!(shown.contains(&(0, 1, 10)));
        let mut degrees = [0; 600];
        shown.iter().for_each(|(a, b, _)| {
            degrees[*a as usize] += 1;
            degrees[*b as usize] += 1;
        });
        assert!(
            degrees[1..].iter().all(|degree| *degree >= MAX_LINKS / 600),
            "{degrees:?}"
        );
    }
}
