//! `lcroute demo`: the whole system on one machine, in namespaces of its own, step by step.
//!
//! `narrator` prints, `steps` does and proves. Nothing outlives the process: namespaces are
//! anonymous, files lie in a private tmpfs, programs die with their parent.

mod narrator;
mod steps;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::lab::{self, Lab};
use narrator::Narrator;
pub(crate) use narrator::grouped;

/// Shows lcroute and lcsync working: nodes behind closed firewalls, one of them behind NAT, on
/// this one machine, in network namespaces that vanish afterwards.
#[derive(Debug, Parser)]
#[command(name = "lcroute demo", bin_name = "lcroute demo")]
struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Print one JSON line a step, and a summary.
    #[arg(long)]
    json: bool,
}

/// The program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let mut narrator = Narrator::new(args.json);
    match show(&args, &mut narrator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            narrator.fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn show(args: &Args, narrator: &mut Narrator) -> Result<()> {
    lab::isolate()?;
    lab::exit_on_signals()?;
    let program = std::fs::read_link("/proc/self/exe").context("/proc/self/exe")?;
    let lab = Lab::new("demo", &program)?;
    let shown = steps::run(&lab, usize::from(args.nodes), narrator);
    if shown.is_err() {
        eprintln!("{}", lab.logs());
    }
    shown
}
