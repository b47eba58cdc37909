//! Faulty and hostile hosts of a LAN behind a gateway, with frames that no kernel would send.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use lcroute_demo::lab;
use librecast::ethernet::{ETHERTYPE_IPV6, MacAddress};
use librecast::ipv6::{Datagram, udp_packet};
use librecast::mld::{self, Query, Record, RecordType};
use librecast::packet;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lan::{GROUP, Sites, lan};
use crate::prelude::*;

/// An address of no interface in the lab.
const STRANGER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x66]);
const PROBE_PORT: u16 = 7118;

/// A host's packet socket: frames leave unchanged, with any source.
struct Raw(Socket);

impl Raw {
    fn of(host: &Host) -> Result<Raw> {
        host.namespace().run(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            packet::bind(&socket, Some(if_nametoindex(lab::LAN)?))?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            Ok(Raw(socket))
        })
    }

    /// Sends an IPv6 packet to its group.
    fn send(&self, from: MacAddress, packet: &[u8]) -> Result<()> {
        let group = packet.get(24..40).and_then(<[u8]>::first_chunk::<16>);
        let to = MacAddress::of_group((*group.context("no group")?).into());
        let frame = [&to.0[..], &from.0, &ETHERTYPE_IPV6.to_be_bytes(), packet];
        self.0.send(&frame.concat())?;
        Ok(())
    }

    fn query(&self, from: &str) -> Result<()> {
        let query = Query {
            max_response: Duration::from_millis(500),
            robustness: 2,
            query_interval: Duration::from_secs(1),
            ..Query::default()
        };
        self.send(STRANGER, &mld::query_packet(from.parse()?, &query))
    }

    /// Sends a join or PART of host `number` of a crowd.
    fn report(&self, from: MacAddress, number: u32, kind: RecordType, group: &str) -> Result<()> {
        let record = Record::new(kind, group.parse()?, Vec::new());
        let reports = mld::report_packets(member_of_crowd(number), &[record], 1_280);
        reports
            .iter()
            .try_for_each(|report| self.send(from, report))
    }

    /// Returns the next PROBE of each of `gateways` gateways, with its sender.
    fn probes(&self, gateways: usize) -> Result<Vec<(MacAddress, Vec<u8>)>> {
        let (mut seen, mut probes) = (BTreeSet::new(), Vec::new());
        let mut buffer = vec![0; 2_000];
        while seen.len() < gateways {
            let length = (&self.0).read(&mut buffer).context("no PROBE")?;
            let (head, packet) = buffer[..length].split_at_checked(14).context("short")?;
            let from = MacAddress(head[6..12].try_into()?);
            let datagram = Datagram::of_packet(packet);
            if datagram.is_some_and(|d| d.destination_port == PROBE_PORT) && seen.insert(from) {
                probes.push((from, packet.to_vec()));
            }
        }
        Ok(probes)
    }
}

fn member_of_crowd(number: u32) -> Ipv6Addr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xf, high, low)
}

fn mac_of_crowd(number: u32) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([2, 0x0f, a, b, c, d])
}

/// Returns a datagram of a LAN host, with content of no meaning.
fn datagram(source: Ipv6Addr, group: &str) -> Result<Vec<u8>> {
    Ok(udp_packet(
        source,
        group.parse()?,
        (5001, 1),
        &noise(1, 100),
    ))
}

/// Returns a counter of a gateway's LAN.
pub(crate) fn counted(gateway: &Member, counter: &str) -> Result<u64> {
    let said = lan(gateway)?;
    Ok(said["counters"][counter].as_u64().unwrap_or_default())
}

fn wait_counted(gateway: &Member, counter: &str, least: u64) -> Result<()> {
    at_least(least, || counted(gateway, counter))
}

