//! Endpoint in the interface of `rtc-dtls`: datagrams, events, one association per peer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc_shared::error::{Error, Result};
use rtc_shared::{EcnCodepoint, TransportContext, TransportMessage, TransportProtocol};

use crate::config::HandshakeConfig;
use crate::connection::{Connection, Said};
use crate::state::State;

/// Event of an association.
#[derive(Debug)]
#[non_exhaustive]
pub enum EndpointEvent {
    /// The handshake is over: data can be written, and SRTP has keys.
    HandshakeComplete,
    /// Plaintext of a record.
    ApplicationData(BytesMut),
    /// The peer has closed the association.
    PeerClosed,
}

/// Endpoint of associations.
pub struct Endpoint {
    local_addr: SocketAddr,
    protocol: TransportProtocol,
    server: Option<Arc<HandshakeConfig>>,
    connections: BTreeMap<SocketAddr, Connection>,
    transmits: VecDeque<TransmitMessage>,
}

type TransmitMessage = TransportMessage<BytesMut>;

impl Endpoint {
    /// Makes an endpoint; without `server` it accepts no handshakes.
    #[must_use]
    pub fn new(
        local_addr: SocketAddr,
        protocol: TransportProtocol,
        server: Option<Arc<HandshakeConfig>>,
    ) -> Self {
        Self {
            local_addr,
            protocol,
            server,
            connections: BTreeMap::new(),
            transmits: VecDeque::new(),
        }
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<TransmitMessage> {
        self.transmits.pop_front()
    }

    /// Returns the peers with associations.
    pub fn get_connections_keys(&self) -> impl Iterator<Item = &SocketAddr> {
        self.connections.keys()
    }

    /// Returns the state of the handshake with a peer.
    #[must_use]
    pub fn get_connection_state(&self, remote: SocketAddr) -> Option<&State> {
        Some(&self.connections.get(&remote)?.state)
    }

    /// Begins a handshake, at most one with each peer.
    ///
    /// # Errors
    ///
    /// The certificate is unusable.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        config: Arc<HandshakeConfig>,
        _: Option<State>,
    ) -> Result<()> {
        if self.connections.contains_key(&remote) {
            return Ok(());
        }
        let mut connection = Connection::new(config, true, now)?;
        let said = connection.poll(now)?;
        self.connections.insert(remote, connection);
        self.take(remote, said, now);
        Ok(())
    }

    /// Handles a datagram.
    ///
    /// # Errors
    ///
    /// It is invalid; the association continues, or has ended.
    pub fn read(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        _: Option<EcnCodepoint>,
        datagram: BytesMut,
    ) -> Result<Vec<EndpointEvent>> {
        if !self.connections.contains_key(&remote) {
            let config = self.server.clone().ok_or(Error::NoServerConfig)?;
            let connection = Connection::new(config, false, now)?;
            self.connections.insert(remote, connection);
        }
        let connection = self.connections.get_mut(&remote);
        let said = connection
            .ok_or(Error::ErrConnClosed)?
            .read(&datagram, now)?;
        Ok(self.take(remote, said, now))
    }

    /// Seals and sends plaintext.
    ///
    /// # Errors
    ///
    /// There is no association, or its handshake is not over.
    pub fn write(&mut self, now: Instant, remote: SocketAddr, plain: &[u8]) -> Result<()> {
        let connection = self.connections.get_mut(&remote);
        let said = connection
            .ok_or(Error::InvalidRemoteAddress(remote))?
            .write(plain, now)?;
        self.take(remote, said, now);
        Ok(())
    }

    /// Closes all associations, and notifies the peers.
    ///
    /// # Errors
    ///
    /// None.
    pub fn close(&mut self, now: Instant) -> Result<()> {
        for (remote, mut connection) in std::mem::take(&mut self.connections) {
            if let Ok(said) = connection.close(now) {
                self.take(remote, said, now);
            }
        }
        Ok(())
    }

    /// Runs the due timers.
    ///
    /// # Errors
    ///
    /// A handshake has timed out.
    pub fn handle_timeout(&mut self, remote: SocketAddr, now: Instant) -> Result<()> {
        if let Some(connection) = self.connections.get_mut(&remote) {
            let said = connection.handle_timeout(now)?;
            self.take(remote, said, now);
        }
        Ok(())
    }

    /// Returns the time of the next timer.
    #[must_use]
    pub fn poll_timeout(&self, remote: &SocketAddr) -> Option<Instant> {
        self.connections.get(remote)?.timeout()
    }

    fn take(&mut self, remote: SocketAddr, said: Said, now: Instant) -> Vec<EndpointEvent> {
        for message in said.packets {
            self.transmits.push_back(TransportMessage {
                now,
                transport: TransportContext {
                    local_addr: self.local_addr,
                    peer_addr: remote,
                    ecn: None,
                    transport_protocol: self.protocol,
                },
                message,
            });
        }
        let mut events = Vec::new();
        if said.completed {
            events.push(EndpointEvent::HandshakeComplete);
        }
        let plain = said.plain.into_iter();
        events.extend(plain.map(EndpointEvent::ApplicationData));
        if said.peer_closed {
            self.connections.remove(&remote);
            events.push(EndpointEvent::PeerClosed);
        }
        events
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}
