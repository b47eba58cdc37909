use super::symbols::MEMORY;
use super::*;
use crate::packet::SEALED_WIRE_SIZE;
use crate::server::reporters::MAX_REPORTERS;

const RATES: Rates = Rates {
    stretch: None,
    channel: 20_000_000,
    slow: 2_000_000,
    total: None,
};
const BLOCK: Wanted = Wanted {
    symbols: 256,
    layer: 0,
    start: 0,
    blocks: 1,
    receivers: 0,
    list: false,
    absent: false,
};

fn channel(n: u16) -> Channel {
    Channel {
        interface: 1,
        group: Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n),
    }
}
fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

/// All actions until `end`, with their times.
fn run(schedule: &mut Schedule, from: Instant, end: Duration) -> Vec<(Duration, Action)> {
    let (mut now, mut seen) = (from, Vec::new());
    loop {
        while let Some(action) = schedule.poll(now) {
            seen.push((now - from, action));
        }
        match schedule.next_timeout() {
            Some(at) if at <= from + end => now = at.max(now),
            _ => return seen,
        }
    }
}

fn ids(seen: &[(Duration, Action)]) -> Vec<u32> {
    seen.iter()
        .flat_map(|(_, a)| match a {
            Action::Symbols { ids, .. } => ids.clone(),
            Action::Ask { .. } => Vec::new(),
        })
        .collect()
}

fn asks(seen: &[(Duration, Action)]) -> usize {
    seen.iter()
        .filter(|(_, a)| matches!(a, Action::Ask { .. }))
        .count()
}

#[test]
fn a_receiver_that_vanished_costs_a_quarter_more_and_two_questions() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    let seen = run(&mut schedule, now, Duration::from_secs(100));
    let ids = ids(&seen);
    assert_eq!(ids.len(), 256 + 64);
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "no symbol twice"
    );
    assert_eq!(
        ids[..256].iter().filter(|i| **i < 256).count(),
        256,
        "source symbols first"
    );
    assert_eq!(asks(&seen), 2);
    assert_eq!(schedule.joined(), 0);
}

#[test]
fn whoever_joins_and_leaves_while_he_waits_is_forgotten() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    for n in 0..MAX_BURSTS as u16 {
        schedule.join(channel(n + 1), BLOCK, host(1), Evidence::Joined, now);
    }
    let mut at = now + GATHER;
    schedule.poll(at);
    for _ in 0..1_000 {
        schedule.join(channel(9_999), BLOCK, host(1), Evidence::Joined, at);
        at += Duration::from_micros(10);
        schedule.poll(at + GATHER);
        schedule.part(channel(9_999), host(1), at);
    }
    assert_eq!(
        (schedule.queue.is_empty(), schedule.gathering.len()),
        (true, 0)
    );
    schedule.join(channel(9_999), BLOCK, host(1), Evidence::Joined, at);
    schedule.part(channel(1), host(1), at);
    schedule.poll(at + GATHER);
    let stage = schedule.channels[&channel(9_999)].stage;
    assert!(matches!(stage, Stage::Burst { .. }), "{stage:?}");
}

#[test]
fn who_joins_while_a_block_gathers_costs_nothing() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    assert_eq!(schedule.poll(now), None);
    let upcoming = Upcoming {
        group: channel(1).group,
        left: 256,
        missed: false,
    };
    assert_eq!(
        schedule.upcoming(channel(0), 9).collect::<Vec<_>>(),
        [upcoming]
    );
    let later = now + GATHER / 2;
    schedule.join(channel(1), BLOCK, host(2), Evidence::Joined, later);
    let seen = run(&mut schedule, now, Duration::from_secs(100));
    assert_eq!(ids(&seen).len(), 256 + 64);
}

