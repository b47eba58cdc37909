//! The table of all timers of the engine, and the first one of them.

use librecast::time::Instant;

/// The reason of a timer; every timer of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKind {
    /// The querier's next general query (RFC 9777 §9.2).
    GeneralQuery,
    /// Repetition of a group-specific query (RFC 9777 §9.9).
    SpecificQuery,
    /// A local membership without a refresh (RFC 9777 §9.4).
    ListenerExpiry,
    /// Repetition of a state-change report (RFC 9777 §9.11).
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
    /// Routes are computed, or edges of former trees expire.
    RouteComputation,
    /// Links are decided on.
    Topology,
    /// The duplicate window of an unreachable router is forgotten.
    RouterGone,
    /// A PROBE, or the silence of another gateway.
    Lan,
    /// Own flows are measured, or a lease of a part ends.
    Carry,
    /// Offers to leaves are due.
    LeafOffer,
}

/// A timer: its time and kind, if it runs.
pub type Timer = Option<(Instant, TimerKind)>;

/// A timer of one kind.
pub fn timer(at: Option<Instant>, kind: TimerKind) -> Timer {
    at.map(|at| (at, kind))
}

/// The first timer. Most packets change no timer, so it is not computed after each.
#[derive(Debug, Default)]
pub struct Timers {
    /// The first timer that only a flush changes, as of the last flush.
    flushed: Timer,
    /// The first of all timers, as of the last flush.
    first: Timer,
    /// A packet of a local program may have changed a timer since.
    stale: bool,
}

impl Timers {
    /// A packet may have changed timers.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// Sets the first timers after a flush: by flushes only, and by packets.
    pub fn set(&mut self, flushed: Timer, by_packets: Timer) {
        self.flushed = flushed;
        self.first = [flushed, by_packets].into_iter().flatten().min();
        self.stale = false;
    }

    /// The first timer that only a flush changes, as of the last flush.
    pub fn flushed(&self) -> Timer {
        self.flushed
    }

    /// The first of all timers; `None`: it must be computed.
    pub fn first(&self) -> Option<Timer> {
        (!self.stale).then_some(self.first)
    }
}
