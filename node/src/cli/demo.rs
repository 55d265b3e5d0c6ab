//! `turnwise demo`: decides what a demonstration is told.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use crate::config::{self, Listen};
use crate::demo::{self, DemoError, JobsRate, NODES_MAX, Plan};
use crate::exit;

/// Show a farm on this machine: several nodes, jobs, and a dashboard; nothing else is needed
///
/// Three nodes, each with a clock that is wrong in its own way and at its own distance from the database, take turns
/// on a SQLite database in a temporary folder. A sample app is called by a stream of jobs: it is slow at times, and
/// fails at times. Nodes can be killed, stalled, revived and more, by lines that are typed here (`help` lists them)
/// and by buttons on the dashboard. Everything is stopped and removed at the end. The environment's DATABASE_URL and
/// turnwise.toml count for nothing here.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise demo
  turnwise demo --nodes 5 --jobs-rate 20/s
  turnwise demo --for 1m --no-browser
  echo 'kill 2' | turnwise demo --for 20s")]
pub(super) struct Args {
    /// How many nodes, from 1 to 26
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_nodes)]
    nodes: usize,

    /// Where the dashboard listens, on a loopback address [default: 127.0.0.1:7171, or another port when it is taken]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    listen: Option<SocketAddr>,

    /// How many jobs are enqueued: 5/s, 90/m, 0; up to 200 a second
    #[arg(long, value_name = "RATE", default_value = "5/s", allow_hyphen_values = true)]
    jobs_rate: JobsRate,

    /// End by itself after so long: 60s, 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_time)]
    time: Option<Duration>,

    /// Another database than one of its own; none that a farm uses [default: SQLite, in a temporary folder]
    ///
    /// The demo's nodes take jobs from the queues demo-mail, demo-reports and demo-flaky alone. What they wrote stays
    /// there.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// Open no browser
    #[arg(long)]
    no_browser: bool,
}

/// Run the demo to its end.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let plan = Plan {
        nodes: args.nodes,
        listen: listen(args.listen)?,
        rate: args.jobs_rate,
        time: args.time,
        database_url: args.database_url,
        browser: !args.no_browser,
    };
    demo::run(plan).await?;
    Ok(ExitCode::SUCCESS)
}

fn listen(address: Option<SocketAddr>) -> Result<Listen, Failure> {
    let explicit = address.is_some();
    let address = match address {
        Some(address) => address,
        None => parse_listen(config::DEFAULT_LISTEN).map_err(Failure::failed)?,
    };
    Ok(Listen { address, explicit })
}

fn parse_nodes(text: &str) -> Result<usize, String> {
    let nodes = text.parse().ok().filter(|nodes| (1..=NODES_MAX).contains(nodes));
    nodes.ok_or_else(|| format!("there can be from 1 to {NODES_MAX} nodes, one for each letter"))
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write it as 127.0.0.1:7171".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("whoever reaches the dashboard of a demo can kill its nodes; listen on 127.0.0.1 or [::1]".to_owned()),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text)? {
        Duration::ZERO => Err("a demo takes more time than none".to_owned()),
        time => Ok(time),
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        let code = match &error {
            DemoError::Store(error) => exit::of_store(error),
            DemoError::InUse { .. } | DemoError::Taken { .. } => exit::BAD_CONFIGURATION,
            DemoError::NoNode(_) | DemoError::System { .. } => exit::FAILED,
        };
        Self { code, message: error.to_string() }
    }
}