#[test]
fn bursts_grow_to_what_members_need_and_shrink_again() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    let mut last = |needed: u32, blocks: u16| {
        let mut trickled = 0;
        for n in 0..blocks {
            schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
            let mut sent = 0;
            while sent < needed {
                match schedule.poll(now) {
                    Some(Action::Symbols { ids, .. }) => sent += ids.len() as u32,
                    Some(Action::Ask { channel }) => {
                        schedule.join(channel, BLOCK, host(1), Evidence::Confirmed, now);
                    }
                    None => now = schedule.next_timeout().unwrap(),
                }
            }
            if let Stage::Trickle { sent, .. } = schedule.channels[&channel(n)].stage {
                trickled = sent;
            }
            schedule.part(channel(n), host(1), now);
            now += MEMORY * 2;
        }
        trickled
    };
    assert!(last(320, 1) > 60);
    let trickled = last(320, 200);
    assert!(trickled < 20, "{trickled} of 64 in the trickle");
    assert_eq!(last(256, 200), 0);
    assert!(last(320, 1) > 60, "long bursts have been forgotten");
}

#[test]
fn the_burst_has_the_channels_rate() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    let seen = run(&mut schedule, now, GATHER + Duration::from_millis(100));
    let bits = ids(&seen).len() as u64 * WIRE_SIZE * 8;
    assert!(
        (1_900_000..=2_200_000).contains(&bits),
        "{bits} bits in 0.1 s at 20 Mbit/s"
    );
}

#[test]
fn nothing_is_sent_after_the_last_part() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    for reporter in [1, 2] {
        schedule.join(channel(1), BLOCK, host(reporter), Evidence::Joined, now);
    }
    schedule.poll(now);
    schedule.part(channel(1), host(1), now);
    assert!(
        schedule.next_timeout().is_some(),
        "the other one is still there"
    );
    schedule.part(channel(1), host(2), now);
    assert_eq!(schedule.next_timeout(), None);
    assert_eq!(schedule.poll(now + Duration::from_secs(5)), None);
    assert_eq!(schedule.joined(), 0);
}

#[test]
fn repeated_reports_of_one_host_do_not_renew_the_budget() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    let first = ids(&run(&mut schedule, now, Duration::from_millis(60))).len();
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Confirmed, now);
    let then = now + Duration::from_millis(60);
    let rest = ids(&run(&mut schedule, then, Duration::from_secs(60))).len();
    assert_eq!(first + rest, 256 + 64);
}

#[test]
fn another_hosts_join_extends_the_burst_with_new_symbols() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    let mut all = ids(&run(&mut schedule, now, Duration::from_millis(140)));
    let then = now + Duration::from_millis(140);
    schedule.join(channel(1), BLOCK, host(2), Evidence::Joined, then);
    all.extend(ids(&run(&mut schedule, then, Duration::from_secs(60))));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert!(all.len() > 256 + 64 + 100, "{}", all.len());
}

#[test]
fn answers_bring_a_little_more_twice_and_then_everything_anew() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    let (mut at, mut counts) = (now, vec![0]);
    while counts.len() < 6 {
        match schedule.poll(at) {
            Some(Action::Symbols { ids, .. }) => *counts.last_mut().unwrap() += ids.len(),
            Some(Action::Ask { channel }) => {
                schedule.join(channel, BLOCK, host(1), Evidence::Confirmed, at);
                counts.push(0);
            }
            None => at = schedule.next_timeout().unwrap(),
        }
    }
    assert_eq!(counts[..5], [256 + 64, 64, 64, 256 + 64, 64]);
}

#[test]
fn the_total_rate_is_kept_and_those_who_joined_share_it_fairly() {
    let now = Instant::now();
    let rates = Rates {
        stretch: None,
        total: Some(10_000_000),
        ..RATES
    };
    let mut schedule = Schedule::new(rates, 1, now);
    for n in 1..=30 {
        schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
    }
    for n in 101..=102 {
        schedule.join(channel(n), BLOCK, host(2), Evidence::Joined, now);
    }
    let seen = run(&mut schedule, now, GATHER + Duration::from_millis(1_500));
    let mut each = BTreeMap::new();
    for (_, action) in &seen {
        if let Action::Symbols { channel, ids, .. } = action {
            *each.entry(*channel).or_insert(0) += ids.len() as u64;
        }
    }
    let total: u64 = each.values().sum::<u64>() * WIRE_SIZE * 8;
    assert!(
        (14_250_000..=16_000_000).contains(&total),
        "{total} bits in a second and a half"
    );
    assert!(
        each[&channel(101)] >= 256 && each[&channel(102)] >= 256,
        "{each:?}"
    );
    assert!(each.len() <= 12, "one after the other: {each:?}");
    assert!(
        schedule
            .capacity(1)
            .is_some_and(|c| (9_000_000..11_000_000).contains(&c))
    );
}

