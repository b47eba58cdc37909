//! Two pages join with a token, link, and exchange datagrams; the test acts as their browsers.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_overlay::proof::{ProofKey, RelayReply, RelayRequest};
use lcroute_overlay::server::{Room, ToNode, ToServer};
use lcroute_web_node::command::Command;
use lcroute_web_node::connections::Channel;
use lcroute_web_node::enter;
use lcroute_web_node::tab::Tab;
use librecast::cert::{Certificate, Grant, Kind, Token};
use librecast::id::{LinkId, PeerId, SecretKey};
use librecast::time::UnixTime;
use serde_json::{Value, json};

const UNIX: u64 = 1_800_000_000;
const URL: &str = "ws://host.example:7117";

/// A token of a network, valid until `until`.
fn token(until: u64) -> String {
    let [network, issuer] = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]));
    let grant = |name: &str, until| Grant {
        core: true,
        prefixes: vec!["ff1e::/16".parse().unwrap()],
        ..Grant::new(name, (UNIX - 100, until))
    };
    let certificate = Certificate::sign(
        Kind::Issuer,
        network.peer_id(),
        issuer.peer_id(),
        grant("", UNIX + 100_000),
        &network,
    );
    let certificate = certificate.unwrap();
    let token = Token::invite(&certificate, &issuer, grant("", until), vec![URL.into()]);
    token.unwrap().encode().to_string()
}

/// 32 equal bytes in base58.
fn seed(byte: u8) -> String {
    bs58::encode([byte; 32]).into_string()
}

fn start(token: Option<&str>, visit: Option<&Value>, number: u8) -> Result<Box<dyn Tab>, String> {
    let start = json!({
        "token": token, "visit": visit, "name": format!("page-{number}"), "key": seed(number), "seed": seed(number + 100),
        "incarnation": 7, "report": true,
    });
    let start = serde_json::from_value(start).unwrap();
    enter::open(&start, Instant::now(), UnixTime::from_secs(UNIX))
}

/// An SDP in a browser's form; the fingerprint identifies the page.
fn sdp(page: usize) -> String {
    let hex = vec![format!("{page:02X}"); 32].join(":");
    format!(
        "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\na=fingerprint:sha-256 {hex}\r\n"
    )
}

/// Two browsers, and the signalling server.
struct World {
    pages: [Box<dyn Tab>; 2],
    now: Instant,
    /// The connection of each page, in progress or open.
    links: [Option<LinkId>; 2],
    heard: [Vec<(String, Vec<u8>)>; 2],
    registered: BTreeSet<usize>,
}

impl World {
    fn new(pages: [Box<dyn Tab>; 2]) -> Self {
        Self {
            pages,
            now: Instant::now(),
            links: [None; 2],
            heard: Default::default(),
            registered: BTreeSet::new(),
        }
    }

    fn peer(&mut self, page: usize) -> librecast::id::PeerId {
        let status: Value = serde_json::from_str(&self.pages[page].status(self.now)).unwrap();
        status["peer_id"].as_str().unwrap().parse().unwrap()
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(5);
            for page in 0..2 {
                self.pages[page].handle_timeout(self.now, UnixTime::from_secs(UNIX));
                let mut commands: VecDeque<_> =
                    std::iter::from_fn(|| self.pages[page].poll_command()).collect();
                while let Some(command) = commands.pop_front() {
                    self.execute(page, command);
                }
            }
        }
    }

    fn execute(&mut self, page: usize, command: Command) {
        let (now, other) = (self.now, 1 - page);
        match command {
            Command::Server(0, message) => match ToServer::decode(&message).unwrap() {
                register @ ToServer::Register { .. } => {
                    assert!(register.registered(&[9; 32]).is_some(), "a wrong signature");
                    self.registered.insert(page);
                    if self.registered.len() == 2 {
                        for page in 0..2 {
                            let present = ToNode::Present(self.peer(1 - page)).encode();
                            self.pages[page].handle_server_message(0, &present, now);
                        }
                    }
                }
                ToServer::Send { to, bytes } => {
                    assert_eq!(to, self.peer(other));
                    let from = self.peer(page);
                    let deliver = ToNode::Deliver { from, bytes }.encode();
                    self.pages[other].handle_server_message(0, &deliver, now);
                }
                other => panic!("{other:?}"),
            },
            Command::Offer(link) | Command::Answer(link, _) => {
                self.links[page] = Some(link);
                self.pages[page].handle_connection(now, |c| c.handle_description(link, &sdp(page)));
            }
            // only now both know which certificate to expect
            Command::Accept(..) => self.open(),
            Command::Control(_, message) => self.carry(other, Channel::Control, message),
            Command::Data(_, message) => self.carry(other, Channel::Data, message),
            Command::Datagram { group, data, .. } => {
                self.heard[page].push((group.to_string(), data));
            }
            Command::Close(link) if self.links[page] == Some(link) => self.links[page] = None,
            _ => {}
        }
    }

    fn open(&mut self) {
        if let [Some(a), Some(b)] = self.links {
            let now = self.now;
            self.pages[0].handle_connection(now, |c| c.handle_open(a, now));
            self.pages[1].handle_connection(now, |c| c.handle_open(b, now));
            for (page, link) in [a, b].into_iter().enumerate() {
                let rtt = Duration::from_millis(3);
                self.pages[page].handle_connection(now, |c| c.handle_round_trip(link, rtt));
            }
        }
    }

    fn carry(&mut self, to: usize, channel: Channel, message: Bytes) {
        if let Some(link) = self.links[to] {
            self.pages[to].handle_message(link, channel, message, self.now);
        }
    }

    fn status(&mut self, page: usize) -> Value {
        serde_json::from_str(&self.pages[page].status(self.now)).unwrap()
    }
}

