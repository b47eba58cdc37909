//! A sender and receivers in virtual time, with loss; packets that lie.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::id::SecretKey;
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::{Seal, Space};
use proptest::prelude::*;

use super::packet::Lengths;
use super::*;
use crate::drops::DropReason;
use crate::tests::{Xorshift, now, space_of};
use crate::track::TrackName;

const STARTED: u64 = 1_790_000_000_000;
/// Address of the sender.
const SOURCE: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// Delay of the network.
const DELAY: Duration = Duration::from_millis(20);

fn space(seed: u8) -> (SecretKey, Space) {
    space_of(seed, &TrackName::Camera)
}

/// Bytes with the beginning of a frame of VP8. What follows it has a place of its own each.
fn frame(is_key: bool, length: usize, number: u32) -> Vec<u8> {
    let mut bytes = match is_key {
        true => vec![0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0],
        false => vec![0x11, 0, 0],
    };
    // zeros are a header that changes nothing; ones one that changes all
    bytes.resize(length.max(20), 0xff);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// A frame on which none depends.
fn smooth(length: usize, number: u32) -> Vec<u8> {
    let mut bytes = frame(false, length, number);
    // its first partition, in which the flags are
    bytes[..3].copy_from_slice(&[0x11, 2, 0]);
    bytes[3..19].fill(0);
    bytes
}

/// A sender, a receiver, and a network between them.
struct World {
    sender: CameraSender,
    watch: CameraWatch,
    begun: Instant,
    now: Instant,
    random: Xorshift,
    /// Packets on their way.
    way: VecDeque<(Instant, Ipv6Addr, Vec<u8>)>,
    sent: Vec<Vec<u8>>,
    sent_large: Vec<Vec<u8>>,
    /// Frames that came out, and when.
    shown: Vec<(Instant, CameraFrame)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (key, space) = space(7);
        let now = now();
        let started = UnixTime::from_millis(STARTED);
        Self {
            sender: CameraSender::new(&space, key, [1; 32], started, now),
            watch: CameraWatch::new(&space, true, now),
            begun: now,
            now,
            random: Xorshift(seed | 1),
            way: VecDeque::new(),
            sent: Vec::new(),
            sent_large: Vec::new(),
            shown: Vec::new(),
        }
    }

    /// Sends a frame, and lets 66 ms pass. `is_lost`: of a packet, by a random number below 1,000.
    fn frame(&mut self, bytes: Vec<u8>, is_lost: &mut impl FnMut(u64) -> bool) {
        let time = (self.now - self.begun).as_millis() as u32;
        let sent = self.sender.send(CameraSize::Small, &bytes, time, self.now);
        sent.unwrap();
        self.sent.push(bytes);
        self.pass(Duration::from_millis(66), is_lost);
    }

    fn pass(&mut self, time: Duration, is_lost: &mut impl FnMut(u64) -> bool) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(1);
            let now = self.now;
            while let Some((group, packet)) = self.sender.poll_transmit(now) {
                assert!(packet.len() <= 1_143);
                let chance = self.random.below(1_000);
                if !is_lost(chance) {
                    self.way.push_back((now + DELAY, group, packet));
                }
            }
            let joined: Vec<Ipv6Addr> = self.watch.joined_groups().collect();
            while self.way.front().is_some_and(|(at, ..)| *at <= now) {
                if let Some((_, group, packet)) = self.way.pop_front()
                    && joined.contains(&group)
                {
                    self.watch.handle_datagram(group, SOURCE, &packet, now);
                }
            }
            if self.watch.next_timeout().is_some_and(|at| at <= now) {
                self.watch.handle_timeout(now);
            }
            while let Some(frame) = self.watch.poll_frame() {
                self.shown.push((now, frame));
            }
        }
    }

    /// Sends a film: 15 frames a second in two layers, a key each 2 s.
    fn film(&mut self, seconds: u32, is_lost: &mut impl FnMut(u64) -> bool) {
        for _ in 0..seconds * 15 {
            let number = self.sent.len() as u32 + 1;
            let bytes = match (number - 1) % 30 {
                0 => frame(true, 2_900, number),
                at if at % 2 == 0 => frame(false, 1_500, number),
                _ => smooth(900, number),
            };
            self.frame(bytes, is_lost);
        }
    }

    /// Sends a film in both sizes.
    fn film_in_both(&mut self, seconds: u32, is_lost: &mut impl FnMut(u64) -> bool) {
        for _ in 0..seconds * 15 {
            let number = self.sent_large.len() as u32 + 1;
            let is_key = (number - 1).is_multiple_of(30);
            let bytes = frame(is_key, if is_key { 3_500 } else { 2_700 }, number);
            let time = (self.now - self.begun).as_millis() as u32;
            let sent = self.sender.send(CameraSize::Large, &bytes, time, self.now);
            sent.unwrap();
            self.sent_large.push(bytes);
            let number = self.sent.len() as u32 + 1;
            let is_key = (number - 1) % 30 == 15;
            self.frame(frame(is_key || number == 1, 1_500, number), is_lost);
        }
    }

    /// Checks that each frame that came out can be decoded: it follows the one before, or is a key.
    fn check_both(&self) {
        let mut before: Option<(CameraSize, u32)> = None;
        for (_, frame) in &self.shown {
            let sent = match frame.picture {
                CameraSize::Small => &self.sent,
                CameraSize::Large => &self.sent_large,
            };
            assert_eq!(frame.bytes, sent[frame.number as usize - 1]);
            let follows = Some((frame.picture, frame.number - 1));
            assert!(before == follows || frame.size.is_some(), "{before:?}");
            before = Some((frame.picture, frame.number));
        }
    }

    fn joined(&self) -> Vec<Layer> {
        self.watch.layers().joined().collect()
    }

    /// Checks all frames that came out: as sent, in order, and each can be decoded.
    fn check(&self) {
        let (mut through, mut base) = (0, None);
        for (_, frame) in &self.shown {
            let at = frame.number as usize - 1;
            assert_eq!(frame.bytes, self.sent[at]);
            assert!(frame.number > through, "in order");
            through = frame.number;
            let is_base = at.is_multiple_of(2);
            assert_eq!(frame.size, at.is_multiple_of(30).then_some((320, 180)));
            if frame.size.is_none() {
                let needs = if is_base { at - 2 } else { at - 1 };
                assert_eq!(base, Some(needs), "{at}");
            }
            if is_base {
                base = Some(at);
            }
        }
    }

    /// Returns the share of time in which no base frame was in time, in thousandths.
    fn frozen(&self) -> u64 {
        let base = self.shown.iter().filter(|(_, frame)| frame.number % 2 == 1);
        let times: Vec<Instant> = base.map(|(at, _)| *at).collect();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let frozen: Duration = gaps
            .map(|gap| gap.saturating_sub(Duration::from_millis(300)))
            .sum();
        (frozen.as_millis() * 1_000 / (self.now - self.begun).as_millis()) as u64
    }
}

