//! Signalling servers of a tab: the page has the WebSockets.

use std::collections::VecDeque;
use std::sync::Arc;

use lcroute_overlay::Presence;
use lcroute_overlay::proof::RelayRequest;
use lcroute_overlay::server::{Role, Room, ToNode, ToServer};
use librecast::id::{PeerId, SecretKey};
use serde::Serialize;

use crate::command::Command;
use crate::visit::Visit;

/// All servers, by their numbers.
#[derive(Debug)]
pub struct Servers {
    urls: Vec<String>,
    states: Vec<Server>,
    room: Room,
    key: Arc<SecretKey>,
    role: Role,
}

#[derive(Debug, Default)]
struct Server {
    is_connected: bool,
    refused: Option<String>,
}

/// A server's message for the node.
#[derive(Debug)]
pub enum ServerEvent {
    /// A report about the server or another node.
    Presence(Presence),
    /// A sealed message.
    Signal {
        /// The node whose connection it came by.
        from: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// State of a server, for the page.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    url: String,
    connected: bool,
    refused: Option<String>,
}

impl Servers {
    pub fn new(visit: &Visit, role: Role) -> Self {
        Self {
            urls: visit.servers.clone(),
            states: visit.servers.iter().map(|_| Server::default()).collect(),
            room: Room::of(&visit.network),
            key: visit.key.clone(),
            role,
        }
    }

    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    pub fn contains(&self, number: u32) -> bool {
        (number as usize) < self.states.len()
    }

    /// Handles an opened or closed WebSocket. True: a server that answered is gone.
    pub fn handle_socket(&mut self, number: u32, is_open: bool) -> bool {
        let Some(server) = self.states.get_mut(number as usize) else {
            return false;
        };
        let was = server.is_connected;
        // an open socket is not enough: the server sends the first message
        server.is_connected &= is_open;
        was && !is_open
    }

    /// Handles the end of all WebSockets; returns the servers that answered.
    pub fn leave(&mut self) -> Vec<u32> {
        let connected = self.states.iter_mut().zip(0..);
        let left = connected.filter_map(|(server, number)| {
            std::mem::take(&mut server.is_connected).then_some(number)
        });
        left.collect()
    }

    /// Handles a message of a server. Answers are commands.
    pub fn handle_message(
        &mut self,
        number: u32,
        message: &[u8],
        commands: &mut VecDeque<Command>,
    ) -> Option<ServerEvent> {
        let server = self.states.get_mut(number as usize)?;
        let refused = match ToNode::decode(message) {
            Ok(ToNode::Challenge(challenge)) => {
                let register = ToServer::register(&self.key, self.room, self.role, &challenge);
                commands.push_back(Command::Server(number, register.encode()));
                if self.role == Role::Router {
                    let ask = RelayRequest::Ask.encode();
                    commands.push_back(Command::ServerText(number, ask));
                }
                (server.is_connected, server.refused) = (true, None);
                return Some(ServerEvent::Presence(Presence::CarrierUp));
            }
            Ok(ToNode::Present(peer)) => {
                return Some(ServerEvent::Presence(Presence::Online(peer)));
            }
            Ok(ToNode::Gone(peer)) => return Some(ServerEvent::Presence(Presence::Offline(peer))),
            Ok(ToNode::Deliver { from, bytes }) => {
                return Some(ServerEvent::Signal { from, bytes });
            }
            Ok(ToNode::Relay {
                lifetime,
                credentials,
            }) => {
                commands.push_back(Command::Relay(number, lifetime, credentials));
                return None;
            }
            Ok(ToNode::Refused(why)) => why,
            Ok(ToNode::In { .. }) => "it speaks of rooms that this node has not entered".to_owned(),
            Err(e) => format!("it does not speak as a signalling server: {e}"),
        };
        server.refused = Some(refused.clone());
        commands.push_back(Command::ServerRefused(number, refused));
        None
    }

    /// Sends a sealed message over every connected server.
    pub fn send(&self, to: PeerId, bytes: Vec<u8>, commands: &mut VecDeque<Command>) {
        let message = ToServer::Send { to, bytes }.encode();
        let connected = self.states.iter().zip(0..).filter(|(s, _)| s.is_connected);
        commands.extend(connected.map(|(_, number)| Command::Server(number, message.clone())));
    }

    pub fn status(&self) -> Vec<ServerStatus> {
        let servers = self.urls.iter().zip(&self.states);
        let status = servers.map(|(url, server)| ServerStatus {
            url: url.clone(),
            connected: server.is_connected,
            refused: server.refused.clone(),
        });
        status.collect()
    }
}
