//! The `cronfleet` binary as the specs start it.

fn main() -> std::process::ExitCode {
    cli::main()
}
