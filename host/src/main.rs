//! The `aviary` binary.

use std::process::ExitCode;

/// A message makes and frees hundreds of small things; the system's allocator takes much longer for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    aviary_host::cli::main()
}
