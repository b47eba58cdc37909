//! Two houses as one LAN: plain hosts with the same subnet, and a router in each house.

use crate::lan::lan;
use crate::prelude::*;
use crate::private::share_key;

/// The configuration of the guide's recipe.
pub(crate) const SEGMENT: &str = "[[lan]]\ninterface = \"lan0\"\nsegment = \"home\"\n";
/// Timeout for election and links.
const SETTLED: Duration = Duration::from_secs(30);
/// Timeout for gateways to correct hosts after LANs were joined or split: less than the half minute
/// in which kernels notice by themselves.
const CORRECTED: Duration = Duration::from_secs(12);

/// Two houses with 192.168.1.0/24: a router .1, hosts .20 and .21 or .30 and .31, gateways from .10
/// or from .15.
pub(crate) struct Houses {
    pub(crate) network: Network,
    pub(crate) sites: [Site; 2],
    gateways: usize,
}

impl Houses {
    pub(crate) fn new(lab: &Lab, gateways: usize) -> Result<Self> {
        Self::with(lab, gateways, "", |_| Ok(()))
    }

    /// Starts them with more settings of the LANs, and a preparation of both sites.
    pub(crate) fn with(
        lab: &Lab,
        gateways: usize,
        settings: &str,
        prepare: impl Fn(&[Site; 2]) -> Result<()>,
    ) -> Result<Self> {
        let names: Vec<String> = (0..gateways * 2).map(|n| format!("gw{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hosts = lab.closed_hosts(&names)?;
        let sites = houses(lab, [&hosts[..gateways], &hosts[gateways..]])?;
        prepare(&sites)?;
        crate::configure(&hosts, &format!("{SEGMENT}{settings}"))?;
        Self::join(lab, hosts, sites, gateways)
    }

    /// Starts gateways that have their settings, and waits until the LANs are one.
    fn join(lab: &Lab, hosts: Vec<Host>, sites: [Site; 2], gateways: usize) -> Result<Self> {
        let mut network = lab.network_invited(hosts, &["--segment", "home"])?;
        network.start()?;
        let houses = Self {
            network,
            sites,
            gateways,
        };
        houses.wait_joined()?;
        Ok(houses)
    }

    /// Waits until the forwarders of both LANs see each other in the segment.
    pub(crate) fn wait_joined(&self) -> Result<()> {
        for house in 0..2 {
            within(SETTLED, "the forwarder sees the other LAN", || {
                let said = self.segment(self.forwarder(house)?)?;
                let lans = said["lans"].as_array().context("no list")?;
                holds!(lans.len() == 1 && said["problem"].is_null(), "{said}")
            })?;
        }
        Ok(())
    }

    /// Returns the position of a house's forwarder in the network.
    pub(crate) fn forwarder(&self, house: usize) -> Result<usize> {
        let at = house * self.gateways..(house + 1) * self.gateways;
        let serves = |at: &usize| {
            lan(&self.network.members[*at]).is_ok_and(|lan| lan["role"] == "forwarder")
        };
        match at.filter(serves).collect::<Vec<_>>()[..] {
            [at] => Ok(at),
            ref others => bail!("forwarders of house {house}: {others:?}"),
        }
    }

    fn segment(&self, member: usize) -> Result<Value> {
        let said = lan(&self.network.members[member])?;
        ensure!(said["segment"].is_object(), "{said}");
        Ok(said["segment"].clone())
    }

    /// The hosts .20 and .21 of house A, .30 and .31 of house B.
    pub(crate) fn hosts(&self) -> [&Host; 4] {
        let [a, b] = &self.sites;
        [&a.hosts[1], &a.hosts[2], &b.hosts[1], &b.hosts[2]]
    }

    /// The routers of the houses.
    fn routers(&self) -> [&Host; 2] {
        let [a, b] = &self.sites;
        [&a.hosts[0], &b.hosts[0]]
    }

    /// Returns how often a reason to drop counts, over all gateways.
    fn drops(&self, reason: &str) -> Result<u64> {
        let drops = self.network.members.iter().map(|member| {
            let said = member.status()?;
            Ok(said["counters"]["drops"][reason]
                .as_u64()
                .unwrap_or_default())
        });
        drops.sum()
    }
}

/// Runs a test of two houses with a gateway each, and of their hosts.
pub(crate) fn two_houses(name: &str, test: impl FnOnce(&Houses, [&Host; 4]) -> Result<()>) {
    world(name, |lab| {
        let houses = Houses::new(lab, 1)?;
        test(&houses, houses.hosts())
    });
}

/// Makes the LANs of two houses for existing gateways.
fn houses(lab: &Lab, [a, b]: [&[Host]; 2]) -> Result<[Site; 2]> {
    let site = |n, gateways: &[Host], names: [&str; 3], first: u8| -> Result<Site> {
        let gateways: Vec<&Host> = gateways.iter().collect();
        let site = lab.site(n, &gateways, &names)?;
        for (n, host) in (first / 2..).zip(gateways) {
            host.ip(&format!("addr add 192.168.1.{n}/24 dev {LAN}"))?;
        }
        for (n, host) in [1, first, first + 1].into_iter().zip(&site.hosts) {
            host.ip(&format!("addr add 192.168.1.{n}/24 brd + dev {LAN}"))?;
        }
        for host in &site.hosts[1..] {
            host.ip("route add default via 192.168.1.1")?;
        }
        Ok(site)
    };
    let first = site(1, a, ["ra", "a1", "a2"], 20)?;
    Ok([first, site(2, b, ["rb", "b1", "b2"], 30)?])
}

/// Runs a script of Python.
pub(crate) fn python(host: &Host, script: &str, args: &[&str]) -> Result<String> {
    let args = [&["-c", script], args].concat();
    Ok(host.run("python3", &args)?.success()?.stdout)
}

/// Starts a script of Python that prints `ready` first.
pub(crate) fn serve(host: &Host, script: &str, args: &[&str]) -> Result<Process> {
    let process = host.spawn("python3", &[&["-c", script], args].concat())?;
    process.prints("ready")?;
    Ok(process)
}

/// Looks for games by a broadcast, and plays with those at these addresses.
fn play(host: &Host, broadcast: &str, games: [&str; 2]) -> Result<()> {
    let played = python(host, PLAYER, &[broadcast, "2"])?;
    let mut played: Vec<_> = played.lines().collect();
    played.sort_unstable();
    let expected = games.map(|game| format!("{game} game here chess played"));
    holds!(played == expected, "{broadcast}: {played:?}")
}

/// Waits until the output has this line this often.
fn expect(process: &Process, line: &str, count: usize) -> Result<()> {
    eventually("it is heard", || {
        let said = process.stdout();
        let found = said.lines().filter(|said| *said == line).count();
        holds!(found == count, "{found} of {count} {line:?}: {said}")
    })
}

/// Pings until all of 3 questions are answered.
pub(crate) fn ping(host: &Host, args: &str) -> Result<String> {
    let args: Vec<&str> = ["-c", "3", "-i", "0.1", "-W", "2"]
        .into_iter()
        .chain(args.split(' '))
        .collect();
    let done = host.run("ping", &args)?;
    ensure!(
        done.code == 0 && done.stdout.contains(" 0% packet loss"),
        "{args:?}: {}{}",
        done.stdout,
        done.stderr
    );
    Ok(done.stdout)
}

/// A game that looks for others by broadcast, answers by unicast, and is played over TCP.
const GAME: &str = r#"
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 27960))
tcp = socket.create_server(("", 27960))
def play():
    while True:
        player, (address, _) = tcp.accept()
        player.sendall(player.recv(100) + b" played")
        player.close()
