//! Decides what the words typed after `turnwise` mean, what is printed, and with which exit code the
//! program ends. Does nothing by itself: every command is a few calls of the store or of the shell.
//!
//! - `failure`: the exit code and the report of an error;
//! - `log`: the log of a node;
//! - `common`: what every command takes, and the way from there to the store; `job_args`: what can be said of a job;
//! - `show`: tables, JSON and text from the database, made safe for a terminal;
//! - one file for each command.

mod all_jobs;
mod audit;
mod batches;
mod common;
mod config;
mod demo;
mod enqueue;
mod events;
mod failure;
mod job_args;
mod jobs;
mod log;
mod migrate;
mod nodes;
mod period;
mod prune;
mod queues;
mod run;
mod schedules;
mod show;
mod token;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;

/// A fault-tolerant background job processor with no leader and no broker.
///
/// The same node runs beside the web app on every server; the queue is a table in the SQL database that
/// the servers share; a job is an HTTP call. The machines take turns at polling the table.
#[derive(Debug, Parser)]
#[command(
    name = "turnwise",
    version,
    arg_required_else_help = true,
    after_long_help = "\
Settings come from flags, then from the environment (TURNWISE_CAPACITY for --capacity and so on; \
DATABASE_URL too), then from turnwise.toml in the working directory or the file that --config or \
TURNWISE_CONFIG names, then from the defaults.

Exit codes:
  0   done
  1   failed
  2   usage
  69  database or target unreachable
  75  drain timed out
  78  bad configuration

Examples:
  turnwise demo
  turnwise run --target http://127.0.0.1:3000
  turnwise enqueue /jobs/send-mail --body '{\"to\":\"ada@example.com\"}' --in 10m
  turnwise jobs list --state dead"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Demo(demo::Args),
    Enqueue(Box<enqueue::Args>),
    Jobs(jobs::Args),
    Batches(batches::Args),
    Queues(queues::Args),
    Schedules(schedules::Args),
    Nodes(nodes::Args),
    Events(events::Args),
    Top(top::Args),
    Period(period::Args),
    Token(token::Args),
    Audit(audit::Args),
    Migrate(migrate::Args),
    Config(config::Args),
}

/// The program: reads the command line and the environment of this process, does what they say, and
/// reports an error on stderr.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => common::block_on(demo::run(args)),
        Command::Enqueue(args) => common::block_on(enqueue::run(*args)),
        Command::Jobs(args) => common::block_on(jobs::run(args)),
        Command::Batches(args) => common::block_on(batches::run(args)),
        Command::Queues(args) => common::block_on(queues::run(args)),
        Command::Schedules(args) => common::block_on(schedules::run(args)),
        Command::Events(args) => common::block_on(events::run(args)),
        Command::Nodes(args) => common::block_on(nodes::run(args)),
        Command::Top(args) => common::block_on_quietly(top::run(args)),
        Command::Period(args) => common::block_on(period::run(args)),
        Command::Token(args) => common::block_on(token::run(args)),
        Command::Audit(args) => common::block_on(audit::run(args)),
        Command::Migrate(args) => common::block_on(migrate::run(args)),
        Command::Config(args) => config::run(&args),
    };
    result.unwrap_or_else(|failure: Failure| failure.report())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag_of_run() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        let shown = run.get_arguments().filter(|argument| !argument.is_hide_set());
        let flags: Vec<_> = shown.filter_map(clap::Arg::get_long).collect();
        for setting in SETTINGS {
            assert!(flags.contains(&setting.key), "--{}", setting.key);
        }
        assert_eq!(
            flags.len(),
            SETTINGS.len() + 1,
            "every flag that is shown, but --config, is a setting"
        );
    }
}
