//! Messages from router to router over the control channels between: signalling, echoes, renewals.
//!
//! Any member may send them to any other, and nothing proves their source. So a budget of bytes
//! bounds the messages that each neighbour sends or passes on. They leave behind all other control
//! messages of a link, as [`Output::RoutedControl`]; a slow link may drop them.

use librecast::id::{LinkId, OriginId};

use crate::control::{Routed, RoutedKind};
use crate::drops::DropReason;
use crate::header::HOP_LIMIT;
use crate::lsdb::Database;
use crate::outbox::Outbox;
use crate::output::Output;
use crate::unicast_routes::{RouteView, UnicastRoutes};
use librecast::bucket::Rate;

/// Bytes that one neighbour may send or pass on. Chosen: thirty signalling messages a second, and
/// those of a network of some hundred nodes at once.
pub const ROUTED_RATE: Rate = Rate::per_second(64 << 10, 512 << 10);
/// Bytes that a short message counts as, for its processing.
const LEAST_CHARGE: u32 = 512;
/// Common neighbours for signalling with a neighbour. Chosen: one or two may have lost it as well.
const DETOURS: usize = 3;
/// Longest payload of an echo in bytes.
const MAX_ECHO: usize = 1 << 10;

/// Charge of a message to its neighbour, in bytes of [`ROUTED_RATE`]. An echo for this router costs
/// twice, as the answer goes to a claimed source: reflection gains nothing.
pub fn charge(routed: &Routed, own: OriginId) -> u32 {
    // a control message has 16 KiB at most
    let bytes = (routed.payload.len() as u32).max(LEAST_CHARGE);
    let answers = routed.destination == own && routed.kind == RoutedKind::Echo;
    bytes * (1 + u32::from(answers))
}

/// Messages to pass on with the next flush.
#[derive(Debug, Default)]
pub struct RoutedQueue(Vec<(LinkId, Routed)>);

impl RoutedQueue {
    /// All messages, with their links.
    pub fn take(&mut self) -> Vec<(LinkId, Routed)> {
        std::mem::take(&mut self.0)
    }

    /// Sends a message of this router.
    pub fn originate(
        &mut self,
        routed: Routed,
        database: &Database,
        routes: &mut UnicastRoutes,
        view: RouteView<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let detours = match routed.kind {
            RoutedKind::Signal => detours(routed.destination, database, view),
            _ => Vec::new(),
        };
        if detours.is_empty() {
            return self.route(None, routed, routes, view, outbox);
        }
        let copies = detours.into_iter().map(|link| (link, routed.clone()));
        self.0.extend(copies);
        Ok(())
    }

    /// Passes a message on, or accepts it. `via`: the link over which it came.
    pub fn route(
        &mut self,
        via: Option<LinkId>,
        routed: Routed,
        routes: &mut UnicastRoutes,
        view: RouteView<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        if routed.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        if is_echo(routed.kind) && routed.payload.len() > MAX_ECHO {
            return Err(DropReason::TooBig);
        }
        if routed.destination != view.own {
            if routed.hop_limit == 1 {
                return Err(DropReason::HopLimit);
            }
            let next = routes.get(routed.destination, view);
            let next = next.and_then(|route| route.next);
            let hop_limit = routed.hop_limit - 1;
            let onward = Routed {
                hop_limit,
                ..routed
            };
            self.0.push((next.ok_or(DropReason::NoRoute)?, onward));
            return Ok(());
        }
        if routed.kind == RoutedKind::Echo {
            let answer = Routed {
                destination: routed.source,
                source: view.own,
                hop_limit: HOP_LIMIT,
                kind: RoutedKind::EchoReply,
                payload: routed.payload,
            };
            return self.route(via, answer, routes, view, outbox);
        }
        outbox.push(Output::Routed {
            via,
            from: routed.source,
            kind: routed.kind,
            payload: routed.payload,
        });
        Ok(())
    }
}

/// The first links of paths to a neighbour over common neighbours, cheapest first: signalling with
/// it concerns the direct link, which may be dead.
fn detours(to: OriginId, database: &Database, view: RouteView<'_>) -> Vec<LinkId> {
    let Some(direct) = view.neighbors.get(&to) else {
        return Vec::new();
    };
    let others = view.neighbors.iter().filter(|(_, link)| *link != direct);
    let cost = |origin: &OriginId| database.router(*origin)?.advertisement()?.cost_to(to);
    let paths = others.filter_map(|(origin, link)| Some((cost(origin)?, *link)));
    let mut paths: Vec<_> = paths.collect();
    paths.sort_unstable();
    let links = paths.into_iter().map(|(_, link)| link);
    links.take(DETOURS).collect()
}

fn is_echo(kind: RoutedKind) -> bool {
    matches!(kind, RoutedKind::Echo | RoutedKind::EchoReply)
}
