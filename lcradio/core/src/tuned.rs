//! A tuned station: the groups it needs, the casters on air, and the end of its sessions.
//!
//! ```text
//! datagram -> channel -> Listener -> Reception: a caster on air, sound, the end of a caster
//!                     -> Follower -> Following: the clock of a caster, in step
//! ```

use std::net::Ipv6Addr;

use librecast::id::derive;
use librecast::time::{Instant, UnixTime};

use crate::beacon::Beacon;
use crate::drops::DropReason;
use crate::follow::{Follower, Following};
use crate::listener::{Channel, Event, Listener, MAX_CASTERS, Tuned};
use crate::packet::SoundPacket;
use crate::station::BEACON_PORT;

/// A caster's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnAir {
    /// Name of the caster; empty for a foreign sender.
    pub name: String,
    /// Title of the present programme.
    pub title: String,
    /// Whether somebody speaks.
    pub is_talking: bool,
}

impl OnAir {
    fn of(beacon: Option<&Beacon>) -> Self {
        let on_air = beacon.map(|beacon| Self {
            name: beacon.name.clone(),
            title: beacon.title.clone(),
            is_talking: beacon.is_talking,
        });
        on_air.unwrap_or_default()
    }

    fn is_called_as(&self, other: &Self) -> bool {
        (&self.name, &self.title) == (&other.name, &other.title)
    }
}

/// An event of a tuned station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reception {
    /// A caster is on air under a new name or title.
    OnAir(OnAir),
    /// Sound, in the order of arrival.
    Sound(SoundPacket),
    /// A caster has ended its session, or its grant has expired.
    Ended {
        /// The caster.
        caster: u8,
    },
}

/// A listener of one station.
#[derive(Debug)]
pub struct TunedStation {
    listener: Listener,
    /// Casters on air; if none is, the last ones.
    casters: Vec<OnAir>,
    /// Whether a caster has ended, and none has begun since.
    has_ended: bool,
    /// When the last caster has ended.
    ended_at: Option<Instant>,
    /// Random bytes, if this listener plays in step with others.
    step_seed: Option<[u8; 32]>,
    /// Of casters whose listeners play in step.
    followers: [Option<Follower>; MAX_CASTERS],
    /// Sessions followed so far.
    followed: u64,
}

impl TunedStation {
    /// Tunes in, without a received packet so far.
    #[must_use]
    pub fn new(tuned: Tuned, now: Instant) -> Self {
        Self {
            listener: Listener::new(tuned, now),
            casters: Vec::new(),
            has_ended: false,
            ended_at: None,
            step_seed: None,
            followers: [const { None }; MAX_CASTERS],
            followed: 0,
        }
    }

    /// Plays in step with other listeners if a caster says so: asks for its clock. The seed is
    /// random.
    pub fn play_in_step(&mut self, seed: [u8; 32]) {
        self.step_seed = Some(seed);
    }