/// Returns loss in bursts of three, of so many of 1,000 packets.
fn bursts(per_mille: u64) -> impl FnMut(u64) -> bool {
    let mut left = 0;
    move |chance| {
        if left == 0 && chance < per_mille / 3 {
            left = 3;
        }
        left = u64::saturating_sub(left, 1);
        left > 0 || chance < per_mille / 3
    }
}

#[test]
fn without_loss_all_frames_come_and_repair_is_not_joined() {
    let mut world = World::new(1);
    world.film(20, &mut |_| false);
    world.check();
    assert_eq!(world.shown.len(), 300);
    let late = world.shown.iter().map(|(at, frame)| {
        let sent = world.begun + Duration::from_millis(frame.time.into());
        *at - sent
    });
    assert!(late.max().unwrap() < DELAY + Duration::from_millis(3));
    assert_eq!(world.joined(), [Layer::Base, Layer::Smooth]);
    assert!(world.watch.drops().by_name().is_empty());
    assert!(!world.watch.has_ended());
    world.sender.end(world.now);
    world.pass(Duration::from_secs(1), &mut |_| false);
    assert!(world.sender.has_ended() && world.watch.has_ended());
}

#[test]
fn a_receiver_that_joins_later_begins_with_the_next_key() {
    let mut world = World::new(1);
    world.film(5, &mut |_| true);
    assert!(world.shown.is_empty());
    world.film(5, &mut |_| false);
    world.check();
    // 75 are lost; key frames are 1, 31, 61, 91
    assert_eq!(world.shown.first().unwrap().1.number, 91);
    assert_eq!(world.shown.len(), 60);
}

