//! One upload: a sender whose uplink is slow asks other routers, its carriers, to announce parts
//! of the groups that it sends.
//!
//! ```text
//! sender                                  carrier
//!   |  own flows need more than the uplink   |
//!   |  CARRY parts, signed ----------------> |  permitted, has room, listens: announces the parts
//!   | <------- CARRIED, and the link state   |
//!   |  sends one copy on the carrier's tree  |
//! ```
//!
//! Every router uses the tree of the longest announced prefix, so the parts move to the carrier's
//! tree by themselves, and move back when its advertisement is gone. `sender` decides on requests,
//! `choice` on carriers, `paths` on parts of what one full link holds back, `carrier` on
//! announcements for other senders; `request` has the messages.

use std::collections::BTreeSet;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::time::Instant;

use crate::config::{CarrySettings, Consent};
use crate::context::Context;
use crate::drops::DropReason;
use crate::graph::Graph;
use crate::services::Services;

mod carrier;
mod choice;
mod paths;
mod request;
mod sender;

pub use carrier::Carried;
pub use request::{Answer, CarryRequest, Received, decode_answer};
pub(crate) use sender::{OwnFlow, SenderContext, Sends};

use carrier::{Carrier, CarrierContext};
use sender::Sender;

/// Groups of this node that another router carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedPart {
    /// The groups.
    pub prefix: GroupPrefix,
    /// The router whose tree they use.
    pub carrier: OriginId,
}

/// How things stand with this node's uplink.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CarrySnapshot {
    /// Bits a second that the configuration allows.
    pub upload: Option<u64>,
    /// Bits a second of own multicast that go out, all copies together, in the last second.
    pub sent: u64,
    /// Mean number of copies of an own packet, in the last second.
    pub copies: f64,
    /// The uplink is slow, or was a moment ago.
    pub is_short: bool,
    /// Own parts that others carry.
    pub carried: Vec<CarriedPart>,
    /// Own parts for which no carrier is found.
    pub waiting: usize,
    /// Routers that refuse, with the reason that they gave.
    pub refusals: Vec<(OriginId, Option<Answer>)>,
    /// Parts that this router carries, by sender.
    pub carries: Vec<Carried>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CarryMessage {
    /// A CARRY.
    Request(OriginId, Bytes),
    /// A CARRIED.
    Answer(OriginId, Bytes),
}

#[derive(Debug)]
pub(crate) struct Carry {
    settings: CarrySettings,
    sender: Sender,
    carrier: Carrier,
}

impl Carry {
    /// Nothing is carried.
    pub fn new(settings: CarrySettings, now: Instant) -> Self {
        Self {
            settings,
            sender: Sender::new(now),
            carrier: Carrier::new(now),
        }
    }

    /// The configuration has changed. True: this router announces other parts.
    pub fn configure(&mut self, settings: CarrySettings) -> bool {
        let before = std::mem::replace(&mut self.settings, settings);
        if before.upload != settings.upload {
            self.sender.forget_shortage();
        }
        settings.consent == Consent::No && self.carrier.clear()
    }

    /// Parts that this router announces for others, at most `room` of them.
    pub fn announced(&self, room: usize) -> BTreeSet<GroupPrefix> {
        self.carrier.parts().take(room).collect()
    }

    /// Links whose queues held packets back for most of the last second.
    pub fn set_pressed(&mut self, pressed: BTreeSet<OriginId>) {
        self.sender.set_pressed(pressed);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self, sends: Sends) -> Option<Instant> {
        let timers = [
            self.sender.next_timeout(self.settings, sends),
            self.carrier.next_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Whether own flows are to be measured now.
    pub fn is_due(&self, sends: Sends, now: Instant) -> bool {
        let next = self.sender.next_timeout(self.settings, sends);
        next.is_some_and(|at| at <= now)
    }

    /// A second has passed for the sender's side: messages to carriers.
    pub fn measure(
        &mut self,
        flows: Vec<OwnFlow>,
        context: &SenderContext<'_>,
        services: &dyn Services,
    ) -> Vec<CarryMessage> {
        self.sender.measure(self.settings, flows, context);
        self.sender.ask(context, services)
    }

    /// Runs the carrier's due timers; `sent`: bytes over all links since the start. True:
    /// this router announces other parts.
    pub fn handle_timeout(&mut self, sent: u64, now: Instant) -> bool {
        self.carrier.handle_timeout(self.settings.upload, sent, now)
    }

    /// Whether this router carries something that nothing here listens to.
    pub fn passes_on(&self) -> bool {
        self.carrier.passes_on()
    }

    /// Limits the copies of carried parts without listeners here: `copies` are those of a part.
    /// True: this router announces other parts.
    pub fn limit_copies(&mut self, copies: impl Fn(&GroupPrefix) -> usize, now: Instant) -> bool {
        self.carrier.limit_copies(&copies, now)
    }

    /// A sender has restarted, or can no longer be reached. True: this router announces other
    /// parts.
    pub fn forget_sender(&mut self, origin: OriginId) -> bool {
        self.carrier.forget(origin)
    }

    /// A CARRY of another router: the answer, and whether this router announces other parts now.
    ///
    /// # Errors
    /// The message cannot be read, is old, or its signature is not that of the router it names.
    pub fn handle_request(
        &mut self,
        from: OriginId,
        payload: &[u8],
        (listens, graph): (impl Fn(&GroupPrefix) -> bool, &Graph),
        context: Context<'_>,
        services: &dyn Services,
    ) -> Result<(CarryMessage, bool), DropReason> {
        let context = CarrierContext {
            node: context.node,
            database: context.database,
            consent: self.settings.consent,
            listens: &listens,
            is_neighbor: graph.neighbors(context.node.own).any(|(x, _)| x == from),
            now: context.now,
        };
        let (answer, changed) = self
            .carrier
            .handle_request(from, payload, &context, services)?;
        Ok((CarryMessage::Answer(from, answer), changed))
    }

    /// A CARRIED: a router that refuses is passed over.
    pub fn handle_answer(
        &mut self,
        from: OriginId,
        payload: &[u8],
        context: &SenderContext<'_>,
        services: &dyn Services,
    ) -> Vec<CarryMessage> {
        match decode_answer(payload) {
            Ok((request, answer)) if self.sender.refused(from, request, answer, context.now) => {
                self.sender.ask(context, services)
            }
            _ => Vec::new(),
        }
    }

    /// How things stand.
    pub fn snapshot(&self, now: Instant) -> CarrySnapshot {
        CarrySnapshot {
            upload: self.settings.upload,
            carries: self.carrier.carried(),
            ..self.sender.snapshot(now)
        }
    }
}
