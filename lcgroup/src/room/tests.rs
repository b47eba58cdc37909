//! Rooms of several hosts on one network, in virtual time.

use std::time::{Duration, Instant};

use librecast::id::SecretKey;
use librecast::time::UnixTime;

use super::past::expired_before;
use super::*;

mod deputies;
mod shared;
mod wake;

const DAY: Duration = Duration::from_secs(86_400);

struct Lan {
    folder: tempfile::TempDir,
    rooms: Vec<Option<Room>>,
    names: Vec<String>,
    start: Instant,
    now: Instant,
    /// The host whose clock is wrong, and by how much it is ahead.
    ahead: Option<(usize, Duration)>,
    /// Hosts that receive each other only, and are received by no other.
    apart: Vec<usize>,
}

impl Lan {
    /// The first name is the owner's.
    fn new(names: &[&str], terms: Option<Terms>) -> Self {
        // memory, where the system has it: nothing here tests the disk
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let now = Instant::now();
        let mut lan = Self {
            folder: folder.unwrap(),
            rooms: Vec::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            start: now,
            now,
            ahead: None,
            apart: Vec::new(),
        };
        let founding = Founding {
            key: SecretKey::from_seed(&[1; 32]),
            read_key: [2; 32].into(),
            topic: String::new(),
            name: names[0].to_owned(),
        };
        let (folder, moment) = (lan.folder_of(0), (lan.time(), now));
        let owner = Room::create(&folder, "team", founding, terms, moment).unwrap();
        lan.rooms.push(Some(owner));
        let line = lan.invite(0);
        for who in 1..names.len() {
            lan.join(who, &line);
        }
        lan.run(Duration::from_secs(20));
        for who in 0..names.len() {
            assert!(
                lan.room(who).is_member(),
                "{who}: {:?}",
                lan.room(who).notices
            );
        }
        lan
    }

    fn invite(&mut self, by: usize) -> Invitation {
        let time = self.time();
        let expires = time.as_millis() + DAY.as_millis() as u64;
        self.room(by).invite(9, expires, false, time).unwrap()
    }

    /// Adds a host that joins by an invitation of another one.
    fn add(&mut self, name: &str, by: usize) {
        let line = self.invite(by);
        self.names.push(name.to_owned());
        self.join(self.names.len() - 1, &line);
    }

    fn remove(&mut self, name: &str, by: usize) {
        let time = self.time();
        self.room(by).remove(name, None, true, time).unwrap();
    }

    fn join(&mut self, who: usize, line: &Invitation) {
        let (folder, name) = (self.folder_of(who), self.names[who].clone());
        let (time, now) = (self.time(), self.now);
        let room = Room::join(&folder, "team", line.clone(), &name, time, now).unwrap();
        self.rooms.push(Some(room));
    }

    fn folder_of(&self, who: usize) -> PathBuf {
        self.folder.path().join(&self.names[who])
    }

    fn time(&self) -> UnixTime {
        UnixTime::from_millis(1_800_000_000_000) + (self.now - self.start)
    }

    /// The clock of a host.
    fn clock(&self, who: usize) -> UnixTime {
        let ahead = self.ahead.filter(|(wrong, _)| *wrong == who);
        self.time() + ahead.map_or(Duration::ZERO, |(_, ahead)| ahead)
    }

    fn room(&mut self, who: usize) -> &mut Room {
        self.rooms[who].as_mut().unwrap()
    }

    fn stop(&mut self, who: usize) {
        self.rooms[who] = None;
    }

    fn start(&mut self, who: usize) {
        self.rooms[who] = Some(Room::open(&self.folder_of(who), "team", self.now).unwrap());
    }

    fn restart(&mut self, who: usize) {
        self.stop(who);
        self.start(who);
    }

    /// Runs all rooms for this time; returns all packets.
    fn run(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let (until, mut all) = (self.now + time, Vec::new());
        loop {
            let now = self.now;
            let clocks: Vec<UnixTime> = (0..self.rooms.len()).map(|who| self.clock(who)).collect();
            let mut sent = Vec::new();
            for (who, room) in self.rooms.iter_mut().enumerate() {
                let Some(room) = room else { continue };
                room.turn(clocks[who], now).unwrap();
                let packets = room.take_transmits().into_iter();
                sent.extend(packets.map(|(_, packet)| (who, packet)));
            }
            for (from, packet) in &sent {
                self.hear(*from, packet);
            }
            let some = !sent.is_empty();
            all.extend(sent.into_iter().map(|(_, packet)| packet));
            if some {
                continue;
            }
            if self.now >= until {
                return all;
            }
            let rooms = self.rooms.iter().zip(clocks);
            let rooms = rooms.filter_map(|(room, time)| Some((room.as_ref()?, time)));
            let next = rooms.map(|(room, time)| room.next_timeout(time, now)).min();
            let soon = now + Duration::from_millis(1);
            self.now = next.map_or(until, |next| next.max(soon).min(until));
        }
    }

