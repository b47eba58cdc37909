//! Places of other nodes' streams at a service; without I/O.
//!
//! Callers of the open key have places of their own, with bounds by key and by prefix: they make
//! keys at will. If all places of a kind are taken, the caller with most streams gives way to one
//! with fewer: its oldest stream ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use librecast::id::PeerId;
use tokio::sync::Notify;

/// Most streams of one caller of the open key to a command, of one prefix, and of all. Chosen: a
/// small host runs the processes.
const GUESTS_OF_COMMAND: Most = Most {
    of_caller: 8,
    of_prefix: 32,
    all: 96,
};
/// The same of other nodes. Chosen: with the above, `serve` has room for processes that end.
const OTHERS_OF_COMMAND: Most = Most {
    of_caller: 192,
    of_prefix: 192,
    all: 192,
};
/// The same of callers to a server of this host, which has bounds of its own.
const GUESTS_OF_SERVER: Most = Most {
    of_caller: 256,
    of_prefix: 512,
    all: 2_048,
};
/// The same of other nodes.
const OTHERS_OF_SERVER: Most = Most {
    of_caller: 1_024,
    of_prefix: 4_096,
    all: 4_096,
};

#[derive(Debug, Clone, Copy)]
struct Most {
    of_caller: usize,
    of_prefix: usize,
    all: usize,
}

/// The node of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    pub key: PeerId,
    /// Its prefix, if it calls the open key.
    pub prefix: Option<String>,
}

/// Open streams of a service, by their numbers: the oldest first.
#[derive(Debug, Default)]
pub struct Shares {
    next: u64,
    streams: BTreeMap<u64, (Caller, Arc<Notify>)>,
}

impl Shares {
    /// Gives a stream a place, and returns its number and the signal to end; none: there is no room
    /// for this caller.
    pub fn enter(&mut self, caller: &Caller, is_command: bool) -> Option<(u64, Arc<Notify>)> {
        let is_guest = caller.prefix.is_some();
        let most = match (is_command, is_guest) {
            (true, true) => GUESTS_OF_COMMAND,
            (true, false) => OTHERS_OF_COMMAND,
            (false, true) => GUESTS_OF_SERVER,
            (false, false) => OTHERS_OF_SERVER,
        };
        let mut of_key: BTreeMap<PeerId, usize> = BTreeMap::new();
        // a caller without prefix is a site of its own
        let mut of_site: BTreeMap<Site<'_>, usize> = BTreeMap::new();
        let mut all = 0;
        for (other, _) in self.streams.values() {
            if other.prefix.is_some() == is_guest {
                *of_key.entry(other.key).or_default() += 1;
                *of_site.entry(site(other)).or_default() += 1;
                all += 1;
            }
        }
        let own = of_site.get(&site(caller)).copied().unwrap_or(0);
        if of_key
            .get(&caller.key)
            .is_some_and(|n| *n >= most.of_caller)
            || own >= most.of_prefix
        {
            return None;
        }
        if all >= most.all {
            let (largest, count) = of_site.into_iter().max_by_key(|(_, count)| *count)?;
            if count <= own + 1 {
                return None;
            }
            let of_largest = |(_, (other, _)): &(&u64, &(Caller, Arc<Notify>))| {
                other.prefix.is_some() == is_guest && site(other) == largest
            };
            let oldest = self.streams.iter().find(of_largest)?;
            let oldest = *oldest.0;
            if let Some((_, end)) = self.streams.remove(&oldest) {
                end.notify_one();
            }
        }
        let end = Arc::new(Notify::new());
        let number = self.next;
        self.next += 1;
        let stream = (caller.clone(), Arc::clone(&end));
        self.streams.insert(number, stream);
        Some((number, end))
    }

    /// Frees the place of a stream that has ended.
    pub fn leave(&mut self, number: u64) {
        self.streams.remove(&number);
    }
}

type Site<'a> = Result<&'a str, PeerId>;

fn site(caller: &Caller) -> Site<'_> {
    caller.prefix.as_deref().ok_or(caller.key)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn guest(key: u8, prefix: u8) -> Caller {
        Caller {
            key: SecretKey::from_seed(&[key; 32]).peer_id(),
            prefix: Some(format!("192.0.{prefix}.0/24")),
        }
    }

    fn member(key: u8) -> Caller {
        Caller {
            prefix: None,
            ..guest(key, 0)
        }
    }

    /// Opens this many streams; returns the number of places.
    fn open(shares: &mut Shares, caller: &Caller, count: usize) -> usize {
        let opened = (0..count).filter(|_| shares.enter(caller, true).is_some());
        opened.count()
    }

    #[test]
    fn one_caller_has_8_processes_and_one_prefix_32() {
        let mut shares = Shares::default();
        assert_eq!(open(&mut shares, &guest(1, 1), 256), 8);
        let of_others = (2..20).map(|key| open(&mut shares, &guest(key, 1), 8));
        assert_eq!(of_others.sum::<usize>(), 24);
        assert_eq!(open(&mut shares, &guest(50, 2), 8), 8);
    }

    #[test]
    fn the_prefix_with_most_streams_gives_way_and_its_oldest_ends() {
        let mut shares = Shares::default();
        for key in 0..10 {
            // prefix 0 has 32, prefix 1 has 32, and 2 has 16
            open(&mut shares, &guest(key, key / 4), 8);
        }
        open(&mut shares, &guest(10, 3), 8);
        open(&mut shares, &guest(11, 4), 8);
        assert_eq!(shares.streams.len(), 96);
        assert!(shares.enter(&guest(99, 99), true).is_some());
        assert_eq!(shares.streams.len(), 96);
        let first = shares.streams.keys().next().unwrap();
        let ended = shares
            .streams
            .values()
            .filter(|(c, _)| c.prefix == guest(9, 1).prefix);
        assert!(
            *first == 1 || ended.count() == 31,
            "of one of the largest, the oldest"
        );
        // it takes no more than the others have
        let taken = (100..140).map(|key| open(&mut shares, &guest(key, 99), 8));
        let taken = taken.sum::<usize>();
        assert!((15..32).contains(&taken), "{taken}");
        let small = shares
            .streams
            .values()
            .filter(|(c, _)| c.prefix == guest(9, 4).prefix);
        assert_eq!(small.count(), 8);
    }

    #[tokio::test]
    async fn the_stream_that_gives_way_is_told() {
        let mut shares = Shares::default();
        let (_, end) = shares.enter(&member(1), true).unwrap();
        open(&mut shares, &member(1), OTHERS_OF_COMMAND.all - 1);
        shares.enter(&member(2), true).unwrap();
        end.notified().await;
    }

    #[test]
    fn callers_of_the_open_key_take_no_place_of_members() {
        let mut shares = Shares::default();
        for key in 0..100 {
            open(&mut shares, &guest(key, key), 8);
        }
        assert_eq!(open(&mut shares, &member(1), 300), 192);
        assert_eq!(open(&mut shares, &member(2), 10), 10, "one takes not all");
        let guests = shares.streams.values();
        assert_eq!(guests.filter(|(c, _)| c.prefix.is_some()).count(), 96);
    }

    #[test]
    fn a_stream_that_ends_frees_its_place() {
        let mut shares = Shares::default();
        let places: Vec<_> = (0..8).map(|_| shares.enter(&guest(1, 1), true)).collect();
        assert!(shares.enter(&guest(1, 1), true).is_none());
        shares.leave(places[3].as_ref().unwrap().0);
        assert!(shares.enter(&guest(1, 1), true).is_some());
    }
}
