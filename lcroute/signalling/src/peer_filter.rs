//! Filter of a relay's socket: the kernel drops datagrams of peers without permission.

use std::io;
use std::net::IpAddr;

use socket2::{SockFilter, SockRef};
use tokio::net::UdpSocket;

/// Classic BPF (linux/bpf_common.h): loads the 32 bits at an offset (`BPF_LD | BPF_W | BPF_ABS`).
const LOAD_WORD: u16 = 0x20;
/// Skips instructions unless the loaded word is this value (`BPF_JMP | BPF_JEQ | BPF_K`).
const IS_EQUAL: u16 = 0x15;
/// Ends, and accepts this number of bytes of the datagram (`BPF_RET | BPF_K`).
const RETURN: u16 = 0x06;
/// Base of offsets from the IP header (`SKF_NET_OFF`, linux/filter.h).
const NETWORK_HEADER: u32 = (-0x10_0000_i32) as u32;
/// Offset of the source in an IPv4 header (RFC 791 §3.1).
const SOURCE_V4: u32 = NETWORK_HEADER + 12;
/// Offset of the source in an IPv6 header (RFC 8200 §3).
const SOURCE_V6: u32 = NETWORK_HEADER + 8;

/// Limits a socket to datagrams of these peers.
pub(crate) fn permit(socket: &UdpSocket, peers: &[IpAddr]) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.attach_filter(&program(peers)).or_else(|e| {
        // the kernel bounds a filter's instructions: beyond, the relay checks all datagrams itself
        tracing::debug!("no filter for {} peers: {e}", peers.len());
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, u32::MAX)])
    })
}

fn program(peers: &[IpAddr]) -> Vec<SockFilter> {
    let load = |at| SockFilter::new(LOAD_WORD, 0, 0, at);
    let unless = |value, skip| SockFilter::new(IS_EQUAL, 0, skip, value);
    let give = |bytes| SockFilter::new(RETURN, 0, 0, bytes);
    let mut program = Vec::new();
    // each socket has one family
    let v4 = peers.iter().filter_map(|ip| match ip {
        IpAddr::V4(v4) => Some(v4.to_bits()),
        IpAddr::V6(_) => None,
    });
    for (n, source) in v4.enumerate() {
        if n == 0 {
            program.push(load(SOURCE_V4));
        }
        program.extend([unless(source, 1), give(u32::MAX)]);
    }
    for ip in peers {
        if let IpAddr::V6(v6) = ip {
            // parts of 32 bits, the most random first, with the number of instructions to skip
            for (part, skip) in [(3, 7), (2, 5), (1, 3), (0, 1)] {
                let word = (v6.to_bits() >> (96 - 32 * part)) as u32;
                program.extend([load(SOURCE_V6 + 4 * part), unless(word, skip)]);
            }
            program.push(give(u32::MAX));
        }
    }
    program.push(give(0));
    program
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    async fn bound(ip: &str) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).await;
        let socket = socket.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn only_permitted_peers_get_through() {
        for (permitted, other) in [("127.0.0.2", "127.0.0.3"), ("::1", "::1")] {
            let (relayed, at) = bound(permitted).await;
            let (from_permitted, _) = bound(permitted).await;
            let (from_other, _) = bound(other).await;
            let permitted: IpAddr = permitted.parse().unwrap();
            // without a permission no peer passes
            permit(&relayed, &[]).unwrap();
            from_permitted.send_to(b"too early", at).await.unwrap();
            let similar = match permitted {
                IpAddr::V4(_) => "127.0.0.4",
                IpAddr::V6(_) => "1::1",
            };
            let others = [similar.parse().unwrap(), permitted];
            let peers = match other.parse::<IpAddr>().unwrap() == permitted {
                // loopback has one address of IPv6
                true => &others[..1],
                false => &others[..],
            };
            permit(&relayed, peers).unwrap();
            from_other.send_to(b"stranger", at).await.unwrap();
            permit(&relayed, &others).unwrap();
            from_permitted.send_to(b"peer", at).await.unwrap();
            let mut buffer = [0; 20];
            let (length, _) = relayed.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"peer", "{at}");
        }
    }

    #[tokio::test]
    async fn as_many_peers_as_a_user_may_have_have_a_filter() {
        for (ip, v6) in [("127.0.0.1", false), ("::1", true)] {
            let (relayed, at) = bound(ip).await;
            let many = (0..255_u16).map(|n| match v6 {
                true => IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, n]),
                false => IpAddr::from([10, 0, 0, n as u8]),
            });
            let mut peers: Vec<_> = many.collect();
            permit(&relayed, &peers).unwrap();
            peers.push(ip.parse().unwrap());
            permit(&relayed, &peers).unwrap();
            let (from, _) = bound(ip).await;
            from.send_to(b"peer", at).await.unwrap();
            assert_eq!(relayed.recv_from(&mut [0; 20]).await.unwrap().0, 4);
        }
    }
}
