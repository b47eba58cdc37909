//! `lcroute demo`: the whole system on one machine, in its own namespaces, step by step.
//!
//! `narrator` prints, `steps` acts and checks, `web` admits a browser. Nothing outlives the
//! process: namespaces are anonymous, files are in a private tmpfs, programs end with their parent.

mod narrator;
mod steps;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::lab::{self, Lab};
use librecast_program::executable::places;
use narrator::Narrator;
pub use narrator::grouped;

/// Arguments of `lcroute demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many nodes, from 2 to 16
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Then keep the network up, for a browser of this machine: a page that shows it, and one that is a node of it
    #[arg(long)]
    web: bool,
}

/// Runs the demo with the `programs` of this binary; with `json` it prints a line of JSON per step, and a summary.
#[must_use]
pub fn run(arguments: &Arguments, json: bool, programs: &[&str]) -> ExitCode {
    let mut narrator = Narrator::new(json);
    match show(arguments, &mut narrator, programs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            narrator.fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn show(arguments: &Arguments, narrator: &mut Narrator, programs: &[&str]) -> Result<()> {
    let pages = match arguments.web && !programs.contains(&web::PROGRAM) {
        true => Some(beside(web::PROGRAM)?),
        false => None,
    };
    let ports = arguments.web.then(web::Ports::open).transpose()?;
    lab::isolate()?;
    lab::exit_on_signals()?;
    let program = std::fs::read_link("/proc/self/exe").context("/proc/self/exe")?;
    let lab = Lab::new("demo", &program, programs)?;
    pages.map_or(Ok(()), |pages| lab.add_program(&pages))?;
    let shown = steps::run(&lab, usize::from(arguments.nodes), ports, narrator);
    if shown.is_err() {
        eprintln!("{}", lab.logs());
    }
    shown
}

/// Returns the path of another program of ours.
fn beside(program: &str) -> Result<PathBuf> {
    let found = places(program)?.into_iter().find(|place| place.is_file());
    found.with_context(|| format!("{program} is missing: cargo build --workspace --bin {program}"))
}
