//! `lcroute-demo`: see the library.

fn main() -> std::process::ExitCode {
    lcroute_demo::main()
}