    /// Passes a packet of one host to all others.
    fn hear(&mut self, from: usize, packet: &[u8]) {
        let source = IpAddr::from([10, 0, 0, from as u8]);
        for who in 0..self.rooms.len() {
            let (time, now) = (self.clock(who), self.now);
            let is_cut = self.apart.contains(&who) != self.apart.contains(&from);
            let hears = who != from && !is_cut;
            if let Some(room) = self.rooms[who].as_mut().filter(|_| hears) {
                room.handle_packet(source, packet, time, now);
            }
        }
    }

    fn say(&mut self, who: usize, words: &str) {
        let (time, now) = (self.time(), self.now);
        self.room(who).say(words.as_bytes(), time, now).unwrap();
    }

    fn said(&mut self, who: usize) -> Vec<String> {
        let mut all = Vec::new();
        let (conversation, _) = self.room(who).conversation();
        let take = |line: Option<&[u8]>| {
            let message = line.map(|line| serde_json::from_slice::<Message>(line).unwrap());
            all.extend(message.and_then(|message| message.text));
            Ok(true)
        };
        conversation.read(0, false, take).unwrap();
        all
    }
}

/// All that a user sees of a group.
fn seen(lan: &mut Lan, who: usize) -> serde_json::Value {
    let now = lan.now;
    let room = lan.room(who);
    let mut status = serde_json::to_value(room.status(now, |_| None)).unwrap();
    // own words count there, and the removal itself; a restart drops notices
    for own in ["messages", "read", "unread", "log", "notices"] {
        status.as_object_mut().unwrap().remove(own);
    }
    let members = room.members().into_iter();
    let members: Vec<_> = members
        .map(|member| (member.shown, member.last, member.owner, member.me))
        .collect();
    let problem = room.check_usable().map_err(|e| e.to_string());
    serde_json::json!({
        "status": status, "members": members, "problem": problem.err(),
        "outbox": room.outbox(), "deputies": room.deputies(),
    })
}

#[test]
fn a_removed_member_sees_a_group_in_which_nobody_writes() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    let time = lan.time();
    lan.room(0).add_deputy("cy", 3 * 86_400, time).unwrap();
    lan.say(1, "before");
    lan.say(2, "by cy");
    lan.run(Duration::from_secs(60));
    let before = seen(&mut lan, 2);
    lan.room(0).remove("cy", None, false, time).unwrap();
    lan.run(Duration::from_secs(20));
    assert_eq!(lan.room(1).persons(), 2);
    let entries = |lan: &mut Lan| log_status(lan.room(2).log.log()).entries;
    let of_log = entries(&mut lan);
    for turn in 0..3 {
        lan.say(1, "without cy");
        lan.say(2, "is anybody there?");
        lan.run(Duration::from_secs(30));
        assert_eq!(seen(&mut lan, 2), before, "{turn}");
        let notices = &lan.room(2).notices;
        assert!(
            notices.iter().all(|n| !n.contains("removed")),
            "{notices:?}"
        );
        assert!(entries(&mut lan) <= of_log);
        let said = lan.said(2);
        assert!(!said.contains(&"without cy".into()), "{said:?}");
        assert_eq!(said.len(), 3 + turn, "{said:?}");
        match turn {
            0 => lan.restart(2),
            _ => lan.run(9 * DAY).clear(),
        }
        lan.run(Duration::from_secs(10));
    }
    assert!(!lan.said(0).contains(&"is anybody there?".into()));
    lan.room(2).leave().unwrap();
    lan.run(Duration::from_secs(1));
    assert_eq!(seen(&mut lan, 2)["status"]["state"], "removed");
}

