//! The program `lcsync`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lcsync::main()
}