threading.Thread(target=play, daemon=True).start()
print("ready", flush=True)
while True:
    question, (address, port) = udp.recvfrom(2000)
    print(question.decode(), "from", address, flush=True)
    udp.sendto(b"game here", (address, port))
"#;

/// Asks for games at a broadcast address; plays with each that answers.
const PLAYER: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("", 0))
s.settimeout(5)
s.sendto(b"who plays", (sys.argv[1], 27960))
for _ in range(int(sys.argv[2])):
    answer, (address, port) = s.recvfrom(2000)
    with socket.create_connection((address, port), 5) as game:
        game.sendall(b"chess")
        print(address, answer.decode(), game.recv(100).decode())
"#;

/// A KNXnet/IP server on an interface by its address: answers a SEARCH_REQUEST with its address, by
/// unicast.
const KNX_SERVER: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
s.bind(("", 3671))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.23.12") + socket.inet_aton(sys.argv[1]))
print("ready", flush=True)
while True:
    request, ancillary, _, (source, port) = s.recvmsg(2000, 100)
    header, host, port = request[:6], request[8:12], struct.unpack("!H", request[12:14])[0]
    assert header == b"\x06\x10\x02\x01\x00\x0e", request
    print(socket.inet_ntoa(host), "ttl", struct.unpack("i", ancillary[0][2])[0], flush=True)
    s.sendto(b"\x06\x10\x02\x02\x00\x0e\x08\x01" + host + request[12:14], (socket.inet_ntoa(host), port))
"#;

/// A KNXnet/IP client that asks 8 times with TTL 1; prints where answers came from.
const KNX_CLIENT: &str = r#"
import socket, struct, sys
own = sys.argv[1]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((own, 0))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
s.settimeout(5)
port = s.getsockname()[1]
for _ in range(8):
    s.sendto(b"\x06\x10\x02\x01\x00\x0e\x08\x01" + socket.inet_aton(own) + struct.pack("!H", port), ("224.0.23.12", 3671))
    answer, (address, _) = s.recvfrom(2000)
    assert answer[2:4] == b"\x02\x02", answer
    print(address)
