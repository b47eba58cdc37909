//! A node of the network in a web page. Router, membership and negotiation are those of hosts
//! (`lcroute-node`); the browser makes the connections (RTCPeerConnection), keeps the WebSockets to
//! signalling servers, and provides the clock.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── member ─┬─ lcroute_node::Node ── connections ── commands
//!                                                 ├─ programs: groups that the page has joined
//!                                                 └─ servers: messages for WebSockets
//! ```
//!
//! All modules but `page` form an ordinary library, so a test on a host can link two members.

pub mod command;
pub mod connections;
pub mod member;
mod page;
mod programs;
pub mod sdp;
mod visit;
