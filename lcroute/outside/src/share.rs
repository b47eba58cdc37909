//! One WebRTC stack and UDP socket for all pairs: each overlay has a view of it.
//!
//! A datagram outside of connections begins with a hint, which finds its view by one look-up:
//!
//! ```text
//! 0xc1 | hint 64 | as behind 0xc0 in a network
//! ```
//!
//! Calls of open keys are in `guests`.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use lcroute_overlay::{
    Candidate, Closing, ConnectionEvent, Connections, Description, Fingerprint, LinkInfo, Path,
    SendError, Traffic,
};
use lcroute_webrtc::relay::StreamCommand;
use lcroute_webrtc::{Ecn, Transmit, WebRtc};
use librecast::drops::Drops;
use librecast::id::{LinkId, PeerId};
use librecast::pair::HINT_LEN;
use librecast::time::{Duration, Instant};

use crate::drops::DropReason;
use crate::guests::{ANSWER_LEN, Cookie, call};

/// First byte of a datagram with a hint. RFC 7983 assigns it to no protocol.
const HINTED: u8 = 0xc1;
/// Datagrams with a hint that wait to be sent. Chosen: requests of all links that begin.
const MAX_WAITING: usize = 256;
/// Cookies, and datagrams that wait for one, of a call. Chosen: two for each address of a record.
const MAX_COOKIES: usize = 16;
/// Uses of a cookie before it is asked for anew. Chosen: it ends within two minutes.
const COOKIE_USES: u8 = 8;
/// Events that wait for one view. Chosen: some turns of a full link.
const MAX_EVENTS: usize = 4_096;

/// The number of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

#[derive(Debug)]
struct Shared {
    webrtc: WebRtc,
    views: BTreeMap<ViewId, VecDeque<ConnectionEvent>>,
    hints: BTreeMap<[u8; HINT_LEN], ViewId>,
    /// The views' links by the stack's numbers, and the reverse.
    owners: BTreeMap<LinkId, (ViewId, LinkId)>,
    links: BTreeMap<(ViewId, LinkId), LinkId>,
    /// Views with events.
    ready: BTreeSet<ViewId>,
    transmits: VecDeque<Transmit>,
    drops: Drops<DropReason>,
    /// Calls of open keys, by the views of their pairs.
    openings: BTreeMap<ViewId, Opening>,
    /// Whether addresses have changed since the last look.
    moved: bool,
    next_view: u32,
    next_link: u32,
}

/// A call of an open key: its datagrams follow a cookie.
#[derive(Debug)]
struct Opening {
    key: PeerId,
    first: Cookie,
    /// Cookies, and how often each was sent.
    cookies: BTreeMap<SocketAddr, (Cookie, u8)>,
    /// Datagrams without their view's hint, for addresses that have given no cookie yet.
    waiting: VecDeque<(Option<SocketAddr>, SocketAddr, Bytes)>,
}

impl Opening {
    /// Returns the cookie for an address, some times: it may be too old, and gets no answer then.
    fn cookie_for(&mut self, to: SocketAddr) -> Option<Cookie> {
        let (cookie, sent) = self.cookies.get_mut(&to)?;
        let cookie = *cookie;
        *sent += 1;
        if *sent >= COOKIE_USES {
            self.cookies.remove(&to);
        }
        Some(cookie)
    }
}

/// Returns the content of a hinted datagram, with its hint.
pub(crate) fn hinted(datagram: &[u8]) -> Option<([u8; HINT_LEN], &[u8])> {
    let (kind, rest) = datagram.split_first()?;
    let (hint, content) = rest.split_first_chunk()?;
    (*kind == HINTED).then_some((*hint, content))
}

impl Shared {
    fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// Gives the stack's events to the views.
    fn distribute(&mut self) {
        while let Some(mut event) = self.webrtc.poll_event() {
            self.moved |= matches!(
                event,
                ConnectionEvent::AddressesChanged | ConnectionEvent::CandidatesChanged
            );
            let is_straight = matches!(event, ConnectionEvent::Straight { .. });
            match link_of(&mut event) {
                Some(link) => {
                    let Some((view, own)) = self.owners.get(link).copied() else {
                        continue;
                    };
                    *link = own;
                    self.push(view, event);
                }
                None if is_straight => {
                    self.count(DropReason::OutsideUnknown);
                }
                None => {
                    let views: Vec<_> = self.views.keys().copied().collect();
                    for view in views {
                        let copy = match &event {
                            ConnectionEvent::AddressesChanged => ConnectionEvent::AddressesChanged,
                            _ => ConnectionEvent::CandidatesChanged,
                        };
                        self.push(view, copy);
                    }
                }
            }
        }
    }

