//! Listeners in step, in virtual time: each host has a clock of its own, wrong and drifting.
//!
//! The truth is the time of the simulation: the moment at which each sample sounds.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcradio_core::{
    BEACON_PORT, Caster, CasterConfig, DropReason, FRAME, Following, Frame, Latency, MEDIA_PORT,
    Playout, Reception, Transmit, Tuned, TunedStation,
};
use librecast::random::Random;
use librecast::simulated::Queue;
use librecast::time::UnixTime;

use crate::simulation::{TODAY_MS, config, key, number, sound};

const CASTER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
/// Samples of a second.
const RATE: f64 = 48_000.0;

/// A host's clock at a time of the simulation.
#[derive(Debug, Clone, Copy)]
struct Clock {
    epoch: Instant,
    ahead: Duration,
    ppm: f64,
}

impl Clock {
    fn at(&self, time: Duration) -> Instant {
        self.epoch + self.ahead + time.mul_f64(1.0 + self.ppm / 1e6)
    }

    /// Returns the time of the simulation at which it shows this.
    fn time(&self, at: Instant) -> Duration {
        let since = at.saturating_duration_since(self.epoch + self.ahead);
        since.div_f64(1.0 + self.ppm / 1e6)
    }
}

/// A path between the caster and a listener: each way has its least time.
#[derive(Debug, Clone, Copy)]
struct Way {
    there_ms: f64,
    back_ms: f64,
    jitter_ms: f64,
    loss: f64,
}

/// A path of 40 ms with jitter and loss, and one next door.
const FAR: Way = Way {
    there_ms: 40.0,
    back_ms: 40.0,
    jitter_ms: 3.0,
    loss: 0.05,
};
const NEAR: Way = Way {
    there_ms: 0.1,
    back_ms: 0.1,
    jitter_ms: 0.2,
    loss: 0.0,
};

/// Its group, and the datagram.
type Question = (Ipv6Addr, Vec<u8>);
/// The time of a frame, and when sample 0 would have sounded in seconds, had it been played so.
type Heard = (Duration, f64);

#[derive(Debug, Clone)]
enum Datagram {
    ToListener(usize, (Ipv6Addr, u16), Vec<u8>),
    Question(usize, Ipv6Addr, Vec<u8>),
}

/// A listener with a pipe, whose reader has the truth.
struct Room {
    clock: Clock,
    way: Way,
    /// Its loudspeakers' clock against its host's, and their delay.
    device_ppm: f64,
    lead: Duration,
    station: TunedStation,
    playout: Playout,
    plays_at: Duration,
    /// Frames with sound.
    heard: Vec<Heard>,
    questions: u32,
    answers: Vec<Vec<u8>>,
    is_deaf: bool,
    is_stopped: bool,
    /// Datagrams that came while it was stopped.
    waiting: Vec<Datagram>,
}

struct World {
    now: Duration,
    clock: Clock,
    caster: Caster,
    /// Frames that the caster has sent, and its clock of sound.
    frames: u32,
    sound_ppm: f64,
    rooms: Vec<Room>,
    on_the_way: Queue<Duration, Datagram>,
    random: Random,
}

