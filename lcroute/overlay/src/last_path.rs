//! Where the last link to a peer fell silent: after a blackout two nodes find each other again there without any server.
//!
//! Sealed messages travel as datagrams to the last path ([`crate::Connections::send_straight`]). One is opened only if it
//! comes from the remote address of a link that is up, or that fell silent less than a minute ago: NATs and firewalls on
//! the way keep the pair open for about as long. Everything else about it is as if a server had brought it.

use librecast::time::{Duration, Instant};

use crate::connections::Path;

/// Longest sealed message. Fits every path of IPv6 without fragments: 1,280 bytes less headers of IPv6 and UDP.
pub(crate) const MAX_SIZE: usize = 1_200;
/// Pause between connection requests. Chosen: a path that is back is used within a second.
const REQUEST_EVERY: Duration = Duration::from_millis(500);
/// How long the path is tried. Chosen: twice the lifetime of consent (RFC 7675), which is the least that NATs keep it open.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The path of a link that fell silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastPath {
    pub(crate) path: Path,
    until: Instant,
    /// None where the peer alone wants the link: it asks.
    next_request: Option<Instant>,
}

impl LastPath {
    /// `wanted`: this side wanted the link. That may change as soon as nobody can be reached.
    pub(crate) fn new(path: Path, wanted: bool, now: Instant) -> Self {
        Self {
            path,
            until: now + KEPT_FOR,
            // the end of the link has caused one already
            next_request: wanted.then(|| now + REQUEST_EVERY),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.next_request
            .map_or(self.until, |at| at.min(self.until))
    }

    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// The next request comes after a pause.
    pub(crate) fn requested(&mut self, now: Instant) {
        self.next_request = self.next_request.map(|_| now + REQUEST_EVERY);
    }
}
