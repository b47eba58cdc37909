//! One WebRTC peer connection: ICE, DTLS, SCTP and the two channels, without any notion of the
//! peer's identity. The crate `rtc` has the protocols; this module works around its traps. All
//! calls into it are fenced: a panic ends the connection.
//!
//! ```text
//! offer() ------ description ------> answer()
//! accept() <---- description --------
//!          ICE checks, DTLS (the answerer is its client), SCTP, channels open
//! Notice::Open on both sides; then messages; Notice::Closed at the end
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use lcroute_overlay::{
    Candidate, CandidateKind, Description, EndReason, Fingerprint, PathKind, Role, SdpKind,
    SendError, TRACK_TYPES, credentials_of,
};
use librecast::time::{Duration, Instant, UnixTime};
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider, SignatureScheme};
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::setting_engine::{SettingEngine, SettingEngineBuilder};
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::{RTCIceConnectionState, RTCPeerConnectionState};
use rtc::peer_connection::transport::{RTCIceCandidate, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use thiserror::Error;

use crate::config::{ROUTED_QUEUE, WebRtcConfig};
use crate::datagram::Transmit;
use crate::fence::{Fenced, Panic, fenced};
use crate::media::{KeyTap, LinkKeys, TrackKeys};
use crate::pace::{EVEN, FAST, StackClock};
use crate::repeats::Repeats;
use crate::stun::{Credentials, dressed};

/// Protocol names of the channels; a version follows the first.
const CONTROL_PROTOCOL: &str = "/lcroute/control/";
const DATA_PROTOCOL: &str = "/lcroute/data/1";
/// Longest message in bytes, as our descriptions announce.
const MAX_MESSAGE: usize = 65_536;
/// Bound of remote candidates: those of the description, and as many later ones.
const MAX_REMOTE_CANDIDATES: usize = 32;
/// Bound of SCTP packets in bytes: DTLS adds 37, UDP and IPv6 48, so 1,273 fit every IPv6 path.
const SCTP_MTU: u32 = 1_188;
/// Interval of ICE checks of a pair. Chosen: RFC 8445 14.2 has 50 ms for all pairs.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Checks until a pair fails: 20 s. A closed firewall opens only when both sides have sent, the
/// slower one after it has the answer. Chosen.
const MAX_CHECKS: u16 = 200;
/// Time for a direct path before a relayed one. Chosen: three checks and a long round trip.
const RELAY_WAIT: Duration = Duration::from_millis(700);
/// SCTP's receive window: 4 MiB carry 1.6 Gbit/s over 20 ms.
const RECEIVE_BUFFER: u32 = 4 << 20;

/// Subject of the certificate, as in Chromium's.
const SUBJECT: &str = "WebRTC";
/// A day. Chromium's certificates are valid for 31, from the day before on.
const DAY: Duration = Duration::from_secs(86_400);
/// Validity of the certificate in days. From a capture.
const CERTIFICATE_DAYS: u32 = 31;
/// Bytes of the certificate's serial number. From a capture.
const SERIAL: usize = 8;
/// Time until which the stack accepts our own certificate. A daemon outlives the certificate's
/// validity, and peers check its fingerprint alone. Chosen.
const OWN_USE: Duration = Duration::from_secs(1 << 34);

type StackError = rtc::shared::error::Error;
type StackResult<T> = std::result::Result<T, StackError>;
type Result<T> = std::result::Result<T, Error>;

/// Reason why a connection cannot be made.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Stack(#[from] StackError),
    /// `proven`: the panic came from data that the peer has sent.
    #[error("the WebRTC stack panicked: {panic}")]
    Panicked { panic: Panic, proven: bool },
}

impl From<Panic> for Error {
    fn from(panic: Panic) -> Self {
        Self::Panicked {
            panic,
            proven: false,
        }
    }
}

/// State that all connections of a process share.
pub(crate) struct Factory {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: RTCCertificate,
    fingerprint: Fingerprint,
    pub(crate) control: u8,
    media: bool,
    /// Whether the seed of a connection decides the public randomness of its DTLS.
    reproducible: bool,
    data_queue: usize,
    control_queue: usize,
}

