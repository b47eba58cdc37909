//! Third-party programs, as Debian installs them, between the plain hosts of two houses.
//!
//! `netns-tests/setup all` fetches them.

use crate::foreign::{ASK_IPV4, avahi_by, foreign, said, start};
use crate::prelude::*;
use crate::segment::{HEAR, Houses, ping, python, serve};

/// Runs a foreign program to its end; returns its output on both streams.
fn run(host: &Host, program: &str, args: &[&str]) -> Result<(i32, String)> {
    let args = foreign(program, args)?;
    let done = host.run("env", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok((done.code, done.stdout + &done.stderr))
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn udpcast_sends_one_image_to_receivers_in_both_houses() {
    two_houses("segment-udpcast", |_, [a1, a2, b1, b2]| {
        let image: Vec<u8> = (0..3_000_000_u32)
            .map(|n| (n.wrapping_mul(n) >> 9) as u8)
            .collect();
        let image = a1.write("image", image)?;
        let mut receivers = Vec::new();
        for host in [a2, b1, b2] {
            let copy = host.path("copy").display().to_string();
            let args = ["--interface", LAN, "--file", &copy, "--nokbd"];
            receivers.push((start(host, "udp-receiver", &args)?, copy));
        }
        let from = image.display().to_string();
        let args =
            format!("--interface {LAN} --file {from} --nokbd --min-receivers 3 --max-bitrate 40m");
        let args = crate::words(&args);
        let (code, text) = run(a1, "udp-sender", &args)?;
        ensure!(code == 0, "{text}");
        for (mut receiver, copy) in receivers {
            let code = receiver.wait(Duration::from_secs(40))?;
            ensure!(
                code == 0 && fs::read(&image)? == fs::read(&copy)?,
                "{}",
                said(&receiver)
            );
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_media_server_of_the_other_house_is_found_and_its_description_fetched() {
    two_houses("segment-minidlna", |_, [a1, _, b1, _]| {
        fs::create_dir_all(a1.path("media"))?;
        let folder = |name: &str| a1.path(name).display().to_string();
        let config = format!(
            "port=8200\nnetwork_interface={LAN}\nmedia_dir={}\ndb_dir={}\nlog_dir={}\nfriendly_name=house a\nnotify_interval=5\n",
            folder("media"),
            folder("cache"),
            folder("logs")
        );
        let config = a1.write("minidlna.conf", config)?.display().to_string();
        let server = start(
            a1,
            "minidlnad",
            &["-S", "-f", &config, "-P", &folder("pid")],
        )?;
        let args = format!("-i {LAN} -t urn:schemas-upnp-org:device:MediaServer:1 -n 3");
        let args = crate::words(&args);
        let location = eventually("it is found", || {
            let (_, found) = run(b1, "gssdp-discover", &args)?;
            let location = found
                .lines()
                .find_map(|line| line.trim().strip_prefix("Location: "));
            Ok(location
                .with_context(|| format!("{found}{}", said(&server)))?
                .to_owned())
        })?;
        ensure!(
            location.starts_with("http://192.168.1.20:8200/"),
            "{location}"
        );
        let description = b1.call(&format!("curl -sS --max-time 10 {location}"))?;
        description.prints("<friendlyName>house a")
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_printer_of_the_other_house_is_found_by_avahi_and_wakes_by_a_magic_packet() {
    two_houses("segment-avahi", |_, [a1, _, b1, _]| {
        let avahi = avahi_by(a1, LAN, "IPv4")?;
        let from = python(b1, ASK_IPV4, &["192.168.1.30", "printer", "192.168.1.20"])
            .with_context(|| said(&avahi))?;
        ensure!(from.trim() == "192.168.1.20", "{from}");
        // 6 bytes of ones and the address 16 times, by UDP to all
        let sleeper = serve(a1, HEAR, &["9"])?;
        for all in ["255.255.255.255", "192.168.1.255"] {
            let (code, text) = run(b1, "wakeonlan", &["-i", all, "52:54:00:12:34:56"])?;
            ensure!(code == 0, "{text}");
        }
        eventually("both came", || {
            let heard = sleeper.stdout();
            holds!(heard.matches("from 192.168.1.30").count() == 2, "{heard}")
        })
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_service_on_a_gateway_itself_is_found_by_avahi() {
    two_houses("segment-inside-avahi", |houses, [_, _, b1, _]| {
        let [near, far] = houses.network.nodes()?;
        let avahi = avahi_by(&near.host, LAN, "IPv4")?;
        for (host, own) in [(b1, "192.168.1.30"), (&far.host, "192.168.1.15")] {
            let from = python(host, ASK_IPV4, &[own, "printer", "192.168.1.10"])
                .with_context(|| said(&avahi))?;
            ensure!(from.trim() == "192.168.1.10", "{from}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn cyclonedds_exchanges_samples_as_installed() {
    two_houses("segment-dds", |_, [a1, a2, b1, b2]| {
        let perf =
            |host: &Host, args: &str| start(host, "ddsperf", &args.split(' ').collect::<Vec<_>>());
        let mut peers: Vec<Process> = Vec::new();
        for host in [a2, b1, b2] {
            peers.push(perf(host, "-D 15 -Q minmatch:3 -Q samples:250 sub")?);
        }
        peers.push(perf(a1, "-D 15 -Q minmatch:3 pub 50Hz size 1000")?);
        for process in &mut peers {
            let code = process.wait(Duration::from_secs(40))?;
            let text = said(process);
            ensure!(code == 0, "{code}: {text}");
            println!(
                "{}",
                text.lines()
                    .rfind(|line| line.contains("total"))
                    .unwrap_or_default()
            );
        }
        Ok(())
    });
}

/// Prints the offer of a DHCP server, and sets the address.
const LEASE: &str = "#!/bin/sh\n[ \"$1\" = bound ] && echo bound $ip router $router server $serverid && ip addr add $ip/24 brd + dev $interface\nexit 0\n";

#[test]
#[ignore = "`make test-all`: programs of others"]
fn newcomers_of_both_houses_are_given_addresses_by_their_own_router() {
    world("segment-dhcp", |lab| {
        let houses = Houses::new(lab, 1)?;
        let mut servers = Vec::new();
        for (site, name) in houses.sites.iter().zip(["house-a", "house-b"]) {
            let router = &site.hosts[0];
            let leases = format!("--dhcp-leasefile={}", router.path("leases").display());
            let interface = format!("--interface={LAN}");
            let domain = format!("--domain={name}");
            let args = format!(
                "-k --log-facility=- -C /dev/null --port=0 --user=root --group= --pid-file= --bind-interfaces --dhcp-authoritative --dhcp-range=192.168.1.100,192.168.1.110,2m {leases} {interface} {domain}"
            );
            let args = crate::words(&args);
            servers.push(start(router, "dnsmasq", &args)?);
        }
        let mut given = Vec::new();
        for (n, check) in ["-a", "-n", "-a"].into_iter().enumerate() {
            for (house, site) in houses.sites.iter().enumerate() {
                let name = format!("new{house}{n}");
                let host = lab.detached_host(&name)?;
                let there = site.switch.namespace().path();
                host.ip(&format!(
                    "link add {LAN} type veth peer name {name} netns {there}"
                ))?;
                site.switch.ip(&format!(
                    "link set {name} master bridge\nlink set {name} up"
                ))?;
                host.ip(&format!("link set {LAN} up"))?;
                let script = host.write("lease", LEASE)?;
                fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
                let script = script.display().to_string();
                let args = [
                    "udhcpc", "-f", "-q", "-n", "-t", "10", "-T", "1", "-i", LAN, "-s", &script,
                    check,
                ];
                let (code, text) = run(&host, "busybox", &args)?;
                let bound = text.lines().find(|line| line.starts_with("bound "));
                let bound = bound.with_context(|| format!("{code}: {text}"))?.to_owned();
                given.push((house, bound, host));
            }
        }
        for (server, house) in servers.iter().zip(0..) {
            let of_house = given.iter().filter(|(at, ..)| *at == house).count();
            let count = |message| said(server).matches(message).count();
            // an address that the other house has is declined, and another one taken
            let kept = count("DHCPACK") - count("DHCPDECLINE");
            ensure!(
                of_house == 3 && kept == 3,
                "{house}: {of_house} {kept} {}",
                said(server)
            );
            ensure!(!said(server).contains("DHCPNAK"), "{}", said(server));
        }
        // a client that probes takes no address of the other house
        println!(
            "{:?}",
            given
                .iter()
                .map(|(house, bound, _)| (house, bound))
                .collect::<Vec<_>>()
        );
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn an_address_in_use_elsewhere_is_noticed_before_it_is_taken() {
    two_houses("segment-dad", |_, [a1, _, _, _]| {
        ping(a1, "192.168.1.30")?;
        let (code, text) = run(
            a1,
            "arping",
            &["-D", "-I", LAN, "-c", "3", "-w", "4", "192.168.1.31"],
        )?;
        ensure!(
            code == 1 && text.contains("Unicast reply from 192.168.1.31"),
            "{code}: {text}"
        );
        let (code, text) = run(
            a1,
            "arping",
            &["-D", "-I", LAN, "-c", "3", "-w", "4", "192.168.1.77"],
        )?;
        holds!(code == 0, "{code}: {text}")
    });
}
