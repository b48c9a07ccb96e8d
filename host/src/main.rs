//! The `aviary` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    aviary_host::cli::main()
}