/// Returns the number of hosts that have joined a group, as the gateway knows it.
fn hosts(gateway: &Member, group: &str) -> Result<u64> {
    let said = lan(gateway)?;
    let groups = said["listeners"].as_array().context("no listeners")?;
    let joined = groups.iter().find(|joined| joined["group"] == group);
    Ok(joined
        .and_then(|joined| joined["hosts"].as_u64())
        .unwrap_or(0))
}

fn wait_hosts(gateway: &Member, group: &str, right: impl Fn(u64) -> bool) -> Result<()> {
    eventually("the hosts that have joined are known", || {
        let hosts = hosts(gateway, group)?;
        holds!(right(hosts), "{hosts}")
    })
}

/// Sends until a condition holds, and checks that the listener misses nothing.
fn miss_nothing_until(
    (from, sent): (&Host, &mut u64),
    listener: &Receiver,
    holds: impl Fn() -> Result<()>,
) -> Result<()> {
    eventually("it holds while a host sends", || {
        *sent += from.send(GROUP, 100, &["--rate", "400"])?.packets;
        holds()
    })?;
    listener.expect_exactly(*sent)
}

#[test]
fn a_querier_that_is_no_gateway_comes_and_goes() {
    two_lans("lan-querier", 1, "", |sites, [a, b]| {
        let gateway = &sites.members(1)[0];
        let raw = Raw::of(&b.hosts[1])?;
        let watch = b.hosts[1].watch_mld(&["--packet", "--interface", lab::LAN])?;
        let listener = b.hosts[0].receive(GROUP, &[])?;
        let _sender = a.hosts[0].send_for_ever(GROUP)?;
        let wait_querier =
            |querier: &str| becomes(querier, || Ok(lan(gateway)?["querier"].clone()));
        // queries of the gateway for this group, or for all
        let asked = |group: &str| -> Result<usize> {
            let queries = watch.queries()?.into_iter();
            let ours = ["fe80::1", "fe80::ffff:ffff:ffff:ffff"].map(Value::from);
            let theirs = queries.filter(|q| q["query"] == group && !ours.contains(&q["source"]));
            Ok(theirs.count())
        };
        // a kernel's listener is noticed, and one of version 1 that leaves
        let come_and_go = |group: &str, v1: &str| -> Result<()> {
            let other = b.hosts[0].receive(group, &[])?;
            sites.wait_reported(0, 2)?;
            drop(other);
            sites.wait_reported(0, 1)?;
            for done in [false, true] {
                let packet = mld::v1_packet(member_of_crowd(1), v1.parse()?, done);
                raw.send(STRANGER, &packet)?;
                wait_hosts(gateway, v1, |hosts| hosts == u64::from(!done))?;
            }
            listener.expect_more("the listener that stays")
        };
        let before = counted(gateway, "mld")?;
        raw.query("fe80::ffff:ffff:ffff:ffff")?;
        wait_counted(gateway, "mld", before + 1)?;
        wait_querier("self")?;
        come_and_go("ff1e::71", "ff1e::81")?;
        ensure!(asked("ff1e::81")? > 0, "{:?}", watch.queries()?);

        raw.query("fe80::1")?;
        wait_querier("fe80::1")?;
        come_and_go("ff1e::72", "ff1e::82")?;
        raw.query("fe80::1")?;
        wait_querier("fe80::1")?;
        ensure!(asked("ff1e::82")? == 0, "{:?}", watch.queries()?);

        let before = asked("::")?;
        wait_querier("self")?;
        exceeds(before, || asked("::"))?;
        come_and_go("ff1e::73", "ff1e::83")?;
        ensure!(asked("ff1e::83")? > 0, "{:?}", watch.queries()?);
        listener.expect_no_duplicates()
    });
}

