//! The whole system in network namespaces: firewalls, NAT, loss, failures; the demo
//!
//! - [`lab`]: worlds made of namespaces, in which hosts run programs
//! - [`programs`]: ordinary multicast programs (`mc-send`, `mc-recv`, `mld-watch`)
//! - [`demo`]: `lcroute demo`
//! - [`bench`]: measurements

pub mod bench;
pub mod demo;
pub mod lab;
pub mod programs;
