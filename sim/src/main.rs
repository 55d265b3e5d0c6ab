//! The binary `turnwise-sim`.

fn main() -> std::process::ExitCode {
    turnwise_sim::cli::main()
}