#[test]
fn hosts_that_know_version_1_alone_hear_and_leave() {
    two_lans("lan-version-1", 1, "", |sites, [a, b]| {
        let gateway = &sites.members(1)[0];
        let watch = gateway
            .host
            .watch_mld(&["--packet", "--interface", lab::LAN])?;
        for host in &b.hosts {
            let key = format!("net/ipv6/conf/{}/force_mld_version", lab::LAN);
            host.namespace().sysctl(&key, "1")?;
        }
        let [first, second] = [0, 1].map(|host| b.hosts[host].receive(GROUP, &[]));
        let (first, second) = (first?, second?);
        wait_hosts(gateway, GROUP, |hosts| hosts == 2)?;
        sites.wait_reported(0, 1)?;
        let mut sent = a.hosts[0].send(GROUP, 100, &["--rate", "400"])?.packets;
        first.expect_exactly(sent)?;
        drop(first);
        miss_nothing_until((&a.hosts[0], &mut sent), &second, || {
            let hosts = hosts(gateway, GROUP)?;
            holds!(hosts == 1, "{hosts}")
        })?;
        drop(second);
        sites.wait_reported(0, 0)?;
        let uplink = &sites.members(0)[0].host;
        let (_, before) = uplink.interface_traffic(UPLINK)?;
        a.hosts[0].send(GROUP, 500, &["--rate", "1000", "--size", "1200"])?;
        let (_, after) = uplink.interface_traffic(UPLINK)?;
        let bytes = (after - before).bytes;
        ensure!(bytes < 100_000, "{bytes} bytes for nobody");
        // reports of gateways are of version 2
        holds!(watch.seen("JOIN", GROUP)? == 0, "hosts spoke version 2")
    });
}

#[test]
fn nobody_of_a_crowd_is_cut_off() {
    world("lan-crowd", |lab| {
        const CROWD: u32 = 500;
        let sites = Sites::new(lab, 1)?;
        let [a, b] = &sites.sites;
        let gateway = &sites.members(1)[0];
        let raw = Raw::of(&b.hosts[1])?;
        let crowd = |kind| {
            let mut all = 0..CROWD;
            all.try_for_each(|n| raw.report(mac_of_crowd(n), n, kind, GROUP))
        };
        // the first is known individually, the second is beyond the crowd's bound
        let early = b.hosts[0].receive(GROUP, &[])?;
        wait_hosts(gateway, GROUP, |hosts| hosts == 1)?;
        crowd(RecordType::ChangeToExclude)?;
        wait_hosts(gateway, GROUP, |hosts| hosts > 64)?;
        let stays = b.hosts[1].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let watch = b.hosts[1].watch_mld(&["--packet", "--interface", lab::LAN])?;
        let asked = || -> Result<usize> {
            let queries = watch.queries()?;
            Ok(queries.iter().filter(|q| q["query"] == GROUP).count())
        };
        let mut sent = a.hosts[0].send(GROUP, 100, &["--rate", "400"])?.packets;
        early.expect_exactly(sent)?;
        drop(early);
        miss_nothing_until((&a.hosts[0], &mut sent), &stays, || {
            let hosts = hosts(gateway, GROUP)?;
            holds!(hosts <= 64, "{hosts}")
        })?;
        // of the crowd as well
        let late = b.hosts[0].receive(GROUP, &[])?;
        let before = asked()?;
        drop(late);
        miss_nothing_until((&a.hosts[0], &mut sent), &stays, || {
            let asked = asked()? - before;
            holds!(asked >= 2, "{asked} queries")
        })?;
        crowd(RecordType::ChangeToInclude)?;
        miss_nothing_until((&a.hosts[0], &mut sent), &stays, || {
            let hosts = hosts(gateway, GROUP)?;
            holds!(hosts == 1, "{hosts}")
        })?;
        drop(stays);
        sites.wait_reported(0, 0)
    });
}

/// Joins further groups, 10,000 a second, until `stop`.
fn flood_of_joins(raw: &Raw, mac: impl Fn(u32) -> MacAddress, stop: &AtomicBool) -> Result<u32> {
    let began = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_micros(100) * number;
        sleep(due.saturating_sub(began.elapsed()));
        for _ in 0..50 {
            number += 1;
            let group = format!("ff1e::f:{:x}:{:x}", number >> 16, number & 0xffff);
            raw.report(mac(number), number, RecordType::ChangeToExclude, &group)?;
        }
    }
    Ok(number)
}