#[test]
fn at_five_per_cent_of_loss_repair_leaves_three_per_cent_frozen() {
    for (name, most) in [("single", 20), ("bursts", 50)] {
        let mut world = World::new(77);
        match name {
            "single" => world.film(300, &mut |chance| chance < 50),
            _ => world.film(300, &mut bursts(50)),
        }
        world.check();
        let frozen = world.frozen();
        println!(
            "{name}: {frozen} of 1000 frozen, {} frames",
            world.shown.len()
        );
        assert!(frozen < most, "{name}: {frozen}");
        assert!(world.watch.layers().joined().any(|l| l == Layer::Repair));
    }
}

#[test]
fn a_path_that_loses_too_much_gets_less_and_then_nothing() {
    let mut world = World::new(5);
    world.film(40, &mut |chance| chance < 600);
    world.check();
    assert!(world.watch.layers().is_off());
    assert_eq!(world.watch.joined_groups().count(), 0);
    world.film(60, &mut |_| false);
    world.check();
    assert!(!world.watch.layers().is_off());
    let last = world.shown.last().unwrap().1.number as usize;
    assert!(last > world.sent.len() - 4, "{last}");
}

#[test]
fn who_asks_for_the_large_picture_gets_it_and_no_other_byte() {
    let mut world = World::new(3);
    world.watch.want_large(true, world.now);
    world.film_in_both(3, &mut |_| false);
    assert_eq!(
        world.joined(),
        [Layer::Base, Layer::Smooth],
        "nobody named it"
    );
    world.sender.offer_large(true, world.now);
    world.film_in_both(3, &mut |_| false);
    assert_eq!(world.joined(), [Layer::Large]);
    world.film_in_both(20, &mut |chance| chance < 20);
    assert_eq!(world.joined(), [Layer::Large, Layer::LargeRepair]);
    let of = |world: &World, picture| {
        let frames = world.shown.iter().map(|(_, frame)| frame.picture);
        frames.filter(|one| *one == picture).count()
    };
    // 3 s and up to 2 s more; the rest
    let small = of(&world, CameraSize::Small);
    let large = of(&world, CameraSize::Large);
    assert!(
        (45..=76).contains(&small) && large > 250,
        "{small}, {large}"
    );
    world.check_both();
    // the sender has none any more
    world.sender.offer_large(false, world.now);
    world.film_in_both(4, &mut |_| false);
    assert_eq!(world.joined(), [Layer::Base, Layer::Repair, Layer::Smooth]);
    assert!(of(&world, CameraSize::Small) >= small + 20);
    world.check_both();
    world.sender.offer_large(true, world.now);
    world.film_in_both(3, &mut |_| false);
    assert!(world.watch.layers().shows_large());
    // too much is lost for it
    world.film_in_both(4, &mut |chance| chance < 600);
    assert!(!world.watch.layers().shows_large());
    world.film_in_both(30, &mut |_| false);
    world.check_both();
    // a receiver that has left base learns of the end
    let mut world = World::new(3);
    world.watch.want_large(true, world.now);
    world.sender.offer_large(true, world.now);
    world.film_in_both(3, &mut |_| false);
    assert_eq!(world.joined(), [Layer::Large]);
    world.sender.end(world.now);
    world.pass(Duration::from_secs(1), &mut |_| false);
    assert!(world.sender.has_ended() && world.watch.has_ended());
}

#[test]
fn a_large_picture_that_stops_gives_way_to_the_small_one() {
    let mut world = World::new(3);
    world.watch.want_large(true, world.now);
    world.sender.offer_large(true, world.now);
    world.film_in_both(4, &mut |_| false);
    assert_eq!(world.joined(), [Layer::Large]);
    // its encoder does nothing any more, and nobody says so
    world.film(7, &mut |_| false);
    assert_eq!(world.joined(), [Layer::Base, Layer::Smooth, Layer::Large]);
    let last = &world.shown.last().unwrap().1;
    assert_eq!(last.picture, CameraSize::Small);
    world.film_in_both(4, &mut |_| false);
    assert_eq!(world.joined(), [Layer::Large]);
}

