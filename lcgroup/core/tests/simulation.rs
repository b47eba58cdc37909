//! Groups on virtual time: absent members, crashes at every write, and checks that find defects.

use crate::world;

use lcgroup_core::{
    Group, GroupError, MAX_BODY, MAX_INVITATIONS, MAX_MESSAGE, MAX_MESSAGES, MAX_OUTBOX,
    MAX_PARTIAL, MAX_REQUESTS, Output, RequestRefusal, Standing, kind,
};
use librecast::id::SecretKey;
use world::{Crash, DAY, Defect, START, World, founding, handle, unix};

const HOUR: u64 = 3_600_000;

pub fn group_of(seed: u64, members: usize) -> World {
    let mut world = World::new(seed);
    let invitation = world.invite(100);
    for _ in 1..members {
        world.join(&invitation);
    }
    world.meet();
    for who in 0..members {
        assert!(
            world.is_member(who),
            "{who}: {:?}",
            world.people[who].events
        );
    }
    world
}

#[test]
fn members_join_and_all_are_shown_what_all_say() {
    let mut world = group_of(1, 5);
    for who in 0..5 {
        world
            .say(who, format!("hello of {who}").as_bytes())
            .unwrap();
    }
    world.say(2, &vec![7; MAX_MESSAGE]).unwrap();
    world.meet();
    world.check_agreement();
    let all = [0, 1, 2, 3, 4];
    world.check_shown(&all, &all);
    world.assert_faultless();
    let names: Vec<_> = world
        .group(3)
        .members()
        .into_iter()
        .map(|m| m.name)
        .collect();
    assert!(names.contains(&"member 2".to_owned()) && names.contains(&"owner".to_owned()));
}

/// 12 members on a bad day: a third is away at a time, the owner for half of it. Requests are lost,
/// one member never returns after its messages are in the log, one is removed, all crash at writes.
fn bad_day(seed: u64, defect: Defect) -> World {
    const MEMBERS: usize = 12;
    let mut world = group_of(seed, MEMBERS);
    world.defect = defect;
    world.loss = 0.5;
    let invitation = world.invite(10);
    let (dead, removed) = (4, 5);
    for step in 0..600 {
        let who = world.random.index(world.people.len());
        match world.random.below(12) {
            0 | 1 => world.people[who].online = who == 0 || world.random.chance(0.66),
            2 => world.people[0].online = world.random.chance(0.5),
            3 if step < 500 => {
                let crashes = [
                    Crash::BeforeWrite,
                    Crash::AfterWrite,
                    Crash::AfterFirstAppend,
                ];
                world.people[who].crash = Some(crashes[world.random.index(3)]);
            }
            4..=6 if world.people[who].online => {
                let length = world.random.below(3_000) as usize;
                let content = world.random.bytes(length);
                world.say(who, &content);
            }
            8 if world.people[who].online && world.random.chance(0.2) => {
                let now = world.now;
                if let Some(group) = world.people[who].group.as_mut() {
                    // fails if it has not joined yet, or was removed
                    let _ = group.refresh(unix(now));
                    world.settle(who);
                }
            }
            7 => {
                let time = world.random.below(2 * HOUR);
                world.pass(time);
            }
            _ => {}
        }
        if world.people[who].group.is_none() && who != dead && world.random.chance(0.3) {
            world.start(who);
        }
        if step == 300 {
            world.start(dead);
            world.say(dead, b"my last words");
            world.people[dead].group = None;
            world.people[dead].online = false;
        }
        if step == 350 {
            // a removal that is not on disk would have no effect
            world.people[0].crash = None;
            if world.people[0].group.is_none() {
                world.start(0);
            }
            world.remove(removed);
        }
        if step % 150 == 100 {
            world.join(&invitation);
        }
        for reader in 0..world.people.len() {
            if !world.people[reader].online || world.random.chance(0.5) {
                continue;
            }
            if reader == 0 {
                world.hear_requests();
            }
            let authors = world.authors();
            let author = authors[world.random.index(authors.len())];
            let most = world.random.below(6) as usize;
            world.feed(reader, &author, most);
        }
        if step >= 300 {
            world.people[dead].group = None;
        }
    }
    // the ended member has no disk any more
    let mut ghost = Vec::new();
    std::mem::swap(&mut ghost, &mut world.people[dead].disk);
    world.defect = match defect {
        Defect::DropsRemoval => defect,
        _ => Defect::None,
    };
    world.loss = 0.0;
    world.meet();
    // a member may still be admitted, and then messages that were sent again wait once more
    for _ in 0..3 {
        world.resend_outboxes();
        world.meet();
    }
    let now = world.now;
    if let Err(error) = world.group(0).refresh(unix(now)) {
        world.faults.push(format!("no last commit: {error}"));
    }
    world.settle(0);
    world.meet();
    world.check_agreement();
    let staying: Vec<usize> = (0..MEMBERS)
        .filter(|w| ![dead, removed].contains(w))
        .collect();
    world.check_shown(&staying, &staying);
    // a joiner in the middle is shown all later messages
    let newcomers: Vec<usize> = (MEMBERS..world.people.len()).collect();
    world.check_shown(&staying, &newcomers);
    let gone = world.people[removed].group.as_ref().map(Group::standing);
    if gone != Some(Standing::Removed) {
        world.faults.push(format!("the removed one is {gone:?}"));
    }
    world
}

/// The environment variable `SEEDS` at build time raises the number of runs.
fn seeds() -> std::ops::Range<u64> {
    let seeds = option_env!("SEEDS").and_then(|seeds| seeds.parse().ok());
    0..seeds.unwrap_or(6)
}

#[test]
fn a_bad_day_ends_with_all_members_agreeing_and_shown_everything_once() {
    let mut crashes = 0;
    for seed in seeds() {
        let world = bad_day(seed, Defect::None);
        crashes += world.people.iter().map(|p| p.crashes).sum::<usize>();
        assert_eq!(world.faults, Vec::<String>::new(), "seed {seed}");
    }
    assert!(crashes > 60, "{crashes} crashes");
}