fn linked() -> World {
    let token = token(UNIX + 50_000);
    let mut world = World::new([1, 2].map(|n| start(Some(&token), None, n).unwrap()));
    let challenge = ToNode::Challenge([9; 32]).encode();
    for page in 0..2 {
        let now = world.now;
        world.pages[page].handle_server(0, true, now);
        world.pages[page].handle_server_message(0, &challenge, now);
    }
    world.run(Duration::from_secs(3));
    world
}

#[test]
fn pages_link_by_a_token_and_hear_what_they_have_joined() {
    let mut world = linked();
    let status = world.status(0);
    assert_eq!(status["state"], "connected", "{status}");
    assert_eq!(status["peers"][0]["name"], "page-2");
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!(node["stub"], true, "no path leads through a tab: {status}");
    }
    let now = world.now;
    world.pages[0]
        .send(("ff1e::1", 7), b"unheard", now)
        .unwrap();
    world.run(Duration::from_secs(1));
    world.pages[1].join("ff1e::1", world.now).unwrap();
    world.run(Duration::from_secs(2));
    let listener = world.status(0)["peers"][0]["peer_id"].clone();
    let carried = |world: &mut World| world.status(0)["carried"][0].clone();
    let wanted = carried(&mut world);
    assert_eq!(
        (&wanted["group"], &wanted["links"]),
        (&json!("ff1e::1"), &json!([listener]))
    );
    let now = world.now;
    world.pages[0].send(("ff1e::1", 7), b"heard", now).unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard[1].last().unwrap().1, b"heard");
    world.pages[1].leave("ff1e::1", world.now).unwrap();
    world.run(Duration::from_secs(4));
    let count = world.heard[1].len();
    let now = world.now;
    world.pages[0]
        .send(("ff1e::1", 7), b"too late", now)
        .unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard[1].len(), count, "it has left");
    let wanted = carried(&mut world)["links"].clone();
    assert!(wanted.as_array().is_none_or(Vec::is_empty), "{wanted}");
    assert!(world.heard[0].is_empty());
}

#[test]
fn a_page_joins_groups_of_ipv4_and_others_know() {
    let mut world = linked();
    let now = world.now;
    world.pages[1].join("239.1.2.3", now).unwrap();
    world.run(Duration::from_secs(2));
    assert_eq!(world.status(1)["groups"], json!(["239.1.2.3"]));
    let status = world.status(0);
    let listener = status["peers"][0]["peer_id"].clone();
    let carried = &status["carried"][0];
    assert_eq!(
        (&carried["group"], &carried["links"]),
        (&json!("239.1.2.3"), &json!([listener]))
    );
    let now = world.now;
    world.pages[1].leave("239.1.2.3", now).unwrap();
    world.run(Duration::from_secs(4));
    let carried = world.status(0)["carried"][0]["links"].clone();
    assert!(carried.as_array().is_none_or(Vec::is_empty), "{carried}");
}

#[test]
fn each_sees_what_the_other_carries_while_it_looks() {
    let mut world = linked();
    let now = world.now;
    world.pages[0].set_looks(true, now);
    world.pages[1].join("ff1e::5", now).unwrap();
    for _ in 0..4 {
        world.run(Duration::from_secs(1));
        world.status(0);
    }
    let status = world.status(0);
    let listens = json!({"node": 1, "group": "ff1e::5", "local": true, "edges": []});
    let flows = status["flows"].as_array().unwrap();
    assert!(flows.contains(&listens), "{status}");
    assert_eq!(
        status["groups"],
        json!([]),
        "the group of reports is not shown"
    );
}

