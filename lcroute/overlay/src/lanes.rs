//! The media lanes of all links: to whom a packet belongs, what is sent in a turn, their timers.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use crate::connection::Connection;
use crate::event::{Ecn, Event, LinkId, SendError, Transmit};
use crate::liveness::Liveness;
use crate::media::{Dropped, Media, is_rtcp, ssrc_of};
use crate::overlay::Overlay;
use crate::peer::{Peer, Traffic};

/// What a link's control channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Hard state of both ends: nothing of it gets lost.
    Control,
    /// Messages of others: they wait behind it, and too many of them are dropped.
    Routed,
}

/// The lane of a link that is up.
struct Lane<'a> {
    link: LinkId,
    media: &'a mut Media,
    liveness: &'a mut Liveness,
    traffic: &'a mut Traffic,
    /// From and to; none while ICE looks for a new one.
    path: Option<(SocketAddr, SocketAddr)>,
}

fn lane(peers: &mut [Option<Peer>], index: usize) -> Option<Lane<'_>> {
    let peer = peers.get_mut(index)?.as_mut()?;
    let link = peer.link.as_mut()?;
    let up = link.up.as_mut()?;
    Some(Lane {
        link: up.id,
        media: up.media.as_deref_mut()?,
        liveness: &mut up.liveness,
        traffic: &mut peer.traffic,
        path: link.connection.path(),
    })
}

impl Overlay {
    /// The lane of a connection that has just been authenticated, if both sides offer it.
    pub(crate) fn new_media(&self, connection: &Connection, now: Instant) -> Option<Box<Media>> {
        let keys = connection.media_keys()?;
        let crypto = self.factory.provider().crypto();
        let limits = &self.config.limits;
        let times = (limits.media_queue, limits.media_repair);
        // the session is random, and nobody else's business
        let mut media = Media::new(&keys, crypto, self.config.mtu, times, self.session, now)?;
        if connection.lane_carries_control() {
            media.carry_control(limits.control_queue, now);
        }
        Some(Box::new(media))
    }

    /// Sends a message in the link's media lane; false if it has none that takes it.
    pub(crate) fn send_media(&mut self, index: usize, parts: [&[u8]; 2], now: Instant) -> bool {
        let Some(lane) = lane(&mut self.peers, index) else {
            return false;
        };
        let size = parts[0].len() + parts[1].len();
        if size == 0 || size > lane.media.longest() {
            return false;
        }
        let mut dropped = Dropped::default();
        let has_path = lane.path.is_some();
        lane.media.send(parts, has_path, &mut dropped, now);
        let waits = lane.media.is_waiting();
        list(&mut self.sending, lane.media, index);
        self.count_dropped(dropped);
        if waits {
            self.schedule_media(index);
        }
        true
    }

    /// Sends a control message in the link's media lane; none if it does not carry them.
    pub(crate) fn send_reliably(
        &mut self,
        index: usize,
        message: &[u8],
        priority: Priority,
        now: Instant,
    ) -> Option<Result<(), SendError>> {
        let lane = lane(&mut self.peers, index)?;
        let result = match priority {
            Priority::Control => lane.media.send_control(message, now)?,
            Priority::Routed => lane.media.send_routed(message)?,
        };
        list(&mut self.sending, lane.media, index);
        Some(result)
    }

    /// A message of the control channel of a link that is up.
    pub(crate) fn handle_control(&mut self, index: usize, message: Bytes, now: Instant) {
        if let Some(lane) = lane(&mut self.peers, index)
            && lane.media.handle_channel(&message, now)
        {
            list(&mut self.sending, lane.media, index);
            return self.deliver_control(index, now);
        }
        let up = self.peers.get(index).and_then(|p| p.as_ref()?.up());
        if let Some(link) = up.map(|up| up.id) {
            self.events.push_back(Event::Control { link, message });
        }
    }

    /// Hands on the control messages that have come in a lane.
    fn deliver_control(&mut self, index: usize, now: Instant) {
        let Some(lane) = lane(&mut self.peers, index) else {
            return;
        };
        let link = lane.link;
        while let Some(message) = lane.media.take_control() {
            self.events.push_back(Event::Control { link, message });
        }
        if lane.media.is_broken() {
            self.end_link(index, "control messages that make no sense", now);
        }
    }

    /// The turn is over: packets that are not full go out as they are.
    pub(crate) fn finish_media(&mut self) {
        let now = self.now;
        let mut sending = std::mem::take(&mut self.sending);
        for index in sending.drain(..) {
            let Some(lane) = lane(&mut self.peers, index) else {
                continue;
            };
            lane.media.listed = false;
            let Some((from, to)) = lane.path else {
                continue;
            };
            let ecn = if lane.media.marks() {
                Ecn::Capable
            } else {
                Ecn::None
            };
            let (trip, loss) = (lane.liveness.rtt(), lane.liveness.loss());
            lane.media.hellos_show(trip, loss);
            for contents in lane.media.finish(now) {
                lane.traffic.sent(contents.len());
                let mut transmit = Transmit::plain(to, Some(from), contents);
                // reports answer to no controller
                if !is_rtcp(&transmit.contents) {
                    transmit.ecn = ecn;
                }
                self.transmits.push_back(transmit);
            }
            let channel: Vec<_> = lane.media.take_channel().collect();
            for contents in lane.media.take_probes() {
                lane.traffic.sent(contents.len());
                let mut probe = Transmit::plain(to, Some(from), contents);
                (probe.ecn, probe.dont_fragment) = (ecn, true);
                self.transmits.push_back(probe);
            }
            if !channel.is_empty() {
                self.send_on_channel(index, &channel, now);
            }
            self.schedule_media(index);
        }
        // empty again; its room is used next time
        self.sending = sending;
    }

