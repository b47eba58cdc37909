//! Participants of a call on virtual time, whose datagrams reach all others and themselves.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use lcradio_core::{
    BEACON_PORT, Beacon, Call, CallConfig, CallEvent, CallKey, DropReason, MEDIA_PORT, Participant,
    Profile, Quality, Standing, StationKey, Transmit,
};
use librecast::time::{Duration, Instant, UnixTime};

/// Samples and time of a packet.
const SAMPLES: u32 = 480;
const STEP: Duration = Duration::from_millis(10);

/// Opus of 10 ms, by its first byte.
const SOUND: [u8; 20] = [0; 20];

struct One {
    call: Call,
    source: Ipv6Addr,
    /// Received packets of each participant, by name, and what was reported.
    heard: BTreeMap<String, u64>,
    told: Vec<String>,
    /// Packets and beacons that it sent.
    sent: (u64, u64),
    /// It is gone without a word.
    is_killed: bool,
    /// Its link is down.
    is_cut: bool,
}

impl One {
    fn told(&self, line: &str) -> bool {
        self.told.iter().any(|told| told == line)
    }
}

struct World {
    key: CallKey,
    begun: Instant,
    now: Instant,
    time: UnixTime,
    all: Vec<One>,
    /// One of this many datagrams is lost; 0: none.
    loses: u64,
    count: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    fn new() -> Self {
        let now = Instant::now();
        Self {
            key: CallKey::from_seed(&[7; 32]),
            begun: now,
            now,
            time: UnixTime::from_millis(1_800_000_000_000),
            all: Vec::new(),
            loses: 0,
            count: 0,
        }
    }

    fn join(&mut self, name: &str, talks: bool) -> usize {
        let number = self.all.len() as u8 + 1;
        let config = CallConfig {
            name: name.to_owned(),
            talks,
            is_muted: false,
            seed: [number; 32],
        };
        self.all.push(One {
            call: Call::new(&self.key, config, self.now),
            source: Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number.into()),
            heard: BTreeMap::new(),
            told: Vec::new(),
            sent: (0, 0),
            is_killed: false,
            is_cut: false,
        });
        usize::from(number) - 1
    }

    fn run(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.now += STEP;
            self.time = self.time + STEP;
            self.step();
        }
    }

    fn step(&mut self) {
        let (now, time) = (self.now, self.time);
        let group = self.key.station().group();
        let mut datagrams = Vec::new();
        for one in self.all.iter_mut().filter(|one| !one.is_killed) {
            one.call.handle_timeout(now, time);
            one.call.send(&SOUND, SAMPLES, now);
            while let Some(transmit) = one.call.poll_transmit(now) {
                let (port, datagram) = match transmit {
                    Transmit::Packet(packet) => (MEDIA_PORT, packet),
                    Transmit::Beacon => (BEACON_PORT, one.call.beacon(one.source, time).unwrap()),
                    other => panic!("{other:?}"),
                };
                let is_packet = port == MEDIA_PORT;
                one.sent.0 += u64::from(is_packet);
                one.sent.1 += u64::from(!is_packet);
                if !one.is_cut {
                    datagrams.push((one.source, port, datagram));
                }
            }
        }
        for (source, port, datagram) in datagrams {
            self.deliver(source, (group, port), &datagram);
        }
        for one in self.all.iter_mut().filter(|one| !one.is_killed) {
            let names = |call: &Call| -> BTreeMap<u8, String> {
                let all = call.participants();
                all.map(|p| (p.place, p.name.clone())).collect()
            };
            while let Some(event) = one.call.poll_event(now) {
                match event {
                    CallEvent::Came(Participant { name, .. }) => {
                        one.told.push(format!("{name} came"));
                    }
                    CallEvent::Left(Participant { name, .. }) => {
                        one.told.push(format!("{name} left"));
                    }
                    CallEvent::Changed(Participant {
                        name,
                        is_muted,
                        is_away,
                        ..
                    }) => {
                        let away = if is_away { ", away" } else { "" };
                        one.told.push(format!("{name} muted {is_muted}{away}"));
                    }
                    CallEvent::Standing(standing) => one.told.push(format!("{standing:?}")),
                    CallEvent::Sound(packet) => {
                        let name = names(&one.call).remove(&packet.caster).unwrap_or_default();
                        *one.heard.entry(name).or_default() += 1;
                    }
                }
            }
            assert!(one.call.participants().count() <= 8);
        }
    }

    fn deliver(&mut self, source: Ipv6Addr, to: (Ipv6Addr, u16), datagram: &[u8]) {
        let (now, time) = (self.now, self.time);
        let here = |one: &&mut One| !one.is_killed && !one.is_cut;
        for one in self.all.iter_mut().filter(here) {
            self.count += 1;
            // spread over senders and receivers
            let at = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            if self.loses == 0 || !at.is_multiple_of(self.loses) {
                one.call.handle_datagram(to, source, datagram, now, time);
            }
        }
    }

    fn forget(&mut self) {
        for one in &mut self.all {
            one.heard.clear();
            one.told.clear();
            one.sent = (0, 0);
        }
    }

    /// How well this one receives another.
    fn quality(&self, at: usize, name: &str) -> Option<Quality> {
        let mut others = self.all[at].call.participants();
        Some(others.find(|other| other.name == name)?.quality)
    }

    fn talkers(&self) -> Vec<usize> {
        let talks = |at: &usize| self.all[*at].call.standing() == Standing::Talks;
        (0..self.all.len()).filter(talks).collect()
    }
}

