//! A relay, with datagrams and streams of users with valid credentials, which follow the input; and
//! of other hosts that send to relayed addresses.
#![no_main]

use librecast::time::UnixTime;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lcroute_fuzz::{TODAY, pieces};
use lcroute_overlay::server::RelayCredentials;
use lcroute_webrtc::relay::{
    AllocationId, Client, Framer, RelayConfig, RelayOutput, RelayServer, charged,
};
use libfuzzer_sys::fuzz_target;
use rtc::stun::attributes::{
    ATTR_CHANNEL_NUMBER, ATTR_DATA, ATTR_LIFETIME, ATTR_NONCE, ATTR_REALM,
    ATTR_REQUESTED_ADDRESS_FAMILY, ATTR_REQUESTED_TRANSPORT, ATTR_USERNAME, ATTR_XOR_PEER_ADDRESS,
    AttrType,
};
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    CLASS_INDICATION, CLASS_REQUEST, METHOD_ALLOCATE, METHOD_CHANNEL_BIND,
    METHOD_CREATE_PERMISSION, METHOD_REFRESH, METHOD_SEND, Message, MessageType, Method, Setter,
    TransactionId,
};

const OWN: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const NEAR: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 1);
const RATE_TOTAL: u64 = 1_000_000;
const METHODS: [Method; 5] = [
    METHOD_ALLOCATE,
    METHOD_REFRESH,
    METHOD_CREATE_PERMISSION,
    METHOD_CHANNEL_BIND,
    METHOD_SEND,
];
const ATTRIBUTES: [AttrType; 8] = [
    ATTR_XOR_PEER_ADDRESS,
    ATTR_CHANNEL_NUMBER,
    ATTR_LIFETIME,
    ATTR_REQUESTED_TRANSPORT,
    ATTR_REQUESTED_ADDRESS_FAMILY,
    ATTR_DATA,
    AttrType(0x7fff),
    AttrType(0x8022),
];

struct Attribute(AttrType, Vec<u8>);

impl Setter for Attribute {
    fn add_to(&self, message: &mut Message) -> rtc::shared::error::Result<()> {
        message.add(self.0, &self.1);
        Ok(())
    }
}