#[test]
fn a_host_with_another_clock_is_told_by_the_owner_or_by_most_others() {
    for owner_is_there in [true, false] {
        let mut lan = Lan::new(&["ann", "bob", "cy", "dora"], None);
        if !owner_is_there {
            lan.stop(0);
        }
        lan.stop(1);
        lan.ahead = Some((1, 40 * DAY));
        lan.start(1);
        lan.run(Duration::from_secs(10));
        let told = lan.room(1).own_clock().unwrap();
        let whose = if owner_is_there {
            "the group's owner"
        } else {
            "of "
        };
        assert!(
            told.contains("40 days ahead of") && told.contains(whose),
            "{told}"
        );
        for who in [2, 3] {
            assert_eq!(lan.room(who).own_clock(), None);
            let notices = &lan.room(who).notices;
            let named = "the clock of bob is 40 days ahead of this host's";
            let count = notices.iter().filter(|text| *text == named).count();
            assert_eq!(count, 1, "{notices:?}");
        }
        // it is set
        lan.ahead = None;
        lan.run(Duration::from_secs(10));
        assert_eq!(lan.room(1).own_clock(), None);
    }
}

#[test]
fn reading_writes_the_state_seldom_and_a_crash_neither_loses_nor_repeats_a_message() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    lan.run(2 * READ_WITHIN);
    let before = lan.room(2).saves();
    for n in 0..50 {
        lan.say(n % 2, &format!("{n}"));
        lan.run(READ_WITHIN / 50);
    }
    let writes = lan.room(2).saves() - before;
    assert!((1..=3).contains(&writes), "{writes}");
    let mut random = librecast::random::Random::new(7);
    for n in 50..110 {
        let (who, killed) = (random.index(3), random.index(3));
        lan.say(who, &format!("{n}"));
        lan.run(Duration::from_millis(random.below(4_000)));
        lan.restart(killed);
        if n % 20 == 0 {
            // commits read between two writes of the state
            let time = lan.time();
            lan.room(0).refresh(time).unwrap();
        }
    }
    lan.run(Duration::from_secs(60));
    let expected: BTreeSet<String> = (0..110).map(|n| n.to_string()).collect();
    for who in 0..3 {
        let said = lan.said(who);
        assert_eq!(said.len(), expected.len(), "{who}");
        assert_eq!(BTreeSet::from_iter(said), expected, "{who}");
        assert!(lan.room(who).is_member(), "{who}");
    }
}

#[test]
fn recordings_of_clocks_mislead_nobody() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    for who in [0, 2] {
        lan.restart(who);
    }
    // requests to join, clocks and entries
    let recorded = lan.run(Duration::from_secs(30));
    lan.now += 40 * DAY;
    lan.run(Duration::from_secs(5));
    for _ in 0..5 {
        // a holder of the read key sends them, from another address
        for packet in &recorded {
            lan.hear(9, packet);
        }
        lan.run(Duration::from_secs(15));
    }
    for who in 0..3 {
        assert_eq!(lan.room(who).own_clock(), None);
        let notices = &lan.room(who).notices;
        assert!(
            !notices.iter().any(|text| text.contains("clock")),
            "{notices:?}"
        );
    }
}

#[test]
fn a_member_that_was_away_for_400_days_goes_on_without_an_invitation() {
    let mut lan = Lan::new(&["ann", "bob", "cy", "dora"], None);
    // all words of dora expire, and none follow
    lan.say(3, "good bye");
    lan.run(Duration::from_secs(10));
    lan.stop(2);
    lan.say(3, "for good");
    lan.run(Duration::from_secs(10));
    lan.stop(3);
    for day in 0..400 {
        lan.say(day % 2, &format!("day {day}"));
        lan.run(Duration::from_secs(10));
        lan.now += DAY - Duration::from_secs(10);
    }
    lan.run(Duration::from_secs(10));
    let epoch = lan.room(0).epoch();
    assert!(epoch > Some(300), "{epoch:?}");
    lan.start(2);
    lan.run(Duration::from_secs(20));
    let waits = lan.room(2).waits().unwrap();
    assert!(waits.contains("the time that this group keeps"), "{waits}");
    lan.run(Duration::from_secs(600));
    assert_eq!(lan.room(2).waits(), None);
    assert_eq!(lan.room(2).group.standing(), Standing::Member);
    assert_eq!(lan.room(2).epoch(), lan.room(0).epoch());
    let said = lan.said(2);
    for day in 372..400 {
        assert!(said.contains(&format!("day {day}")), "{day}: {said:?}");
    }
    assert!(!said.contains(&"day 300".to_owned()) && said.contains(&"good bye".to_owned()));
    lan.say(2, "I am back");
    lan.run(Duration::from_secs(10));
    for who in [0, 1] {
        assert!(lan.said(who).contains(&"I am back".to_owned()));
    }
}