fn clock(epoch: Instant, ahead_s: u64, ppm: f64) -> Clock {
    Clock {
        epoch,
        ahead: Duration::from_secs(ahead_s),
        ppm,
    }
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1e3)
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    fn new(together_ms: Option<u64>, sound_ppm: f64, seed: u64) -> Self {
        let clock = clock(Instant::now(), 20, 0.0);
        let config = CasterConfig {
            together: together_ms.map(Duration::from_millis),
            ..config(2, UnixTime::from_millis(TODAY_MS))
        };
        Self {
            now: Duration::ZERO,
            caster: Caster::new(key(), config, clock.at(Duration::ZERO)).unwrap(),
            clock,
            frames: 0,
            sound_ppm,
            rooms: Vec::new(),
            on_the_way: Queue::default(),
            random: Random::new(seed),
        }
    }

    fn add(&mut self, ahead_s: u64, ppm: f64, way: Way) -> &mut Room {
        let clock = clock(self.clock.epoch, ahead_s, ppm);
        let now = clock.at(self.now);
        let mut station = TunedStation::new(Tuned::Station(key().station(false)), now);
        station.play_in_step([self.rooms.len() as u8; 32]);
        self.rooms.push(Room {
            clock,
            way,
            device_ppm: 0.0,
            lead: Duration::ZERO,
            station,
            playout: Playout::new(Latency::Auto, now),
            plays_at: self.now,
            heard: Vec::new(),
            questions: 0,
            answers: Vec::new(),
            is_deaf: false,
            is_stopped: false,
            waiting: Vec::new(),
        });
        self.rooms.last_mut().unwrap()
    }

    fn next_frame(&self) -> Duration {
        (Duration::from_millis(20) * self.frames).div_f64(1.0 + self.sound_ppm / 1e6)
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            let mut times = vec![end, self.next_frame()];
            times.extend(self.caster.next_timeout().map(|at| self.clock.time(at)));
            times.extend(self.on_the_way.next_at());
            for room in self.rooms.iter().filter(|room| !room.is_stopped) {
                times.push(room.plays_at);
                times.push(room.clock.time(room.station.next_timeout()));
            }
            let next = times.into_iter().min().unwrap();
            self.now = next.max(self.now + Duration::from_micros(1));
        }
    }

    fn step(&mut self) {
        let now = self.clock.at(self.now);
        while self.next_frame() <= self.now {
            assert!(self.caster.send(&sound(self.frames), FRAME, now));
            self.frames += 1;
        }
        self.casts(now);
        while let Some((_, datagram)) = self.on_the_way.pop(self.now) {
            match datagram {
                Datagram::Question(room, group, datagram) => {
                    let groups = self.caster.clock_groups().unwrap();
                    assert_eq!(group, groups.questions);
                    let source = Ipv6Addr::from(u128::from(CASTER) + 1 + room as u128);
                    self.caster.handle_question(&datagram, source, now);
                }
                Datagram::ToListener(room, ..) if self.rooms[room].is_stopped => {
                    self.rooms[room].waiting.push(datagram);
                }
                Datagram::ToListener(room, to, datagram) => {
                    self.rooms[room].receive(to, &datagram, self.now);
                }
            }
        }
        for room in 0..self.rooms.len() {
            if self.rooms[room].is_stopped {
                continue;
            }
            let (questions, plays) = self.rooms[room].turn(self.now);
            for (group, question) in questions {
                let way = self.rooms[room].way;
                let takes = self.takes(way, way.there_ms);
                if let Some(takes) = takes {
                    let question = Datagram::Question(room, group, question);
                    self.on_the_way.push(self.now + takes, question);
                }
            }
            self.rooms[room].heard.extend(plays);
        }
    }

    /// Draws the time of a datagram, none if it is lost.
    fn takes(&mut self, way: Way, least_ms: f64) -> Option<Duration> {
        let lost = self.random.chance(way.loss);
        let takes = ms(least_ms + way.jitter_ms * self.random.unit());
        (!lost).then_some(takes)
    }

    fn casts(&mut self, now: Instant) {
        let station = key().station(false);
        let time = UnixTime::from_millis(TODAY_MS) + self.now;
        while let Some(transmit) = self.caster.poll_transmit(now) {
            let (to, datagram) = match transmit {
                Transmit::Packet(packet) => ((station.group(), MEDIA_PORT), packet),
                Transmit::Copy(packet) => ((station.copy_group(), MEDIA_PORT), packet),
                Transmit::Beacon => {
                    let beacon = self.caster.beacon(CASTER, time).unwrap();
                    ((station.group(), BEACON_PORT), beacon)
                }
                Transmit::Answer => {
                    let groups = self.caster.clock_groups().unwrap();
                    let answer = self.caster.answer(now).unwrap();
                    ((groups.answers, BEACON_PORT), answer)
                }
                Transmit::Report | Transmit::Announcement => continue,
            };
            for room in 0..self.rooms.len() {
                let way = self.rooms[room].way;
                if let Some(takes) = self.takes(way, way.back_ms) {
                    let datagram = Datagram::ToListener(room, to, datagram.clone());
                    self.on_the_way.push(self.now + takes, datagram);
                }
            }
        }
    }

    /// Returns by how much two rooms are apart in milliseconds, each second from `from_s` on.
    fn apart(&self, from_s: u64) -> Vec<f64> {
        let end = self.now.as_secs();
        let seconds = from_s..end;
        seconds
            .filter_map(|second| {
                let at = |room: &Room| room.position(Duration::from_secs(second));
                let (a, b) = (at(&self.rooms[0])?, at(&self.rooms[1])?);
                Some((a - b) * 1e3)
            })
            .collect()
    }
}

