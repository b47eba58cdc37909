//! The relay with the client of the crate `rtc`, in memory.

use librecast::time::UnixTime;

use super::super::config::Strangers;
use super::*;
use bytes::BytesMut;
use lcroute_overlay::server::RelayCredentials;
use proptest::prelude::*;
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::turn::client::{Client as TurnClient, ClientConfig, Event};

const SERVER: &str = "198.51.100.1:7117";
const UNIX: u64 = 1_800_000_000;

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

struct World {
    server: RelayServer,
    now: Instant,
    sockets: BTreeMap<AllocationId, SocketAddr>,
    clients: Vec<(Client, TurnClient)>,
    /// Packets received by peers: source, destination, contents.
    out: Vec<(SocketAddr, SocketAddr, Bytes)>,
    permitted: BTreeMap<AllocationId, Vec<IpAddr>>,
    events: Vec<(usize, Event)>,
    ports: u16,
}

fn world(change: impl FnOnce(&mut RelayConfig)) -> World {
    let now = Instant::now();
    let own = Arc::new(|ip| ip == addr(SERVER).ip());
    let mut config = RelayConfig::new([7; 32], own, Arc::new(|_| false));
    // documentation addresses
    config.private = true;
    change(&mut config);
    World {
        server: RelayServer::new(config, now, UnixTime::from_secs(UNIX)).unwrap(),
        now,
        sockets: BTreeMap::new(),
        clients: Vec::new(),
        out: Vec::new(),
        permitted: BTreeMap::new(),
        events: Vec::new(),
        ports: 50_000,
    }
}

impl World {
    fn mint(&self, who: u8) -> RelayCredentials {
        self.mint_of(who, 0)
    }

    fn mint_of(&self, who: u8, network: u8) -> RelayCredentials {
        self.server
            .mint((&[who; 32], &[network; 32]), false, self.now)
            .0
    }

    /// Makes an allocation of a member, which may send to this peer on channel 0x4001.
    fn with_channel(&mut self, who: u8, from: &str, peer: SocketAddr) -> usize {
        let credentials = self.mint(who);
        self.with_channel_as(credentials, from, peer)
    }

    fn with_channel_as(&mut self, as_: RelayCredentials, from: &str, peer: SocketAddr) -> usize {
        let n = self.add(from, None, as_);
        let relayed = self.allocate(n).unwrap();
        assert!(self.permit(n, relayed, peer));
        // the client binds the channel with the first packet
        self.send(n, relayed, peer, b"first");
        self.out.clear();
        n
    }

    fn flood(&mut self, n: usize, contents: &[u8]) {
        let message = channel_data(0x4000, contents, false);
        let client = self.clients[n].0;
        self.server.handle_client(client, &message, self.now);
        self.run();
    }

    fn add(&mut self, address: &str, stream: Option<u64>, credentials: RelayCredentials) -> usize {
        let address = addr(address);
        let config = ClientConfig {
            turn_serv_addr: match address {
                SocketAddr::V4(_) => SERVER.to_owned(),
                SocketAddr::V6(_) => "[2001:db8::ff]:7117".to_owned(),
            },
            local_addr: address,
            username: credentials.user,
            password: credentials.password,
            ..ClientConfig::default()
        };
        let provider = rtc::crypto::default_provider().unwrap();
        let client = TurnClient::new(config, provider).unwrap();
        self.clients.push((Client { address, stream }, client));
        self.clients.len() - 1
    }

    /// Makes a client of this member with an allocation.
    fn allocated(&mut self, who: u8, from: &str) -> (usize, SocketAddr) {
        let n = self.add_member(who, from);
        let relayed = self.allocate(n).unwrap();
        (n, relayed)
    }

    fn add_member(&mut self, who: u8, from: &str) -> usize {
        let credentials = self.mint(who);
        self.add(from, None, credentials)
    }

    /// Runs until there is no more output.
    fn run(&mut self) {
        loop {
            let mut silent = true;
            for n in 0..self.clients.len() {
                while let Some(sent) = self.clients[n].1.poll_write() {
                    silent = false;
                    let client = self.clients[n].0;
                    self.server.handle_client(client, &sent.message, self.now);
                }
                while let Some(event) = self.clients[n].1.poll_event() {
                    self.events.push((n, event));
                }
            }
            while let Some(output) = self.server.poll_output() {
                silent = false;
                self.take(output);
            }
            if silent {
                return;
            }
        }
    }