fn letters(count: u8) -> Vec<String> {
    (0..count)
        .map(|n| char::from(b'A' + n).to_string())
        .collect()
}

/// Eight who talk, and one who only listens.
fn eight() -> World {
    let mut world = World::new();
    for name in letters(8) {
        world.join(&name, true);
    }
    world.join("listener", false);
    world.run(3);
    world
}

/// Two who talk.
fn two() -> (World, usize, usize) {
    let mut world = World::new();
    let (a, b) = (world.join("A", true), world.join("B", true));
    world.run(3);
    (world, a, b)
}

#[test]
fn eight_talk_hear_the_others_and_not_themselves_and_the_ninth_is_told() {
    let mut world = eight();
    assert_eq!(world.talkers(), (0..8).collect::<Vec<_>>());
    world.forget();
    world.run(2);
    for (at, one) in world.all.iter().enumerate() {
        let mut names: BTreeSet<String> = letters(8).into_iter().collect();
        if at < 8 {
            names.remove(&letters(8)[at]);
            let own = one.call.drops().get(DropReason::Own);
            assert!(own > 200, "own packets came back: {own}");
        }
        let heard: BTreeSet<String> = one.heard.keys().cloned().collect();
        assert_eq!(heard, names, "{at}");
        assert!(
            one.heard.values().all(|packets| *packets == 200),
            "{:?}",
            one.heard
        );
    }
    let ninth = world.join("I", true);
    world.run(4);
    assert_eq!(world.all[ninth].call.standing(), Standing::Full);
    assert!(world.all[ninth].told("Full"));
    assert_eq!(world.all[ninth].sent, (0, 0), "it takes no place");
    assert_eq!(world.all[ninth].heard.len(), 8, "it listens");
    assert!(world.all[..9].iter().all(|one| !one.told("I came")));
    // one leaves: the ninth talks
    world.forget();
    world.all[3].call.leave(world.now);
    world.run(1);
    assert!(world.all[3].call.has_left());
    assert!(world.all[0].told("D left"));
    world.run(4);
    assert!(world.all[ninth].told("Talks"));
    assert!(world.all[0].told("I came") && world.all[0].heard["I"] > 50);
}

#[test]
fn of_many_that_begin_at_once_eight_stay_and_all_hear_the_same() {
    for (count, loses) in [(9, 0), (12, 0), (12, 20)] {
        let mut world = World::new();
        world.loses = loses;
        for name in letters(count) {
            world.join(&name, true);
        }
        world.run(12);
        let talkers = world.talkers();
        assert_eq!(talkers.len(), 8, "of {count}: {talkers:?}");
        world.forget();
        world.run(1);
        for (at, one) in world.all.iter().enumerate() {
            let names = talkers.iter().filter(|talker| **talker != at);
            let names: BTreeSet<_> = names.map(|at| letters(count)[*at].clone()).collect();
            let heard: BTreeSet<_> = one.heard.keys().cloned().collect();
            assert_eq!(heard, names, "{at} of {count}");
        }
    }
}

