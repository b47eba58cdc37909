//! Super-packets on `lc0`: the same datagrams arrive with and without offloads.

use std::io::IoSliceMut;
use std::net::SocketAddrV6;
use std::os::fd::AsRawFd;

use lcroute_demo::lab::offload;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::prelude::*;

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 0x42);
pub(crate) const PORT: u16 = 5001;

#[test]
fn trains_of_datagrams_arrive_whole_at_ordinary_and_at_coalescing_receivers() {
    world_alone("trains", |lab| trains_arrive_whole(lab, "tun"));
}

#[test]
fn trains_of_datagrams_arrive_whole_through_taps() {
    world_alone("trains-tap", |lab| trains_arrive_whole(lab, "tap"));
}

fn trains_arrive_whole(lab: &Lab, mode: &str) -> Result<()> {
    let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
    for member in &network.members {
        member
            .host
            .configure(&format!("[tun]\nmode = \"{mode}\"\n"))?;
    }
    network.start()?;
    let (sender, [plain, coalescing]) = programs(&network)?;
    let mut longest = 0;
    for number in 0..20 {
        let train = equal_sizes(number);
        send_train(&sender, &train)?;
        ensure!(receive(&plain, train.len())?.datagrams == train);
        let received = receive(&coalescing, train.len())?;
        ensure!(received.datagrams == train);
        longest = longest.max(received.longest);
    }
    holds!((longest > 1) == offload(), "{longest} came at once")
}

#[test]
fn datagrams_of_nine_sizes_arrive_as_they_were_sent() {
    world("sizes", |lab| {
        let network = lab.closed_network(["a", "b"])?;
        let (sender, [plain, coalescing]) = programs(&network)?;
        for number in 0..20 {
            let sizes = (1..10).chain((1..10).rev());
            let datagrams: Vec<_> = sizes.map(|n| noise(number, 130 * n)).collect();
            for datagram in &datagrams {
                sender.send(datagram)?;
            }
            for receiver in [&plain, &coalescing] {
                ensure!(receive(receiver, datagrams.len())?.datagrams == datagrams);
            }
        }
        Ok(())
    });
}

#[test]
fn a_wrong_checksum_does_not_become_right_on_the_way() {
    world("checksum", |lab| {
        let network = lab.closed_network(["a", "b"])?;
        let (sender, [plain, coalescing]) = programs(&network)?;
        let [a, b] = network.nodes()?;
        let source = a.address()?;
        let raw = a.host.namespace().run(|| {
            let raw = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::UDP))?;
            raw.connect(&SocketAddrV6::new(GROUP, 0, 0, 0).into())?;
            Ok(raw)
        })?;
        let written = |b: &Member| {
            b.status()?["counters"]["tun_tx_packets"]
                .as_u64()
                .context("tx")
        };
        let before = written(b)?;
        let mut expected = Vec::new();
        for number in 0..40 {
            let payload = noise(number, 500);
            let is_right = number % 4 != 3;
            raw.send(&udp(source, &payload, is_right))?;
            if is_right {
                expected.push(payload);
            }
        }
        // it follows all others
        sender.send(b"the end")?;
        expected.push(b"the end".to_vec());
        for receiver in [&plain, &coalescing] {
            ensure!(receive(receiver, expected.len())?.datagrams == expected);
        }
        let written = written(b)? - before;
        holds!(written == 41, "{written} of 41 packets came as far as lc0")
    });
}

#[test]
fn lc0_is_adopted_whatever_the_daemon_before_had_offloaded() {
    world("offload-adopted", |lab| {
        goes_on_with_the_opposite(lab, crash)
    });
}

#[test]
fn lc0_is_inherited_whatever_the_daemon_before_had_offloaded() {
    world("offload-inherited", |lab| {
        goes_on_with_the_opposite(lab, execute_anew)
    });
}