#[test]
fn a_member_goes_on_as_itself_after_a_reload() {
    let token = token(UNIX + 50_000);
    let mut first = start(Some(&token), None, 1).unwrap();
    let kept: Value = serde_json::from_str(&first.to_keep()).unwrap();
    let mut again = start(None, Some(&kept), 3).unwrap();
    let who = |member: &mut Box<dyn Tab>| -> Value {
        serde_json::from_str::<Value>(&member.status(Instant::now())).unwrap()["peer_id"].clone()
    };
    assert_eq!(who(&mut first), who(&mut again));
    let mut damaged = kept.clone();
    damaged["key"] = json!(seed(9));
    assert!(start(None, Some(&damaged), 3).is_err(), "another key");
}

#[test]
fn what_is_no_good_token_is_said_in_plain_words() {
    let good = token(UNIX + 50_000);
    for (token, words) in [
        ("hello", "not a token"),
        (&good[..good.len() - 3], "copied whole"),
        (&token(UNIX - 1), "has expired"),
    ] {
        let error = start(Some(token), None, 1).unwrap_err();
        assert!(error.contains(words) && !error.contains("?."), "{error}");
    }
    let unfit = json!({
        "token": good, "visit": null, "name": "a".repeat(64), "key": seed(1), "seed": seed(2), "incarnation": 7, "report": true,
    });
    let unfit = enter::open(
        &serde_json::from_value(unfit).unwrap(),
        Instant::now(),
        UnixTime::from_secs(UNIX),
    );
    let error = unfit.unwrap_err();
    assert!(error.starts_with("A node's name"), "{error}");
    let mut member = start(Some(&good), None, 1).unwrap();
    let now = Instant::now();
    for (group, words) in [
        ("hello", "no IP address"),
        ("10.1.2.3", "no group"),
        ("224.0.0.251", "224.0.0.251 does not leave"),
        ("239.1.2.3", "hears 239.1.2.3, and cannot send"),
        ("fd00::1", "no group"),
        ("ff02::1", "does not leave"),
        ("ff3e::1", "does not permit"),
    ] {
        let error = member.send((group, 7), b"x", now).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let long = member.send(("ff1e::1", 7), &[0; 1_300], now);
    assert!(long.unwrap_err().contains("longer"));
}

#[test]
fn a_page_proves_its_membership_to_a_server_that_relays_for_members() {
    let token = token(UNIX + 50_000);
    let mut member = start(Some(&token), None, 1).unwrap();
    let (now, server) = (Instant::now(), ProofKey::new([7; 32]));
    let mut told = |change: &mut dyn FnMut(&mut Box<dyn Tab>)| {
        change(&mut member);
        let commands = std::iter::from_fn(|| member.poll_command());
        let requests = commands.filter_map(|command| match command {
            Command::ServerText(0, word) => RelayRequest::decode(&word),
            _ => None,
        });
        requests.collect::<Vec<_>>()
    };
    let challenge = ToNode::Challenge([9; 32]).encode();
    let asked = told(&mut |page| page.handle_server_message(0, &challenge, now));
    assert_eq!(asked, [RelayRequest::Ask]);
    let prove = RelayReply::Prove(server.public()).encode();
    let proof = told(&mut |page| page.handle_server_text(0, &prove, now));
    let [RelayRequest::Proof(sealed)] = &proof[..] else {
        panic!("{proof:?}");
    };
    let of_server_7 = told(&mut |page| page.handle_server_text(7, &prove, now));
    assert!(of_server_7.is_empty());
    let status: Value = serde_json::from_str(&member.status(now)).unwrap();
    let peer: PeerId = status["peer_id"].as_str().unwrap().parse().unwrap();
    let network = status["network_id"].as_str().unwrap().parse().unwrap();
    let proven = server.check(
        sealed,
        (&peer, &Room::of(&network)),
        UnixTime::from_secs(UNIX),
    );
    assert_eq!(proven, Ok(false));
}

#[test]
fn whatever_a_server_sends_is_taken_or_refused() {
    let token = token(UNIX + 50_000);
    let mut member = start(Some(&token), None, 1).unwrap();
    let now = Instant::now();
    for word in ["", "prove", "prove !", "no-relay \u{1b}[2J", "later"] {
        member.handle_server_text(0, word, now);
    }
    for message in [&b""[..], b"\x01", b"\x06garbage", &[255; 300]] {
        member.handle_server_message(0, message, now);
        member.handle_server_message(7, message, now);
    }
    let status: Value = serde_json::from_str(&member.status(now)).unwrap();
    assert!(status["servers"][0]["refused"].is_string(), "{status}");
}