#[test]
fn the_place_of_a_killed_participant_is_free_in_six_seconds() {
    let mut world = eight();
    let ninth = world.join("I", true);
    world.run(3);
    assert_eq!(world.all[ninth].call.standing(), Standing::Full);
    world.all[5].is_killed = true;
    world.run(6);
    assert_eq!(world.quality(0, "F"), Some(Quality::Reconnecting));
    assert!(!world.all[0].told("F left"));
    world.run(4);
    assert_eq!(world.all[ninth].call.standing(), Standing::Talks);
    world.run(1);
    assert!(world.all[0].told("F left"));
}

#[test]
fn a_link_that_is_down_for_seven_seconds_shows_and_ends_nobody() {
    let mut world = eight();
    world.forget();
    world.all[5].is_cut = true;
    world.run(3);
    assert_eq!(world.quality(0, "F"), Some(Quality::Poor));
    world.run(4);
    assert_eq!(world.quality(0, "F"), Some(Quality::Reconnecting));
    assert_eq!(world.quality(0, "B"), Some(Quality::Good));
    assert_eq!(world.quality(5, "A"), Some(Quality::Reconnecting));
    world.all[5].is_cut = false;
    world.run(2);
    assert!(matches!(world.quality(0, "F"), Some(quality) if quality != Quality::Reconnecting));
    let told: Vec<_> = world.all.iter().flat_map(|one| &one.told).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn recorded_beacons_hold_no_place() {
    let mut world = eight();
    // the beacons of one are recorded while it talks, then it is killed
    let (source, group) = (world.all[5].source, world.key.station().group());
    let mut recorded = Vec::new();
    for _ in 0..3 {
        let time = world.time;
        recorded.push(world.all[5].call.beacon(source, time).unwrap());
        world.deliver(source, (group, BEACON_PORT), recorded.last().unwrap());
        world.run(1);
    }
    world.all[5].is_killed = true;
    let ninth = world.join("I", true);
    for _ in 0..14 {
        world.run(1);
        for datagram in &recorded {
            world.deliver(source, (group, BEACON_PORT), datagram);
        }
    }
    assert!(world.all[0].told("F left"));
    assert_eq!(world.all[ninth].call.standing(), Standing::Talks);
    // its place is another's now, and then free
    world.all[ninth].call.leave(world.now);
    world.run(1);
    world.forget();
    for _ in 0..7 {
        world.run(1);
        for datagram in &recorded {
            world.deliver(source, (group, BEACON_PORT), datagram);
        }
    }
    // the listener had given that place to the ninth
    for one in [&world.all[0], &world.all[8]] {
        assert!(!one.told("F came"), "{:?}", one.told);
    }
    let older = world.all[8].call.drops().get(DropReason::BeaconOlder);
    assert!(older >= 20, "{older}");
}

#[test]
fn who_has_no_text_uses_up_no_share_of_beacons() {
    let mut world = World::new();
    let one = world.join("A", true);
    world.run(2);
    let (source, group) = (world.all[one].source, world.key.station().group());
    for number in 0..1_000_u32 {
        let foreign = [&[2][..], &number.to_be_bytes().repeat(30)].concat();
        world.deliver(source, (group, BEACON_PORT), &foreign);
    }
    assert_eq!(world.all[one].call.drops().get(DropReason::Rate), 0);
    world.join("B", true);
    world.run(3);
    assert!(world.all[one].told("B came"));
}

#[test]
fn beacons_from_elsewhere_use_up_no_share_of_a_participant() {
    let mut world = World::new();
    let (one, other) = (world.join("A", true), world.join("B", true));
    world.run(3);
    assert!(world.all[one].told("B came"));
    let (source, group) = (world.all[other].source, world.key.station().group());
    let time = world.time;
    let beacon = world.all[other].call.beacon(source, time).unwrap();
    let elsewhere = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 99);
    let until = world.now + Duration::from_secs(8);
    for _ in 0..300 {
        world.deliver(elsewhere, (group, BEACON_PORT), &beacon);
    }
    while world.now < until {
        world.now += STEP;
        world.time = world.time + STEP;
        for _ in 0..4 {
            world.deliver(elsewhere, (group, BEACON_PORT), &beacon);
        }
        world.step();
    }
    assert!(world.all[one].call.drops().get(DropReason::Rate) > 1_000);
    assert!(!world.all[one].told("B left"));
}

