//! The `cronfleet` binary; everything is in the library, where tests can reach it.

use std::process::ExitCode;

/// A planner makes and drops some hundred small things for each run. With this one that takes a fifth less time than with
/// the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
