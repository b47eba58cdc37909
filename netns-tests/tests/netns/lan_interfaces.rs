//! Interfaces of a LAN's gateway: cables, names, bridges, VLANs, sizes, addresses, other members.

use std::net::SocketAddrV6;

use lcroute_demo::lab;
use librecast::ethernet::MacAddress;
use librecast::packet;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lan::{GROUP, LAN, Sites, lan};
use crate::lan_hosts::counted;
use crate::offload::{PORT, equal_sizes, receive, receiver, send_train, udp};
use crate::prelude::*;

/// Waits until a gateway's LAN is off; returns the problem.
fn wait_off(gateway: &Member) -> Result<String> {
    eventually("the LAN is off", || {
        let said = lan(gateway)?;
        ensure!(said["role"] == "off", "{said}");
        let problem = said["problem"].as_str().context("no problem")?;
        Ok(problem.to_owned())
    })
}

fn wait_prefixes(gateway: &Member, prefixes: &[&str]) -> Result<()> {
    eventually("the LAN has these prefixes", || {
        let said = lan(gateway)?;
        holds!(said["prefixes"] == Value::from(prefixes), "{said}")
    })
}

fn reload(gateway: &Member, lans: &str) -> Result<()> {
    gateway.host.configure(lans)?;
    let done = gateway.host.run("lcroute", &["reload"])?;
    done.success().map(drop)
}

/// Adds an address like DHCPv6 or a router, without duplicate detection.
fn add_address(host: &Host, address: &str, interface: &str) -> Result<()> {
    host.ip(&format!("addr add {address}/64 dev {interface} nodad"))
}

fn remove_address(host: &Host, address: &str, interface: &str) -> Result<()> {
    host.ip(&format!("addr del {address}/64 dev {interface}"))
}

#[test]
fn a_cable_that_was_pulled_is_served_again() {
    two_lans("lan-cable", 1, "", |sites, [a, b]| {
        let listener = b.hosts[0].receive(GROUP, &[])?;
        let _sender = a.hosts[0].send_for_ever(GROUP)?;
        listener.expect_more("before")?;
        for (at, site) in [a, b].into_iter().enumerate() {
            let gateway = &sites.members(at)[0];
            site.switch.ip("link set port1 down")?;
            eventually("the gateway serves no more", || {
                let said = lan(gateway)?;
                holds!(said["role"] != "forwarder", "{said}")
            })?;
            site.switch.ip("link set port1 up")?;
            sites.wait_forwarder(at)?;
            listener.expect_more("with the cable plugged in again")?;
        }
        listener.expect_no_duplicates()
    });
}

#[test]
fn an_interface_that_is_gone_is_off_and_one_of_that_name_is_served() {
    two_lans("lan-gone", 1, "", |sites, [a, b]| {
        let listener = b.hosts[0].receive(GROUP, &[])?;
        let _sender = a.hosts[0].send_for_ever(GROUP)?;
        listener.expect_more("before")?;

        let gateway = &sites.members(1)[0];
        let rename = |from: &str, to: &str| {
            let commands =
                format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up");
            gateway.host.ip(&commands)
        };
        rename(lab::LAN, "other0")?;
        let problem = wait_off(gateway)?;
        ensure!(problem.contains("no such interface"), "{problem}");
        rename("other0", lab::LAN)?;
        sites.wait_forwarder(1)?;
        listener.expect_more("under the old name")?;
        let address = format!("link set {} address 02:00:00:00:00:77", lab::LAN);
        gateway.host.ip(&address)?;
        listener.expect_more("from another Ethernet address")?;

        // the senders' side, with a new interface and its usual duplicate detection
        let gateway = &sites.members(0)[0];
        gateway.host.ip(&format!("link del {}", lab::LAN))?;
        let problem = wait_off(gateway)?;
        ensure!(problem.contains("no such interface"), "{problem}");
        let far = a.switch.namespace().path();
        gateway.host.ip(&format!(
            "link add {0} type veth peer name port1 netns {far}\nlink set {0} up",
            lab::LAN
        ))?;
        a.switch
            .ip("link set port1 master bridge\nlink set port1 up")?;
        add_address(&gateway.host, "2001:db8:a001::1", lab::LAN)?;
        sites.wait_forwarder(0)?;
        listener.expect_more("from a new interface")?;
        listener.expect_no_duplicates()
    });
}