#[test]
fn a_flood_of_joins_disturbs_neither_streams_nor_other_lans() {
    two_lans("lan-joins", 1, "", |sites, [a, b]| {
        let gateway = &sites.members(1)[0];
        let raw = Raw::of(&b.hosts[1])?;
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let (mut sent, mut others) = (0, Vec::new());
        for (round, is_forged) in (1..).zip([false, true]) {
            let mac = |number| match is_forged {
                true => mac_of_crowd(number),
                false => STRANGER,
            };
            let stop = AtomicBool::new(false);
            let limited = counted(gateway, "lan_join_limited")?;
            let joins = std::thread::scope(|scope| {
                let flood = scope.spawn(|| flood_of_joins(&raw, mac, &stop));
                let mut during = || -> Result<()> {
                    wait_counted(gateway, "lan_join_limited", limited + 1)?;
                    let group = format!("ff1e::{round}");
                    let other = a.hosts[1].receive(&group, &[])?;
                    sites.wait_reported(1, round)?;
                    sent += a.hosts[0].send(GROUP, 500, &["--rate", "500"])?.packets;
                    listener.expect_exactly(sent)?;
                    b.hosts[0].send(&group, 100, &["--rate", "400"])?;
                    other.expect_exactly(100)?;
                    others.push(other);
                    Ok(())
                };
                let result = during();
                stop.store(true, Ordering::Relaxed);
                let flood = flood.join().map_err(|_| anyhow::anyhow!("a panic"))?;
                result.and(flood)
            })?;
            let limited = counted(gateway, "lan_join_limited")? - limited;
            println!("{joins} joins, of which {limited} were not looked at");
        }
        Ok(())
    });
}

/// Returns the Ethernet address of a host on its LAN.
fn mac_of(host: &Host) -> Result<MacAddress> {
    let said = host
        .run("ip", &["-o", "link", "show", "dev", lab::LAN])?
        .success()?
        .stdout;
    let mut words = said.split_whitespace();
    let text = words.find(|word| *word == "link/ether").and(words.next());
    let bytes = text.context("no address")?.split(':');
    let bytes: Vec<u8> = bytes
        .map(|b| u8::from_str_radix(b, 16))
        .collect::<Result<_, _>>()?;
    Ok(MacAddress(bytes.as_slice().try_into()?))
}

#[test]
fn forged_sources_are_named_and_right_senders_are_heard() {
    two_lans("lan-forged", 1, "", |sites, [a, b]| {
        let [near, far] = sites.network.nodes()?;
        let raw = Raw::of(&b.hosts[1])?;
        let on_a = a.hosts[0].receive(GROUP, &[])?;
        let _sender = b.hosts[0].send_for_ever(GROUP)?;
        on_a.expect_more("the right sender")?;
        let cases = [
            ("lan_source_moved", STRANGER, "2001:db8:a002::2".parse()?),
            ("lan_link_local", STRANGER, "fe80::77".parse()?),
            (
                "lan_gateway_frame",
                mac_of(&near.host)?,
                "2001:db8:a002::3".parse()?,
            ),
            ("lan_foreign_source", STRANGER, far.address()?),
            // the lab's LANs share no path but the network: a route pretends that they do
            ("lan_foreign_source", STRANGER, near.address()?),
            ("lan_foreign_source", STRANGER, "2001:db8:a001::2".parse()?),
        ];
        for (name, mac, source) in cases {
            let before = counted(far, name)?;
            for _ in 0..20 {
                raw.send(mac, &datagram(source, GROUP)?)?;
            }
            wait_counted(far, name, before + 20)?;
        }
        on_a.expect_more("the right sender alone")?;
        let heard = on_a.state()?;
        let senders = heard["senders"].as_object().context("no senders")?;
        ensure!(senders.keys().eq(["2001:db8:a002::2"]), "{heard}");
        ensure!(heard["foreign"] == 0 && heard["duplicates"] == 0, "{heard}");

        // packets from that LAN stop only on the forger's LAN
        let group = "ff1e::43";
        let on_b = b.hosts[0].receive(group, &[])?;
        let on_lc0 = far.host.receive(group, &[])?;
        sites.wait_reported(0, 1)?;
        let before = counted(far, "lan_other_path")?;
        a.hosts[1].send(group, 100, &["--rate", "400"])?;
        on_lc0.expect_exactly(100)?;
        wait_counted(far, "lan_other_path", before + 100)?;
        ensure!(on_b.packets()? == 0, "{:?}", on_b.state()?);
        let said = lan(far)?;
        let problem = said["problem"].as_str().unwrap_or_default();
        holds!(problem.contains("another path"), "{said}")
    });
}