    fn push(&mut self, view: ViewId, event: ConnectionEvent) {
        let Some(events) = self.views.get_mut(&view) else {
            return;
        };
        let is_full = events.len() >= MAX_EVENTS;
        // an event of a connection's life is never lost
        if is_full
            && matches!(
                event,
                ConnectionEvent::Data { .. } | ConnectionEvent::Straight { .. }
            )
        {
            return self.count(DropReason::OutsideFull);
        }
        events.push_back(event);
        self.ready.insert(view);
    }

    /// Returns the stack's number for a view's link; a new one if there is none.
    fn number(&mut self, view: ViewId, link: LinkId) -> LinkId {
        if let Some(known) = self.links.get(&(view, link)) {
            return *known;
        }
        let number = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        self.links.insert((view, link), number);
        self.owners.insert(number, (view, link));
        number
    }

    /// Sends a datagram outside of connections.
    fn straight(&mut self, from: Option<SocketAddr>, to: SocketAddr, contents: Bytes) {
        if self.transmits.len() >= MAX_WAITING {
            return self.count(DropReason::OutsideFull);
        }
        self.transmits.push_back(Transmit {
            to,
            from,
            contents,
            ecn: Ecn::None,
            dont_fragment: false,
        });
    }

    fn forget(&mut self, view: ViewId, link: LinkId) {
        if let Some(number) = self.links.remove(&(view, link)) {
            self.owners.remove(&number);
        }
    }
}

/// Returns the link of an event.
fn link_of(event: &mut ConnectionEvent) -> Option<&mut LinkId> {
    use ConnectionEvent as E;
    match event {
        E::Described { link, .. }
        | E::Open { link }
        | E::Control { link, .. }
        | E::Data { link, .. }
        | E::RoundTrip { link, .. }
        | E::OtherControl { link, .. }
        | E::Path { link }
        | E::PathLost { link }
        | E::BetterPath { link }
        | E::Candidates { link, .. }
        | E::Outdated { link }
        | E::Closed { link, .. } => Some(link),
        E::AddressesChanged | E::CandidatesChanged | E::Straight { .. } => None,
    }
}

/// The shared stack.
#[derive(Debug, Clone)]
pub struct Share(Rc<RefCell<Shared>>);

