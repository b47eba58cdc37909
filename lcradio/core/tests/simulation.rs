//! Casters and listeners on a simulated network, under virtual time: hours in seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcradio_core::{
    Beacon, Caster, CasterConfig, Channel, DropReason, Event, FRAME, Frame, Grant, Latency,
    Listener, MAX_BUFFERED, MAX_CASTERS, Order, Piece, Playout, Profile, RtpHeader, Station,
    StationKey, Transmit, Tuned, WAIT,
};
use librecast::simulated::{Network, Path};
use librecast::time::UnixTime;

pub const TODAY_MS: u64 = 1_800_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const FRAME_TIME: Duration = Duration::from_millis(20);

fn address(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n.into())
}

pub fn key() -> StationKey {
    StationKey::from_seed(&[1; 32])
}

/// Returns the parameters of a caster of music by the station's own key.
pub fn config(seed: u8, started: UnixTime) -> CasterConfig {
    CasterConfig {
        is_public: false,
        grant: None,
        name: "test".into(),
        title: String::new(),
        profile: Profile::Music,
        channels: 2,
        together: None,
        seed: [seed; 32],
        started,
    }
}

/// Returns a CELT packet of Opus with 20 ms, numbered.
pub fn sound(number: u32) -> Vec<u8> {
    [&[31 << 3], &number.to_be_bytes()[..]].concat()
}

pub fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[1..5].try_into().unwrap())
}

/// A caster with its own clock.
struct Sender {
    caster: Caster,
    from: u8,
    /// Its clock's excess speed, in parts per million.
    ppm: f64,
    begun: Duration,
    frames: u32,
}

impl Sender {
    fn next_frame(&self) -> Duration {
        let of_its_own = FRAME_TIME * self.frames;
        self.begun + of_its_own.div_f64(1.0 + self.ppm / 1e6)
    }
}

/// A listener that plays, and records.
struct Receiver {
    listener: Listener,
    playout: Playout,
    order: Order,
    plays_at: Duration,
    /// Numbers that were played, of all sessions.
    played: Vec<u32>,
    recorded: Vec<u32>,
    gaps: u64,
    speeds: Vec<f64>,
    /// Received numbers of each caster but the station's own key.
    granted: BTreeMap<u8, Vec<u32>>,
    /// Ended casters.
    ended: Vec<u8>,
    /// Its wall clock's lead.
    clock_ms: i64,
    sessions: u32,
}

