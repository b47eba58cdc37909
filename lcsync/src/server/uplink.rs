//! Symbols on lc0 wait here while packets wait in lcroute, which would drop them.

use std::time::Duration;

use librecast_program::uplink::{Micros, UplinkWait};

/// Longest wait at which symbols leave. Chosen: with the symbols of one turn behind it, it is shorter
/// than that at which links drop.
pub const MOST_WAIT: Duration = Duration::from_millis(5);
/// Bounds of the time to the next look, and the time where symbols are not counted yet.
const SOONEST: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(4);
const COUNTED_SOON: Duration = Duration::from_micros(250);
/// Time in which lcroute counts sent symbols. Chosen: a busy computer needs so long.
const COUNTED_WITHIN: Duration = Duration::from_millis(20);

/// An interface on which no symbols should leave.
pub(super) struct Held {
    /// Its index.
    pub(super) interface: u32,
    /// How long packets wait there.
    pub(super) wait: Duration,
    /// Time until the next look.
    pub(super) time: Duration,
}

/// The wait, and the symbols that it may not count.
#[derive(Debug, Default)]
pub(super) struct UplinkGate {
    page: Option<UplinkWait>,
    /// Interface and time of the last packets.
    sent: Option<(u32, Micros)>,
}

impl UplinkGate {
    /// Opens lcroute's file anew: a daemon that was started again has another.
    pub(super) fn open(&mut self) {
        self.page = UplinkWait::open();
    }

    /// Notes packets that are about to be sent.
    pub(super) fn sent(&mut self, interface: u32) {
        if self.page.is_some() {
            self.sent = Some((interface, Micros::now()));
        }
    }

    /// Returns the interface on which no symbols should leave now.
    pub(super) fn holds(&self) -> Option<Held> {
        let uplink = self.page.as_ref()?.read()?;
        if uplink.wait > MOST_WAIT {
            let excess = uplink.wait - MOST_WAIT;
            return Some(Held {
                interface: uplink.interface,
                wait: uplink.wait,
                time: excess.clamp(SOONEST, LATEST),
            });
        }
        // where packets wait or did so lately, a turn of symbols at a time
        let (interface, at) = self.sent?;
        let is_counted = interface != uplink.interface
            || uplink.at >= at
            || Micros::now().since(at)? >= COUNTED_WITHIN;
        (!is_counted).then_some(Held {
            interface,
            wait: uplink.wait,
            time: COUNTED_SOON,
        })
    }
}
