//! Router Advertisements (RFC 4861 §6.2) for a LAN without a router: hosts make addresses of the
//! advertised prefix, and no node becomes a router.
//!
//! ```text
//! Off ──prefix──> 3 advertisements, 16 s apart ──> one every 200 s, and one for a solicitation
//!  ^                                                    │ another prefix, or none
//!  └── after 2 h ── the former prefix is deprecated  <──┘
//! ```

use std::hash::Hasher;
use std::net::Ipv6Addr;

use librecast::cert::SourcePrefix;
use librecast::ethernet::MacAddress;
use librecast::id::LanId;
use librecast::ipv6::{HEADER_LEN, HOP_LIMIT_AT, ICMPV6, icmpv6_packet};
use librecast::mld::ALL_NODES;
use librecast::random::Random;
use librecast::time::{Duration, Instant};
use librecast::wire::Writer;
use siphasher::sip::SipHasher13;

/// ICMPv6 type (RFC 4861 4.1).
const SOLICITATION: u8 = 133;
/// ICMPv6 type (RFC 4861 4.2).
const ADVERTISEMENT: u8 = 134;
/// Option type (RFC 4861 4.6.1).
const OPTION_SOURCE_ADDRESS: u8 = 1;
/// Option type (RFC 4861 4.6.2).
const OPTION_PREFIX: u8 = 3;
/// Flags: on link, and for addresses that hosts make (RFC 4861 §4.6.2).
const PREFIX_FLAGS: u8 = 0xc0;
/// Bits of a prefix for addresses that hosts make (RFC 4862 §5.5.3).
const PREFIX_LEN: u8 = 64;
/// Time for which hosts use an address after the last advertisement. Chosen.
const PREFERRED_LIFETIME: Duration = Duration::from_secs(3_600);
/// Time for which hosts keep an address; they would not accept less (RFC 4862 §5.5.3 e).
const VALID_LIFETIME: Duration = Duration::from_secs(7_200);
/// Interval of the first advertisements (RFC 4861 §10).
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Number of the first advertisements (RFC 4861 10).
const INITIAL_COUNT: u8 = 3;
/// Interval of later advertisements. Chosen: MinRtrAdvInterval of RFC 4861 §6.2.1.
const INTERVAL: Duration = Duration::from_secs(200);
/// Least time between two advertisements (RFC 4861 10).
const MIN_INTERVAL: Duration = Duration::from_secs(3);
/// Longest delay of an answer (RFC 4861 §6.2.6).
const MAX_ANSWER_DELAY: Duration = Duration::from_millis(500);
/// Former prefixes that are remembered.
const MAX_FORMER: usize = 4;

/// The router of one LAN, for addresses only.
#[derive(Debug)]
pub struct Advertiser {
    is_serving: bool,
    prefix: Option<SourcePrefix>,
    /// Hosts have received the prefix.
    is_told: bool,
    /// Former prefixes, and the end of hosts' addresses with them.
    former: Vec<(SourcePrefix, Instant)>,
    initial: u8,
    last: Option<Instant>,
    next: Option<Instant>,
    random: Random,
}

impl Advertiser {
    /// Advertises nothing before [`Self::start`].
    pub fn new(seed: u64) -> Self {
        Self {
            is_serving: false,
            prefix: None,
            is_told: false,
            former: Vec::new(),
            initial: 0,
            last: None,
            next: None,
            random: Random::new(seed),
        }
    }

    /// The prefix of hosts, if one is advertised.
    pub fn prefix(&self) -> Option<SourcePrefix> {
        self.prefix
    }

    /// Sets the advertised prefix, or none.
    pub fn set(&mut self, prefix: Option<SourcePrefix>, now: Instant) {
        if self.prefix == prefix {
            return;
        }
        self.former.retain(|(former, _)| Some(*former) != prefix);
        let former = std::mem::replace(&mut self.prefix, prefix);
        if let Some(former) = former.filter(|_| std::mem::take(&mut self.is_told)) {
            self.former.push((former, now + VALID_LIFETIME));
            let surplus = self.former.len().saturating_sub(MAX_FORMER);
            self.former.drain(..surplus);
        }
        if self.is_serving {
            self.start(now);
        }
    }

