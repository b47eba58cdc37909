//! The state that all peers share, handed to each with its events.

use librecast::id::PeerId;
use librecast::time::{Duration, Instant, WallClock};

use crate::config::Limits;
use crate::elsewhere::Elsewhere;
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

/// The state of an overlay except its peers.
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
    pub(crate) elsewhere: Elsewhere,
    pub(crate) wanted: Wanted,
    pub(crate) trust: Trust,
    pub(crate) reachable: Reachable,
    pub(crate) places: Places,
    pub(crate) straight: Straight,
    pub(crate) rendezvous: RendezvousEpochs,
    pub(crate) outputs: Outputs,
    /// End of the pause after this node gave its links up to another host with its key.
    pub(crate) stands_back_until: Option<Instant>,
    pub(crate) stopped: bool,
    /// End of the time in which few leaves may begin a link, as this node is behind.
    pub(crate) behind_until: Option<Instant>,
}

impl<C> Parts<C> {
    /// Returns whether this node makes no links, as another host with its key has them.
    pub(crate) fn stands_back(&self) -> bool {
        self.stands_back_until.is_some_and(|until| self.now < until)
    }

    /// Returns the pause after this number of failures.
    pub(crate) fn pause(&mut self, failures: u32) -> Duration {
        let (first, longest) = self.limits.backoff;
        self.random.pause(failures, first, longest)
    }
}