    /// Returns the groups of answers in use, at the port of beacons.
    pub fn answer_groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        let followers = self.followers.iter().flatten();
        followers.map(|follower| follower.groups().answers)
    }

    /// Returns the next question that is due, to be sent at once to this group at the port of
    /// beacons, by the interface of the caster's verified beacons: questions and answers on
    /// different paths would falsify the clock.
    pub fn poll_question(&mut self, now: Instant) -> Option<(u32, Ipv6Addr, Vec<u8>)> {
        let Tuned::Station(station) = self.listener.tuned() else {
            return None;
        };
        let listener = &self.listener;
        self.followers.iter_mut().flatten().find_map(|follower| {
            let question = follower.poll_question(station, now)?;
            let interface = listener.interface_of(follower.session())?;
            Some((interface, follower.groups().questions, question))
        })
    }

    /// Returns the clock that the playout of a caster follows.
    pub fn following(&self, caster: u8, now: Instant) -> Following {
        let follower = self.followers.get(usize::from(caster));
        let follower = follower.and_then(Option::as_ref);
        follower.map_or(Following::Free, |follower| follower.following(now))
    }

    /// Follows the clock of a new session, and that of an ended one no more.
    fn follow(&mut self, caster: u8, beacon: Option<&Beacon>, now: Instant) {
        let Some(place) = self.followers.get_mut(usize::from(caster)) else {
            return;
        };
        let (Some(seed), Tuned::Station(station)) = (self.step_seed, self.listener.tuned()) else {
            return;
        };
        let beacon = beacon.filter(|beacon| beacon.is_together);
        let Some(beacon) = beacon else {
            *place = None;
            return;
        };
        let is_followed = |follower: &mut Follower| *follower.session() == beacon.session;
        if place.as_mut().is_some_and(is_followed) {
            return;
        }
        self.followed += 1;
        let seed = derive(
            "lcradio 2026 follower",
            &[&seed, &self.followed.to_be_bytes()],
        );
        let caster = *beacon.caster(station);
        *place = Some(Follower::new(caster, beacon.session, station, seed, now));
    }

    /// Returns the listener, with its counters.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Returns the groups in use.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        std::iter::once(self.listener.tuned().group()).chain(self.copy_group())
    }

    /// Returns the group of copies while packets are lost.
    pub fn copy_group(&self) -> Option<Ipv6Addr> {
        let copy = self.listener.tuned().copy_group();
        copy.filter(|_| self.listener.wants_copy())
    }

    /// Handles a datagram to this group and port, on a host with one interface; ignores those of
    /// other stations.
    pub fn handle_datagram(
        &mut self,
        to: (Ipv6Addr, u16),
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) {
        self.handle_datagram_by(0, to, source, datagram, now, time);
    }

    /// The same for a datagram that came by this interface.
    pub fn handle_datagram_by(
        &mut self,
        interface: u32,
        (group, port): (Ipv6Addr, u16),
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) {
        let tuned = self.listener.tuned();
        if let Tuned::Station(station) = tuned
            && port == BEACON_PORT
        {
            let mut followers = self.followers.iter_mut().flatten();
            if let Some(follower) = followers.find(|f| f.groups().answers == group) {
                // others neither cost a verification nor use up the rate of answers
                let session = follower.session();
                let is_of_caster = self.listener.is_source_of(session, source)
                    && self.listener.interface_of(session) == Some(interface);
                if !is_of_caster {
                    self.listener.count(DropReason::OtherSource);
                } else if let Err(reason) = follower.handle_answer(datagram, station, now) {
                    self.listener.count(reason);
                }
                return;
            }
        }
        let is_media = port == tuned.media_port();
        let channel = if group == tuned.group() && is_media {
            Channel::Media
        } else if Some(group) == tuned.copy_group() && is_media {
            Channel::Copy
        } else if group == tuned.group() && port == BEACON_PORT {
            Channel::Beacon
        } else {
            return;
        };
        self.listener
            .handle_datagram_by(interface, channel, source, datagram, now, time);
    }

    /// Returns the next event; none: the casters are up to date.
    pub fn poll_event(&mut self, now: Instant) -> Option<Reception> {
        while let Some(event) = self.listener.poll_event() {
            match event {
                Event::Station { caster, beacon } => {
                    self.follow(caster, beacon.as_deref(), now);
                    (self.has_ended, self.ended_at) = (false, None);
                    let on_air = OnAir::of(beacon.as_deref());
                    let is_known = self.casters.iter().any(|c| c.is_called_as(&on_air));
                    self.update_casters(now);
                    if !is_known {
                        return Some(Reception::OnAir(on_air));
                    }
                }
                Event::Sound(packet) => return Some(Reception::Sound(packet)),
                Event::Ended { caster } => {
                    self.follow(caster, None, now);
                    self.has_ended = true;
                    return Some(Reception::Ended { caster });
                }
            }
        }
        self.update_casters(now);
        if self.has_ended && self.ended_at.is_none() && self.listener.on_air(now).next().is_none() {
            self.ended_at = Some(now);
        }
        None
    }

    /// Updates the casters on air; without any, keeps the last ones.
    fn update_casters(&mut self, now: Instant) {
        let on_air = self.listener.on_air(now);
        let on_air: Vec<OnAir> = on_air.map(|(_, beacon)| OnAir::of(beacon)).collect();
        if !on_air.is_empty() {
            self.casters = on_air;
        }
    }

    /// Returns the casters on air; if none is, the last ones.
    pub fn casters(&self) -> &[OnAir] {
        &self.casters
    }

    /// Returns when the last caster has ended its session, unless another one began since.
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended_at
    }

    /// Returns whether beacons were dropped because the clocks of the caster and of this host are
    /// more than an hour apart.
    pub fn has_other_time(&self) -> bool {
        self.listener.drops().get(DropReason::BeaconTime) > 0
    }

    /// Counts a packet that came too late for playing or recording.
    pub fn count_expired(&mut self) {
        self.listener.count(DropReason::Expired);
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.listener.handle_timeout(now);
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Instant {
        let questions = self.followers.iter().flatten();
        let questions = questions.map(Follower::next_timeout).min();
        let next = self.listener.next_timeout();
        questions.map_or(next, |question| question.min(next))
    }
}