#[test]
fn the_checks_find_a_shell_that_publishes_before_it_writes() {
    let found = (0..6).any(|seed| {
        let world = bad_day(seed, Defect::WritesLate);
        let found = |f: &String| f.contains("wrote two entries") || f.contains("RolledBack");
        world.faults.iter().any(found)
    });
    assert!(found);
}

#[test]
fn the_checks_find_heads_that_count_too_much() {
    let found = (0..2).any(|seed| {
        let mut world = group_of(seed, 4);
        world.defect = Defect::CountsTooMuch;
        world.say(1, b"x").unwrap();
        world.meet();
        world.refresh(0);
        world.meet();
        world.check_agreement();
        !world.faults.is_empty()
    });
    assert!(found);
}

#[test]
fn the_checks_find_a_removal_that_is_dropped() {
    let world = bad_day(0, Defect::DropsRemoval);
    assert!(
        world
            .faults
            .iter()
            .any(|f| f.contains("the removed one is"))
    );
}

#[test]
fn who_is_removed_opens_nothing_later() {
    let mut world = group_of(2, 4);
    world.say(1, b"before").unwrap();
    world.meet();
    // a copy of its disk from before its removal: it can follow up to that
    let copy = world.people[3].disk.clone();
    world.remove(3);
    for who in 0..3 {
        world.say(who, b"after");
    }
    world.meet();
    world.refresh(0);
    world.say(1, b"long after").unwrap();
    world.meet();
    assert_eq!(world.group(3).standing(), Standing::Removed);
    let before = world.people[3].shown.len();
    world.people[3].disk = copy;
    world.start(3);
    world.meet();
    assert_eq!(world.people[3].shown.len(), before);
    assert_eq!(
        world.people[3].group.as_ref().unwrap().standing(),
        Standing::Removed
    );
    // nor do its keys open entries in another order: it requests none
    let authors = world.authors();
    let group = world.people[3].group.as_mut().unwrap();
    for author in authors {
        assert_eq!(group.wants(&author), None);
    }
    world.check_shown(&[0, 1, 2], &[0, 1, 2]);
    world.assert_faultless();
}

#[test]
fn a_removed_member_is_told_only_if_the_owner_wants_it() {
    let mut world = group_of(2, 5);
    let time = world.time();
    // one is told, one is not, and one is away until the end
    let told = world.people[3].key;
    world.group(0).tell_of_removal(&told).unwrap();
    world.settle(0);
    let before = world.group(2).members();
    for who in [2, 3] {
        world.remove(who);
        world.meet();
    }
    let was_told = |world: &World, who: usize| world.told(who, "Removed");
    assert_eq!((was_told(&world, 2), was_told(&world, 3)), (0, 1));
    world.say(1, b"without them").unwrap();
    world.meet();
    for restarts in [false, true] {
        if restarts {
            world.start(2);
        }
        let epoch = world.group(2).epoch();
        assert_eq!(world.group(2).members(), before);
        assert!(world.group(2).is_untold() && epoch.is_some());
        // it goes on as before, and nothing of it leaves the host
        let sent = |world: &World| world.logs.get(&world.people[2].key).map_or(0, Vec::len);
        let length = sent(&world);
        world.group(2).say(b"is anybody there?", time).unwrap();
        world.group(2).refresh(time).unwrap();
        world.settle(2);
        world.pass(30 * DAY);
        world.settle(2);
        let group = world.group(2);
        assert_eq!((group.queued(), group.pending().count()), (0, 0));
        assert_eq!(sent(&world), length);
        world.meet();
        assert_eq!(world.group(2).epoch(), epoch);
        assert!(!world.people[2].shown.values().any(|c| c == b"without them"));
    }
    assert!(!world.group(3).is_untold());
    assert!(matches!(
        world.group(3).say(b"x", time),
        Err(GroupError::NotAMember)
    ));
    // one that leaves is told, whether it was a member or not
    for who in [2, 4] {
        world.group(who).leave().unwrap();
        world.settle(who);
        world.meet();
        assert!(!world.group(who).is_untold());
        assert_eq!(was_told(&world, who), 1);
    }
    world.assert_faultless();
}

#[test]
fn what_is_said_by_who_comes_back_is_sealed_after_the_owners_last_word() {
    let mut world = group_of(2, 4);
    let key = world.people[2].key;
    let length = |world: &World| world.logs.get(&key).map_or(0, Vec::len);
    world.people[2].group = None;
    // a removed member keeps its earlier state, and reads all entries that it can
    world.remove(3);
    world.start(2);
    world.group(2).fall_behind();
    let before = length(&world);
    let id = world.say(2, b"the code").unwrap();
    world.pass(DAY);
    assert_eq!(
        length(&world),
        before,
        "sealed by keys that the removed one has"
    );
    assert_eq!(world.group(2).queued(), 1);
    for author in world.authors() {
        world.feed(3, &author, usize::MAX);
    }
    // the state records it, too
    world.start(2);
    world.group(2).fall_behind();
    for author in world.authors() {
        world.feed(2, &author, usize::MAX);
    }
    assert_eq!(length(&world), before);
    let now = world.now;
    world.group(2).catch_up(unix(now));
    world.settle(2);
    assert_eq!(length(&world), before + 1);
    world.meet();
    world.check_shown(&[0, 1, 2], &[0, 1, 2]);
    assert!(!world.people[3].shown.contains_key(&(key, id)));
    world.check_agreement();
    world.assert_faultless();
}

