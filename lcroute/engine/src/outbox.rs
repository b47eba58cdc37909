//! Outputs and counters of the engine.

use std::collections::VecDeque;

use bytes::Bytes;

use librecast::drops::Drops;

use crate::drops::DropReason;
use crate::flow_meter::FlowMeter;
use crate::header::{DataHeader, HEADER_LEN};
use crate::interface_id::{LC0, LocalInterfaceId};
use crate::output::{LanFrame, Links, Output};
use crate::pass_on::PassOn;
use crate::snapshot::Counters;

/// Outputs in order, and their counters.
#[derive(Debug, Default)]
pub struct Outbox {
    outputs: VecDeque<Output>,
    /// Packets and bytes, without drops.
    pub counters: Counters,
    pub drops: Drops<DropReason>,
    /// Present while a user looks.
    pub meter: Option<FlowMeter>,
    /// Present where what is forwarded for others has a limit.
    pub pass_on: Option<Box<PassOn>>,
}

impl Outbox {
    pub fn new(pass_on: Option<Box<PassOn>>) -> Self {
        Self {
            pass_on,
            ..Self::default()
        }
    }

    /// Appends an action for the shell.
    pub fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Counts a drop, if the result is one.
    pub fn count(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    pub fn transmit(&mut self, links: Links, header: DataHeader, packet: Bytes) {
        self.counters.link_tx_packets += links.len() as u64;
        self.counters.link_tx_bytes += (links.len() * (HEADER_LEN + packet.len())) as u64;
        if let Some(meter) = &mut self.meter {
            meter.count(&links, &packet);
        }
        self.push(Output::Data {
            links,
            header: header.encode(),
            packet,
        });
    }

    pub fn deliver(&mut self, packet: Bytes) {
        self.count_local(packet.len());
        self.push(Output::Local { packet });
    }

    /// Sends a query or report into a local interface.
    pub fn deliver_mld(&mut self, interface: LocalInterfaceId, packet: Bytes) {
        if interface == LC0 {
            self.count_local(packet.len());
            self.push(Output::LocalMld { packet });
        } else {
            self.send_lan(interface, LanFrame::Link(packet));
        }
    }

    pub fn send_lan(&mut self, interface: LocalInterfaceId, frame: LanFrame) {
        self.push(Output::Lan { interface, frame });
    }

    fn count_local(&mut self, len: usize) {
        self.counters.tun_tx_packets += 1;
        self.counters.tun_tx_bytes += len as u64;
    }
}
