//! Join state of a group on one link.

use librecast::id::LinkId;

use crate::join::Join;

/// Join state of a group on one link, in both directions.
#[derive(Debug)]
pub(super) struct GroupLink {
    pub link: LinkId,
    pub received_source_active: bool,
    pub advertised_source_active: bool,
    pub received: Join,
    pub advertised: Join,
}

impl GroupLink {
    pub fn new(link: LinkId) -> Self {
        Self {
            link,
            received_source_active: false,
            advertised_source_active: false,
            received: Join::None,
            advertised: Join::None,
        }
    }

    pub fn is_empty(&self) -> bool {
        !(self.received_source_active
            || self.advertised_source_active
            || self.received.is_some()
            || self.advertised.is_some())
    }
}