impl Room {
    fn receive(&mut self, to: (Ipv6Addr, u16), datagram: &[u8], time: Duration) {
        let now = self.clock.at(time);
        let is_copy = to.0 == key().station(false).copy_group();
        if is_copy && self.station.copy_group().is_none() {
            return;
        }
        let is_answer = self.station.answer_groups().any(|group| group == to.0);
        if is_answer {
            self.answers.push(datagram.to_vec());
            if self.is_deaf {
                return;
            }
        }
        let unix = UnixTime::from_millis(TODAY_MS) + time;
        self.station
            .handle_datagram(to, CASTER, datagram, now, unix);
        while let Some(event) = self.station.poll_event(now) {
            if let Reception::Sound(packet) = event {
                self.playout.push(packet);
            }
        }
    }

    /// Returns due questions, and played frames.
    fn turn(&mut self, time: Duration) -> (Vec<Question>, Vec<Heard>) {
        let now = self.clock.at(time);
        self.station.handle_timeout(now);
        let questions = std::iter::from_fn(|| self.station.poll_question(now));
        let questions: Vec<_> = questions
            .map(|(_, group, question)| (group, question))
            .collect();
        self.questions += questions.len() as u32;
        let mut heard = Vec::new();
        while self.plays_at <= time {
            let following = self.station.following(0, now);
            self.playout.follow(following, Some(self.lead), now);
            let sounds_at = self.plays_at + self.lead;
            let is_in_step = self.playout.step().is_some_and(|step| !step.is_behind);
            let asked = if is_in_step { sounds_at } else { self.plays_at };
            let frame = self.playout.poll_frame(self.clock.at(asked));
            let samples = match &frame {
                Frame::Packet(packet) => {
                    let since = f64::from(number(&packet.payload) * FRAME) / RATE;
                    heard.push((sounds_at, sounds_at.as_secs_f64() - since));
                    packet.samples
                }
                Frame::Lost { samples, .. } | Frame::Silence { samples } => *samples,
            };
            assert!((1..=FRAME).contains(&samples));
            let ppm = self.playout.speed_ppm();
            assert!(ppm.abs() <= 500.0, "{ppm}");
            let own = 1.0 + (ppm + self.device_ppm) / 1e6;
            // by its host's clock, or by its device's
            let length = f64::from(samples) / RATE / own / (1.0 + self.clock.ppm / 1e6);
            self.plays_at += Duration::from_secs_f64(length);
        }
        (questions, heard)
    }

    /// Returns when the first sample sounds, by the last frame before this time, in seconds.
    fn position(&self, time: Duration) -> Option<f64> {
        let before = self.heard.partition_point(|(at, _)| *at <= time);
        let (at, position) = self.heard.get(before.checked_sub(1)?)?;
        (time.saturating_sub(*at) < Duration::from_millis(100)).then_some(*position)
    }
}

/// Returns median and worst of absolute values.
fn figures(values: &[f64]) -> (f64, f64) {
    let mut all: Vec<f64> = values.iter().map(|v| v.abs()).collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() - 1])
}

#[test]
fn rooms_are_in_step_over_paths_and_by_clocks_that_differ() {
    for (seed, sound_ppm, loss) in [(1, 0.0, 0.05), (2, 100.0, 0.0), (3, -100.0, 0.2)] {
        let mut world = World::new(Some(150), sound_ppm, seed);
        world.run(Duration::from_secs(5));
        world.add(5, 100.0, NEAR);
        world.add(15, -100.0, Way { loss, ..FAR });
        world.run(Duration::from_secs(60));
        let apart = world.apart(7);
        assert!(apart.len() > 50, "{}", apart.len());
        let (median, worst) = figures(&apart);
        eprintln!("{sound_ppm} ppm, {loss}: median {median:.3}, worst {worst:.3} ms");
        assert!(worst <= 1.5 && median <= 0.5, "{seed} {loss}: {apart:.2?}");
        let exact = apart.iter().filter(|apart| apart.abs() <= 1.0).count();
        assert!(exact * 20 >= apart.len() * 19, "{seed} {loss}: {apart:.2?}");
        // and 150 ms behind the caster, by the clock of its sound
        for room in &world.rooms {
            let behind = room.position(Duration::from_secs(60)).unwrap();
            let drift = 60.0 * sound_ppm / 1e6;
            let error = (behind + drift - 0.150).abs();
            assert!(error < 0.008, "{behind}");
        }
    }
}

