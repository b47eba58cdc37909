//! What all peers share, handed to each when something happens to it.

use librecast::id::PeerId;
use librecast::time::{Duration, Instant, WallClock};

use crate::config::Limits;
use crate::leaf_places::LeafPlaces;
use crate::link_table::LinkTable;
use crate::outputs::Outputs;
use crate::places::Places;
use crate::presence::Reachable;
use crate::random::Random;
use crate::record::RendezvousEpochs;
use crate::session::Session;
use crate::straight::Straight;
use crate::trust::Trust;
use crate::wanted::Wanted;

/// The parts of an overlay, peers apart.
#[derive(Debug)]
pub(crate) struct Parts<C> {
    pub(crate) own: PeerId,
    pub(crate) limits: Limits,
    pub(crate) clock: WallClock,
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) connections: C,
    pub(crate) session: Session,
    pub(crate) links: LinkTable,
    pub(crate) leaf_places: LeafPlaces,
    pub(crate) wanted: Wanted,
    pub(crate) trust: Trust,
    pub(crate) reachable: Reachable,
    pub(crate) places: Places,
    pub(crate) straight: Straight,
    pub(crate) rendezvous: RendezvousEpochs,
    pub(crate) outputs: Outputs,
    /// Another host with our key keeps its links: this one makes none before.
    pub(crate) stands_back_until: Option<Instant>,
    pub(crate) stopped: bool,
}

impl<C> Parts<C> {
    /// Whether another host with our key has the network's links, and this one makes none.
    pub(crate) fn stands_back(&self) -> bool {
        self.stands_back_until.is_some_and(|until| self.now < until)
    }

    /// The pause after so many failures.
    pub(crate) fn pause(&mut self, failures: u32) -> Duration {
        let (first, longest) = self.limits.backoff;
        self.random.pause(failures, first, longest)
    }
}
