//! What lcroute, lcsync and lcagent share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | bounded cursors that every binary format of ours is read and written with |
//! | [`id`] | ed25519 identities, libp2p PeerIds, addresses derived from keys |
//! | [`cert`] | certificates, chains, invitation tokens, renewal |
//! | [`revocation`] | signed statements that a key is not to be trusted any more |
//! | [`mld`] | MLDv2 and MLDv1 messages (RFC 9777, RFC 2710) as bytes |
//! | [`checksum`] | the Internet checksum |
//! | [`channel`] | group addresses and ports of lcsync and lcagent |
//! | [`pool`] | buffers that packets are cut from |
//! | [`random`] | jitter from a seed |
//! | [`pacing`] | a token bucket without a clock of its own |
//! | [`time`] | the clock type of what runs without I/O, in programs and in pages |
//! | [`durable`] | files that a power cut does not take back |
//! | [`events`] | what programs tell the journal: numbers and fields of entries |
//! | [`units`] | sizes, rates and durations as users write them |
//! | `listener`, `listener_v1`, `socket` (feature `net`) | MLD seen from a raw socket, that of version 1 from a packet socket; multicast sockets |
//! | `announce` (feature `announce`) | tells an lcroute on this host which groups have their root here |
//! | `coding` (feature `coding`) | RaptorQ (RFC 6330) behind an interface that cannot panic |
//! | `cli`, `config`, `keyfile` (feature `cli`) | exit codes and logging of the three programs; configuration and key files |
//! | `service` (feature `service`) | what a service manager hears of a daemon |
//! | `metrics` (feature `metrics`) | figures of a daemon as OpenMetrics text, over HTTP |
//! | `interrupt` (feature `interrupt`) | SIGINT, SIGTERM and SIGHUP as events |

#[cfg(feature = "announce")]
pub mod announce;
pub mod cert;
pub mod channel;
pub mod checksum;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "coding")]
pub mod coding;
#[cfg(feature = "cli")]
pub mod config;
pub mod durable;
pub mod events;
pub mod id;
#[cfg(feature = "net")]
mod inet6;
#[cfg(feature = "interrupt")]
pub mod interrupt;
#[cfg(feature = "cli")]
pub mod keyfile;
#[cfg(feature = "net")]
pub mod listener;
#[cfg(feature = "net")]
pub mod listener_v1;
#[cfg(feature = "announce")]
pub mod local_node;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod mld;
pub mod pacing;
pub mod pool;
pub mod random;
pub mod revocation;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "net")]
pub mod socket;
pub mod time;
pub mod units;
pub mod wire;
