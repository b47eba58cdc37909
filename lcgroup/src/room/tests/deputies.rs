//! An owner that is lost, and one that was away, with logs and packets.

use super::*;
use crate::held::Held;

const AFTER: u64 = 60;
const MINUTE: Duration = Duration::from_secs(60);

impl Lan {
    fn deputy(&mut self, who: &str) {
        let time = self.time();
        self.room(0).add_deputy(who, AFTER, time).unwrap();
        self.run(Duration::from_secs(10));
    }

    fn is_in_office(&mut self, who: usize) -> bool {
        self.room(who).group.is_in_office()
    }

    fn agree(&mut self, all: &[usize]) {
        let views = all.iter().map(|who| {
            let room = self.rooms[*who].as_ref().unwrap();
            let secret = *room.group.export("test", b"").unwrap();
            (room.group.epoch(), secret, room.group.in_office())
        });
        let views: Vec<_> = views.collect();
        assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "{views:?}");
    }
}

#[test]
fn a_deputy_goes_on_without_the_owner_and_a_newcomer_learns_all_from_others() {
    let mut lan = Lan::new(&["ann", "bob", "cy", "dora", "eve"], None);
    lan.deputy("bob");
    lan.say(0, "before");
    lan.run(Duration::from_secs(5));
    lan.stop(0);
    std::fs::remove_dir_all(lan.folder_of(0)).unwrap();
    lan.run(MINUTE - Duration::from_secs(20));
    assert!(!lan.is_in_office(1));
    lan.run(Duration::from_secs(40));
    assert!(lan.is_in_office(1), "{:?}", lan.room(1).notices);
    lan.remove("dora", 1);
    lan.run(Duration::from_secs(10));
    assert_eq!(lan.room(3).group.standing(), Standing::Removed);
    // cy was away meanwhile
    lan.stop(2);
    lan.add("fay", 1);
    lan.run(Duration::from_secs(20));
    assert!(lan.room(5).is_member(), "{:?}", lan.room(5).waits());
    lan.start(2);
    lan.run(Duration::from_secs(20));
    lan.agree(&[1, 2, 4, 5]);
    for who in [1, 2, 4, 5] {
        let words = format!("words of {who}");
        lan.say(who, &words);
        lan.run(Duration::from_secs(5));
        for reader in [1, 2, 4, 5] {
            assert!(lan.said(reader).contains(&words), "{reader}: {words}");
        }
    }
    // after a restart of all, a newcomer has the authors that the deputy let in
    for who in [1, 2, 4, 5] {
        lan.restart(who);
    }
    lan.run(Duration::from_secs(20));
    assert!(lan.is_in_office(1));
    lan.add("gil", 1);
    lan.run(Duration::from_secs(20));
    lan.say(5, "welcome");
    lan.run(Duration::from_secs(5));
    assert!(lan.said(6).contains(&"welcome".to_owned()));
    lan.agree(&[1, 2, 4, 5, 6]);
}

#[test]
fn an_owner_that_was_away_is_a_member_until_the_deputy_is_none_any_more() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    lan.deputy("bob");
    lan.stop(0);
    lan.run(2 * MINUTE);
    assert!(lan.is_in_office(1));
    lan.add("dora", 1);
    lan.run(Duration::from_secs(20));
    lan.start(0);
    lan.run(Duration::from_secs(20));
    assert!(!lan.is_in_office(0) && lan.is_in_office(1));
    lan.agree(&[0, 1, 2, 3]);
    lan.say(0, "back");
    lan.run(Duration::from_secs(5));
    assert!(lan.said(3).contains(&"back".to_owned()));
    let time = lan.time();
    lan.room(0).remove_deputy("bob", time).unwrap();
    lan.run(Duration::from_secs(20));
    assert!(lan.is_in_office(0) && !lan.is_in_office(1));
    lan.remove("cy", 0);
    lan.run(Duration::from_secs(10));
    assert_eq!(lan.room(2).group.standing(), Standing::Removed);
    lan.agree(&[0, 1, 3]);
}

