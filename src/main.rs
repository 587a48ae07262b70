//! The program: parse, run, exit code. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rowbeat::cli::main(std::env::args_os())
}
