//! Decides what the commands of `turnwise-sim` do with their arguments, and how they say what went wrong.

mod clock;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The simulators of Turnwise.
#[derive(Debug, Parser)]
#[command(name = "turnwise-sim", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Estimators of the server's clock side by side on one trace
    Clock(clock::Arguments),
}

/// Run the command line. 0: done; 1: failed; 2: the arguments make no sense.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Clock(arguments) => clock::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turnwise-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
