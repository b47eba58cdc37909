//! What programs beside lcroute may use: identities, certificates, channel names, MLD, multicast sockets, coding.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | bounded cursors that every binary format of ours is read and written with |
//! | [`id`] | ed25519 identities, libp2p PeerIds, addresses derived from keys |
//! | [`cert`] | certificates, chains, invitation tokens, renewal |
//! | [`revocation`] | signed statements that a key is not to be trusted any more |
//! | [`mld`] | MLDv2 and MLDv1 messages (RFC 9777, RFC 2710) as bytes |
//! | [`igmp`] | IGMPv3, IGMPv2 and IGMPv1 messages (RFC 9776, RFC 2236) as bytes |
//! | [`mapped`] | IPv4 groups and sources under names of IPv6 |
//! | [`checksum`], [`ipv6`], [`ipv4`] | the Internet checksum; packets that carry one message |
//! | [`channel`] | group addresses and ports of lcsync and lcagent |
//! | [`pool`] | buffers that packets are cut from |
//! | [`bucket`] | token buckets without a clock of their own |
//! | [`random`] | numbers from a seed |
//! | [`events`] | entries of the journal: numbers and fields |
//! | [`text`] | tokens, keys and the like as text: a prefix and base58check |
//! | [`units`] | sizes, rates and durations as users write them |
//! | `durable`, `private_file` (unix) | files that survive a power cut; files of secrets |
//! | `listener`, `listener_v1`, `socket` (feature `net`) | MLD seen from a raw socket, that of version 1 from a packet socket; multicast sockets |
//! | `announce`, `local_node` (feature `announce`) | requests to the lcroute of this host: groups that are sent to, labels of the node |
//! | `stream` (feature `stream`) | streams to programs on other nodes, by name or PeerId |
//! | `coding` (feature `coding`) | RaptorQ (RFC 6330) behind an interface that cannot panic |
//! | `simulated` (feature `simulated`) | a network in memory and on virtual time, for tests |
//!
//! What our own programs share beyond that is in `librecast-program`.

#[cfg(feature = "announce")]
pub mod announce;
pub mod bucket;
pub mod cert;
pub mod channel;
pub mod checksum;
#[cfg(feature = "coding")]
pub mod coding;
pub mod drops;
#[cfg(unix)]
pub mod durable;
pub mod ethernet;
pub mod events;
pub mod id;
pub mod igmp;
#[cfg(feature = "net")]
mod inet6;
#[cfg(feature = "net")]
mod interface;
pub mod ipv4;
pub mod ipv6;
#[cfg(feature = "net")]
pub mod listener;
#[cfg(feature = "net")]
pub mod listener_v1;
#[cfg(feature = "announce")]
pub mod local_node;
pub mod mapped;
pub mod mld;
#[cfg(feature = "net")]
pub mod packet;
pub mod pool;
#[cfg(unix)]
pub mod private_file;
#[cfg(feature = "stream")]
mod protocol_name;
pub mod random;
pub mod revocation;
#[cfg(any(test, feature = "simulated"))]
pub mod simulated;
#[cfg(feature = "net")]
pub mod socket;
#[cfg(feature = "stream")]
pub mod stream;
pub mod text;
pub mod time;
pub mod units;
pub mod wire;
