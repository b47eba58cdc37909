//! `lcroute-outside`: see the library.

fn main() -> std::process::ExitCode {
    lcroute_outside::main()
}