"#;

/// Listens on a port; prints each message and its sender.
pub(crate) const HEAR: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    message, (address, port) = s.recvfrom(2000)
    print(message.decode("latin1"), "from", address, flush=True)
"#;

/// Sends a message to a port of an address; `own` is the source's port, or 0.
pub(crate) const SAY: &str = r#"
import socket, sys
address, port, message, own = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("", own))
s.sendto(message.encode("latin1"), (address, port))
"#;

/// Sends bytes over TCP at a steady rate until it is ended, and reads an answer to each.
const TALK: &str = r#"
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7007), 10)
s.settimeout(60)
print("ready", flush=True)
n = 0
while True:
    s.sendall(b"%06d" % n)
    answer = b""
    while len(answer) < 6:
        answer += s.recv(6 - len(answer)) or sys.exit("closed")
    assert answer == b"%06d" % n, answer
    print(n, flush=True)
    n += 1
    time.sleep(0.01)
"#;

/// Returns the bytes that come by TCP.
const ECHO: &str = r#"
import socket, threading
tcp = socket.create_server(("", 7007))
print("ready", flush=True)
def echo(s):
    while data := s.recv(65536):
        s.sendall(data)
while True:
    threading.Thread(target=echo, args=(tcp.accept()[0],), daemon=True).start()
"#;

/// Returns the Ethernet address that a host has of a neighbour.
fn neighbour(host: &Host, address: &str) -> Result<String> {
    let shown = host
        .ask("ip", &["neigh", "show", address, "dev", LAN])?
        .stdout;
    let mut words = shown
        .split_whitespace()
        .skip_while(|word| *word != "lladdr");
    let mac = words.nth(1);
    Ok(mac
        .with_context(|| format!("{address}: {shown}"))?
        .to_owned())
}

/// Returns the Ethernet address of a host's interface.
fn mac(host: &Host, interface: &str) -> Result<String> {
    let shown = host
        .ask("ip", &["-o", "link", "show", "dev", interface])?
        .stdout;
    let mut words = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    Ok(words.nth(1).with_context(|| shown.clone())?.to_owned())
}

/// Returns the link-local address of a host.
fn link_local(host: &Host) -> Result<String> {
    let args = ["-6", "-o", "addr", "show", "dev", LAN, "scope", "link"];
    let shown = host.ask("ip", &args)?.stdout;
    let address = shown
        .split_whitespace()
        .find(|word| word.starts_with("fe80:"));
    let address = address.and_then(|address| address.split('/').next());
    Ok(address.with_context(|| shown.clone())?.to_owned())
}

/// `lcroute lan host` on a gateway: exit code and line.
fn place(member: &Member, address: &str) -> Result<(i32, String)> {
    let said = member.host.run("lcroute", &["lan", "host", address])?;
    Ok((said.code, said.stdout.trim().to_owned()))
}

#[test]
fn hosts_of_two_houses_find_and_use_each_other_under_their_own_addresses() {
    two_houses("segment", |houses, [a1, a2, b1, b2]| {
        ping(a1, "192.168.1.30")?;
        ping(b2, "192.168.1.21")?;
        ping(a1, "-s 1472 -M do 192.168.1.30")?;
        ping(a1, "-s 4000 192.168.1.30")?;
        ping(b1, &format!("{}%{LAN}", link_local(a2)?))?;
        // everyone is behind one address that no switch knew before
        let virtual_mac = houses.segment(0)?["virtual_mac"]
            .as_str()
            .context("none")?
            .to_owned();
        ensure!(
            neighbour(a1, "192.168.1.30")? == virtual_mac && virtual_mac.starts_with("02:6c:63:")
        );
        let games = [serve(b1, GAME, &[])?, serve(b2, GAME, &[])?];
        for all in ["255.255.255.255", "192.168.1.255"] {
            play(a1, all, ["192.168.1.30", "192.168.1.31"])?;
        }
        for game in &games {
            expect(game, "who plays from 192.168.1.20", 2)?;
        }
        let server = serve(b1, KNX_SERVER, &["192.168.1.30"])?;
        let gateway = &houses.network.members[0];
        wait_listed(&houses.network.members[1], "224.0.23.12")?;
        let answers = python(a2, KNX_CLIENT, &["192.168.1.21"])?;
        ensure!(
            answers
                .lines()
                .filter(|line| *line == "192.168.1.30")
                .count()
                == 8
        );
        expect(&server, "192.168.1.21 ttl 1", 8)?;
        send_film(a1, b1, "192.168.1.30")?;
        // the output of `lan host` and `lan`
        ensure!(place(gateway, "192.168.1.30")? == (0, "behind gw1".into()));
        let here = format!("here ({})", mac(a1, LAN)?);
        ensure!(place(gateway, "192.168.1.20")? == (0, here));
        ensure!(place(gateway, "192.168.1.77")? == (3, "nobody answers".into()));
        let said = gateway.host.ask("lcroute", &["lan"])?.stdout;
        ensure!(
            said.contains("segment home: 2 LANs")
                && said.contains("elsewhere  gw1, 192.168.1.0/24"),
            "{said}"
        );
        holds!(!said.contains("problem"), "{said}")
    });
}

