//! Gathering of server-reflexive addresses: requests to STUN servers from the shared socket,
//! repeated to keep the NAT's mapping.

use std::net::SocketAddr;

use lcroute_overlay::Random;
use librecast::time::{Duration, Instant};

use crate::datagram::Transmit;
use crate::stun::{Binding, TxId, address_request};

/// Longest wait of an offer for servers; a separate message has later addresses. Chosen: most
/// servers are nearer, and a message is saved.
const OFFER_WAIT: Duration = Duration::from_millis(100);
/// Time without any answer after which servers count as dead and relays are needed. Chosen.
const GATHER_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval to the first retry of a request, doubled each time. Chosen: half of RFC 8489's RTO.
const FIRST_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of refreshes of a mapping: NATs forget one after 30 s or more.
const REFRESH: Duration = Duration::from_secs(15);
/// Unanswered requests after which a mapping is dropped.
const FORGET_AFTER: u32 = 5;
/// Bound of pairs of local address and server.
const MAX_QUERIES: usize = 32;

#[derive(Debug)]
struct Query {
    base: SocketAddr,
    server: SocketAddr,
    id: TxId,
    unanswered: u32,
    next: Instant,
    mapped: Option<SocketAddr>,
}

/// Server-reflexive addresses of the socket.
#[derive(Debug)]
pub(crate) struct Gatherer {
    queries: Vec<Query>,
    /// Begin of the wait for servers, if one has not answered yet.
    asked_at: Option<Instant>,
    random: Random,
}

