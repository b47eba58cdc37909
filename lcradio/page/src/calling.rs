//! The call of a page: its participant, and the sound of the others.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use lcradio_core::{
    BEACON_PORT, Call, CallConfig, CallEvent, CallKey, Frame, Latency, MAX_CASTERS, MEDIA_PORT,
    Participant, Playout, PlayoutStats, Speaking, Standing, Transmit,
};
use lcroute_web_page::{Command, Datagram};
use librecast::time::{Instant, UnixTime};
use serde::{Deserialize, Serialize};

/// Samples of a frame: 10 ms.
const SAMPLES: u32 = 480;
/// Longest packet that means silence (RFC 7587, 3.1.3: DTX).
const SILENT: usize = 2;
/// Lines of news that wait for the page, at most.
const MAX_NEWS: usize = 64;

/// Parameters of a participant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallStart {
    /// The call's text; empty: a new call.
    pub call: String,
    /// The participant's name.
    pub name: String,
    /// Talks, and not only listens.
    pub talks: bool,
    /// Begins muted.
    pub muted: bool,
    /// 32 secret random bytes, new for each time.
    pub seed: [u8; 32],
    /// 32 more, for a new call.
    pub fresh: [u8; 32],
}

/// A participant, for the page.
#[derive(Debug, Serialize)]
struct Shown {
    place: u8,
    name: String,
    muted: bool,
    ignored: bool,
    speaks: bool,
}

/// The state, for the page.
#[derive(Debug, Serialize)]
struct Status<'a> {
    /// The text: a secret.
    call: &'a str,
    standing: &'static str,
    name: &'a str,
    muted: bool,
    participants: Vec<Shown>,
    /// Lines about who came, left or speaks, since the last query.
    news: Vec<String>,
    sent: u64,
    lost: u64,
    buffer_ms: u128,
    target_ms: u128,
    drops: BTreeMap<String, u64>,
}

/// One call.
#[derive(Debug)]
pub struct PageCall {
    source: Ipv6Addr,
    text: String,
    call: Call,
    playouts: [Option<Playout>; MAX_CASTERS],
    speaking: [Speaking; MAX_CASTERS],
    is_joined: bool,
    commands: VecDeque<Command>,
    news: VecDeque<String>,
}

impl PageCall {
    /// Joins a call, or begins one, as the member of this address.
    ///
    /// # Errors
    /// An explanation for users, if the text is invalid.
    pub fn new(source: Ipv6Addr, start: CallStart, now: Instant) -> Result<Self, String> {
        let key = match start.call.trim() {
            "" => CallKey::from_seed(&start.fresh),
            text => CallKey::decode(text)
                .map_err(|e| format!("{e}. A call looks like lcc1…; `lcradio call` prints it."))?,
        };
        let config = CallConfig {
            name: start.name,
            talks: start.talks,
            is_muted: start.muted,
            seed: start.seed,
        };
        Ok(Self {
            source,
            text: key.encode().to_string(),
            call: Call::new(&key, config, now),
            playouts: [const { None }; MAX_CASTERS],
            speaking: Default::default(),
            is_joined: false,
            commands: VecDeque::new(),
            news: VecDeque::new(),
        })
    }