#[test]
fn a_copy_of_a_disk_opens_nothing_after_a_refresh() {
    let mut world = group_of(3, 3);
    let copy = world.people[2].disk.clone();
    let now = world.now;
    world.refresh(2);
    world.meet();
    assert_eq!(world.told(2, "Joined"), 2, "{:?}", world.people[2].events);
    world.say(0, b"after the refresh").unwrap();
    world.say(2, b"still here").unwrap();
    world.meet();
    world.check_shown(&[0, 1, 2], &[0, 1, 2]);
    world.check_agreement();
    // the thief has the old disk, the read key, and the whole log
    let mut thief = Group::restore(&copy, &[9; 32]).unwrap();
    for _ in 0..5 {
        for author in world.authors() {
            let known = thief.wants(&author).unwrap_or(1) as usize;
            for number in known..=world.logs[&author].len() {
                handle(
                    &mut thief,
                    author,
                    number as u32,
                    &world.logs[&author][number - 1],
                    now,
                );
            }
        }
    }
    while let Some(output) = thief.poll_output() {
        let shown = format!("{output:?}");
        assert!(!shown.contains("Message"), "{shown}");
    }
    world.assert_faultless();
}

#[test]
fn an_old_copy_of_a_state_says_nothing() {
    let mut world = group_of(4, 3);
    let old = world.people[1].disk.clone();
    world.say(1, b"x").unwrap();
    world.meet();
    world.people[1].disk = old;
    world.people[1].group = None;
    // a restored disk: the log requests its newest entry from other members, and passes it on
    let mut group = Group::restore(&world.people[1].disk, &[1; 32]).unwrap();
    let key = world.people[1].key;
    let entries = &world.logs[&key];
    handle(
        &mut group,
        key,
        entries.len() as u32,
        entries.last().unwrap(),
        world.now,
    );
    assert_eq!(group.standing(), Standing::RolledBack);
    assert!(matches!(
        group.say(b"y", unix(world.now)),
        Err(GroupError::RolledBack)
    ));
    // and it stays so after a restart
    let group = Group::restore(&group.state().unwrap(), &[2; 32]).unwrap();
    assert_eq!(group.standing(), Standing::RolledBack);
}

#[test]
fn an_owner_restored_from_an_old_copy_refuses_to_commit() {
    let mut world = group_of(5, 3);
    let old = world.people[0].disk.clone();
    world.refresh(0);
    world.meet();
    world.say(1, b"in the new epoch").unwrap();
    let mut owner = Group::restore(&old, &[1; 32]).unwrap();
    // other members have the commit that it forgot
    let (id, log) = (owner.id(), &world.logs[&owner.id()]);
    handle(
        &mut owner,
        id,
        log.len() as u32,
        log.last().unwrap(),
        world.now,
    );
    assert_eq!(owner.standing(), Standing::RolledBack);
    assert!(matches!(
        owner.refresh(unix(world.now)),
        Err(GroupError::RolledBack)
    ));
}

#[test]
fn a_member_that_claims_an_epoch_that_never_was_harms_itself_only() {
    let mut world = group_of(20, 3);
    let (now, liar) = (world.now, world.people[2].key);
    let mut body = 999_u64.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 1, 7, 7, 7]);
    let entry = lcgroup_core::NewEntry::Body {
        kind: lcgroup_core::kind::MESSAGE,
        body,
    };
    let stored = world::Stored { time: now, entry };
    for who in 0..2 {
        let taken = handle(world.group(who), liar, 1, &stored, now);
        assert_eq!(taken, lcgroup_core::Taken::Wait);
    }
    world.say(1, b"we go on").unwrap();
    world.refresh(0);
    world.meet();
    world.check_shown(&[0, 1], &[0, 1]);
    world.check_agreement();
    world.assert_faultless();
}

#[test]
fn an_owner_alone_says_as_much_as_it_likes() {
    let mut world = World::new(21);
    for _ in 0..2 * MAX_OUTBOX / MAX_MESSAGE {
        world.say(0, &vec![0; MAX_MESSAGE]).unwrap();
    }
    assert!(world.group(0).state().unwrap().len() < 100_000);
}

#[test]
fn a_message_that_the_owner_did_not_count_is_said_again_and_shown_once() {
    let mut world = group_of(6, 3);
    let key = world.people[1].key;
    world.say(1, b"between two epochs").unwrap();
    // member 2 has it, but not the owner
    world.feed(2, &key, 9);
    assert_eq!(world.people[2].shown.len(), 1);
    world.refresh(0);
    world.meet();
    world.check_shown(&[0, 1, 2], &[1]);
    assert_eq!(world.logs[&key].len(), 2);
    // member 2 got both reports: void, then sent again
    assert_eq!(marks(&world, 2), ["NotCounted", "SaidAgain"]);
    assert_eq!(marks(&world, 0), [""; 0]);
    world.assert_faultless();
}

/// A participant's reports about messages that it had shown.
fn marks(world: &World, who: usize) -> Vec<&str> {
    let events = world.people[who].events.iter();
    let kinds = events.filter_map(|event| event.split(' ').next());
    kinds
        .filter(|kind| ["NotCounted", "SaidAgain"].contains(kind))
        .collect()
}

#[test]
fn who_saw_what_a_removed_member_said_too_late_is_told_that_it_does_not_count() {
    let mut world = group_of(23, 4);
    let key = world.people[3].key;
    world.say(3, b"in time").unwrap();
    world.meet();
    world.say(3, b"too late").unwrap();
    world.feed(2, &key, 9);
    assert_eq!(world.people[2].shown.len(), 2);
    world.remove(3);
    world.meet();
    assert_eq!(marks(&world, 2), ["NotCounted"]);
    assert_eq!(marks(&world, 1), [""; 0]);
    // only once: not again in the next epoch
    world.refresh(0);
    world.meet();
    assert_eq!(marks(&world, 2), ["NotCounted"]);
    world.assert_faultless();
}

