//! Ordinary multicast programs without knowledge of lcroute: a sender and a receiver. They behave
//! as typical programs do, and report in JSON the data that the kernel gave them.

mod inbox;
mod latencies;
mod payload;
mod receive;
mod send;
mod syscalls;

pub use receive::main as receive;
pub use send::main as send;

use std::net::Ipv6Addr;
use std::process::ExitCode;

/// Parses the arguments of a program, runs it, and prints its error.
pub fn run<A: clap::Parser>(program: impl FnOnce(&A) -> anyhow::Result<()>) -> ExitCode {
    match program(&A::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the `count` groups from `first` on.
fn groups_from(first: Ipv6Addr, count: u32) -> impl Iterator<Item = Ipv6Addr> {
    let base = u128::from(first);
    (0..u128::from(count)).map(move |offset| Ipv6Addr::from(base.wrapping_add(offset)))
}
