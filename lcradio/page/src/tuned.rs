//! The station that a page listens to.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lcradio_core::{
    BEACON_PORT, Beacon, Channel, DropReason, Event, FRAME, Frame, Latency, Listener, MAX_CASTERS,
    Playout, PlayoutStats, SoundPacket, Tuned,
};
use lcroute_web_page::Datagram;
use librecast::time::{Instant, UnixTime};
use serde::Serialize;

/// Receives one station, and provides the next frame of each of its casters.
#[derive(Debug)]
pub struct TunedStation {
    /// The page's text for it.
    id: String,
    listener: Listener,
    latency: Latency,
    playouts: [Option<Playout>; MAX_CASTERS],
    /// The last casters on air.
    casters: Vec<OnAir>,
}

/// A caster's own description.
#[derive(Debug, Clone, Serialize)]
pub struct OnAir {
    name: String,
    title: String,
    talking: bool,
}

/// State of the reception.
#[derive(Debug, Serialize)]
pub struct ListenStatus {
    id: String,
    /// `waiting`, `live` or `ended`.
    state: &'static str,
    /// Casters on air; if none is, the last ones.
    casters: Vec<OnAir>,
    /// The group has packets that the station's key does not open.
    is_of_another_key: bool,
    /// The clocks of the caster and of this computer are more than an hour apart.
    clocks_differ: bool,
    sent: u64,
    lost_before_copy: u64,
    lost: u64,
    copy: bool,
    buffer_ms: u128,
    target_ms: u128,
    /// Clock drift of the first caster.
    drift_ppm: f64,
    underruns: u64,
    concealed: u64,
    resyncs: u64,
    drops: BTreeMap<&'static str, u64>,
}

impl TunedStation {
    /// Tunes in, without a received packet so far.
    #[must_use]
    pub fn new(id: String, tuned: Tuned, latency: Latency, now: Instant) -> Self {
        Self {
            id,
            listener: Listener::new(tuned, now),
            latency,
            playouts: [const { None }; MAX_CASTERS],
            casters: Vec::new(),
        }
    }

    /// Groups in use.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        let tuned = self.listener.tuned();
        let copy = tuned.copy_group().filter(|_| self.listener.wants_copy());
        std::iter::once(tuned.group()).chain(copy)
    }

    /// Handles a datagram of a group that the page has joined; ignores datagrams of other groups.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        let Datagram {
            source,
            group,
            port,
            data,
        } = datagram;
        let tuned = self.listener.tuned();
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
            .handle_datagram(channel, source, data, now, time);
        while let Some(event) = self.listener.poll_event() {
            match event {
                Event::Station { .. } => {}
                Event::Sound(packet) => self.push(packet),
                Event::Ended { caster } => {
                    if let Some(playout) = self.playout(caster) {
                        playout.end();
                    }
                }
            }
        }
        self.look_at_casters(now);
    }

    fn push(&mut self, packet: SoundPacket) {
        let Some(playout) = self.playouts.get_mut(usize::from(packet.caster)) else {
            return;
        };
        let new = || Playout::new(self.latency, packet.arrival);
        if !playout.get_or_insert_with(new).push(packet) {
            self.listener.count(DropReason::Expired);
        }
    }

    fn playout(&mut self, caster: u8) -> Option<&mut Playout> {
        self.playouts.get_mut(usize::from(caster))?.as_mut()
    }

    fn look_at_casters(&mut self, now: Instant) {
        let of = |beacon: &Beacon| OnAir {
            name: beacon.name.clone(),
            title: beacon.title.clone(),
            talking: beacon.is_talking,
        };
        let on_air = self.listener.on_air(now);
        let on_air: Vec<OnAir> = on_air.filter_map(|(_, beacon)| beacon.map(of)).collect();
        if !on_air.is_empty() {
            self.casters = on_air;
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.listener.handle_timeout(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        self.listener.next_timeout()
    }

    /// The casters that are playing: a bit for each.
    #[must_use]
    pub fn voices(&self) -> u32 {
        let all = self.playouts.iter().enumerate();
        let heard = all.filter(|(_, playout)| playout.is_some());
        heard.fold(0, |bits, (caster, _)| bits | 1 << caster)
    }

    /// Returns the next frame of a caster.
    pub fn poll_frame(&mut self, caster: u8, now: Instant) -> Frame {
        let silence = Frame::Silence { samples: FRAME };
        let playout = self.playout(caster);
        playout.map_or(silence, |playout| playout.poll_frame(now))
    }

    /// The correction of a caster's sample rate for the player.
    #[must_use]
    pub fn speed_ppm(&self, caster: u8) -> f64 {
        let playout = self.playouts.get(usize::from(caster));
        let playout = playout.and_then(Option::as_ref);
        playout.map_or(0.0, Playout::speed_ppm)
    }

    /// Changes the delay.
    pub fn set_latency(&mut self, latency: Latency) {
        self.latency = latency;
        for playout in self.playouts.iter_mut().flatten() {
            playout.set_latency(latency);
        }
    }

    /// The state of the reception.
    #[must_use]
    pub fn status(&self, now: Instant) -> ListenStatus {
        let listener = &self.listener;
        let (loss, drops) = (listener.loss(), listener.drops());
        let state = match (listener.has_session(), listener.on_air(now).next()) {
            (false, _) => "waiting",
            (true, Some(_)) => "live",
            (true, None) => "ended",
        };
        let mut casters = self.casters.clone();
        if let Tuned::Unsigned(description) = listener.tuned() {
            casters.push(OnAir {
                name: description.name.clone(),
                title: String::new(),
                talking: false,
            });
        }
        let mut stats = PlayoutStats::default();
        for playout in self.playouts.iter().flatten() {
            let of_one = playout.stats();
            stats.buffered = stats.buffered.max(of_one.buffered);
            stats.target = stats.target.max(of_one.target);
            stats.underruns += of_one.underruns;
            stats.concealed += of_one.concealed;
            stats.resyncs += of_one.resyncs;
        }
        let first = self.playouts.iter().flatten().next();
        let drift = first.map_or(0.0, Playout::speed_ppm);
        ListenStatus {
            id: self.id.clone(),
            state,
            casters,
            is_of_another_key: listener.is_of_another_key(),
            clocks_differ: !listener.has_session() && drops.get(DropReason::BeaconTime) > 0,
            sent: loss.sent,
            lost_before_copy: loss.lost_before_copy,
            lost: loss.lost,
            copy: listener.wants_copy(),
            buffer_ms: stats.buffered.as_millis(),
            target_ms: stats.target.as_millis(),
            drift_ppm: (drift * 10.0).round() / 10.0,
            underruns: stats.underruns,
            concealed: stats.concealed,
            resyncs: stats.resyncs,
            drops: drops.by_name(),
        }
    }
}