#[test]
fn a_held_interface_sends_nothing_keeps_its_order_and_holds_up_no_other() {
    let start = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, start);
    let on = |interface: u32, n: u16| Channel {
        interface,
        ..channel(n)
    };
    // another interface before and behind it
    for n in 1..=40 {
        for interface in 1..=3 {
            let channel = on(interface, n);
            schedule.join(channel, BLOCK, host(1), Evidence::Joined, start);
        }
    }
    // a turn each 4 ms leaves on the second one
    let (mut now, mut sent) = (start, BTreeMap::<Channel, usize>::new());
    for _ in 0..1_500 {
        now += Duration::from_millis(1);
        if now < start + Duration::from_millis(4) {
            schedule.hold(2, Duration::ZERO, now + Duration::from_millis(1), now);
        }
        while let Some(action) = schedule.poll(now) {
            if let Action::Symbols { channel, ids, .. } = action {
                *sent.entry(channel).or_default() += ids.len();
                if channel.interface == 2 {
                    schedule.hold(2, Duration::ZERO, now + Duration::from_millis(4), now);
                }
            }
        }
        assert!(schedule.next_timeout() > Some(now), "no turn is due");
    }
    let of = |interface: u32| -> Vec<usize> {
        let all = sent.iter().filter(|(c, _)| c.interface == interface);
        all.map(|(_, symbols)| *symbols).collect()
    };
    for other in [1, 3] {
        assert!(of(other).iter().all(|sent| *sent >= 256), "{:?}", of(other));
    }
    let held = of(2);
    let all: usize = held.iter().sum();
    let turn = schedule.paces[0].turn as usize;
    assert!((300 * turn..=375 * turn).contains(&all), "{held:?}");
    // in turns, and not the first one again and again
    let (least, most) = (held.iter().min(), held.iter().max());
    assert!(most <= least.map(|least| least + turn).as_ref(), "{held:?}");
}

#[test]
fn a_flood_of_joins_is_bounded_and_everybody_gets_a_turn() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    let small = Wanted {
        symbols: 1,
        ..BLOCK
    };
    for n in 0..MAX_CHANNELS as u32 + 5 {
        let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 1, (n >> 16) as u16, n as u16);
        let flood = Channel {
            interface: 1,
            group,
        };
        schedule.join(flood, small, host(1), Evidence::Joined, now);
    }
    assert_eq!((schedule.joined(), schedule.refused()), (MAX_CHANNELS, 5));
    schedule.poll(now);
    assert!(schedule.load <= MAX_BURSTS * RATES.channel + RATES.channel);
    // another one finds room, as it is not the last in the queue
    schedule.join(channel(1), small, host(2), Evidence::Joined, now);
    assert_eq!((schedule.joined(), schedule.refused()), (MAX_CHANNELS, 6));
    let seen = run(&mut schedule, now, Duration::from_millis(50));
    let served =
        |(_, a): &(_, Action)| matches!(a, Action::Symbols { channel: c, .. } if *c == channel(1));
    assert!(seen.iter().any(served));
    run(&mut schedule, now, Duration::from_secs(1_000));
    assert_eq!(schedule.joined(), 0);
}

#[test]
fn a_share_that_thousands_of_hosts_join_again_and_again_leaves_half_to_another() {
    let start = Instant::now();
    let rates = Rates {
        stretch: None,
        total: Some(100_000_000),
        ..RATES
    };
    let other = |n: u16| Channel {
        interface: 1,
        group: Ipv6Addr::new(0xff1e, 0, 0, 7, 0, 0, 0, n),
    };
    let mut schedule = Schedule::new(rates, 1, start);
    let (mut flood, mut flooded) = (0_u32, 0);
    let mut got = [0; 20];
    let served = |got: &[u32; 20]| got.iter().filter(|g| **g >= 256).count();
    let mut now = start;
    while served(&got) < got.len() {
        assert!(now < start + Duration::from_secs(2), "{flooded} {got:?}");
        // all channels of a share, by a hundred thousand hosts a second
        for _ in 0..100 {
            flood += 1;
            let host = Ipv6Addr::from((0xfe80 << 112) + u128::from(flood));
            let at = channel((flood % 100) as u16 + 1);
            schedule.join(at, BLOCK, host, Evidence::Joined, now);
        }
        if now == start + GATHER * 10 {
            for n in 0..got.len() as u16 {
                schedule.join(other(n), BLOCK, host(1), Evidence::Joined, now);
            }
        }
        while let Some(action) = schedule.poll(now) {
            let Action::Symbols { channel, ids, .. } = action else {
                continue;
            };
            if channel.group.segments()[3] == 7 {
                let n = channel.group.segments()[7];
                got[usize::from(n)] += ids.len() as u32;
                if got[usize::from(n)] >= 256 {
                    schedule.part(channel, host(1), now);
                }
            } else {
                flooded += ids.len();
            }
        }
        now += Duration::from_millis(1);
    }
    // 20 blocks at half of the rate are 0.92 s
    let took = now - start - GATHER * 10;
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    assert!(schedule.load <= 120_000_000, "{}", schedule.load);
}

