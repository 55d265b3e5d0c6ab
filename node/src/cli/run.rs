//! `turnwise run`: decides the configuration of a node and hands it to the shell, which runs it.

use std::process::ExitCode;

use super::common::{Common, RedactArgs};
use super::failure::Failure;
use super::log;
use crate::clock::WrongClock;
use crate::config::{Environment, Flags, Layers, RunConfig};
use crate::run::run_node;
use crate::store::Distance;
use crate::tampering::Tampering;

/// Run a node: take turns at polling the queue, and call jobs
///
/// A node needs a database that all nodes share and a target, normally the web app on the same machine.
/// Without a word it uses the file turnwise.db and http://127.0.0.1:8080. It waits for a database that is
/// not there yet (unless --fail-fast), and never stops because of its target. SIGTERM makes it leave the
/// ring, take no more jobs, and finish or give back those that run; a second signal aborts.
///
/// Every flag is also a variable (TURNWISE_CAPACITY for --capacity) and a key of the file (`capacity`).
/// A flag counts before a variable, and that before the file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise run
  turnwise run --database-url postgres://app@db/app --target http://127.0.0.1:3000
  turnwise run --target http://127.0.0.1:3000 --target reports=http://127.0.0.1:9000
  turnwise run --queues mail,reports --capacity 4 --drain-timeout 2m
  DATABASE_URL=postgres://app@db/app TURNWISE_CAPACITY=64 turnwise run

turnwise.toml:
  database-url = \"postgres://app@db/app\"
  target = [\"http://127.0.0.1:3000\", \"reports=http://127.0.0.1:9000\"]
  capacity = 64
  period = \"500ms\"
  keep-succeeded = \"2h\"
  keep-dead = \"forever\"")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// The origin that jobs with a path are called on [default: http://127.0.0.1:8080]
    ///
    /// Repeat it as QUEUE=URL for queues that another app serves. It is an origin, scheme://host[:port]: a
    /// path is an error. The scheme h2c is http to an app that speaks HTTP/2 without TLS from the first byte on.
    #[arg(long, value_name = "[QUEUE=]URL")]
    target: Vec<String>,

    /// The Host header for calls to the targets, where a web server tells its sites apart by name
    #[arg(long, value_name = "HOST")]
    target_host_header: Option<String>,

    /// An origin that jobs may name in a full URL; repeat it for more [default: none]
    ///
    /// It is compared as a whole: scheme, host and port.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// A key to sign calls with, by Standard Webhooks; repeat it for more [default: none, calls are not signed]
    ///
    /// The first is the current one, and each call carries a signature by every one: add the new one, wait until all
    /// receivers know it, and take away the old one. On the command line other users of the machine can see it: prefer
    /// --signing-key-file or TURNWISE_SIGNING_KEY.
    #[arg(long, value_name = "KEY")]
    signing_key: Vec<String>,

    /// A file of such keys, one a line; they come after those of --signing-key
    #[arg(long, value_name = "FILE")]
    signing_key_file: Vec<String>,

    /// The node's name, for people [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Where the dashboard and the API listen, or `off` [default: 127.0.0.1:7171]
    ///
    /// On an address that other machines reach, only with --listen-token. There is no TLS: put a proxy that has it
    /// in front.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// What one must know to see the dashboard and to use the API, from 16 characters on [default: none]
    ///
    /// On the command line other users of the machine can see it: prefer TURNWISE_LISTEN_TOKEN. A browser asks for
    /// it once; programs send `Authorization: Bearer TOKEN`.
    #[arg(long, value_name = "TOKEN")]
    listen_token: Option<String>,

    #[command(flatten)]
    redact: RedactArgs,

    /// What the URLs begin with at which asynchronous jobs are heard of [default: where the API listens]
    ///
    /// The header Turnwise-Callback holds such a URL. The default leads to this node alone, from its own machine: where targets
    /// are elsewhere, or go on while nodes come and go, give one that leads to any node.
    #[arg(long, value_name = "URL")]
    callback_url: Option<String>,

    /// The period that the database must have, from 50ms to 10s [default: the database's, 1s at first]
    ///
    /// On a new database it becomes the period. A node that asks for another one than the database's does
    /// not start (exit 78): `turnwise period` changes it for all nodes.
    #[arg(long, value_name = "DURATION")]
    period: Option<String>,

    /// How many jobs run at once, from 1 to 1000 [default: 16]
    #[arg(long, value_name = "JOBS", allow_hyphen_values = true)]
    capacity: Option<String>,

    /// The queues to take jobs from, separated by commas [default: all]
    #[arg(long, value_name = "QUEUE,...")]
    queues: Vec<String>,

    /// How long to wait for running jobs when told to stop, up to 24h [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,

    /// How long jobs that succeeded, or were cancelled, are kept: from 1m to 10y, or forever [default: 24h]
    ///
    /// Counted from their end, by the database's clock. Where nodes are told differently the shortest time counts.
    #[arg(long, value_name = "DURATION")]
    keep_succeeded: Option<String>,

    /// How long jobs that were given up are kept: from 1m to 10y, or forever [default: 30d]
    #[arg(long, value_name = "DURATION")]
    keep_dead: Option<String>,

    /// Exit (69) when the database cannot be reached at the start, in place of waiting for it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fail_fast: Option<String>,

    /// Leave the schema as it is, and exit (78) when it is not complete
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_migrate: Option<String>,

    /// Write all that the engine is told and asks for to this file, for a replay at a desk [default: none]
    ///
    /// JSON, one object a line. A node that is started again goes on in the same file. It grows by about a
    /// kilobyte a turn of the node's, and a fifth of that a job; where it cannot be written fast enough it breaks
    /// off, and says so.
    #[arg(long, value_name = "FILE")]
    journal: Option<String>,

    /// How the log is written: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// A clock that is wrong on purpose, for tests of whole farms: OFFSET[,DRIFT][,LEAP@WHEN]...
    #[arg(long, hide = true, value_name = "CLOCK")]
    test_clock: Option<WrongClock>,

    /// A database that is farther away than it is: WAY, or THERE..BACK
    #[arg(long, hide = true, value_name = "DISTANCE")]
    test_distance: Option<Distance>,

    /// Take lines from standard input, a pipe, that change both while the node runs (`clock +5s`, `distance 80ms`);
    /// stop when the pipe is closed, and die with the process that started this one
    #[arg(long, hide = true)]
    test_commands: bool,
}