impl Share {
    /// Shares a stack, which has no connections yet.
    #[must_use]
    pub fn new(webrtc: WebRtc) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            webrtc,
            views: BTreeMap::new(),
            hints: BTreeMap::new(),
            owners: BTreeMap::new(),
            links: BTreeMap::new(),
            ready: BTreeSet::new(),
            transmits: VecDeque::new(),
            drops: Drops::default(),
            openings: BTreeMap::new(),
            moved: false,
            next_view: 0,
            next_link: 0,
        })))
    }

    /// Makes a view, which receives datagrams with this hint.
    pub(crate) fn view(&self, hint: [u8; HINT_LEN]) -> View {
        let mut shared = self.0.borrow_mut();
        let id = ViewId(shared.next_view);
        shared.next_view += 1;
        shared.views.insert(id, VecDeque::new());
        shared.hints.insert(hint, id);
        drop(shared);
        View {
            share: self.clone(),
            id,
            hint,
        }
    }

    /// Datagrams of this view are a call of an open key by `key`, which begins with `first`.
    pub(crate) fn open(&self, view: ViewId, key: PeerId, first: Cookie) {
        let opening = Opening {
            key,
            first,
            cookies: BTreeMap::new(),
            waiting: VecDeque::new(),
        };
        self.0.borrow_mut().openings.insert(view, opening);
    }

    /// Handles the answer to a call: sends the call again, and all that has waited for it.
    pub(crate) fn handle_cookie(&self, from: SocketAddr, datagram: &[u8]) {
        let mut shared = self.0.borrow_mut();
        let cookie = <&[u8; ANSWER_LEN]>::try_from(datagram);
        let cookie = cookie.ok().and_then(|answer| answer[1..].try_into().ok());
        let Some(cookie): Option<Cookie> = cookie else {
            return shared.count(DropReason::OutsideUnknown);
        };
        let mut ready = Vec::new();
        for (view, opening) in &mut shared.openings {
            let is_its = |(_, to, _): &(_, SocketAddr, _)| *to == from;
            if opening.first[0] != cookie[0] || !opening.waiting.iter().any(is_its) {
                continue;
            }
            if opening.cookies.len() >= MAX_COOKIES {
                opening.cookies.pop_first();
            }
            opening.cookies.insert(from, (cookie, 0));
            let waiting = std::mem::take(&mut opening.waiting);
            let (its, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_its);
            opening.waiting = left.into();
            ready.push((*view, call(&opening.key, &cookie), its));
        }
        if ready.is_empty() {
            return shared.count(DropReason::OutsideUnknown);
        }
        let hints: BTreeMap<_, _> = shared
            .hints
            .iter()
            .map(|(hint, view)| (*view, *hint))
            .collect();
        for (view, call, its) in ready {
            let Some(hint) = hints.get(&view) else {
                continue;
            };
            let local = its.first().and_then(|(local, ..)| *local);
            shared.straight(local, from, call.into());
            for (local, to, datagram) in its {
                let contents = [&[HINTED], hint.as_slice(), &datagram].concat();
                shared.straight(local, to, contents.into());
            }
        }
    }

    /// Sends a datagram of this host's open key.
    pub(crate) fn answer(&self, from: SocketAddr, to: SocketAddr, answer: &[u8]) {
        let contents = Bytes::copy_from_slice(answer);
        self.0.borrow_mut().straight(Some(from), to, contents);
    }

    /// Returns whether addresses of this host have changed since the last call.
    pub(crate) fn has_moved(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().moved)
    }

    /// Lends the stack: its owner gives it addresses and servers.
    pub fn webrtc(&self) -> RefMut<'_, WebRtc> {
        RefMut::map(self.0.borrow_mut(), |shared| &mut shared.webrtc)
    }

    /// Handles a datagram from the UDP socket.
    pub fn handle_datagram(
        &self,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let mut shared = self.0.borrow_mut();
        if datagram.first() != Some(&HINTED) {
            shared
                .webrtc
                .handle_datagram(from, to_local, datagram, Ecn::None, now);
            return shared.distribute();
        }
        let found = hinted(datagram);
        let found = found.and_then(|(hint, content)| Some((*shared.hints.get(&hint)?, content)));
        let Some((view, content)) = found else {
            return shared.count(DropReason::OutsideUnknown);
        };
        let path = Path {
            local: to_local,
            remote: from,
        };
        let datagram = Bytes::copy_from_slice(content);
        shared.push(view, ConnectionEvent::Straight { path, datagram });
    }

    /// Handles all timers of the stack that are due.
    pub fn handle_timeout(&self, now: Instant) {
        let mut shared = self.0.borrow_mut();
        if shared.webrtc.next_timeout().is_some_and(|at| at <= now) {
            shared.webrtc.handle_timeout(now);
        }
        shared.distribute();
    }

    /// Returns the stack's next deadline.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.0.borrow_mut().webrtc.next_timeout()
    }

    /// Returns the next datagram to send.
    #[must_use]
    pub fn poll_transmit(&self) -> Option<Transmit> {
        let mut shared = self.0.borrow_mut();
        let next = shared.transmits.pop_front();
        let next = next.or_else(|| shared.webrtc.poll_transmit());
        // sending drains connections
        shared.distribute();
        next
    }

    /// Returns the next command about streams to relays.
    pub(crate) fn poll_relay_stream(&self) -> Option<StreamCommand> {
        self.0.borrow_mut().webrtc.poll_relay_stream()
    }

    /// Returns a view with events.
    pub(crate) fn poll_ready(&self) -> Option<ViewId> {
        self.0.borrow_mut().ready.pop_first()
    }

    /// Counts a dropped input.
    pub(crate) fn count(&self, reason: DropReason) {
        self.0.borrow_mut().count(reason);
    }

    /// Returns the drops so far, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let shared = self.0.borrow();
        let mut all = shared.drops.by_name();
        for (reason, count) in shared.webrtc.drops() {
            *all.entry(reason).or_default() += count;
        }
        all
    }
}

/// The shared stack for one overlay. Dropping it ends its connections.
#[derive(Debug)]
pub struct View {
    share: Share,
    id: ViewId,
    hint: [u8; HINT_LEN],
}

impl View {
    /// Returns its number.
    pub fn id(&self) -> ViewId {
        self.id
    }

    /// Runs `act` on the stack, with its number of this link, and distributes the events.
    fn with<R>(&self, link: LinkId, act: impl FnOnce(&mut WebRtc, LinkId) -> R) -> R {
        let mut shared = self.share.0.borrow_mut();
        let number = shared.number(self.id, link);
        let result = act(&mut shared.webrtc, number);
        shared.distribute();
        result
    }

