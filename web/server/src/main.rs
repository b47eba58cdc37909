//! `lcroute-web`: see the library.

fn main() -> std::process::ExitCode {
    lcroute_web::main()
}
