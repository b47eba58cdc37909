//! `lcroute sim` without the rest of lcroute: builds in a fraction of the time.

use clap::Parser;
use librecast_program::cli::{finish, init_logging};

#[derive(Debug, Parser)]
#[command(after_help = lcroute_sim::EXAMPLES)]
struct Cli {
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    arguments: lcroute_sim::Arguments,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = init_logging(None, "error").map_err(Into::into);
    finish(
        "lcroute",
        result.and_then(|()| lcroute_sim::run(&cli.arguments, cli.json)),
    )
}