    fn take(&mut self, output: RelayOutput) {
        match output {
            RelayOutput::ToClient(to, message) => {
                let client = self.clients.iter_mut().find(|(client, _)| *client == to);
                let Some((_, client)) = client else { return };
                let transport = TransportContext {
                    local_addr: to.address,
                    peer_addr: addr(SERVER),
                    ecn: None,
                    transport_protocol: TransportProtocol::UDP,
                };
                let message = BytesMut::from(&message[..]);
                let now = self.now;
                // errors are events as well
                let _ = client.handle_read(TaggedBytesMut {
                    now,
                    transport,
                    message,
                });
            }
            RelayOutput::Open {
                allocation, ipv6, ..
            } => {
                self.ports += 1;
                let ip = if ipv6 {
                    "2001:db8::1".parse().unwrap()
                } else {
                    addr(SERVER).ip()
                };
                let relayed = SocketAddr::new(ip, self.ports);
                self.sockets.insert(allocation, relayed);
                self.server.handle_opened(allocation, Some(relayed));
            }
            RelayOutput::Permit { allocation, peers } => {
                self.permitted.insert(allocation, peers);
            }
            RelayOutput::ToPeer {
                allocation,
                to,
                contents,
            } => self.out.push((self.sockets[&allocation], to, contents)),
            RelayOutput::Close(allocation) => {
                self.sockets.remove(&allocation);
            }
        }
    }

    fn allocate(&mut self, n: usize) -> Option<SocketAddr> {
        self.clients[n].1.allocate(self.now).unwrap();
        self.run();
        self.events.drain(..).find_map(|(_, event)| match event {
            Event::AllocateResponse(_, relayed) => Some(relayed),
            _ => None,
        })
    }

    fn permit(&mut self, n: usize, relayed: SocketAddr, peer: SocketAddr) -> bool {
        let client = &mut self.clients[n].1;
        let mut relay = client.relay(relayed).unwrap();
        relay.create_permission(self.now, peer).unwrap();
        self.run();
        let granted = |(_, event)| matches!(event, Event::CreatePermissionResponse(..));
        self.events.drain(..).any(granted)
    }

    fn send(&mut self, n: usize, relayed: SocketAddr, peer: SocketAddr, contents: &[u8]) {
        let client = &mut self.clients[n].1;
        let mut relay = client.relay(relayed).unwrap();
        relay.send_to(self.now, contents, peer).unwrap();
        self.run();
    }

    fn received(&mut self) -> Vec<(usize, SocketAddr, Vec<u8>, bool)> {
        let events = self.events.drain(..);
        let data = events.filter_map(|(n, event)| match event {
            Event::DataIndicationOrChannelData(channel, from, data) => {
                Some((n, from, data.to_vec(), channel.is_some()))
            }
            _ => None,
        });
        data.collect()
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.server.drops().get(reason).copied().unwrap_or(0)
    }
}

/// Returns a client of which the relay knows nothing.
fn stranger() -> Client {
    Client {
        address: addr("203.0.113.5:4000"),
        stream: None,
    }
}

/// Returns the begin of an Allocate request without credentials.
fn allocate_head() -> [Box<dyn Setter>; 2] {
    [
        Box::new(TransactionId([1; 12])),
        Box::new(MessageType::new(METHOD_ALLOCATE, CLASS_REQUEST)),
    ]
}

#[test]
fn what_a_client_sends_comes_from_its_relayed_address_and_back() {
    for stream in [None, Some(1)] {
        let mut w = world(|_| {});
        let credentials = w.mint(1);
        let n = w.add("203.0.113.5:4000", stream, credentials);
        let relayed = w.allocate(n).unwrap();
        let peer = addr("203.0.113.9:5000");
        assert!(w.permit(n, relayed, peer));
        w.send(n, relayed, peer, b"as indication");
        // the channel is bound by now
        w.send(n, relayed, peer, b"on a channel");
        let out: Vec<_> = w.out.drain(..).map(|(_, _, bytes)| bytes).collect();
        assert_eq!(out, [&b"as indication"[..], b"on a channel"]);
        w.server.handle_peer(0, peer, b"hello", w.now);
        let other_port = addr("203.0.113.9:5001");
        w.server.handle_peer(0, other_port, b"same host", w.now);
        w.server
            .handle_peer(0, addr("203.0.113.8:5000"), b"stranger", w.now);
        w.run();
        let expected = [
            (n, peer, b"hello".to_vec(), true),
            (n, other_port, b"same host".to_vec(), false),
        ];
        assert_eq!(w.received(), expected);
        assert_eq!(w.dropped("relay_no_permission"), 1);
    }
}