#[test]
fn a_muted_participant_sends_beacons_alone_and_the_others_see_it() {
    let (mut world, a, b) = two();
    world.all[a].call.set_muted(true, world.now);
    world.run(1);
    world.forget();
    world.run(5);
    let (packets, beacons) = world.all[a].sent;
    assert!(
        packets == 0 && (4..=6).contains(&beacons),
        "{packets} {beacons}"
    );
    assert!(world.all[b].heard.is_empty());
    let shown = world.all[b].call.participants().next().unwrap().clone();
    assert!(shown.is_muted && shown.name == "A");
    world.all[a].call.set_muted(false, world.now);
    world.run(1);
    assert!(world.all[b].told("A muted false") && world.all[b].heard["A"] >= 99);
}

#[test]
fn who_is_away_keeps_the_place_hears_nobody_and_says_so() {
    let mut world = World::new();
    let all: Vec<usize> = (0..8).map(|n| world.join(&format!("{n}"), true)).collect();
    world.run(3);
    world.all[all[0]].call.set_away(true, world.now);
    world.run(1);
    assert!(world.all[1].told("0 muted false, away"));
    let ninth = world.join("9", true);
    world.forget();
    world.run(20);
    assert_eq!(world.all[ninth].call.standing(), Standing::Full);
    let away = &world.all[all[0]];
    assert_eq!((away.sent.0, away.heard.len()), (0, 0));
    assert_eq!(away.call.participants().count(), 0);
    world.all[all[0]].call.set_away(false, world.now);
    world.forget();
    world.run(2);
    let back = &world.all[all[0]];
    assert_eq!(back.call.participants().count(), 7);
    // sound that came before the names has none
    let named = back.heard.keys().filter(|name| !name.is_empty());
    assert_eq!((named.count(), back.sent.0), (7, 200));
    assert!(world.all[1].told("0 muted false"));
    // one that waits for a place does not take it unseen
    world.all[ninth].call.set_away(true, world.now);
    world.run(20);
    assert_eq!(world.all[ninth].call.standing(), Standing::Full);
}

#[test]
fn who_slept_looks_anew_and_displaces_nobody() {
    let mut world = World::new();
    let all: Vec<usize> = (0..8).map(|n| world.join(&format!("{n}"), true)).collect();
    world.run(3);
    let ninth = world.join("9", true);
    world.run(3);
    assert_eq!(world.all[ninth].call.standing(), Standing::Full);
    world.all[all[7]].is_killed = true;
    world.run(10);
    assert_eq!(world.all[ninth].call.standing(), Standing::Talks);
    // it wakes up
    world.all[all[7]].is_killed = false;
    world.run(5);
    assert_eq!(world.all[all[7]].call.standing(), Standing::Full);
    assert_eq!(world.all[ninth].call.standing(), Standing::Talks);
    world.all[all[2]].is_killed = true;
    world.run(12);
    assert_eq!(world.all[all[7]].call.standing(), Standing::Talks);
}

#[test]
fn a_farewell_made_before_ends_the_place_of_a_participant_that_is_gone() {
    let (mut world, a, b) = two();
    let (source, later) = (world.all[a].source, world.time + Duration::from_millis(1));
    let farewell = world.all[a].call.farewell(source, later).unwrap();
    world.all[a].is_killed = true;
    assert!(!world.all[b].told("A left"));
    let group = world.key.station().group();
    world.deliver(source, (group, BEACON_PORT), &farewell);
    world.run(1);
    assert!(world.all[b].told("A left"));
    assert!(world.all[b].call.farewell(source, later).is_ok());
    let listens = world.join("C", false);
    assert!(world.all[listens].call.farewell(source, later).is_err());
}

