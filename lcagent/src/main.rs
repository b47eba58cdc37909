//! The program `lcagent`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lcagent::main()
}
