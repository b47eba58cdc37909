//! Several devices of one person, on virtual time.

use lcgroup_core::{
    DeviceInvitation, Group, GroupError, Invitation, LONGEST_DEVICE_LIFE, MAX_DEVICES,
    RequestRefusal, Standing, kind,
};

use crate::simulation::group_of;
use crate::world::{DAY, START, World};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn text(world: &mut World, of: usize) -> DeviceInvitation {
    let time = world.time();
    let text = world.group(of).invite_device(time.as_millis() + HOUR, time);
    let text = text.unwrap().encode();
    assert!(
        text.starts_with("lcd1") && text.len() <= 640,
        "{}",
        text.len()
    );
    text.parse().unwrap()
}

/// Starts a device by this text; it asks to join.
fn start(world: &mut World, text: &DeviceInvitation, label: &str) -> usize {
    let mut seed = [0xd0; 32];
    seed[0] = world.people.len() as u8;
    let group = Group::join_device(text.clone(), label, &seed, world.time()).unwrap();
    world.enter(group)
}

fn add(world: &mut World, of: usize, label: &str) -> usize {
    let text = text(world, of);
    let device = start(world, &text, label);
    world.meet();
    assert!(world.is_member(device), "{:?}", world.people[device].events);
    device
}

/// The devices of a person, as this member sees them.
fn devices(world: &mut World, seen_by: usize, of: usize) -> Vec<usize> {
    let keys: Vec<_> = world.people.iter().map(|person| person.key).collect();
    let group = world.group(seen_by);
    let person = group.person_of(&keys[of]);
    let devices = group.devices_of(&person).into_iter();
    devices
        .map(|device| keys.iter().position(|key| *key == device).unwrap())
        .collect()
}

fn refusals(world: &World, reason: RequestRefusal) -> usize {
    let told = reason.to_string();
    let events = world.people[0].events.iter();
    events.filter(|event| event.contains(&told)).count()
}

#[test]
fn two_devices_are_one_person_for_all_who_are_there_and_who_come_later() {
    let mut world = group_of(1, 3);
    let laptop = add(&mut world, 1, "laptop");
    let invitation = world.invite(1);
    let late = world.join(&invitation);
    world.meet();
    for seen_by in [0, 1, 2, laptop, late] {
        assert_eq!(devices(&mut world, seen_by, laptop), [1, laptop]);
        assert_eq!(devices(&mut world, seen_by, 2), [2]);
    }
    let members = world.group(late).members();
    assert_eq!(members.len(), 5);
    // it has its person's name
    let named = members.iter().filter(|member| member.name == "member 1");
    assert_eq!(named.count(), 2);
    for who in [0, 1, 2, laptop, late] {
        world.say(who, format!("by {who}").as_bytes()).unwrap();
    }
    // over restarts and new epochs
    for who in 0..world.people.len() {
        world.people[who].group = None;
        world.start(who);
    }
    for _ in 0..15 {
        world.pass(DAY);
        world.meet();
    }
    for seen_by in [0, 1, 2, laptop, late] {
        assert_eq!(devices(&mut world, seen_by, 1), [1, laptop]);
    }
    world.check_agreement();
    let all = [0, 1, 2, laptop, late];
    world.check_shown(&all, &all);
    world.assert_faultless();
}

#[test]
fn a_label_is_for_the_persons_devices_alone() {
    let mut world = group_of(2, 3);
    let laptop = add(&mut world, 1, "café laptop");
    let key = world.people[laptop].key;
    let label = |world: &mut World, who| world.group(who).label_of(&key);
    for who in [1, laptop] {
        assert_eq!(label(&mut world, who).as_deref(), Some("café laptop"));
    }
    for who in [0, 2] {
        assert_eq!(label(&mut world, who), None);
    }
    for log in world.logs.values() {
        for stored in log {
            if let lcgroup_core::NewEntry::Body { body, .. } = &stored.entry {
                assert!(!body.windows(6).any(|bytes| bytes == b"laptop"));
            }
        }
    }
}