/// Run a node until it is told to stop.
pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process()?;
    let layers = Layers::new(args.flags(), &environment, args.common.config.as_deref())?;
    let config = RunConfig::from_layers(&layers)?;
    log::start(config.log_format)?;
    for warning in environment.warnings() {
        tracing::warn!("{warning}");
    }
    let tampering = Tampering::new(args.test_clock.clone(), args.test_distance, args.test_commands);
    Ok(run_node(config, tampering))
}

impl Args {
    fn flags(&self) -> Flags {
        let mut flags = self.common.flags();
        flags.add("target", self.target.clone());
        flags.add("target-host-header", self.target_host_header.clone());
        flags.add("allow-origin", self.allow_origin.clone());
        flags.add("signing-key", self.signing_key.clone());
        flags.add("signing-key-file", self.signing_key_file.clone());
        flags.add("name", self.name.clone());
        flags.add("listen", self.listen.clone());
        flags.add("listen-token", self.listen_token.clone());
        self.redact.add_to(&mut flags);
        flags.add("callback-url", self.callback_url.clone());
        flags.add("period", self.period.clone());
        flags.add("capacity", self.capacity.clone());
        flags.add("queues", self.queues.clone());
        flags.add("drain-timeout", self.drain_timeout.clone());
        flags.add("keep-succeeded", self.keep_succeeded.clone());
        flags.add("keep-dead", self.keep_dead.clone());
        flags.add("fail-fast", self.fail_fast.clone());
        flags.add("no-migrate", self.no_migrate.clone());
        flags.add("journal", self.journal.clone());
        flags.add("log-format", self.log_format.clone());
        flags
    }
}