/// Owner 0, authors 1 and 3, reader 2, and enough members to fill its memory for messages.
fn crowded_group(seed: u64) -> World {
    group_of(seed, 4 + MAX_PARTIAL / MAX_BODY / 90 + 1)
}

/// Feeds `reader` the first part of a long message of each further member.
fn crowd(world: &mut World, reader: usize) {
    world.now += 1;
    let (now, epoch) = (world.now, world.group(reader).epoch().unwrap());
    let mut body = epoch.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 90, 7]);
    for hostile in 4..world.people.len() {
        let (kind, body) = (lcgroup_core::kind::MESSAGE, body.clone());
        let entry = lcgroup_core::NewEntry::Body { kind, body };
        let stored = world::Stored { time: now, entry };
        let author = world.people[hostile].key;
        let taken = handle(world.group(reader), author, 1, &stored, now);
        assert_eq!(taken, lcgroup_core::Taken::Done);
    }
}

#[test]
fn members_who_never_end_their_messages_delay_others_and_no_more() {
    let mut world = crowded_group(24);
    let (one, three) = (world.people[1].key, world.people[3].key);
    world.say(3, &vec![3; MAX_MESSAGE]).unwrap();
    assert_eq!(world.feed(2, &three, 40), 40);
    crowd(&mut world, 2);
    // it was the oldest, so it was displaced and waits
    assert_eq!(world.group(2).wants(&three), Some(1));
    assert_eq!(world.feed(2, &three, 200), 0);
    // a new message has memory, and leaves it to the waiting one
    world.say(1, &vec![1; MAX_MESSAGE]).unwrap();
    world.feed(2, &one, 200);
    assert_eq!(world.people[2].shown.len(), 1);
    world.feed(2, &three, 200);
    assert_eq!(world.people[2].shown.len(), 2);
    world.assert_faultless();
}

#[test]
fn what_made_room_is_read_before_the_commit_that_counts_it() {
    let mut world = crowded_group(25);
    let (id, three) = (world.group(0).id(), world.people[3].key);
    world.say(3, &vec![3; MAX_MESSAGE]).unwrap();
    world.feed(0, &three, 200);
    world.feed(2, &three, 40);
    crowd(&mut world, 2);
    assert_eq!(world.feed(2, &three, 200), 0);
    let epoch = world.group(2).epoch();
    world.refresh(0);
    world.feed(2, &id, 200);
    assert_eq!(world.group(2).epoch(), epoch);
    world.feed(2, &three, 200);
    assert_eq!(world.people[2].shown.len(), 1);
    assert_eq!(world.group(2).epoch(), epoch.map(|epoch| epoch + 1));
    world.assert_faultless();
}

#[test]
fn an_owner_without_room_commits_within_a_day_and_the_author_says_it_again() {
    let mut world = crowded_group(26);
    let (id, three) = (world.group(0).id(), world.people[3].key);
    world.say(3, &vec![3; MAX_MESSAGE]).unwrap();
    world.feed(0, &three, 40);
    crowd(&mut world, 0);
    assert_eq!(world.feed(0, &three, 200), 0);
    world.pass(DAY);
    world.feed(3, &id, 200);
    world.feed(0, &three, 200);
    assert_eq!(world.people[0].shown.len(), 1);
    world.assert_faultless();
}

#[test]
fn what_a_waiting_commit_does_not_count_is_not_shown() {
    let mut world = group_of(22, 4);
    let (id, one, three) = (
        world.group(0).id(),
        world.people[1].key,
        world.people[3].key,
    );
    world.say(1, b"counted").unwrap();
    world.say(3, b"not here yet").unwrap();
    world.feed(0, &one, 9);
    world.feed(0, &three, 9);
    world.say(1, b"not counted").unwrap();
    world.refresh(0);
    // member 2 has the commit, but not member 3's message before it
    world.feed(2, &id, usize::MAX);
    world.feed(2, &one, 9);
    let shown: Vec<_> = world.people[2].shown.values().cloned().collect();
    assert_eq!(shown, [b"counted"]);
    // nor does it send a message in the ending epoch
    world.say(2, b"later").unwrap();
    assert!(!world.logs.contains_key(&world.people[2].key));
    world.meet();
    world.check_shown(&[0, 1, 2, 3], &[1, 2, 3]);
    world.assert_faultless();
}

#[test]
fn what_was_said_before_somebody_joined_waits_for_the_user() {
    let mut world = group_of(7, 3);
    let id = world.say(1, b"of the newcomer").unwrap();
    let invitation = world.invite(1);
    world.join(&invitation);
    // the owner does not read member 1's entry before it commits
    world.hear_requests();
    world.pass(3_000);
    world.meet();
    assert!(world.is_member(3));
    let waiting: Vec<_> = world.group(1).outbox().map(|(id, _)| id).collect();
    assert_eq!(waiting, [id]);
    assert!(world.people[3].shown.is_empty());
    world.resend_outboxes();
    world.meet();
    world.check_shown(&[0, 2, 3], &[1]);
    world.assert_faultless();
}

#[test]
fn a_member_leaves() {
    let mut world = group_of(8, 3);
    world.group(2).leave().unwrap();
    world.settle(2);
    world.meet();
    assert_eq!(world.group(2).standing(), Standing::Removed);
    assert_eq!(world.group(0).members().len(), 2);
    assert!(matches!(world.group(0).leave(), Err(GroupError::Owner)));
    world.assert_faultless();
}

#[test]
fn leaves_are_renewed_weekly_and_the_owner_commits_daily() {
    let mut world = group_of(9, 3);
    let before = world.group(0).epoch().unwrap();
    for _ in 0..28 {
        world.pass(DAY / 2);
        world.meet();
    }
    let after = world.group(0).epoch().unwrap();
    // two members, once or twice each; at once if they meet within a day
    assert!((2..=6).contains(&(after - before)), "{before} to {after}");
    for who in 1..3 {
        assert!(
            (2..=4).contains(&world.told(who, "Joined")),
            "{:?}",
            world.people[who].events
        );
    }
    world.say(1, b"after two weeks").unwrap();
    world.meet();
    world.check_agreement();
    world.check_shown(&[0, 1, 2], &[1]);
    world.assert_faultless();
}

