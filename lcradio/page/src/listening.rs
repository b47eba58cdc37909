//! The station that a page listens to.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lcradio_core::{
    FRAME, Frame, Latency, MAX_CASTERS, OnAir, Playout, PlayoutStats, Reception, SoundPacket,
    Tuned, TunedStation,
};
use lcroute_web_page::Datagram;
use librecast::time::{Instant, UnixTime};
use serde::Serialize;

/// Receives one station, and provides the next frame of each of its casters.
#[derive(Debug)]
pub struct Listening {
    /// The page's text for the station.
    id: String,
    station: TunedStation,
    latency: Latency,
    playouts: [Option<Playout>; MAX_CASTERS],
}

/// A caster's description of itself, for the page.
#[derive(Debug, Serialize)]
pub struct ShownCaster {
    name: String,
    title: String,
    talking: bool,
}

impl From<&OnAir> for ShownCaster {
    fn from(caster: &OnAir) -> Self {
        Self {
            name: caster.name.clone(),
            title: caster.title.clone(),
            talking: caster.is_talking,
        }
    }
}

/// State of the reception.
#[derive(Debug, Serialize)]
pub struct ListenStatus {
    id: String,
    /// `waiting`, `live` or `ended`.
    state: &'static str,
    /// Casters on air; if none is, the last ones.
    casters: Vec<ShownCaster>,
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

impl Listening {
    /// Tunes in, without a received packet so far.
    #[must_use]
    pub fn new(id: String, tuned: Tuned, latency: Latency, now: Instant) -> Self {
        Self {
            id,
            station: TunedStation::new(tuned, now),
            latency,
            playouts: [const { None }; MAX_CASTERS],
        }
    }

    /// Groups in use.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.station.groups()
    }

    /// Handles a datagram of a group that the page has joined; ignores datagrams of other groups.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        let (to, source) = ((datagram.group, datagram.port), datagram.source);
        self.station
            .handle_datagram(to, source, datagram.data, now, time);
        while let Some(event) = self.station.poll_event(now) {
            match event {
                Reception::OnAir(_) => {}
                Reception::Sound(packet) => self.push(packet),
                Reception::Ended { caster } => {
                    if let Some(playout) = self.playout(caster) {
                        playout.end();
                    }
                }
            }
        }
    }

    fn push(&mut self, packet: SoundPacket) {
        let Some(playout) = self.playouts.get_mut(usize::from(packet.caster)) else {
            return;
        };
        let new = || Playout::new(self.latency, packet.arrival);
        if !playout.get_or_insert_with(new).push(packet) {
            self.station.count_expired();
        }
    }

    fn playout(&mut self, caster: u8) -> Option<&mut Playout> {
        self.playouts.get_mut(usize::from(caster))?.as_mut()
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.station.handle_timeout(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Instant {
        self.station.next_timeout()
    }

    /// The casters that are playing: a bit for each.
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
    pub fn status(&self, now: Instant) -> ListenStatus {
        let listener = self.station.listener();
        let (loss, drops) = (listener.loss(), listener.drops());
        let state = match (listener.has_session(), listener.on_air(now).next()) {
            (false, _) => "waiting",
            (true, Some(_)) => "live",
            (true, None) => "ended",
        };
        let casters = match listener.tuned() {
            // it describes itself by its announcement alone
            Tuned::Unsigned(description) => vec![ShownCaster {
                name: description.name.clone(),
                title: String::new(),
                talking: false,
            }],
            Tuned::Station(_) => self.station.casters().iter().map(Into::into).collect(),
        };
        let of_each = self.playouts.iter().flatten().map(Playout::stats);
        let stats = of_each.fold(PlayoutStats::default(), PlayoutStats::plus);
        let first = self.playouts.iter().flatten().next();
        let drift = first.map_or(0.0, Playout::speed_ppm);
        ListenStatus {
            id: self.id.clone(),
            state,
            casters,
            is_of_another_key: listener.is_of_another_key(),
            clocks_differ: !listener.has_session() && self.station.has_other_time(),
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
