//! A page's participant of a call.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use lcradio_core::{
    BEACON_PORT, Call, CallConfig, CallEvent, CallKey, FRAME, Frame, Latency, MAX_CASTERS,
    MEDIA_PORT, Playout, PlayoutStats, Quality, SoundPacket, Speaking, Standing, Transmit, samples,
};
use lcroute_web_page::{Command, Datagram};
use librecast::id::PeerId;
use librecast::time::{Duration, Instant, UnixTime};
use serde::{Deserialize, Serialize};

/// Silence of the microphone that counts as a pause (a browser that slept), not as jitter.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause in the numbers of packets: after one of some seconds, it takes a place anew.
const LONGEST: Duration = Duration::from_secs(60);

/// Parameters of a participant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallStart {
    /// The member's address: the source of its packets.
    pub address: Ipv6Addr,
    /// The call's text.
    pub call: String,
    /// The participant's name.
    pub name: String,
    /// It talks, if there is a place.
    pub talks: bool,
    /// 32 secret random bytes, new for each run.
    pub seed: [u8; 32],
}

/// Another participant, for the page.
#[derive(Debug, Serialize)]
struct ShownParticipant {
    place: u8,
    key: PeerId,
    name: String,
    muted: bool,
    away: bool,
    ignored: bool,
    speaks: bool,
    /// `good`, `poor` or `reconnecting`.
    quality: &'static str,
}

/// State of a call.
#[derive(Debug, Serialize)]
struct Status {
    /// `looking`, `talks`, `full`, `listens` or `left`.
    standing: &'static str,
    /// The name of this participant, as others see it.
    name: String,
    muted: bool,
    away: bool,
    participants: Vec<ShownParticipant>,
    /// Packets of sound that this participant sent.
    packets: u64,
    sent: u64,
    lost: u64,
    buffer_ms: u128,
    target_ms: u128,
    underruns: u64,
    concealed: u64,
    resyncs: u64,
    drops: BTreeMap<&'static str, u64>,
}

/// A participant, and the sound of the others.
#[derive(Debug)]
pub struct PageCall {
    source: Ipv6Addr,
    call: Call,
    playouts: [Option<Playout>; MAX_CASTERS],
    speaking: [Speaking; MAX_CASTERS],
    packets: u64,
    /// When the microphone's last sound came.
    heard_at: Instant,
    has_joined: bool,
    farewell: Vec<u8>,
    commands: VecDeque<Command>,
}

impl PageCall {
    /// Joins a call.
    ///
    /// # Errors
    /// An explanation for users, if the text is invalid.
    pub fn new(start: CallStart, now: Instant) -> Result<Self, String> {
        let key = CallKey::decode(&start.call).map_err(|e| format!("{e}."))?;
        let config = CallConfig {
            name: start.name,
            talks: start.talks,
            is_muted: false,
            seed: start.seed,
        };
        let mut call = Self {
            source: start.address,
            call: Call::new(&key, config, now),
            playouts: [const { None }; MAX_CASTERS],
            speaking: Default::default(),
            packets: 0,
            heard_at: now,
            has_joined: false,
            farewell: Vec::new(),
            commands: VecDeque::new(),
        };
        call.follow_group();
        Ok(call)
    }

    /// Joins the call's group, or leaves it: a participant that is away costs the network nothing.
    fn follow_group(&mut self) {
        let group = self.call.station().group();
        let is_here = !self.call.is_away() && self.call.standing() != Standing::Left;
        if is_here != self.has_joined {
            self.has_joined = is_here;
            self.commands.push_back(match is_here {
                true => Command::Join(group),
                false => Command::Leave(group),
            });
        }
    }

