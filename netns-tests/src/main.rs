//! All programs in one binary, built with the tests: so they run what was just built.

fn main() -> std::process::ExitCode {
    lcroute_lab::main_with(&netns_tests::PROGRAMS)
}
