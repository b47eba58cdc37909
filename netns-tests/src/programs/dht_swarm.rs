//! `dht-swarm`: a DHT of a few nodes on one host.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use n0_mainline::Dht;
use serde_json::json;

/// Prints a JSON line once all nodes know each other, and serves until it is killed.
#[derive(Debug, Parser)]
#[command(name = "dht-swarm")]
struct Args {
    /// The first port; the nodes have this and the following ones.
    #[arg(long, default_value_t = 6881)]
    port: u16,
    /// How many nodes.
    #[arg(long, default_value_t = 8)]
    nodes: u16,
    /// This host's address, which the nodes tell each other.
    #[arg(long)]
    address: std::net::Ipv4Addr,
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(|args: &Args| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(serve(args))
    })
}

async fn serve(args: &Args) -> Result<()> {
    let first = format!("{}:{}", args.address, args.port);
    let mut nodes = Vec::new();
    for number in 0..args.nodes {
        let bootstrap: &[&str] = if number == 0 { &[] } else { &[&first] };
        let port = args.port.checked_add(number).context("port")?;
        let mut builder = Dht::builder();
        builder.server_mode().bootstrap(bootstrap).port(port);
        nodes.push(builder.build()?);
    }
    for node in &nodes {
        node.bootstrapped().await?;
    }
    println!("{}", json!({ "nodes": nodes.len() }));
    std::future::pending().await
}
