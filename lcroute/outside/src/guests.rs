//! Callers of this host's open key: cookies, rates and places, before any work for them; without
//! I/O.
//!
//! ```text
//! first   0xc2 | G 256 | lowest 8 bits of the period | tag 120. G: the caller's key, new for each call
//! call    0xc2 | G 256 | cookie 128, 49 bytes
//! answer  0xc3 | cookie 128, 17 bytes
//! cookie  lowest 8 bits of the period | keyed hash 120 of address, port, G, period and minute
//! ```
//!
//! The tag proves that the caller knows the open key ([`librecast::open::call_tag`]). A first call is
//! answered with a cookie, and nothing is kept of it. A caller that returns it receives at its
//! address. Anything else is dropped without an answer. Behind a call come datagrams with the hint
//! of G and D.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lcroute_overlay::CarrierId;
use librecast::bucket::{Bucket, Rate};
use librecast::id::{PeerId, derive};
use librecast::open::call_tag;
use librecast::outside::Caller;
use librecast::time::{Duration, Instant, UnixTime};

use crate::drops::DropReason;

/// First byte of a call. RFC 7983 assigns it to no protocol.
pub(crate) const CALL: u8 = 0xc2;
/// First byte of its answer.
pub(crate) const COOKIE: u8 = 0xc3;
/// Bytes of a call.
const CALL_LEN: usize = 1 + 32 + 16;
/// Bytes of its answer.
pub(crate) const ANSWER_LEN: usize = 1 + 16;
/// Most callers. Chosen: half of the connections of streams.
pub const MAX_GUESTS: usize = 64;
/// Most of them with one prefix. Chosen: a household.
const OF_PREFIX: usize = 8;
/// Most that a server has introduced and that have no link yet.
const OF_SERVER: usize = 32;
/// New callers. An agreement of keys and an overlay each: some 0.5 ms of a processor.
const NEW: Rate = Rate::per_second(16, 32);
/// Those of them that servers have introduced: half, so that none keeps out callers by UDP.
const NEW_BY_SERVERS: Rate = Rate::per_second(8, 16);
/// New callers of one prefix.
const NEW_OF_PREFIX: Rate = Rate::per_second(4, 4);
/// Answers to wrong cookies.
const ANSWERS: Rate = Rate::per_second(1_000, 1_000);
/// Most prefixes with counted callers. Chosen: some minutes of [`NEW`].
const MAX_PREFIXES: usize = 4_096;
/// Time for a caller to make a link, and to make another one.
const LINKS_WITHIN: Duration = Duration::from_secs(15);
/// Silence of a link after which another caller may take its place: less than a keep-alive.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// The same without a link. Chosen: all places change at the rate of [`NEW`].
const BEGINS_WITHIN: Duration = Duration::from_secs(4);

/// Proof that a caller receives at its address.
pub(crate) type Cookie = [u8; 16];

/// Returns the datagram of a call.
pub(crate) fn call(key: &PeerId, cookie: &Cookie) -> Vec<u8> {
    [&[CALL], key.public_key().as_slice(), cookie].concat()
}

/// Returns the content of a first call in place of a cookie.
pub(crate) fn first(open: &PeerId, period: u64, caller: &PeerId) -> Cookie {
    let mut cookie = [period as u8; 16];
    cookie[1..].copy_from_slice(&call_tag(open, period, caller.public_key()));
    cookie
}

/// Where a caller comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A /24 of IPv4.
    V4([u8; 3]),
    /// A /48 of IPv6.
    V6([u8; 6]),
    /// A server, until there is a link.
    Server(CarrierId),
}

impl Origin {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }

    fn bounds(self) -> (usize, Rate) {
        match self {
            Self::V4(_) | Self::V6(_) => (OF_PREFIX, NEW_OF_PREFIX),
            Self::Server(_) => (OF_SERVER, NEW_BY_SERVERS),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Self::V6([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{g:02x}::/48")
            }
            Self::Server(carrier) => write!(f, "server {}", carrier.0),
        }
    }
}