fn goes_on_with_the_opposite(lab: &Lab, restart: fn(&mut Member) -> Result<()>) -> Result<()> {
    let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
    let configure = |network: &Network, offload: bool| {
        let text = format!("[tun]\noffload = {offload}\n");
        network
            .members
            .iter()
            .try_for_each(|m| m.host.configure(&text))
    };
    configure(&network, true)?;
    network.start()?;
    let (sender, [plain, coalescing]) = programs(&network)?;
    for (number, offload) in (0..).zip([true, false, true]) {
        if number > 0 {
            configure(&network, offload)?;
            network.members.iter_mut().try_for_each(restart)?;
            network.wait_linked()?;
            let [a, b] = network.nodes()?;
            a.wait_wanted(&GROUP.to_string(), b)?;
        }
        let train = equal_sizes(number);
        send_train(&sender, &train)?;
        ensure!(receive(&plain, train.len())?.datagrams == train);
        let received = receive(&coalescing, train.len())?;
        ensure!(received.datagrams == train);
        let longest = received.longest;
        ensure!((longest > 1) == offload);
    }
    Ok(())
}

fn crash(member: &mut Member) -> Result<()> {
    member.daemon()?.kill()?;
    member.start()
}

/// Lets a daemon execute itself anew, and waits until it has started over.
pub(crate) fn execute_anew(member: &mut Member) -> Result<()> {
    let uptime = |member: &Member| member.status()?["uptime_s"].as_u64().context("uptime_s");
    exceeds(1, || uptime(member))?;
    let old = uptime(member)?;
    member.daemon()?.signal(Signal::SIGUSR2)?;
    eventually("the daemon has started over", || {
        holds!(uptime(member)? < old)
    })
}

/// Opens a sender on one node; on the other a receiver, and one of super-packets.
fn programs(network: &Network) -> Result<(Socket, [Socket; 2])> {
    let [a, b] = network.nodes()?;
    let sender = a.host.namespace().run(|| {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0).into())?;
        socket.connect(&SocketAddrV6::new(GROUP, PORT, 0, 0).into())?;
        Ok(socket)
    })?;
    let receivers = [receiver(&b.host, false)?, receiver(&b.host, true)?];
    a.wait_wanted(&GROUP.to_string(), b)?;
    Ok((sender, receivers))
}

pub(crate) fn receiver(host: &Host, coalescing: bool) -> Result<Socket> {
    host.namespace().run(|| {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.bind(&SocketAddrV6::new(GROUP, PORT, 0, 0).into())?;
        socket.join_multicast_v6(&GROUP, 0)?;
        if coalescing {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        Ok(socket)
    })
}

/// Returns forty datagrams of 1,000 bytes and a shorter one.
pub(crate) fn equal_sizes(number: u64) -> Vec<Vec<u8>> {
    let content = noise(number, 40_777);
    content.chunks(1_000).map(<[u8]>::to_vec).collect()
}

/// Sends datagrams, all but the last of equal length, with one call.
pub(crate) fn send_train(socket: &Socket, datagrams: &[Vec<u8>]) -> Result<()> {
    let size = i32::try_from(datagrams[0].len())?;
    setsockopt(socket, sockopt::UdpGsoSegment, &size)?;
    socket.send(&datagrams.concat()).context("a train")?;
    Ok(())
}

pub(crate) struct Received {
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// Most datagrams of one call.
    longest: usize,
}

pub(crate) fn receive(socket: &Socket, count: usize) -> Result<Received> {
    let (mut datagrams, mut longest) = (Vec::new(), 0);
    let mut buffer = vec![0; 65_536];
    let mut control = nix::cmsg_space!(i32);
    while datagrams.len() < count {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let message = message.with_context(|| format!("{} of {count} came", datagrams.len()))?;
        let size = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let bytes = message.bytes;
        let content = &buffer[..bytes];
        let parts = content.chunks(size.unwrap_or(content.len()).max(1));
        longest = longest.max(parts.len());
        datagrams.extend(parts.map(<[u8]>::to_vec));
    }
    Ok(Received { datagrams, longest })
}

/// Returns a UDP header with a right or wrong checksum, and its payload.
pub(crate) fn udp(source: Ipv6Addr, payload: &[u8], is_right: bool) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram: Vec<u8> = [PORT, PORT, length, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect();
    datagram.extend(payload);
    let pseudo_header = [
        &source.octets()[..],
        &GROUP.octets(),
        &length.to_be_bytes(),
        &[0, 17],
    ];
    let all = [&pseudo_header.concat()[..], &datagram].concat();
    let words = all
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum = words.fold(0, |sum, word| (sum + word) % 0xffff);
    let mut checksum = if sum == 0xffff {
        0xffff
    } else {
        0xffff - sum as u16
    };
    if !is_right {
        checksum ^= 0x5555;
    }
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    datagram
}