#[test]
fn a_share_keeps_its_own_limit_and_holds_up_no_other() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    let limited = Terms {
        limit: Some(8_000_000),
        sealed: true,
    };
    let other = |n: u16| Channel {
        interface: 1,
        group: Ipv6Addr::new(0xff1e, 0, 0, 7, 0, 0, 0, n),
    };
    let prefix = SharePrefix::of_group(channel(1).group).unwrap();
    schedule.set_terms(prefix, limited, now);
    for n in 0..40 {
        schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
        schedule.join(other(n), BLOCK, host(1), Evidence::Joined, now);
    }
    let (mut sent, mut others) = (0, 0);
    for (_, action) in run(&mut schedule, now, GATHER + Duration::from_secs(2)) {
        if let Action::Symbols { channel, ids, .. } = action {
            let other = channel.group.segments()[3] == 7;
            *(if other { &mut others } else { &mut sent }) += ids.len() as u64;
        }
    }
    let bits = sent * SEALED_WIRE_SIZE * 8;
    assert!((15_000_000..=17_000_000).contains(&bits), "{bits} in 2 s");
    assert!(others >= 40 * 256, "{others}");
    schedule.set_terms(prefix, Terms::default(), now);
    assert_eq!(schedule.limit_of(channel(1).group), None);
    let then = now + GATHER + Duration::from_secs(2);
    run(&mut schedule, then, Duration::from_secs(100));
    assert_eq!(schedule.joined(), 0);
}

#[test]
fn slow_channels_run_slowly_and_leave_room_for_others() {
    /// Half of the places for bursts, for each of two kinds.
    const MANY: u16 = MAX_BURSTING as u16 / 2;
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    let slow = Wanted { layer: 1, ..BLOCK };
    for n in 0..MANY {
        schedule.join(channel(1_000 + n), slow, host(1), Evidence::Joined, now);
        schedule.join(channel(n), BLOCK, host(2), Evidence::Joined, now);
    }
    let seen = run(&mut schedule, now, GATHER + Duration::from_millis(500));
    let sent = |first: u16| -> usize {
        seen.iter()
            .filter_map(|(_, a)| match a {
                Action::Symbols { channel, ids, .. } => Some((channel.group.segments()[7], ids)),
                Action::Ask { .. } => None,
            })
            .filter(|(group, _)| (first..first + 1_000).contains(group))
            .map(|(_, ids)| ids.len())
            .sum()
    };
    let bits = sent(1_000) as u64 * WIRE_SIZE * 8 / u64::from(MANY);
    assert!(
        (800_000..=1_200_000).contains(&bits),
        "{bits} bits in 0.5 s at 2 Mbit/s"
    );
    assert!(sent(0) >= 100 * 256, "{}", sent(0));
}

#[test]
fn more_reporters_than_are_told_apart_are_asked_not_forgotten() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    for n in 0..MAX_REPORTERS as u16 + 3 {
        schedule.join(channel(1), BLOCK, host(n), Evidence::Joined, now);
    }
    let now = now + GATHER;
    schedule.poll(now);
    for n in 0..MAX_REPORTERS as u16 + 2 {
        schedule.part(channel(1), host(n), now);
    }
    assert_eq!(schedule.joined(), 1);
    assert_eq!(
        asks(&run(&mut schedule, now, Duration::from_millis(300))),
        1
    );
}

