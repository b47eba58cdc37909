//! Programs without lcroute, or against it: they forge, flood and observe. They report in JSON.

mod dht_swarm;
mod dice;
mod flap;
mod flood;
mod forge;
mod log_forge;
mod mld_flood;
mod mld_watch;
mod slow_wire;
mod sniffer;

pub use dht_swarm::main as dht_swarm;
pub use flap::main as flap;
pub use flood::main as flood;
pub use forge::main as forge;
pub use log_forge::main as log_forge;
pub use mld_flood::main as mld_flood;
pub use mld_watch::main as mld_watch;
pub use slow_wire::main as slow_wire;