#[test]
fn a_bridge_is_served_and_its_port_names_it() {
    two_lans("lan-bridge", 1, "", |sites, [a, b]| {
        for (at, address) in [(0, "2001:db8:a001::1"), (1, "2001:db8:a002::1")] {
            let gateway = &sites.members(at)[0];
            let host = &gateway.host;
            host.ip(&format!(
                "link add br7 type bridge\nlink set br7 up\nlink set {} master br7",
                lab::LAN
            ))?;
            remove_address(host, address, lab::LAN)?;
            add_address(host, address, "br7")?;
            let problem = wait_off(gateway)?;
            ensure!(problem.contains("part of br7"), "{problem}");
            reload(gateway, "[[lan]]\ninterface = \"br7\"\n")?;
            sites.wait_forwarder(at)?;
        }
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        a.hosts[0].send(GROUP, 200, &["--rate", "400"])?;
        listener.expect_exactly(200)
    });
}

/// Returns names and problems of a gateway's LANs.
fn all_lans(gateway: &Member) -> Result<Vec<(String, String)>> {
    let said = gateway.host.ask("lcroute", &["lan", "--json"])?.success()?;
    let all: Vec<Value> = serde_json::from_str(&said.stdout)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lans = all.iter();
    Ok(lans
        .map(|lan| (text(&lan["interface"]), text(&lan["problem"])))
        .collect())
}

#[test]
fn interfaces_whose_names_match_come_and_go_without_a_warning() {
    world("lan-pattern", |lab| {
        let mut sites = Sites::new(lab, 1)?;
        let [a, b] = &sites.sites;
        let listener = b.hosts[0].receive(GROUP, &[])?;
        let _sender = a.hosts[0].send_for_ever(GROUP)?;
        listener.expect_more("by its name")?;

        let gateway = &sites.members(1)[0];
        let rename = |from: &str, to: &str| {
            let commands =
                format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up");
            gateway.host.ip(&commands)
        };
        reload(gateway, "[[lan]]\ninterface = \"br-*\"\n")?;
        let none = || becomes(0, || Ok(all_lans(gateway)?.len()));
        none()?;
        let doctor = gateway.host.ask("lcroute", &["doctor"])?.stdout;
        ensure!(doctor.contains("br-* (none now)"), "{doctor}");
        for name in ["br-7", "br-8"] {
            rename(lab::LAN, name)?;
            sites.wait_forwarder(1)?;
            ensure!(lan(gateway)?["interface"] == name);
            listener.expect_more(name)?;
            rename(name, lab::LAN)?;
            none()?;
        }
        rename(lab::LAN, "br-7")?;
        sites.wait_forwarder(1)?;

        // more than the bound: those already served stay
        for n in 0..8 {
            let made = format!("link add br-d{n} type bridge\nlink set br-d{n} up");
            gateway.host.ip(&made)?;
        }
        let (of_pattern, beyond) = eventually("all are looked at", || {
            let all = all_lans(gateway)?;
            ensure!(all.len() == 9, "{all:?}");
            let beyond = all.into_iter();
            let (beyond, served): (Vec<_>, Vec<_>) =
                beyond.partition(|(_, problem)| problem.contains("8 LANs are served already"));
            Ok((served, beyond))
        })?;
        ensure!(of_pattern.len() == 8 && beyond.len() == 1, "{beyond:?}");
        listener.expect_more("beside others")?;
        gateway.host.ip("link del br-d0")?;
        eventually("the one that waited is served", || {
            let all = all_lans(gateway)?;
            let waits = |(_, problem): &(String, String)| problem.contains("served already");
            holds!(all.len() == 8 && !all.iter().any(waits), "{all:?}")
        })?;

        let said = sites.network.members[1].daemon()?.stderr();
        let of_lans = said.lines().filter(|line| line.contains("br-"));
        let bad =
            of_lans.filter(|line| line.contains("WARN") || line.contains("no such interface"));
        let bad: Vec<_> = bad.collect();
        holds!(bad.is_empty(), "{bad:?}")
    });
}