/// Waits until a gateway knows that a host of its LAN, or itself, has joined a group.
fn wait_listed(gateway: &Member, group: &str) -> Result<()> {
    eventually("the join is known", || {
        let said = lan(gateway)?;
        let listeners = said["listeners"].as_array().context("no list")?;
        holds!(listeners.iter().any(|l| l["group"] == group), "{said}")
    })
}

/// Sends 8 MB over TCP, as the card's super-packets come.
fn send_film(from: &Host, to: &Host, address: &str) -> Result<()> {
    let file = from.path("film");
    let film = (0..8_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8);
    fs::write(&file, film.collect::<Vec<_>>())?;
    let copy = to.path("copy");
    let create = format!("CREATE:{}", copy.display());
    let receiver = to.spawn("socat", &["-u", "TCP-LISTEN:9000,reuseaddr", &create])?;
    let open = format!("OPEN:{}", file.display());
    let connect = format!("TCP:{address}:9000,retry=100,interval=0.05");
    from.run("socat", &["-u", &open, &connect])?.success()?;
    receiver.output()?.success()?;
    holds!(fs::read(&file)? == fs::read(&copy)?, "another film")
}

/// Returns the names of the taps of segments on a host.
fn taps(host: &Host) -> Result<Vec<String>> {
    let shown = host.ask("ip", &["-o", "link", "show"])?.stdout;
    let names = shown.lines().filter_map(|line| line.split(": ").nth(1));
    Ok(names
        .filter(|name| name.starts_with("lcseg"))
        .map(str::to_owned)
        .collect())
}

#[test]
fn programs_on_the_gateways_themselves_are_in_the_segment() {
    world("segment-inside", |lab| {
        let mut houses = Houses::new(lab, 1)?;
        let (a1, b1) = (houses.hosts()[0].clone(), houses.hosts()[2].clone());
        let [near, far] = houses.network.nodes()?;
        let (near_host, far_host) = (near.host.clone(), far.host.clone());
        for host in [&near_host, &far_host] {
            within(SETTLED, "its programs are in the segment", || {
                let said = host.ask("lcroute", &["lan"])?.stdout;
                let told = "programs   this host's are in the segment";
                holds!(said.contains(told), "{said}")
            })?;
        }
        // a user's own filter on the interface stays as it is
        for rule in [
            "qdisc add dev lan0 clsact",
            "filter add dev lan0 ingress protocol ip u32 match ip dport 9999 0xffff flowid 1:1",
        ] {
            let args: Vec<_> = rule.split(' ').collect();
            near_host.run("tc", &args)?.success()?;
        }
        let rules = || near_host.ask("tc", &["filter", "show", "dev", LAN, "ingress"]);
        let before = rules()?.stdout;
        ensure!(before.contains("u32"), "{before}");
        for (from, to) in [
            (&a1, "192.168.1.15"),
            (&far_host, "192.168.1.20"),
            (&near_host, "192.168.1.30"),
            (&near_host, "192.168.1.15"),
            (&b1, "192.168.1.10"),
        ] {
            within(SETTLED, "it answers", || {
                ping(from, &format!("-I {LAN} {to}"))
            })?;
            ping(from, &format!("-I {LAN} -s 1472 -M do {to}"))?;
        }
        ping(&near_host, &format!("{}%{LAN}", link_local(&b1)?))?;
        ping(&b1, &format!("{}%{LAN}", link_local(&near_host)?))?;
        ensure!(place(far, "192.168.1.10")? == (0, "behind gw0".into()));
        ensure!(place(near, "192.168.1.10")? == (0, format!("here ({})", mac(&near_host, LAN)?)));
        let games = [serve(&b1, GAME, &[])?, serve(&far_host, GAME, &[])?];
        play(
            &near_host,
            "192.168.1.255",
            ["192.168.1.15", "192.168.1.30"],
        )?;
        for game in &games {
            expect(game, "who plays from 192.168.1.10", 1)?;
        }
        // a group that the kernel of the gateway alone has joined
        let server = serve(&far_host, KNX_SERVER, &["192.168.1.15"])?;
        wait_listed(far, "224.0.23.12")?;
        for (host, own) in [(&a1, "192.168.1.20"), (&near_host, "192.168.1.10")] {
            let answers = python(host, KNX_CLIENT, &[own])?;
            ensure!(answers.lines().filter(|l| *l == "192.168.1.15").count() == 8);
            expect(&server, &format!("{own} ttl 1"), 8)?;
        }
        send_film(&near_host, &b1, "192.168.1.30")?;
        send_film(&a1, &far_host, "192.168.1.15")?;
        let linked = near.linked_with()?;
        ensure!(
            houses.drops("segment_storm")? == 0 && linked.len() == 1,
            "{linked:?}"
        );
        // all goes with the daemon, and comes back with it; a join is asked for again
        ensure!(taps(&far_host)?.len() == 1);
        houses.network.members[1].daemon()?.kill()?;
        becomes(0, || Ok(taps(&far_host)?.len()))?;
        houses.network.members[1].start()?;
        houses.wait_joined()?;
        wait_listed(&houses.network.members[1], "224.0.23.12")?;
        ping(&a1, "192.168.1.15")?;
        let after = rules()?.stdout;
        holds!(after == before, "{before}{after}")
    });
}