#[test]
fn without_the_casters_word_the_same_rooms_are_as_far_apart_as_their_paths() {
    let mut world = World::new(None, 0.0, 1);
    world.add(5, 100.0, NEAR);
    world.add(15, -100.0, FAR);
    world.run(Duration::from_secs(60));
    let (median, _) = figures(&world.apart(7));
    assert!(median > 30.0, "{median}");
    let asked: u32 = world.rooms.iter().map(|room| room.questions).sum();
    assert_eq!(asked, 0);
}

#[test]
fn loudspeakers_with_clocks_and_delays_of_their_own_are_in_step() {
    let mut world = World::new(Some(150), 50.0, 4);
    for (ppm, device_ppm, lead) in [(80.0, 120.0, 60), (-80.0, -120.0, 30)] {
        let room = world.add(7, ppm, NEAR);
        (room.device_ppm, room.lead) = (device_ppm, Duration::from_millis(lead));
    }
    world.run(Duration::from_secs(90));
    let apart = world.apart(3);
    let (median, worst) = figures(&apart);
    eprintln!("devices: median {median:.3}, worst {worst:.3} ms");
    assert!(worst <= 1.0, "{apart:.2?}");
    let settled = figures(&world.apart(60)).1;
    assert!(settled < 0.3, "{settled}");
}

#[test]
fn a_path_that_is_longer_one_way_moves_its_room_by_half_of_that_and_no_more() {
    for (there_ms, back_ms) in [(5.0, 25.0), (25.0, 5.0)] {
        let mut world = World::new(Some(150), 0.0, 5);
        world.add(5, 50.0, NEAR);
        let way = Way {
            there_ms,
            back_ms,
            ..NEAR
        };
        world.add(15, -50.0, way);
        world.run(Duration::from_secs(30));
        for apart in world.apart(4) {
            let half = (there_ms - back_ms) / 2.0;
            assert!((apart - half).abs() < 0.6, "{apart} of {half}");
        }
    }
}

#[test]
fn a_room_that_needs_more_plays_at_once_and_in_step_when_its_path_is_better() {
    let mut world = World::new(Some(60), 0.0, 6);
    world.add(5, 0.0, NEAR);
    let way = Way {
        there_ms: 90.0,
        back_ms: 90.0,
        ..NEAR
    };
    world.add(15, 0.0, way);
    world.run(Duration::from_secs(10));
    let step = world.rooms[1].playout.step().unwrap();
    assert!(step.is_behind, "{step:?}");
    assert_eq!(step.needed.as_millis() / 10, 9, "{step:?}");
    let sounds = |world: &World| {
        let heard = &world.rooms[1].heard;
        let from = world.now.saturating_sub(Duration::from_secs(3));
        heard.iter().filter(|(at, _)| *at > from).count()
    };
    assert!(sounds(&world) > 140, "{}", sounds(&world));
    assert!(!world.rooms[0].playout.step().unwrap().is_behind);
    world.rooms[1].way = NEAR;
    world.run(Duration::from_secs(20));
    let (_, worst) = figures(&world.apart(27));
    assert!(worst < 1.0, "{worst}");
}

#[test]
fn a_room_whose_program_was_stopped_is_in_step_at_once() {
    let mut world = World::new(Some(150), 0.0, 10);
    world.add(5, 0.0, NEAR);
    world.add(15, 0.0, NEAR);
    world.run(Duration::from_secs(10));
    // its socket keeps datagrams
    world.rooms[1].is_stopped = true;
    world.run(Duration::from_secs(4));
    world.rooms[1].is_stopped = false;
    for datagram in std::mem::take(&mut world.rooms[1].waiting) {
        world.on_the_way.push(world.now, datagram);
    }
    world.rooms[1].plays_at = world.now;
    world.run(Duration::from_secs(10));
    let apart = world.apart(16);
    assert!(apart.len() >= 7 && figures(&apart).1 < 1.0, "{apart:.2?}");
}

