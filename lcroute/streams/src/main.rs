//! `lcroute-streams`: see the library.

fn main() -> std::process::ExitCode {
    lcroute_streams::main()
}
