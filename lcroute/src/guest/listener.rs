//! A guest that is a leaf: it receives what its programs have joined, and sends nothing, or asks.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_engine::control::RefusalReason;
use lcroute_engine::{LEAF_GROUPS, SourceFilter};
use lcroute_node::LeafNode;
use lcroute_signalling::proxy::Proxy;
use lcroute_webrtc::WebRtc;
use librecast::cert::{GroupPrefix, Token};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};

use super::interface::Interface;
use super::lc0::Listeners;
use super::leaf::{Common, LOOKING, LeafEvent, LeafShell, no_link};
use crate::commands::hint;

/// Time from the join of a refused group until the guest ends, if no other one is joined.
const REFUSED: Duration = Duration::from_secs(1);
/// Longest wait for a timer of the listeners.
const WAIT: Duration = Duration::from_secs(1);

/// Messages that the user has had.
#[derive(Debug, Default)]
struct Told {
    looking: bool,
    sent: bool,
    groups: bool,
    room: bool,
    refusal: bool,
}

/// The leaf, and the listeners on its lc0.
#[derive(Debug)]
pub struct Listener {
    leaf: LeafShell,
    common: Arc<Common>,
    listeners: Listeners,
    /// Groups that the token permits.
    prefixes: Vec<GroupPrefix>,
    is_shell: bool,
    /// Groups that programs have joined, and that the token permits.
    joined: BTreeSet<Ipv6Addr>,
    /// A group outside of the token, or that the network does not carry, and the time of its join.
    refused: Option<(Ipv6Addr, Instant)>,
    told: Told,
    /// Since when no link is up.
    alone_since: Option<Instant>,
    was_linked: bool,
}

impl Listener {
    /// Starts the leaf; to be called within a tokio runtime.
    pub async fn start(
        token: Token,
        key: SecretKey,
        (host_interface, proxy): (&str, Option<Proxy>),
        is_shell: bool,
    ) -> anyhow::Result<Self> {
        let prefixes = token.invitation().grant().prefixes.clone();
        let common = Arc::new(Common::new(token, host_interface, proxy).await);
        let now = Instant::now();
        Ok(Self {
            leaf: LeafShell::start(common.clone(), key, "guest").await?,
            common,
            listeners: Listeners::new(now),
            prefixes,
            is_shell,
            joined: BTreeSet::new(),
            refused: None,
            told: Told::default(),
            alone_since: Some(now),
            was_linked: false,
        })
    }

    /// Returns the node.
    pub fn node(&mut self) -> &mut LeafNode<WebRtc> {
        self.leaf.node()
    }

