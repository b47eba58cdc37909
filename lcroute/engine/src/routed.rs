//! Messages from router to router over the control channels between them: signalling, echoes, renewals.
//!
//! Any member may send them to any other, and nothing proves from whom they come. So a budget of bytes bounds what each
//! neighbour sends or passes on, and they leave as [`Output::RoutedControl`]: behind all other control messages of
//! a link, where a slow link drops them without harm.

use librecast::id::{LinkId, OriginId};

use crate::control::{Routed, RoutedKind};
use crate::drops::DropReason;
use crate::engine::Engine;
use crate::header::HOP_LIMIT;
use crate::output::Output;
use crate::token_bucket::Rate;

/// Bytes that one neighbour may send or pass on, per second and at once. Chosen: thirty signalling messages a second, and
/// those of a whole network of some hundred nodes at once.
const ROUTED_RATE: Rate = Rate::per_second(64 << 10, 512 << 10);
/// A short message counts as so many bytes, for what it costs to look at.
const LEAST_CHARGE: u32 = 512;
/// Common neighbours that signalling with a neighbour goes over. Chosen: the links to one or two may be gone as well.
const DETOURS: usize = 3;
/// Longest payload of an echo in bytes.
const MAX_ECHO: usize = 1 << 10;

impl Engine {
    /// A message of a neighbour, its own or passed on.
    pub(crate) fn handle_routed(&mut self, link: LinkId, routed: Routed) -> Result<(), DropReason> {
        let adjacency = self.adjacencies.get_mut(&link);
        let charge = charge(&routed, routed.destination == self.own);
        if !adjacency.is_some_and(|a| a.routed.take_many(charge, ROUTED_RATE, self.now)) {
            return Err(DropReason::RoutedLimited);
        }
        if routed.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        self.route(Some(link), routed)
    }

    /// Sends a message of this router's.
    pub(crate) fn originate(&mut self, routed: Routed) -> Result<(), DropReason> {
        let detours = match routed.kind {
            RoutedKind::Signal => self.detours(routed.destination),
            _ => Vec::new(),
        };
        if detours.is_empty() {
            return self.route(None, routed);
        }
        let copies = detours.into_iter().map(|link| (link, routed.clone()));
        self.routed.extend(copies);
        Ok(())
    }

    /// The first links of the ways to a neighbour over common neighbours, cheapest first: signalling with it is about the
    /// link to it, which may carry nothing any more.
    fn detours(&self, to: OriginId) -> Vec<LinkId> {
        let Some(direct) = self.neighbors.get(&to) else {
            return Vec::new();
        };
        let others = self.neighbors.iter().filter(|(_, link)| *link != direct);
        let cost = |origin: &OriginId| self.database.router(*origin)?.advertisement()?.cost_to(to);
        let ways = others.filter_map(|(origin, link)| Some((cost(origin)?, *link)));
        let mut ways: Vec<_> = ways.collect();
        ways.sort_unstable();
        ways.into_iter()
            .map(|(_, link)| link)
            .take(DETOURS)
            .collect()
    }

    /// Passes a message on, or takes it. `via`: the link it came over.
    pub(crate) fn route(&mut self, via: Option<LinkId>, routed: Routed) -> Result<(), DropReason> {
        if is_echo(routed.kind) && routed.payload.len() > MAX_ECHO {
            return Err(DropReason::TooBig);
        }
        if routed.destination != self.own {
            if routed.hop_limit <= 1 {
                return Err(DropReason::HopLimit);
            }
            let next = self.path(routed.destination).and_then(|p| p.next);
            let next = next.ok_or(DropReason::NoRoute)?;
            let hop_limit = routed.hop_limit - 1;
            let routed = Routed {
                hop_limit,
                ..routed
            };
            self.routed.push((next, routed));
            return Ok(());
        }
        if routed.kind == RoutedKind::Echo {
            let answer = Routed {
                destination: routed.source,
                source: self.own,
                hop_limit: HOP_LIMIT,
                kind: RoutedKind::EchoReply,
                payload: routed.payload,
            };
            return self.route(via, answer);
        }
        self.outputs.push_back(Output::Routed {
            via,
            from: routed.source,
            kind: routed.kind,
            payload: routed.payload,
        });
        Ok(())
    }
}

fn is_echo(kind: RoutedKind) -> bool {
    matches!(kind, RoutedKind::Echo | RoutedKind::EchoReply)
}

/// What a message costs the neighbour. An echo for this router costs twice, as its answer goes to whom the neighbour
/// says: reflecting gains it nothing.
fn charge(routed: &Routed, is_ours: bool) -> u32 {
    // a control message has 16 KiB at most
    let bytes = (routed.payload.len() as u32).max(LEAST_CHARGE);
    let answers = is_ours && routed.kind == RoutedKind::Echo;
    bytes * (1 + u32::from(answers))
}