#[test]
fn two_clients_of_one_relay_meet_inside_it() {
    let mut w = world(|_| {});
    let (one, two) = (w.mint(1), w.mint(2));
    let a = w.add("203.0.113.5:4000", None, one);
    let b = w.add("203.0.113.6:4000", Some(3), two);
    let (at_a, at_b) = (w.allocate(a).unwrap(), w.allocate(b).unwrap());
    assert!(w.permit(a, at_a, at_b));
    w.send(a, at_a, at_b, b"early");
    assert!(w.received().is_empty(), "b permits nobody yet");
    assert!(w.permit(b, at_b, at_a));
    w.send(a, at_a, at_b, b"hello");
    assert_eq!(w.received(), [(b, at_a, b"hello".to_vec(), false)]);
    assert!(w.out.is_empty(), "nothing leaves the relay");
}

/// A user inside reaches other users of the relay, and nobody else by any method.
#[test]
fn a_user_inside_reaches_relayed_addresses_alone() {
    let mut w = world(|_| ());
    let inside = w.server.mint((&[1; 32], &[0; 32]), true, w.now).0;
    let leaf = w.add("198.51.100.1:1", None, inside);
    let router = w.add_member(2, "198.51.100.2:1");
    let (here, there) = (w.allocate(leaf).unwrap(), w.allocate(router).unwrap());
    let outside = addr("203.0.113.9:9");
    assert!(!w.permit(leaf, here, outside));
    assert_eq!(w.dropped("relay_forbidden"), 1);
    assert!(w.permit(router, there, outside), "a member may");
    assert!(w.permit(leaf, here, there) && w.permit(router, there, here));
    w.events.clear();
    w.send(leaf, here, there, b"in");
    let received = w.received();
    assert!(
        received
            .iter()
            .any(|(n, from, data, _)| (*n, *from, &data[..]) == (router, here, b"in"))
    );
    // its host's own ports are none of them
    let ssh = SocketAddr::new(there.ip(), 22);
    assert!(w.permit(leaf, here, ssh));
    w.send(leaf, here, ssh, b"ssh");
    assert_eq!(w.out.len(), 0);
}

#[test]
fn users_inside_have_quotas_beside_those_of_members() {
    let mut w = world(|config| config.per_address = 1_000);
    let mut taken = 0;
    for n in 0..300_u16 {
        let [high, low] = n.to_be_bytes();
        let mut who = [high; 32];
        who[0] = low;
        let inside = w.server.mint((&who, &[0; 32]), true, w.now).0;
        let n = w.add(&format!("198.{high}.{low}.1:1"), None, inside);
        taken += usize::from(w.allocate(n).is_some());
    }
    assert_eq!(taken, 256);
    let member = w.add_member(2, "203.0.113.2:1");
    assert!(w.allocate(member).is_some());
}

#[test]
fn nothing_else_of_the_relays_own_host_is_reached() {
    let mut w = world(|config| config.private = true);
    let (n, relayed) = w.allocated(1, "203.0.113.5:4000");
    for port in [7117, 53] {
        let own = SocketAddr::new(addr(SERVER).ip(), port);
        assert!(w.permit(n, relayed, own));
        w.send(n, relayed, own, b"anybody there?");
    }
    assert!(w.out.is_empty());
    assert_eq!(w.dropped("relay_forbidden"), 2);
}

