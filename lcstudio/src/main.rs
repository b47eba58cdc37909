//! The program `lcstudio`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lcstudio::main()
}