    /// This gateway serves the LAN from now on.
    pub fn start(&mut self, now: Instant) {
        self.is_serving = true;
        self.initial = INITIAL_COUNT;
        self.next = self.has_news().then_some(now);
    }

    /// Another gateway serves the LAN.
    pub fn stop(&mut self) {
        self.is_serving = false;
        self.next = None;
    }

    fn has_news(&self) -> bool {
        self.prefix.is_some() || !self.former.is_empty()
    }

    /// Handles a packet: a solicitation hastens the next advertisement.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        let is_solicitation = packet.get(6) == Some(&ICMPV6)
            && packet.get(HOP_LIMIT_AT) == Some(&u8::MAX)
            && packet.get(HEADER_LEN) == Some(&SOLICITATION);
        let Some(next) = self.next.filter(|_| is_solicitation) else {
            return;
        };
        let delay = self.random.below(MAX_ANSWER_DELAY.as_millis() as u64);
        let answer = now + Duration::from_millis(delay);
        let earliest = self.last.map_or(answer, |last| last + MIN_INTERVAL);
        self.next = Some(next.min(answer.max(earliest)));
    }

    /// Builds the advertisement that is due.
    pub fn handle_timeout(
        &mut self,
        (from, mac): (Ipv6Addr, MacAddress),
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.next.filter(|next| *next <= now)?;
        self.former.retain(|(_, until)| now < *until);
        self.initial = self.initial.saturating_sub(1);
        let interval = match self.initial {
            0 => INTERVAL,
            _ => INITIAL_INTERVAL,
        };
        self.last = Some(now);
        self.next = self.has_news().then_some(now + interval);
        let mut w = Writer::new();
        // no hop limit, no flags, not a router, no times
        w.u8(ADVERTISEMENT).u8(0).u16(0).put(&[0; 12]);
        w.u8(OPTION_SOURCE_ADDRESS).u8(1).put(&mac.0);
        if let Some(prefix) = self.prefix {
            self.is_told = true;
            put_prefix(&mut w, prefix, VALID_LIFETIME, PREFERRED_LIFETIME);
        }
        for (former, until) in &self.former {
            put_prefix(&mut w, *former, *until - now, Duration::ZERO);
        }
        Some(icmpv6_packet(from, ALL_NODES, u8::MAX, w.as_slice()))
    }

    /// The time of the next advertisement.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next
    }
}

fn put_prefix(w: &mut Writer, prefix: SourcePrefix, valid: Duration, preferred: Duration) {
    w.u8(OPTION_PREFIX).u8(4).u8(PREFIX_LEN).u8(PREFIX_FLAGS);
    w.u32(valid.as_secs() as u32)
        .u32(preferred.as_secs() as u32)
        .u32(0)
        .ipv6(prefix.addr());
}

