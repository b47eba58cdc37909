//! What `lcroute-lab` is, built with the tests: they run what was just built, and nothing else.

fn main() -> std::process::ExitCode {
    lcroute_lab::main()
}
