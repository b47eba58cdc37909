//! SCTP of an authenticated peer: packets with the right tag and checksum, in an association that
//! is up, or (first byte odd) in setup. lcroute's own filter applies first.
#![no_main]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_fuzz::{crc32c, pieces};
use lcroute_webrtc::sctp::Watch;
use libfuzzer_sys::fuzz_target;
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, ServerConfig, StreamEvent,
};
use rtc::shared::TransportProtocol;

struct End {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
}

impl End {
    fn new(address: SocketAddr) -> Self {
        let server = Some(Arc::new(ServerConfig::default()));
        let config = Arc::new(EndpointConfig::default());
        let endpoint = Endpoint::new(address, TransportProtocol::UDP, config, server);
        let association = None;
        Self {
            endpoint,
            association,
        }
    }

    fn take(&mut self, from: SocketAddr, packet: Bytes, now: Instant) {
        match self.endpoint.handle(now, from, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.association.get_or_insert((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, association)) = self.association.as_mut()
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
    }

    fn sends(&mut self, now: Instant) -> Vec<Bytes> {
        let mut packets = Vec::new();
        let Some((handle, association)) = self.association.as_mut() else {
            return packets;
        };
        while let Some(transmit) = association.poll_transmit(now) {
            if let Payload::RawEncode(raw) = transmit.message {
                packets.extend(raw);
            }
        }
        while let Some(event) = association.poll() {
            if let Event::Stream(StreamEvent::Readable { id }) = event
                && let Ok(mut stream) = association.stream(id)
            {
                while let Ok(Some(chunks)) = stream.read_sctp() {
                    let mut all = vec![0; chunks.len()];
                    let _ = chunks.read(&mut all);
                }
            }
        }
        while let Some(event) = association.poll_endpoint_event() {
            self.endpoint.handle_event(*handle, event);
        }
        packets
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("sctp"), |data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let mut now = Instant::now();
    let addresses = ["192.0.2.1:5000", "192.0.2.2:5000"].map(|a| a.parse::<SocketAddr>().unwrap());
    let [mut ours, mut theirs] = addresses.map(End::new);
    let made = theirs.endpoint.connect(now, ClientConfig::default(), addresses[0]);
    theirs.association = Some(made.unwrap());
    let mut tag = [0; 4];
    let mut watch = Watch::default();
    let mut under_way: VecDeque<(bool, Bytes)> = VecDeque::new();
    // an odd mode stops the genuine exchange after some packets
    let most = if mode & 1 == 1 { usize::from(mode >> 1) % 6 } else { 64 };
    for n in 0..=most {
        for packet in theirs.sends(now) {
            if packet[4..8] != [0; 4] {
                tag.copy_from_slice(&packet[4..8]);
            }
            under_way.push_back((true, packet));
        }
        for packet in ours.sends(now) {
            watch.sent(&packet);
            under_way.push_back((false, packet));
        }
        if n == 8 && let Some((_, association)) = theirs.association.as_mut()
            && let Ok(mut stream) = association.open_stream(1, PayloadProtocolIdentifier::Binary)
        {
            let _ = stream.write(now, &[7; 3_000]);
        }
        match under_way.pop_front() {
            Some((true, packet)) => ours.take(addresses[1], packet, now),
            Some((false, packet)) => theirs.take(addresses[0], packet, now),
            None if n > 8 => break,
            None => {}
        }
    }
    for piece in pieces(data).take(32) {
        let Some((wait, chunks)) = piece.split_first() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 20);
        // an INIT has no tag
        let tag = if chunks.first() == Some(&1) && wait & 1 == 1 { [0; 4] } else { tag };
        let mut packet = [&[0x13, 0x88, 0x13, 0x88][..], &tag, &[0; 4], chunks].concat();
        if !watch.admits(&packet) {
            continue;
        }
        let sum = crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&sum);
        ours.take(addresses[1], packet.into(), now);
        if let Some((_, association)) = ours.association.as_mut() {
            if association.poll_timeout().is_some_and(|at| at <= now) {
                association.handle_timeout(now);
            }
        }
        ours.sends(now).iter().for_each(|packet| watch.sent(packet));
    }
});
