//! `lcroute-lab`: see the library.

fn main() -> std::process::ExitCode {
    lcroute_lab::main()
}
