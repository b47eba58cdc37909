//! Carriers of signalling: live ones report present peers and deliver sealed messages; slow ones
//! store one presence record per node.
//!
//! [`client`] connects to [`server`] over WebSocket, with the messages of
//! [`lcroute_overlay::server`]. On a LAN ([`Lan`]) and in a folder ([`Spool`]) nodes find each
//! other's records without a server, and in a DHT and a Matrix room through a program beside the
//! daemon ([`Reach`]). [`Carriers`] holds the carriers of a node.
//!
//! | module | content |
//! |---|---|
//! | `carrier`, `carriers` | the interface of carriers; those of a node |
//! | `client`, `ranking`, [`server`], `counts`, `http` | signalling servers |
//! | `rooms`, `beside` | many rooms of one connection: for its owner, and within it |
//! | `lan`, `spool`, `reach`, `reach_line` | LAN, folder, and the program for DHT and Matrix room |
//! | [`dht`] | a program for the DHT of one's own, for what is no node's record |
//! | [`proxy`], `lookup` | the way to servers: through proxies, and by their names |
//! | `sockets` | UDP sockets of links, of programs without a packet thread |
//! | `ice_servers` | STUN servers and relays of a program: addresses, logins, the stream |
//! | `relay`, `relay_stream`, `peer_filter` | relays: sockets, streams, a filter in the kernel |

mod beside;
mod carrier;
mod carriers;
pub mod client;
mod counts;
pub mod dht;
mod http;
mod ice_servers;
mod lan;
mod lookup;
mod peer_filter;
pub mod proxy;
mod ranking;
mod reach;
mod reach_line;
mod relay;
pub mod relay_stream;
mod rooms;
pub mod server;
mod sockets;
mod spool;

pub use beside::{Entries, Entry, RoomEvent};
pub use carrier::{Carrier, CarrierEvent, Pace, PathChange};
pub use carriers::{Carriers, Door};
pub use ice_servers::{IceEvent, IcePlan, IceServers, Login, Turn};
pub use lan::{Lan, MAX_LAN_RECORD, instance_name, is_mdns_taken};
pub use lookup::look_up;
pub use reach::{Account, Reach, ReachProgram, ReachSocket};
pub use rooms::{ManyRooms, Registrant};
pub use sockets::{Datagram, Sockets, batch};
pub use spool::Spool;
