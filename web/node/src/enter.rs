//! From a token to a member or a leaf.

use librecast::time::{Instant, UnixTime};

use crate::leaf::PageLeaf;
use crate::member::PageMember;
use crate::tab::Tab;
use crate::visit::{Start, Visit};

/// Enters a network, by a token or a stored membership. `time`: the wall clock.
pub fn open(start: &Start, now: Instant, time: UnixTime) -> Result<Box<dyn Tab>, String> {
    let visit = Visit::new(start, time)?;
    Ok(match &visit.leaf_token {
        Some(_) => Box::new(PageLeaf::new(visit, start, now, time)?),
        None => Box::new(PageMember::new(visit, start, now, time)?),
    })
}