#[test]
fn a_member_that_was_away_for_long_follows_a_deputy_and_gives_up_what_expired() {
    let mut lan = Lan::new(&["ann", "bob", "cy", "dora", "eve"], None);
    lan.deputy("bob");
    lan.stop(0);
    std::fs::remove_dir_all(lan.folder_of(0)).unwrap();
    lan.run(2 * MINUTE);
    assert!(lan.is_in_office(1));
    lan.stop(2);
    // commits in the deputy's office count it, and it expires
    lan.say(3, "for good");
    lan.run(Duration::from_secs(10));
    lan.stop(3);
    for day in 0..40 {
        lan.say([1, 4][day % 2], &format!("day {day}"));
        lan.run(Duration::from_secs(10));
        lan.now += DAY - Duration::from_secs(10);
    }
    lan.run(Duration::from_secs(10));
    lan.start(2);
    lan.run(Duration::from_secs(20));
    let waits = lan.room(2).waits().unwrap();
    assert!(waits.contains("the time that this group keeps"), "{waits}");
    lan.run(Duration::from_secs(600));
    assert_eq!(lan.room(2).waits(), None);
    assert!(lan.room(2).is_member());
    lan.agree(&[1, 2, 4]);
    let said = lan.said(2);
    assert!(said.contains(&"day 39".to_owned()) && !said.contains(&"for good".to_owned()));
    lan.say(2, "I am back");
    lan.run(Duration::from_secs(10));
    assert!(lan.said(4).contains(&"I am back".to_owned()));
}

#[test]
fn an_owner_that_hands_over_is_followed_at_once_and_over_restarts() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    lan.deputy("bob");
    let time = lan.time();
    for (who, to) in [(0, "cy"), (1, "ann")] {
        assert!(lan.room(who).hand_over(to, time).is_err(), "{who} to {to}");
    }
    lan.room(0).hand_over("bob", time).unwrap();
    lan.run(Duration::from_secs(5));
    assert!(lan.is_in_office(1) && !lan.is_in_office(0));
    lan.agree(&[0, 1, 2]);
    for who in 0..3 {
        lan.restart(who);
    }
    lan.run(Duration::from_secs(20));
    lan.add("dora", 1);
    lan.run(Duration::from_secs(20));
    let time = lan.time();
    lan.room(1).hand_over("ann", time).unwrap();
    lan.run(Duration::from_secs(5));
    assert!(lan.is_in_office(0) && !lan.is_in_office(1));
    lan.say(3, "hello");
    lan.run(MINUTE);
    lan.agree(&[0, 1, 2, 3]);
    for reader in 0..4 {
        assert!(lan.said(reader).contains(&"hello".to_owned()), "{reader}");
    }
}

#[test]
fn two_sides_that_both_changed_the_group_end_as_one_and_words_wait_in_the_outbox() {
    let mut lan = Lan::new(&["ann", "bob", "cy", "dora", "eve"], None);
    lan.deputy("bob");
    lan.apart = vec![1, 3];
    lan.run(2 * MINUTE);
    assert!(lan.is_in_office(0) && lan.is_in_office(1));
    // each removes one that is on the other side, and bob lets somebody in
    let time = lan.time();
    lan.room(0).remove("eve", None, true, time).unwrap();
    lan.room(1).remove("cy", None, true, time).unwrap();
    lan.names.push("fay".into());
    lan.apart.push(5);
    let line = lan.invite(1);
    lan.join(5, &line);
    lan.run(Duration::from_secs(20));
    assert!(lan.room(5).is_member());
    for who in [0, 1, 2, 3, 5] {
        let words = format!("apart, {who}");
        lan.say(who, &words);
    }
    lan.run(Duration::from_secs(20));
    assert!(lan.said(3).contains(&"apart, 1".to_owned()));
    lan.apart.clear();
    lan.run(3 * MINUTE);
    lan.agree(&[0, 1, 2, 3]);
    assert!(lan.is_in_office(0) && !lan.is_in_office(1));
    assert_eq!(lan.room(5).group.standing(), Standing::Removed);
    let told = lan
        .room(5)
        .notices
        .iter()
        .any(|n| n.contains("a new invitation"));
    assert!(told, "{:?}", lan.room(5).notices);
    assert_eq!(lan.room(4).group.standing(), Standing::Removed);
    for who in [1, 3] {
        let outbox = lan.room(who).outbox();
        let [(id, words)] = &outbox[..] else {
            panic!("{outbox:?}");
        };
        assert_eq!(*words, format!("apart, {who}"));
        let time = lan.time();
        lan.room(who).decide(id, true, time).unwrap();
    }
    // the other side's removal of cy does not count, and cy's log is whole again
    lan.say(2, "still here");
    lan.run(Duration::from_secs(10));
    for reader in [0, 1, 2, 3] {
        for words in ["apart, 1", "apart, 3", "still here"] {
            let said = lan.said(reader);
            let n = said.iter().filter(|said| *said == words).count();
            assert_eq!(n, 1, "{reader}: {words}, {said:?}");
        }
    }
}

