//! The largest group: 1,000 members in one process.
//! `cargo test -p lcgroup-core --release --test integration thousand:: -- --ignored --nocapture`

#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::time::Instant;

use lcgroup_core::{
    Event, Group, Log, MAX_MEMBERS, MAX_REQUESTS, NewEntry, Output, RequestRefusal, Standing,
};
use librecast::id::PeerId;

use crate::world::{START, founding, read, unix};

/// Polled outputs: entries by log, requests, shown messages.
#[derive(Default)]
struct Polled {
    appends: Vec<(Log, u32, NewEntry)>,
    requests: Vec<Vec<u8>>,
    messages: usize,
}

fn poll(group: &mut Group) -> Polled {
    let mut polled = Polled::default();
    while let Some(output) = group.poll_output() {
        match output {
            Output::Append(append) => {
                group.handle_appended(append.log, append.number);
                polled
                    .appends
                    .push((append.log, append.number, append.entry));
            }
            Output::Request(request) => polled.requests.push(request),
            Output::Event(Event::Message { .. }) => polled.messages += 1,
            Output::Event(_) => {}
        }
    }
    polled
}

fn feed(group: &mut Group, author: PeerId, number: u32, entry: &NewEntry, now: u64) {
    group.handle_entry(&read(entry, author, number, now), unix(now));
}

#[test]
#[ignore = "minutes: 1,000 members that each join by the tree of all"]
fn a_thousand_members_and_not_one_more() {
    let mut owner = Group::create(founding("owner", ""), &[0; 32], unix(START)).unwrap();
    let (id, mut now) = (owner.id(), START);
    let invitation = owner
        .invite(1_000, START + 86_400_000, unix(START))
        .unwrap();
    let (mut members, mut log, mut joins): (Vec<Group>, Vec<(u32, NewEntry)>, Vec<f64>) =
        (Vec::new(), Vec::new(), Vec::new());
    let join = |n: usize| {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Group::join(
            invitation.clone(),
            &format!("member {n}"),
            &seed,
            unix(START),
        )
        .unwrap()
    };
    let first = poll(&mut owner).appends;
    log.extend(first.into_iter().map(|(_, number, entry)| (number, entry)));
    while members.len() + 1 < MAX_MEMBERS {
        let from = members.len();
        let to = (from + MAX_REQUESTS).min(MAX_MEMBERS - 1);
        for n in from..to {
            let mut member = join(n);
            let request = poll(&mut member).requests.remove(0);
            assert_eq!(owner.handle_request(&request, unix(now)), Ok(()), "{n}");
            members.push(member);
        }
        now += 5_000;
        let begin = Instant::now();
        owner.handle_timeout(unix(now));
        let took = begin.elapsed();
        let batch: Vec<_> = poll(&mut owner).appends;
        println!(
            "{} members: batch committed in {took:?}, {} entries",
            to + 1,
            batch.len()
        );
        let before = log.len();
        log.extend(batch.into_iter().map(|(_, number, entry)| (number, entry)));
        for (n, member) in members.iter_mut().enumerate() {
            let start = if n < from { before } else { 0 };
            let begin = Instant::now();
            for (number, entry) in &log[start..] {
                feed(member, id, *number, entry, now);
            }
            if n >= from {
                joins.push(begin.elapsed().as_secs_f64());
            }
            assert_eq!(member.standing(), Standing::Member, "{n}");
            poll(member);
        }
    }
    assert_eq!(owner.members().len(), MAX_MEMBERS);
    let mut late = join(5_000);
    let request = poll(&mut late).requests.remove(0);
    assert_eq!(
        owner.handle_request(&request, unix(now)),
        Err(RequestRefusal::Full)
    );

    // three members send a message, and each member shows all
    let (mut shown, mut reads) = (0, 0);
    let begin = Instant::now();
    for author in [0, 300, 998] {
        members[author].say(&[1; 200], unix(now)).unwrap();
        let key = members[author].author_key().peer_id();
        let said = poll(&mut members[author]).appends;
        for (reader, member) in members.iter_mut().enumerate().filter(|(r, _)| *r != author) {
            for (_, number, entry) in &said {
                feed(member, key, *number, entry, now);
                reads += 1;
            }
            let messages = poll(member).messages;
            assert_eq!(messages, 1, "{reader}");
            shown += messages;
        }
        for (_, number, entry) in &said {
            feed(&mut owner, key, *number, entry, now);
        }
    }
    assert_eq!(shown, 3 * 998);
    println!("a message read in {:?}", begin.elapsed() / reads);

    let begin = Instant::now();
    owner.refresh(unix(now)).unwrap();
    let made = begin.elapsed();
    let commit = poll(&mut owner).appends;
    let bytes: usize = commit
        .iter()
        .map(|(_, _, entry)| match entry {
            NewEntry::Body { body, .. } => body.len(),
            _ => 0,
        })
        .sum();
    let begin = Instant::now();
    for member in &mut members {
        for (_, number, entry) in &commit {
            feed(member, id, *number, entry, now);
        }
        assert_eq!(member.epoch(), owner.epoch());
    }
    let applied = begin.elapsed() / members.len() as u32;
    println!(
        "commit: {} entries, {bytes} bytes, made in {made:?}, applied in {applied:?}",
        commit.len()
    );
    joins.sort_by(f64::total_cmp);
    println!("join, median: {:.1} ms", joins[joins.len() / 2] * 1_000.0);
    let begin = Instant::now();
    let (of_owner, of_member) = (owner.state().unwrap(), members[500].state().unwrap());
    println!(
        "state: owner {} bytes, member {} bytes, both written in {:?}",
        of_owner.len(),
        of_member.len(),
        begin.elapsed()
    );
    let begin = Instant::now();
    let restored = Group::restore(&of_member, &[9; 32]).unwrap();
    println!("restored in {:?}", begin.elapsed());
    assert_eq!(restored.members().len(), MAX_MEMBERS);
    assert!(of_member.len() < 1_000_000);
}
