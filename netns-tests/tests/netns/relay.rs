//! Links that need a relay: that of the signalling server, and coturn.

use crate::foreign;
use crate::ports::path;
use crate::prelude::*;

/// Returns two members of a network whose signalling server relays; not started.
fn relayed(lab: &Lab, hosts: Vec<Host>) -> Result<Network> {
    let mut network = lab.network(hosts)?;
    network.signalling.restart_with_relay()?;
    Ok(network)
}

/// Starts both; returns the time until they were linked.
fn start(network: &mut Network) -> Result<Duration> {
    network.start_each()?;
    let begun = Instant::now();
    network.wait_linked()?;
    let took = begun.elapsed();
    println!("linked {took:?} after both were ready");
    Ok(took)
}

fn expect_paths(network: &Network, paths: [&str; 2]) -> Result<()> {
    let [a, b] = network.nodes()?;
    let found = [path(a)?, path(b)?];
    holds!(found == paths, "{found:?}, not {paths:?}")
}

/// Checks that packets of up to lc0's MTU pass in both directions.
fn expect_carries(network: &Network) -> Result<()> {
    let [a, b] = network.nodes()?;
    let at_b = b.host.receive("ff1e::b", &[])?;
    let at_a = a.host.receive("ff1e::a", &[])?;
    a.wait_wanted("ff1e::b", b)?;
    b.wait_wanted("ff1e::a", a)?;
    a.host.send("ff1e::b", 300, &["--size", "1200"])?;
    b.host.send("ff1e::a", 300, &["--size", "1200"])?;
    at_b.expect_exactly(300)?;
    at_a.expect_exactly(300)
}

/// Returns hosts with UDP blocked both ways; they reach only TCP 7117 of the signalling server.
fn without_udp(lab: &Lab) -> Result<Vec<Host>> {
    let hosts = lab.closed_hosts(&["a", "b"])?;
    hosts.iter().try_for_each(Host::drop_udp)?;
    Ok(hosts)
}

fn symmetric(lab: &Lab) -> Result<Vec<Host>> {
    let names = ["a", "b"].into_iter();
    names
        .map(|name| lab.host_behind_symmetric_nat(name))
        .collect()
}

#[test]
fn two_symmetric_nats_are_linked_by_a_relay_that_sees_nothing_in_the_clear() {
    world("relay-symmetric", |lab| {
        let mut network = relayed(lab, symmetric(lab)?)?;
        let pcap = network.signalling.host.path("relay.pcap");
        let pcap = pcap.display().to_string();
        let host = &network.signalling.host;
        let mut dump = host.spawn("tcpdump", &["-i", "any", "-U", "-w", &pcap, "udp"])?;
        dump.says("listening on")?;
        start(&mut network)?;
        expect_paths(&network, ["relay", "relay"])?;
        expect_carries(&network)?;
        dump.stop()?;
        let seen = fs::read(&pcap)?;
        ensure!(seen.len() > 600 * 1_200, "{} bytes passed", seen.len());
        // every packet of the lab has its sender's name; a PeerId occurs as text or as 32 bytes
        let holds = |what: &[u8]| seen.windows(what.len()).any(|w| w == what);
        ensure!(!holds(&[0xff, 0x1e, 0, 0, 0, 0, 0, 0]), "a group's address");
        for member in network.nodes::<2>()? {
            let id = member.peer_id()?;
            let key: librecast::id::PeerId = id.parse()?;
            ensure!(!holds(id.as_bytes()) && !holds(key.public_key()), "{id}");
        }
        let [a, _] = network.nodes()?;
        let status = a.status()?;
        holds!(status["relay"]["offered"] == 1, "{status}")
    });
}