#[test]
fn a_group_keeps_what_was_said_as_long_as_its_owner_states() {
    let keep = 100 * DAY.as_secs();
    let mut lan = Lan::new(&["ann", "bob", "cy"], Some(Terms { keep, history: 0 }));
    lan.stop(2);
    for day in 0..120 {
        lan.say(1, &format!("day {day}"));
        lan.run(Duration::from_secs(5));
        lan.now += DAY - Duration::from_secs(5);
    }
    lan.run(Duration::from_secs(10));
    // it is the owner's word: a restart changes nothing
    lan.restart(1);
    lan.start(2);
    lan.run(Duration::from_secs(300));
    let said = lan.said(2);
    // entries expire within hours after their time
    assert!((99..=102).contains(&said.len()), "{said:?}");
    assert_eq!(said.last().unwrap(), "day 119");
    let shown = [1, 2].map(|who| lan.room(who).kept.shown());
    assert_eq!(shown, [Some(keep); 2]);
}

#[test]
fn hosts_drop_what_the_owner_drops_and_restarts_and_newcomers_lose_no_author() {
    let mut lan = Lan::new(
        &["ann", "bob", "cy"],
        Some(Terms {
            keep: 0,
            history: 0,
        }),
    );
    let first_of_owner = |lan: &mut Lan, who: usize| {
        let log = lan.room(who).log.log();
        let owner = log.authors().find(|status| status.author == log.owner());
        owner.unwrap().first
    };
    // all ask for new leaves each week
    for week in 0..40 {
        lan.say(week % 3, &format!("week {week}"));
        for _ in 0..4 {
            lan.run(Duration::from_secs(20));
            lan.now += 2 * DAY;
        }
    }
    lan.run(Duration::from_secs(20));
    let first = first_of_owner(&mut lan, 0);
    assert!(first > 100, "{first}");
    for who in [1, 2] {
        // the next entry states it
        let theirs = first_of_owner(&mut lan, who);
        assert!((100..=first).contains(&theirs), "{theirs} {first}");
    }
    for who in 0..3 {
        lan.room(who).compact().unwrap();
        lan.stop(who);
    }
    for who in 0..3 {
        lan.start(who);
    }
    lan.run(Duration::from_secs(20));
    lan.add("dora", 0);
    lan.run(Duration::from_secs(60));
    for who in 0..4 {
        lan.say(who, &format!("hello from {who}"));
        lan.run(Duration::from_secs(5));
    }
    for who in 0..4 {
        let said = lan.said(who);
        for other in 0..4 {
            let words = format!("hello from {other}");
            assert!(said.contains(&words), "{who}: {said:?}");
        }
        // kept for ever: the terms are stated again as well
        assert_eq!(lan.room(who).kept.shown(), None);
        let log = lan.room(who).log.log();
        let entries: usize = log.authors().map(|s| (s.last + 1 - s.first) as usize).sum();
        assert!(entries >= 40, "{entries}");
    }
}

#[test]
fn a_newcomer_reads_what_the_group_allows_and_nobody_reads_it_twice() {
    for (history, expected) in [(0, 0..0), (7 * DAY.as_secs(), 4..10), (u64::MAX, 0..10)] {
        let keep = 30 * DAY.as_secs();
        let mut lan = Lan::new(&["ann", "bob", "cy"], Some(Terms { keep, history }));
        for day in 0..10 {
            lan.say(day % 3, &format!("day {day}"));
            lan.run(Duration::from_secs(10));
            lan.now += DAY;
        }
        // a long one, said just before
        lan.say(1, &"x".repeat(60_000));
        lan.run(Duration::from_secs(20));
        lan.add("dora", 0);
        // a restart while it comes
        lan.run(Duration::from_millis(2_100));
        lan.restart(3);
        lan.run(Duration::from_secs(60));
        lan.say(3, "thank you");
        lan.run(Duration::from_secs(10));
        let mut said = lan.said(3);
        let long = said.iter().filter(|text| text.len() == 60_000).count();
        assert_eq!(long, usize::from(history > 0));
        said.retain(|text| text.len() < 60_000);
        let mut words: Vec<String> = expected.map(|day| format!("day {day}")).collect();
        words.push("thank you".to_owned());
        assert_eq!(said, words, "{history}");
        for who in 0..3 {
            assert_eq!(lan.said(who).len(), 12, "{who}: {history}");
        }
        assert_eq!(lan.room(3).kept.history(), history);
    }
}