struct World {
    relay: RelayServer,
    begun: Instant,
    now: Instant,
    users: [(Client, RelayCredentials, Framer); 4],
    nonces: BTreeMap<Client, String>,
    relayed: BTreeMap<AllocationId, SocketAddr>,
    permitted: BTreeMap<AllocationId, Vec<IpAddr>>,
    transactions: u8,
    /// Relayed bytes, as they are charged.
    carried: u64,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let is = |ip: Ipv4Addr| Arc::new(move |other: IpAddr| other == ip);
        let mut config = RelayConfig::new([7; 32], is(OWN), is(NEAR));
        (config.rate, config.rate_total) = (600_000, RATE_TOTAL);
        (config.allocations, config.per_user, config.peers) = (4, 2, 8);
        let relay = RelayServer::new(config, now, UnixTime::from_secs(TODAY)).unwrap();
        // two of one user, in one site; two in streams
        let users = [(1, 1, None), (1, 1, Some(1)), (2, 2, None), (3, 1, Some(2))];
        let users = users.map(|(user, site, stream)| {
            let port = 4_000 + stream.unwrap_or(0) as u16;
            let address = SocketAddr::from(([5, 5, site, user], port));
            let (credentials, _) = relay.mint((&[user; 32], &[site; 32]), user == 3, now);
            (Client { address, stream }, credentials, Framer::default())
        });
        Self {
            relay,
            begun: now,
            now,
            users,
            nonces: BTreeMap::new(),
            relayed: BTreeMap::new(),
            permitted: BTreeMap::new(),
            transactions: 0,
            carried: 0,
        }
    }

    /// Makes a request with right credentials and these attributes.
    fn request(&mut self, who: usize, method: Method, attributes: &[u8]) -> Option<Vec<u8>> {
        let (client, credentials, _) = &self.users[who];
        self.transactions = self.transactions.wrapping_add(1);
        let class = match method == METHOD_SEND {
            true => CLASS_INDICATION,
            false => CLASS_REQUEST,
        };
        let mut setters: Vec<Box<dyn Setter>> = vec![
            Box::new(TransactionId([self.transactions; 12])),
            Box::new(MessageType::new(method, class)),
        ];
        let mut rest = attributes;
        while let Some(([typ, length], more)) = rest.split_first_chunk() {
            let (value, after) = more.split_at(usize::from(*length % 64).min(more.len()));
            rest = after;
            let typ = ATTRIBUTES[usize::from(*typ) % ATTRIBUTES.len()];
            setters.push(Box::new(Attribute(typ, value.to_vec())));
        }
        let nonce = self.nonces.get(client).cloned().unwrap_or_default();
        for (typ, text) in [
            (ATTR_USERNAME, &credentials.user),
            (ATTR_REALM, &"lcroute".to_owned()),
            (ATTR_NONCE, &nonce),
        ] {
            setters.push(Box::new(Attribute(typ, text.clone().into_bytes())));
        }
        let mut message = Message::new();
        message.build(&setters).ok()?;
        let provider = rtc::crypto::default_provider().ok()?;
        let crypto = provider.crypto();
        let (user, password) = (credentials.user.clone(), credentials.password.clone());
        let key =
            MessageIntegrity::long_term_integrity_key(user, "lcroute".into(), password, crypto);
        let integrity = MessageIntegrity::new_raw_integrity_with_provider(key.ok()?, crypto);
        integrity.add_to(&mut message).ok()?;
        Some(message.raw)
    }

    /// Sends through the server's port: a stream's bytes are cut into messages.
    fn send(&mut self, who: usize, bytes: &[u8]) {
        let (client, _, framer) = &mut self.users[who];
        let client = *client;
        if client.stream.is_none() {
            self.relay.handle_client(client, bytes, self.now);
            return self.settle();
        }
        framer.push(bytes);
        let mut frames = Vec::new();
        let ended = loop {
            match framer.poll_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        if ended {
            *framer = Framer::default();
        }
        for frame in frames {
            self.relay.handle_client(client, &frame, self.now);
        }
        if ended {
            self.relay.handle_closed(client);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut told = 0;
        while let Some(output) = self.relay.poll_output() {
            told += 1;
            assert!(told < 10_000, "it says no end of things");
            match output {
                RelayOutput::Open {
                    allocation, ipv6, ..
                } => {
                    // one in eight has no socket
                    let port = 50_000 + allocation as u16;
                    let at = match ipv6 {
                        true => SocketAddr::from((OWN.to_ipv6_mapped(), port)),
                        false => SocketAddr::from((OWN, port)),
                    };
                    let opened = (allocation % 8 != 7).then_some(at);
                    self.relayed.extend(opened.map(|at| (allocation, at)));
                    self.relay.handle_opened(allocation, opened);
                }
                RelayOutput::Permit { allocation, peers } => {
                    assert!(peers.len() <= 8 && !peers.contains(&OWN.into()));
                    assert!(!peers.contains(&NEAR.into()), "{peers:?}");
                    self.permitted.insert(allocation, peers);
                }
                RelayOutput::ToPeer {
                    allocation,
                    to,
                    contents,
                } => {
                    assert!(!contents.is_empty() && self.relayed.contains_key(&allocation));
                    assert!(self.permitted[&allocation].contains(&to.ip()), "{to}");
                    self.carried += charged(contents.len()) as u64;
                }
                RelayOutput::Close(allocation) => {
                    self.relayed.remove(&allocation);
                    self.permitted.remove(&allocation);
                }
                RelayOutput::ToClient(client, message) => {
                    let mut read = Message {
                        raw: message.to_vec(),
                        ..Message::default()
                    };
                    if message[0] < 4
                        && read.decode().is_ok()
                        && let Ok(nonce) = read.get(ATTR_NONCE)
                    {
                        let nonce = String::from_utf8(nonce).unwrap();
                        self.nonces.insert(client, nonce);
                    }
                }
            }
        }
        let (allocations, _) = self.relay.usage();
        assert!(allocations <= 4, "{allocations} allocations");
        let seconds = (self.now - self.begun).as_secs_f64();
        let most = seconds * RATE_TOTAL as f64 / 8.0 + 50_000.0;
        assert!(
            self.carried as f64 <= most,
            "{} of {most} bytes",
            self.carried
        );
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("relay"), |data: &[u8]| {
    let mut world = World::new();
    for who in 0..4 {
        // for a nonce
        if let Some(request) = world.request(who, METHOD_ALLOCATE, &[]) {
            world.send(who, &request);
        }
    }
    for piece in pieces(data).take(64) {
        let Some(([what, who, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        world.now += match wait {
            ..200 => Duration::from_millis(u64::from(*wait)),
            _ => Duration::from_secs(u64::from(*wait)),
        };
        let who_sends = usize::from(*who) % 4;
        match what % 6 {
            0 => world.send(who_sends, bytes),
            1 | 2 => {
                let method = METHODS[usize::from(what / 6) % METHODS.len()];
                if let Some(request) = world.request(who_sends, method, bytes) {
                    world.send(who_sends, &request);
                }
            }
            3 => {
                let number = 0x4000 | u16::from(*who >> 6);
                let length = bytes.len() as u16;
                let mut message = [&number.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat();
                message.resize(message.len().next_multiple_of(4), 0);
                world.send(who_sends, &message);
            }
            4 => {
                let address = SocketAddr::from(([8, 8, 8, *who % 4], 7));
                let now = world.now;
                for id in world.relayed.keys().copied().collect::<Vec<_>>() {
                    world.relay.handle_peer(id, address, bytes, now);
                    let _ = world.relay.ready_at(id, now);
                }
                world.settle();
            }
            _ => {
                let now = world.now;
                world.relay.handle_timeout(now);
                if *what >= 128 {
                    world.relay.handle_closed(world.users[who_sends].0);
                }
                world.settle();
            }
        }
    }
    // silence ends all allocations
    world.now += Duration::from_secs(3_601);
    let now = world.now;
    world.relay.handle_timeout(now);
    world.settle();
    assert!(world.relay.usage().0 == 0 && world.relayed.is_empty(), "an allocation outlives its time");
});
