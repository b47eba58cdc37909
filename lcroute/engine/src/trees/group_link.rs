//! Join state of a group on one link.

use librecast::id::LinkId;

use super::link_shares::Payer;
use crate::join::Join;

/// Join state of a group on one link, in both directions.
#[derive(Debug)]
pub(super) struct GroupLink {
    pub link: LinkId,
    pub received_source_active: bool,
    pub advertised_source_active: bool,
    /// The neighbour has no room for it: it waits.
    pub waits: bool,
    /// The payer: it is, or waits, in this payer's share of the neighbour's room.
    pub payer: Option<Payer>,
    pub received: Join,
    pub advertised: Join,
}

impl GroupLink {
    pub fn new(link: LinkId) -> Self {
        Self {
            link,
            received_source_active: false,
            advertised_source_active: false,
            waits: false,
            payer: None,
            received: Join::None,
            advertised: Join::None,
        }
    }

    pub fn is_empty(&self) -> bool {
        !(self.received_source_active
            || self.advertised_source_active
            || self.payer.is_some()
            || self.received.is_some()
            || self.advertised.is_some())
    }

    /// Whether it may be advertised.
    pub fn is_kept(&self) -> bool {
        self.payer.is_some() && !self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_may_be_a_million_of_these() {
        assert_eq!(size_of::<GroupLink>(), 48);
    }
}