/// The meaning of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// It is dropped.
    Dropped(DropReason),
    /// It is a first call: this is the answer.
    Answer([u8; ANSWER_LEN]),
    /// This key receives at its address, and means a period with these lowest bits.
    Call(PeerId, u8),
}

#[derive(Debug)]
struct Guest {
    origin: Origin,
    /// Its last packet, or its admission.
    seen: Instant,
    /// When it goes; none: it has a link.
    ends_at: Option<Instant>,
}

impl Guest {
    fn is_idle(&self, now: Instant) -> bool {
        let after = match self.ends_at {
            Some(_) => BEGINS_WITHIN,
            None => IDLE_AFTER,
        };
        now.saturating_duration_since(self.seen) >= after
    }
}

/// Callers of the open key.
#[derive(Debug)]
pub(crate) struct Guests {
    secret: [u8; 32],
    guests: BTreeMap<PeerId, Guest>,
    answers: Bucket,
    new: Bucket,
    by_servers: Bucket,
    origins: BTreeMap<Origin, Bucket>,
}

impl Guests {
    pub(crate) fn new(secret: [u8; 32], now: Instant) -> Self {
        Self {
            secret,
            guests: BTreeMap::new(),
            answers: Bucket::full(now),
            new: Bucket::full(now),
            by_servers: Bucket::full(now),
            origins: BTreeMap::new(),
        }
    }