#[test]
fn frames_of_another_vlan_are_not_carried_and_a_priority_is_none() {
    two_lans("lan-tags", 1, "", |sites, [a, b]| {
        let gateway = &sites.members(0)[0];
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let socket = a.hosts[0].namespace().run(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            packet::bind(&socket, Some(if_nametoindex(lab::LAN)?))?;
            Ok(socket)
        })?;
        let before = counted(gateway, "rx")?;
        // a VLAN; VLAN 0, which is only a priority; no tag
        let tags = [&[0x81, 0, 0, 7][..], &[0x81, 0, 0xa0, 0], &[]];
        for (tag, count) in tags.into_iter().zip([20, 5, 10]) {
            for number in 0..count {
                socket.send(&frame(tag, number)?)?;
            }
        }
        listener.expect(15)?;
        becomes(15, || Ok(counted(gateway, "rx")? - before))?;
        holds!(listener.packets()? == 15)
    });
}

/// Returns a frame with this tag from the first plain host of the first LAN.
fn frame(tag: &[u8], number: u64) -> Result<Vec<u8>> {
    let (source, group): (Ipv6Addr, Ipv6Addr) = ("2001:db8:a001::2".parse()?, GROUP.parse()?);
    let datagram = udp(source, &noise(number, 500), true);
    let length = u16::try_from(datagram.len())?.to_be_bytes();
    let frame = [
        &MacAddress::of_group(group).0[..],
        &[2, 0, 0, 0, 0, 1],
        tag,
        &[0x86, 0xdd, 0x60, 0, 0, 0],
        &length,
        &[17, 1],
        &source.octets(),
        &group.octets(),
        &datagram,
    ];
    Ok(frame.concat())
}

#[test]
fn an_interface_on_top_of_another_is_served() {
    two_lans("lan-on-top", 1, "", |sites, [a, b]| {
        let gateway = &sites.members(0)[0];
        // as containers do: a second address of the card
        let macvlan = "link add link lan0 name lan0.7 type macvlan mode bridge";
        gateway.host.ip(macvlan)?;
        let mut cases = vec![(lab::LAN, "2001:db8:a001::9", "2001:db8:a001::/64")];
        // few kernels lack VLANs
        let vlan = "link add link lan0 name lan0.9 type vlan id 9";
        if gateway.host.ip(vlan).is_ok() {
            a.hosts[0].ip(vlan)?;
            a.hosts[0].ip("link set lan0.9 up")?;
            add_address(&a.hosts[0], "2001:db8:a009::2", "lan0.9")?;
            cases.push(("lan0.9", "2001:db8:a009::1", "2001:db8:a009::/64"));
        } else {
            println!("this kernel has no VLANs: none was tried");
        }
        let listener = b.hosts[0].receive(GROUP, &[])?;
        let mut sent = 0;
        for ((at_host, address, prefix), name) in cases.into_iter().zip(["lan0.7", "lan0.9"]) {
            gateway.host.ip(&format!("link set {name} up"))?;
            add_address(&gateway.host, address, name)?;
            reload(gateway, &format!("[[lan]]\ninterface = \"{name}\"\n"))?;
            eventually("the interface is served", || {
                let said = lan(gateway)?;
                holds!(
                    said["interface"] == name && said["role"] == "forwarder",
                    "{said}"
                )
            })?;
            wait_prefixes(gateway, &[prefix])?;
            sites.wait_reported(0, 1)?;
            let group = format!("ff1e::{}", 100 + sent);
            let back = a.hosts[0].receive(&group, &["--interface", at_host])?;
            sites.network.members[1].wait_wanted(&group, gateway)?;
            let args = ["--rate", "400", "--interface", at_host];
            a.hosts[0].send(GROUP, 100, &args)?;
            sent += 100;
            listener.expect_exactly(sent)?;
            b.hosts[1].send(&group, 100, &["--rate", "400"])?;
            back.expect_exactly(100)?;
        }
        Ok(())
    });
}