#[test]
#[ignore = "`make test-all`: minutes"]
fn programs_on_a_standby_are_in_the_segment_too() {
    world("segment-standby", |lab| {
        let houses = Houses::new(lab, 2)?;
        let [a1, _, b1, _] = houses.hosts();
        let members = &houses.network.members;
        for (gateway, own) in [(0, "192.168.1.10"), (1, "192.168.1.11")] {
            let host = &members[gateway].host;
            within(SETTLED, "it reaches hosts of both houses", || {
                ping(host, &format!("-I {LAN} 192.168.1.30"))?;
                ping(b1, own)?;
                ping(a1, own).map(drop)
            })?;
            let game = serve(b1, GAME, &[])?;
            let played = python(host, PLAYER, &["192.168.1.255", "1"])?;
            ensure!(played.contains("chess played"), "{played}");
            expect(&game, &format!("who plays from {own}"), 1)?;
            drop(game);
            let server = serve(host, KNX_SERVER, &[own])?;
            let forwarder = houses.forwarder(0)?;
            wait_listed(&members[forwarder], "224.0.23.12")?;
            let answers = python(b1, KNX_CLIENT, &["192.168.1.30"])?;
            ensure!(answers.lines().filter(|l| *l == own).count() == 8);
            expect(&server, "192.168.1.30 ttl 1", 8)?;
        }
        Ok(())
    });
}

/// Claims by ARP that this host has an address, 40 times: broadcast replies and gratuitous
/// requests.
const FORGE: &str = r#"
import socket, struct, sys, time
address = socket.inet_aton(sys.argv[1])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("lan0", 0x0806))
own = s.getsockname()[4]
for n in range(40):
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1 + n % 2) + own + address + bytes(6) + address
    s.send(b"\xff" * 6 + own + b"\x08\x06" + arp)
    time.sleep(0.02)
"#;

#[test]
fn each_house_keeps_its_router_its_dhcp_server_and_its_hosts() {
    two_houses("segment-home", |houses, [a1, a2, b1, _]| {
        // both routers are .1, and stay unchanged
        for (host, router) in [a1, b1].into_iter().zip(houses.routers()) {
            ping(host, "192.168.1.1")?;
            ensure!(neighbour(host, "192.168.1.1")? == mac(router, LAN)?);
        }
        // a request for an address, and the question of a game
        let heard =
            [(b1, "67"), (a2, "67"), (b1, "7000")].map(|(host, port)| serve(host, HEAR, &[port]));
        let [far_dhcp, near_dhcp, game] = heard;
        let (far_dhcp, near_dhcp, game) = (far_dhcp?, near_dhcp?, game?);
        for _ in 0..3 {
            python(a1, SAY, &["255.255.255.255", "67", "discover", "68"])?;
        }
        python(a1, SAY, &["255.255.255.255", "7000", "hello", "0"])?;
        expect(&game, "hello from 192.168.1.20", 1)?;
        expect(&near_dhcp, "discover from 192.168.1.20", 3)?;
        ensure!(far_dhcp.stdout() == "ready\n", "{}", far_dhcp.stdout());
        ensure!(houses.drops("segment_router")? >= 3, "not counted");
        // a far host cannot take over an address that answers here
        ping(a1, "192.168.1.21")?;
        let before = neighbour(a1, "192.168.1.21")?;
        python(b1, FORGE, &["192.168.1.21"])?;
        ping(a1, "192.168.1.21")?;
        ensure!(neighbour(a1, "192.168.1.21")? == before && before == mac(a2, LAN)?);
        // two hosts with one address: each house has its own, and it is named
        b1.ip(&format!("addr add 192.168.1.21/24 dev {LAN}"))?;
        ping(b1, "-I 192.168.1.21 192.168.1.31")?;
        ping(a1, "192.168.1.21")?;
        ensure!(neighbour(a1, "192.168.1.21")? == mac(a2, LAN)?);
        eventually("the conflict is named", || {
            for member in &houses.network.members {
                let said = member.host.ask("lcroute", &["lan"])?.stdout;
                if said.contains("192.168.1.21 is here and behind") {
                    return Ok(());
                }
            }
            bail!("no conflict")
        })
    });
}

