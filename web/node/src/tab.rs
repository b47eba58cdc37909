//! A tab of a network: the common part of a member and a leaf.

use std::collections::VecDeque;

use bytes::Bytes;
use lcroute_overlay::Presence;
use librecast::id::LinkId;
use librecast::time::{Instant, UnixTime};

use crate::command::Command;
use crate::connections::{Channel, PageConnections, Stats};
use crate::servers::{ServerEvent, Servers};

/// A node in a page. Its owner executes [`Tab::poll_command`] after each other call, and calls
/// [`Tab::handle_timeout`] at [`Tab::next_timeout`].
pub trait Tab: std::fmt::Debug {
    /// The signalling servers, and the commands to which their messages add.
    fn servers_mut(&mut self) -> (&mut Servers, &mut VecDeque<Command>);

    /// The JSON to store for a reload.
    fn to_keep(&self) -> String;

    /// Runs the timers that are due.
    fn handle_timeout(&mut self, now: Instant, time: UnixTime);

    /// When [`Self::handle_timeout`] is due.
    fn next_timeout(&mut self) -> Instant;

    /// Returns the next command for the page.
    fn poll_command(&mut self) -> Option<Command> {
        self.servers_mut().1.pop_front()
    }

    /// Leaves the network, and informs all peers.
    fn leave_network(&mut self, now: Instant);

    /// Passes a server's event to the node.
    fn handle_server_event(&mut self, number: u32, event: ServerEvent, now: Instant);

    /// Handles an opened or closed WebSocket to a server.
    fn handle_server(&mut self, number: u32, is_open: bool, now: Instant) {
        if self.servers_mut().0.handle_socket(number, is_open) {
            let down = ServerEvent::Presence(Presence::CarrierDown);
            self.handle_server_event(number, down, now);
        }
        self.settle(now);
    }

    /// Handles a message of a server.
    fn handle_server_message(&mut self, number: u32, message: &[u8], now: Instant) {
        let (servers, commands) = self.servers_mut();
        if let Some(event) = servers.handle_message(number, message, commands) {
            self.handle_server_event(number, event, now);
        }
        self.settle(now);
    }

    /// Handles a server's text about its relay.
    fn handle_server_text(&mut self, number: u32, word: &str, now: Instant);

    /// The connections, for a report of the browser; [`Self::settle`] follows.
    fn connections_mut(&mut self) -> &mut PageConnections;

    /// Executes all outputs of the node and its connections.
    fn settle(&mut self, now: Instant);

    /// Joins a group.
    fn join(&mut self, group: &str, now: Instant) -> Result<(), String>;

    /// Leaves a group.
    ///
    /// # Errors
    /// It is not a group.
    fn leave(&mut self, group: &str, now: Instant) -> Result<(), String>;

    /// Sends a datagram to a group.
    ///
    /// # Errors
    /// It is not a group, this node may not send to it, or the datagram is too long.
    fn send(&mut self, to: (&str, u16), data: &[u8], now: Instant) -> Result<(), String>;

    /// Passes a query of MLD from a module that serves groups; a leaf serves none.
    fn query(&mut self, _packet: &[u8], _now: Instant) {}

    /// Begins or stops to request reports of other nodes.
    fn set_looks(&mut self, looks: bool, now: Instant);

    /// The state as JSON.
    fn status(&mut self, now: Instant) -> String;
}

impl dyn Tab + '_ {
    /// Passes a report on a connection.
    pub fn handle_connection(&mut self, now: Instant, tell: impl FnOnce(&mut PageConnections)) {
        tell(self.connections_mut());
        self.settle(now);
    }

    /// Handles a message of a peer.
    pub fn handle_message(&mut self, link: LinkId, channel: Channel, message: Bytes, now: Instant) {
        self.handle_connection(now, |c| c.handle_message(link, channel, message, now));
    }

    /// Handles the state of a connection.
    pub fn handle_stats(&mut self, link: LinkId, stats: Stats, now: Instant) {
        self.handle_connection(now, |c| c.handle_stats(link, stats, now));
    }
}
