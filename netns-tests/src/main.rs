//! All programs in one, built with the tests: they run what was just built, and nothing else.

fn main() -> std::process::ExitCode {
    lcroute_lab::main_with(&netns_tests::PROGRAMS)
}
