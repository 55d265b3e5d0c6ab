//! The program `turnwise`. Decides nothing: see `turnwise_node::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnwise_node::cli::main()
}