#[test]
fn peers_that_are_no_public_hosts_are_refused() {
    for (private, refused, granted) in [
        (
            false,
            vec![
                "127.0.0.1:9",
                "169.254.1.1:9",
                "224.0.0.1:9",
                "255.255.255.255:9",
                "0.0.0.0:9",
                "10.1.2.3:9",
                "172.16.0.1:9",
                "192.168.1.1:9",
                "100.64.0.1:9",
                "240.0.0.1:9",
            ],
            vec!["9.9.9.9:9", "100.128.0.1:9"],
        ),
        (
            true,
            vec!["127.0.0.1:9", "169.254.1.1:9", "224.0.0.1:9"],
            vec!["10.1.2.3:9", "192.168.1.1:9", "100.64.0.1:9"],
        ),
    ] {
        let mut w = world(|config| config.private = private);
        let (n, relayed) = w.allocated(1, "203.0.113.5:4000");
        for peer in refused {
            assert!(!w.permit(n, relayed, addr(peer)), "{peer}");
        }
        for peer in granted {
            assert!(w.permit(n, relayed, addr(peer)), "{peer}");
        }
    }
}

#[test]
fn what_the_host_reaches_without_a_router_is_no_peer() {
    for (private, granted) in [(false, false), (true, true)] {
        let mut w = world(|config| {
            config.private = private;
            config.is_near = Arc::new(|ip| ip == addr("9.9.9.9:1").ip());
        });
        let (n, relayed) = w.allocated(1, "203.0.113.5:4000");
        assert_eq!(w.permit(n, relayed, addr("9.9.9.9:9")), granted);
        assert!(w.permit(n, relayed, addr("9.9.9.8:9")));
        let own = SocketAddr::new(addr(SERVER).ip(), 9);
        assert!(w.permit(n, relayed, own), "for other allocations");
    }
}

#[test]
fn strangers_the_late_and_the_wrong_get_nothing() {
    let mut w = world(|_| {});
    let minted = w.mint(1);
    let stranger = mint(b"another secret", "x", UNIX + 100);
    let late = mint(&[7; 32], "x", UNIX);
    let wrong = RelayCredentials {
        password: format!("{}x", minted.password),
        ..minted.clone()
    };
    for (port, credentials) in (4_000..).zip([stranger, late, wrong]) {
        let n = w.add(&format!("203.0.113.5:{port}"), None, credentials);
        assert_eq!(w.allocate(n), None);
    }
    assert_eq!(w.dropped("relay_credentials"), 3);
    assert_eq!(w.server.usage().0, 0);
    assert!(w.server.quota.is_empty(), "nothing is kept of them");
    // valid credentials after their hour
    let n = w.add("203.0.113.5:5000", None, minted);
    w.now += Duration::from_secs(CREDENTIALS);
    assert_eq!(w.allocate(n), None);
}

#[test]
fn an_allocation_is_its_users_alone() {
    let mut w = world(|_| {});
    let (one, two) = (w.mint(1), w.mint(2));
    let a = w.add("203.0.113.5:4000", None, one);
    let relayed = w.allocate(a).unwrap();
    let (user, password) = (two.user, two.password);
    w.clients[a].1.update_credentials(user, password).unwrap();
    assert!(!w.permit(a, relayed, addr("203.0.113.9:9")));
}

#[test]
fn a_user_keeps_its_allocation_with_newer_credentials() {
    let mut w = world(|_| {});
    let first = w.mint(1);
    let n = w.add("203.0.113.5:4000", None, first.clone());
    let relayed = w.allocate(n).unwrap();
    w.now += Duration::from_secs(500);
    let later = w.mint(1);
    assert_ne!(first.user, later.user);
    let client = &mut w.clients[n].1;
    client
        .update_credentials(later.user, later.password)
        .unwrap();
    assert!(w.permit(n, relayed, addr("203.0.113.9:9")));
}

#[test]
fn allocations_are_bounded_for_users_addresses_and_all() {
    let mut w = world(|config| {
        (config.per_user, config.per_address, config.allocations) = (2, 3, 5);
    });
    let mut allocated = |who: u8, from: &str| {
        let n = w.add_member(who, from);
        w.allocate(n).is_some()
    };
    assert!(allocated(1, "203.0.113.5:1") && allocated(1, "203.0.113.6:1"));
    assert!(!allocated(1, "203.0.113.7:1"), "a third of one user");
    assert!(allocated(2, "[2001:db8::1]:1") && allocated(2, "[2001:db8::2]:1"));
    assert!(allocated(3, "[2001:db8::3]:1"));
    assert!(!allocated(4, "[2001:db8::4]:1"), "a fourth of one site");
    assert!(!allocated(4, "203.0.113.9:1"), "a sixth in all");
    assert_eq!(w.dropped("relay_quota"), 3);
    // silence ends them, and no state remains
    w.now += LIFETIME;
    w.server.handle_timeout(w.now);
    w.run();
    assert!(w.sockets.is_empty() && w.server.quota.is_empty() && w.server.clients.is_empty());
}

