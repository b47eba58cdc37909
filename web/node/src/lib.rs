//! A node of the network in a web page. Router, membership and negotiation are those of hosts
//! (`lcroute-node`); the browser makes the connections (RTCPeerConnection), keeps the WebSockets to
//! signalling servers, and provides the clock.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── tab ─┬─ member ── lcroute_node::Node ───── connections
//!                                              │    └─ librecast::mld_host: groups that the page has joined
//!                                              ├─ leaf ──── lcroute_node::LeafNode ─ connections
//!                                              └─ servers: messages for WebSockets
//! ```
//!
//! All modules but `page` form an ordinary library, so a test on a host can link two members.

pub mod command;
pub mod connections;
pub mod enter;
mod leaf;
mod member;
mod packet;
mod page;
pub mod sdp;
mod servers;
pub mod tab;
mod visit;