/// Forges a PROBE: a higher count, from the forwarder, cut off, longer, of another version, noise.
fn forged(probe: &[u8], number: u64) -> Vec<u8> {
    let mut forged = probe.to_vec();
    match number % 6 {
        // incarnation and counter follow version, network and origin
        0 => forged[15..27].fill(0xee),
        1 => (forged[15], forged[45]) = (0xee, 3),
        2 => forged.truncate(number as usize % probe.len()),
        3 => forged.extend(noise(number, 16)),
        4 => forged[0] = 2,
        _ => forged[1 + 6..].copy_from_slice(&noise(number, probe.len() - 7)),
    }
    forged
}

#[test]
fn forged_and_recorded_probes_change_no_forwarder() {
    world("lan-probes", |lab| {
        let sites = Sites::new(lab, 2)?;
        let raws = [
            Raw::of(&sites.sites[0].hosts[1])?,
            Raw::of(&sites.sites[1].hosts[1])?,
        ];
        let listener = sites.sites[1].hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let _sender = sites.sites[0].hosts[0].send_for_ever(GROUP)?;
        listener.expect_more("before")?;
        let forwarders = [sites.wait_forwarder(0)?, sites.wait_forwarder(1)?];
        // all gateways know each other
        let recorded = [raws[0].probes(2)?, raws[1].probes(2)?];
        let bad = |sites: &Sites, site: usize| -> Result<u64> {
            let members = sites.members(site).iter();
            members.map(|m| m.counter("drops/lan_bad_probe")).sum()
        };
        for site in 0..2 {
            let raw = &raws[site];
            let (before, mut least) = (bad(&sites, site)?, 0);
            for (from, packet) in &recorded[site] {
                let probe = Datagram::of_packet(packet).context("no PROBE")?.data;
                let source: Ipv6Addr = <[u8; 16]>::try_from(&packet[8..24])?.into();
                for number in 0..36 {
                    let forged = forged(probe, number);
                    let nodes = "ff02::1".parse()?;
                    raw.send(
                        *from,
                        &udp_packet(source, nodes, (PROBE_PORT, 255), &forged),
                    )?;
                    // with its own source a gateway does not read it: the other one counts it
                    least += 1;
                }
                raw.send(*from, packet)?;
                raw.send(STRANGER, packet)?;
                least += 2;
            }
            // of the other LAN: the first time it is only remembered
            for (from, packet) in &recorded[1 - site] {
                for _ in 0..3 {
                    raw.send(*from, packet)?;
                }
                raw.send(STRANGER, packet)?;
                least += 6;
            }
            at_least(least, || Ok(bad(&sites, site)? - before))?;
            listener.expect_more("the stream goes on")?;
        }
        let still = [sites.wait_forwarder(0)?, sites.wait_forwarder(1)?];
        ensure!(still == forwarders, "{forwarders:?} {still:?}");
        listener.expect_no_duplicates()
    });
}