#[test]
fn peers_of_an_allocation_are_bounded() {
    let mut w = world(|config| config.peers = 2);
    let (n, relayed) = w.allocated(1, "203.0.113.5:4000");
    let mut granted = |peer: &str| w.permit(n, relayed, addr(peer));
    assert!(granted("203.0.113.1:1") && granted("203.0.113.2:1") && granted("203.0.113.2:2"));
    assert!(!granted("203.0.113.3:1"));
}

#[test]
fn a_user_sends_no_faster_than_it_may() {
    let mut w = world(|config| config.rate = 1_000_000);
    let (n, relayed) = w.allocated(1, "203.0.113.5:4000");
    let peer = addr("203.0.113.9:5000");
    assert!(w.permit(n, relayed, peer));
    for _ in 0..2_000 {
        w.now += Duration::from_millis(1);
        w.send(n, relayed, peer, &[0; 1_000]);
    }
    // 2 s of 1 Mbit/s, and a burst
    let bytes: usize = w.out.iter().map(|(_, _, bytes)| bytes.len()).sum();
    assert!((250_000..300_000).contains(&bytes), "{bytes}");
    assert!(w.dropped("relay_rate") > 1_000);
}

/// Bytes of packets with the shortest headers: IPv4 and UDP.
fn on_the_wire(out: &[(SocketAddr, SocketAddr, Bytes)]) -> usize {
    out.iter().map(|(_, _, bytes)| bytes.len() + 28).sum()
}

#[test]
fn small_packets_cost_what_they_cost_and_empty_ones_are_not_sent() {
    for contents in [&[][..], &[1], &[0; 40], &[0; 1_000]] {
        let peer = addr("203.0.113.9:5000");
        let mut w = world(|config| config.rate = 1_000_000);
        let n = w.with_channel(1, "203.0.113.5:4000", peer);
        for _ in 0..2_000 {
            w.now += Duration::from_millis(1);
            for _ in 0..10 {
                w.flood(n, contents);
            }
        }
        // 2 s of 1 Mbit/s, and a burst
        let bytes = on_the_wire(&w.out);
        assert!(bytes < 290_000, "{bytes}");
        assert!(w.out.len() <= 290_000 / 256, "{} packets", w.out.len());
        assert_eq!(contents.is_empty(), w.out.is_empty());
        // the other direction as well
        let mut to_client = 0;
        for _ in 0..20_000 {
            w.now += Duration::from_micros(100);
            w.server.handle_peer(0, peer, contents, w.now);
            while let Some(output) = w.server.poll_output() {
                to_client += usize::from(matches!(output, RelayOutput::ToClient(..)));
            }
        }
        assert!(to_client <= 290_000 / 256, "{to_client} packets");
    }
}

#[test]
fn many_keys_and_addresses_have_no_more_than_all_may() {
    let peer = addr("203.0.113.9:5000");
    let mut w = world(|config| (config.rate, config.rate_total) = (1_000_000, 2_000_000));
    let mut users = Vec::new();
    for who in 0..40 {
        let credentials = w.mint_of(who, who / 4);
        let from = format!("203.0.{who}.5:4000");
        users.push(w.with_channel_as(credentials, &from, peer));
    }
    for _ in 0..1_000 {
        w.now += Duration::from_millis(1);
        for n in &users {
            w.flood(*n, &[7]);
        }
    }
    // 1 s of 2 Mbit/s, and a burst
    let (packets, bytes) = (w.out.len(), on_the_wire(&w.out));
    assert!(
        packets <= 320_000 / 256 && bytes < 320_000,
        "{packets}, {bytes}"
    );
    assert!(packets > 900, "{packets}");
}