#[test]
fn a_room_without_answers_plays_as_today_and_in_step_once_they_come() {
    let mut world = World::new(Some(300), 0.0, 7);
    world.add(5, 0.0, NEAR);
    world.add(15, 0.0, NEAR).is_deaf = true;
    world.run(Duration::from_secs(5));
    assert_eq!(
        world.rooms[1]
            .station
            .following(0, world.rooms[1].clock.at(world.now)),
        Following::Free
    );
    let (median, _) = figures(&world.apart(4));
    assert!(median > 100.0, "{median}");
    world.rooms[1].is_deaf = false;
    world.run(Duration::from_secs(10));
    assert!(figures(&world.apart(10)).1 < 1.0);
    // and alone for a minute, by its estimate
    world.rooms[1].is_deaf = true;
    world.run(Duration::from_secs(50));
    assert!(figures(&world.apart(20)).1 < 1.0);
    world.run(Duration::from_secs(30));
    assert_eq!(world.rooms[1].playout.step(), None);
}

#[test]
fn answers_of_others_and_repeated_ones_move_nobody() {
    let mut world = World::new(Some(150), 0.0, 8);
    world.add(5, 0.0, NEAR);
    world.run(Duration::from_secs(5));
    let groups = world.caster.clock_groups().unwrap();
    let room = &mut world.rooms[0];
    let now = room.clock.at(world.now);
    let (before, honest) = (room.station.following(0, now), room.answers.clone());
    assert!(matches!(before, Following::InStep(_)));
    let to = (groups.answers, BEACON_PORT);
    // repeated, changed, and noise: a member opens the sealed ones, and signs as itself
    for answer in &honest {
        let mut changed = answer.clone();
        changed[40] ^= 1;
        for datagram in [answer, &changed, &vec![7; 300], &vec![2; 33], &Vec::new()] {
            let unix = UnixTime::from_millis(TODAY_MS);
            room.station
                .handle_datagram(to, CASTER, datagram, now, unix);
        }
    }
    assert_eq!(room.station.following(0, now), before);
    let drops = room.station.listener().drops();
    let refused = [
        DropReason::ClockOther,
        DropReason::ClockNotOpened,
        DropReason::ClockMalformed,
    ];
    for reason in refused {
        assert!(drops.get(reason) > 0, "{reason:?}: {:?}", drops.by_name());
    }
    world.run(Duration::from_secs(5));
    let room = &world.rooms[0];
    let behind = room.position(Duration::from_secs(9)).unwrap();
    assert!((behind - 0.150).abs() < 0.002, "{behind}");
}

#[test]
fn a_flood_of_questions_leaves_rooms_in_step() {
    let mut world = World::new(Some(150), 0.0, 9);
    world.add(5, 100.0, NEAR);
    world.add(15, -100.0, FAR);
    world.run(Duration::from_secs(20));
    // a member asks from one address, a thousand times a second
    let station = key().station(false);
    let mut member = TunedStation::new(Tuned::Station(station), world.clock.at(world.now));
    member.play_in_step([99; 32]);
    let unix = UnixTime::from_millis(TODAY_MS) + world.now;
    let beacon = world.caster.beacon(CASTER, unix).unwrap();
    let to = (key().station(false).group(), BEACON_PORT);
    let now = world.clock.at(world.now);
    member.handle_datagram(to, CASTER, &beacon, now, unix);
    while member.poll_event(now).is_some() {}
    let mut asks = now;
    for _ in 0..10_000 {
        world.run(Duration::from_millis(1));
        asks += Duration::from_secs(3);
        let (_, _, question) = member.poll_question(asks).unwrap();
        let source = Ipv6Addr::from(u128::from(CASTER) + 77);
        let now = world.clock.at(world.now);
        world.caster.handle_question(&question, source, now);
    }
    let (_, worst) = figures(&world.apart(7));
    assert!(worst <= 1.0, "{worst}");
    let refused = world.caster.drops().unwrap().get(DropReason::ClockRate);
    assert!(refused > 9_000, "{refused}");
}