/// Random datagrams to the relay's ports: 45 Mbit/s to each, or `JUNK` packets a second.
#[test]
fn junk_for_relayed_ports_takes_nothing_from_links() {
    world("relay-junk", |lab| {
        let mut network = relayed(lab, symmetric(lab)?)?;
        start(&mut network)?;
        expect_paths(&network, ["relay", "relay"])?;
        let mallory = lab.host("mallory")?;
        let rate = std::env::var("JUNK").unwrap_or_else(|_| "4000".to_owned());
        // one relay suffices: a node whose path uses the peer's relay releases its own
        let mut addresses = Vec::new();
        eventually("the relay has given a port", || {
            addresses.clear();
            for member in network.nodes::<2>()? {
                let status = member.status()?;
                let given = status["relay"]["address"].as_str();
                addresses.extend(given.map(str::to_owned));
            }
            holds!(!addresses.is_empty(), "none")
        })?;
        let mut floods = Vec::new();
        for address in &addresses {
            let args = [address, "--kind", "7", "--rate", &rate, "--seconds", "600"];
            floods.push(mallory.spawn("udp-flood", &args)?);
        }
        let server = &network.signalling.host;
        let received = || -> Result<u64> {
            let text = server.ask("cat", &["/proc/net/snmp"])?.stdout;
            let row = text.lines().rfind(|line| line.starts_with("Udp: "));
            let fields = row.context("no counters")?.split(' ').collect::<Vec<_>>();
            // read, or refused by the filter of the relay's socket
            Ok(fields[1].parse::<u64>()? + fields[3].parse::<u64>()?)
        };
        let before = received()?;
        exceeds(10_000, || Ok(received()? - before))?;
        for _ in 0..3 {
            expect_carries(&network)?;
        }
        expect_paths(&network, ["relay", "relay"])?;
        let junk = received()? - before;
        println!("{junk} datagrams of junk arrived meanwhile");
        drop(floods);
        Ok(())
    });
}

#[test]
fn where_all_udp_is_dropped_a_relay_is_reached_by_tcp_until_udp_passes() {
    world("relay-tcp", |lab| {
        let mut network = relayed(lab, without_udp(lab)?)?;
        start(&mut network)?;
        expect_paths(&network, ["tcp", "tcp"])?;
        expect_carries(&network)?;
        let [a, b] = network.nodes()?;
        let since = || Ok::<_, anyhow::Error>(b.peers()?[0]["since_s"].as_u64());
        at_least(Some(2), &since)?;
        a.host.pass_udp()?;
        b.host.pass_udp()?;
        let begun = Instant::now();
        within(Duration::from_secs(60), "the path is direct", || {
            expect_paths(&network, ["host", "host"])
        })?;
        println!("direct {:?} after UDP passed", begun.elapsed());
        ensure!(since()? >= Some(2), "the link was made anew");
        expect_carries(&network)
    });
}

#[test]
fn a_doctor_says_what_leads_to_a_relay() {
    world("relay-doctor", |lab| {
        let network = relayed(lab, without_udp(lab)?)?;
        let [_, b] = network.nodes()?;
        let ask = |member: &Member| -> Result<String> {
            Ok(crate::doctor::check(&member.host, "relay")?.to_string())
        };
        let cut = ask(b)?;
        ensure!(cut.contains("no answer by UDP, TCP works"), "{cut}");
        b.host.pass_udp()?;
        let open = ask(b)?;
        holds!(open.contains("UDP works, TCP works"), "{open}")
    });
}

/// Starts coturn with the secret `north`, on UDP, TCP and TLS of its host.
fn coturn(host: &Host) -> Result<Process> {
    let data = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lcroute/signalling/tests/data"
    );
    let config = format!(
        "listening-port=3478\ntls-listening-port=5349\nlistening-ip={ip}\nrelay-ip={ip}\nuse-auth-secret\n\
         static-auth-secret=north\nrealm=lab\ncert={data}/cert.pem\npkey={data}/key.pem\nno-cli\nno-multicast-peers\n\
         no-tcp-relay\nlog-file=stdout\nsimple-log\nverbose\nuserdb={db}\npidfile={pid}\n",
        ip = host.v4()?,
        db = host.path("turndb").display(),
        pid = host.path("turn.pid").display(),
    );
    let config = host.write("turn.conf", config)?.display().to_string();
    let turn = foreign::start(host, "turnserver", &["-c", &config])?;
    tells("listener opened on", || Ok(foreign::said(&turn)))?;
    Ok(turn)
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn coturn_relays_over_udp_tcp_and_tls() {
    for (url, udp, expected) in [
        ("turn:HOST:3478", true, "relay"),
        ("turn:HOST:3478", false, "tcp"),
        ("turn:HOST:3478?transport=tcp", false, "tcp"),
        ("turns:localhost:5349?transport=tcp", false, "tcp"),
    ] {
        world("relay-coturn", |lab| {
            let hosts = if udp {
                symmetric(lab)?
            } else {
                without_udp(lab)?
            };
            let relay = lab.host("relay")?;
            let turn = coturn(&relay)?;
            let at = relay.v4()?.to_string();
            let url = url.replace("HOST", &at);
            let mut ways = Vec::new();
            for host in &hosts {
                // the certificate is for this name
                host.write(
                    "authorities.pem",
                    include_str!("../../../lcroute/signalling/tests/data/cert.pem"),
                )?;
                let args = [
                    "TCP-LISTEN:5349,bind=127.0.0.1,fork",
                    &format!("TCP:{at}:5349"),
                ];
                ways.push(host.spawn("socat", &args)?);
                let secret = host.write("secret", "north\n")?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(&secret, mode)?;
                let secret = secret.display();
                host.configure(&format!(
                    "[relay]\nturn = [\"{url}\"]\nsecret_file = \"{secret}\"\n"
                ))?;
            }
            let mut network = lab.network(hosts)?;
            start(&mut network)?;
            expect_paths(&network, [expected, expected]).with_context(|| foreign::said(&turn))?;
            expect_carries(&network)
        });
    }
}

