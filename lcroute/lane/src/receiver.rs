//! One direction at its receiver, behind SRTP: from payloads to messages and reports.

use bytes::Bytes;
use librecast::time::{Duration, Instant};

use crate::feedback::{Report, Reporter};
use crate::payload::{Chunk, Pieced, RESENT, Reassembly, SYMBOL, kind_of, take};
use crate::recovery::Recovery;
use crate::replay::{ReplayWindow, extend};

/// Why a payload, or a message of it, was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The payload is not of our form.
    Malformed,
    /// A message lost its place to newer ones before all its pieces came.
    Incomplete,
}

/// The receiver. The caller authenticates packets, and keeps the window of their indices.
#[derive(Debug)]
pub struct Receiver {
    reassembly: Reassembly,
    reporter: Reporter,
    recovery: Recovery,
}

impl Receiver {
    /// Makes the state; repair may deliver up to `repair` late, 0 turns it off.
    #[must_use]
    pub fn new(repair: Duration, now: Instant) -> Self {
        Self {
            reassembly: Reassembly::default(),
            reporter: Reporter::new(!repair.is_zero(), now),
            recovery: Recovery::new(repair),
        }
    }

    /// Notes the arrival of a packet: index and bytes, whether it requests a report, and whether it
    /// has the mark of a filling queue. Returns whether a report is due.
    pub fn arrived(
        &mut self,
        packet: (u64, usize),
        marker: bool,
        congested: bool,
        now: Instant,
    ) -> bool {
        self.reporter.handle(packet, marker, congested, now)
    }

    /// Delivers the messages of packet `index`, and of those that it repairs. `seen` has the packet.
    ///
    /// # Errors
    /// A fault of the payload; messages before it were delivered.
    pub fn handle(
        &mut self,
        index: u64,
        payload: Bytes,
        seen: &ReplayWindow,
        deliver: &mut dyn FnMut(Bytes),
        now: Instant,
    ) -> Result<(), Fault> {
        self.handle_payload(index, payload, seen, deliver, now)?;
        // a later copy is a duplicate
        while let Some(mut payload) = self.recovery.next(seen) {
            self.unpack(&mut payload, deliver)?;
        }
        Ok(())
    }

    /// Handles the payload of packet `index`: messages, a resent payload, or a symbol.
    fn handle_payload(
        &mut self,
        index: u64,
        mut payload: Bytes,
        seen: &ReplayWindow,
        deliver: &mut dyn FnMut(Bytes),
        now: Instant,
    ) -> Result<(), Fault> {
        let malformed = |()| Fault::Malformed;
        let mut origin = index;
        match kind_of(&payload) {
            SYMBOL => {
                let Some(Chunk::Symbol(symbol)) = take(&mut payload).map_err(malformed)? else {
                    return Err(Fault::Malformed);
                };
                let result = self.recovery.symbol(&symbol, index, seen, now);
                return result.map_err(malformed);
            }
            RESENT => {
                let Some(Chunk::Resent(low)) = take(&mut payload).map_err(malformed)? else {
                    return Err(Fault::Malformed);
                };
                origin = extend(low, u32::BITS, index);
                if origin >= index {
                    return Err(Fault::Malformed);
                }
                if !self.recovery.repair(origin, seen) {
                    return Ok(());
                }
            }
            // late: repair has delivered its messages
            _ if !self.recovery.is_new(index) => return Ok(()),
            _ => {}
        }
        self.recovery.keep(origin, &payload, now);
        self.unpack(&mut payload, deliver)
    }

    /// Delivers the messages of a payload.
    fn unpack(&mut self, payload: &mut Bytes, deliver: &mut dyn FnMut(Bytes)) -> Result<(), Fault> {
        let mut displaced = Ok(());
        while let Some(chunk) = take(payload).map_err(|()| Fault::Malformed)? {
            match chunk {
                // valid only at the beginning of a packet
                Chunk::Resent(_) | Chunk::Symbol(_) => return Err(Fault::Malformed),
                Chunk::Whole(message) => deliver(message),
                Chunk::Piece {
                    message,
                    piece,
                    last,
                    bytes,
                } => match self.reassembly.handle(message, piece, last, &bytes) {
                    Pieced::Waiting => {}
                    Pieced::Complete(message) => deliver(message),
                    // the chunks behind it are of other messages
                    Pieced::Displaced => displaced = Err(Fault::Incomplete),
                    Pieced::Malformed => return Err(Fault::Malformed),
                },
            }
        }
        displaced
    }

    /// Returns the time of the next report.
    pub fn deadline(&self) -> Option<Instant> {
        self.reporter.deadline()
    }

    /// Returns the report of all arrivals; `None` without any since the last.
    pub fn report(&mut self, seen: &ReplayWindow, now: Instant) -> Option<Report> {
        self.reporter.report(seen, now)
    }

    /// Skips a report; the next one covers everything.
    pub fn skip_report(&mut self) {
        self.reporter.skip();
    }

    /// Returns the number of packets with messages that repair has delivered.
    pub fn repaired(&self) -> u64 {
        self.recovery.count
    }
}