/// Addresses of this end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) hosts: &'a [SocketAddr],
    pub(crate) mapped: Option<SocketAddr>,
    pub(crate) reflexive: &'a [SocketAddr],
    pub(crate) relayed: Option<SocketAddr>,
}

/// Notification for the owner of a connection.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Both channels are open.
    Open,
    Control(Bytes),
    Data(Bytes),
    Path {
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// The far side offers another version of control messages.
    OtherControl(u8),
    /// This number of SCTP packets was not passed to the stack.
    LeftOut(u32),
    Closed(EndReason),
}

/// The channels of a link: the offerer opens `control`, and each side opens the `data` channel it
/// sends on. (An SCTP stream is unidirectional. A channel that `rtc` accepts sends reliably and in
/// order whatever the peer requested, so neither side sends data on an accepted one.)
#[derive(Debug)]
struct Channels {
    control: Option<RTCDataChannelId>,
    data_out: RTCDataChannelId,
    data_in: Option<RTCDataChannelId>,
    control_open: bool,
    data_out_open: bool,
}

pub(crate) struct PeerConnection {
    pc: Fenced<RTCPeerConnection>,
    clock: StackClock,
    role: Role,
    channels: Channels,
    opened: bool,
    /// Whether DTLS has output that only a timeout brings out.
    kick: bool,
    keys: Arc<KeyTap>,
    provider: Arc<dyn RTCCryptoProvider>,
    control: u8,
    /// Whether each side offers the media lane.
    media: [bool; 2],
    /// Whether the peer accepts control messages in the lane; this node does.
    lane_control: bool,
    /// Payload type of the track that the peer takes.
    track: Option<u8>,
    repeats: Repeats,
    repeated: Vec<Transmit>,
    /// Time of the last sent or received datagram.
    used: Instant,
    credentials: Credentials,
    hosts: Vec<SocketAddr>,
    /// Our address at a relay, if the description has one.
    relayed: Option<SocketAddr>,
    /// The remote candidates.
    remote: Vec<Candidate>,
    path: Option<(SocketAddr, SocketAddr)>,
    data_queue: usize,
    control_queue: usize,
    /// Whether the current call handles a description; its sender is proven.
    describing: bool,
}

impl Factory {
    /// Makes the DTLS certificate of this process: ECDSA P-256.
    pub(crate) fn new(config: &WebRtcConfig) -> Result<Self> {
        let provider =
            rtc::crypto::default_provider().map_err(|e| StackError::Crypto(e.to_string()))?;
        let certificate = certificate(provider.as_ref(), config.unix_now)?;
        let der = certificate
            .dtls_certificate
            .certificate
            .first()
            .ok_or(StackError::ErrNonCertificate)?;
        let fingerprint = sha256(provider.as_ref(), der)?;
        Ok(Self {
            provider,
            certificate,
            fingerprint,
            control: config.control,
            media: config.media,
            reproducible: config.reproducible,
            data_queue: config.limits.data_queue,
            control_queue: config.limits.control_queue,
        })
    }

    pub(crate) fn provider(&self) -> &dyn RTCCryptoProvider {
        self.provider.as_ref()
    }