    /// Runs `look` on the stack, if it knows this link.
    fn look<R>(&self, link: LinkId, look: impl FnOnce(&WebRtc, LinkId) -> R) -> Option<R> {
        let shared = self.share.0.borrow();
        let number = shared.links.get(&(self.id, link))?;
        Some(look(&shared.webrtc, *number))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut shared = self.share.0.borrow_mut();
        shared.views.remove(&self.id);
        shared.ready.remove(&self.id);
        shared.hints.remove(&self.hint);
        shared.openings.remove(&self.id);
        let id = self.id;
        let left = shared.links.iter().filter(|((view, _), _)| *view == id);
        let left: Vec<_> = left.map(|(key, _)| *key).collect();
        for (view, link) in left {
            shared.forget(view, link);
        }
    }
}

impl Connections for View {
    fn use_relays_only(&mut self, link: LinkId) {
        self.with(link, WebRtc::use_relays_only);
    }

    fn offer(&mut self, link: LinkId, now: Instant) {
        self.with(link, |webrtc, link| webrtc.offer(link, now));
    }

    fn answer(&mut self, link: LinkId, offer: &Description, now: Instant) {
        self.with(link, |webrtc, link| webrtc.answer(link, offer, now));
    }

    fn accept(&mut self, link: LinkId, answer: &Description, now: Instant) {
        self.with(link, |webrtc, link| webrtc.accept(link, answer, now));
    }

    fn add_candidates(&mut self, link: LinkId, candidates: &[Candidate], now: Instant) {
        self.with(link, |w, link| w.add_candidates(link, candidates, now));
    }

    fn await_restart(&mut self, link: LinkId) {
        self.with(link, WebRtc::await_restart);
    }

    fn restart(&mut self, link: LinkId, offer: Option<&Description>, now: Instant) {
        self.with(link, |webrtc, link| webrtc.restart(link, offer, now));
    }

    fn remote_fingerprint(&mut self, link: LinkId) -> Option<Fingerprint> {
        self.with(link, WebRtc::remote_fingerprint)
    }

    fn authenticated(&mut self, link: LinkId, answers: bool, now: Instant) {
        self.with(link, |webrtc, link| {
            webrtc.authenticated(link, answers, now);
        });
    }

    fn send_control(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        self.with(link, |webrtc, link| webrtc.send_control(link, message, now))
    }

    fn send_routed(&mut self, link: LinkId, message: &[u8], now: Instant) -> Result<(), SendError> {
        self.with(link, |webrtc, link| webrtc.send_routed(link, message, now))
    }

    fn send_data(
        &mut self,
        link: LinkId,
        parts: [&[u8]; 2],
        now: Instant,
    ) -> Result<(), SendError> {
        self.with(link, |webrtc, link| webrtc.send_data(link, parts, now))
    }

    fn suspect(&mut self, link: LinkId, now: Instant) {
        self.with(link, |webrtc, link| webrtc.suspect(link, now));
    }

    fn close(&mut self, link: LinkId, now: Instant) -> Closing {
        let closing = self.with(link, |webrtc, link| webrtc.close(link, now));
        self.share.0.borrow_mut().forget(self.id, link);
        closing
    }

    fn path(&self, link: LinkId) -> Option<Path> {
        self.look(link, WebRtc::path).flatten()
    }

    fn send_straight(&mut self, from: Option<SocketAddr>, to: SocketAddr, datagram: &Bytes) {
        let mut shared = self.share.0.borrow_mut();
        if let Some(opening) = shared.openings.get_mut(&self.id) {
            let cookie = opening.cookie_for(to);
            let first = call(&opening.key, &cookie.unwrap_or(opening.first));
            if opening.waiting.len() >= MAX_COOKIES {
                opening.waiting.pop_front();
            }
            // the answer may be lost
            opening.waiting.push_back((from, to, datagram.clone()));
            shared.straight(from, to, first.into());
            if cookie.is_none() {
                return;
            }
        }
        let contents = [&[HINTED], self.hint.as_slice(), datagram].concat();
        shared.straight(from, to, contents.into());
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.share.0.borrow().webrtc.candidates()
    }

    fn info(&self, link: LinkId) -> LinkInfo {
        self.look(link, WebRtc::info).unwrap_or_default()
    }

    fn round_trip(&self, link: LinkId) -> Option<Duration> {
        self.look(link, WebRtc::round_trip).flatten()
    }

    fn traffic(&self, link: LinkId) -> Traffic {
        self.look(link, WebRtc::traffic).unwrap_or_default()
    }

    // the owner of the share calls the stack once for all views
    fn handle_timeout(&mut self, _now: Instant) {}

    fn next_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        let mut shared = self.share.0.borrow_mut();
        let events = shared.views.get_mut(&self.id)?;
        let event = events.pop_front();
        if events.is_empty() {
            shared.ready.remove(&self.id);
        }
        event
    }

    // the share's, of all views
    fn drops(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