    /// Handles a datagram of a group that the page has joined.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        let to = (datagram.group, datagram.port);
        self.call
            .handle_datagram(to, datagram.source, datagram.data, now, time);
    }

    fn tell(&mut self, line: String) {
        if self.news.len() >= MAX_NEWS {
            self.news.pop_front();
        }
        self.news.push_back(line);
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        let group = self.call.station().group();
        let has_left = self.call.has_left();
        if self.is_joined == has_left {
            self.is_joined = !has_left;
            self.commands.push_back(match has_left {
                true => Command::Leave(group),
                false => Command::Join(group),
            });
        }
        self.call.handle_timeout(now, time);
        self.take_events(now);
        while let Some(transmit) = self.call.poll_transmit(now) {
            let (port, data) = match transmit {
                Transmit::Packet(packet) => (MEDIA_PORT, packet),
                Transmit::Beacon => match self.call.beacon(self.source, time) {
                    Ok(beacon) => (BEACON_PORT, beacon),
                    Err(_) => continue,
                },
                // a call has none of them
                _ => continue,
            };
            self.commands.push_back(Command::Send { group, port, data });
        }
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.call.poll_event(now) {
            match event {
                CallEvent::Sound(packet) => {
                    let place = self.playouts.get_mut(usize::from(packet.caster));
                    let Some(place) = place else {
                        continue;
                    };
                    let playout =
                        place.get_or_insert_with(|| Playout::new(Latency::Call, packet.arrival));
                    if !playout.push(packet) {
                        self.call.count_expired();
                    }
                }
                CallEvent::Came(Participant { name, .. }) => self.tell(format!("{name} came.")),
                CallEvent::Left(Participant { name, place, .. }) => {
                    if let Some(Some(playout)) = self.playouts.get_mut(usize::from(place)) {
                        playout.end();
                    }
                    self.tell(format!("{name} has left."));
                }
                CallEvent::Muted(_) | CallEvent::Standing(_) => {}
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        self.call.next_timeout()
    }

    /// Returns the next command for the page.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The participants that were heard: a bit for each place.
    #[must_use]
    pub fn voices(&self) -> u32 {
        let all = self.playouts.iter().enumerate();
        let heard = all.filter(|(_, playout)| playout.is_some());
        heard.fold(0, |bits, (place, _)| bits | 1 << place)
    }

    /// Returns the next frame of a place.
    pub fn poll_frame(&mut self, place: u8, now: Instant) -> Frame {
        let playout = self.playouts.get_mut(usize::from(place));
        match playout.and_then(Option::as_mut) {
            Some(playout) => playout.poll_frame(now),
            None => Frame::Silence { samples: SAMPLES },
        }
    }

    /// The correction of a place's sample rate for the player.
    #[must_use]
    pub fn speed_ppm(&self, place: u8) -> f64 {
        let playout = self.playouts.get(usize::from(place));
        let playout = playout.and_then(Option::as_ref);
        playout.map_or(0.0, Playout::speed_ppm)
    }

    /// Notes decoded sound of a place, by its mean power.
    pub fn hear(&mut self, place: u8, power: f64, samples: u32) {
        let Some(speaking) = self.speaking.get_mut(usize::from(place)) else {
            return;
        };
        if speaking.add(power, samples) == Some(true) {
            let mut all = self.call.participants();
            let speaker = all.find(|p| p.place == place).map(|p| p.name.clone());
            if let Some(name) = speaker {
                self.tell(format!("{name} speaks."));
            }
        }
    }

    /// Sends a frame of Opus of 10 ms, unless it is silence.
    pub fn send(&mut self, opus: &[u8], now: Instant) {
        match opus.len() <= SILENT {
            true => self.call.skip(SAMPLES),
            false => drop(self.call.send(opus, SAMPLES, now)),
        }
    }

    /// Sends nothing for `samples`: the microphone was off.
    pub fn skip(&mut self, samples: u32) {
        self.call.skip(samples);
    }

    /// Mutes this participant, or lets it talk.
    pub fn set_muted(&mut self, is_muted: bool, now: Instant) {
        self.call.set_muted(is_muted, now);
    }

    /// Turns the sound of a place off or on, for this user.
    pub fn set_ignored(&mut self, place: u8, is_ignored: bool) {
        self.call.set_ignored(place, is_ignored);
    }

    /// Leaves the call.
    pub fn leave(&mut self, now: Instant) {
        self.call.leave(now);
    }

    /// The state as JSON.
    #[must_use]
    pub fn status(&mut self) -> String {
        let participants = self.call.participants().map(|p| {
            let speaking = &self.speaking[usize::from(p.place)];
            Shown {
                place: p.place,
                name: p.name.clone(),
                muted: p.is_muted,
                ignored: p.is_ignored,
                speaks: speaking.speaks() && !p.is_muted && !p.is_ignored,
            }
        });
        let of_each = self.playouts.iter().flatten().map(Playout::stats);
        let stats = of_each.fold(PlayoutStats::default(), PlayoutStats::plus);
        let loss = self.call.loss();
        let drops = self.call.drops().by_name().into_iter();
        let status = Status {
            call: &self.text,
            standing: match self.call.standing() {
                Standing::Looking => "looking",
                Standing::Talks => "talks",
                Standing::Full => "full",
                Standing::Listens => "listens",
                Standing::Left => "left",
            },
            name: self.call.name(),
            muted: self.call.is_muted(),
            participants: participants.collect(),
            news: self.news.drain(..).collect(),
            sent: loss.sent,
            lost: loss.lost,
            buffer_ms: stats.buffered.as_millis(),
            target_ms: stats.target.as_millis(),
            drops: drops
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}
