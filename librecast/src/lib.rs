//! The library for programs on a Librecast network: groups, streams, identities, sockets, coding.
//!
//! `lcroute up` gives a host the interface `lc0`. A group needs only an ordinary socket, a stream
//! needs one call. This program announces itself to a group, and queries the other senders:
//!
//! ```no_run
//! # #[cfg(all(feature = "net", feature = "stream"))]
//! # mod program {
//! use std::error::Error;
//! use std::io::{Write, copy, stdout};
//! use std::net::{Ipv6Addr, UdpSocket};
//!
//! use librecast::channel::transient_group;
//! use librecast::id::derive;
//! use librecast::socket::{SendSocket, multicast_interfaces};
//! use librecast::stream;
//!
//! const PORT: u16 = 5001;
//!
//! pub fn main() -> Result<(), Box<dyn Error>> {
//!     // the name alone determines the group
//!     let group = transient_group(&derive("example.org 2026 weather", &[b"Berlin"]));
//!     let found = multicast_interfaces(&["lc0".to_owned()])?;
//!     let (&lc0, _) = found.first_key_value().ok_or("no lc0: lcroute up")?;
//!     let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
//!     socket.join_multicast_v6(&group, lc0)?;
//!     SendSocket::open(lc0, group, PORT, 64)?.send(group, b"here", 4)?;
//!     loop {
//!         let mut word = [0; 1_280];
//!         let (length, from) = socket.recv_from(&mut word)?;
//!         println!("{from}: {}", String::from_utf8_lossy(&word[..length]));
//!         // its address is the node's; so are its name and its PeerId
//!         let mut asked = stream::connect(&from.ip().to_string(), &["/weather/1".parse()?])?;
//!         asked.write_all(b"now\n")?;
//!         asked.finish()?;
//!         copy(&mut asked, &mut stdout())?;
//!     }
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! Other nodes answer with `lcroute serve /weather/1 --allow-all -- ./weather`, or a
//! `stream::Listener`. See `docs/guide/library.md`; the wire formats are in `docs/protocol.md`.
//!
//! # Stability
//!
//! Semantic versioning covers the first table: before 1.0 a minor version may break it, a patch
//! version does not. Our own programs share the second table, which any version may change. Wire
//! formats have their own versions. Texts of errors are not stable.
//!
//! | promised module | content |
//! |---|---|
//! | [`id`] | ed25519 identities, libp2p PeerIds, addresses derived from keys |
//! | [`channel`] | group addresses and ports of programs |
//! | `group` (feature `net`, Linux) | a channel by name or key: send, receive, watch joins |
//! | [`mapped`] | IPv4 groups and sources under names of IPv6 |
//! | [`plain`] | foreign text, harmless on terminals and in commands |
//! | [`text`] | tokens, keys and the like as text: a prefix and base58check |
//! | [`units`] | sizes, rates and durations in users' notation |
//! | `listener`, `socket` (feature `net`) | MLD on raw sockets; multicast sockets |
//! | `listeners` (feature `net`), [`querier`] | listeners of a group on an interface; queries |
//! | `announce`, `local_node` (feature `announce`) | requests to lcroute: groups, labels |
//! | `stream` (feature `stream`) | streams to programs on other nodes, by name or PeerId |
//! | `coding` (feature `coding`) | RaptorQ (RFC 6330) behind an interface that cannot panic |
//!
//! | shared module | content |
//! |---|---|
//! | [`wire`] | bounded cursors for reading and writing all our binary formats |
//! | [`cert`] | certificates, chains, invitation tokens, renewal |
//! | `code` (feature `code`) | four words as the seed of a network; beacons of what is offered there |
//! | [`pair`] | two keys as a network of their own |
//! | [`open`], [`open_item`] | keys that anybody may call; their records in a DHT |
//! | [`epoch`] | secrets by which members find one another, new with each expulsion |
//! | [`revocation`] | signed statements that a key is not trusted any more |
//! | [`mld`] | encoding of MLDv2 and MLDv1 messages (RFC 9777, RFC 2710) |
//! | [`mld_host`] | the listener's side of MLD and IGMP, where no kernel has it |
//! | [`igmp`] | encoding of IGMPv3, IGMPv2 and IGMPv1 messages (RFC 9776, RFC 2236) |
//! | [`checksum`], [`ethernet`], [`ipv6`], [`ipv4`] | addresses, checksum, packets of one message |
//! | [`arp`], [`neighbor_discovery`] | encoding of ARP and neighbour discovery (RFC 826, RFC 4861) |
//! | [`pool`] | buffers that are split into packets |
//! | [`gf256`], [`parity`] | arithmetic of repair codes; parity of one frame's packets |
//! | [`bucket`] | token buckets without a clock of their own |
//! | [`random`], [`time`] | numbers from a seed; instants and the wall clock |
//! | [`reach`] | protocol between the router and its program for a DHT and a Matrix room |
//! | [`signalling`] | URLs at which a named signalling server is tried |
//! | [`text_network`] | networks that a text leads to |
//! | `outside` (feature `stream`) | keys with a place; protocol of the program for pairs |
//! | [`drops`], [`events`] | drop reasons; entries of the journal: numbers and fields |
//! | `local` (feature `announce`) | sockets of this host that carry lines of JSON |
//! | `durable`, `private_file` (unix) | files that survive a power cut; files of secrets |
//! | `listener_v1`, `packet` (feature `net`) | MLDv1 on raw sockets; packet sockets |
//! | `simulated` (feature `simulated`) | a network in memory and on virtual time, for tests |
//!
//! | private module | content |
//! |---|---|
//! | `interface`, `kernel` (`net`; `no_kernel` without Linux) | interfaces; the kernel's multicast |
//! | `guest_socket` (feature `net`) | lc0 of a guest without a namespace |
//! | `received`, `socket_option` (feature `net`) | received datagrams; options that only Linux has |
//! | `protocol_name` (feature `stream`) | names of the protocols of streams |
//!
//! Code that only our own programs share is in `librecast-program`.