    /// Sends what the lane cannot bring through; the channel loses nothing, but may be full.
    fn send_on_channel(&mut self, index: usize, messages: &[Bytes], now: Instant) {
        if let Some(link) = self.link_mut(index) {
            let sent = messages.iter().filter(|message| {
                let sent = link.connection.send_control(message, now);
                sent.is_err()
            });
            let unsent = sent.count();
            debug!(unsent, "the media lane is stalled");
            self.mark_dirty(index);
        }
    }

    /// A datagram of the range of RTP and RTCP.
    pub(crate) fn handle_media(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        ecn: Ecn,
        now: Instant,
    ) {
        let Some(index) = self.media_index(from, datagram) else {
            return self.count("media_no_link");
        };
        let Some(lane) = lane(&mut self.peers, index) else {
            return self.count("unauthenticated_data");
        };
        let (link, events, mut dropped) = (lane.link, &mut self.events, Dropped::default());
        let mut deliver = |message: Bytes| {
            // high nibble 0 is the overlay's own, and empty
            if message.first().is_some_and(|first| first >> 4 != 0) {
                events.push_back(Event::Data { link, message });
            }
        };
        let (media, has_path) = (lane.media, lane.path.is_some());
        let result = media.handle(datagram, ecn, has_path, &mut deliver, &mut dropped, now);
        list(&mut self.sending, media, index);
        match result {
            Ok(()) => {
                lane.liveness.heard(now);
                lane.traffic.received(datagram.len());
                self.schedule_media(index);
            }
            Err(reason) => self.count(reason),
        }
        self.count_dropped(dropped);
        self.deliver_control(index, now);
    }

    /// This host refused to send datagrams of up to `size` bytes to `to`: they are lost, perhaps for their size.
    pub fn handle_unsent(&mut self, to: SocketAddr, size: usize, datagrams: u64, now: Instant) {
        self.observe(now);
        let Some(&index) = self.by_addr.get(&to) else {
            return;
        };
        if let Some(lane) = lane(&mut self.peers, index) {
            lane.media.unsent(size, datagrams, now);
            self.schedule_media(index);
        }
    }

    /// Whose packet it is. The keys decide in the end; the address is a hint, which may be an old one
    /// when the path has changed on the way to us.
    fn media_index(&self, from: SocketAddr, datagram: &[u8]) -> Option<usize> {
        let ssrc = ssrc_of(datagram)?;
        let by_addr = self.by_addr.get(&from).copied().filter(|index| {
            let up = self.peers.get(*index).and_then(|p| p.as_ref()?.up());
            let media = up.and_then(|up| up.media.as_ref());
            media.is_none_or(|media| media.receiving_ssrc() == ssrc)
        });
        by_addr.or_else(|| self.by_ssrc.get(&ssrc).copied())
    }

    /// ICE has found another path for a link.
    pub(crate) fn move_media(&mut self, index: usize, now: Instant) {
        let mut dropped = Dropped::default();
        if let Some(lane) = lane(&mut self.peers, index) {
            lane.media.path_changed(&mut dropped, now);
            list(&mut self.sending, lane.media, index);
        }
        self.count_dropped(dropped);
    }

    /// Does what is due in a link's lane.
    pub(crate) fn poll_media(&mut self, index: usize, now: Instant) {
        let mut dropped = Dropped::default();
        if let Some(lane) = lane(&mut self.peers, index) {
            lane.media.poll(lane.path.is_some(), &mut dropped, now);
            list(&mut self.sending, lane.media, index);
        }
        self.count_dropped(dropped);
    }

    /// Makes sure that the lane's timer is on the heap, without asking the connection for its own.
    fn schedule_media(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let media = peer.up().and_then(|up| up.media.as_ref());
        let Some(at) = media.and_then(|media| media.deadline()) else {
            return;
        };
        if peer.scheduled.is_none_or(|scheduled| at < scheduled) {
            peer.scheduled = Some(at);
            self.timers.push(Reverse((at, index)));
        }
    }

    fn count_dropped(&mut self, dropped: Dropped) {
        for (reason, count) in [
            ("queue_delay", dropped.late),
            ("queue_codel", dropped.standing),
            ("queue_full", dropped.overflow),
        ] {
            if count > 0 {
                *self.drops.entry(reason).or_default() += count;
            }
        }
    }
}

/// Remembers a lane that has something to send, once.
fn list(sending: &mut Vec<usize>, media: &mut Media, index: usize) {
    if !media.listed && media.has_output() {
        media.listed = true;
        sending.push(index);
    }
}