#[test]
fn a_member_that_the_other_side_removed_is_told_so() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    lan.deputy("bob");
    lan.apart = vec![1, 2];
    lan.run(2 * MINUTE);
    assert!(lan.is_in_office(1));
    lan.remove("cy", 0);
    lan.run(Duration::from_secs(20));
    lan.apart.clear();
    lan.run(3 * MINUTE);
    assert_eq!(lan.room(2).group.standing(), Standing::Removed);
    lan.agree(&[0, 1]);
}

#[test]
fn a_holder_alone_hands_on_what_a_deputy_did() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    let key = lan.room(0).holding_key(None);
    let key = HoldingKey::decode(&key).unwrap();
    lan.deputy("bob");
    lan.stop(0);
    lan.stop(2);
    let folder = lan.folder.path().join("held");
    let mut held = Held::create(&folder, "held", &key, lan.now).unwrap();
    let source = IpAddr::from([10, 0, 0, 99]);
    let mut with_holder = |lan: &mut Lan, seconds: u64| {
        for _ in 0..seconds * 5 {
            let packets = lan.run(Duration::from_millis(200));
            let (time, now) = (lan.time(), lan.now);
            for packet in packets {
                held.handle_packet(source, &packet, time, now);
            }
            held.turn(time, now).unwrap();
            for (_, packet) in held.take_transmits() {
                lan.hear(usize::MAX, &packet);
            }
        }
    };
    with_holder(&mut lan, 120);
    assert!(lan.is_in_office(1), "{:?}", lan.room(1).notices);
    lan.add("dora", 1);
    with_holder(&mut lan, 20);
    assert!(lan.room(3).is_member());
    lan.say(3, "to who comes");
    with_holder(&mut lan, 5);
    lan.stop(1);
    lan.stop(3);
    lan.start(2);
    with_holder(&mut lan, 30);
    assert!(lan.said(2).contains(&"to who comes".to_owned()));
}

#[test]
fn words_that_all_have_read_are_said_whoever_joins_while_their_author_is_away() {
    for (author, has_deputy) in [(1, false), (1, true), (0, true)] {
        let mut lan = Lan::new(&["ann", "bob", "cy"], None);
        if has_deputy {
            lan.deputy("cy");
        }
        lan.say(author, "hello");
        lan.run(Duration::from_secs(4));
        for who in 0..3 {
            assert_eq!(lan.said(who), ["hello"], "{who}");
        }
        lan.stop(author);
        let admits = if author == 0 { 2 } else { 0 };
        lan.run(2 * MINUTE);
        assert!(lan.is_in_office(admits));
        lan.add("dora", admits);
        lan.run(Duration::from_secs(20));
        assert!(lan.room(3).is_member(), "{:?}", lan.room(3).waits());
        lan.start(author);
        lan.run(Duration::from_secs(20));
        lan.agree(&[0, 1, 2, 3]);
        let outbox = lan.room(author).outbox();
        assert!(outbox.is_empty(), "{author}, {has_deputy}: {outbox:?}");
        for who in 0..3 {
            assert_eq!(lan.said(who), ["hello"], "{who}");
        }
    }
}