#[test]
fn two_lans_that_a_wire_joins_are_named_and_two_again_without_it() {
    two_lans("lan-wire", 1, "", |sites, [a, b]| {
        let gateways = sites.network.nodes::<2>()?;
        let groups = [GROUP, "ff1e::43"];
        let on_b = b.hosts[0].receive(groups[0], &[])?;
        let on_a = a.hosts[0].receive(groups[1], &[])?;
        let listeners = [&on_b, &on_a];
        let _senders = [
            a.hosts[1].send_for_ever(groups[0])?,
            b.hosts[1].send_for_ever(groups[1])?,
        ];
        let heard = |what: &str| listeners.iter().try_for_each(|l| l.expect_more(what));
        heard("over the network")?;

        let far = b.switch.namespace().path();
        a.switch.ip(&format!(
            "link add wire type veth peer name wire netns {far}"
        ))?;
        for switch in [&a.switch, &b.switch] {
            switch.ip("link set wire master bridge\nlink set wire up")?;
        }
        let roles = || -> Result<Vec<String>> {
            let roles = gateways
                .iter()
                .map(|gateway| Ok(lan(gateway)?["role"].to_string()));
            roles.collect()
        };
        let wait_forwarders = |count: usize| {
            eventually("so many gateways carry", || {
                let roles = roles()?;
                let forwarders = roles.iter().filter(|role| role.contains("forwarder"));
                holds!(forwarders.count() == count, "{roles:?}")
            })
        };
        wait_forwarders(1)?;
        eventually("it is named", || {
            for gateway in gateways {
                let said = lan(gateway)?;
                let problem = said["problem"].as_str().unwrap_or_default();
                if problem.contains("another path") {
                    return Ok(());
                }
            }
            bail!("no problem is known")
        })?;
        heard("over the wire")?;
        let twice =
            || -> Result<Vec<u64>> { listeners.iter().map(|l| l.number("duplicates")).collect() };
        let (began, before) = (listeners[0].packets()?, twice()?);
        let (_, wire) = a.switch.interface_traffic("wire")?;
        listeners[0].expect(began + 100)?;
        let came = listeners[0].packets()? - began;
        let (_, now) = a.switch.interface_traffic("wire")?;
        let frames = (now - wire).packets;
        ensure!(frames < came * 5 + 100);
        ensure!(twice()? == before, "{before:?} {:?}", twice()?);

        a.switch.ip("link del wire")?;
        wait_forwarders(2)?;
        heard("over the network again")?;
        let before = twice()?;
        heard("once")?;
        holds!(twice()? == before, "{before:?} {:?}", twice()?)
    });
}

/// Returns a `virtio_net_hdr` of TCP over IPv6: more segments than come apart, a partial checksum.
fn tcp_train() -> Vec<u8> {
    let words = [54 + 20, 4, 54, 16].map(u16::to_ne_bytes);
    [&[1, 4][..], words.as_flattened()].concat()
}

#[test]
fn trains_that_cannot_be_cut_are_named() {
    two_lans("lan-tcp-train", 1, "", |sites, [a, b]| {
        let gateway = &sites.members(0)[0];
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let raw = Raw::of(&a.hosts[1])?;
        packet::set_offload_header(&raw.0)?;
        let (source, group): (Ipv6Addr, Ipv6Addr) = ("2001:db8:a001::3".parse()?, GROUP.parse()?);
        let mut packet = udp_packet(source, group, (5001, 1), &noise(1, 5_012));
        // TCP: a header of 20 bytes
        packet[6] = 6;
        packet[40 + 12] = 5 << 4;
        let to = MacAddress::of_group(group);
        let ethernet = [&to.0[..], &STRANGER.0, &ETHERTYPE_IPV6.to_be_bytes()];
        let frame = [&tcp_train()[..], &ethernet.concat(), &packet].concat();
        for _ in 0..10 {
            raw.0.send(&frame)?;
        }
        at_least(10, || gateway.counter("drops/lan_bad_offload"))?;
        a.hosts[0].send(GROUP, 100, &["--rate", "400"])?;
        listener.expect_exactly(100)
    });
}