#[cfg(test)]
mod tests {
    use librecast::time::Duration;

    use super::*;
    use crate::beacon::Profile;
    use crate::caster::{Caster, CasterConfig, Transmit};
    use crate::station::StationKey;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);

    fn key() -> StationKey {
        StationKey::from_seed(&[1; 32])
    }

    /// A caster, and a listener of the same station.
    struct World {
        now: Instant,
        time: UnixTime,
        caster: Caster,
        station: TunedStation,
    }

    fn config(started: UnixTime) -> CasterConfig {
        CasterConfig {
            is_public: true,
            grant: None,
            name: "Ann reads".to_owned(),
            title: "chapter 1".to_owned(),
            profile: Profile::Voice,
            channels: 1,
            together: None,
            seed: [2; 32],
            started,
        }
    }

    impl World {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        fn new() -> Self {
            let (now, time) = (Instant::now(), UnixTime::from_millis(1_800_000_000_000));
            Self {
                now,
                time,
                caster: Caster::new(key(), config(time), now).unwrap(),
                station: TunedStation::new(Tuned::Station(key().station(true)), now),
            }
        }

        /// A caster whose listeners play in step.
        fn in_step() -> Self {
            let mut world = Self::new();
            let config = CasterConfig {
                title: String::new(),
                together: Some(Duration::from_millis(150)),
                ..config(world.time)
            };
            world.caster = Caster::new(key(), config, world.now).unwrap();
            world.station.play_in_step([3; 32]);
            world
        }

        /// Lets a second pass; returns the titles on air that are new.
        fn second(&mut self) -> Vec<String> {
            self.now += Duration::from_secs(1);
            self.time = self.time + Duration::from_secs(1);
            let (now, time) = (self.now, self.time);
            let group = key().station(true).group();
            let mut titles = Vec::new();
            while let Some(transmit) = self.caster.poll_transmit(now) {
                if transmit == Transmit::Beacon {
                    let beacon = self.caster.beacon(SOURCE, time).unwrap();
                    let to = (group, BEACON_PORT);
                    self.station.handle_datagram(to, SOURCE, &beacon, now, time);
                }
                while let Some(event) = self.station.poll_event(now) {
                    if let Reception::OnAir(on_air) = event {
                        titles.push(on_air.title);
                    }
                }
            }
            titles
        }
    }

    #[test]
    fn only_verified_beacons_choose_the_interface_of_a_casters_clock() {
        const HOME: u32 = 2;
        const STRANGE: u32 = 3;
        let mut world = World::in_step();
        let group = key().station(true).group();
        let to = (group, BEACON_PORT);
        let beacon = |world: &mut World| world.caster.beacon(SOURCE, world.time).unwrap();
        let other = Ipv6Addr::from(u128::from(SOURCE) + 1);
        let noise = |world: &mut World, with: Vec<u8>| {
            let (now, time) = (world.now, world.time);
            for source in [other, SOURCE] {
                world
                    .station
                    .handle_datagram_by(STRANGE, to, source, &with, now, time);
            }
            assert_eq!(world.station.poll_event(now), None);
        };
        let by = |world: &mut World, interface: u32| {
            let (now, time, beacon) = (world.now, world.time, beacon(world));
            world
                .station
                .handle_datagram_by(interface, to, SOURCE, &beacon, now, time);
            while world.station.poll_event(now).is_some() {}
            let question = world.station.poll_question(now);
            question.map(|(interface, ..)| interface)
        };
        let pass = |world: &mut World, seconds: u64| {
            world.now += Duration::from_secs(seconds);
            world.time = world.time + Duration::from_secs(seconds);
        };
        // first, and all the time
        noise(&mut world, vec![2; 200]);
        assert_eq!(by(&mut world, HOME), Some(HOME));
        for _ in 0..8 {
            pass(&mut world, 1);
            // a recording of a beacon, and a forged one, are later nowhere
            let heard = beacon(&mut world);
            assert_eq!(by(&mut world, HOME), Some(HOME));
            noise(&mut world, heard.clone());
            let mut forged = heard;
            *forged.last_mut().unwrap() ^= 1;
            noise(&mut world, forged);
        }
        let answers = world.station.answer_groups().next().unwrap();
        let (now, time) = (world.now, world.time);
        for (interface, reason) in [
            (STRANGE, DropReason::OtherSource),
            (HOME, DropReason::ClockMalformed),
        ] {
            let before = world.station.listener().drops().get(reason);
            let to = (answers, BEACON_PORT);
            world
                .station
                .handle_datagram_by(interface, to, SOURCE, &[7; 200], now, time);
            assert_eq!(world.station.listener().drops().get(reason), before + 1);
        }
        // the caster itself comes by another interface once the first one is silent
        for (seconds, interface) in [(2, HOME), (2, HOME), (2, STRANGE)] {
            pass(&mut world, seconds);
            assert_eq!(by(&mut world, STRANGE), Some(interface));
        }
    }

    #[test]
    fn answers_of_a_source_without_a_verified_beacon_are_not_read() {
        let mut world = World::in_step();
        world.second();
        let group = world.station.answer_groups().next().unwrap();
        let other = Ipv6Addr::from(u128::from(SOURCE) + 1);
        for (source, reason) in [
            (other, DropReason::OtherSource),
            (SOURCE, DropReason::ClockMalformed),
        ] {
            let (now, time) = (world.now, world.time);
            let to = (group, BEACON_PORT);
            world
                .station
                .handle_datagram(to, source, &[7; 200], now, time);
            assert_eq!(world.station.listener().drops().get(reason), 1);
        }
    }

    #[test]
    fn a_title_is_reported_once_and_a_change_of_talk_is_none() {
        let mut world = World::new();
        assert_eq!(world.second(), ["chapter 1"]);
        world.caster.set_talking(true, world.now);
        assert!(world.second().is_empty());
        assert!(world.station.casters()[0].is_talking);
        world.caster.set_title("chapter 2", world.now).unwrap();
        assert_eq!(world.second(), ["chapter 2"]);
    }

    #[test]
    fn a_station_ends_with_its_caster_which_stays_the_last_one_shown() {
        let mut world = World::new();
        world.second();
        assert_eq!(world.station.ended_at(), None);
        world.caster.end(world.now);
        world.second();
        assert_eq!(world.station.ended_at(), Some(world.now));
        assert_eq!(world.station.casters()[0].title, "chapter 1");
    }

    #[test]
    fn beacons_to_other_groups_and_ports_are_ignored() {
        let mut world = World::new();
        let beacon = world.caster.beacon(SOURCE, world.time).unwrap();
        let (group, other) = (key().station(true).group(), SOURCE);
        for to in [(other, BEACON_PORT), (group, 9)] {
            world
                .station
                .handle_datagram(to, SOURCE, &beacon, world.now, world.time);
        }
        assert_eq!(world.station.poll_event(world.now), None);
        assert_eq!(
            world
                .station
                .listener()
                .drops()
                .by_name()
                .values()
                .sum::<u64>(),
            0
        );
    }
}