/// Copies the files of a folder into another one.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn an_owner_that_is_put_back_notices_it_and_does_not_fork_the_group() {
    for is_same_folder in [false, true] {
        let mut lan = Lan::new(&["ann", "bob", "cy"], None);
        let (folder, saved) = (lan.folder_of(0), lan.folder.path().join("saved"));
        copy(&folder, &saved);
        lan.say(1, "it goes on");
        lan.run(Duration::from_secs(20));
        lan.now += DAY;
        // one commit, as many entries as the old copy makes
        lan.run(Duration::from_secs(20));
        let epoch = lan.room(1).epoch();
        lan.stop(0);
        if !is_same_folder {
            std::fs::rename(&folder, lan.folder.path().join("lost")).unwrap();
        }
        copy(&saved, &folder);
        lan.now += DAY;
        lan.say(1, "anybody?");
        // a commit is due at once
        lan.start(0);
        assert_eq!(lan.room(0).is_unsure, !is_same_folder);
        lan.run(Duration::from_secs(60));
        assert_eq!(lan.room(0).group.standing(), Standing::RolledBack);
        let now = lan.now;
        assert_eq!(lan.room(0).status(now, |_| None).unsent, 0);
        assert_eq!(lan.room(1).epoch(), epoch);
        assert_eq!(lan.room(1).problem(), None);
        assert!(
            lan.room(1)
                .log
                .log()
                .authors()
                .all(|author| author.conflict.is_none())
        );
    }
}

#[test]
fn a_folder_in_doubt_makes_nothing_until_it_is_sure() {
    let mut lan = Lan::new(&["ann", "bob"], None);
    lan.say(1, "hello");
    lan.run(Duration::from_secs(20));
    for who in [0, 1] {
        lan.stop(who);
    }
    let (folder, saved) = (lan.folder_of(0), lan.folder.path().join("saved"));
    std::fs::rename(&folder, &saved).unwrap();
    copy(&saved, &folder);
    lan.now += 9 * DAY;
    lan.start(0);
    let epoch = lan.room(0).epoch();
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.room(0).epoch(), epoch);
    assert_eq!(lan.room(0).group.pending().count(), 0);
    lan.start(1);
    lan.run(Duration::from_secs(60));
    assert!(!lan.room(0).is_unsure && lan.room(0).epoch() > epoch);
    assert_eq!(lan.room(0).epoch(), lan.room(1).epoch());
}

#[test]
fn an_owner_alone_on_another_disk_invites_and_the_joiner_ends_the_doubt() {
    let mut lan = Lan::new(&["ann"], None);
    lan.stop(0);
    let (folder, saved) = (lan.folder_of(0), lan.folder.path().join("saved"));
    std::fs::rename(&folder, &saved).unwrap();
    copy(&saved, &folder);
    lan.start(0);
    lan.run(Duration::from_secs(60));
    let problem = lan.room(0).problem().unwrap();
    assert!(problem.contains("`lcgroup hold --key team`"), "{problem}");
    let (time, now) = (lan.time(), lan.now);
    assert!(lan.room(0).say(b"hello", time, now).is_err());
    lan.add("bob", 0);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.room(0).problem(), None);
    assert!(lan.room(1).is_member());
    // words of a joined member come
    lan.say(1, "here I am");
    lan.run(Duration::from_secs(5));
    assert_eq!(lan.said(0), ["here I am"]);
}

#[test]
fn a_group_that_keeps_a_day_gives_up_nothing_that_is_hours_old() {
    let now = 1_800_000_000_000;
    let hours = |keep: Duration| {
        let (before, soon) = expired_before(UnixTime::from_millis(now), keep);
        [now - before, now - soon].map(|ms| ms as f64 / 3_600_000.0)
    };
    assert_eq!(hours(DAY), [24.0, 23.2]);
    assert_eq!(hours(30 * DAY), [720.0, 696.0]);
    assert_eq!(hours(365 * DAY), [8_760.0, 8_736.0]);
}