#[test]
fn what_strangers_send_to_a_relayed_address_costs_its_user_nothing() {
    let peer = addr("203.0.113.9:5000");
    let mut w = world(|config| (config.rate, config.rate_total) = (1_000_000, 1_000_000));
    w.with_channel(1, "203.0.113.5:4000", peer);
    assert_eq!(
        w.permitted[&0],
        [peer.ip()],
        "the kernel drops what others send"
    );
    for n in 0..2_000_u16 {
        w.now += Duration::from_micros(100);
        let stranger = SocketAddr::new(addr("198.51.100.1:1").ip(), n);
        w.server.handle_peer(0, stranger, &[0; 1_400], w.now);
    }
    assert_eq!(w.dropped("relay_no_permission"), 2_000);
    let before = w.dropped("relay_rate");
    for _ in 0..100 {
        w.now += Duration::from_millis(10);
        w.server.handle_peer(0, peer, &[0; 1_000], w.now);
    }
    w.run();
    assert_eq!((w.received().len(), w.dropped("relay_rate")), (100, before));
    // permissions end, also in the kernel
    w.now += PERMISSION_LIFETIME;
    w.server.handle_timeout(w.now);
    w.run();
    assert!(w.permitted[&0].is_empty());
}

#[test]
fn a_socket_whose_user_has_used_up_its_rate_rests() {
    let peer = addr("203.0.113.9:5000");
    let mut w = world(|config| config.rate = 1_000_000);
    w.with_channel(1, "203.0.113.5:4000", peer);
    assert!(w.server.ready_at(0, w.now) <= w.now);
    while w.dropped("relay_rate") == 0 {
        w.server.handle_peer(0, peer, &[0; 1_000], w.now);
    }
    let at = w.server.ready_at(0, w.now);
    assert!(at > w.now && at < w.now + Duration::from_secs(1));
    w.now = at;
    w.server.handle_peer(0, peer, &[0; 1_000], w.now);
    assert_eq!(w.dropped("relay_rate"), 1);
}

#[test]
fn who_uses_little_comes_before_who_uses_much() {
    let peer = addr("203.0.113.9:5000");
    let mut w = world(|config| (config.rate, config.rate_total) = (40_000_000, 40_000_000));
    // four addresses of one site, and one of another; the rest of other networks
    let mut much = Vec::new();
    for who in 1..5 {
        let credentials = w.mint_of(who, who);
        let from = format!("[2001:db8:5:{who}00::1]:4000");
        let peer = addr("[2001:db8:9::9]:5000");
        much.push(w.with_channel_as(credentials, &from, peer));
    }
    let credentials = w.mint_of(9, 9);
    let little = w.with_channel_as(credentials, "203.0.113.5:4000", peer);
    for _ in 0..2_000 {
        w.now += Duration::from_millis(1);
        for n in &much {
            // 32 Mbit/s each
            for _ in 0..4 {
                w.flood(*n, &[0; 936]);
            }
        }
        w.flood(little, &[0; 100]);
    }
    let got = w.out.iter().filter(|(_, to, _)| *to == peer).count();
    assert_eq!(got, 2_000, "all that the one sent");
    assert!(
        w.out.len() > 9_000,
        "and the others most of the rest: {}",
        w.out.len()
    );
}

#[test]
fn strangers_are_bounded_together_and_come_after_the_members_of_one_network() {
    let mut w = world(|config| {
        (config.rate, config.rate_total) = (40_000_000, 40_000_000);
        let members_of = Some(vec![9; 32]);
        config.strangers = Some(Strangers {
            rate: 8_000_000,
            members_of,
        });
    });
    let with = |w: &mut World, who: u8, network: u8| {
        let credentials = w.mint_of(who, network);
        let from = format!("[2001:db8:{who}::1]:4000");
        let to = addr(&format!("[2001:db8:9::{who}]:5000"));
        (w.with_channel_as(credentials, &from, to), to)
    };
    let strangers: Vec<_> = (1..5).map(|who| with(&mut w, who, who).0).collect();
    let (member, to_member) = with(&mut w, 20, 9);
    for _ in 0..2_000 {
        w.now += Duration::from_millis(1);
        // 32 Mbit/s each, beyond what all have
        for n in strangers.iter().chain([&member]) {
            for _ in 0..4 {
                w.flood(*n, &[0; 936]);
            }
        }
    }
    let of_member = w.out.iter().filter(|(_, to, _)| *to == to_member).count();
    assert_eq!(of_member, 8_000, "all that the member sent");
    let of_strangers = w.out.len() - of_member;
    // 8 Mbit/s for two seconds, and what was in the bucket
    assert!((1_900..2_400).contains(&of_strangers), "{of_strangers}");
    // places are kept as well
    let mut w = world(|config| {
        config.allocations = 8;
        let members_of = Some(vec![9; 32]);
        let rate = 8_000_000;
        config.strangers = Some(Strangers { rate, members_of });
    });
    let mut allocated = |who: u8, network: u8| {
        let credentials = w.mint_of(who, network);
        let n = w.add(&format!("9.{who}.1.1:1"), None, credentials);
        w.allocate(n).is_some()
    };
    assert_eq!((1..9).filter(|n| allocated(*n, *n)).count(), 6);
    assert_eq!((20..25).filter(|n| allocated(*n, 9)).count(), 2);
}

