//! Origins of packets: their duplicate windows, and the certificates that permit their packets. So
//! a packet needs neither the database nor a table by source: a group may have a thousand sources.

use std::collections::BTreeSet;
use std::sync::Arc;

use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use crate::classify::Flow;
use crate::config::NodeSources;
use crate::drops::DropReason;
use crate::duplicate::{MAX_SIZE, MIN_SIZE, Windows};
use crate::lsdb::Database;
use crate::services::Credential;
use crate::table::Table;

/// Time for which the window of an unreachable router is kept. Chosen: longer than packets travel.
const WINDOW_MEMORY: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Origin {
    incarnation: u32,
    /// The origin's signed advertisement has this incarnation.
    confirmed: bool,
    passed: Windows,
    /// Its certificates, with the version of all certificates.
    credential: Option<(u64, Arc<Credential>)>,
}

impl Origin {
    fn new(incarnation: u32, confirmed: bool) -> Self {
        Self {
            incarnation,
            confirmed,
            passed: Windows::default(),
            credential: None,
        }
    }
}

/// All origins with an accepted packet or an advertisement.
#[derive(Debug)]
pub struct Origins {
    origins: Table<OriginId, Origin>,
    size: u64,
    /// Unreachable origins, by the time at which their windows are forgotten.
    gone: BTreeSet<(Instant, OriginId)>,
}

impl Origins {
    /// Windows of about `size` sequence numbers.
    pub fn new(size: usize, seed: u64) -> Self {
        let size = (size as u64).clamp(MIN_SIZE, MAX_SIZE).next_multiple_of(64);
        Self {
            origins: Table::new(seed),
            size,
            gone: BTreeSet::new(),
        }
    }

    /// Number of sequence numbers that a window remembers.
    pub fn window(&self) -> u64 {
        self.size
    }

    /// Sets the advertised incarnation of an origin: packets of any other are refused.
    pub fn confirm(&mut self, origin: OriginId, incarnation: u32) {
        let known = self
            .origins
            .get_or_insert_with(origin, || Origin::new(incarnation, true));
        if known.incarnation == incarnation {
            known.confirmed = true;
        } else {
            *known = Origin::new(incarnation, true);
        }
    }

    /// Checks that the origin's certificates permit source and group.
    pub fn permit(
        &mut self,
        origin: OriginId,
        flow: Flow,
        database: &Database,
    ) -> Result<(), DropReason> {
        let version = database.credentials_version();
        let mut known = self.origins.get_mut(&origin);
        let kept = known.as_deref().and_then(|o| o.credential.as_ref());
        if let Some((_, credential)) = kept.filter(|(of, _)| *of == version) {
            return may_send(credential, flow, origin, database);
        }
        let router = database.router(origin).ok_or(DropReason::ForgedSource)?;
        let credential = router.credential();
        let permitted = may_send(credential, flow, origin, database);
        // no state is kept of an origin before one of its packets is accepted
        if let Some(known) = &mut known {
            known.credential = Some((version, Arc::clone(credential)));
        }
        permitted
    }

    /// Accepts each (origin, incarnation, sequence) once. Before an advertisement the highest
    /// incarnation seen counts.
    pub fn accept(
        &mut self,
        origin: OriginId,
        incarnation: u32,
        sequence: u64,
    ) -> Result<(), DropReason> {
        let known = self
            .origins
            .get_or_insert_with(origin, || Origin::new(incarnation, false));
        if incarnation > known.incarnation && !known.confirmed {
            *known = Origin::new(incarnation, false);
        }
        if incarnation != known.incarnation {
            return Err(DropReason::OldIncarnation);
        }
        if known.passed.accept(sequence, self.size) {
            Ok(())
        } else {
            Err(DropReason::Duplicate)
        }
    }

    /// Sets whether the origin is reachable; else its window is forgotten after [`WINDOW_MEMORY`].
    pub fn set_reachable(&mut self, origin: OriginId, up: bool, now: Instant) {
        self.gone.retain(|(_, gone)| *gone != origin);
        if !up {
            self.gone.insert((now + WINDOW_MEMORY, origin));
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, origin)) = self.gone.first()
            && at <= now
        {
            self.gone.pop_first();
            self.origins.remove(&origin);
        }
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.gone.first().map(|(at, _)| *at)
    }

    pub fn len(&self) -> usize {
        self.origins.len()
    }
}

fn may_send(
    credential: &Credential,
    flow: Flow,
    origin: OriginId,
    database: &Database,
) -> Result<(), DropReason> {
    let member = &credential.member;
    let is_own = NodeSources::of_node(&member.addresses).allows(flow.source, flow.group);
    if !is_own && !database.lan_sources().speaks_for(origin, flow.source) {
        return Err(DropReason::ForgedSource);
    }
    if member.prefixes.iter().any(|p| p.contains(flow.group)) {
        Ok(())
    } else {
        Err(DropReason::NotPermitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: OriginId = OriginId(7);

    fn origins() -> Origins {
        Origins::new(4096, 1)
    }

    #[test]
    fn only_the_incarnation_of_the_hello_passes() {
        let mut d = origins();
        assert!(d.accept(X, 4, 1).is_ok(), "before HELLO");
        assert!(d.accept(X, 5, 1).is_ok(), "newer, before HELLO");
        assert_eq!(d.accept(X, 4, 2), Err(DropReason::OldIncarnation));
        d.confirm(X, 5);
        assert_eq!(
            d.accept(X, 5, 1),
            Err(DropReason::Duplicate),
            "the window stays"
        );
        assert_eq!(
            d.accept(X, 6, 1),
            Err(DropReason::OldIncarnation),
            "not the one that said HELLO"
        );
        d.confirm(X, 6);
        assert!(d.accept(X, 6, 1).is_ok());
        assert_eq!(d.accept(X, 5, 9), Err(DropReason::OldIncarnation));
        d.origins.remove(&X);
        assert_eq!(d.len(), 0);
    }
}