/// The prefix of a network's LAN, the same at all its gateways: a unique local one (RFC 4193).
pub fn prefix_of(network: [u8; 6], lan: LanId) -> Option<SourcePrefix> {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(&network);
    hasher.write(&lan.0.to_be_bytes());
    let bits = 0xfd << 56 | hasher.finish() >> 8;
    SourcePrefix::new(Ipv6Addr::from_bits(u128::from(bits) << 64), PREFIX_LEN).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const GATEWAY: (Ipv6Addr, MacAddress) = (FROM, MacAddress([2, 0, 0, 0, 0, 1]));

    fn prefix(n: u64) -> SourcePrefix {
        prefix_of([0xfd, 1, 2, 3, 4, 5], LanId(n)).unwrap()
    }

    fn times(advertiser: &mut Advertiser, mut now: Instant, count: usize) -> Vec<u64> {
        let begin = now;
        let mut times = Vec::new();
        for _ in 0..count {
            now = advertiser.next_timeout().unwrap();
            assert!(advertiser.handle_timeout(GATEWAY, now).is_some());
            times.push((now - begin).as_secs());
        }
        times
    }

    #[test]
    fn golden_bytes() {
        let now = start();
        let mut advertiser = Advertiser::new(1);
        advertiser.start(now);
        advertiser.set(Some(prefix(3)), now);
        advertiser.set(Some(prefix(1)), now);
        advertiser.handle_timeout(GATEWAY, now).unwrap();
        advertiser.set(Some(prefix(2)), now);
        let packet = advertiser.handle_timeout(GATEWAY, now).unwrap();
        let message = &packet[HEADER_LEN..];
        assert_eq!(message[..2], [134, 0]);
        assert_eq!(message[4..16], [0; 12], "not a router");
        assert_eq!(message[16..24], [1, 1, 2, 0, 0, 0, 0, 1]);
        let option = |prefix: SourcePrefix, preferred: u32| {
            let head = [&[3, 4, 64, 0xc0][..], &7_200u32.to_be_bytes()].concat();
            let tail = [&preferred.to_be_bytes()[..], &[0; 4]].concat();
            [head, tail, prefix.addr().octets().to_vec()].concat()
        };
        assert_eq!(message[24..56], option(prefix(2), 3_600));
        assert_eq!(message[56..], option(prefix(1), 0), "deprecated");
        assert_eq!(packet[HOP_LIMIT_AT], 255);
    }

    #[test]
    fn a_prefix_is_unique_local_and_of_one_lan() {
        assert_eq!(prefix(1).addr().octets()[0], 0xfd);
        assert_eq!(prefix(1).addr().octets()[8..], [0; 8]);
        assert_ne!(prefix(1), prefix(2));
        assert_ne!(Some(prefix(1)), prefix_of([0xfd, 9, 9, 9, 9, 9], LanId(1)));
    }

    #[test]
    fn often_at_first_and_rarely_later() {
        let now = start();
        let mut advertiser = Advertiser::new(1);
        advertiser.start(now);
        assert_eq!(advertiser.next_timeout(), None);
        advertiser.set(Some(prefix(1)), now);
        assert_eq!(times(&mut advertiser, now, 5), [0, 16, 32, 232, 432]);
    }

    #[test]
    fn a_solicitation_is_answered_soon_and_not_too_often() {
        let now = start();
        let mut advertiser = Advertiser::new(1);
        advertiser.start(now);
        let solicit = icmpv6_packet(FROM, ALL_NODES, 255, &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
        advertiser.handle_packet(&solicit, now);
        assert_eq!(advertiser.next_timeout(), None, "it is off");
        advertiser.set(Some(prefix(1)), now);
        times(&mut advertiser, now, 4);
        let later = advertiser.last.unwrap() + Duration::from_secs(60);
        let mut routed = solicit.clone();
        routed[HOP_LIMIT_AT] = 254;
        advertiser.handle_packet(&routed, later);
        assert!(advertiser.next_timeout().unwrap() > later + MAX_ANSWER_DELAY);
        advertiser.handle_packet(&solicit, later);
        let at = advertiser.next_timeout().unwrap();
        assert!(at < later + MAX_ANSWER_DELAY, "{:?}", at - later);
        assert!(advertiser.handle_timeout(GATEWAY, at).is_some());
        advertiser.handle_packet(&solicit, at);
        let at_least = at + MIN_INTERVAL;
        assert_eq!(advertiser.next_timeout(), Some(at_least));
    }

    #[test]
    fn a_former_prefix_is_deprecated_until_hosts_have_forgotten_it() {
        let now = start();
        let mut advertiser = Advertiser::new(1);
        advertiser.start(now);
        advertiser.set(Some(prefix(1)), now);
        advertiser.handle_timeout(GATEWAY, now).unwrap();
        advertiser.set(None, now);
        assert_eq!(advertiser.prefix(), None);
        let mut last = now;
        while let Some(at) = advertiser.next_timeout() {
            advertiser.handle_timeout(GATEWAY, at).unwrap();
            last = at;
        }
        assert!((now + VALID_LIFETIME..now + VALID_LIFETIME + INTERVAL).contains(&last));
    }
}