#[test]
fn each_ignores_another_for_himself_by_its_key() {
    let mut world = World::new();
    for name in ["A", "B", "B", ""] {
        world.join(name, true);
    }
    world.run(3);
    let names: BTreeSet<String> = {
        let all = world.all[0].call.participants();
        all.map(|p| p.name.clone()).collect()
    };
    assert_eq!(names, ["B", "B (2)", "somebody"].map(str::to_owned).into());
    let second = world.all[0].call.participants().find(|p| p.name == "B (2)");
    let place = second.unwrap().place;
    assert!(
        world.all[0]
            .call
            .set_ignored(place, true)
            .unwrap()
            .is_ignored
    );
    assert!(world.all[0].call.set_ignored(7, true).is_none());
    world.forget();
    world.run(1);
    assert!(!world.all[0].heard.contains_key("B (2)") && world.all[0].heard.len() == 2);
    assert_eq!(world.all[1].heard.len(), 3);
    world.all[0].call.set_ignored(place, false);
    world.run(1);
    assert!(world.all[0].heard.contains_key("B (2)"));
}

#[test]
fn a_twentieth_lost_ends_nobody() {
    let mut world = eight();
    world.loses = 20;
    world.forget();
    world.run(60);
    for one in &world.all {
        assert!(
            !one.told.iter().any(|told| told.ends_with("left")),
            "{:?}",
            one.told
        );
        assert!(
            one.heard
                .values()
                .all(|packets| (5_500..5_900).contains(packets))
        );
    }
}

#[test]
fn a_call_lasts_longer_than_a_grant() {
    let (mut world, a, b) = two();
    for _ in 0..3 {
        let jump = Duration::from_secs(13 * 3_600);
        (world.now, world.time) = (world.now + jump, world.time + jump);
        world.run(3);
    }
    world.forget();
    world.run(1);
    assert!(world.now.duration_since(world.begun) > Duration::from_secs(24 * 3_600));
    assert_eq!(
        (world.all[a].heard["B"], world.all[b].heard["A"]),
        (100, 100)
    );
}

#[test]
fn whoever_has_no_text_is_not_heard_and_a_holder_takes_free_places_alone() {
    let (mut world, a, b) = two();
    world.forget();
    let station = world.key.station();
    let (group, source) = (station.group(), Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 1, 1));
    let beacon = |number: u8, time: UnixTime| Beacon {
        session: [number; 16],
        started_ms: 0,
        time_ms: time.as_millis(),
        source,
        ssrc: number.into(),
        next_index: 0,
        profile: Profile::Voice,
        channels: 1,
        is_talking: true,
        has_ended: false,
        is_together: false,
        is_away: false,
        name: "A".to_owned(),
        title: String::new(),
        grant: None,
    };
    for number in 1..200 {
        let key = StationKey::from_seed(&[number; 32]);
        let datagram = beacon(number, world.time)
            .encode(&key, &station, [number; 16])
            .unwrap();
        world.deliver(source, (group, BEACON_PORT), &datagram);
        world.deliver(source, (group, BEACON_PORT), &[number; 90]);
        world.deliver(
            source,
            (group, MEDIA_PORT),
            &[0x80, 96, number, 0, 0, 0, 0, 0, 0, 0, 0, number],
        );
    }
    world.run(2);
    assert!(world.all[a].told.is_empty(), "{:?}", world.all[a].told);
    assert!(world.all[b].heard["A"] >= 199);
    // a holder of the text, who makes many participants: they take free places and no other
    for _ in 0..20 {
        world.join("A", true);
    }
    world.run(6);
    assert_eq!(world.talkers().len(), 8);
    assert!(world.talkers().contains(&a) && world.talkers().contains(&b));
    let names = world.all[b].call.participants().map(|p| p.name.clone());
    let names: BTreeSet<String> = names.collect();
    assert!(names.contains("A") && names.contains("A (7)"), "{names:?}");
}

#[test]
fn texts_and_derivations_are_frozen() {
    let world = World::new();
    assert_eq!(world.key.station().group().to_string(), GROUP);
    let text = world.key.encode();
    assert_eq!(*text, TEXT);
    assert_eq!(CallKey::decode(&format!(" {TEXT}\n")).unwrap(), world.key);
    assert!(CallKey::decode(&text[..40]).is_err());
    assert!(!format!("{:?}", world.key).contains(&text[4..]));
}

const GROUP: &str = "ff1e:de89:7fa:b869:fbd5:e8f2:e4ea:5ed6";
/// Computed by another implementation (base58check in Python, hashlib).
const TEXT: &str = "lcc146WPtSJH9Mc1rNbRaWo6k2v6Bm8dc1FuCFxS2n6gFo7M27Ucu";