#[test]
fn a_channel_joined_again_soon_goes_on_where_it_stopped() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
    let mut all = ids(&run(&mut schedule, now, Duration::from_millis(70)));
    schedule.part(channel(1), host(1), now + Duration::from_millis(70));
    schedule.join(
        channel(1),
        BLOCK,
        host(1),
        Evidence::Joined,
        now + Duration::from_millis(80),
    );
    let then = now + Duration::from_millis(80);
    all.extend(ids(&run(&mut schedule, then, Duration::from_millis(70))));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn what_is_upcoming_says_whether_somebody_who_is_there_misses_it() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    let block = Wanted {
        receivers: 2,
        ..BLOCK
    };
    let missed = |schedule: &Schedule| {
        let upcoming = schedule.upcoming(channel(0), 9);
        upcoming.map(|u| u.missed).collect::<Vec<_>>()
    };
    schedule.join(channel(1), block, host(1), Evidence::Joined, now);
    schedule.join(channel(1), block, host(1), Evidence::Joined, now);
    assert_eq!(missed(&schedule), [true]);
    schedule.join(channel(1), block, host(2), Evidence::Joined, now);
    assert_eq!(missed(&schedule), [false]);
}

#[test]
fn a_list_that_several_wait_for_is_sent_with_half_as_much_again() {
    for (receivers, list, sent) in [(1, true, 25), (2, false, 25), (2, true, 25 + 13)] {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        let block = Wanted {
            symbols: 25,
            receivers,
            list,
            ..BLOCK
        };
        schedule.join(channel(1), block, host(1), Evidence::Joined, now);
        let seen = run(&mut schedule, now, Duration::from_millis(25));
        assert_eq!(ids(&seen).len(), sent);
    }
}

#[test]
fn a_stretch_is_sent_once_around_and_then_asked_about() {
    let now = Instant::now();
    let rates = Rates {
        stretch: Some(RATES.channel * 16),
        ..RATES
    };
    let mut schedule = Schedule::new(rates, 1, now);
    let stretch = Wanted {
        symbols: 4_096,
        layer: STRETCH_LAYER,
        start: 256,
        blocks: 16,
        ..BLOCK
    };
    schedule.join(channel(1), stretch, host(1), Evidence::Joined, now);
    let seen = run(&mut schedule, now, Duration::from_secs(1));
    let sent = ids(&seen);
    let around: Vec<u32> = (256..4_096).chain(0..256).collect();
    assert_eq!(sent, around);
    let share = SharePrefix::of_group(channel(1).group).unwrap();
    assert_eq!(schedule.traffic(share).unwrap().blocks(), 16);
    let asked = seen.iter().find(|(_, a)| matches!(a, Action::Ask { .. }));
    let last = seen
        .iter()
        .rfind(|(_, a)| matches!(a, Action::Symbols { .. }));
    let (asked, last) = (asked.unwrap().0, last.unwrap().0);
    assert!(
        asked >= last + Duration::from_millis(200),
        "{asked:?} {last:?}"
    );
    // an answer means that its sender lost the end of it
    schedule.join(
        channel(1),
        stretch,
        host(1),
        Evidence::Confirmed,
        now + asked,
    );
    let more = run(
        &mut schedule,
        now + Duration::from_secs(1),
        Duration::from_secs(1),
    );
    assert_eq!(ids(&more).len(), 4_096);
}

#[test]
fn a_repair_channel_sends_few_symbols_and_waits_for_parts() {
    let now = Instant::now();
    let mut schedule = Schedule::new(RATES, 1, now);
    let repair = Wanted {
        layer: REPAIR_LAYER,
        ..BLOCK
    };
    schedule.join(channel(1), repair, host(1), Evidence::Joined, now);
    let seen = run(&mut schedule, now, GATHER + Duration::from_millis(30));
    let sent = ids(&seen);
    assert!((1..=16).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|id| *id >= 256), "{sent:?}");
    schedule.join(channel(1), repair, host(2), Evidence::Joined, now + GATHER);
    schedule.part(channel(1), host(1), now + GATHER);
    schedule.part(channel(1), host(2), now + GATHER);
    let more = run(&mut schedule, now + GATHER, Duration::from_secs(1));
    assert!(ids(&more).is_empty());
}
