//! `lcstudio-notes`: see the library.

fn main() -> std::process::ExitCode {
    lcstudio_notes::main()
}
