//! The program `lcgroup`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lcgroup::main()
}
