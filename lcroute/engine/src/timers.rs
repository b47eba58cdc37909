//! The table of all timers of the engine, and the first one of them.

use librecast::time::Instant;

/// Why the engine wants to be woken; every timer it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKind {
    /// The querier's next general query (RFC 9777 §9.2).
    GeneralQuery,
    /// Repeat of a group-specific query (RFC 9777 §9.9).
    SpecificQuery,
    /// A local membership that nobody refreshed (RFC 9777 §9.4).
    ListenerExpiry,
    /// The robustness repeat of a state-change report (RFC 9777 §9.11).
    StateChangeRepeat,
    /// More current-state reports, paced.
    CurrentStateReport,
    /// First packets of a flow have waited long enough for a listener.
    FirstPackets,
    /// Packets are no longer kept for late joiners.
    Replay,
    /// A flow without a listener went idle.
    FlowIdle,
    /// A Join that a neighbour refused is sent again.
    JoinRetry,
    /// A tree that is no longer a group's is left.
    TreeChange,
    /// The digest of advertised join state goes out.
    Audit,
    /// The link state database: an advertisement, a rate limit, an expiry.
    LinkState,
    /// Routes are computed, or packets are no longer taken over edges of former trees.
    RouteComputation,
    /// Links are decided on.
    Topology,
    /// The duplicate window of an unreachable router is forgotten.
    RouterGone,
    /// A PROBE, or the silence of another gateway.
    Lan,
    /// Leaves hear where else they may go.
    LeafOffer,
}

/// A timer of the table: when, if it runs, and which.
pub type Timer = Option<(Instant, TimerKind)>;

/// A timer of one kind.
pub fn timer(at: Option<Instant>, kind: TimerKind) -> Timer {
    at.map(|at| (at, kind))
}

/// The first timer of the table. Most packets move no timer, so it is not looked for after each.
#[derive(Debug, Default)]
pub struct Timers {
    /// Of the timers that only a flush moves, as of the last one.
    flushed: Timer,
    /// Of all, as of the last flush.
    first: Timer,
    /// A packet of a local program may have moved a timer since.
    stale: bool,
}

impl Timers {
    /// A packet may have moved timers.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// All timers after a flush: those that only a flush moves, and those that packets move.
    pub fn set(&mut self, flushed: Timer, by_packets: Timer) {
        self.flushed = flushed;
        self.first = [flushed, by_packets].into_iter().flatten().min();
        self.stale = false;
    }

    /// The first timer that only a flush moves, as of the last one.
    pub fn flushed(&self) -> Timer {
        self.flushed
    }

    /// The first timer of all; `None`: it has to be looked for.
    pub fn first(&self) -> Option<Timer> {
        (!self.stale).then_some(self.first)
    }
}
