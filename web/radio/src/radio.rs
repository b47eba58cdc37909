//! The radio of a page: who is on air, what is listened to, what is cast.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use lcradio_core::{
    Description, Directory, FRAME, Frame, Latency, SAP_GROUP, SAP_PORT, Station, StationKey, Tuned,
};
use lcroute_web_page::{Command, Datagram};
use librecast::time::{Duration, Instant};
use serde::Serialize;

use crate::casting::{CastStart, CastStatus, Casting};
use crate::tuned::{ListenStatus, TunedStation};

/// How often stations that are silent are forgotten.
const LOOK: Duration = Duration::from_secs(1);

/// The radio of a page.
#[derive(Debug)]
pub struct PageRadio {
    /// The member's address: what is cast comes from there.
    source: Ipv6Addr,
    directory: Directory,
    look_at: Instant,
    tuned: Option<TunedStation>,
    casting: Option<Casting>,
    joined: BTreeSet<Ipv6Addr>,
    commands: VecDeque<Command>,
}

/// How things stand, for the page.
#[derive(Debug, Serialize)]
struct Status {
    stations: Vec<OnAir>,
    listens: Option<ListenStatus>,
    casts: Option<CastStatus>,
}

/// A station that announced itself.
#[derive(Debug, Serialize)]
struct OnAir {
    /// By which it is tuned in to.
    id: String,
    name: String,
    signed: bool,
}

/// What a page calls an announced station: its text, or group and port of a foreign sender.
fn id_of(description: &Description) -> String {
    match &description.station {
        Some(station) => station.encode().to_string(),
        None => format!("{} {}", description.group, description.port),
    }
}

impl PageRadio {
    /// Listens to announcements.
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

    /// Joins what is needed now, and leaves what is not.
    fn follow_groups(&mut self) {
        let mut wanted = BTreeSet::from([SAP_GROUP]);
        wanted.extend(self.tuned.iter().flat_map(TunedStation::groups));
        wanted.extend(self.casting.iter().map(Casting::group));
        let join = wanted.difference(&self.joined).copied().map(Command::Join);
        let leave = self.joined.difference(&wanted).copied().map(Command::Leave);
        self.commands.extend(join.chain(leave));
        self.joined = wanted;
    }

    /// A datagram came to a group that the page has joined: from where, to which group and port.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, unix_ms: u64) {
        let Datagram {
            source,
            group,
            port,
            data,
        } = datagram;
        if group == SAP_GROUP && port == SAP_PORT {
            self.directory.handle_datagram(source, data, now, unix_ms);
        }
        if let Some(tuned) = &mut self.tuned {
            tuned.handle_datagram(datagram, now, unix_ms);
        }
        if let Some(casting) = &mut self.casting {
            casting.handle_datagram(datagram, now, unix_ms);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.directory.handle_timeout(now);
        }
        if let Some(tuned) = &mut self.tuned {
            tuned.handle_timeout(now);
        }
        self.transmit(now, unix_ms);
        self.follow_groups();
    }

    fn transmit(&mut self, now: Instant, unix_ms: u64) {
        if let Some(casting) = &mut self.casting {
            let next = std::iter::from_fn(|| casting.poll_command(now, unix_ms));
            self.commands.extend(next);
            if casting.has_ended() {
                self.casting = None;
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let tuned = self.tuned.as_ref().map(TunedStation::poll_timeout);
        let casting = self.casting.as_ref().and_then(Casting::poll_timeout);
        let next = tuned.into_iter().chain(casting).min();
        next.unwrap_or(self.look_at).min(self.look_at)
    }

    /// The next thing that the page is to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Listens to a station: one that announced itself, or any by its text.
    ///
    /// # Errors
    /// Why the text is none, as people read it.
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
        self.tuned = Some(TunedStation::new(id.to_owned(), tuned, latency, now));
        self.follow_groups();
        Ok(())
    }

    /// Listens no longer.
    pub fn stop(&mut self) {
        self.tuned = None;
        self.follow_groups();
    }

    /// Another delay, from now on.
    pub fn set_latency(&mut self, latency: Latency) {
        if let Some(tuned) = &mut self.tuned {
            tuned.set_latency(latency);
        }
    }

    /// Casters whose sound is played: a bit for each.
    #[must_use]
    pub fn voices(&self) -> u32 {
        self.tuned.as_ref().map_or(0, TunedStation::voices)
    }

    /// What is played next of a caster.
    pub fn poll_frame(&mut self, caster: u8, now: Instant) -> Frame {
        let silence = Frame::Silence { samples: FRAME };
        let tuned = self.tuned.as_mut();
        tuned.map_or(silence, |tuned| tuned.poll_frame(caster, now))
    }

    /// By how much the player is to resample a caster's sound, in parts per million.
    #[must_use]
    pub fn speed_ppm(&self, caster: u8) -> f64 {
        let tuned = self.tuned.as_ref();
        tuned.map_or(0.0, |tuned| tuned.speed_ppm(caster))
    }

    /// Casts from now on.
    ///
    /// # Errors
    /// Why not, as people read it.
    pub fn cast(
        &mut self,
        key: StationKey,
        start: CastStart,
        now: Instant,
        unix_ms: u64,
    ) -> Result<(), String> {
        self.casting = Some(Casting::new(key, start, self.source, now, unix_ms)?);
        self.handle_timeout(now, unix_ms);
        Ok(())
    }

    /// The cast, if there is one.
    pub fn casting(&mut self) -> Option<&mut Casting> {
        self.casting.as_mut()
    }

    /// How things stand, as JSON.
    #[must_use]
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