#[test]
fn half_of_all_allocations_are_for_sites_and_networks_with_few() {
    let mut w = world(|config| config.allocations = 128);
    let mut who = 0_u8;
    let mut allocated = |from: String, network: u8| {
        who += 1;
        let credentials = w.mint_of(who, network);
        let n = w.add(&from, None, credentials);
        w.allocate(n).is_some()
    };
    // each from its own /64
    let of_48 = (0..90).filter(|n| allocated(format!("[2001:db8:5:{n:x}00::1]:1"), *n));
    assert_eq!(of_48.count(), 64);
    let of_other = (0..20).filter(|n| allocated(format!("[2001:db8:6:{n:x}00::1]:1"), 200 + *n));
    assert_eq!(of_other.count(), 8, "and as many for others");
    // all of one network, in any site
    let of_network = (0..50).filter(|n| allocated(format!("9.9.{n}.1:1"), 250));
    assert_eq!(of_network.count(), 32);
    assert_eq!(w.server.usage().0, 104);
}

#[test]
fn prefixes_are_bounded_beside_addresses() {
    let mut w = world(|config| (config.per_address, config.allocations) = (2, 1_024));
    let mut who = 0_u8;
    let mut allocated = |from: String| {
        who += 1;
        let n = w.add_member(who, &from);
        w.allocate(n).is_some()
    };
    let of_56 = (0..9).filter(|n| allocated(format!("[2001:db8:5:{n:x}::1]:1")));
    assert_eq!(of_56.count(), 4);
    let of_48 = (1..9).filter(|n| allocated(format!("[2001:db8:5:{n:x}00::1]:1")));
    assert_eq!(of_48.count(), 4, "8 in all");
    let of_24 = (1..20).filter(|n| allocated(format!("9.9.9.{n}:1")));
    assert_eq!(of_24.count(), 8);
}

#[test]
fn who_has_no_credentials_is_refused_so_often_and_who_asks_too_often_is_not_answered() {
    let mut w = world(|_| {});
    let answers = |w: &mut World, client, request: &[u8]| {
        let mut answers = 0;
        for _ in 0..10_000 {
            w.server.handle_client(client, request, w.now);
            answers += std::iter::from_fn(|| w.server.poll_output()).count();
        }
        answers as u64
    };
    let request = build(&allocate_head());
    let mut client = stranger();
    let request = request.unwrap();
    assert_eq!(answers(&mut w, client, &request), REFUSALS.burst());
    // the source of a stream is not forged
    client.stream = Some(1);
    assert_eq!(answers(&mut w, client, &request), 10_000);
    // a user that repeats a permission request
    let credentials = w.mint(1);
    w.now += Duration::from_secs(5);
    let n = w.add("203.0.113.7:4000", None, credentials);
    let relayed = w.allocate(n).unwrap();
    let mut relay = w.clients[n].1.relay(relayed).unwrap();
    relay
        .create_permission(w.now, addr("203.0.113.9:1"))
        .unwrap();
    let request = w.clients[n].1.poll_write().unwrap().message;
    let client = w.clients[n].0;
    let answered = answers(&mut w, client, &request);
    assert!((400..520).contains(&answered), "{answered}");
}

#[test]
fn the_end_of_a_stream_ends_its_allocation() {
    let mut w = world(|_| {});
    let credentials = w.mint(1);
    let n = w.add("203.0.113.5:4000", Some(9), credentials);
    w.allocate(n).unwrap();
    let client = w.clients[n].0;
    assert!(w.server.serves(client));
    w.server.handle_closed(client);
    w.run();
    assert!(!w.server.serves(client) && w.sockets.is_empty());
}