#[test]
fn an_author_says_at_most_a_thousand_messages_in_an_epoch() {
    let mut world = group_of(10, 2);
    let epoch = world.group(1).epoch();
    for n in 0..MAX_MESSAGES + 100 {
        let now = world.now;
        world.group(1).say(&n.to_be_bytes(), unix(now)).unwrap();
    }
    world.settle(1);
    let key = world.people[1].key;
    assert_eq!(world.logs[&key].len(), MAX_MESSAGES as usize);
    world.meet();
    assert_ne!(world.group(1).epoch(), epoch);
    assert_eq!(world.people[0].shown.len(), MAX_MESSAGES as usize + 100);
    world.assert_faultless();
}

#[test]
fn bounds_hold() {
    let mut world = group_of(11, 2);
    let now = world.now;
    let group = world.group(1);
    assert!(matches!(
        group.say(&vec![0; MAX_MESSAGE + 1], unix(now)),
        Err(GroupError::TooLong)
    ));
    for _ in 0..MAX_OUTBOX / MAX_MESSAGE {
        group.say(&vec![0; MAX_MESSAGE], unix(now)).unwrap();
    }
    assert!(matches!(
        group.say(b"x", unix(now)),
        Err(GroupError::OutboxFull)
    ));
    let owner = world.group(0);
    for _ in 1..MAX_INVITATIONS {
        owner.invite(1, now + DAY, unix(now)).unwrap();
    }
    assert!(matches!(
        owner.invite(1, now + DAY, unix(now)),
        Err(GroupError::TooManyInvitations)
    ));
    // expired ones free their places
    owner.invite(1, now + 3 * DAY, unix(now + 2 * DAY)).unwrap();
    for uses in [0, 1_001] {
        assert!(matches!(
            owner.invite(uses, now + DAY, unix(now)),
            Err(GroupError::Uses)
        ));
    }
    for name in ["", "a\u{7}b", "a\u{202e}b", &"x".repeat(65)] {
        assert!(matches!(
            Group::create(founding(name, ""), &[0; 32], unix(now)),
            Err(GroupError::Name)
        ));
    }
}