    fn settings(&self) -> SettingEngine {
        SettingEngineBuilder::new()
            .with_crypto_provider(self.provider.clone())
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            // the overlay has its own timers: ICE neither fails nor sends keepalives by itself
            .with_ice_timeouts(
                Some(Duration::ZERO),
                Some(Duration::ZERO),
                Some(Duration::ZERO),
            )
            .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(MAX_CHECKS))
            .with_host_acceptance_min_wait(Some(Duration::ZERO))
            .with_srflx_acceptance_min_wait(Some(Duration::from_millis(200)))
            .with_prflx_acceptance_min_wait(Some(Duration::from_millis(300)))
            .with_relay_acceptance_min_wait(Some(RELAY_WAIT))
            .with_discard_local_candidates_during_ice_restart(true)
            .with_sctp_max_receive_buffer_size(RECEIVE_BUFFER)
            .with_sctp_mtu(SCTP_MTU)
            .build()
    }

    fn connection(
        &self,
        role: Role,
        own: &Own<'_>,
        seed: u64,
        now: Instant,
    ) -> Result<PeerConnection> {
        let keys = Arc::new(KeyTap::new(self.reproducible.then_some(seed)));
        let mut certificate = self.certificate.clone();
        certificate.dtls_certificate = certificate.dtls_certificate.observed_by(keys.clone());
        let configuration = RTCConfigurationBuilder::new()
            .with_certificates(vec![certificate])
            .build();
        let stack = RTCPeerConnectionBuilder::new()
            .with_configuration(configuration)
            .with_setting_engine(self.settings());
        let mut pc = Fenced::new(fenced(|| stack.build(now))??);
        let control = RTCDataChannelInit {
            protocol: format!("{CONTROL_PROTOCOL}{}", self.control),
            ..Default::default()
        };
        let data = RTCDataChannelInit {
            ordered: false,
            max_retransmits: Some(0),
            protocol: DATA_PROTOCOL.to_owned(),
            ..Default::default()
        };
        let mut create = |name, init| {
            let id = pc.call(|pc| Ok(pc.create_data_channel(name, Some(init))?.id()))?;
            id.map_err(Error::Stack)
        };
        let control = match role {
            Role::Offerer => Some(create("control", control)?),
            Role::Answerer => None,
        };
        let channels = Channels {
            control,
            data_out: create("data", data)?,
            data_in: None,
            control_open: false,
            data_out_open: false,
        };
        Ok(PeerConnection {
            pc,
            clock: StackClock::new(now),
            role,
            channels,
            opened: false,
            kick: false,
            keys,
            provider: self.provider.clone(),
            control: self.control,
            media: [self.media, false],
            lane_control: false,
            track: None,
            repeats: Repeats::default(),
            repeated: Vec::new(),
            used: now,
            credentials: Credentials::default(),
            hosts: own.hosts.to_vec(),
            relayed: own.relayed,
            remote: Vec::new(),
            path: None,
            data_queue: self.data_queue,
            control_queue: self.control_queue,
            describing: false,
        })
    }

    pub(crate) fn offer(
        &self,
        own: &Own<'_>,
        seed: u64,
        now: Instant,
    ) -> Result<(PeerConnection, Description)> {
        let mut connection = self.connection(Role::Offerer, own, seed, now)?;
        connection.describe_offer(now)?;
        let description = connection.description(self.fingerprint, own);
        Ok((connection, description))
    }

    /// Makes a new connection for an offer, and the answer.
    pub(crate) fn answer(
        &self,
        offer: &Description,
        own: &Own<'_>,
        seed: u64,
        now: Instant,
    ) -> Result<(PeerConnection, Description)> {
        let mut connection = self.connection(Role::Answerer, own, seed, now)?;
        connection.describe_answer(offer, now)?;
        let description = connection.description(self.fingerprint, own);
        Ok((connection, description))
    }

    /// Restarts ICE (RFC 8445, section 9) with other local addresses; DTLS and the channels stay.
    pub(crate) fn restart_offer(
        &self,
        connection: &mut PeerConnection,
        own: &Own<'_>,
        now: Instant,
    ) -> Result<Description> {
        connection.begin_restart(own, now);
        connection.stack(|pc| {
            pc.restart_ice();
            Ok(())
        })?;
        connection.describe_offer(now)?;
        Ok(connection.description(self.fingerprint, own))
    }

    /// Answers the offer of the peer's [`Self::restart_offer`].
    pub(crate) fn restart_answer(
        &self,
        connection: &mut PeerConnection,
        offer: &Description,
        own: &Own<'_>,
        now: Instant,
    ) -> Result<Description> {
        connection.begin_restart(own, now);
        connection.describe_answer(offer, now)?;
        Ok(connection.description(self.fingerprint, own))
    }
}

librecast::debug_by_name!(Factory);

