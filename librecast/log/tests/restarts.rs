//! Restarts of logs with gaps: a log reads the same after a restart as before.

#![allow(clippy::disallowed_methods, reason = "virtual time needs a beginning")]

use std::time::{Duration, Instant};

use librecast::id::SecretKey;
use librecast_log::*;

use crate::common::{BEGIN, SECOND, endless_grant};

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn space() -> Space {
    Space::new(
        key(0).peer_id(),
        Some(ReadKey::new([9; 32])),
        Duration::ZERO,
    )
}

fn log(keys: &[u8], now: Instant) -> Log {
    let keys = keys.iter().map(|n| key(*n)).collect();
    let (space, seed) = (space(), [3; 32]);
    Log::new(Config { space, keys, seed }, now)
}

fn id(n: u8) -> AuthorId {
    space().author(&key(n).peer_id())
}

fn records(log: &mut Log) -> Vec<Stored> {
    let outputs = std::iter::from_fn(|| log.poll_output());
    let stored = outputs.filter_map(|output| match output {
        Output::Store(stored) => Some(stored),
        _ => None,
    });
    stored.collect()
}

/// The records of the owner, which grants authors 1 and 2 in its entries 1 and 3, and of author 1
/// with three entries.
fn written(now: Instant) -> (Vec<Stored>, Vec<Stored>) {
    let mut writer = log(&[0, 1], now);
    let then = now + 4 * SECOND;
    let mut append = |n, kind, body: &[u8]| {
        writer.append(id(n), kind, body, BEGIN, then).unwrap();
    };
    let grant = |n: u8| Grant::encode(&[endless_grant(key(n).peer_id())]);
    append(0, GRANT_KIND, &grant(1));
    append(0, 16, b"");
    append(0, GRANT_KIND, &grant(2));
    for _ in 0..3 {
        append(1, 16, b"body");
    }
    let mut owner = records(&mut writer);
    let author = owner.split_off(3);
    (owner, author)
}

fn restored(keys: &[u8], disk: &[Stored], now: Instant) -> Log {
    let mut log = log(keys, now);
    disk.iter()
        .for_each(|stored| log.restore(stored.clone(), now));
    log
}

fn bounds(log: &Log, n: u8) -> Option<(u32, u32)> {
    let mut all = log.authors();
    let status = all.find(|status| status.author == id(n))?;
    Some((status.first, status.last))
}

#[test]
fn entries_behind_a_gap_that_was_given_up_are_read_after_a_restart() {
    let now = Instant::now();
    let (owner, author) = written(now);
    let mut disk = [&owner[..1], &author[..1], &author[2..]].concat();
    let mut live = restored(&[], &disk, now);
    live.give_up(id(1), 2, now);
    disk.extend(records(&mut live));
    let again = restored(&[], &disk, now);
    for log in [&live, &again] {
        assert_eq!(bounds(log, 1), Some((3, 3)));
        assert_eq!(log.entries_after(id(1), 0).count(), 1);
    }
}

#[test]
fn grants_behind_a_gap_that_was_given_up_count_at_once_and_after_a_restart() {
    let now = Instant::now();
    let (owner, _) = written(now);
    let mut disk = [&owner[..1], &owner[2..]].concat();
    let mut live = restored(&[2], &disk, now);
    live.give_up(id(0), 2, now);
    disk.extend(records(&mut live));
    assert_eq!(bounds(&live, 2), Some((1, 0)), "the grant counts");
    let then = now + 4 * SECOND;
    live.append(id(2), 16, b"", BEGIN, then).unwrap();
    disk.extend(records(&mut live));
    let again = restored(&[2], &disk, now);
    assert_eq!(bounds(&again, 2), Some((1, 1)));
}

#[test]
fn an_author_uses_no_number_twice_while_an_own_entry_is_missing() {
    let now = Instant::now();
    let (owner, author) = written(now);
    let disk = [&owner[..], &author[..1], &author[2..]].concat();
    let mut log = restored(&[1], &disk, now);
    let later = now + 3_600 * SECOND;
    let refused = log.append(id(1), 16, b"other", BEGIN, later);
    assert_eq!(refused, Err(AppendError::Starting));
    log.restore(author[1].clone(), later);
    assert_eq!(log.append(id(1), 16, b"other", BEGIN, later), Ok(4));
}
