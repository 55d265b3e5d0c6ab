//! `turnwise schedules`: lists, sets, removes, pauses and resumes schedules, and fires one now. Which times an expression
//! names is decided in `crate::schedule`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use turnwise_engine::ServerInstant;

use super::common::Common;
use super::failure::Failure;
use super::job_args::{self, JobArgs};
use super::show;
use crate::exit;
use crate::job::JobId;
use crate::rfc3339;
use crate::schedule::{Cron, LIMIT_MAX, Misfire};
use crate::store::{
    AnyStore, NAME_BYTES_MAX, NewSchedule, ScheduleView, Schedules, Store, limit_of,
};

/// So many times to come are shown.
const TIMES_SHOWN: usize = 5;
/// How often a schedule is fired now before somebody else who changes it all the while is blamed.
const TRIES: u32 = 10;

/// List, set, remove, pause, resume and run schedules
///
/// A schedule inserts a job at each time that its cron expression names: once, whichever node does it, and a little ahead, so
/// that the job runs at its second.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise schedules set nightly '0 3 * * *' /jobs/tidy --zone Europe/Berlin
  turnwise schedules set tick '*/10 * * * * *' /jobs/tick --misfire skip
  turnwise schedules list
  turnwise schedules run nightly
  turnwise schedules pause nightly")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Set(Box<SetArgs>),
    Remove(NameArgs),
    Pause(NameArgs),
    Resume(NameArgs),
    Run(RunArgs),
}

/// List schedules, with their next times
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: Common,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Set a schedule, a new one or in the place of the one with that name
///
/// Five fields (minute, hour, day of the month, month, day of the week), six with the second first, or @hourly, @daily,
/// @weekly, @monthly, @yearly. When clocks go forward, a fixed time that is skipped comes right after; when they go back, a
/// fixed time comes once, and intervals such as */10 in both of the equal hours.
#[derive(Debug, clap::Args)]
struct SetArgs {
    #[command(flatten)]
    common: Common,

    /// Its name, up to 128 bytes
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// The cron expression, up to 256 bytes
    #[arg(value_name = "CRON")]
    cron: String,

    /// The path, beginning with '/', or the full URL to call
    #[arg(value_name = "PATH_OR_URL", value_parser = job_args::parse_url)]
    url: String,

    /// The time zone of the expression, an IANA name such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,

    /// What becomes of times that were missed by more than a minute, since no node was there: skip them, run once for all of
    /// them, or run all
    #[arg(long, value_name = "POLICY", default_value = "once", value_parser = ["skip", "once", "all"])]
    misfire: String,

    /// With --misfire all: for the latest so many at most, from 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    misfire_limit: u32,

    #[command(flatten)]
    job: JobArgs,

    /// Print {"name", "new", "next": [...]}
    #[arg(long)]
    json: bool,
}

/// One schedule
#[derive(Debug, clap::Args)]
struct NameArgs {
    #[command(flatten)]
    common: Common,

    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Insert a job of a schedule now, though it is paused, and print its id
#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    common: Common,

    /// Its name
    #[arg(value_name = "NAME")]
    name: String,

    /// Print {"id": "..."}
    #[arg(long)]
    json: bool,
}

/// A schedule, as it is shown.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    cron: String,
    zone: String,
    misfire: &'static str,
    misfire_limit: i64,
    queue: String,
    method: String,
    url: String,
    paused_since: Option<String>,
    /// The next times (RFC 3339); none while it is paused.
    next: Vec<String>,
    last: Option<String>,
    skipped: u64,
    error: Option<String>,
}

#[derive(Serialize)]
struct Set<'a> {
    name: &'a str,
    new: bool,
    next: Vec<String>,
}

#[derive(Serialize)]
struct Fired {
    id: JobId,
}

/// Do what was asked of the schedules.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Set(args) => set(*args).await,
        Command::Remove(args) => {
            let store = args.common.store().await?;
            let name = show::printable(&args.name);
            match store.remove_schedule(&args.name).await? {
                true => done(&format!("{name} is removed; the jobs that it has inserted stay")),
                false => Err(unknown(&args.name)),
            }
        }
        Command::Pause(args) => pause(args, true).await,
        Command::Resume(args) => pause(args, false).await,
        Command::Run(args) => fire_now(args).await,
    }
}