#[test]
fn no_socket_no_allocation() {
    let mut w = world(|_| {});
    let n = w.add_member(1, "203.0.113.5:4000");
    w.clients[n].1.allocate(w.now).unwrap();
    while let Some(sent) = w.clients[n].1.poll_write() {
        w.server.handle_client(w.clients[n].0, &sent.message, w.now);
        while let Some(output) = w.server.poll_output() {
            match output {
                RelayOutput::Open { allocation, .. } => w.server.handle_opened(allocation, None),
                other => w.take(other),
            }
        }
    }
    w.run();
    assert!(matches!(w.events[..], [(_, Event::AllocateError(..))]));
    assert_eq!(w.server.usage().0, 0);
}

#[test]
fn attributes_that_are_unknown_are_named() {
    let mut w = world(|_| {});
    let client = stranger();
    let RelayCredentials { user, password } = w.mint(1);
    let mut answer = |request: &[u8]| {
        w.server.handle_client(client, request, w.now);
        let Some(RelayOutput::ToClient(_, answer)) = w.server.poll_output() else {
            panic!("no answer");
        };
        parse(&answer).unwrap()
    };
    let refused = answer(&build(&allocate_head()).unwrap());
    let nonce = text(&refused, ATTR_NONCE).unwrap();
    let provider = rtc::crypto::default_provider().unwrap();
    let proof = MessageIntegrity::new_long_term_integrity_with_provider(
        user.clone(),
        REALM.to_owned(),
        password,
        provider.crypto(),
    );
    let mut request = Message::new();
    request.build(&allocate_head()).unwrap();
    for (attribute, value) in [
        (ATTR_USERNAME, user.as_bytes()),
        (ATTR_REALM, REALM.as_bytes()),
        (ATTR_NONCE, nonce.as_bytes()),
        // EVEN-PORT, and one of no RFC; that of 0x8000 and more may be left out
        (AttrType(0x0018), &[0]),
        (AttrType(0x7ffe), b"x"),
        (AttrType(0x8ffe), b"x"),
    ] {
        request.add(attribute, value);
    }
    proof.unwrap().add_to(&mut request).unwrap();
    let refused = answer(&request.raw);
    assert_eq!(super::super::message::error_code(&refused), Some(420));
    let named = refused.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap();
    assert_eq!(named, [0x00, 0x18, 0x7f, 0xfe]);
}

#[test]
fn an_answer_without_credentials_is_short() {
    let mut w = world(|_| {});
    let request = build(&allocate_head());
    let client = stranger();
    w.server.handle_client(client, &request.unwrap(), w.now);
    let Some(RelayOutput::ToClient(_, answer)) = w.server.poll_output() else {
        panic!("no answer");
    };
    assert!(answer.len() <= 90, "{}", answer.len());
}

proptest! {
    /// STUN of any method and attributes, and bytes of any kind.
    #[test]
    fn arbitrary_messages_never_panic(
        messages in prop::collection::vec((0_u16..0x200, prop::collection::vec((0_usize..12, prop::collection::vec(any::<u8>(), 0..30)), 0..6), any::<bool>()), 0..20),
    ) {
        let mut w = world(|_| {});
        let n = w.add_member(1, "203.0.113.5:4000");
        w.allocate(n).unwrap();
        let client = w.clients[n].0;
        for (kind, attributes, stun) in messages {
            let mut bytes = Vec::new();
            for (typ, value) in attributes {
                let typ = [0x6, 0x8, 0x14, 0x15, 0xd, 0x12, 0xc, 0x19, 0x17, 0x13, 0x8028, 0x20][typ];
                bytes.extend(u16::to_be_bytes(typ));
                bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(&value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            if stun {
                let mut head = kind.to_be_bytes().to_vec();
                head.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
                head.extend([0x21, 0x12, 0xa4, 0x42]);
                head.extend([5; 12]);
                bytes.splice(0..0, head);
            }
            w.server.handle_client(client, &bytes, w.now);
        }
        w.run();
        prop_assert_eq!(w.server.usage().0, 1);
    }
}