    /// Handles a datagram; ignores datagrams of other groups.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        let (to, source) = ((datagram.group, datagram.port), datagram.source);
        self.call
            .handle_datagram(to, source, datagram.data, now, time);
        self.take_events(now);
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.call.poll_event(now) {
            match event {
                CallEvent::Sound(packet) => self.push(packet),
                CallEvent::Left(participant) => {
                    let place = usize::from(participant.place);
                    if let Some(Some(playout)) = self.playouts.get_mut(place) {
                        playout.end();
                    }
                    if let Some(speaking) = self.speaking.get_mut(place) {
                        *speaking = Speaking::default();
                    }
                }
                CallEvent::Came(_) | CallEvent::Changed(_) | CallEvent::Standing(_) => {}
            }
        }
    }

    fn push(&mut self, packet: SoundPacket) {
        let Some(playout) = self.playouts.get_mut(usize::from(packet.caster)) else {
            return;
        };
        let new = || Playout::new(Latency::Call, packet.arrival);
        if !playout.get_or_insert_with(new).push(packet) {
            self.call.count_expired();
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        self.call.handle_timeout(now, time);
        self.take_events(now);
        self.transmit(now, time);
        self.follow_group();
    }

    fn transmit(&mut self, now: Instant, time: UnixTime) {
        let group = self.call.station().group();
        while let Some(transmit) = self.call.poll_transmit(now) {
            let (port, data) = match transmit {
                Transmit::Packet(packet) => (MEDIA_PORT, packet),
                Transmit::Beacon => {
                    // the sender may have been ended in between
                    let Ok(beacon) = self.call.beacon(self.source, time) else {
                        continue;
                    };
                    let later = time + Duration::from_millis(1);
                    let farewell = self.call.farewell(self.source, later);
                    self.farewell = farewell.unwrap_or_default();
                    (BEACON_PORT, beacon)
                }
                // a call has none of them
                _ => continue,
            };
            self.commands.push_back(Command::Send { group, port, data });
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Instant {
        self.call.next_timeout()
    }

    /// Returns the next command for the page.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Takes the command by which a page leaves that is closed; each beacon makes another one.
    pub fn take_farewell(&mut self) -> Option<Command> {
        let data = std::mem::take(&mut self.farewell);
        (!data.is_empty()).then(|| Command::Send {
            group: self.call.station().group(),
            port: BEACON_PORT,
            data,
        })
    }

    /// Sends Opus of the microphone, before which `skipped` samples were left out. Returns its
    /// length in samples.
    pub fn send(&mut self, opus: &[u8], skipped: u32, now: Instant) -> u32 {
        let pause = now.saturating_duration_since(self.heard_at);
        self.heard_at = now;
        let asleep = match pause > PAUSE && skipped == 0 {
            true => pause.min(LONGEST).as_millis() as u32 * (FRAME / 20),
            false => 0,
        };
        self.call.skip(skipped.saturating_add(asleep));
        let Some(samples) = samples(opus) else {
            return 0;
        };
        let is_sent = self.call.send(opus, samples, now);
        self.packets += u64::from(is_sent);
        samples
    }

    /// Mutes this participant, or lets it talk.
    pub fn set_muted(&mut self, is_muted: bool, now: Instant) {
        self.call.set_muted(is_muted, now);
    }

    /// Keeps the place, and hears nobody; or takes part again.
    pub fn set_away(&mut self, is_away: bool, now: Instant) {
        self.call.set_away(is_away, now);
        self.playouts = [const { None }; MAX_CASTERS];
    }

    /// Plays a participant no longer, or again.
    pub fn set_ignored(&mut self, place: u8, is_ignored: bool) {
        self.call.set_ignored(place, is_ignored);
    }

    /// Leaves the call.
    pub fn leave(&mut self, now: Instant) {
        self.call.leave(now);
    }

    /// Whether it has left, and all is sent.
    pub fn has_left(&self) -> bool {
        self.call.has_left() && self.commands.is_empty()
    }

    /// The places that are playing: a bit for each.
    pub fn voices(&self) -> u32 {
        let all = self.playouts.iter().enumerate();
        let heard = all.filter(|(_, playout)| playout.is_some());
        heard.fold(0, |bits, (place, _)| bits | 1 << place)
    }

    fn playout(&self, place: u8) -> Option<&Playout> {
        self.playouts.get(usize::from(place))?.as_ref()
    }

    /// Returns the next frame of a place.
    pub fn poll_frame(&mut self, place: u8, now: Instant) -> Frame {
        let silence = Frame::Silence {
            samples: Latency::Call.frame(),
        };
        let playout = self.playouts.get_mut(usize::from(place));
        let playout = playout.and_then(Option::as_mut);
        playout.map_or(silence, |playout| playout.poll_frame(now))
    }

    /// The correction of a participant's sample rate for the player, in parts per million.
    pub fn speed_ppm(&self, place: u8) -> f64 {
        self.playout(place).map_or(0.0, Playout::speed_ppm)
    }

    /// Adds decoded sound of a place: its mean power, 1 at full scale. Returns whether somebody
    /// began or ceased to speak.
    pub fn add_power(&mut self, place: u8, power: f64, samples: u32) -> bool {
        let speaking = self.speaking.get_mut(usize::from(place));
        speaking.is_some_and(|speaking| speaking.add(power, samples).is_some())
    }

    /// The state as JSON.
    pub fn status(&self) -> String {
        let standing = match self.call.standing() {
            Standing::Looking => "looking",
            Standing::Talks => "talks",
            Standing::Full => "full",
            Standing::Listens => "listens",
            Standing::Left => "left",
        };
        let participants = self.call.participants().map(|p| {
            let speaking = self.speaking.get(usize::from(p.place));
            let is_heard = !(p.is_muted || p.is_away || p.is_ignored);
            ShownParticipant {
                place: p.place,
                key: p.key,
                name: p.name.clone(),
                muted: p.is_muted,
                away: p.is_away,
                ignored: p.is_ignored,
                speaks: is_heard && speaking.is_some_and(Speaking::speaks),
                quality: match p.quality {
                    Quality::Good => "good",
                    Quality::Poor => "poor",
                    Quality::Reconnecting => "reconnecting",
                },
            }
        });
        let loss = self.call.loss();
        let of_each = self.playouts.iter().flatten().map(Playout::stats);
        let stats = of_each.fold(PlayoutStats::default(), PlayoutStats::plus);
        let status = Status {
            standing,
            name: self.call.name().to_owned(),
            muted: self.call.is_muted(),
            away: self.call.is_away(),
            participants: participants.collect(),
            packets: self.packets,
            sent: loss.sent,
            lost: loss.lost,
            buffer_ms: stats.buffered.as_millis(),
            target_ms: stats.target.as_millis(),
            underruns: stats.underruns,
            concealed: stats.concealed,
            resyncs: stats.resyncs,
            drops: self.call.drops().by_name(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}