impl Gatherer {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            queries: Vec::new(),
            asked_at: None,
            random,
        }
    }

    /// Sets local addresses and servers; keeps the state of pairs that stay.
    pub(crate) fn reset(&mut self, bases: &[SocketAddr], servers: &[SocketAddr], now: Instant) {
        let mut old = std::mem::take(&mut self.queries);
        for base in bases {
            for server in servers.iter().filter(|s| s.is_ipv4() == base.is_ipv4()) {
                if self.queries.len() == MAX_QUERIES {
                    break;
                }
                let known = old
                    .iter()
                    .position(|q| q.base == *base && q.server == *server);
                self.queries.push(known.map_or_else(
                    || Query {
                        base: *base,
                        server: *server,
                        id: self.random.array(),
                        unanswered: 0,
                        next: now,
                        mapped: None,
                    },
                    |at| old.swap_remove(at),
                ));
            }
        }
        let asking = self.queries.iter().any(|q| q.mapped.is_none());
        self.asked_at = asking.then_some(now);
    }

    /// Returns the time until which offers wait, if a server may still answer.
    fn waits_until(&self) -> Option<Instant> {
        self.queries.iter().find(|query| query.mapped.is_none())?;
        Some(self.asked_at? + OFFER_WAIT)
    }

    /// Whether an offer should still wait.
    pub(crate) fn still_waits(&self, now: Instant) -> bool {
        self.waits_until().is_some_and(|until| now < until)
    }

    /// Whether servers were asked, and none has answered within [`GATHER_TIMEOUT`].
    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        let has_time = self.asked_at.is_some_and(|at| now < at + GATHER_TIMEOUT);
        let answered = self.queries.iter().any(|q| q.mapped.is_some());
        !self.queries.is_empty() && !has_time && !answered
    }

    /// Returns the addresses that servers see and that are not local.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut seen: Vec<_> = self.queries.iter().filter_map(|q| q.mapped).collect();
        seen.retain(|a| self.queries.iter().all(|q| q.base != *a));
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// Handles a response; returns whether the addresses changed, `None` if it is not ours.
    pub(crate) fn handle_response(
        &mut self,
        response: &Binding,
        from: SocketAddr,
        now: Instant,
    ) -> Option<bool> {
        let id = response.id();
        let query = self
            .queries
            .iter_mut()
            .find(|q| q.id == id && q.server == from)?;
        query.id = self.random.array();
        query.next = now + REFRESH;
        // an error ends the request (RFC 8489 6.3.4), and the mapping after as many as silence does
        let Some(mapped) = response.is_success().then(|| response.mapped()).flatten() else {
            return Some(false);
        };
        let changed = query.mapped != Some(mapped);
        query.mapped = Some(mapped);
        query.unanswered = 0;
        Some(changed)
    }

    pub(crate) fn poll(&mut self, now: Instant, mut send: impl FnMut(Transmit)) {
        for query in self.queries.iter_mut().filter(|q| q.next <= now) {
            if query.unanswered >= FORGET_AFTER {
                query.mapped = None;
            }
            if let Some(request) = address_request(query.id) {
                send(Transmit::plain(
                    query.server,
                    Some(query.base),
                    request.into(),
                ));
            }
            query.next =
                now + (FIRST_RETRY_INTERVAL * 2_u32.pow(query.unanswered.min(6))).min(REFRESH);
            query.unanswered = query.unanswered.saturating_add(1);
        }
    }

    /// Returns the time of the next poll, or of the end of the wait.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let next = self.queries.iter().map(|q| q.next).min();
        let timeout = self.waits_until().filter(|until| now < *until);
        [next, timeout].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{build, respond};

    fn addr(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    fn ask(g: &mut Gatherer, now: Instant) -> Vec<Transmit> {
        let mut sent = Vec::new();
        g.poll(now, |t| sent.push(t));
        sent
    }

    #[test]
    fn a_mapping_is_learned_and_kept_fresh() {
        let now = Instant::now();
        let (base, server, public) = (
            addr("10.0.0.2:7"),
            addr("192.0.2.9:7117"),
            addr("198.51.100.1:7"),
        );
        let mut g = Gatherer::new(Random::new([1; 32]));
        g.reset(&[base, addr("[fd00::1]:7")], &[server], now);
        assert!(g.still_waits(now));
        let sent = ask(&mut g, now);
        assert_eq!(sent.len(), 1, "no server of the other family");
        assert_eq!((sent[0].to, sent[0].from), (server, Some(base)));
        let response = Binding::parse(&respond(&sent[0].contents, public).unwrap()).unwrap();
        assert_eq!(
            g.handle_response(&response, addr("192.0.2.66:7117"), now),
            None,
            "not from the server"
        );
        assert_eq!(g.handle_response(&response, server, now), Some(true));
        assert_eq!(
            g.handle_response(&response, server, now),
            None,
            "each answer counts once"
        );
        assert_eq!(g.addresses(), [public]);
        assert!(!g.still_waits(now));
        assert!(ask(&mut g, now).is_empty());
        assert_eq!(ask(&mut g, now + REFRESH).len(), 1);
    }

    #[test]
    fn an_error_answers_a_request_and_the_next_one_is_a_new_one() {
        use rtc::stun::message::{BINDING_ERROR, TransactionId};

        let now = Instant::now();
        let server = addr("192.0.2.9:7117");
        let mut g = Gatherer::new(Random::new([1; 32]));
        g.reset(&[addr("10.0.0.2:7")], &[server], now);
        let id = |sent: &[Transmit]| Binding::parse(&sent[0].contents).unwrap().id();
        let first = id(&ask(&mut g, now));
        let error = build(&[Box::new(TransactionId(first)), Box::new(BINDING_ERROR)]);
        let error = Binding::parse(&error.unwrap()).unwrap();
        assert_eq!(g.handle_response(&error, server, now), Some(false));
        assert!(g.addresses().is_empty());
        assert!(ask(&mut g, now + FIRST_RETRY_INTERVAL).is_empty());
        assert_ne!(id(&ask(&mut g, now + REFRESH)), first);
    }

    #[test]
    fn who_never_answers_does_not_hold_up_offers() {
        let now = Instant::now();
        let mut g = Gatherer::new(Random::new([1; 32]));
        g.reset(&[addr("10.0.0.2:7")], &[addr("192.0.2.9:7117")], now);
        let mut at = now;
        let mut asked = 0;
        while at < now + Duration::from_secs(60) {
            asked += ask(&mut g, at).len();
            at = g.deadline(at).unwrap().max(at + Duration::from_millis(1));
        }
        assert!(g.still_waits(now));
        assert!(!g.still_waits(now + OFFER_WAIT));
        assert!((5..12).contains(&asked), "{asked}");
        assert!(!g.is_dead(now + OFFER_WAIT) && g.is_dead(now + GATHER_TIMEOUT));
    }

    #[test]
    fn without_nat_there_is_nothing_to_tell() {
        let now = Instant::now();
        let base = addr("10.0.0.2:7");
        let mut g = Gatherer::new(Random::new([1; 32]));
        g.reset(&[base], &[addr("192.0.2.9:7117")], now);
        let sent = ask(&mut g, now);
        let response = Binding::parse(&respond(&sent[0].contents, base).unwrap()).unwrap();
        g.handle_response(&response, addr("192.0.2.9:7117"), now);
        assert!(g.addresses().is_empty());
    }
}
