//! Multicast routing as pure state machines: no sockets, no clocks, no threads.
//!
//! Time comes in as `now`, randomness as a seed, packets as bytes. [`Engine::poll_output`] returns
//! the next action, [`Engine::next_timeout`] the time of the next call and its reason. The same
//! inputs in the same order always give the same outputs.
//!
//! The path of a packet: [`Engine::handle_local_packet`] -> [`classify`] -> `local_groups` (which
//! tree) -> `trees` (its forwarding entry) -> [`Output::Data`] -> [`Engine::handle_data`] ->
//! [`header`] -> `forwarding` (incoming interface, outgoing interfaces) -> `origins` (may it send
//! this, is it new) -> `membership` (which local interfaces listen) -> [`Output::Local`].
//!
//! `private` seals packets of private prefixes with their sequence number, and opens them again.
//!
//! The path of a JOIN: an MLD report in [`Engine::handle_local_packet`] -> `querier` -> `routing`
//! (which tree) -> `trees` (to which neighbours) -> `exchange` -> [`control`] ->
//! [`Output::Control`] -> [`Engine::handle_control`] -> `trees` -> `proxy` -> [`Output::LocalMld`].
//!
//! The graph: links and costs -> [`lsdb`] (flooded, signed) -> [`graph`] (shortest paths) ->
//! `routing` (roots, edges) -> `trees`; and -> [`topology`] (which links there should be).
//!
//! [`Engine`] owns the parts. Its methods borrow the parts that they need. A part does not know its
//! owner, and no two files import each other.
//!
//! | module | content |
//! |---|---|
//! | `engine`, `questions`, `snapshot` | inputs and the flush of a turn; queries of users |
//! | `timers`, `outbox`, `output`, `context` | timers; outputs and counters; arguments |
//! | `classify`, `header`, `drops` | packets by kind; the data header; reasons of drops |
//! | `lsdb`, `graph`, `routing`, `topology` | link state; shortest paths; trees; wanted links |
//! | `forwarding`, `trees`, `join`, `local_groups` | multicast; join state |
//! | `carry` | parts of groups that other routers announce for a sender with a slow uplink |
//! | `origins`, `duplicate` | permissions of origins; repeated packets |
//! | `first_packets`, `replay` | packets before a listener is known; repeats for late joiners |
//! | `exchange`, `adjacency`, `audit`, `control` | control exchange with neighbours |
//! | `membership`, `local_interface`, `interface_id` | listeners of all local interfaces |
//! | `querier`, `proxy`, `source_filter` | joins of listeners; reports into an interface |
//! | `lan`, `lan_sources` | this node as a gateway; gateways that speak for sources |
//! | `segment`, `segment_id`, `segment_lans`, `senders` | LANs of several gateways as one; shares of a rate |
//! | `ipv4_network`, `private` | IPv4 addresses of nodes; private prefixes |
//! | `leaves`, `leaf`, `shares` | leaves of this router; this node as a leaf; shares of tables |
//! | `uplink` | packets of leaves to asking groups |
//! | `unicast`, `unicast_routes`, `icmp`, `routed` | unicast; messages from router to router |
//! | `traffic`, `flow_meter` | packets by group, and over each link |
//! | `services`, `config` | requests to the host; settings |
//! | `small_map`, `router_index`, `table` | maps in order of keys; hash tables |

#[cfg(test)]
extern crate self as lcroute_engine;

mod adjacency;
mod audit;
pub mod carry;
pub mod classify;
mod config;
mod context;
pub mod control;
mod drops;
mod duplicate;
mod engine;
mod exchange;
mod first_packets;
mod flow_meter;
mod forwarding;
pub mod graph;
pub mod header;
mod icmp;
mod interface_id;
pub mod ipv4_network;
mod join;
mod lan;
mod lan_sources;
mod leaf;
mod leaves;
mod local_groups;
mod local_interface;
pub mod lsdb;
mod membership;
mod origins;
mod outbox;
mod output;
mod pass_on;
pub mod private;
mod proxy;
mod querier;
mod questions;
mod replay;
mod routed;
mod router_index;
mod routing;
mod segment;
mod segment_id;
mod segment_lans;
mod senders;
mod services;
mod shares;
pub mod small_map;
mod snapshot;
mod source_filter;
mod table;
#[cfg(test)]
mod testing;
mod timers;
pub mod topology;
mod traffic;
mod trees;
mod unicast;
mod unicast_routes;
mod uplink;

pub use carry::{Answer as CarryAnswer, Carried, CarriedPart, CarrySnapshot};
pub use config::{CarrySettings, Config, Consent, Ipv4Config, Limits, Neighbor, ROUTER_ADDRESS};
pub use control::RoutedKind;
pub use drops::DropReason;
pub use engine::Engine;
pub use flow_meter::LinkFlow;
pub use interface_id::{LC0, LocalInterfaceId, MAX_LOCAL_INTERFACES};
pub use ipv4_network::Ipv4Network;
pub use lan::{LanIpv4, LanProblem, LanRole, LanSettings, LanSnapshot, LanStanding};
pub use leaf::{Leaf, LeafOutput, LeafState, LinkRefusal};
pub use leaves::LEAF_GROUPS;
pub use output::{LanFrame, LinkFault, Links, Output};
pub use private::{OVERHEAD, Privacy, PrivatePrefix, SEALED, SECRET_LEN, Secret};
pub use querier::{Querier, Room, Timing};
pub use segment::{
    HostPlace, SegmentFrame, SegmentLan, SegmentProblem, SegmentPrograms, SegmentSettings,
    SegmentSnapshot,
};
pub use services::{Aead, Credential, Revocation, SIGNATURE_CONTEXT, Services, signed_message};
pub use snapshot::{Counters, GroupSnapshot, NeighborSnapshot, RouteSnapshot, Snapshot, Tables};
pub use source_filter::SourceFilter;
pub use timers::TimerKind;
