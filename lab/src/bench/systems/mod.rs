//! Systems under test: each gives hosts an interface that carries multicast between them.
//!
//! ```text
//!             internet (a router)
//!      ┌─────────┼─────────┬───────────┐
//!    sender   listener1 listener2 ... idle     all with public addresses, no firewall
//! ```
//!
//! `idle` belongs to the system too, but has no listener: traffic that reaches it is waste.
//!
//! Each is set up as its own manual describes.

mod fastd;
mod lcroute;
mod openvpn;
mod relay;
mod tinc;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::system::System;
use lcroute_demo::lab::{Host, Lab, find_program};

/// Systems that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Through {
    /// lcroute, as it was built.
    Lcroute,
    /// lcroute with a private prefix: packets are sealed by the sender and opened by listeners.
    Private,
    /// The limit: TUN, AES-GCM, UDP, TUN, and nothing else.
    Relay,
    /// fastd with an interface per peer in a bridge that snoops MLD.
    FastdMultitap,
    /// fastd with one tap interface, which floods.
    Fastd,
    /// tinc in switch mode, which floods.
    Tinc,
    /// OpenVPN with tap interfaces and its server on the sending host, which floods.
    Openvpn,
}

/// The plan for a system.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hosts that listen.
    pub listeners: usize,
    /// Lines for lcroute's configuration.
    pub config: String,
    /// Percent of packets lost at each listener, both ways.
    pub loss: u8,
}

impl Through {
    /// Returns its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the Debian package that it needs and that is not installed.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        let needed: &[(&str, &str)] = match self {
            Through::Lcroute | Through::Private | Through::Relay => &[],
            Through::Fastd | Through::FastdMultitap => &[("fastd", "fastd")],
            Through::Tinc => &[("tincd", "tinc")],
            Through::Openvpn => &[("openvpn", "openvpn"), ("openssl", "openssl")],
        };
        let lacks = |(program, _): &&(&str, &str)| find_program(program).is_none();
        needed.iter().find(lacks).map(|(_, package)| *package)
    }

    /// Starts it in its own world.
    pub fn start(self, lab: &Lab, plan: &Plan) -> Result<System> {
        let hosts = hosts(lab, plan.listeners)?;
        let system = match self {
            Through::Lcroute => lcroute::start(lab, hosts, &plan.config),
            Through::Private => lcroute::start_private(lab, hosts, &plan.config),
            Through::Relay => relay::start(hosts),
            Through::Fastd => fastd::start(hosts, fastd::Mode::Tap),
            Through::FastdMultitap => fastd::start(hosts, fastd::Mode::Multitap),
            Through::Tinc => tinc::start(hosts),
            Through::Openvpn => openvpn::start(hosts),
        };
        let system = system.with_context(|| self.name())?;
        if plan.loss > 0 {
            for node in system.listeners() {
                lab.lose(&node.host, plan.loss)?;
            }
        }
        Ok(system)
    }
}

fn hosts(lab: &Lab, listeners: usize) -> Result<Vec<Host>> {
    let listening = (1..=listeners).map(|number| format!("listener{number}"));
    std::iter::once("sender".to_owned())
        .chain(listening)
        .chain(["idle".to_owned()])
        .map(|name| lab.host(&name))
        .collect()
}
