//! Memory for incomplete messages.
//!
//! A message of 64 KiB takes 84 entries, and a hostile member may never send the last. The first
//! part reserves memory for all parts, so each message with memory can be completed. At the limit
//! the oldest message gives up its memory. Its author is read again from its first part, once
//! memory is free. So a reader misses nothing, and two authors do not displace each other forever.

use std::collections::BTreeMap;

use librecast::id::PeerId;

use crate::MAX_PARTIAL;
use crate::author::Author;
use crate::body::{Assembly, Heads, Part};

type Authors = BTreeMap<PeerId, Author>;

/// Whether a message of `author` from entry `number` has memory; `displace` frees older messages.
pub(crate) fn make_room(
    authors: &mut Authors,
    author: &PeerId,
    number: u32,
    part: &Part<'_>,
    displace: bool,
) -> bool {
    // a single part is not a partial message, and a later one has its memory
    if part.parts == 1 || part.part != 0 {
        return true;
    }
    let displaced = authors.get(author).map(|known| known.displaced);
    let displace = displace && displaced != Some(number);
    loop {
        let others = authors.iter().filter(|(other, _)| *other != author);
        let open = others.filter_map(|(other, known)| Some((*other, known.assembly.as_ref()?)));
        let used: usize = open.clone().map(|(_, open)| open.room()).sum();
        if used + Assembly::room_of(part) <= MAX_PARTIAL {
            return true;
        }
        let oldest = open.min_by_key(|(_, open)| open.began);
        let Some((oldest, _)) = oldest.filter(|_| displace) else {
            return false;
        };
        debug_assert!(oldest != *author, "an author does not displace itself");
        authors.entry(oldest).and_modify(Author::displace);
    }
}

/// Drops open messages that a waiting commit makes void: their authors reached their heads.
pub(crate) fn drop_void(authors: &mut Authors, heads: &Heads) {
    for (author, known) in authors {
        let head = heads.get(author).copied().unwrap_or(0);
        let read = known.read;
        known.assembly.take_if(|_| read >= head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_BODY;
    use crate::body::Assembled;
    use librecast::id::SecretKey;
    use librecast::time::UnixTime;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn group(n: u8) -> Authors {
        (0..n).map(|n| (key(n), Author::default())).collect()
    }

    fn part(part: u16, parts: u16) -> Part<'static> {
        Part {
            epoch: 1,
            part,
            parts,
            bytes: &[7; MAX_BODY - 12],
        }
    }

    fn read(authors: &mut Authors, n: u8, part: &Part<'_>, displace: bool, began: u64) -> bool {
        let number = authors[&key(n)].read + 1;
        let room = make_room(authors, &key(n), number, part, displace);
        if room {
            let author = authors.get_mut(&key(n)).unwrap();
            author.read = number;
            let taken = Assembly::take(
                &mut author.assembly,
                number,
                part,
                UnixTime::from_millis(began),
            );
            assert_ne!(taken, Assembled::Broken);
        }
        room
    }

    fn held(authors: &Authors) -> usize {
        let open = authors.values().filter_map(|a| a.assembly.as_ref());
        open.map(Assembly::capacity).sum()
    }

    #[test]
    fn partial_messages_of_all_members_have_a_bound() {
        let mut authors = group(200);
        for n in 0..200 {
            assert!(read(&mut authors, n, &part(0, 90), true, n.into()));
            for later in 1..80 {
                assert!(read(&mut authors, n, &part(later, 90), true, n.into()));
            }
            assert!(held(&authors) <= MAX_PARTIAL, "{n}: {}", held(&authors));
        }
        assert!(held(&authors) > MAX_PARTIAL * 9 / 10);
        // the newest keep their memory, the oldest are read again
        assert_eq!(authors[&key(199)].read, 80);
        assert_eq!((authors[&key(0)].read, authors[&key(0)].displaced), (0, 1));
    }

    #[test]
    fn who_made_room_waits_for_room_and_displaces_nobody() {
        let mut authors = group(60);
        for n in 0..60 {
            assert!(read(&mut authors, n, &part(0, 90), true, n.into()));
        }
        assert!(!read(&mut authors, 0, &part(0, 90), true, 60));
        // a part that needs no more memory is accepted
        assert!(read(&mut authors, 59, &part(1, 90), true, 60));
        assert!(read(&mut authors, 58, &part(0, 1), true, 60));
        // a shorter message instead of the old one fits
        assert!(read(&mut authors, 57, &part(0, 2), true, 60));
        authors.get_mut(&key(56)).unwrap().assembly = None;
        assert!(read(&mut authors, 0, &part(0, 90), true, 60));
        // its next message may displace older ones again
        authors.get_mut(&key(0)).unwrap().assembly = None;
        let mut more = |n| read(&mut authors, n, &part(0, 90), true, 61);
        assert!(more(55) && more(0) && more(0));
    }

    #[test]
    fn authors_who_all_wait_for_room_do_not_displace_each_other_forever() {
        let mut authors = group(150);
        let log: Vec<Part<'_>> = (0..30).map(|n| part(n, 90)).collect();
        let (mut passes, mut now) = (0, 0);
        loop {
            let mut moved = false;
            for n in 0..150 {
                while let Some(next) = log.get(authors[&key(n)].read as usize) {
                    now += 1;
                    if !read(&mut authors, n, next, true, now) {
                        break;
                    }
                    moved = true;
                }
            }
            passes += 1;
            assert!(passes < 10, "no end");
            if !moved {
                break;
            }
        }
        // the last ones displaced the first ones, which wait
        let waiting = authors.values().filter(|author| author.read == 0);
        assert_eq!(waiting.count(), 150 - MAX_PARTIAL / (90 * (MAX_BODY - 12)));
    }

    #[test]
    fn a_commit_that_waits_drops_what_is_void_and_displaces_nothing_that_counts() {
        let mut authors = group(60);
        for n in 0..47 {
            assert!(read(&mut authors, n, &part(0, 90), true, n.into()));
        }
        assert!(!read(&mut authors, 50, &part(0, 90), false, 50));
        // author 0 has no head, and author 1's head is before its message
        let mut heads: Heads = (2..47).map(|n| (key(n), 90)).collect();
        heads.insert(key(1), 0);
        drop_void(&mut authors, &heads);
        let open = |n| authors[&key(n)].assembly.is_some();
        assert_eq!((open(0), open(1), open(2)), (false, false, true));
        assert!(read(&mut authors, 50, &part(0, 90), false, 50));
    }
}
