//! A node of the network, without I/O: the router and the links as one, and the node's membership.
//!
//! [`Node`] is a state machine. Its inputs are packets of programs, presence, sealed messages and
//! requests of its owner; its outputs are packets for programs, sealed messages and state to be
//! stored. Its owner provides the stack for connections ([`lcroute_overlay::Connections`]). So the
//! same node runs on a host, in a page, and many times in a simulation.
//!
//! | module | content |
//! |---|---|
//! | `node`, `services` | the router's outputs to links, and the reverse; the router's questions |
//! | `membership`, `members`, `renewal`, `uses` | certificates; seen members; bounded tokens |
//! | `epochs`, `revocations`, `key_conflict` | expulsions; two hosts with one key |
//! | `presence`, `records`, `seeking` | present nodes; presence records; searches in a DHT |
//! | `announcements`, `private_prefixes`, `echo` | groups of this node; keys of prefixes; pings |
//! | `leaf_node`, `leaf_rate`, `slow_leaves` | a leaf as a node; leaves of a router |
//! | `helpers` | neighbours with places for leaves |
//! | `flows`, `report`, `look`, `view` | flows, reports, and the network for a page |
//! | `keep`, `drops` | state for the disk; reasons of drops |

mod announcements;
mod drops;
mod echo;
mod epochs;
mod flows;
mod helpers;
mod keep;
mod key_conflict;
mod leaf_node;
mod leaf_rate;
mod look;
mod members;
mod membership;
mod node;
mod presence;
mod private_prefixes;
mod records;
pub mod renewal;
pub mod report;
pub mod revocations;
mod seeking;
mod services;
mod slow_leaves;
#[cfg(test)]
mod testing;
mod uses;
pub mod view;

pub use lcroute_engine::{
    CarryAnswer, CarrySettings, CarrySnapshot, Consent, HostPlace, LC0, LanFrame, LanIpv4, LanRole,
    LanSettings, LanSnapshot, LanStanding, LocalInterfaceId, MAX_LOCAL_INTERFACES, Privacy,
    PrivatePrefix, Secret, SegmentFrame, SegmentLan, SegmentProblem, SegmentPrograms,
    SegmentSettings, SegmentSnapshot, private::is_sealed,
};

pub use announcements::{AnnounceError, MAX_ANNOUNCED};
pub use drops::DropReason;
pub use echo::ECHO_LEN;
pub use epochs::Epochs;
pub use keep::{EpochsText, Keep};
pub use leaf_node::{LeafConfig, LeafNode, LeafNodeOutput};
pub use look::{Edge, Flow, Look, Router};
pub use members::{KnownMember, Members};
pub use membership::spent;
pub use node::{Counters, Node, NodeConfig, Output, PingError, PingId, RevokeError, Settings};
pub use private_prefixes::{GiveError, PrivateKeys, SegmentKeys};
pub use revocations::Revocations;
pub use services::{HostServices, MakeAead};
pub use uses::Uses;
