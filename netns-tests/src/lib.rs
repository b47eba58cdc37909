//! The whole system in network namespaces: firewalls, NAT, loss, failures; the demo.
//!
//! - [`lab`] holds worlds made of namespaces, in which hosts run programs
//! - [`programs`] holds ordinary multicast programs (`mc-send`, `mc-recv`, `mld-watch`)
//! - [`demo`] is `lcroute demo`
//! - [mod@bench] holds measurements

pub mod bench;
pub mod demo;
pub mod lab;
pub mod programs;