#[test]
fn a_sealed_segment_is_read_by_gateways_with_the_key_alone() {
    world("segment-sealed", |lab| {
        let hosts = lab.closed_hosts(&["gw0", "gw1"])?;
        let sites = houses(lab, [&hosts[..1], &hosts[1..]])?;
        share_key("home.key", &[&hosts[0], &hosts[1]])?;
        for host in &hosts {
            let keyfile = host.path("home.key").display().to_string();
            host.configure(&format!(
                "[[private]]\nsegment = \"home\"\nkeyfile = \"{keyfile}\"\n{SEGMENT}"
            ))?;
        }
        let houses = Houses::join(lab, hosts, sites, 1)?;
        let [a1, _, b1, _] = houses.hosts();
        ping(a1, "-s 1472 -M do 192.168.1.30")?;
        let game = serve(b1, GAME, &[])?;
        python(a1, PLAYER, &["255.255.255.255", "1"])?;
        drop(game);
        send_film(a1, b1, "192.168.1.30")?;
        let [near, far] = houses.network.nodes()?;
        let said = near.host.ask("lcroute", &["lan"])?.stdout;
        ensure!(said.contains("sealed segment home: 2 LANs"), "{said}");
        // one of them loses the key
        far.host.reconfigure(SEGMENT)?;
        let asked = a1.run("ping", &["-c", "2", "-W", "1", "192.168.1.31"])?;
        ensure!(asked.code != 0, "{}", asked.stdout);
        let asked = b1.run("ping", &["-c", "2", "-W", "1", "192.168.1.21"])?;
        ensure!(asked.code != 0, "{}", asked.stdout);
        for (member, problem, remedy) in [
            (far, "gw0 seals this segment", "their key file"),
            (
                near,
                "gw1 does not seal this segment",
                "there: this host's key file",
            ),
        ] {
            eventually("both sides say it", || {
                let said = lan(member)?;
                let found = said["segment"]["problem"].as_str().unwrap_or_default();
                ensure!(found.starts_with(problem), "{said}");
                let doctor = member.host.ask("lcroute", &["doctor", "--json"])?.stdout;
                holds!(doctor.contains(remedy), "{doctor}")
            })?;
        }
        holds!(houses.drops("no_group_key")? > 0 && houses.drops("not_sealed")? > 0)
    });
}

#[test]
fn a_gateway_without_the_label_says_so_and_joins_nothing() {
    world("segment-label", |lab| {
        let hosts = lab.closed_hosts(&["gw0", "gw1"])?;
        let sites = houses(lab, [&hosts[..1], &hosts[1..]])?;
        crate::configure(&hosts, SEGMENT)?;
        let mut network = lab.network_invited(hosts, &["--gateway", "any"])?;
        network.start()?;
        let [permitted, other] = network.nodes()?;
        eventually("the certificate is the problem", || {
            let said = lan(other)?;
            let problem = said["segment"]["problem"].as_str().unwrap_or_default();
            ensure!(problem.contains("does not permit segment home"), "{said}");
            let lans = crate::doctor::check(&other.host, "lans")?;
            let remedy = lans["remedy"].as_str().unwrap_or_default();
            ensure!(
                lans["state"] == "fail" && remedy.contains("invite --segment"),
                "{lans}"
            );
            let said = lan(permitted)?;
            let problem = said["segment"]["problem"].as_str().unwrap_or_default();
            holds!(problem.contains("no other LAN"), "{said}")
        })?;
        let asked = sites[0].hosts[1].run("ping", &["-c", "1", "-W", "2", "192.168.1.30"])?;
        holds!(asked.code != 0, "{}", asked.stdout)
    });
}