fn done(words: &str) -> Result<ExitCode, Failure> {
    show::print(words)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let now = store.look().await?.clock;
    let schedules = store.schedules().await?;
    if args.json {
        let lines: Vec<Line> = schedules.iter().map(|schedule| line(schedule, now)).collect();
        show::print_json(&lines)?;
    } else if schedules.is_empty() {
        show::print("no schedules")?;
    } else {
        let header = ["NAME", "CRON", "ZONE", "NEXT", "LAST", "CALL"];
        let rows = schedules.iter().map(|schedule| row(schedule, now)).collect();
        show::print(&show::table(header, rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs) -> Result<ExitCode, Failure> {
    let cron =
        Cron::parse(&args.cron, &args.zone).map_err(|error| Failure::usage(error.to_string()))?;
    let misfire = args.misfire.parse::<Misfire>();
    let misfire = misfire
        .and_then(|misfire| misfire.with_limit(args.misfire_limit))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let job = args.job.job(args.url)?;
    let store = args.common.store().await?;
    let now = store.look().await?.clock.as_micros();
    let schedule = NewSchedule { name: args.name, cron: args.cron, zone: args.zone, misfire, job };
    // The same as before goes on where it was: a time that has come and was not fired yet is not lost.
    let before = store.schedules().await?.into_iter().find(|known| known.name == schedule.name);
    let goes_on = before.filter(|known| {
        let same = (&known.cron, &known.zone) == (&schedule.cron, &schedule.zone);
        same && known.error.is_none() && known.paused_since.is_none() && known.revision > 0
    });
    let next = goes_on.and_then(|known| known.next_at).map(ServerInstant::as_micros);
    let new = store.put_schedule(&schedule, next.or_else(|| cron.next_after(now))).await?;
    let times = cron.next_times(now, TIMES_SHOWN);
    if args.json {
        show::print_json(&Set {
            name: &schedule.name,
            new,
            next: times.into_iter().map(rfc).collect(),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = show::printable(&schedule.name);
    let mut lines =
        vec![format!("{name} is {}; it comes next at", if new { "set" } else { "changed" })];
    lines.extend(
        times.into_iter().filter_map(|at| Some(format!("  {} {}", cron.local(at)?, cron.zone()))),
    );
    done(&lines.join("\n"))
}

async fn pause(args: NameArgs, pause: bool) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let schedule = found(&store, &args.name).await?;
    let now = store.look().await?.clock.as_micros();
    let next = match pause {
        true => schedule.next_time(ServerInstant::from_micros(now)),
        false => {
            let cron = schedule.parsed().map_err(|error| Failure::failed(error.to_string()))?;
            cron.next_after(now)
        }
    };
    let name = show::printable(&args.name);
    match (store.pause_schedule(&args.name, pause, next).await?, pause) {
        (true, true) => done(&format!("{name} is paused")),
        (true, false) => done(&format!("{name} is resumed")),
        (false, true) => Err(Failure::failed(format!("{name} is paused already"))),
        (false, false) => Err(Failure::failed(format!("{name} is not paused"))),
    }
}

async fn fire_now(args: RunArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    for _ in 0..TRIES {
        let schedule = found(&store, &args.name).await?;
        let fire = schedule.fire_now(store.look().await?.clock);
        if store.fire(&fire).await? {
            let id = fire.times[0].1;
            if args.json {
                show::print_json(&Fired { id })?;
            } else {
                show::print(&id.to_string())?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
    let name = show::printable(&args.name);
    Err(Failure::failed(format!("{name} was changed {TRIES} times meanwhile; try again")))
}

async fn found(store: &AnyStore, name: &str) -> Result<ScheduleView, Failure> {
    let schedules = store.schedules().await?;
    schedules.into_iter().find(|schedule| schedule.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Failure {
    Failure {
        code: exit::FAILED,
        message: format!(
            "there is no schedule {:?}; `turnwise schedules list` shows those that there are",
            show::printable(name)
        ),
    }
}

fn rfc(at: i64) -> String {
    rfc3339::format(ServerInstant::from_micros(at))
}

/// The times to come, unless it is paused.
fn times(schedule: &ScheduleView, now: ServerInstant) -> Vec<i64> {
    let fires = schedule.paused_since.is_none() && schedule.error.is_none();
    let cron = schedule.parsed().ok().filter(|_| fires);
    cron.map_or_else(Vec::new, |cron| cron.next_times(now.as_micros(), TIMES_SHOWN))
}

fn line(schedule: &ScheduleView, now: ServerInstant) -> Line {
    Line {
        name: schedule.name.clone(),
        cron: schedule.cron.clone(),
        zone: schedule.zone.clone(),
        misfire: schedule.misfire.as_str(),
        misfire_limit: limit_of(schedule.misfire),
        queue: schedule.queue.clone(),
        method: schedule.method.clone(),
        url: schedule.url.clone(),
        paused_since: schedule.paused_since.map(rfc3339::format),
        next: times(schedule, now).into_iter().map(rfc).collect(),
        last: schedule.last_at.map(rfc3339::format),
        skipped: schedule.skipped,
        error: schedule.error.clone(),
    }
}

fn row(schedule: &ScheduleView, now: ServerInstant) -> [String; 6] {
    let next = match (&schedule.error, schedule.paused_since, schedule.parsed()) {
        (Some(error), ..) => show::printable(error),
        (None, Some(_), _) => "paused".to_owned(),
        (None, None, Err(error)) => show::printable(&error.to_string()),
        (None, None, Ok(cron)) => {
            let next = cron.next_after(now.as_micros());
            show::or_nothing(next.and_then(|next| cron.local(next)))
        }
    };
    [
        show::printable(&schedule.name),
        show::printable(&schedule.cron),
        show::printable(&schedule.zone),
        next,
        show::or_nothing(schedule.last_at.map(rfc3339::format)),
        format!("{} {}", show::printable(&schedule.method), show::printable(&schedule.url)),
    ]
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("a schedule’s name has from 1 to {NAME_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a schedule’s name has no control characters".to_owned());
    }
    Ok(text.to_owned())
}