#[cfg(feature = "announce")]
pub mod announce;
pub mod arp;
pub mod bucket;
pub mod cert;
pub mod channel;
pub mod checksum;
#[cfg(feature = "code")]
pub mod code;
#[cfg(feature = "coding")]
pub mod coding;
pub mod drops;
#[cfg(unix)]
pub mod durable;
pub mod epoch;
pub mod ethernet;
pub mod events;
pub mod gf256;
#[cfg(all(feature = "net", target_os = "linux"))]
pub mod group;
#[cfg(feature = "net")]
mod guest_socket;
pub mod id;
pub mod igmp;
#[cfg(feature = "net")]
mod interface;
pub mod ipv4;
pub mod ipv6;
#[cfg(feature = "net")]
#[cfg_attr(not(target_os = "linux"), path = "no_kernel.rs")]
mod kernel;
#[cfg(feature = "net")]
pub mod listener;
#[cfg(feature = "net")]
pub mod listener_v1;
#[cfg(feature = "net")]
pub mod listeners;
#[cfg(feature = "announce")]
pub mod local;
#[cfg(feature = "announce")]
pub mod local_node;
pub mod mapped;
pub mod mld;
pub mod mld_host;
pub mod neighbor_discovery;
pub mod open;
pub mod open_item;
#[cfg(feature = "stream")]
pub mod outside;
#[cfg(all(feature = "net", target_os = "linux"))]
pub mod packet;
pub mod pair;
pub mod parity;
pub mod plain;
pub mod pool;
#[cfg(unix)]
pub mod private_file;
#[cfg(feature = "stream")]
mod protocol_name;
pub mod querier;
pub mod random;
pub mod reach;
#[cfg(feature = "net")]
mod received;
pub mod revocation;
pub mod signalling;
#[cfg(any(test, feature = "simulated"))]
pub mod simulated;
#[cfg(feature = "net")]
pub mod socket;
#[cfg(all(feature = "net", target_os = "linux"))]
mod socket_option;
#[cfg(feature = "stream")]
pub mod stream;
pub mod text;
pub mod text_network;
pub mod time;
pub mod units;
pub mod wire;