    fn cookie(&self, from: SocketAddr, key: &[u8; 32], period: u8, minute: u64) -> Cookie {
        let (ip, port) = match from.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), from.port()),
            IpAddr::V6(ip) => (ip.octets(), from.port()),
        };
        let parts: [&[u8]; 6] = [
            &self.secret,
            &ip,
            &port.to_be_bytes(),
            key,
            &[period],
            &minute.to_be_bytes(),
        ];
        let hash = derive("lcroute 2026 outside cookie", &parts);
        let mut cookie = [period; 16];
        cookie[1..].copy_from_slice(&hash[..15]);
        cookie
    }

    /// Handles a call, and keeps nothing of it.
    pub(crate) fn handle(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        days: impl Iterator<Item = (PeerId, u64)>,
        time: UnixTime,
        now: Instant,
    ) -> Met {
        let unknown = Met::Dropped(DropReason::OutsideUnknown);
        let Ok(datagram) = <&[u8; CALL_LEN]>::try_from(datagram) else {
            return unknown;
        };
        let (mut key, mut cookie) = ([0; 32], [0; 16]);
        key.copy_from_slice(&datagram[1..33]);
        cookie.copy_from_slice(&datagram[33..]);
        let (period, minute) = (cookie[0], time.as_secs() / 60);
        let right = self.cookie(from, &key, period, minute);
        let is_right = |minute| self.cookie(from, &key, period, minute) == cookie;
        if right != cookie && !is_right(minute.wrapping_sub(1)) {
            let mut days = days.filter(|(_, day)| *day as u8 == period);
            let is_first = |(open, day): (PeerId, u64)| call_tag(&open, day, &key) == cookie[1..];
            if !days.any(is_first) {
                return unknown;
            }
            if !self.answers.take(ANSWERS, 1, now) {
                return Met::Dropped(DropReason::OutsideRate);
            }
            let mut answer = [COOKIE; ANSWER_LEN];
            answer[1..].copy_from_slice(&right);
            return Met::Answer(answer);
        }
        match PeerId::from_public_key(key) {
            Ok(key) => Met::Call(key, period),
            Err(_) => unknown,
        }
    }

    pub(crate) fn knows(&self, key: &PeerId) -> bool {
        self.guests.contains_key(key)
    }

    /// Gives a new caller a place; returns a caller that gives way.
    pub(crate) fn admit(
        &mut self,
        key: PeerId,
        origin: Origin,
        now: Instant,
    ) -> Result<Option<PeerId>, DropReason> {
        // a caller that finds no place spends no rate of others
        let gives_way = self.room_for(None, origin, now)?;
        let (_, rate) = origin.bounds();
        if self.origins.len() >= MAX_PREFIXES && !self.origins.contains_key(&origin) {
            self.origins.retain(|origin, bucket| {
                bucket.left(origin.bounds().1, now) < origin.bounds().1.burst()
            });
            if self.origins.len() >= MAX_PREFIXES {
                return Err(DropReason::OutsideRate);
            }
        }
        let bucket = self.origins.entry(origin).or_insert(Bucket::full(now));
        let by_server = matches!(origin, Origin::Server(_));
        if !bucket.take(rate, 1, now)
            || by_server && !self.by_servers.take(NEW_BY_SERVERS, 1, now)
            || !self.new.take(NEW, 1, now)
        {
            return Err(DropReason::OutsideRate);
        }
        gives_way.map(|gone| self.guests.remove(&gone));
        let ends_at = Some(now + LINKS_WITHIN);
        let guest = Guest {
            origin,
            seen: now,
            ends_at,
        };
        self.guests.insert(key, guest);
        Ok(gives_way)
    }

    /// Returns the caller that gives way, if one has to. `of`: a caller that has a place already.
    fn room_for(
        &self,
        of: Option<&PeerId>,
        origin: Origin,
        now: Instant,
    ) -> Result<Option<PeerId>, DropReason> {
        let others = || self.guests.iter().filter(|(key, _)| Some(*key) != of);
        let same = || others().filter(|(_, guest)| guest.origin == origin);
        let oldest = |guests: &mut dyn Iterator<Item = (&PeerId, &Guest)>| {
            let idle = guests.filter(|(_, guest)| guest.is_idle(now));
            let oldest = idle.min_by_key(|(_, guest)| guest.seen);
            oldest.map(|(key, _)| *key).ok_or(DropReason::OutsideFull)
        };
        if same().count() >= origin.bounds().0 {
            return oldest(&mut same()).map(Some);
        }
        match others().count() >= MAX_GUESTS {
            true => oldest(&mut others()).map(Some),
            false => Ok(None),
        }
    }

    /// Notes a caller's link; returns a caller that gives way. An error: it has no place there.
    pub(crate) fn linked(
        &mut self,
        key: &PeerId,
        at: Option<IpAddr>,
        now: Instant,
    ) -> Result<Option<PeerId>, DropReason> {
        let Some(guest) = self.guests.get(key) else {
            return Err(DropReason::OutsideUnknown);
        };
        let origin = at.map_or(guest.origin, Origin::of);
        let gives_way = self.room_for(Some(key), origin, now)?;
        gives_way.map(|gone| self.guests.remove(&gone));
        if let Some(guest) = self.guests.get_mut(key) {
            (guest.origin, guest.seen, guest.ends_at) = (origin, now, None);
        }
        Ok(gives_way)
    }

    /// Notes the end of a caller's link: it may make another one.
    pub(crate) fn unlinked(&mut self, key: &PeerId, now: Instant) {
        if let Some(guest) = self.guests.get_mut(key) {
            (guest.seen, guest.ends_at) = (now, Some(now + LINKS_WITHIN));
        }
    }

    /// Notes a packet of a caller.
    pub(crate) fn seen(&mut self, key: &PeerId, now: Instant) {
        if let Some(guest) = self.guests.get_mut(key) {
            guest.seen = now;
        }
    }

    pub(crate) fn remove(&mut self, key: &PeerId) {
        self.guests.remove(key);
    }

    /// Returns callers that have made no link in time.
    pub(crate) fn expired(&self, now: Instant) -> Vec<PeerId> {
        let is_over = |guest: &Guest| guest.ends_at.is_some_and(|at| at <= now);
        let over = self.guests.iter().filter(|(_, guest)| is_over(guest));
        over.map(|(key, _)| *key).collect()
    }

    /// Returns the next time at which [`Self::expired`] may change.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.guests.values().filter_map(|guest| guest.ends_at).min()
    }

    /// Returns callers with links.
    pub(crate) fn with_links(&self) -> Vec<Caller> {
        let linked = self
            .guests
            .iter()
            .filter(|(_, guest)| guest.ends_at.is_none());
        let caller = |(key, guest): (&PeerId, &Guest)| Caller {
            key: *key,
            prefix: guest.origin.to_string(),
        };
        linked.map(caller).collect()
    }

    pub(crate) fn keys(&self) -> Vec<PeerId> {
        self.guests.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    const NOON: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn key(n: u32) -> PeerId {
        let mut seed = [5; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn prefix(n: u32) -> Origin {
        Origin::of(std::net::Ipv4Addr::from_bits(n << 8).into())
    }

    /// The open key of these tests.
    const OPEN: u32 = 9;

    fn first_call(caller: u32, period: u64) -> Vec<u8> {
        call(&key(caller), &first(&key(OPEN), period, &key(caller)))
    }

    /// Handles a datagram at a host that is open on some days.
    fn handle(
        guests: &mut Guests,
        from: SocketAddr,
        datagram: &[u8],
        time: UnixTime,
        now: Instant,
    ) -> Met {
        let days = [0, 3, 0x1_02].map(|day| (key(OPEN), day));
        guests.handle(from, datagram, days.into_iter(), time, now)
    }

    #[test]
    fn strangers_that_do_not_know_the_key_draw_no_answer_and_spend_no_rate() {
        let now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let at = from("192.0.2.1:7000");
        let other_key = call(&key(1), &first(&key(8), 3, &key(1)));
        let other_day = call(&key(1), &first(&key(OPEN), 4, &key(1)));
        let other_caller = call(&key(2), &first(&key(OPEN), 3, &key(1)));
        let idle = call(&key(1), &[3; 16]);
        for wrong in [other_key, other_day, other_caller, idle] {
            for _ in 0..5_000 {
                let met = handle(&mut guests, at, &wrong, NOON, now);
                assert_eq!(met, Met::Dropped(DropReason::OutsideUnknown));
            }
        }
        let right = handle(&mut guests, at, &first_call(1, 3), NOON, now);
        assert!(matches!(right, Met::Answer(_)), "{right:?}");
    }

    #[test]
    fn callers_by_servers_leave_half_of_the_rate_to_callers_by_udp() {
        let now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let by_server = |n: u32| (key(n), Origin::Server(CarrierId(n % 4)));
        let admitted = (0..200).map(by_server).filter(|(key, server)| {
            // its place is free again at once
            let admitted = guests.admit(*key, *server, now).is_ok();
            guests.remove(key);
            admitted
        });
        assert_eq!(admitted.count(), 16);
        let by_udp = (0..16).filter(|n| guests.admit(key(300 + n), prefix(*n), now).is_ok());
        assert_eq!(by_udp.count(), 16);
    }

    #[test]
    fn a_caller_without_a_place_spends_no_rate_of_others() {
        let mut now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        for n in 0..8 {
            now += Duration::from_millis(500);
            guests.admit(key(n), prefix(1), now).unwrap();
            guests.linked(&key(n), None, now).unwrap();
        }
        for n in 8..200 {
            let full = guests.admit(key(n), prefix(1), now);
            assert_eq!(full, Err(DropReason::OutsideFull));
        }
        let others = (0..28).filter(|n| guests.admit(key(300 + n), prefix(2 + n), now).is_ok());
        assert_eq!(others.count(), 28);
    }

    #[test]
    fn golden_bytes() {
        let now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let first = first_call(1, 0x1_02);
        assert_eq!((first.len(), first[0], first[33]), (49, 0xc2, 2));
        assert_eq!(&first[1..33], key(1).public_key());
        let at = from("192.0.2.1:7000");
        let Met::Answer(answer) = handle(&mut guests, at, &first, NOON, now) else {
            panic!("a first call")
        };
        let hex = answer
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        assert_eq!(hex, "c302fb8c91259d31bf87b1bb318a1fd167");
    }

    #[test]
    fn a_cookie_is_of_one_address_one_key_and_two_minutes() {
        let now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let at = from("[2001:db8::1]:7000");
        let Met::Answer(answer) = handle(&mut guests, at, &first_call(1, 3), NOON, now) else {
            panic!("a first call")
        };
        let cookie: Cookie = answer[1..].try_into().unwrap();
        let mut calls = |at: &str, n, secs| {
            let time = UnixTime::from_secs(NOON.as_secs() + secs);
            handle(&mut guests, from(at), &call(&key(n), &cookie), time, now)
        };
        let here = "[2001:db8::1]:7000";
        assert_eq!(calls(here, 1, 0), Met::Call(key(1), 3));
        assert_eq!(calls(here, 1, 60), Met::Call(key(1), 3));
        let unknown = Met::Dropped(DropReason::OutsideUnknown);
        for (at, n, secs) in [
            (here, 1, 120),
            (here, 2, 0),
            ("[2001:db8::1]:7001", 1, 0),
            ("[2001:db8::2]:7000", 1, 0),
        ] {
            assert_eq!(calls(at, n, secs), unknown, "{at} {n} {secs}");
        }
        assert!(guests.guests.is_empty(), "nothing is kept");
        for wrong in [&[CALL][..], &[CALL; CALL_LEN - 1], &[CALL; CALL_LEN + 1]] {
            assert_eq!(handle(&mut guests, at, wrong, NOON, now), unknown);
        }
    }

    #[test]
    fn answers_are_few() {
        let now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let first = first_call(1, 0);
        let answered = (0..20_000_u32).filter(|n| {
            let at = SocketAddr::from((std::net::Ipv4Addr::from_bits(*n), 9));
            matches!(handle(&mut guests, at, &first, NOON, now), Met::Answer(_))
        });
        assert_eq!(answered.count(), 1_000);
    }

    #[test]
    fn a_prefix_has_few_new_callers_a_second_and_few_places() {
        let mut now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let admitted = (0..100).filter(|n| guests.admit(key(*n), prefix(1), now).is_ok());
        assert_eq!(admitted.count(), 4);
        assert_eq!(
            guests.admit(key(200), prefix(2), now),
            Ok(None),
            "another prefix"
        );
        now += Duration::from_secs(1);
        for n in 4..8 {
            assert_eq!(guests.admit(key(n), prefix(1), now), Ok(None));
        }
        now += Duration::from_secs(1);
        let full = guests.admit(key(8), prefix(1), now);
        assert_eq!(full, Err(DropReason::OutsideFull));
        now += BEGINS_WITHIN;
        guests.seen(&key(0), now);
        let gone = guests.admit(key(9), prefix(1), now).unwrap();
        let is_oldest = (1..4).any(|n| gone == Some(key(n)));
        assert!(is_oldest, "one of the oldest that are idle gives way");
        assert_eq!(guests.keys().len(), 9);
    }

    #[test]
    fn of_64_callers_the_oldest_that_is_idle_gives_way_to_the_65th() {
        let mut now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        for n in 0..64 {
            now += Duration::from_millis(100);
            assert_eq!(guests.admit(key(n), prefix(n), now), Ok(None));
            assert_eq!(guests.linked(&key(n), None, now), Ok(None));
        }
        now += Duration::from_secs(1);
        let full = guests.admit(key(64), prefix(64), now);
        assert_eq!(full, Err(DropReason::OutsideFull), "none is idle");
        now += IDLE_AFTER;
        guests.seen(&key(0), now);
        assert_eq!(guests.admit(key(64), prefix(64), now), Ok(Some(key(1))));
        assert_eq!((guests.keys().len(), guests.with_links().len()), (64, 63));
        now += LINKS_WITHIN;
        assert_eq!(guests.expired(now), [key(64)]);
    }

    #[test]
    fn links_by_a_server_count_for_their_prefix() {
        let mut now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        let server = Origin::Server(CarrierId(9));
        let at = Some("192.0.2.1".parse().unwrap());
        for n in 0..9 {
            now += Duration::from_millis(100);
            assert_eq!(guests.admit(key(n), server, now), Ok(None));
            let linked = guests.linked(&key(n), at, now);
            assert_eq!(linked.is_ok(), n < 8, "{n}");
        }
    }

    #[test]
    fn counted_prefixes_are_bounded() {
        let mut now = Instant::now();
        let mut guests = Guests::new([7; 32], now);
        for n in 0..2 * MAX_PREFIXES as u32 {
            now += Duration::from_millis(100);
            // full or not: only the count matters here
            let _ = guests.admit(key(n % 64), prefix(n), now);
        }
        assert!(guests.origins.len() <= MAX_PREFIXES);
    }
}