/// The request that a new joiner sends at `now`.
fn request(invitation: &lcgroup_core::Invitation, seed: u8, now: u64) -> Vec<u8> {
    let mut joiner = Group::join(invitation.clone(), "x", &[seed; 32], unix(now)).unwrap();
    match joiner.poll_output() {
        Some(Output::Request(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_counted_by_author_and_refused_by_name() {
    let mut world = World::new(12);
    let invitation = world.invite(1);
    let other = World::new(13).invite(1);
    let one = request(&invitation, 1, START);
    let two = request(&invitation, 2, START);
    let unknown = request(&other, 3, START);
    let of_member = request(&other, 1, START);
    let owner = world.group(0);
    let mut forged = one.clone();
    *forged.last_mut().unwrap() ^= 1;
    let long = vec![0; 5_000];
    for (case, request, at, expected) in [
        ("forged", &forged, START, Err(RequestRefusal::NotOpened)),
        ("late", &one, START + 3 * DAY, Err(RequestRefusal::Time)),
        ("first", &one, START, Ok(())),
        ("repeated", &one, START, Ok(())),
        ("second", &two, START, Err(RequestRefusal::UsedUp)),
        (
            "unknown",
            &unknown,
            START,
            Err(RequestRefusal::UnknownInvitation),
        ),
        ("long", &long, START, Err(RequestRefusal::NotOpened)),
    ] {
        assert_eq!(owner.handle_request(request, unix(at)), expected, "{case}");
    }
    owner.handle_timeout(unix(START + 5_000));
    let members = owner.members();
    assert_eq!(members.len(), 2);
    let admitted = Err(RequestRefusal::Admitted);
    assert_eq!(owner.handle_request(&one, unix(START)), admitted);
    // of a member nobody hears that its invitation is unknown
    assert_eq!(owner.handle_request(&of_member, unix(START)), admitted);
    // nor does it bring back a removed member
    let named = members.into_iter().find(|member| member.name == "x");
    let author = named.unwrap().author;
    owner.remove(&author, unix(START + 6_000)).unwrap();
    assert_eq!(owner.handle_request(&one, unix(START)), admitted);
    let expiring = owner.invite(1, START + HOUR, unix(START)).unwrap();
    let late = request(&expiring, 4, START);
    let taken = owner.handle_request(&late, unix(START + HOUR));
    assert_eq!(taken, Err(RequestRefusal::Expired));
}

#[test]
fn a_withdrawn_invitation_makes_no_further_member_and_keeps_those_it_has_made() {
    let (mut world, at) = (World::new(14), unix(START));
    let invitation = world.invite(3);
    let [one, two] = [1, 2].map(|seed| request(&invitation, seed, START));
    let owner = world.group(0);
    assert_eq!(owner.handle_request(&one, at), Ok(()));
    let open = owner.invitations(at).unwrap();
    assert_eq!(open, [(invitation.id, invitation.expires, 2)]);
    assert!(owner.withdraw(invitation.id, at).unwrap());
    assert!(!owner.withdraw(invitation.id, at).unwrap());
    assert!(!owner.withdraw(invitation.id + 1, at).unwrap());
    let mut owner = Group::restore(&owner.state().unwrap(), &[1; 32]).unwrap();
    assert_eq!(owner.invitations(at).unwrap(), []);
    assert_eq!(owner.open_invitations(at), []);
    let refused = owner.handle_request(&two, at);
    assert_eq!(refused, Err(RequestRefusal::Withdrawn));
    // the first one was let in before
    assert_eq!(owner.handle_request(&one, at), Ok(()));
    owner.handle_timeout(unix(START + 5_000));
    assert_eq!(owner.members().len(), 2);
    let expelled = owner.expelled_from_network().now;
    assert_eq!(
        expelled.len(),
        1,
        "the key of the invitation in the network"
    );
    let mut joiner = Group::join(invitation, "x", &[3; 32], at).unwrap();
    assert!(matches!(
        joiner.invitations(at),
        Err(GroupError::NotTheOwner)
    ));
    assert!(matches!(
        joiner.withdraw(1, at),
        Err(GroupError::NotTheOwner)
    ));
}

#[test]
fn a_request_fits_into_a_packet_with_the_longest_name() {
    let mut world = World::new(14);
    let invitation = world.invite(1);
    let mut joiner = Group::join(invitation, &"x".repeat(64), &[1; 32], unix(START)).unwrap();
    let Some(Output::Request(bytes)) = joiner.poll_output() else {
        panic!("no request");
    };
    assert!((400..=700).contains(&bytes.len()), "{}", bytes.len());
}

#[test]
fn requests_that_wait_are_bounded() {
    let mut world = World::new(15);
    let invitation = world.invite(1_000);
    let owner = world.group(0);
    for n in 0..MAX_REQUESTS {
        let request = request(&invitation, n as u8, START);
        assert_eq!(owner.handle_request(&request, unix(START)), Ok(()), "{n}");
    }
    // a waiting joiner is not a new one
    let again = request(&invitation, 0, START);
    assert_eq!(owner.handle_request(&again, unix(START)), Ok(()));
    let mut seed = [3; 32];
    seed[0] = 4;
    let mut joiner = Group::join(invitation, "x", &seed, unix(START)).unwrap();
    let Some(Output::Request(bytes)) = joiner.poll_output() else {
        panic!("no request");
    };
    assert_eq!(
        owner.handle_request(&bytes, unix(START)),
        Err(RequestRefusal::Full)
    );
}

#[test]
fn a_joiner_asks_again_with_longer_pauses_until_the_invitation_expires() {
    let mut world = World::new(16);
    let now = world.now;
    let invitation = world.group(0).invite(1, now + DAY, unix(now)).unwrap();
    let mut joiner = Group::join(invitation, "x", &[1; 32], unix(now)).unwrap();
    let (mut requests, mut distinct, mut expired) = (0, std::collections::BTreeSet::new(), false);
    loop {
        while let Some(output) = joiner.poll_output() {
            match output {
                Output::Request(bytes) => {
                    requests += 1;
                    distinct.insert(bytes);
                }
                output => expired |= format!("{output:?}").contains("InvitationExpired"),
            }
        }
        let Some(due) = joiner.next_timeout() else {
            break;
        };
        joiner.handle_timeout(due);
    }
    assert!(expired);
    // a day with pauses of 7.5 to 10 minutes; the same bytes for 12 hours
    assert!((140..=210).contains(&requests), "{requests}");
    assert_eq!(distinct.len(), 2);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let world = bad_day(3, Defect::None);
        let logs: Vec<_> = world.logs.values().map(|log| log.len()).collect();
        let disks: Vec<_> = world.people.into_iter().map(|p| p.disk).collect();
        (logs, disks)
    };
    assert!(run() == run());
}

#[test]
fn who_missed_a_commit_gets_a_new_leaf_and_goes_on() {
    let mut world = group_of(17, 4);
    let id = world.group(0).id();
    for _ in 0..2 {
        world.refresh(0);
        // the log expired before member 2 returned
        let last = world.logs[&id].len() as u32;
        let now = world.now;
        world.group(2).handle_gap(&id, last - 1, unix(now));
        world.settle(2);
        world.meet();
        world.pass(HOUR);
        world.meet();
        assert!(world.is_member(2), "{:?}", world.people[2].events);
    }
    world.say(1, b"to all").unwrap();
    world.say(2, b"I am back").unwrap();
    world.meet();
    world.check_agreement();
    assert!(
        world.people[2]
            .shown
            .values()
            .any(|content| content == b"to all")
    );
    world.check_shown(&[0, 1, 3], &[1, 2]);
    assert_eq!(world.told(2, "CannotFollow"), 0);
    world.assert_faultless();
}

#[test]
fn who_cannot_open_its_welcome_asks_once_more() {
    for spoiled in [kind::TREE, kind::WELCOME] {
        let mut world = group_of(27, 2);
        let invitation = world.invite(1);
        let joiner = world.join(&invitation);
        world.defect = Defect::Spoils(spoiled);
        world.hear_requests();
        world.pass(3_000);
        let id = world.group(0).id();
        world.feed(joiner, &id, 1_000);
        assert_eq!(world.told(joiner, "Joined"), 0);
        // an unusable Welcome does not count twice
        world.start(joiner);
        world.feed(joiner, &id, 1_000);
        world.defect = Defect::None;
        world.meet();
        assert!(world.is_member(joiner), "{:?}", world.people[joiner].events);
        world.say(joiner, b"here I am").unwrap();
        world.meet();
        world.check_shown(&[0, 1], &[joiner]);
        world.check_agreement();
        world.assert_faultless();
    }
}

#[test]
fn who_cannot_open_two_welcomes_in_a_row_tells_it_and_asks_when_its_user_says_so() {
    let mut world = group_of(28, 3);
    let key = world.people[2].key;
    world.defect = Defect::Spoils(kind::TREE);
    world.refresh(2);
    // less than the week after which the other members request new leaves
    for _ in 0..3 {
        world.meet();
        world.pass(DAY);
    }
    assert_eq!(world.told(2, "CannotFollow"), 1);
    assert_eq!(world.logs[&key].len(), 2);
    // nor does it request one after a restart
    world.start(2);
    world.meet();
    world.pass(DAY);
    assert_eq!(world.logs[&key].len(), 2);
    world.say(1, b"without number 2").unwrap();
    world.meet();
    world.check_shown(&[0], &[1]);
    assert_eq!(std::mem::take(&mut world.faults), ["2: CannotFollow"]);
    world.defect = Defect::None;
    world.refresh(2);
    world.meet();
    world.pass(DAY);
    world.meet();
    assert!(world.is_member(2), "{:?}", world.people[2].events);
    world.say(1, b"with number 2").unwrap();
    world.say(2, b"I follow").unwrap();
    world.meet();
    world.check_shown(&[0, 1], &[2]);
    assert!(
        world.people[2]
            .shown
            .values()
            .any(|c| c == b"with number 2")
    );
    world.check_agreement();
    world.assert_faultless();
}

#[test]
fn a_commit_that_cannot_be_applied_and_a_welcome_that_does_not_open_are_two_in_a_row() {
    let mut world = group_of(29, 3);
    world.defect = Defect::Spoils(kind::COMMIT);
    world.refresh(0);
    let id = world.group(0).id();
    world.feed(2, &id, 1_000);
    assert_eq!(world.told(2, "CannotFollow"), 0);
    world.defect = Defect::Spoils(kind::WELCOME);
    let key = world.people[2].key;
    world.feed(0, &key, 9);
    world.pass(3_000);
    world.feed(2, &id, 1_000);
    assert_eq!(world.faults, ["2: CannotFollow"]);
}

#[test]
fn a_welcome_for_a_key_package_of_before_is_passed_over() {
    let mut world = group_of(30, 3);
    let (id, key) = (world.group(0).id(), world.people[2].key);
    world.refresh(2);
    // it cannot apply a commit, and requests again; the owner receives both requests in turn
    world.defect = Defect::Spoils(kind::COMMIT);
    world.refresh(0);
    world.defect = Defect::None;
    world.feed(2, &id, 1_000);
    assert_eq!(world.logs[&key].len(), 2);
    assert_eq!(world.feed(0, &key, 1), 1);
    world.pass(3_000);
    world.feed(2, &id, 1_000);
    assert_eq!(world.told(2, "Joined"), 1);
    assert_eq!(world.logs[&key].len(), 2);
    // the second request is no longer urgent
    world.feed(0, &key, 1);
    world.pass(DAY);
    world.feed(2, &id, 1_000);
    assert!(world.is_member(2), "{:?}", world.people[2].events);
    assert_eq!(world.logs[&key].len(), 2);
    world.assert_faultless();
}

#[test]
fn who_missed_its_welcome_asks_again_and_is_not_removed() {
    let mut world = group_of(31, 3);
    let (id, key) = (world.group(0).id(), world.people[2].key);
    let now = world.now;
    world.refresh(2);
    world.feed(0, &key, 9);
    let before = world.logs[&id].len();
    world.pass(3_000);
    // all parts of the commit, and no other entry
    while world.is_member(2) && world.feed(2, &id, 1) > 0 {}
    let rejoining = world.group(2).standing();
    assert!(matches!(rejoining, Standing::Rejoining { until: Some(_) }));
    // the log expired before it read further
    let last = world.logs[&id].len();
    assert!(last > before + 1);
    world.group(2).handle_gap(&id, last as u32, unix(now));
    world.settle(2);
    world.pass(HOUR);
    world.meet();
    assert!(world.is_member(2), "{:?}", world.people[2].events);
    world.check_agreement();
    world.assert_faultless();
}

#[test]
fn entries_of_others_and_out_of_turn_are_dropped_by_name() {
    use lcgroup_core::{DropReason, Entry, Taken, kind};
    let mut world = group_of(18, 2);
    let (now, owner, group) = (world.now, world.people[0].key, world.group(1));
    let mut take = |author, number, kind, body: &[u8]| {
        let time = now;
        let entry = Entry {
            author,
            number,
            time,
            kind,
            body,
        };
        group.handle_entry(&entry, unix(now))
    };
    let dropped = Taken::Dropped;
    let stranger = SecretKey::from_seed(&[99; 32]).peer_id();
    let part = |epoch: u64, part: u16, parts: u16| {
        let mut body = epoch.to_be_bytes().to_vec();
        body.extend([part.to_be_bytes(), parts.to_be_bytes()].concat());
        body.extend([0; 50]);
        body
    };
    for (author, number, body, expected) in [
        (
            stranger,
            1,
            part(1, 0, 1),
            dropped(DropReason::UnknownAuthor),
        ),
        // the author may be new in an epoch that this member does not know
        (stranger, 1, part(2, 0, 1), Taken::Wait),
        (owner, 2, part(1, 0, 1), dropped(DropReason::NotNext)),
        (owner, 1, part(2, 0, 1), Taken::Wait),
        (owner, 1, part(1, 0, 1), dropped(DropReason::NotOpened)),
        (owner, 2, part(1, 1, 2), dropped(DropReason::Broken)),
        (owner, 3, part(0, 0, 1), dropped(DropReason::Void)),
        (owner, 4, part(1, 3, 2), dropped(DropReason::Malformed)),
        (owner, 5, part(1, 0, 91), dropped(DropReason::Malformed)),
        (owner, 6, b"short".to_vec(), dropped(DropReason::Malformed)),
    ] {
        let taken = take(author, number, kind::MESSAGE, &body);
        assert_eq!(taken, expected, "{number}: {body:?}");
    }
    assert_eq!(take(owner, 7, 200, b"of another program"), Taken::Done);
}

#[test]
fn a_state_comes_back_and_a_damaged_one_is_refused() {
    let mut world = group_of(19, 3);
    world.say(1, b"not confirmed").unwrap();
    for who in 0..3 {
        let state = world.group(who).state().unwrap();
        let group = Group::restore(&state, &[1; 32]).unwrap();
        assert_eq!(*group.state().unwrap(), *state);
        assert_eq!(
            *group.export("x", b"").unwrap(),
            *world.group(who).export("x", b"").unwrap()
        );
        for length in (0..state.len()).step_by(7) {
            assert!(
                Group::restore(&state[..length], &[1; 32]).is_err(),
                "{length}"
            );
        }
        let longer = [&state[..], &[0]].concat();
        assert!(Group::restore(&longer, &[1; 32]).is_err());
        let mut later = state.to_vec();
        later[0] = 2;
        assert!(Group::restore(&later, &[1; 32]).is_err());
        for at in (0..state.len()).step_by(3) {
            let mut damaged = state.to_vec();
            damaged[at] ^= 0x81;
            // some fields accept any value, but none may cause a panic
            let _ = Group::restore(&damaged, &[1; 32]);
        }
    }
}

/// Lets weeks pass in which the members of `present` ask for new leaves, as each does in a week.
fn weeks(world: &mut World, number: u64, present: &[usize]) {
    for _ in 0..number {
        world.pass(7 * DAY);
        for _ in 0..3 {
            for who in present {
                for author in world.authors() {
                    world.feed(*who, &author, usize::MAX);
                }
            }
            world.pass(DAY);
        }
    }
}

#[test]
fn the_owners_log_is_cut_behind_what_all_have_and_newcomers_and_members_go_on() {
    let mut world = group_of(31, 4);
    world.remove(3);
    weeks(&mut world, 60, &[0, 1, 2]);
    let id = world.group(0).id();
    let (first, length) = (world.first, world.logs[&id].len() as u32);
    assert!(
        first > length / 2 && length - first < 200,
        "{first} of {length}"
    );
    // restarts change nothing
    for who in 0..3 {
        world.people[who].group = None;
        world.start(who);
    }
    let invitation = world.invite(1);
    let newcomer = world.join(&invitation);
    world.meet();
    assert!(world.is_member(newcomer));
    for who in [0, 1, 2, newcomer] {
        world.say(who, b"hello").unwrap();
    }
    world.meet();
    world.check_agreement();
    let all = [0, 1, 2, newcomer];
    world.check_shown(&all, &all);
    world.assert_faultless();
}

#[test]
fn who_is_away_keeps_the_commits_that_it_needs() {
    let mut world = group_of(32, 4);
    world.say(2, b"good bye").unwrap();
    world.meet();
    world.people[2].group = None;
    let before = world.first;
    weeks(&mut world, 58, &[0, 1, 3]);
    world.say(1, b"meanwhile").unwrap();
    assert!(world.first - before < 100, "{}", world.first);
    world.meet();
    world.check_agreement();
    world.check_shown(&[0, 1, 2, 3], &[0, 1, 2, 3]);
    let lost = |event: &&String| event.contains("Dropped") || event.contains("Follow");
    assert_eq!(world.people[2].events.iter().filter(lost).count(), 0);
    // the member speaks again: the log is cut
    world.say(2, b"I am back").unwrap();
    weeks(&mut world, 3, &[0, 1, 2, 3]);
    assert!(world.first > before + 100, "{}", world.first);
    world.assert_faultless();
}

/// Seconds: 12,288 entries of the owner.
#[test]
#[ignore = "long: `make test-all`"]
fn who_is_away_beyond_the_bound_gets_new_keys_without_an_invitation() {
    let mut world = group_of(33, 3);
    world.say(2, b"good bye").unwrap();
    world.meet();
    world.people[2].group = None;
    let mut dropped = false;
    for _ in 0..13_000 {
        world.refresh(0);
        let mut last = world.people[0].events.iter().rev().take(3);
        dropped = last.any(|event| event.starts_with("KeysDropped"));
        if dropped {
            break;
        }
        world.now += 60_000;
    }
    assert!(dropped);
    world.meet();
    assert!(world.is_member(2), "{:?}", world.people[2].events);
    world.say(2, b"I am back").unwrap();
    world.say(0, b"welcome").unwrap();
    world.meet();
    world.check_agreement();
    world.check_shown(&[0, 1, 2], &[0, 2]);
    world.assert_faultless();
}

#[test]
fn only_newcomers_open_what_was_said_before_and_only_the_owner_gives_it() {
    let mut world = group_of(34, 4);
    let content: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let newcomers = [world.people[2].key, world.people[3].key];
    let given = world.group(1).give_history(&newcomers, b"lie");
    assert!(matches!(given, Err(GroupError::NotTheOwner)));
    let too_long = vec![0; lcgroup_core::MAX_HISTORY + 1];
    let given = world.group(0).give_history(&newcomers, &too_long);
    assert!(matches!(given, Err(GroupError::TooLong)));
    world.group(0).give_history(&newcomers, &content).unwrap();
    world.settle(0);
    let shown = |world: &World, who: usize| -> usize {
        let events = world.people[who].events.iter();
        let given = events.filter(|event| *event == "History { 300000 bytes }");
        given.count()
    };
    // a member that has the same entries in its own log is not read
    let (owner, liar) = (world.people[0].key, world.people[1].key);
    assert!(world.logs[&owner].len() > 300);
    let entries = world.logs[&owner].iter().map(|stored| stored.entry.clone());
    let entries: Vec<_> = entries.collect();
    let time = world.now;
    for (number, entry) in (1..).zip(entries) {
        let stored = world::Stored { time, entry };
        handle(world.group(3), liar, number, &stored, time);
        world.settle(3);
    }
    assert_eq!(shown(&world, 3), 0);
    // half of it, then a restart
    world.feed(2, &owner, 150);
    world.people[2].group = None;
    world.start(2);
    for who in [2, 3, 1] {
        world.feed(who, &owner, usize::MAX);
    }
    assert_eq!([1, 2, 3].map(|who| shown(&world, who)), [0, 1, 1]);
    world.assert_faultless();
}