#[test]
fn trains_of_datagrams_and_partial_checksums_arrive_right() {
    world("lan-trains", |lab| {
        let sites = Sites::with(lab, 1, "rate = \"2G\"\nrate_out = \"2G\"\n")?;
        let [a, b] = &sites.sites;
        let receivers = [receiver(&b.hosts[0], false)?, receiver(&b.hosts[0], true)?];
        sites.wait_reported(0, 1)?;
        let group: Ipv6Addr = GROUP.parse()?;
        let (train, raw) = a.hosts[0].namespace().run(|| {
            let train = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
            train.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0).into())?;
            train.connect(&SocketAddrV6::new(group, PORT, 0, 0).into())?;
            let raw = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::UDP))?;
            raw.connect(&SocketAddrV6::new(group, 0, 0, 0).into())?;
            Ok((train, raw))
        })?;
        let gateway = &sites.members(0)[0];
        let before = counted(gateway, "rx")?;
        let source = "2001:db8:a001::2".parse()?;
        for number in 0..20 {
            let datagrams = equal_sizes(number);
            // super-packets of some 20 KB, each ending with a shorter datagram
            for half in [&datagrams[..20], &datagrams[20..]] {
                send_train(&train, half)?;
            }
            for receiver in &receivers {
                ensure!(receive(receiver, datagrams.len())?.datagrams == datagrams);
            }
            // receivers' kernels check checksums: a wrong one stays wrong
            raw.send(&udp(source, &noise(number, 500), false))?;
        }
        // 20 times 41, and those with wrong checksums
        becomes(840, || Ok(counted(gateway, "rx")? - before))?;
        // behind all previous ones
        setsockopt(&train, sockopt::UdpGsoSegment, &0)?;
        train.send(b"the end")?;
        for receiver in &receivers {
            ensure!(receive(receiver, 1)?.datagrams == [b"the end".to_vec()]);
        }
        Ok(())
    });
}

/// Sets features of an interface, as `ethtool -K` does.
const FEATURES: &str = r#"
import array, fcntl, socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
def ask(data):
    buffer = array.array("B", data)
    address, _ = buffer.buffer_info()
    fcntl.ioctl(s, 0x8946, struct.pack("16sP16x", sys.argv[1].encode(), address))
    return buffer.tobytes()