#[test]
fn a_new_run_begins_anew() {
    let mut world = World::new(1);
    world.film(4, &mut |_| false);
    world.check();
    let (key, space) = space(7);
    let started = UnixTime::from_millis(STARTED + 4_000);
    let mut old = std::mem::replace(
        &mut world.sender,
        CameraSender::new(&space, key, [2; 32], started, world.now),
    );
    world.sent.clear();
    world.shown.clear();
    world.film(4, &mut |_| false);
    world.check();
    assert_eq!(world.shown.len(), 60);
    assert!(world.shown.iter().all(|(_, f)| f.run == STARTED + 4_000));
    // packets of the old run count no more
    let key = frame(true, 100, 1);
    old.send(CameraSize::Small, &key, 0, world.now).unwrap();
    while let Some((group, packet)) = old.poll_transmit(world.now) {
        world
            .watch
            .handle_datagram(group, SOURCE, &packet, world.now);
    }
    assert!(world.watch.drops().get(DropReason::OldRun) > 0);
    assert!(world.watch.poll_frame().is_none());
}

#[test]
fn a_reader_that_lost_frames_goes_on_with_a_key() {
    let mut world = World::new(1);
    world.film(3, &mut |_| false);
    world.watch.waiting(5, true, world.now);
    let before = world.shown.len();
    world.film(2, &mut |_| false);
    world.check();
    assert!(world.shown[before].1.size.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn each_frame_that_comes_out_can_be_decoded(seed in any::<u64>(), loss in 0_u64..400) {
        let mut world = World::new(seed);
        world.film(20, &mut |chance| chance < loss);
        world.check();
        let (frames, bytes) = world.watch.stored();
        prop_assert!(frames <= 60 && bytes <= 2_200_000);
    }

    #[test]
    fn packets_come_back(
        numbers in any::<(u64, u32, u32, u32)>(),
        length in 1_u32..64_001,
        piece in any::<u8>(),
        flags in any::<(bool, bool, bool, bool)>(),
    ) {
        let (run, number, base, time) = numbers;
        let lengths = Lengths::of(length as usize);
        let piece = usize::from(piece) % (2 * lengths.pieces);
        let (is_key, is_base, has_ended, is_large) = flags;
        let packet = CameraPacket {
            size: if is_large { CameraSize::Large } else { CameraSize::Small },
            run, number, base, time, has_ended,
            has_large: false,
            piece: Some(Piece {
                is_key, is_base, length, piece: piece as u8,
                bytes: vec![7; lengths.of_piece(piece)],
            }),
        };
        let decoded = CameraPacket::decode(&packet.sign(&space(7).0));
        let is_kind = is_base || !is_key && piece < lengths.pieces;
        let is_right = is_kind && (1..=number).contains(&base);
        prop_assert_eq!(decoded, if is_right { Ok(packet) } else { Err(DropReason::WrongPart) });
    }

    #[test]
    fn any_contents_are_a_packet_or_dropped(bytes in prop::collection::vec(any::<u8>(), 0..1_200)) {
        let _ = CameraPacket::decode(&bytes);
    }
}

/// Hands signed contents to a receiver; returns its drops.
fn drops_of(packets: &[Vec<u8>], key: &SecretKey) -> Vec<(&'static str, u64)> {
    let (owner, space) = space(7);
    let seal = Seal::new(&space);
    let now = now();
    let mut watch = CameraWatch::new(&space, true, now);
    let group = CameraSpace::new(&space).group(Layer::Base);
    assert_eq!(owner.peer_id(), space.owner());
    for (at, message) in packets.iter().enumerate() {
        let signature = key.sign("lcstudio 2026 camera", message);
        let contents = [&signature[..], message].concat();
        let nonce = [at as u8; 24];
        let packet = seal.seal_contents(contents, &nonce).unwrap();
        watch.handle_datagram(group, SOURCE, &packet, now);
    }
    assert!(watch.poll_frame().is_none());
    watch.drops().by_name().into_iter().collect()
}

/// A message of a piece: length, piece, bytes.
fn message(flags: u8, length: u32, piece: u8, bytes: &[u8]) -> Vec<u8> {
    let head = [
        &[17, flags][..],
        &1_u64.to_be_bytes(),
        &[0, 0, 0, 1].repeat(2),
        &[0; 4],
    ]
    .concat();
    [&head[..], &length.to_be_bytes()[1..], &[piece], bytes].concat()
}

#[test]
fn packets_that_lie_are_dropped_by_name() {
    let (key, _) = space(7);
    let huge = [
        &[0x10, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f][..],
        &[0; 10],
    ]
    .concat();
    let of_huge = librecast::parity::parity(0, [&huge[..]].into_iter()).unwrap();
    let whole = frame(true, 20, 1);
    for (packet, name) in [
        // a frame of 16 MiB
        (message(2, 0xff_ffff, 0, &[0; 1_000]), "frame_too_long"),
        (message(2, 64_001, 0, &[0; 1_000]), "frame_too_long"),
        // parities beyond the count of pieces
        (message(2, 20, 255, &whole), "too_many_parts"),
        (message(2, 64_000, 128, &[0; 1_000]), "too_many_parts"),
        (message(2, 20, 0, &whole[..19]), "wrong_part"),
        (message(2, 0, 0, &[]), "wrong_part"),
        (message(6, 20, 0, &whole), "wrong_part"),
        (message(4, 20, 1, &whole), "wrong_part"),
        (message(2, 20, 0, &huge), "picture_too_large"),
        // the key's parity alone restores it
        (message(2, 20, 1, &of_huge), "picture_too_large"),
        (message(0, 20, 0, &whole), "no_picture"),
        (message(2, 20, 0, &[1; 20]), "no_picture"),
        (vec![17, 0], "malformed"),
        (vec![16; 30], "unknown_kind"),
    ] {
        let drops = drops_of(std::slice::from_ref(&packet), &key);
        assert_eq!(drops, [(name, 1)], "{:?}", &packet[..packet.len().min(30)]);
    }
    let stranger = SecretKey::from_seed(&[9; 32]);
    let packet = message(2, 20, 0, &whole);
    assert_eq!(drops_of(&[packet], &stranger), [("not_signed", 1)]);
    // two frames of one number
    let (one, other) = (
        message(2, 2_000, 0, &frame(true, 1_000, 1)),
        message(2, 1_500, 1, &[0; 750]),
    );
    assert_eq!(drops_of(&[one, other], &key), [("wrong_part", 1)]);
}

#[test]
fn more_packets_and_frames_than_a_camera_has_are_dropped() {
    let (key, _) = space(7);
    let mut packets = Vec::new();
    for number in 1..=255_u8 {
        let mut packet = message(0, 64_000, 1, &[0; 1_000]);
        packet[13] = number;
        packet[17] = number;
        packets.push(packet);
    }
    let drops = drops_of(&packets, &key);
    assert!(drops.contains(&("camera_rate", 54)), "{drops:?}");
}

/// A packet of the small picture without a piece of a frame.
fn state(run: u64, number: u32, has_ended: bool) -> CameraPacket {
    CameraPacket {
        size: CameraSize::Small,
        run,
        number,
        base: number,
        time: number,
        has_ended,
        has_large: false,
        piece: None,
    }
}

/// The same with a whole key frame.
fn whole(run: u64, number: u32) -> CameraPacket {
    let bytes = frame(true, 100, 1);
    CameraPacket {
        piece: Some(Piece {
            is_key: true,
            is_base: true,
            length: bytes.len() as u32,
            piece: 0,
            bytes,
        }),
        ..state(run, number, false)
    }
}

fn sealed(contents: Vec<u8>) -> Vec<u8> {
    let seal = Seal::new(&space(7).1);
    seal.seal_contents(contents, &[1; 24]).unwrap()
}

/// Hands a packet to a receiver of the base layer, signed by this key.
fn hear(watch: &mut CameraWatch, key: &SecretKey, packet: &CameraPacket, now: Instant) {
    let group = CameraSpace::new(&space(7).1).group(Layer::Base);
    watch.handle_datagram(group, SOURCE, &sealed(packet.sign(key)), now);
}

#[test]
fn packets_that_others_seal_use_up_no_rate_of_the_sender() {
    let ((key, space), now) = (space(7), now());
    let group = CameraSpace::new(&space).group(Layer::Base);
    let mut watch = CameraWatch::new(&space, true, now);
    let elsewhere = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
    hear(&mut watch, &key, &state(STARTED, 1, false), now);
    // a signed packet that another host sends on does not make it the sender
    let sent_on = sealed(state(STARTED, 2, false).sign(&key));
    watch.handle_datagram(group, elsewhere, &sent_on, now);
    let stranger = SecretKey::from_seed(&[9; 32]);
    for number in 3..1_000 {
        let forged = sealed(state(STARTED, number, false).sign(&stranger));
        watch.handle_datagram(group, elsewhere, &forged, now);
    }
    assert!(watch.drops().get(DropReason::CameraRate) > 0);
    hear(&mut watch, &key, &state(STARTED, 3, true), now);
    assert!(watch.has_ended());
}

#[test]
fn repeated_and_recorded_packets_cost_no_check_and_bring_nothing_back() {
    let ((key, space), now) = (space(7), now());
    let group = CameraSpace::new(&space).group(Layer::Base);
    let mut watch = CameraWatch::new(&space, true, now);
    let hour = 3_600_000;
    let whole = whole(2 * hour, 1);
    let stranger = SecretKey::from_seed(&[9; 32]);
    for _ in 0..1_000 {
        hear(&mut watch, &key, &whole, now);
        hear(&mut watch, &stranger, &whole, now);
        hear(&mut watch, &key, &state(2 * hour, 1, false), now);
    }
    assert!(watch.poll_frame().is_some() && watch.poll_frame().is_none());
    assert_eq!(watch.drops().get(DropReason::CameraRate), 0);
    // contents that nobody signed are none, by a known signature either
    let mut forged = state(2 * hour, 1, false).sign(&key);
    forged[65] = 1;
    watch.handle_datagram(group, SOURCE, &sealed(forged), now);
    assert!(!watch.has_ended());
    assert_eq!(watch.drops().get(DropReason::NotSigned), 1);
    // an earlier state does not take back the end
    hear(&mut watch, &key, &state(2 * hour, 1, true), now);
    hear(&mut watch, &key, &state(2 * hour, 1, false), now);
    assert!(watch.has_ended());
    // after silence an earlier run counts, but not by more than an hour
    let later = now + Duration::from_secs(11);
    hear(&mut watch, &key, &state(hour - 1, 9, false), later);
    assert!(watch.has_ended());
    assert_eq!(watch.drops().get(DropReason::OldRun), 1);
    hear(&mut watch, &key, &state(hour, 9, false), later);
    assert!(!watch.has_ended());
    // nor step by step
    let latest = later + Duration::from_secs(11);
    hear(&mut watch, &key, &state(hour - 1, 9, true), latest);
    assert!(!watch.has_ended());
}

#[test]
fn the_last_numbers_of_a_run_panic_nowhere() {
    let ((key, space), now) = (space(7), now());
    let mut watch = CameraWatch::new(&space, true, now);
    for number in [u32::MAX - 3, u32::MAX, u32::MAX - 1, u32::MAX - 2, u32::MAX] {
        let packet = CameraPacket {
            time: 0,
            ..whole(1, number)
        };
        hear(&mut watch, &key, &packet, now);
    }
    watch.handle_timeout(now + Duration::from_secs(1));
    assert!(watch.poll_frame().is_some());
}

#[test]
fn a_sender_has_bounds() {
    let (key, space) = space(7);
    let mut now = now();
    let started = UnixTime::from_millis(STARTED);
    let mut sender = CameraSender::new(&space, key, [1; 32], started, now);
    let send = |sender: &mut CameraSender, frame: &[u8], now| {
        sender.send(CameraSize::Small, frame, 0, now)
    };
    let plain = frame(false, 500, 1);
    assert_eq!(send(&mut sender, &plain, now), Err(CameraError::NoKey));
    assert_eq!(send(&mut sender, &[], now), Err(CameraError::Length(0)));
    let long = frame(true, 64_001, 1);
    assert_eq!(
        send(&mut sender, &long, now),
        Err(CameraError::Length(64_001))
    );
    let mut huge = frame(true, 500, 1);
    huge[6..10].fill(0xff);
    let size = Vp8Error::Size(16_383, 16_383);
    assert_eq!(send(&mut sender, &huge, now), Err(size.into()));
    // 64 packets a frame: the seventh is too much for two seconds
    let long = frame(true, 64_000, 1);
    for _ in 0..6 {
        assert_eq!(send(&mut sender, &long, now), Ok(()));
    }
    assert_eq!(send(&mut sender, &long, now), Err(CameraError::TooMuch));
    assert_eq!(send(&mut sender, &plain, now), Err(CameraError::NoKey));
    let (mut sent, mut millis) = (0, 0);
    while millis < 1_000 {
        while sender.poll_transmit(now).is_some() {
            sent += 1;
        }
        millis += 1;
        now += Duration::from_millis(1);
    }
    assert!((400..=435).contains(&sent), "{sent} packets, and a state");
    // frames: a burst, and then 31 a second
    now += Duration::from_secs(10);
    while sender.poll_transmit(now).is_some() {}
    let key = frame(true, 100, 1);
    let count = (0..100)
        .filter(|_| send(&mut sender, &key, now).is_ok())
        .count();
    // one of an earlier second is spent
    assert!((29..=30).contains(&count), "{count}");
    assert_eq!(send(&mut sender, &key, now), Err(CameraError::TooMany));
}

#[test]
fn a_sender_that_is_late_keeps_the_order_of_frames() {
    let (key, space) = space(7);
    let mut now = now();
    let started = UnixTime::from_millis(STARTED);
    let mut sender = CameraSender::new(&space, key, [1; 32], started, now);
    let mut watch = CameraWatch::new(&space, true, now);
    for number in 1..=6 {
        let bytes = match number {
            1 => frame(true, 1_500, number),
            _ if number % 2 == 1 => frame(false, 1_500, number),
            _ => smooth(900, number),
        };
        let sent = sender.send(CameraSize::Small, &bytes, number, now);
        sent.unwrap();
        now += Duration::from_millis(66);
    }
    while let Some((group, packet)) = sender.poll_transmit(now) {
        watch.handle_datagram(group, SOURCE, &packet, now);
    }
    let shown = std::iter::from_fn(|| watch.poll_frame());
    let shown: Vec<u32> = shown.map(|frame| frame.number).collect();
    assert_eq!(shown, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn packets_are_frozen() {
    let (key, space) = space(7);
    let mut packet = CameraPacket {
        base: 2,
        time: 66,
        piece: Some(Piece {
            is_key: false,
            is_base: false,
            length: 3,
            piece: 0,
            bytes: vec![1, 2, 3],
        }),
        ..state(STARTED, 3, false)
    };
    let hex = |packet: &CameraPacket| {
        let contents = packet.sign(&key);
        let bytes = contents[64..].iter();
        bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        hex(&packet),
        "1104000001a0c4506c00000000030000000200000042000003000102 03".replace(' ', "")
    );
    packet.piece = None;
    (packet.size, packet.has_large) = (CameraSize::Large, true);
    assert_eq!(hex(&packet), "1208000001a0c4506c00000000030000000200000042");
    let space = CameraSpace::new(&space);
    let groups = Layer::ALL.map(|layer| space.group(layer).to_string());
    assert_eq!(groups, GROUPS);
}

const GROUPS: [&str; 5] = [
    "ff1e:a236:b841:db11:82ab:73cd:c185:8ee0",
    "ff1e:a236:b841:db11:82ab:73cd:c185:8ee1",
    "ff1e:a236:b841:db11:82ab:73cd:c185:8ee2",
    "ff1e:a236:b841:db11:82ab:73cd:c185:8ee4",
    "ff1e:a236:b841:db11:82ab:73cd:c185:8ee5",
];
