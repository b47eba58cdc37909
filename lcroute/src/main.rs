//! `lcroute`: see the library.

fn main() -> std::process::ExitCode {
    lcroute::main()
}