count = struct.unpack("I", ask(struct.pack("IIQI", 0x37, 0, 1 << 4, 0))[16:20])[0]
names = ask(struct.pack("III", 0x1b, 4, count) + bytes(32 * count))[12:]
names = [names[32 * n:][:32].rstrip(b"\0").decode() for n in range(count)]
blocks = [[0, 0] for _ in range((count + 31) // 32)]
for wish in sys.argv[2:]:
    name, on = wish.split("=")
    block, bit = divmod(names.index(name), 32)
    blocks[block][0] |= 1 << bit
    blocks[block][1] |= (on == "on") << bit
ask(struct.pack("II", 0x3b, len(blocks)) + b"".join(struct.pack("II", *b) for b in blocks))
"#;

fn set_features(host: &Host, interface: &str, wishes: &[&str]) -> Result<()> {
    let args = [&["-c", FEATURES, interface][..], wishes].concat();
    host.run("python3", &args)?.success().map(drop)
}

#[test]
fn datagrams_that_the_card_has_put_together_arrive_apart() {
    world("lan-gro", |lab| {
        let sites = Sites::with(lab, 1, "rate = \"2G\"\nrate_out = \"2G\"\n")?;
        let [a, b] = &sites.sites;
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        // super-packets are cut on the gateway's cable: its card gets single datagrams in bursts
        a.switch.ip("link set port1 gso_max_segs 1")?;
        // only then the kernel coalesces packets of a lab cable
        set_features(
            &a.switch,
            "port1",
            &crate::words(
                "tx-tcp-segmentation=off tx-tcp-ecn-segmentation=off tx-tcp-mangleid-segmentation=off tx-tcp6-segmentation=off",
            ),
        )?;
        let gateway = &sites.members(0)[0];
        let mut sent = 0;
        for wishes in [
            ["rx-gro=on", "rx-udp-gro-forwarding=on", "rx-gro-list=off"],
            ["rx-gro=on", "rx-udp-gro-forwarding=off", "rx-gro-list=on"],
        ] {
            set_features(&gateway.host, lab::LAN, &wishes)?;
            let long = [
                "-l",
                "-n",
                "-i",
                lab::LAN,
                "ip6 dst ff1e::42 and greater 2000",
            ];
            let long = gateway.host.spawn("tcpdump", &long)?;
            long.says("listening")?;
            let args = ["--rate", "4000", "--size", "1000", "--gso", "20"];
            a.hosts[0].send(GROUP, 1_000, &args)?;
            exceeds(0, || Ok(long.stdout().len()))?;
            sent += 1_000;
            listener
                .expect(sent)
                .with_context(|| format!("{wishes:?} {:?}", lan(gateway)))?;
        }
        listener.expect_exactly(sent)
    });
}

#[test]
fn packets_of_1500_bytes_pass_and_larger_ones_are_answered() {
    two_lans("lan-mtu", 1, "", |sites, [a, b]| {
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        // 1,500 bytes with headers
        let whole = ["--rate", "400", "--size", "1452"];
        a.hosts[0].send(GROUP, 200, &whole)?;
        listener.expect_exactly(200)?;

        // a jumbo LAN: a too large packet gets an ICMP error, after which the sender fragments
        let [near, far] = [0, 1].map(|at| &sites.members(at)[0]);
        set_mtu(a, &near.host, 9_000)?;
        let jumbo = b.hosts[1].receive("ff1e::43", &[])?;
        sites.wait_reported(0, 2)?;
        let args = ["--rate", "100", "--size", "4000"];
        let sent = a.hosts[0].send("ff1e::43", 100, &args)?.packets;
        eventually("what was sent after the first answer has come", || {
            let refused = counted(near, "lan_too_big")?;
            let came = jumbo.packets()?;
            ensure!(refused > 0 && came + refused == sent, "{refused} {came}");
            holds!(came >= 90, "{came}")
        })?;
        println!("of {sent} that were too large {} came", jumbo.packets()?);
        jumbo.expect_no_duplicates()?;

        // a narrow LAN
        far.host.ip(&format!("link set {} mtu 1280", lab::LAN))?;
        eventually(
            "what is too large for the other LAN is dropped there",
            || {
                a.hosts[0].send(GROUP, 10, &whole)?;
                let refused = counted(far, "lan_too_big")?;
                holds!(refused >= 10, "{refused}")
            },
        )?;
        let before = listener.packets()?;
        // 1,280 bytes with headers
        a.hosts[0].send(GROUP, 100, &["--rate", "400", "--size", "1232"])?;
        listener.expect(before + 100)?;
        listener.expect_no_duplicates()
    });
}

/// Sets the MTU of all cables of a site, and of its switch.
fn set_mtu(site: &Site, gateway: &Host, mtu: u16) -> Result<()> {
    let ports = (1..=1 + site.hosts.len()).map(|n| format!("link set port{n} mtu {mtu}\n"));
    let ports: String = ports.collect();
    site.switch
        .ip(&format!("{ports}link set bridge mtu {mtu}"))?;
    let mut hosts = site.hosts.iter().chain([gateway]);
    hosts.try_for_each(|host| host.ip(&format!("link set {} mtu {mtu}", lab::LAN)))
}

#[test]
fn hosts_are_heard_whatever_their_addresses_become() {
    two_lans("lan-addresses", 1, "", |sites, [a, b]| {
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let host = &a.hosts[0];
        let gateway = &sites.members(0)[0];
        let _sender = host.send_for_ever(GROUP)?;
        let heard_from = |address: &str| {
            eventually("the sender has this address", || {
                let from = listener.state()?["senders"].clone();
                holds!(from.to_string().contains(address), "{from}")
            })?;
            listener.expect_more("from its address")
        };
        heard_from("2001:db8:a001::2")?;
        // like privacy extensions: a new address, the old one deprecated, then removed
        let private = "2001:db8:a001::5eed:1";
        add_address(host, private, lab::LAN)?;
        host.ip(&format!(
            "addr change 2001:db8:a001::2/64 dev {} preferred_lft 0",
            lab::LAN
        ))?;
        heard_from(private)?;
        remove_address(host, "2001:db8:a001::2", lab::LAN)?;
        listener.expect_more("without the old address")?;

        // another prefix for the whole LAN
        let renumbered = [(&gateway.host, "1"), (host, "2")];
        for (host, end) in renumbered {
            add_address(host, &format!("2001:db8:b001::{end}"), lab::LAN)?;
        }
        remove_address(host, private, lab::LAN)?;
        heard_from("2001:db8:b001::2")?;
        remove_address(&gateway.host, "2001:db8:a001::1", lab::LAN)?;
        wait_prefixes(gateway, &["2001:db8:b001::/64"])?;
        listener.expect_more("with the new prefix alone")?;
        listener.expect_no_duplicates()?;

        // the source address of the other gateway's queries
        let far = &sites.members(1)[0].host;
        let shown = far.run(
            "ip",
            &["-o", "addr", "show", "dev", lab::LAN, "scope", "link"],
        )?;
        let old = shown.stdout.split_whitespace().nth(3);
        let old = old.context("no link-local address")?;
        add_address(far, "fe80::77", lab::LAN)?;
        far.ip(&format!("addr del {old} dev {}", lab::LAN))?;
        let args = ["-l", "-n", "-i", lab::LAN, "ip6 src fe80::77"];
        let watch = b.hosts[1].spawn("tcpdump", &args)?;
        eventually(
            "a host that leaves makes it ask from the new address",
            || {
                drop(b.hosts[0].receive("ff1e::43", &[])?);
                let heard = watch.stdout();
                holds!(heard.contains("query"), "{heard}")
            },
        )?;
        listener.expect_more("with queries from another address")?;
        Ok(())
    });
}

#[test]
fn members_on_a_gateways_lan_hear_and_are_heard_once() {
    world("lan-member", |lab| {
        let sites = with_member(lab)?;
        let [a, b] = &sites.sites;
        let [near, far, member] = sites.network.nodes()?;
        // on lc0 of all three, and on both LANs
        let hosts = [
            &a.hosts[0],
            &b.hosts[0],
            &near.host,
            &far.host,
            &member.host,
        ];
        // sender, its interface, and the host that receives nothing
        let cases: [(&Host, Option<&str>, &str); 4] = [
            (&a.hosts[1], None, ""),
            (&b.hosts[1], None, ""),
            (&member.host, None, "third"),
            // as a host of the LAN
            (&member.host, Some(lab::LAN), ""),
        ];
        for (number, (sender, interface, deaf)) in (1..).zip(cases) {
            let group = format!("ff1e::{number}");
            let listeners: Result<Vec<_>> = hosts.iter().map(|h| h.receive(&group, &[])).collect();
            let listeners = listeners?;
            for node in [near, far, member] {
                let others = [near, far, member].into_iter();
                let mut others = others.filter(|other| other.host.name() != node.host.name());
                others.try_for_each(|other| node.wait_wanted(&group, other))?;
            }
            for at in 0..2 {
                sites.wait_reported(at, 1)?;
            }
            let interface = interface.map(|name| ["--interface", name]);
            let interface = interface.iter().flatten().copied();
            let args: Vec<_> = ["--rate", "200"].into_iter().chain(interface).collect();
            sender.send(&group, 100, &args)?;
            for (host, listener) in hosts.iter().zip(&listeners) {
                if host.name() != deaf {
                    let name = host.name();
                    listener.expect(100).context(format!("{group} {name}"))?;
                }
            }
            // a loop would cause duplicates
            sender.send(&group, 100, &args)?;
            for (host, listener) in hosts.iter().zip(&listeners) {
                if host.name() != deaf {
                    let name = host.name();
                    listener
                        .expect_exactly(200)
                        .context(format!("{group} {name}"))?;
                }
            }
        }
        for gateway in [near, far] {
            ensure!(
                counted(gateway, "lan_other_path")? == 0,
                "{}",
                lan(gateway)?
            );
        }
        Ok(())
    });
}

/// Starts two LANs with a gateway each; the first also has a member that is not a gateway.
fn with_member(lab: &Lab) -> Result<Sites> {
    let hosts = lab.closed_hosts(&["gw0", "gw1", "third"])?;
    let sites = [
        lab.site(1, &[&hosts[0], &hosts[2]], &["a1", "a2"])?,
        lab.site(2, &[&hosts[1]], &["b1", "b2"])?,
    ];
    for gateway in &hosts[..2] {
        gateway.configure(LAN)?;
    }
    let mut network = lab.network_invited(hosts, &["--gateway", "any"])?;
    network.start()?;
    let sites = Sites {
        network,
        gateways: 1,
        sites,
    };
    for at in 0..2 {
        sites.wait_forwarder(at)?;
    }
    Ok(sites)
}
