//! The program `lcradio`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lcradio::main()
}