    /// Handles a packet of a program or the kernel.
    pub fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        let node = self.leaf.node();
        let may_send = |group| node.may_send(group);
        if self.listeners.handle_packet(&packet, may_send, now) {
            node.send(packet, now);
        }
    }

    /// Waits for the next input, and handles it. Cancellation loses none.
    pub async fn wait(&mut self) {
        let next = self.listeners.next_timeout();
        let next = next.unwrap_or_else(|| Instant::now() + WAIT);
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {
                self.listeners.handle_timeout(Instant::now());
            }
            () = self.leaf.wait() => {}
        }
    }

    /// Passes on all that is pending: joins to the leaf, packets and queries to lc0.
    pub fn flush(&mut self, device: &mut Interface) -> anyhow::Result<()> {
        for (group, filter) in self.listeners.take_changes() {
            self.change(group, filter);
        }
        while let Some(event) = self.leaf.poll() {
            match event {
                LeafEvent::Packet(packet) => device.queue(packet),
                LeafEvent::Refused(group, reason) => self.handle_refusal(group, reason),
                LeafEvent::Expelled => {
                    return Err(refused(
                        "revoked: the network takes no guest by this token any more; ask for a new one (`lcroute invite --leaf`)",
                    ));
                }
            }
        }
        device.flush();
        for query in self.listeners.take_queries() {
            // while the interface is down nobody listens
            let _ = device.write(&query);
        }
        Ok(())
    }

    /// Changes a group's join; `None`: nobody listens any more.
    fn change(&mut self, group: Ipv6Addr, filter: Option<SourceFilter>) {
        let now = Instant::now();
        let Some(filter) = filter else {
            self.joined.remove(&group);
            self.refused.take_if(|(refused, _)| *refused == group);
            self.leaf.node().part(group, now);
            return;
        };
        if !self.prefixes.iter().any(|prefix| prefix.contains(group)) {
            self.refuse(group);
            return;
        }
        if self.leaf.node().join(group, filter, now) {
            self.joined.insert(group);
        } else if !std::mem::replace(&mut self.told.groups, true) {
            hint(format_args!(
                "{group} is not joined: a guest has {LEAF_GROUPS} groups at most"
            ));
        }
    }

    fn handle_refusal(&mut self, group: Ipv6Addr, reason: RefusalReason) {
        if reason == RefusalReason::NotPermitted {
            self.joined.remove(&group);
            self.refuse(group);
        } else if !std::mem::replace(&mut self.told.room, true) {
            let reason = reason.name();
            hint(format_args!(
                "{group}: the router has no room for it ({reason}); asking again"
            ));
        }
    }

    fn refuse(&mut self, group: Ipv6Addr) {
        if self.is_shell || !self.joined.is_empty() {
            hint(outside(group));
        }
        self.refused.get_or_insert((group, Instant::now()));
    }

    /// Follows the host's addresses, and the token's validity; `lost`: joins may be lost.
    pub async fn look(&mut self, lost: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        if lost {
            self.listeners.query_again(now);
        }
        if let Err(e) = self.leaf.review_addresses() {
            tracing::warn!("addresses of this host: {e:#}");
        }
        if self.common.token.invitation().grant().not_after <= UnixTime::now().as_secs() {
            return Err(refused(
                "the token has expired: ask for a new one (`lcroute invite --leaf`)",
            ));
        }
        if let Some((group, at)) = self.refused
            && at + REFUSED <= now
            && self.joined.is_empty()
            && !self.is_shell
        {
            return Err(refused(&outside(group)));
        }
        if let Some(group) = self.listeners.sent
            && !std::mem::replace(&mut self.told.sent, true)
        {
            let sends = match self.common.token.invitation().grant().uplink {
                true => "a guest sends to the asking groups of its token alone",
                false => "a guest only receives",
            };
            hint(format_args!(
                "what the program sends, to {group} first, goes nowhere: by a leaf's token {sends}"
            ));
        }
        self.tell_state(now)
    }

    /// Ends the links, and logs what was dropped.
    pub fn close(&mut self) {
        self.leaf.close();
        for (reason, count) in self.listeners.drops() {
            tracing::info!(reason, count, "dropped");
        }
    }

    /// Tells the user that no link is up, and that one is up again. Who never had one is refused if
    /// all routers say so; a guest that has heard something waits for room.
    fn tell_state(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.leaf.node().links() > 0 {
            (self.alone_since, self.was_linked) = (None, true);
            let told = &mut self.told;
            if std::mem::take(&mut told.looking) | std::mem::take(&mut told.refusal) {
                hint("linked");
            }
            return Ok(());
        }
        if let Some(refusal) = self.leaf.node().refusal() {
            let message = no_link(refusal);
            if !self.was_linked {
                return Err(refused(message));
            }
            if !std::mem::replace(&mut self.told.refusal, true) {
                hint(format_args!("{message}; trying on"));
            }
            return Ok(());
        }
        let since = *self.alone_since.get_or_insert(now);
        if since + LOOKING > now || std::mem::replace(&mut self.told.looking, true) {
            return Ok(());
        }
        let servers = self.common.token.signal.join(", ");
        if servers.is_empty() {
            hint(
                "looking for a router at the addresses that it has named: does its firewall let this host in?",
            );
        } else if self.leaf.has_server() {
            hint(format_args!(
                "looking for a router: {servers} answers, but no router of the network with room for a leaf is there; does one run, and do both clocks agree?"
            ));
        } else {
            hint(format_args!(
                "looking for a router: {servers} does not answer; does it run, and does this host reach it?"
            ));
        }
        Ok(())
    }
}

fn outside(group: Ipv6Addr) -> String {
    format!("{group}: the token does not let a guest join it, or the network does not carry it")
}

fn refused(message: &str) -> anyhow::Error {
    ExitError::new(Exit::NotPermitted, message).into()
}
