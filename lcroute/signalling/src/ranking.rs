//! Choice among signalling servers: the best by rendezvous hashing, which gives all members one
//! order without messages. If one does not answer, the next is used too, until it does.

use std::collections::BTreeMap;
use std::time::Duration;

use lcroute_overlay::server::Room;
use librecast::id::derive;
use tokio::sync::watch;
use tokio::time::timeout;

/// Number of answering servers in use. If one node cannot reach the best, two are still in common.
const USED: usize = 3;
/// Time for which better servers must answer before one is left: other nodes may return later.
const GRACE: Duration = Duration::from_secs(60);

/// Place of a server in the order of its room; the smallest is the best.
type Place = [u8; 32];

fn place(room: &Room, url: &str) -> Place {
    derive("lcroute 2026 server place", &[&room.0, url.as_bytes()])
}

/// All known servers, and whether each answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranking(watch::Sender<BTreeMap<Place, bool>>);

impl Ranking {
    /// Adds a server until the result is dropped. A server on this host is always used.
    pub(crate) fn add(&self, room: &Room, url: &str, on_this_host: bool) -> Rank {
        let place = (!on_this_host).then(|| place(room, url));
        if let Some(place) = place {
            self.0.send_modify(|servers| {
                servers.insert(place, true);
            });
        }
        Rank {
            place,
            servers: self.0.clone(),
            changes: self.0.subscribe(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Rank {
    place: Option<Place>,
    servers: watch::Sender<BTreeMap<Place, bool>>,
    changes: watch::Receiver<BTreeMap<Place, bool>>,
}

impl Drop for Rank {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            self.servers.send_modify(|servers| {
                servers.remove(place);
            });
        }
    }
}

impl Rank {
    /// Waits until this server is to be used.
    pub(crate) async fn come(&mut self) {
        self.wait(true).await;
    }

    /// Waits until this server is not needed any more.
    pub(crate) async fn over(&mut self) {
        self.over_for(GRACE).await;
    }

    async fn over_for(&mut self, grace: Duration) {
        loop {
            self.wait(false).await;
            if timeout(grace, self.wait(true)).await.is_err() {
                return;
            }
        }
    }

    async fn wait(&mut self, used: bool) {
        let Some(place) = self.place else {
            if !used {
                std::future::pending::<()>().await;
            }
            return;
        };
        let is_used = |servers: &BTreeMap<Place, bool>| {
            servers
                .range(..place)
                .filter(|(_, answers)| **answers)
                .count()
                < USED
        };
        // cannot fail, as this holds a sender too
        let _ = self
            .changes
            .wait_for(|servers| is_used(servers) == used)
            .await;
    }

    pub(crate) fn answers(&self, answers: bool) {
        let Some(place) = self.place else { return };
        self.servers.send_if_modified(|servers| {
            let known = servers.insert(place, answers);
            known != Some(answers)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;

    /// Enough for anything that is due at once.
    const MOMENT: Duration = Duration::from_millis(50);

    fn room(seed: u8) -> Room {
        Room::of(&SecretKey::from_seed(&[seed; 32]).peer_id())
    }

    fn urls(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("wss://s{n}.example")).collect()
    }

    async fn is_on(rank: &mut Rank) -> bool {
        timeout(Duration::ZERO, rank.come()).await.is_ok()
    }

    /// Returns whether it is not needed any more, after better ones answered for `grace`.
    async fn is_over(rank: &mut Rank, grace: Duration) -> bool {
        timeout(MOMENT, rank.over_for(grace)).await.is_ok()
    }

    async fn used(ranking: &mut [Rank]) -> Vec<usize> {
        let mut used = Vec::new();
        for (n, rank) in ranking.iter_mut().enumerate() {
            if is_on(rank).await {
                used.push(n);
            }
        }
        used
    }

    #[tokio::test]
    async fn nodes_that_know_the_servers_in_any_order_use_the_same() {
        let (a, b) = (Ranking::default(), Ranking::default());
        let mut of_a: Vec<_> = urls(8).iter().map(|u| a.add(&room(1), u, false)).collect();
        let mut of_b: Vec<_> = urls(8)
            .iter()
            .rev()
            .map(|u| b.add(&room(1), u, false))
            .collect();
        of_b.reverse();
        let first = used(&mut of_a).await;
        assert_eq!((first.len(), &first), (USED, &used(&mut of_b).await));
        // one of them fails for a: two are still in common
        of_a[first[0]].answers(false);
        let now = used(&mut of_a).await;
        assert_eq!(now.len(), USED + 1);
        assert!(
            first.iter().all(|n| now.contains(n)),
            "it is tried again: {now:?}"
        );
        of_a[first[0]].answers(true);
        assert_eq!(used(&mut of_a).await, first);
    }

    #[tokio::test]
    async fn networks_spread_over_the_servers() {
        let mut uses = [0; 8];
        for network in 0..64 {
            let ranking = Ranking::default();
            let mut all: Vec<_> = urls(8)
                .iter()
                .map(|u| ranking.add(&room(network), u, false))
                .collect();
            used(&mut all).await.into_iter().for_each(|n| uses[n] += 1);
        }
        // 24 each on average
        assert!(uses.iter().all(|uses| (12..=36).contains(uses)), "{uses:?}");
    }

    #[tokio::test]
    async fn few_servers_and_those_of_this_host_are_all_used() {
        let ranking = Ranking::default();
        let mut all: Vec<_> = urls(3)
            .iter()
            .map(|u| ranking.add(&room(1), u, false))
            .collect();
        assert_eq!(used(&mut all).await, [0, 1, 2]);
        let mut own = ranking.add(&room(1), "ws://127.0.0.1:7117", true);
        assert!(is_on(&mut own).await);
        assert!(!is_over(&mut own, Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_server_is_left_when_better_ones_have_been_back_for_a_while() {
        let ranking = Ranking::default();
        let mut all: Vec<_> = urls(4)
            .iter()
            .map(|u| ranking.add(&room(1), u, false))
            .collect();
        let before = used(&mut all).await;
        let best = before[0];
        let last = (0..4).find(|n| !before.contains(n)).unwrap();
        all[best].answers(false);
        assert!(is_on(&mut all[last]).await);
        all[best].answers(true);
        assert!(!is_over(&mut all[last], GRACE).await, "not at once");
        assert!(is_over(&mut all[last], Duration::ZERO).await);
        // a removed server does not count
        drop(all.remove(best));
        assert_eq!(used(&mut all).await.len(), 3);
    }
}