/// Starts squid on port 3128 of its host, for `ann` with `pass`; it connects to port 7117 alone. It
/// does not run as root.
fn squid(host: &Host) -> Result<Process> {
    let root = foreign::root()?.display().to_string();
    let login = "#!/bin/sh\nwhile read -r login; do\n  case $login in 'ann pass') echo OK;; *) echo ERR;; esac\ndone\n";
    let login = host.write("login", login)?.display().to_string();
    let config = format!(
        "http_port 3128\nvisible_hostname proxy\nauth_param basic program /bin/sh {login}\nauth_param basic children 1\n\
         acl known proxy_auth REQUIRED\nacl server port 7117\nacl tunnel method CONNECT\n\
         http_access deny !tunnel\nhttp_access deny !server\nhttp_access allow known\nhttp_access deny all\n\
         cache deny all\npinger_enable off\nshutdown_lifetime 0 seconds\npid_filename none\ncache_log /dev/null\n\
         access_log none\nmime_table {root}/usr/share/squid/mime.conf\n\
         error_directory {root}/usr/share/squid-langpack/templates\nicon_directory {root}/usr/share/squid/icons\n\
         unlinkd_program {root}/usr/lib/squid/unlinkd\n"
    );
    let config = host.write("squid.conf", config)?.display().to_string();
    // the name is of its shared memory, which a killed one leaves
    let name = format!("lc{}", std::process::id());
    let squid = foreign::foreign("squid", &["-N", "-n", &name, "-d", "1", "-f", &config])?;
    let mut args = vec!["--reuid=65534", "--regid=65534", "--clear-groups", "env"];
    args.extend(squid.iter().map(String::as_str));
    let squid = host.spawn("setpriv", &args)?;
    tells("Accepting HTTP", || Ok(foreign::said(&squid)))?;
    Ok(squid)
}

/// Nothing leaves these hosts but TCP to the proxy.
#[test]
#[ignore = "`make test-all`: programs of others"]
fn hosts_that_only_a_web_proxy_leads_out_are_linked_through_it() {
    world("relay-web-proxy", |lab| {
        let proxy = lab.host("proxy")?;
        let mut squid = squid(&proxy)?;
        let at = proxy.v4()?;
        let hosts = lab.closed_hosts(&["a", "b"])?;
        for host in &hosts {
            host.nft(&format!(
                "table inet proxy_alone {{
                   chain output {{
                     type filter hook output priority -20; policy accept;
                     oifname \"eth0\" ip daddr {at} tcp dport 3128 accept
                     oifname \"eth0\" drop
                   }}
                 }}"
            ))?;
        }
        let mut network = relayed(lab, hosts)?;
        let configure = |network: &Network, login: &str| -> Result<()> {
            for member in &network.members {
                let file = member.host.write("proxy-login", login)?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(&file, mode)?;
                member.host.configure(&format!(
                    "[signal]\nlan = false\nhttps_proxy = \"http://{at}:3128\"\nhttps_proxy_login = {file:?}\n"
                ))?;
            }
            Ok(())
        };
        configure(&network, "ann:wrong\n")?;
        network.start_each()?;
        let doctor = network.members[0].host.ask("lcroute", &["doctor"])?.stdout;
        shows_all(&doctor, &["refuses this user and password (407)"])?;
        configure(&network, "ann:pass\n")?;
        for member in &network.members {
            member.host.call("lcroute reload")?;
        }
        let begun = Instant::now();
        network.wait_linked()?;
        println!("linked {:?} after the right password", begun.elapsed());
        expect_paths(&network, ["tcp", "tcp"])?;
        expect_carries(&network)?;
        squid.stop()?;
        for member in network.nodes::<2>()? {
            member.wait_links(0)?;
        }
        Ok(())
    });
}
