//! `lcroute-reach`: see the library.

fn main() -> std::process::ExitCode {
    lcroute_reach::main()
}
