//! One DTLS association.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dimpl::{Dtls, DtlsCertificate, Error as DtlsError, Output, UnexpectedMessageError};
use rtc_shared::error::{Error, Result};

use crate::clear::{Needs, is_worth_a_look};
use crate::config::HandshakeConfig;
use crate::observer::SrtpKeys;
use crate::state::State;

/// Initial buffer for output in bytes; longer records make it grow.
const BUFFER_BYTES: usize = 2_048;
/// Timers beyond this are none: `dimpl` uses ten years.
const NEVER: Duration = Duration::from_secs(86_400);

/// One DTLS association.
pub(crate) struct Connection {
    dtls: Dtls,
    config: Arc<HandshakeConfig>,
    pub(crate) state: State,
    timeout: Option<Instant>,
    buffer: Vec<u8>,
    /// Whether the handshake is over.
    connected: bool,
    /// Whether the caller has been notified.
    reported: bool,
    /// Whether it is unusable.
    dead: bool,
}

/// Output of a connection.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) packets: Vec<BytesMut>,
    pub(crate) plain: Vec<BytesMut>,
    pub(crate) completed: bool,
    pub(crate) peer_closed: bool,
}

impl Connection {
    pub(crate) fn new(config: Arc<HandshakeConfig>, is_client: bool, now: Instant) -> Result<Self> {
        let dtls = begin(&config, is_client, now)?;
        Ok(Self {
            dtls,
            config,
            state: State::new(is_client),
            timeout: None,
            buffer: vec![0; BUFFER_BYTES],
            connected: false,
            reported: false,
            dead: false,
        })
    }

    /// Calls `dimpl`, which is unusable after an error.
    fn call<R>(
        &mut self,
        call: impl FnOnce(&mut Dtls) -> std::result::Result<R, DtlsError>,
    ) -> Result<R> {
        if self.dead {
            return Err(Error::ErrConnClosed);
        }
        match call(&mut self.dtls) {
            Ok(value) => Ok(value),
            // before the first answer a client checks only its version, and stays unchanged
            Err(DtlsError::UnexpectedMessage(
                UnexpectedMessageError::UnrecognizedAutoServerResponse,
            )) => Err(Error::Other("no answer to a hello".to_owned())),
            Err(error) => {
                self.dead = true;
                Err(Error::Other(error.to_string()))
            }
        }
    }

    pub(crate) fn read(&mut self, datagram: &[u8], now: Instant) -> Result<Said> {
        let needs = Needs {
            is_client: self.state.is_client,
            version: self.dtls.protocol_version(),
        };
        if !is_worth_a_look(datagram, needs) {
            return Err(Error::Other(
                "a record that anybody may have written".to_owned(),
            ));
        }
        self.call(|dtls| dtls.handle_timeout(now))?;
        let awaits_hello = !needs.is_client && needs.version.is_none();
        if let Err(error) = self.call(|dtls| dtls.handle_packet(datagram)) {
            // an invalid hello leaves no state: the next one may be the peer's
            if awaits_hello {
                self.dtls = begin(&self.config, false, now)?;
                self.dead = false;
            }
            return Err(error);
        }
        self.poll(now)
    }

    pub(crate) fn write(&mut self, plain: &[u8], now: Instant) -> Result<Said> {
        if !self.connected {
            return Err(Error::ErrHandshakeInProgress);
        }
        self.call(|dtls| dtls.handle_timeout(now))?;
        let mut copy;
        let plain = match &self.config.certificate.observer {
            None => plain,
            Some(observer) => {
                copy = plain.to_vec();
                observer.seal(&mut copy);
                &copy
            }
        };
        self.call(|dtls| dtls.send_application_data(plain))?;
        self.poll(now)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<Said> {
        if self.timeout.is_some_and(|at| at > now) {
            return Ok(Said::default());
        }
        self.call(|dtls| dtls.handle_timeout(now))?;
        self.poll(now)
    }

    pub(crate) fn close(&mut self, now: Instant) -> Result<Said> {
        self.call(Dtls::close)?;
        self.poll(now)
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.timeout.filter(|_| !self.dead)
    }

    /// Drains the output of `dimpl`.
    pub(crate) fn poll(&mut self, now: Instant) -> Result<Said> {
        let mut said = Said::default();
        loop {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(packet) => said.packets.push(BytesMut::from(packet)),
                Output::BufferTooSmall { needed } => self.buffer.resize(needed, 0),
                Output::Timeout(at) => {
                    self.timeout = Some(at).filter(|at| *at < now + NEVER);
                    break;
                }
                Output::Connected => self.connected = true,
                Output::PeerCert(der) => {
                    let chain = vec![der.to_vec()];
                    if let Some(verify) = &self.config.verify
                        && let Err(error) = verify(&chain, &[])
                    {
                        self.dead = true;
                        return Err(error);
                    }
                    self.state.peer_certificates = chain;
                }
                Output::KeyingMaterial(material, profile) => self.state.keep(&material, profile),
                Output::ApplicationData(plain) => {
                    // data before the certificate is verified does not count
                    let is_known = self.connected && !self.state.peer_certificates.is_empty();
                    let observer = self.config.certificate.observer.as_ref();
                    if is_known && observer.is_none_or(|observer| observer.admits(plain)) {
                        said.plain.push(BytesMut::from(plain));
                    }
                }
                Output::CloseNotify => said.peer_closed = true,
                _ => {}
            }
        }
        if self.connected && !self.reported {
            self.complete(&mut said)?;
        }
        Ok(said)
    }

    fn complete(&mut self, said: &mut Said) -> Result<()> {
        if self.state.peer_certificates.is_empty() {
            self.dead = true;
            return Err(Error::ErrNonCertificate);
        }
        self.reported = true;
        said.completed = true;
        self.state.version = self.dtls.protocol_version();
        if let (Some(observer), Some((profile, material)), Some(version)) = (
            &self.config.certificate.observer,
            &self.state.srtp,
            self.state.version,
        ) {
            observer.handle_keys(&SrtpKeys {
                version,
                profile: *profile,
                material,
                is_client: self.state.is_client,
            });
        }
        Ok(())
    }
}

/// Begins a handshake with `dimpl`.
fn begin(config: &HandshakeConfig, is_client: bool, now: Instant) -> Result<Dtls> {
    let der = config.certificate.certificate.first();
    let key = config.certificate.key.as_ref();
    let (Some(der), Some(key)) = (der, key) else {
        return Err(Error::ErrNonCertificate);
    };
    let certificate = DtlsCertificate {
        certificate: der.to_vec(),
        private_key: key.as_ref().as_ref().to_vec(),
    };
    let mut dtls = Dtls::new_auto(config.dtls.clone(), certificate, now);
    if is_client {
        dtls.set_active(true);
    }
    dtls.handle_timeout(now)
        .map_err(|error| Error::Other(error.to_string()))?;
    Ok(dtls)
}