#[test]
fn a_lost_device_is_removed_from_another_one_and_reads_nothing_later() {
    let mut world = group_of(3, 3);
    let laptop = add(&mut world, 1, "laptop");
    world.say(laptop, b"before").unwrap();
    world.meet();
    let (key, bob, time) = (world.people[laptop].key, world.people[2].key, world.time());
    for (who, other) in [(1, bob), (2, key)] {
        let refused = world.group(who).remove_device(&other, time);
        assert!(matches!(refused, Err(GroupError::UnknownDevice)));
    }
    world.group(1).remove_device(&key, time).unwrap();
    world.settle(1);
    world.meet();
    assert_eq!(world.group(laptop).standing(), Standing::Removed);
    let later = world.say(2, b"later").unwrap();
    world.meet();
    assert!(!world.people[laptop].shown.contains_key(&(bob, later)));
    assert!(world.people[1].shown.contains_key(&(bob, later)));
    for seen_by in [0, 1, 2] {
        assert_eq!(devices(&mut world, seen_by, 1), [1]);
    }
    // its texts admit nobody any more
    assert!(
        world
            .group(laptop)
            .invite_device(time.as_millis() + HOUR, time)
            .is_err()
    );
    world.check_agreement();
    world.assert_faultless();
}

#[test]
fn a_lost_first_device_is_removed_by_the_second_which_stays_the_same_person() {
    let mut world = group_of(4, 3);
    let laptop = add(&mut world, 1, "laptop");
    let (first, time) = (world.people[1].key, world.time());
    world.group(laptop).remove_device(&first, time).unwrap();
    world.settle(laptop);
    world.meet();
    assert_eq!(world.group(1).standing(), Standing::Removed);
    // and adds another one
    let telephone = add(&mut world, laptop, "telephone");
    let key = world.people[telephone].key;
    for seen_by in [0, 2, laptop, telephone] {
        assert_eq!(world.group(seen_by).devices_of(&first).len(), 2);
        assert_eq!(world.group(seen_by).person_of(&key), first);
    }
    world.say(telephone, b"still I").unwrap();
    world.meet();
    world.check_shown(&[0, 2, laptop], &[telephone]);
    world.assert_faultless();
}

#[test]
fn the_owner_removes_a_member_with_all_its_devices_in_one_commit() {
    let mut world = group_of(5, 3);
    let more: Vec<usize> = (0..3)
        .map(|n| add(&mut world, 1, &format!("device {n}")))
        .collect();
    let text = text(&mut world, more[0]);
    let (epoch, time) = (world.group(0).epoch().unwrap(), world.time());
    let laptop = world.people[more[1]].key;
    world.group(0).remove_person(&laptop, time).unwrap();
    world.settle(0);
    assert_eq!(world.group(0).epoch(), Some(epoch + 1));
    // a text that was not used yet is worth nothing
    start(&mut world, &text, "too late");
    world.meet();
    for device in [1, more[0], more[1], more[2]] {
        assert_eq!(world.group(device).standing(), Standing::Removed);
    }
    assert_eq!(world.group(2).members().len(), 2);
    assert!(refusals(&world, RequestRefusal::UnknownInvitation) > 0);
    let owner = world.people[0].key;
    let refused = world.group(0).remove_person(&owner, time);
    assert!(matches!(refused, Err(GroupError::Owner)));
    let refused = world.group(2).remove_person(&owner, time);
    assert!(matches!(refused, Err(GroupError::NotTheOwner)));
    world.check_agreement();
    world.assert_faultless();
}

#[test]
fn the_owner_has_devices_too_and_they_neither_commit_nor_remove_it() {
    let mut world = group_of(6, 2);
    let laptop = add(&mut world, 0, "laptop");
    assert_eq!(devices(&mut world, 1, laptop), [0, laptop]);
    let (owner, bob, time) = (world.people[0].key, world.people[1].key, world.time());
    let group = world.group(laptop);
    assert!(matches!(
        group.remove(&bob, time),
        Err(GroupError::NotTheOwner)
    ));
    assert!(matches!(
        group.remove_device(&owner, time),
        Err(GroupError::Owner)
    ));
    let key = world.people[laptop].key;
    world.group(0).remove_device(&key, time).unwrap();
    world.settle(0);
    world.meet();
    assert_eq!(world.group(laptop).standing(), Standing::Removed);
    world.assert_faultless();
}