#[test]
fn two_devices_show_the_same_and_one_tells_the_other_what_was_read() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    lan.say(0, "before");
    lan.run(Duration::from_secs(10));
    // bob's laptop
    let (time, now) = (lan.time(), lan.now);
    let line = lan.room(1).add_device(3_600, false, time).unwrap();
    lan.names.push("laptop".to_owned());
    let folder = lan.folder_of(3);
    let text = line.parse().unwrap();
    let room = Room::join_device(&folder, "team", text, "laptop", time, now).unwrap();
    lan.rooms.push(Some(room));
    lan.run(Duration::from_secs(20));
    assert!(lan.room(3).is_member(), "{:?}", lan.room(3).notices);
    let notices = lan.room(2).notices.clone();
    assert!(
        notices.contains(&"bob has one more device".to_owned()),
        "{notices:?}"
    );
    for who in 0..4 {
        let members = lan.room(who).members();
        assert_eq!(members.len(), 3);
        let bob = members.iter().find(|member| member.shown == "bob").unwrap();
        assert_eq!((bob.devices.len(), bob.me), (2, who % 2 == 1), "{who}");
        assert_eq!(bob.devices[1].label.is_some(), who % 2 == 1);
    }
    for who in 0..4 {
        lan.say(who, &format!("by {who}"));
        lan.run(Duration::from_secs(5));
    }
    // and what was said before, from bob's first device
    let said = lan.said(3);
    assert_eq!(said, ["before", "by 0", "by 1", "by 2", "by 3"]);
    let unread =
        |lan: &mut Lan| [0, 1, 2, 3].map(|who| lan.room(who).conversation.count_unread().0);
    // words from before are read, and so are own ones
    assert_eq!(unread(&mut lan), [3, 3, 4, 2]);
    let (time, first) = (lan.time(), lan.room(1).first_unread().unwrap());
    lan.room(1).read_up_to(first, time);
    lan.run(Duration::from_secs(10));
    assert_eq!(
        unread(&mut lan),
        [3, 2, 4, 2],
        "only what the laptop does not count"
    );
    let time = lan.time();
    lan.room(3).read_up_to(u64::MAX, time);
    lan.run(Duration::from_secs(10));
    assert_eq!(unread(&mut lan), [3, 0, 4, 0]);
    // after restarts; the laptop was away meanwhile
    lan.stop(3);
    lan.say(0, "more");
    lan.run(Duration::from_secs(10));
    let time = lan.time();
    lan.room(1).read_up_to(u64::MAX, time);
    lan.run(Duration::from_secs(10));
    lan.restart(1);
    lan.start(3);
    lan.run(Duration::from_secs(20));
    assert!(lan.said(3).contains(&"more".to_owned()));
    assert_eq!(unread(&mut lan), [3, 0, 5, 0]);

    // names: another bob is another one, and gets a mark; the laptop is not
    let line = lan.invite(0);
    lan.names.push("bob".to_owned());
    let (time, now, folder) = (lan.time(), lan.now, lan.folder.path().join("eve"));
    let eve = Room::join(&folder, "team", line, "bob", time, now).unwrap();
    lan.rooms.push(Some(eve));
    lan.run(Duration::from_secs(20));
    let shown: Vec<String> = lan.room(0).members().into_iter().map(|m| m.shown).collect();
    let bobs: Vec<_> = shown
        .iter()
        .filter(|shown| shown.starts_with("bob#"))
        .collect();
    assert_eq!((shown.len(), bobs.len()), (4, 2), "{shown:?}");

    let time = lan.time();
    lan.room(1).remove_device("laptop", time).unwrap();
    lan.run(Duration::from_secs(20));
    assert_eq!(lan.room(3).group.standing(), Standing::Removed);
    let problem = lan.room(3).problem().unwrap();
    assert!(problem.contains("this device was removed"), "{problem}");
    lan.say(2, "without the laptop");
    lan.run(Duration::from_secs(10));
    assert!(!lan.said(3).contains(&"without the laptop".to_owned()));
    let last = lan.room(2).notices.back().unwrap().clone();
    assert!(
        last.starts_with("bob#") && last.ends_with("has one device less"),
        "{last}"
    );
}

#[test]
fn no_id_and_a_damaged_line_withdraw_nothing() {
    let mut lan = Lan::new(&["ann"], None);
    let (line, time) = (lan.invite(0).encode(), lan.time());
    let room = lan.room(0);
    assert_eq!(room.invitations(time).unwrap().len(), 2);
    room.withdraw(&line, time).unwrap();
    let open = room.invitations(time).unwrap();
    assert_eq!(open.len(), 1);
    for wrong in ["", " ", &line[..60], &line, "zz"] {
        assert!(room.withdraw(wrong, time).is_err(), "{wrong}");
        assert_eq!(room.invitations(time).unwrap().len(), 1, "{wrong}");
    }
    assert_eq!(room.withdraw(&open[0].id[..4], time).unwrap(), open[0].id);
    assert!(room.invitations(time).unwrap().is_empty());
}