#[test]
#[ignore = "`make test-all`: minutes"]
fn a_forwarder_that_dies_hangs_or_is_cut_is_replaced_under_a_connection() {
    world("segment-failover", |lab| {
        let mut houses = Houses::new(lab, 2)?;
        let (a1, b1) = (houses.hosts()[0].clone(), houses.hosts()[2].clone());
        let _echo = serve(&b1, ECHO, &[])?;
        let talk = serve(&a1, TALK, &["192.168.1.30"])?;
        let goes_on = |when: &str| {
            let before = talk.stdout().lines().count();
            exceeds(before + 50, || Ok(talk.stdout().lines().count()))
                .with_context(|| when.to_owned())
        };
        goes_on("they talk")?;
        for house in [0, 1] {
            let at = houses.forwarder(house)?;
            houses.network.members[at].daemon()?.kill()?;
            goes_on("a forwarder was killed")?;
            houses.network.members[at].start()?;
            houses.wait_joined()?;
            goes_on("it is back")?;
            let at = houses.forwarder(house)?;
            houses.network.members[at]
                .daemon()?
                .signal(Signal::SIGSTOP)?;
            goes_on("a forwarder hangs")?;
            houses.network.members[at]
                .daemon()?
                .signal(Signal::SIGCONT)?;
            goes_on("it goes on")?;
            houses.wait_joined()?;
            let at = houses.forwarder(house)?;
            let host = houses.network.members[at].host.clone();
            host.ip(&format!("link set {LAN} down"))?;
            goes_on("its cable was cut")?;
            host.ip(&format!("link set {LAN} up"))?;
            houses.wait_joined()?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: minutes"]
fn a_second_cable_between_the_houses_makes_no_storm_and_a_host_may_move() {
    two_houses("segment-cable", |houses, [a1, _, b1, _]| {
        let heard = serve(b1, HEAR, &["7000"])?;
        ping(a1, "192.168.1.30")?;
        let [a, b] = &houses.sites;
        let far = b.switch.namespace().path();
        a.switch.ip(&format!(
            "link add cable type veth peer name cable netns {far}"
        ))?;
        for switch in [&a.switch, &b.switch] {
            switch.ip("link set cable master bridge\nlink set cable up")?;
        }
        for _ in 0..20 {
            python(a1, SAY, &["255.255.255.255", "7000", "hello", "0"])?;
        }
        eventually("one gateway stands by", || {
            let roles: Result<Vec<_>> = houses
                .network
                .members
                .iter()
                .map(|m| Ok(lan(m)?["role"].clone()))
                .collect();
            let roles = roles?;
            holds!(roles.iter().filter(|role| *role == "forwarder").count() == 1)
        })?;
        let copies = heard
            .stdout()
            .lines()
            .filter(|line| line.starts_with("hello"))
            .count();
        ensure!((20..=40).contains(&copies), "{copies} of 20 heard");
        // one LAN by its wire: frames stop by themselves
        let (_, before) = a.switch.interface_traffic("cable")?;
        python(a1, SAY, &["255.255.255.255", "7000", "last", "0"])?;
        expect(&heard, "last from 192.168.1.20", 1)?;
        let (_, after) = a.switch.interface_traffic("cable")?;
        let frames = after.packets - before.packets;
        ensure!(frames < 200, "{frames} frames over the cable");
        let again = |when: &str| within(CORRECTED, when, || ping(a1, "192.168.1.30").map(drop));
        again("they reach each other over the cable")?;
        a.switch.ip("link del cable")?;
        again("they reach each other without it")?;
        houses.wait_joined()?;
        // the host moves into the other house, with its address
        a1.ip(&format!("link del {LAN}"))?;
        let far = b.switch.namespace().path();
        a1.ip(&format!(
            "link add {LAN} type veth peer name moved netns {far}"
        ))?;
        b.switch
            .ip("link set moved master bridge\nlink set moved up")?;
        a1.ip(&format!(
            "addr add 192.168.1.20/24 brd + dev {LAN}\nlink set {LAN} up"
        ))?;
        let [_, a2, b1, _] = houses.hosts();
        eventually("it is reached at once in its new house", || {
            ping(a1, "192.168.1.30")?;
            ping(b1, "192.168.1.20")?;
            ping(a2, "192.168.1.20").map(drop)
        })?;
        holds!(place(&houses.network.members[0], "192.168.1.20")?.1 == "behind gw1")
    });
}

#[test]
#[ignore = "`make test-all`: minutes"]
fn guests_of_a_bridge_see_no_frames_for_hosts_elsewhere() {
    world("segment-bridge", |lab| {
        // the gateway of house A is itself the bridge
        let hosts = lab.closed_hosts(&["gw0", "gw1"])?;
        let sites = houses(lab, [&hosts[..1], &hosts[1..]])?;
        let guest = lab.detached_host("guest")?;
        let there = guest.namespace().path();
        hosts[0].ip(&format!(
            "addr flush dev {LAN}\nlink add br0 type bridge mcast_snooping 0\nlink set {LAN} master br0\n\
             link add guest type veth peer name {LAN} netns {there}\nlink set guest master br0\nlink set guest up\n\
             link set br0 up\naddr add 192.168.1.10/24 dev br0"
        ))?;
        guest.ip(&format!("link set {LAN} up"))?;
        hosts[0].configure(&SEGMENT.replace("lan0", "br0"))?;
        hosts[1].configure(SEGMENT)?;
        let houses = Houses::join(lab, hosts, sites, 1)?;
        let [a1, _, _, _] = houses.hosts();
        ping(a1, "192.168.1.30")?;
        let (received, _) = guest.interface_traffic(LAN)?;
        let before = received.packets;
        let args = ["-c", "200", "-i", "0.01", "-q", "192.168.1.30"];
        a1.run("ping", &args)?.success()?;
        let (received, _) = guest.interface_traffic(LAN)?;
        let frames = received.packets - before;
        ensure!(frames < 50);
        let entries = houses.network.members[0]
            .host
            .ask("bridge", &["fdb", "show", "br", "br0"])?
            .stdout;
        holds!(entries.contains("02:6c:63:"), "{entries}")
    });
}

#[test]
#[ignore = "`make test-all`: minutes"]
fn two_members_in_the_two_houses_do_not_link_through_the_segment() {
    world("segment-own-links", |lab| {
        let houses = Houses::new(lab, 1)?;
        // members on the LANs alone, without a way to each other but the segment
        let [a1, _, b1, _] = houses.hosts();
        let mut members = Vec::new();
        for host in [a1, b1] {
            host.run(
                "lcroute",
                &["join", &houses.network.token, "--name", host.name()],
            )?
            .success()?;
            let mut member = Member::new(host.clone());
            member.start()?;
            members.push(member);
        }
        let [near, far] = crate::each(&members)?;
        let far_id = far.peer_id()?;
        // each finds the gateway of its own LAN, which has another way out
        eventually("they are in the network", || {
            holds!(!near.routes()?.is_empty() && !far.routes()?.is_empty())
        })?;
        let dropped = houses.drops("segment_own_link")?;
        exceeds(dropped.max(1), || houses.drops("segment_own_link"))?;
        let linked = near.linked_with()?;
        holds!(
            !linked.contains(&far_id) && !linked.contains(&far.host.name().to_owned()),
            "{linked:?}"
        )
    });
}

#[test]
#[ignore = "a measurement"]
fn throughput_and_round_trips_beside_lc0() {
    world("segment-rate", |lab| {
        let mut houses = Houses::with(
            lab,
            1,
            "rate = \"10G\"\nrate_out = \"10G\"\n[network]\nunicast = true\n",
            |_| Ok(()),
        )?;
        let [a1, _, b1, _] = houses.hosts().map(Clone::clone);
        let [near, far] = houses.network.nodes()?;
        let far_address = far.address()?.to_string();
        let [near, far] = [near, far].map(|node| node.host.clone());
        for _ in 0..3 {
            for (client, server, address) in [
                (&a1, &b1, "192.168.1.30"),
                (&near, &far, far_address.as_str()),
            ] {
                let family: &[&str] = if address.contains(':') { &["-V"] } else { &[] };
                let serve = [family, &["-s", "-p", "5999"]].concat();
                let _server = server.spawn("iperf", &serve)?;
                eventually("iperf has sent 400 MB", || {
                    let before = daemons_seconds(&mut houses.network)?;
                    let send = ["-c", address, "-p", "5999", "-n", "400M", "-f", "m"];
                    let done = client.run("iperf", &[family, &send].concat())?;
                    let line = done
                        .stdout
                        .lines()
                        .rfind(|line| line.contains("bits/sec"))
                        .unwrap_or_default()
                        .to_owned();
                    ensure!(
                        done.code == 0 && !line.is_empty(),
                        "{}{}",
                        done.stdout,
                        done.stderr
                    );
                    let spent = daemons_seconds(&mut houses.network)? - before;
                    println!("{address}: {line}, processor time of both daemons {spent:.2} s");
                    Ok(())
                })?;
                let done = client.call(&format!("ping -c 1000 -i 0.002 -D {address}"))?;
                let times = done.stdout.lines().filter_map(|line| {
                    line.split("time=")
                        .nth(1)?
                        .split(' ')
                        .next()?
                        .parse::<f64>()
                        .ok()
                });
                let mut times: Vec<f64> = times.collect();
                times.sort_by(f64::total_cmp);
                println!(
                    "{address}: ping p50 {} ms, p99 {} ms",
                    times[times.len() / 2],
                    times[times.len() * 99 / 100]
                );
            }
        }
        let (_, before) = near.interface_traffic(UPLINK)?;
        sleep(Duration::from_secs(30));
        let (_, after) = near.interface_traffic(UPLINK)?;
        println!(
            "30 s of silence: {} packets, {} bytes",
            after.packets - before.packets,
            after.bytes - before.bytes
        );
        Ok(())
    });
}

/// Processor time of all daemons, in seconds.
fn daemons_seconds(network: &mut Network) -> Result<f64> {
    let mut daemons = network
        .members
        .iter_mut()
        .map(|member| member.daemon()?.processor_time());
    daemons.try_fold(0.0, |sum, seconds| Ok(sum + seconds?))
}
