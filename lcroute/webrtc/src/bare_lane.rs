//! Media lanes without connections below them, for simulators: the same code, keys from a seed.

use bytes::Bytes;
use lcroute_overlay::RepairInfo;
use librecast::random::Random;
use librecast::time::Instant;

use crate::config::Limits;
use crate::datagram::Ecn;
use crate::media::{Dropped, LinkKeys, MasterKey, Media};

/// One end of a media lane without a connection. Its owner passes datagrams and runs the clock.
#[derive(Debug)]
pub struct BareLane(Media);

impl BareLane {
    /// Makes both ends of a lane for packets of up to `mtu` bytes; `None` if the crypto fails.
    #[must_use]
    pub fn pair(limits: &Limits, mtu: u16, seed: u64, now: Instant) -> Option<[Self; 2]> {
        let provider = rtc::crypto::default_provider().ok()?;
        let mut random = Random::new(seed);
        let mut key = || MasterKey {
            key: std::array::from_fn(|_| random.next() as u8),
            salt: std::array::from_fn(|_| random.next() as u8),
        };
        let keys = LinkKeys {
            sending: key(),
            receiving: key(),
        };
        let mirrored = LinkKeys {
            sending: keys.receiving.clone(),
            receiving: keys.sending.clone(),
        };
        let end = |keys| {
            let media = Media::new(keys, provider.crypto(), mtu, limits, seed, now);
            media.map(Self)
        };
        Some([end(&keys)?, end(&mirrored)?])
    }

    /// Sends a message: a data header and the packet behind it.
    pub fn send(&mut self, message: &[u8], now: Instant) {
        self.0
            .send([message, &[]], true, &mut Dropped::default(), now);
    }

    /// Handles a datagram of the other end; messages go to `deliver`.
    pub fn handle_datagram(
        &mut self,
        datagram: &[u8],
        now: Instant,
        deliver: &mut dyn FnMut(Bytes),
    ) {
        let mut dropped = Dropped::default();
        // the daemon counts incomplete messages; a bare lane only loses them
        let _ = self
            .0
            .handle(datagram, Ecn::None, true, deliver, &mut dropped, now);
    }

    /// Runs the due timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.poll(true, &mut Dropped::default(), now);
    }

    /// Returns the time of the next [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.0.deadline()
    }

    /// Ends the turn: returns the datagrams for the other end.
    pub fn poll_transmits(&mut self, now: Instant) -> Vec<Bytes> {
        if !self.0.has_output() {
            return Vec::new();
        }
        let mut transmits: Vec<_> = self.0.finish(now).collect();
        transmits.extend(self.0.take_probes());
        transmits
    }

    /// Returns the counts of repair, both ways.
    pub fn repaired(&self) -> RepairInfo {
        self.0.repaired()
    }
}