impl PeerConnection {
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(crate) fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.path
    }

    /// Returns the kind of the peer's address; a relay if either end is at one.
    pub(crate) fn path_kind(&self) -> Option<PathKind> {
        let (local, remote) = self.path?;
        let told = self.remote.iter().find(|c| c.addr == remote);
        Some(match told.map(|candidate| candidate.kind) {
            _ if self.relayed == Some(local) => PathKind::Relay,
            Some(CandidateKind::Relayed) => PathKind::Relay,
            Some(CandidateKind::Host) => PathKind::Host,
            Some(CandidateKind::Mapped) => PathKind::Mapped,
            Some(CandidateKind::ServerReflexive) | None => PathKind::Reflexive,
        })
    }

    /// Returns our relayed address, if the peer knows it.
    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    pub(crate) fn remote_addresses(&self) -> impl Iterator<Item = SocketAddr> + use<'_> {
        self.remote.iter().map(|candidate| candidate.addr)
    }

    /// Prepares a restart: a path over a relay serves meanwhile; any other is lost already.
    fn begin_restart(&mut self, own: &Own<'_>, now: Instant) {
        self.clock.set_pace(EVEN, now);
        if self.path_kind() != Some(PathKind::Relay) {
            self.path = None;
        }
        self.hosts = own.hosts.to_vec();
        self.relayed = own.relayed;
    }

    /// Returns the keys of the media lane, if both sides offer it and DTLS has made them.
    pub(crate) fn media_keys(&self) -> Option<LinkKeys> {
        (self.media == [true; 2]).then(|| self.keys.keys())?
    }

    /// Returns the keys and the payload type of a track, if the peer is a page that takes one.
    pub(crate) fn track(&self) -> Option<(TrackKeys, u8)> {
        let payload_type = self.track.filter(|_| self.media == [true, false])?;
        Some((self.keys.track_keys()?, payload_type))
    }

    /// Whether control messages travel in the media lane.
    pub(crate) fn lane_carries_control(&self) -> bool {
        self.media == [true; 2] && self.lane_control
    }

    /// Whether our offer has no answer yet.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.credentials.remote_ufrag.is_empty()
    }

    pub(crate) fn accept(&mut self, answer: &Description, now: Instant) -> Result<()> {
        self.set_remote(answer);
        self.set_lanes(answer);
        let sdp = answer.to_sdp(SdpKind::Answer);
        self.describing = true;
        let at = self.clock.at(now);
        self.stack(|pc| pc.set_remote_description(at, RTCSessionDescription::answer(sdp)?))?;
        self.describing = false;
        Ok(())
    }

    pub(crate) fn add_remote(&mut self, candidates: &[Candidate]) -> Result<()> {
        for candidate in candidates {
            let rank = self.remote.len();
            if rank >= MAX_REMOTE_CANDIDATES || self.remote.contains(candidate) {
                continue;
            }
            self.remote.push(*candidate);
            let init = RTCIceCandidateInit {
                candidate: candidate.to_attribute(rank),
                ..RTCIceCandidateInit::default()
            };
            self.describing = true;
            let added = self.stack(|pc| pc.add_remote_candidate(init));
            self.describing = false;
            added?;
        }
        Ok(())
    }

    /// Returns the SHA-256 of the peer's DTLS certificate.
    pub(crate) fn remote_fingerprint(&mut self, factory: &Factory) -> Option<Fingerprint> {
        let chain = self.pc.call(|pc| {
            let sctp = pc.sctp()?;
            Some(sctp.transport().get_remote_certificates().to_vec())
        });
        sha256(factory.provider(), chain.ok()??.first()?).ok()
    }

    /// Returns the panic that ended it, and whether the peer caused it: the last input was a record
    /// of its DTLS session, or a description. Anybody may forge other input.
    pub(crate) fn panic(&self) -> Option<(Panic, bool)> {
        let panic = self.pc.panic()?.clone();
        Some((panic, self.describing || self.keys.has_opened()))
    }

    /// Passes the SCTP packets that it sends through `forge`.
    #[cfg(test)]
    pub(crate) fn forge(&self, forge: crate::media::Forge) {
        self.keys.forge(forge);
    }

    /// Passes all SCTP packets of the peer to the stack.
    #[cfg(test)]
    pub(crate) fn unwatch(&self) {
        self.keys.unwatch();
    }

    #[cfg(test)]
    pub(crate) fn panic_for_test(&mut self) {
        let _ = self.pc.call(|_| panic!("as a test wants it"));
    }

    fn stack<R>(
        &mut self,
        call: impl FnOnce(&mut RTCPeerConnection) -> StackResult<R>,
    ) -> Result<R> {
        let proven = self.describing;
        let result = self.pc.call(call);
        Ok(result.map_err(|panic| Error::Panicked { panic, proven })??)
    }

    /// Handles a datagram from `from` that belongs to this connection.
    pub(crate) fn handle_datagram(
        &mut self,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(local_addr) = self.local_candidate(to_local, from) else {
            return;
        };
        self.used = now;
        let transport = TransportContext {
            local_addr,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        if self.pc.panic().is_some() {
            return;
        }
        self.keys.forget_opened();
        let message = TaggedBytesMut {
            now: self.clock.at(now),
            transport,
            message: BytesMut::from(datagram),
        };
        // its errors concern single packets, and it has logged them
        let _ = self.pc.call(|pc| pc.handle_read(message));
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let at = self.clock.at(now);
        let _ = self.pc.call(|pc| pc.handle_timeout(at));
        self.repeated.extend(self.repeats.repeat(now));
    }

    /// Returns the time of the last sent or received datagram.
    pub(crate) fn used(&self) -> Instant {
        self.used
    }

    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        let stack = self.poll(Protocol::poll_timeout);
        let stack = stack.map(|at| self.clock.host_at(at));
        [stack, self.repeats.deadline()].into_iter().flatten().min()
    }

    /// Drains notices and datagrams of the connection; after a panic, one notice of its end.
    pub(crate) fn drain(
        &mut self,
        notices: &mut Vec<Notice>,
        transmits: &mut VecDeque<Transmit>,
        now: Instant,
    ) {
        // pending output first: the ClientHello that the nomination causes must not overtake the
        // answer to the nominating check, or the peer drops it for a second
        self.drain_writes(transmits, now);
        self.drain_events(notices);
        while let Some(TaggedRTCMessage { message, .. }) = self.poll(Protocol::poll_read) {
            let RTCMessage::DataChannelMessage(channel, message) = message else {
                continue;
            };
            if !self.channels.knows(channel) {
                self.drain_events(notices);
            }
            let bytes = message.data.freeze();
            if self.channels.control == Some(channel) {
                notices.push(Notice::Control(bytes));
            } else if self.channels.data_in == Some(channel) {
                notices.push(Notice::Data(bytes));
            }
        }
        if std::mem::take(&mut self.kick) {
            self.handle_timeout(now);
        }
        self.drain_writes(transmits, now);
        if self.pc.panic().is_some() {
            notices.clear();
            notices.push(Notice::Closed(EndReason::StackPanicked));
        } else {
            self.keys.forget_opened();
            match self.keys.take_left_out() {
                0 => {}
                count => notices.push(Notice::LeftOut(count)),
            }
        }
    }

    fn poll<R>(&mut self, poll: impl FnOnce(&mut RTCPeerConnection) -> Option<R>) -> Option<R> {
        self.pc.call(poll).ok().flatten()
    }

    fn drain_events(&mut self, notices: &mut Vec<Notice>) {
        while let Some(event) = self.poll(Protocol::poll_event) {
            self.handle_event(&event, notices);
        }
    }

    fn drain_writes(&mut self, transmits: &mut VecDeque<Transmit>, now: Instant) {
        transmits.extend(self.repeated.drain(..));
        while let Some(datagram) = self.poll(Protocol::poll_write) {
            let (to, from) = (datagram.transport.peer_addr, datagram.transport.local_addr);
            let message = datagram.message.freeze();
            let check = dressed(&message, &self.credentials, self.provider.crypto());
            let transmit = Transmit::plain(to, Some(from), check.map_or(message, Bytes::from));
            self.repeats.sent(&transmit, now);
            transmits.push_back(transmit);
        }
    }

    pub(crate) fn send_control(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> std::result::Result<(), SendError> {
        let control = self.channels.control.ok_or(SendError::NoSuchLink)?;
        self.send(control, self.control_queue, [message, &[]], now)
    }

    /// Sends a routed message, while little is queued.
    pub(crate) fn send_routed(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> std::result::Result<(), SendError> {
        let control = self.channels.control.ok_or(SendError::NoSuchLink)?;
        self.send(control, ROUTED_QUEUE, [message, &[]], now)
    }

    pub(crate) fn send_data(
        &mut self,
        parts: [&[u8]; 2],
        now: Instant,
    ) -> std::result::Result<(), SendError> {
        self.send(self.channels.data_out, self.data_queue, parts, now)
    }

    /// Bounds the bytes queued in the data channel.
    pub(crate) fn bound_data_queue(&mut self, bytes: usize) {
        self.data_queue = bytes;
    }

    /// Notes that the link is up; `has_path`: ICE seeks no path.
    pub(crate) fn link_is_made(&mut self, has_path: bool, now: Instant) {
        self.repeats.link_is_made();
        // beside a media lane SCTP carries next to nothing
        if has_path && self.media != [true; 2] {
            self.clock.set_pace(FAST, now);
        }
    }

    /// Closes the connection; `transmits` gets the datagrams of the goodbye.
    pub(crate) fn close(&mut self, transmits: &mut VecDeque<Transmit>, now: Instant) {
        self.repeats.stop();
        let _ = self.pc.call(|pc| pc.close());
        self.drain_writes(transmits, now);
    }

    fn send(
        &mut self,
        channel: RTCDataChannelId,
        most: usize,
        [head, body]: [&[u8]; 2],
        now: Instant,
    ) -> std::result::Result<(), SendError> {
        self.used = now;
        let at = self.clock.at(now);
        let size = head.len() + body.len();
        if size > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        let send = |pc: &mut RTCPeerConnection| {
            let mut channel = pc.data_channel(channel).ok_or(SendError::NoSuchLink)?;
            if channel.outstanding_bytes() + size > most {
                return Err(SendError::QueueFull);
            }
            let mut message = BytesMut::with_capacity(size);
            message.extend_from_slice(head);
            message.extend_from_slice(body);
            channel.send(at, message).map_err(|_| SendError::NoSuchLink)
        };
        self.pc.call(send).unwrap_or(Err(SendError::NoSuchLink))
    }

    fn handle_event(&mut self, event: &RTCPeerConnectionEvent, notices: &mut Vec<Notice>) {
        use RTCPeerConnectionEvent as E;
        match event {
            E::OnDataChannel(RTCDataChannelEvent::OnOpen(channel)) => {
                if let Err(notice) = self.handle_open(*channel) {
                    notices.push(notice);
                } else if self.channels.complete() && !std::mem::replace(&mut self.opened, true) {
                    notices.push(Notice::Open);
                }
            }
            E::OnDataChannel(RTCDataChannelEvent::OnClose(_) | RTCDataChannelEvent::OnError(_)) => {
                notices.push(Notice::Closed(EndReason::ClosedByPeer));
            }
            E::OnConnectionStateChangeEvent(RTCPeerConnectionState::Failed) => {
                notices.push(Notice::Closed(EndReason::DtlsFailed));
            }
            E::OnConnectionStateChangeEvent(RTCPeerConnectionState::Closed) => {
                notices.push(Notice::Closed(EndReason::ClosedByPeer));
            }
            E::OnIceConnectionStateChangeEvent(RTCIceConnectionState::Connected) => {
                if let Some((local, remote)) = self.selected() {
                    self.path = Some((local, remote));
                    self.kick = true;
                    notices.push(Notice::Path { local, remote });
                }
            }
            _ => {}
        }
    }

    /// Handles an opened channel: one of ours, or one that the peer may open; others end the link.
    fn handle_open(&mut self, channel: RTCDataChannelId) -> std::result::Result<(), Notice> {
        if channel == self.channels.data_out {
            self.channels.data_out_open = true;
            return Ok(());
        }
        if self.channels.control == Some(channel) {
            self.channels.control_open = true;
            return Ok(());
        }
        let unknown = || Notice::Closed(EndReason::UnknownChannel);
        let protocol = self.poll(|pc| Some(pc.data_channel(channel)?.protocol().to_owned()));
        let protocol = protocol.ok_or_else(unknown)?;
        let version = protocol.strip_prefix(CONTROL_PROTOCOL);
        match version.and_then(|version| version.parse().ok()) {
            Some(version) if version != self.control => Err(Notice::OtherControl(version)),
            Some(_) if self.channels.control.is_none() => {
                self.channels.control = Some(channel);
                self.channels.control_open = true;
                Ok(())
            }
            None if protocol == DATA_PROTOCOL && self.channels.data_in.is_none() => {
                self.channels.data_in = Some(channel);
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    fn selected(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        self.poll(|pc| {
            let sctp = pc.sctp()?;
            let ice = sctp.transport().ice_transport();
            let pair = ice.get_selected_candidate_pair()?;
            Some((address(pair.local())?, address(pair.remote())?))
        })
    }

    /// Returns the local candidate that received a datagram: `rtc` accepts no other address. If the
    /// system did not report it, any of the family serves.
    fn local_candidate(&self, to: SocketAddr, from: SocketAddr) -> Option<SocketAddr> {
        let exact = self.hosts.iter().chain(&self.relayed).find(|h| **h == to);
        let family = || self.hosts.iter().find(|h| h.is_ipv4() == from.is_ipv4());
        exact.or_else(family).copied()
    }

    fn describe_offer(&mut self, now: Instant) -> Result<()> {
        let offer = self.stack(|pc| pc.create_offer(None))?;
        self.set_local(&offer.sdp)?;
        self.credentials.remote_ufrag.clear();
        let at = self.clock.at(now);
        self.stack(|pc| pc.set_local_description(at, offer))?;
        self.add_locals()
    }

    fn describe_answer(&mut self, offer: &Description, now: Instant) -> Result<()> {
        let sdp = offer.to_sdp(SdpKind::Offer);
        self.describing = true;
        let at = self.clock.at(now);
        self.stack(|pc| pc.set_remote_description(at, RTCSessionDescription::offer(sdp)?))?;
        let answer = self.stack(|pc| pc.create_answer(None))?;
        self.set_local(&answer.sdp)?;
        self.set_remote(offer);
        self.set_lanes(offer);
        self.stack(|pc| pc.set_local_description(at, answer))?;
        self.add_locals()?;
        self.describing = false;
        Ok(())
    }

    /// Adds host and relayed candidates to the stack. Only the description has server-reflexive and
    /// mapped ones: their checks leave from the host candidate that is their base.
    fn add_locals(&mut self) -> Result<()> {
        for (rank, candidate) in self.locals().into_iter().enumerate() {
            let candidate = RTCIceCandidateInit {
                candidate: candidate.to_attribute(rank),
                ..Default::default()
            };
            self.stack(|pc| pc.add_local_candidate(candidate))?;
        }
        Ok(())
    }

    fn locals(&self) -> Vec<Candidate> {
        let of = |kind| move |addr: SocketAddr| Candidate { kind, addr };
        let hosts = self.hosts.iter().copied().map(of(CandidateKind::Host));
        let relayed = self.relayed.into_iter();
        hosts
            .chain(relayed.map(of(CandidateKind::Relayed)))
            .collect()
    }

    fn set_local(&mut self, sdp: &str) -> Result<()> {
        let missing = || StackError::ErrSessionDescriptionMissingIceUfrag;
        let (ufrag, pwd) = credentials_of(sdp).ok_or_else(missing)?;
        self.credentials.local_ufrag = ufrag;
        self.credentials.local_pwd = pwd;
        Ok(())
    }

    /// Notes the lanes of the peer. Those of a link that is made stay.
    fn set_lanes(&mut self, peer: &Description) {
        (self.media[1], self.lane_control) = (peer.media, peer.lane_control);
        self.track = peer.track;
    }

    fn set_remote(&mut self, description: &Description) {
        self.credentials.remote_ufrag.clone_from(&description.ufrag);
        self.credentials.remote_pwd.clone_from(&description.pwd);
        self.remote.clone_from(&description.candidates);
    }

    fn description(&self, fingerprint: Fingerprint, own: &Own<'_>) -> Description {
        let of = |kind| move |addr: SocketAddr| Candidate { kind, addr };
        let mapped = own.mapped.into_iter().map(of(CandidateKind::Mapped));
        let reflexive = own.reflexive.iter().copied();
        let reflexive = reflexive.map(of(CandidateKind::ServerReflexive));
        Description {
            ufrag: self.credentials.local_ufrag.clone(),
            pwd: self.credentials.local_pwd.clone(),
            fingerprint,
            media: self.media[0],
            lane_control: self.media[0],
            track: self.media[0].then_some(*TRACK_TYPES.start()),
            candidates: self
                .locals()
                .into_iter()
                .chain(mapped)
                .chain(reflexive)
                .collect(),
        }
    }
}

impl Channels {
    fn knows(&self, channel: RTCDataChannelId) -> bool {
        self.control == Some(channel) || self.data_in == Some(channel) || self.data_out == channel
    }

    fn complete(&self) -> bool {
        self.control_open && self.data_out_open && self.data_in.is_some()
    }
}

librecast::debug_by_name!(PeerConnection);

fn address(candidate: &RTCIceCandidate) -> Option<SocketAddr> {
    let ip: IpAddr = candidate.address.parse().ok()?;
    Some(SocketAddr::new(ip, candidate.port))
}

/// Makes a certificate with the same fields as Chromium's: DTLS 1.2 shows it in plaintext.
fn certificate(
    provider: &dyn RTCCryptoProvider,
    unix_now: UnixTime,
) -> StackResult<RTCCertificate> {
    let crypto_error = |e: rtc::crypto::CryptoError| StackError::Crypto(e.to_string());
    let scheme = SignatureScheme::EcdsaP256Sha256;
    let key = provider.crypto().generate_signing_key(scheme);
    let key = key.map_err(crypto_error)?;
    let mut serial = [0; SERIAL];
    provider.random().fill(&mut serial).map_err(crypto_error)?;
    // positive, and always of the same length
    serial[0] = serial[0] & 0x7f | 0x40;
    let now = Duration::from_secs(unix_now.as_secs());
    let first = SystemTime::UNIX_EPOCH + now.saturating_sub(DAY);
    let mut params = CertificateParams::default();
    params.not_before = first.into();
    params.not_after = (first + DAY * CERTIFICATE_DAYS).into();
    params.serial_number = Some(serial.to_vec().into());
    let name = &mut params.distinguished_name;
    if let Some(common_name) = name.iter().next().map(|(typ, _)| typ.clone()) {
        name.push(common_name, SUBJECT);
    }
    let made = RTCCertificate::generate_from_signing_key(params, scheme, key.clone())?;
    Ok(RTCCertificate::from_signing_key(
        made.dtls_certificate.certificate,
        key,
        SystemTime::UNIX_EPOCH + OWN_USE,
    ))
}

fn sha256(provider: &dyn RTCCryptoProvider, der: impl AsRef<[u8]>) -> StackResult<Fingerprint> {
    let hash = provider
        .crypto()
        .hash(HashAlgorithm::Sha256, der.as_ref())
        .map_err(|e| StackError::Crypto(e.to_string()))?;
    hash.as_slice()
        .try_into()
        .map_err(|_| StackError::Crypto("hash length".to_owned()))
}

#[cfg(test)]
mod tests {
    use rtc::peer_connection::sdp::RTCSessionDescription;

    use super::*;

    #[test]
    fn the_sdp_of_a_description_is_understood_by_the_stack() {
        for count in [0, 1, 16] {
            let candidate = |n: u16| Candidate {
                kind: [CandidateKind::Host, CandidateKind::ServerReflexive][usize::from(n % 2)],
                addr: match n % 3 {
                    0 => SocketAddr::from(([192, 0, 2, 1], n + 1)),
                    _ => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], n + 1)),
                },
            };
            let description = Description {
                ufrag: "a+/0".to_owned(),
                pwd: "0123456789+/abcdefghij".to_owned(),
                fingerprint: [7; 32],
                media: true,
                lane_control: true,
                track: Some(96),
                candidates: (0..count).map(candidate).collect(),
            };
            let sdp = description.to_sdp(SdpKind::Offer);
            let known = (description.ufrag, description.pwd);
            assert_eq!(credentials_of(&sdp), Some(known));
            assert!(
                RTCSessionDescription::offer(sdp)
                    .unwrap()
                    .unmarshal()
                    .is_ok()
            );
        }
    }
}
