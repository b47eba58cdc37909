//! Ordinary multicast programs that know nothing of lcroute: a sender, a receiver, a watcher of
//! MLD. They do what programs in the wild do and report in JSON what the kernel gave them.

mod dht_swarm;
mod dice;
mod flap;
mod flood;
mod forge;
mod inbox;
mod latencies;
mod log_forge;
mod mld_flood;
mod mld_watch;
mod payload;
mod receive;
mod send;
mod syscalls;

pub use dht_swarm::main as dht_swarm;
pub use flap::main as flap;
pub use flood::main as flood;
pub use forge::main as forge;
pub use log_forge::main as log_forge;
pub use mld_flood::main as mld_flood;
pub use mld_watch::main as mld_watch;
pub use receive::main as receive;
pub use send::main as send;

use std::net::Ipv6Addr;
use std::process::ExitCode;

/// Parses the arguments of a program, runs it, and says what went wrong.
fn run<A: clap::Parser>(program: impl FnOnce(&A) -> anyhow::Result<()>) -> ExitCode {
    match program(&A::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The `count` groups from `first` on.
fn groups_from(first: Ipv6Addr, count: u32) -> impl Iterator<Item = Ipv6Addr> {
    let base = u128::from(first);
    (0..u128::from(count)).map(move |offset| Ipv6Addr::from(base.wrapping_add(offset)))
}
