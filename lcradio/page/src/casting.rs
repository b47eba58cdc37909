//! The cast of a page.

use std::net::Ipv6Addr;

use lcradio_core::{
    BEACON_PORT, Caster, CasterConfig, FRAME, MEDIA_PORT, Profile, REPORT_PORT, SAP_GROUP,
    SAP_PORT, StationKey, Transmit,
};
use lcroute_web_page::{Command, Datagram};
use librecast::time::{Duration, Instant, UnixTime};
use serde::{Deserialize, Serialize};

/// Delay of sound that counts as a pause (a suspended computer), not as jitter of the page.
const PAUSE: Duration = Duration::from_millis(500);

/// Parameters of a cast, except for the key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CastStart {
    /// The station's name.
    pub name: String,
    /// The programme's title.
    pub title: String,
    /// Whether the station is public.
    pub public: bool,
    /// Speech instead of music.
    pub voice: bool,
    /// 32 secret random bytes, new for each cast.
    pub seed: [u8; 32],
}

/// State of a cast.
#[derive(Debug, Serialize)]
pub struct CastStatus {
    /// The station's text for listeners; that of a private station is secret.
    station: String,
    public: bool,
    /// Packets sent.
    packets: u64,
    /// Another caster with this key began later, so this one has ended.
    superseded: bool,
}

/// One cast of a station.
#[derive(Debug)]
pub struct Casting {
    caster: Caster,
    source: Ipv6Addr,
    packets: u64,
    is_superseded: bool,
    /// When the next packet is expected.
    due: Option<Instant>,
}

impl Casting {
    /// Begins a cast.
    ///
    /// # Errors
    /// Name or title cannot be displayed.
    pub fn new(
        key: StationKey,
        start: CastStart,
        source: Ipv6Addr,
        now: Instant,
        time: UnixTime,
    ) -> Result<Self, String> {
        let config = CasterConfig {
            is_public: start.public,
            name: start.name,
            title: start.title,
            profile: if start.voice {
                Profile::Voice
            } else {
                Profile::Music
            },
            channels: if start.voice { 1 } else { 2 },
            together: None,
            seed: start.seed,
            started: time,
            grant: None,
        };
        let caster = Caster::new(key, config, now);
        let caster = caster.map_err(
            |_| "A name or title has at most 255 bytes, and no characters that nobody sees.",
        )?;
        Ok(Self {
            caster,
            source,
            packets: 0,
            is_superseded: false,
            due: None,
        })
    }

    /// The group of all casters with the same key.
    pub fn group(&self) -> Ipv6Addr {
        self.caster.station().group()
    }

    /// Handles a datagram, which may be another caster's with this key.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        let is_beacon = (datagram.group, datagram.port) == (self.group(), BEACON_PORT);
        let (source, data) = (datagram.source, datagram.data);
        if is_beacon && self.caster.is_superseded_by(data, source, time) {
            self.is_superseded = true;
            self.caster.end(now);
        }
    }

    /// Sends a frame of Opus of 20 ms; returns whether it was sent.
    pub fn send(&mut self, opus: &[u8], now: Instant) -> bool {
        let due = self.due.unwrap_or(now);
        let behind = now.saturating_duration_since(due);
        let mut from = due;
        if behind > PAUSE {
            self.caster.pause(behind.as_micros() as u64 * 48 / 1_000);
            from = now;
        }
        self.due = Some(from + Duration::from_millis(u64::from(FRAME) / 48));
        let is_sent = self.caster.send(opus, FRAME, now);
        self.packets += u64::from(is_sent);
        is_sent
    }

    /// Marks the beginning or the end of speech.
    pub fn set_talking(&mut self, talks: bool, now: Instant) {
        self.caster.set_talking(talks, now);
    }

    /// Changes the title.
    ///
    /// # Errors
    /// It cannot be displayed.
    pub fn set_title(&mut self, title: &str, now: Instant) -> Result<(), String> {
        let set = self.caster.set_title(title, now);
        set.map_err(|_| "This title cannot be shown.".to_owned())
    }

    /// Ends the cast, and informs listeners.
    pub fn end(&mut self, now: Instant) {
        self.caster.end(now);
    }

    /// Whether the end has been sent.
    pub fn has_ended(&self) -> bool {
        self.caster.has_ended()
    }

    /// When [`poll_command`](Self::poll_command) is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.caster.next_timeout()
    }

    /// Returns the next datagram to send.
    pub fn poll_command(&mut self, now: Instant, time: UnixTime) -> Option<Command> {
        let station = self.caster.station();
        let (group, copy) = (station.group(), station.copy_group());
        loop {
            let (group, port, data) = match self.caster.poll_transmit(now)? {
                Transmit::Packet(packet) => (group, MEDIA_PORT, packet),
                // a page asks nobody to play in step
                Transmit::Answer => continue,
                Transmit::Copy(packet) => (copy, MEDIA_PORT, packet),
                Transmit::Beacon => match self.caster.beacon(self.source, time) {
                    Ok(beacon) => (group, BEACON_PORT, beacon),
                    Err(_) => continue,
                },
                Transmit::Report => (group, REPORT_PORT, self.caster.report(time)),
                Transmit::Announcement => {
                    (SAP_GROUP, SAP_PORT, self.caster.announcement(self.source))
                }
            };
            return Some(Command::Send { group, port, data });
        }
    }

    /// The state of the cast.
    pub fn status(&self) -> CastStatus {
        let station = self.caster.station();
        CastStatus {
            station: station.encode().to_string(),
            public: station.is_public(),
            packets: self.packets,
            superseded: self.is_superseded,
        }
    }
}
