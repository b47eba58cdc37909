//! Observable events of a run, for viewers.

use std::net::Ipv6Addr;

use bytes::Bytes;
use lcroute_engine::control::{Element, decode};

use crate::packet;
use crate::population::Population;
use crate::time::Nanos;

/// An observed event of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Time in nanoseconds since the start.
    pub at: Nanos,
    /// The node.
    pub node: u32,
    /// The event.
    pub what: What,
}

/// Observable events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Its daemon starts.
    Start,
    /// Its daemon ends.
    End,
    /// It has a link to another node.
    LinkUp(u32),
    /// It has noticed that a link is gone.
    LinkDown(u32),
    /// It advertises join state of a single group to a neighbour, replacing earlier state.
    JoinState {
        /// The neighbour.
        to: u32,
        /// Time of arrival.
        arrives: Nanos,
        /// The root of the tree.
        root: u32,
        /// The group.
        group: Ipv6Addr,
        /// Whether a listener is on this side.
        join: bool,
        /// Whether a sender is on this side.
        source_active: bool,
    },
    /// It forwards LSAs.
    LinkState {
        /// The neighbour.
        to: u32,
        /// Time of arrival.
        arrives: Nanos,
    },
    /// A program sends a packet.
    Send {
        /// Its number in the run.
        number: u64,
        /// The group.
        group: Ipv6Addr,
    },
    /// A packet leaves for a neighbour.
    Forward {
        /// The neighbour.
        to: u32,
        /// Time of arrival; `None` if it gets lost.
        arrives: Option<Nanos>,
        /// Its number in the run.
        number: u64,
        /// The group.
        group: Ipv6Addr,
    },
    /// A packet reaches the programs.
    Deliver {
        /// Its number in the run.
        number: u64,
        /// The group.
        group: Ipv6Addr,
    },
}

/// Recorded sights, if recording is on.
#[derive(Debug, Default)]
pub struct Sights(Option<Vec<Sight>>);

impl Sights {
    /// Starts recording.
    pub fn open(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Returns the sights since the last call.
    pub fn take(&mut self) -> Vec<Sight> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn see(&mut self, at: Nanos, node: u32, what: What) {
        if let Some(sights) = &mut self.0 {
            sights.push(Sight { at, node, what });
        }
    }

    /// Records a sent control message.
    pub fn control(
        &mut self,
        (at, node): (Nanos, u32),
        (to, arrives): (u32, Nanos),
        message: &[u8],
        population: &Population,
    ) {
        if self.0.is_none() {
            return;
        }
        for element in decode(message).unwrap_or_default() {
            let what = match element {
                Element::Lsa(_) => What::LinkState { to, arrives },
                Element::JoinState(state) if state.prefix.prefix_len() == 128 => {
                    let Some(root) = population.node(state.root) else {
                        continue;
                    };
                    What::JoinState {
                        to,
                        arrives,
                        root,
                        group: state.prefix.addr(),
                        join: state.join.is_some(),
                        source_active: state.source_active,
                    }
                }
                _ => continue,
            };
            self.see(at, node, what);
        }
    }

    /// Records a sent packet.
    pub fn forward(
        &mut self,
        (at, node): (Nanos, u32),
        to: u32,
        arrives: Option<Nanos>,
        packet: &Bytes,
    ) {
        if self.0.is_none() {
            return;
        }
        if let Some(label) = packet::label(packet) {
            let (number, group) = (label.number, label.to);
            let what = What::Forward {
                to,
                arrives,
                number,
                group,
            };
            self.see(at, node, what);
        }
    }
}
