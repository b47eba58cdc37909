//! A node of the network in a web page. Router, membership and negotiation are those of hosts (`lcroute-node`); the browser
//! makes the connections (RTCPeerConnection), keeps the WebSockets to signalling servers, and tells the time.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── member ─┬─ lcroute_node::Node ── connections ── commands for RTCPeerConnection
//!                                                 ├─ programs: what the page has joined
//!                                                 └─ servers: messages for WebSockets
//! ```
//!
//! Everything but `page` is an ordinary library, so two members also meet in a test on a host.

pub mod command;
pub mod connections;
pub mod member;
mod page;
mod programs;
pub mod sdp;
mod visit;