#[test]
fn a_text_is_good_for_one_device_for_a_time_and_a_person_has_eight() {
    let mut world = group_of(7, 3);
    let time = world.time();
    let too_long = world
        .group(1)
        .invite_device(START + 2 * LONGEST_DEVICE_LIFE, time);
    assert!(matches!(too_long, Err(GroupError::DeviceLife)));
    let past = world.group(1).invite_device(time.as_millis(), time);
    assert!(matches!(past, Err(GroupError::Expired)));
    // an owner that is restored knows used texts
    let text_ = text(&mut world, 1);
    let one = start(&mut world, &text_, "one");
    world.meet();
    world.people[0].group = None;
    world.start(0);
    let two = start(&mut world, &text_, "two");
    world.meet();
    assert!(world.is_member(one) && !world.is_member(two));
    assert!(refusals(&world, RequestRefusal::UsedUp) > 0);
    let late = text(&mut world, 1);
    let late = {
        let device = start(&mut world, &late, "late");
        // its request does not arrive in time
        world.requests.pop();
        world.pass(2 * HOUR);
        device
    };
    world.meet();
    assert!(!world.is_member(late));
    let spare = [text(&mut world, 1), text(&mut world, one)];
    for n in 2..MAX_DEVICES {
        add(
            &mut world,
            if n % 2 == 0 { 1 } else { one },
            &format!("device {n}"),
        );
    }
    let time = world.time();
    for who in [1, one] {
        let refused = world
            .group(who)
            .invite_device(time.as_millis() + HOUR, time);
        assert!(matches!(refused, Err(GroupError::TooManyDevices)));
    }
    for text in spare {
        let device = start(&mut world, &text, "one too many");
        world.meet();
        assert!(!world.is_member(device));
    }
    assert!(refusals(&world, RequestRefusal::Devices) > 0);
    assert_eq!(devices(&mut world, 2, 1).len(), MAX_DEVICES);
    world.assert_faultless();
}

#[test]
fn a_person_that_changes_its_devices_all_the_time_costs_a_few_commits_and_then_one_an_hour() {
    let mut world = group_of(8, 2);
    let (epoch, mut added) = (world.group(0).epoch().unwrap(), 0);
    let until = world.now + 6 * HOUR;
    while world.now < until && added < 40 {
        let text = text(&mut world, 1);
        let device = start(&mut world, &text, "x");
        world.meet();
        if world.is_member(device) {
            added += 1;
            let (key, time) = (world.people[device].key, world.time());
            world.group(1).remove_device(&key, time).unwrap();
            world.settle(1);
        } else {
            world.people[device].group = None;
            world.people[device].disk.clear();
            world.requests.clear();
            world.pass(10 * MINUTE);
        }
        world.meet();
    }
    assert!(
        (MAX_DEVICES + 4..=MAX_DEVICES + 7).contains(&added),
        "{added}"
    );
    let commits = world.group(0).epoch().unwrap() - epoch;
    assert!(commits <= 2 * added as u64, "{commits}");
}

#[test]
fn words_that_were_on_their_way_wait_for_no_user_when_a_member_adds_a_device() {
    let mut world = group_of(9, 3);
    let text_ = text(&mut world, 1);
    let device = start(&mut world, &text_, "laptop");
    world.hear_requests();
    // these come too late for the commit
    for who in [1, 2] {
        world.say(who, b"on its way").unwrap();
    }
    world.pass(3_000);
    world.meet();
    assert!(world.is_member(device));
    for who in [1, 2] {
        assert_eq!(world.group(who).outbox().count(), 0);
    }
    world.check_shown(&[0, 1, 2, device], &[1, 2]);
    // a stranger that joins is another matter
    let invitation = world.invite(1);
    world.join(&invitation);
    world.hear_requests();
    world.say(2, b"not for all").unwrap();
    world.pass(3_000);
    world.meet();
    assert_eq!(world.group(2).outbox().count(), 1);
    world.assert_faultless();
}

