//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    weave_router::cli::main()
}