struct World {
    epoch: Instant,
    now: Duration,
    network: Network<Duration, u8, (Channel, Ipv6Addr, Vec<u8>)>,
    senders: Vec<Sender>,
    receiver: Option<Receiver>,
    station: Station,
    /// Everything that was sent as a packet or its copy.
    wire: Vec<Vec<u8>>,
    beacons: Vec<Vec<u8>>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    fn new(public: bool, path: Path) -> Self {
        Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            network: Network::new(path, 1),
            senders: Vec::new(),
            receiver: None,
            station: key().station(public),
            wire: Vec::new(),
            beacons: Vec::new(),
        }
    }

    /// Makes a network with one caster and its listener.
    fn heard(public: bool, path: Path) -> Self {
        let mut world = Self::new(public, path);
        world.cast(1, 0.0);
        world.listen();
        world
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    fn time(&self) -> UnixTime {
        UnixTime::from_millis(TODAY_MS) + self.now
    }

    fn cast(&mut self, from: u8, ppm: f64) {
        self.cast_by(from, ppm, key(), None);
    }

    /// Adds a caster with its own key, and a grant of the station.
    fn cast_granted(&mut self, from: u8, expires_ms: u64) {
        let caster = StationKey::from_seed(&[from; 32]);
        let grant = Grant::new(&key(), self.station.is_public(), &caster.id(), expires_ms);
        self.cast_by(from, 0.0, caster, Some(grant));
    }

    fn cast_by(&mut self, from: u8, ppm: f64, key: StationKey, grant: Option<Grant>) {
        let config = CasterConfig {
            is_public: self.station.is_public(),
            grant,
            ..config(from, self.time())
        };
        let caster = Caster::new(key, config, self.instant()).unwrap();
        self.senders.push(Sender {
            caster,
            from,
            ppm,
            begun: self.now,
            frames: 0,
        });
    }

    fn listen(&mut self) {
        self.listen_to(Tuned::Station(self.station.clone()), Latency::Auto);
    }

    fn listen_to(&mut self, tuned: Tuned, latency: Latency) {
        let now = self.instant();
        self.receiver = Some(Receiver {
            listener: Listener::new(tuned, now),
            playout: Playout::new(latency, now),
            order: Order::default(),
            plays_at: self.now,
            played: Vec::new(),
            recorded: Vec::new(),
            gaps: 0,
            speeds: Vec::new(),
            granted: BTreeMap::new(),
            ended: Vec::new(),
            clock_ms: 0,
            sessions: 0,
        });
    }

    /// Hands a datagram from a host to the listener.
    fn hear(&mut self, channel: Channel, from: u8, datagram: &[u8]) {
        let (now, time) = (self.instant(), self.time());
        let listener = &mut self.receiver.as_mut().unwrap().listener;
        listener.handle_datagram(channel, address(from), datagram, now, time);
    }

    fn receiver(&self) -> &Receiver {
        self.receiver.as_ref().unwrap()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            let epoch = self.epoch;
            let since = |at: Instant| at.saturating_duration_since(epoch);
            let mut times = vec![end];
            for sender in &self.senders {
                times.push(sender.next_frame());
                times.extend(sender.caster.next_timeout().map(since));
            }
            times.extend(self.network.next_timeout());
            if let Some(receiver) = &self.receiver {
                times.push(receiver.plays_at);
                times.push(since(receiver.listener.next_timeout()));
                times.extend(receiver.order.next_timeout().map(since));
            }
            let next = times.into_iter().min().unwrap();
            self.now = next.max(self.now + Duration::from_micros(1));
        }
    }

    fn step(&mut self) {
        self.casters_send();
        self.network_delivers();
        self.receiver_plays();
    }

    fn casters_send(&mut self) {
        let (now, instant, time) = (self.now, self.instant(), self.time());
        for sender in &mut self.senders {
            while sender.next_frame() <= now {
                // an ended caster sends no more
                sender.caster.send(&sound(sender.frames), FRAME, instant);
                sender.frames += 1;
            }
            let source = address(sender.from);
            while let Some(transmit) = sender.caster.poll_transmit(instant) {
                let (channel, datagram) = match transmit {
                    Transmit::Packet(packet) => (Channel::Media, packet),
                    Transmit::Copy(packet) => (Channel::Copy, packet),
                    Transmit::Beacon => {
                        let beacon = sender.caster.beacon(source, time).unwrap();
                        self.beacons.push(beacon.clone());
                        (Channel::Beacon, beacon)
                    }
                    Transmit::Report | Transmit::Announcement | Transmit::Answer => continue,
                };
                if channel != Channel::Beacon {
                    self.wire.push(datagram.clone());
                }
                let payload = (channel, source, datagram);
                self.network.send(sender.from, 0, payload, now);
            }
        }
    }

    fn network_delivers(&mut self) {
        let (instant, time) = (self.instant(), self.time());
        while let Some((channel, source, datagram)) = self.network.poll(self.now) {
            let Some(receiver) = &mut self.receiver else {
                continue;
            };
            if channel == Channel::Copy && !receiver.listener.wants_copy() {
                continue;
            }
            let time = time.as_millis().saturating_add_signed(receiver.clock_ms);
            let time = UnixTime::from_millis(time);
            let listener = &mut receiver.listener;
            listener.handle_datagram(channel, source, &datagram, instant, time);
            receiver.take_events();
        }
    }

    fn receiver_plays(&mut self) {
        let (now, instant) = (self.now, self.instant());
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        receiver.listener.handle_timeout(instant);
        receiver.record(instant);
        while receiver.plays_at <= now {
            let frame = receiver.playout.poll_frame(instant);
            let samples = match frame {
                Frame::Packet(packet) => {
                    receiver.played.push(number(&packet.payload));
                    packet.samples
                }
                Frame::Lost { samples, .. } | Frame::Silence { samples } => samples,
            };
            assert!((1..=FRAME).contains(&samples));
            let ppm = receiver.playout.speed_ppm();
            assert!(ppm.abs() <= 500.0);
            receiver.speeds.push(ppm);
            let plays = FRAME_TIME.mul_f64(f64::from(samples) / f64::from(FRAME));
            receiver.plays_at += plays.div_f64(1.0 + ppm / 1e6);
            let longest = FRAME_TIME * (MAX_BUFFERED as u32 + 1);
            assert!(receiver.playout.stats().buffered <= longest);
        }
    }
}