#[test]
fn what_was_read_on_one_device_is_read_on_the_other_and_nobody_else_learns_it() {
    let mut world = group_of(10, 4);
    let laptop = add(&mut world, 1, "laptop");
    let keys: Vec<_> = world.people.iter().map(|person| person.key).collect();
    for _ in 0..3 {
        world.say(2, b"news").unwrap();
    }
    world.meet();
    let time = world.time();
    assert!(world.group(1).mark_read(&keys[2], 2, time));
    assert!(!world.group(1).mark_read(&keys[2], 1, time));
    assert!(
        !world.group(1).mark_read(&keys[1], 9, time),
        "not of itself"
    );
    // it waits for more that is read
    world.settle(1);
    let marks = |world: &World, who: usize| -> usize {
        let log = world.logs.get(&keys[who]).into_iter().flatten();
        let is_mark = |entry: &lcgroup_core::NewEntry| matches!(entry, lcgroup_core::NewEntry::Body { kind, .. } if *kind == kind::READ);
        log.filter(|stored| is_mark(&stored.entry)).count()
    };
    assert_eq!(marks(&world, 1), 0);
    world.meet();
    world.pass(5_000);
    world.meet();
    assert_eq!(marks(&world, 1), 1);
    let read = |world: &mut World, who| world.group(who).read_up_to(&keys[2]);
    let all: Vec<u32> = (0..5).map(|who| read(&mut world, who)).collect();
    assert_eq!(all, [0, 2, 0, 0, 2]);
    assert!(
        world.people[laptop]
            .events
            .contains(&"ReadElsewhere".to_owned())
    );
    // the other way round, after a restart of both
    let time = world.time();
    world.group(laptop).mark_read(&keys[2], 3, time);
    world.settle(laptop);
    for who in [1, laptop] {
        world.people[who].group = None;
        world.start(who);
    }
    world.pass(5_000);
    world.meet();
    assert_eq!([1, 3, laptop].map(|who| read(&mut world, who)), [3, 0, 3]);
    // who has one device sends nothing
    let time = world.time();
    world.group(3).mark_read(&keys[2], 3, time);
    world.settle(3);
    world.pass(HOUR);
    assert_eq!(marks(&world, 3), 0);
    world.assert_faultless();
}

#[test]
fn a_person_that_reads_all_day_fills_few_places_of_the_log() {
    let mut world = group_of(11, 3);
    add(&mut world, 1, "laptop");
    let keys: Vec<_> = world.people.iter().map(|person| person.key).collect();
    world.say(1, b"so that it has a log").unwrap();
    let before = world.logs[&keys[1]].len();
    for n in 1..=24 * 60 {
        let time = world.time();
        world.group(1).mark_read(&keys[2], n, time);
        world.settle(1);
        world.pass(MINUTE);
    }
    let entries = world.logs[&keys[1]].len() - before;
    assert!((90..=102).contains(&entries), "{entries}");
}

#[test]
fn a_device_gets_what_was_said_before_from_its_person_and_from_nobody_else() {
    let mut world = group_of(12, 3);
    let laptop = add(&mut world, 1, "laptop");
    let key = world.people[laptop].key;
    let given = world.group(2).give_history(&[key], b"lies");
    assert!(matches!(given, Err(GroupError::NotTheOwner)));
    world
        .group(1)
        .give_history(&[key], b"what was said")
        .unwrap();
    world.settle(1);
    world.meet();
    let all = [0, 1, 2, laptop].map(|who| world.told(who, "History"));
    assert_eq!(all, [0, 0, 0, 1]);
    world.assert_faultless();
}

#[test]
fn damaged_texts_are_refused_and_a_text_is_no_invitation() {
    let mut world = group_of(13, 2);
    let text = text(&mut world, 1).encode();
    assert!(text.parse::<Invitation>().is_err());
    for at in 4..text.len() {
        let mut wrong = text.as_bytes().to_vec();
        wrong[at] = if wrong[at] == b'2' { b'3' } else { b'2' };
        let wrong = String::from_utf8(wrong).unwrap();
        assert!(wrong.parse::<DeviceInvitation>().is_err());
    }
    let invitation = world.invite(1).encode();
    assert!(invitation.parse::<DeviceInvitation>().is_err());
    let shown = format!("{:?}", text.parse::<DeviceInvitation>().unwrap());
    assert!(shown.len() < 160, "{shown}");
    let parsed: DeviceInvitation = text.parse().unwrap();
    for label in ["", "a\nb", &"x".repeat(33)] {
        let refused = Group::join_device(parsed.clone(), label, &[1; 32], world.time());
        assert!(matches!(refused, Err(GroupError::Label)), "{label:?}");
    }
}
