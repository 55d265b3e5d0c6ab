//! `turnwise schedules`: lists, sets, removes, pauses and resumes schedules, and fires one now. Which times an expression
//! names is decided in `crate::schedule`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use turnwise_engine::ServerInstant;

use super::common::Common;
use super::failure::Failure;
use super::job_args::JobArgs;
use super::show;
use crate::audit::{Action, Order};
use crate::exit;
use crate::job::JobId;
use crate::job_fields;
use crate::json::{ScheduleLine, ScheduleOrdered, ScheduleSet, paused_or_resumed};
use crate::rfc3339;
use crate::schedule::{Cron, LIMIT_MAX, Misfire};
use crate::store::orders::{self, PauseAnswer, RunAnswer};
use crate::store::{NewSchedule, ScheduleView, Schedules, Store, parse_schedule_name};

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
    #[arg(value_name = "NAME", value_parser = parse_schedule_name)]
    name: String,

    /// The cron expression, up to 256 bytes
    #[arg(value_name = "CRON")]
    cron: String,

    /// The path, beginning with '/', or the full URL to call
    #[arg(value_name = "PATH_OR_URL", value_parser = job_fields::url)]
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

    /// Print {"name": "...", "result": "..."}
    #[arg(long)]
    json: bool,
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
            let order = Order::by_command(Action::ScheduleRemove, &args.name);
            match order.carry_out(&store, store.remove_schedule(&args.name)).await? {
                true if args.json => ordered(args.name, "removed"),
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

fn ordered(name: String, result: &'static str) -> Result<ExitCode, Failure> {
    show::print_json(&ScheduleOrdered { name, result })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let now = store.look().await?.clock;
    let schedules = store.schedules().await?;
    if args.json {
        let lines = schedules.iter().map(|schedule| ScheduleLine::new(schedule, now));
        let lines: Vec<_> = lines.collect();
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
    let schedule = NewSchedule { name: args.name, cron: args.cron, zone: args.zone, misfire, job };
    let order = Order::by_command(Action::ScheduleSet, &schedule.name);
    let set = order.carry_out(&store, orders::set(&store, &schedule, &cron)).await?;
    if args.json {
        show::print_json(&ScheduleSet::new(&schedule.name, set.is_new, &set.times))?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = show::printable(&schedule.name);
    let mut lines =
        vec![format!("{name} is {}; it comes next at", if set.is_new { "set" } else { "changed" })];
    lines.extend(
        set.times
            .into_iter()
            .filter_map(|at| Some(format!("  {} {}", cron.local(at)?, cron.zone()))),
    );
    done(&lines.join("\n"))
}

async fn pause(args: NameArgs, pause: bool) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let name = show::printable(&args.name);
    let action = if pause { Action::SchedulePause } else { Action::ScheduleResume };
    let order = Order::by_command(action, &args.name);
    let answer = order.carry_out(&store, orders::pause(&store, &args.name, pause)).await?;
    match (answer, pause) {
        (PauseAnswer::Done, pause) if args.json => {
            ordered(args.name, paused_or_resumed(true, pause))
        }
        (PauseAnswer::Done, true) => done(&format!("{name} is paused")),
        (PauseAnswer::Done, false) => done(&format!("{name} is resumed")),
        (PauseAnswer::SoAlready, true) => Err(Failure::failed(format!("{name} is paused already"))),
        (PauseAnswer::SoAlready, false) => Err(Failure::failed(format!("{name} is not paused"))),
        (PauseAnswer::Unknown, _) => Err(unknown(&args.name)),
        (PauseAnswer::Unreadable(error), _) => Err(Failure::failed(error.to_string())),
    }
}

async fn fire_now(args: RunArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let order = Order::by_command(Action::ScheduleRun, &args.name);
    match order.carry_out(&store, orders::run(&store, &args.name)).await? {
        RunAnswer::Fired(id) if args.json => show::print_json(&Fired { id })?,
        RunAnswer::Fired(id) => show::print(&id.to_string())?,
        RunAnswer::Unknown => return Err(unknown(&args.name)),
        RunAnswer::Changing => {
            let (name, tries) = (show::printable(&args.name), orders::TRIES);
            let say = format!("{name} was changed {tries} times meanwhile; try again");
            return Err(Failure::failed(say));
        }
    }
    Ok(ExitCode::SUCCESS)
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