impl Receiver {
    fn take_events(&mut self) {
        while let Some(event) = self.listener.poll_event() {
            match event {
                Event::Sound(packet) if packet.caster > 0 => {
                    let heard = self.granted.entry(packet.caster).or_default();
                    heard.push(number(&packet.payload));
                }
                Event::Sound(packet) => {
                    if !self.playout.push(packet.clone()) {
                        self.listener.count(DropReason::Expired);
                    }
                    self.order.push(packet);
                }
                Event::Station { .. } => self.sessions += 1,
                Event::Ended { caster } => self.ended.push(caster),
            }
        }
    }

    fn record(&mut self, now: Instant) {
        while let Some(piece) = self.order.poll(now) {
            match piece {
                Piece::Packet(packet) => self.recorded.push(number(&packet.payload)),
                Piece::Gap { packets, .. } => self.gaps += packets,
            }
        }
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.listener.drops().get(reason)
    }
}

fn ascends(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

fn jittery() -> Path {
    Path {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(15),
        ..Path::default()
    }
}

#[test]
fn sound_comes_within_a_second_in_order_and_none_is_lost() {
    for public in [true, false] {
        let mut world = World::new(public, jittery());
        world.cast(1, 0.0);
        world.run(Duration::from_millis(300));
        world.listen();
        world.run(Duration::from_secs(30));
        let receiver = world.receiver();
        // 30 s are 1,500 packets; the first beacon takes up to a second, with early packets kept
        assert!(receiver.played.len() > 1_440, "{}", receiver.played.len());
        assert!(receiver.played[0] < 15 + 50, "{}", receiver.played[0]);
        assert!(ascends(&receiver.played));
        let stats = receiver.playout.stats();
        assert_eq!((stats.underruns, receiver.gaps), (0, 0), "{stats:?}");
        assert!(stats.target < Duration::from_millis(50), "{stats:?}");
        let expected: Vec<u32> = (receiver.recorded[0]..)
            .take(receiver.recorded.len())
            .collect();
        assert_eq!(receiver.recorded, expected);
    }
}

#[test]
fn an_hour_of_clocks_apart_is_followed_without_a_gap() {
    for ppm in [40.0, -40.0, 0.0] {
        let mut world = World::new(false, jittery());
        world.cast(1, ppm);
        world.listen();
        world.run(2 * MINUTE);
        let settled = world.receiver().playout.stats();
        let listened = world.receiver().speeds.len();
        world.run(58 * MINUTE);
        let receiver = world.receiver();
        let stats = receiver.playout.stats();
        assert_eq!(stats.underruns, settled.underruns, "{ppm}: {stats:?}");
        assert_eq!(stats.resyncs, 0);
        assert!(stats.stretched <= settled.stretched + 3, "{stats:?}");
        // 40 ppm of an hour are 144 ms: none of it is left in the buffer
        let buffered = stats.buffered.as_millis();
        assert!((20..90).contains(&buffered), "{ppm}: {stats:?}");
        let speeds = &receiver.speeds[listened..];
        let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
        assert!((mean - ppm).abs() < 10.0, "{ppm}: followed by {mean}");
        assert!(ascends(&receiver.played));
        assert_eq!(receiver.gaps, 0);
        eprintln!("{ppm} ppm: followed by {mean:.1} ppm, {stats:?}");
    }
}

#[test]
fn the_rollover_is_passed_and_who_comes_after_it_hears_at_once() {
    let mut world = World::heard(false, jittery());
    // 65,536 packets are 21.8 minutes; the first number is below 32,768
    world.run(23 * MINUTE);
    let receiver = world.receiver();
    assert!(receiver.played.len() > 68_000);
    assert_eq!(receiver.gaps, 0);
    assert_eq!(receiver.drops(DropReason::NotOpened), 0);
    world.listen();
    world.run(Duration::from_millis(1_200));
    let receiver = world.receiver();
    assert!(!receiver.played.is_empty());
    assert_eq!(receiver.drops(DropReason::NotOpened), 0);
}

#[test]
fn a_restarted_caster_is_heard_again_and_seals_nothing_twice() {
    let mut world = World::new(false, jittery());
    world.listen();
    for restart in 1..=20 {
        world.senders.clear();
        world.run(Duration::from_millis(500));
        world.cast(restart, 0.0);
        let before = world.receiver().played.len();
        world.run(Duration::from_secs(3));
        let played = world.receiver().played.len() - before;
        assert!(played > 100, "{restart}: {played} packets in 3 s");
    }
    assert_eq!(world.receiver().sessions, 20);
    // the nonce is SSRC and number under the key of a session
    let key = key();
    let mut sessions = BTreeMap::new();
    for beacon in &world.beacons {
        let beacon = Beacon::decode(beacon, &key.station(false)).unwrap();
        let ssrc = sessions.insert(beacon.session, beacon.ssrc);
        assert!(ssrc.is_none_or(|ssrc| ssrc == beacon.ssrc));
    }
    assert_eq!(sessions.len(), 20);
    let ssrcs: BTreeSet<u32> = sessions.into_values().collect();
    assert_eq!(ssrcs.len(), 20);
    let mut sealed: BTreeMap<(u32, u16), &[u8]> = BTreeMap::new();
    for packet in &world.wire {
        let (header, _) = RtpHeader::read(packet).unwrap();
        let before = sealed.insert((header.ssrc, header.sequence), packet);
        // the copy is the same packet, to the last bit
        assert!(before.is_none_or(|before| before == packet));
    }
    // and salts of beacons: each has its own key
    let salts: BTreeSet<&[u8]> = world.beacons.iter().map(|b| &b[1..17]).collect();
    assert_eq!(salts.len(), world.beacons.len());
}

#[test]
fn the_copy_repairs_what_loss_takes_and_is_left_when_all_is_well() {
    let lossy = Path {
        loss: 0.05,
        ..jittery()
    };
    let mut world = World::heard(true, lossy);
    world.run(Duration::from_secs(15));
    assert!(world.receiver().listener.wants_copy());
    let before = world.receiver().listener.loss();
    world.run(5 * MINUTE);
    let loss = world.receiver().listener.loss();
    let sent = loss.sent - before.sent;
    let lost_before = (loss.lost_before_copy - before.lost_before_copy) * 10_000 / sent;
    let lost = (loss.lost - before.lost) * 10_000 / sent;
    eprintln!("lost before the copy {lost_before}, after {lost} of 10,000");
    assert!((400..600).contains(&lost_before), "{lost_before}");
    // 5 % of 5 % are 25
    assert!(lost < 50, "{lost}");
    world.network.path.loss = 0.0;
    world.run(Duration::from_secs(70));
    assert!(!world.receiver().listener.wants_copy());
    assert!(ascends(&world.receiver().played));
}

#[test]
fn what_comes_out_of_order_or_twice_is_played_once_and_in_order() {
    let wild = Path {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(90),
        loss: 0.01,
        duplicates: 0.2,
    };
    let mut world = World::heard(false, wild);
    world.run(2 * MINUTE);
    let receiver = world.receiver();
    assert!(ascends(&receiver.played));
    assert!(ascends(&receiver.recorded));
    assert!(receiver.drops(DropReason::Duplicate) > 500);
    let stats = receiver.playout.stats();
    // the buffer waits for a jitter of 90 ms
    assert!(stats.target >= Duration::from_millis(80), "{stats:?}");
    assert!(stats.target <= Duration::from_millis(250), "{stats:?}");
    let share = receiver.played.len() as f64 / 6_000.0;
    assert!(share > 0.96, "{share}");
}

#[test]
fn jitter_raises_the_delay_at_once_and_calm_lowers_it_slowly() {
    let mut world = World::heard(true, jittery());
    world.run(Duration::from_secs(30));
    let target = |world: &World| world.receiver().playout.stats().target;
    let calm = target(&world);
    world.network.path.jitter = Duration::from_millis(150);
    world.run(Duration::from_secs(3));
    let wild = target(&world);
    assert!(wild > calm + Duration::from_millis(70), "{calm:?} {wild:?}");
    world.network.path.jitter = Duration::from_millis(15);
    world.run(Duration::from_secs(20));
    let later = target(&world);
    assert!(
        later < wild && later > calm + Duration::from_millis(40),
        "{later:?}"
    );
    world.run(4 * MINUTE);
    assert!(target(&world) < Duration::from_millis(60));
    // as the target fell, sound was played faster, and nothing was skipped
    assert_eq!(world.receiver().playout.stats().resyncs, 0);
    assert!(ascends(&world.receiver().played));
}

#[test]
fn a_host_that_slept_goes_on_with_what_is_sent_now() {
    let mut world = World::heard(true, jittery());
    world.run(Duration::from_secs(10));
    // for five seconds the player requests no sound
    world.receiver.as_mut().unwrap().plays_at += Duration::from_secs(5);
    world.run(Duration::from_secs(10));
    let receiver = world.receiver();
    assert!(ascends(&receiver.played));
    let stats = receiver.playout.stats();
    assert_eq!(stats.resyncs, 1, "{stats:?}");
    let last = *receiver.played.last().unwrap();
    assert!(last > 20 * 50 - 10, "behind: {last}");
}

#[test]
fn another_key_hears_nothing_and_knows_that_somebody_sends() {
    let mut world = World::new(false, jittery());
    world.cast(1, 0.0);
    // the caster has another key; its packets arrive all the same
    let other = StationKey::from_seed(&[9; 32]).station(false);
    world.listen_to(Tuned::Station(other), Latency::Auto);
    world.run(MINUTE);
    let receiver = world.receiver();
    assert_eq!((receiver.played.len(), receiver.recorded.len()), (0, 0));
    assert!(receiver.listener.is_of_another_key());
    assert!(receiver.drops(DropReason::BeaconNotOpened) > 50);
}

#[test]
fn of_two_casters_the_later_one_is_heard_and_the_earlier_one_learns_of_it() {
    let mut world = World::heard(false, jittery());
    world.run(Duration::from_secs(5));
    world.cast(2, 0.0);
    world.run(Duration::from_secs(5));
    let receiver = world.receiver();
    assert_eq!(receiver.sessions, 2, "no switching to and fro");
    assert!(receiver.drops(DropReason::OtherSource) > 100);
    assert!(receiver.drops(DropReason::BeaconOlder) > 2);
    let of = |n: usize| Beacon::decode(&world.beacons[n], &world.station).unwrap();
    let later = (0..world.beacons.len()).find(|n| of(*n).source == address(2));
    let earlier = (0..world.beacons.len()).find(|n| of(*n).source == address(1));
    let (later, earlier) = (
        &world.beacons[later.unwrap()],
        &world.beacons[earlier.unwrap()],
    );
    let now = world.time();
    let told = |sender: usize, beacon: &[u8], from| {
        let caster = &world.senders[sender].caster;
        caster.is_superseded_by(beacon, address(from), now)
    };
    assert!(told(0, later, 2));
    assert!(!told(1, earlier, 1));
    assert!(!told(0, earlier, 1), "its own beacon");
    assert!(!told(0, later, 3), "sent on by another host");
    // the later one disappears: the earlier one is played again
    world.senders.pop();
    world.run(Duration::from_secs(8));
    assert_eq!(world.receiver().sessions, 3);
}

#[test]
fn an_end_is_told_and_what_was_sent_before_it_is_played() {
    let mut world = World::heard(true, jittery());
    world.run(Duration::from_secs(10));
    let now = world.instant();
    let sent = world.senders[0].frames;
    world.senders[0].caster.end(now);
    world.run(Duration::from_secs(3));
    assert!(world.senders[0].caster.has_ended());
    let receiver = world.receiver();
    assert_eq!(receiver.ended, [0]);
    assert_eq!(*receiver.played.last().unwrap(), sent - 1);
    assert_eq!(*receiver.recorded.last().unwrap(), sent - 1);
}

#[test]
fn clocks_may_be_a_minute_apart_and_a_recording_of_yesterday_is_not_heard() {
    for (clock_ms, is_heard) in [(60_000, true), (-3_500_000, true), (86_400_000, false)] {
        let mut world = World::heard(true, jittery());
        world.receiver.as_mut().unwrap().clock_ms = clock_ms;
        world.run(Duration::from_secs(5));
        let receiver = world.receiver();
        assert_eq!(!receiver.played.is_empty(), is_heard, "{clock_ms}");
        let refused = receiver.drops(DropReason::BeaconTime);
        assert_eq!(refused > 0, !is_heard, "{clock_ms}");
    }
}

#[test]
fn what_others_send_into_the_group_is_not_played() {
    let mut world = World::heard(true, jittery());
    world.run(Duration::from_secs(2));
    // the packets of the caster, from another address, with another SSRC, or both
    let packet = world.wire.last().unwrap().clone();
    let beacon = world.beacons.last().unwrap().clone();
    let before = world.receiver().played.len();
    let mut other = packet.clone();
    other[8] ^= 1;
    other[3] ^= 1;
    world.hear(Channel::Media, 7, &packet);
    world.hear(Channel::Media, 1, &other);
    world.hear(Channel::Beacon, 7, &beacon);
    assert_eq!(world.receiver().drops(DropReason::OtherSource), 2);
    assert_eq!(world.receiver().drops(DropReason::BeaconSource), 1);
    // a flood is cut off
    for _ in 0..10_000 {
        world.hear(Channel::Media, 7, &packet);
    }
    let receiver = world.receiver.as_mut().unwrap();
    assert!(receiver.drops(DropReason::Rate) > 9_000);
    assert!(receiver.listener.poll_event().is_none());
    assert_eq!(receiver.played.len(), before);
}

#[test]
fn a_foreign_sender_is_played_without_beacons() {
    let sdp = "v=0\ns=x\nc=IN IP6 ff1e::9\nm=audio 5004 RTP/AVP 97\na=rtpmap:97 opus/48000/2\n";
    let description = lcradio_core::read_description(sdp.as_bytes()).unwrap();
    let mut world = World::new(true, jittery());
    world.listen_to(Tuned::Unsigned(description), Latency::Safe);
    for frame in 0..500_u32 {
        let header = RtpHeader {
            marker: frame == 0,
            payload_type: 97,
            // both wrap
            sequence: 65_400_u16.wrapping_add(frame as u16),
            timestamp: 4_294_900_000_u32.wrapping_add(frame * FRAME),
            ssrc: 5,
            padded: false,
        };
        let packet = [&header.write()[..], &sound(frame)].concat();
        let payload = (Channel::Media, address(3), packet);
        world.network.send(3, 0, payload, world.now);
        world.run(FRAME_TIME);
    }
    world.run(WAIT);
    let receiver = world.receiver();
    assert_eq!(receiver.played, (0..500).collect::<Vec<u32>>());
    assert_eq!(receiver.sessions, 1);
}

#[test]
fn a_caster_that_pauses_leaves_silence_and_nothing_lost() {
    let mut world = World::heard(true, jittery());
    world.run(Duration::from_secs(3));
    let sender = &mut world.senders[0];
    sender.begun += Duration::from_secs(1);
    sender.caster.pause(48_000);
    world.run(Duration::from_secs(5));
    let receiver = world.receiver();
    assert_eq!(receiver.listener.loss().lost, 0);
    let played = receiver.played.len() as u32;
    assert_eq!(receiver.played, (0..played).collect::<Vec<u32>>());
}

#[test]
fn casters_by_grants_are_heard_together_each_in_order_and_end_by_themselves() {
    for public in [true, false] {
        let mut world = World::heard(public, jittery());
        let tomorrow = world.time().as_millis() + 86_400_000;
        for from in [2, 3] {
            world.cast_granted(from, tomorrow);
        }
        world.run(Duration::from_secs(10));
        let receiver = world.receiver();
        assert_eq!(receiver.listener.on_air(world.instant()).count(), 3);
        assert_eq!(receiver.granted.len(), 2);
        for heard in receiver.granted.values() {
            // jitter is less than the time between two packets
            assert!(ascends(heard) && heard.len() > 440, "{}", heard.len());
        }
        assert!(receiver.played.len() > 440);
        let count = receiver.listener.loss();
        assert_eq!(count.lost, 0);
        // one of them restarts: it keeps its place
        world.senders.retain(|sender| sender.from != 2);
        world.cast_granted(2, tomorrow);
        world.run(Duration::from_secs(3));
        assert_eq!(world.receiver().granted.len(), 2);
        let now = world.instant();
        let ends = world.senders.iter_mut().find(|sender| sender.from == 3);
        ends.unwrap().caster.end(now);
        world.run(Duration::from_secs(2));
        let receiver = world.receiver();
        assert_eq!(receiver.ended.len(), 1);
        let on_air: Vec<u8> = receiver
            .listener
            .on_air(world.instant())
            .map(|(n, _)| n)
            .collect();
        assert!(
            on_air.len() == 2 && !on_air.contains(&receiver.ended[0]),
            "{on_air:?}"
        );
        // neither takes the other for a second one with its key
        let beacon = world.beacons.iter().rev().find_map(|beacon| {
            let source = Beacon::decode(beacon, &world.station).unwrap().source;
            (source == address(2)).then(|| beacon.clone())
        });
        let own = &world.senders[0].caster;
        assert!(!own.is_superseded_by(&beacon.unwrap(), address(2), world.time()));
    }
}

#[test]
fn a_grant_ends_at_its_time_for_who_casts_then_and_for_who_begins_later() {
    let mut world = World::new(false, jittery());
    world.listen();
    let expires_ms = world.time().as_millis() + 5_000;
    world.cast_granted(2, expires_ms);
    world.run(Duration::from_secs(10));
    let receiver = world.receiver();
    let heard = receiver.granted[&1].len();
    assert!((200..260).contains(&heard), "{heard}");
    assert_eq!(receiver.ended, [1]);
    assert!(receiver.drops(DropReason::GrantExpired) > 3);
    assert_eq!(receiver.listener.on_air(world.instant()).count(), 0);
    world.listen();
    world.run(Duration::from_secs(3));
    assert!(world.receiver().granted.is_empty());
    assert!(!world.receiver().listener.has_session());
}

#[test]
fn grants_of_others_open_nothing_and_of_too_many_casters_the_stations_own_key_is_heard() {
    let mut world = World::new(true, jittery());
    world.listen();
    let tomorrow = world.time().as_millis() + 86_400_000;
    for from in 2..12 {
        world.cast_granted(from, tomorrow);
    }
    world.run(Duration::from_secs(3));
    let receiver = world.receiver();
    assert_eq!(receiver.granted.len(), MAX_CASTERS - 1);
    assert!(receiver.drops(DropReason::CastersFull) >= 9);
    world.cast(1, 0.0);
    // a caster with a self-made grant
    let thief = StationKey::from_seed(&[99; 32]);
    let beacon = Beacon::decode(&world.beacons[0], &world.station).unwrap();
    let beacon = Beacon {
        grant: Some(Grant::new(&thief, true, &thief.id(), tomorrow)),
        source: address(99),
        ..beacon
    };
    let beacon = beacon.encode(&thief, &world.station, [0; 16]).unwrap();
    world.hear(Channel::Beacon, 99, &beacon);
    assert_eq!(world.receiver().drops(DropReason::GrantForged), 1);
    world.run(Duration::from_secs(3));
    let receiver = world.receiver();
    assert!(receiver.played.len() > 100, "{}", receiver.played.len());
    // one of the seven goes: another takes its place
    world.senders.retain(|sender| sender.from != 2);
    world.run(Duration::from_secs(8));
    let sessions = world.receiver().sessions;
    assert_eq!(sessions as usize, MAX_CASTERS + 1);
}
