//! The radio of a page: announced stations, the tuned station, and the cast.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use lcradio_core::{
    Description, Directory, FRAME, Frame, Latency, SAP_GROUP, SAP_PORT, Station, StationKey, Tuned,
};
use lcroute_web_page::{Command, Datagram};
use librecast::time::{Duration, Instant, UnixTime};
use serde::Serialize;

use crate::casting::{CastStart, CastStatus, Casting};
use crate::listening::{ListenStatus, Listening};

/// Interval at which silent stations are forgotten.
const LOOK: Duration = Duration::from_secs(1);

/// The radio of a page.
#[derive(Debug)]
pub struct PageRadio {
    /// The member's address: the source of the cast.
    source: Ipv6Addr,
    directory: Directory,
    look_at: Instant,
    tuned: Option<Listening>,
    casting: Option<Casting>,
    joined: BTreeSet<Ipv6Addr>,
    commands: VecDeque<Command>,
}

/// The state, for the page.
#[derive(Debug, Serialize)]
struct Status {
    stations: Vec<OnAir>,
    listens: Option<ListenStatus>,
    casts: Option<CastStatus>,
}

/// A station that announced itself.
#[derive(Debug, Serialize)]
struct OnAir {
    /// The text for [`PageRadio::tune`].
    id: String,
    name: String,
    signed: bool,
}

/// The page's text for an announced station: its own, or group and port of a foreign sender.
fn id_of(description: &Description) -> String {
    match &description.station {
        Some(station) => station.encode().to_string(),
        None => format!("{} {}", description.group, description.port),
    }
}

impl PageRadio {
    /// Starts to receive announcements.
    #[must_use]
    pub fn new(source: Ipv6Addr, now: Instant) -> Self {
        let mut radio = Self {
            source,
            directory: Directory::new(now),
            look_at: now + LOOK,
            tuned: None,
            casting: None,
            joined: BTreeSet::new(),
            commands: VecDeque::new(),
        };
        radio.follow_groups();
        radio
    }

    /// Joins the groups in use, and leaves the rest.
    fn follow_groups(&mut self) {
        let mut wanted = BTreeSet::from([SAP_GROUP]);
        wanted.extend(self.tuned.iter().flat_map(Listening::groups));
        wanted.extend(self.casting.iter().map(Casting::group));
        let join = wanted.difference(&self.joined).copied().map(Command::Join);
        let leave = self.joined.difference(&wanted).copied().map(Command::Leave);
        self.commands.extend(join.chain(leave));
        self.joined = wanted;
    }

    /// Handles a datagram of a group that the page has joined.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        if (datagram.group, datagram.port) == (SAP_GROUP, SAP_PORT) {
            let (source, data) = (datagram.source, datagram.data);
            self.directory.handle_datagram(source, data, now, time);
        }
        if let Some(tuned) = &mut self.tuned {
            tuned.handle_datagram(datagram, now, time);
        }
        if let Some(casting) = &mut self.casting {
            casting.handle_datagram(datagram, now, time);
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.directory.handle_timeout(now);
        }
        if let Some(tuned) = &mut self.tuned {
            tuned.handle_timeout(now);
        }
        self.transmit(now, time);
        self.follow_groups();
    }

    fn transmit(&mut self, now: Instant, time: UnixTime) {
        if let Some(casting) = &mut self.casting {
            let next = std::iter::from_fn(|| casting.poll_command(now, time));
            self.commands.extend(next);
            if casting.has_ended() {
                self.casting = None;
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Instant {
        let tuned = self.tuned.as_ref().map(Listening::next_timeout);
        let casting = self.casting.as_ref().and_then(Casting::next_timeout);
        let next = tuned.into_iter().chain(casting).min();
        next.unwrap_or(self.look_at).min(self.look_at)
    }

    /// Returns the next command for the page.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Tunes in to a station: an announced one, or any by its text.
    ///
    /// # Errors
    /// An explanation for users, if the text is invalid.
    pub fn tune(&mut self, id: &str, latency: Latency, now: Instant) -> Result<(), String> {
        let id = id.trim();
        let stations = self.directory.stations();
        let foreign = stations.iter().map(|entry| &entry.description);
        let mut foreign = foreign.filter(|d| d.station.is_none() && id_of(d) == id);
        let tuned = match foreign.next() {
            Some(description) => Tuned::Unsigned(description.clone()),
            None => Tuned::Station(Station::decode(id).map_err(|e| {
                format!("{e}. A station looks like lcr1…; `lcradio cast` prints it.")
            })?),
        };
        self.tuned = Some(Listening::new(id.to_owned(), tuned, latency, now));
        self.follow_groups();
        Ok(())
    }

    /// Stops listening.
    pub fn stop(&mut self) {
        self.tuned = None;
        self.follow_groups();
    }

    /// Changes the delay.
    pub fn set_latency(&mut self, latency: Latency) {
        if let Some(tuned) = &mut self.tuned {
            tuned.set_latency(latency);
        }
    }

    /// The casters that are playing: a bit for each.
    pub fn voices(&self) -> u32 {
        self.tuned.as_ref().map_or(0, Listening::voices)
    }

    /// Returns the next frame of a caster.
    pub fn poll_frame(&mut self, caster: u8, now: Instant) -> Frame {
        let silence = Frame::Silence { samples: FRAME };
        let tuned = self.tuned.as_mut();
        tuned.map_or(silence, |tuned| tuned.poll_frame(caster, now))
    }

    /// The correction of a caster's sample rate for the player, in parts per million.
    pub fn speed_ppm(&self, caster: u8) -> f64 {
        let tuned = self.tuned.as_ref();
        tuned.map_or(0.0, |tuned| tuned.speed_ppm(caster))
    }

    /// Begins a cast.
    pub fn cast(
        &mut self,
        key: StationKey,
        start: CastStart,
        now: Instant,
        time: UnixTime,
    ) -> Result<(), String> {
        self.casting = Some(Casting::new(key, start, self.source, now, time)?);
        self.handle_timeout(now, time);
        Ok(())
    }

    /// The cast, if there is one.
    pub fn casting(&mut self) -> Option<&mut Casting> {
        self.casting.as_mut()
    }

    /// The state as JSON.
    pub fn status(&self, now: Instant) -> String {
        let on_air = self.directory.stations().into_iter().map(|entry| OnAir {
            id: id_of(&entry.description),
            name: entry.description.name.clone(),
            signed: entry.description.station.is_some(),
        });
        let status = Status {
            stations: on_air.collect(),
            listens: self.tuned.as_ref().map(|tuned| tuned.status(now)),
            casts: self.casting.as_ref().map(Casting::status),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}
