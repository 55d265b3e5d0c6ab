//! `turnwise jobs retry --all`, `jobs cancel --all`: what is done to all jobs that a filter finds, however many there are.

use std::process::ExitCode;

use serde::Serialize;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::audit::{Order, in_words};
use crate::config;
use crate::exit;
use crate::job::{JobFilter, JobState};
use crate::store::Deed;

/// Which jobs, when they are not named by their ids.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// All jobs in the state of --state, and of the queue of --queue where one is given
    #[arg(long, requires = "state", conflicts_with = "ids")]
    all: bool,

    /// With --all: those in this state
    #[arg(long, value_name = "STATE", value_parser = super::jobs::state_parser())]
    state: Option<JobState>,

    /// With --all: only those of this queue
    #[arg(long, value_name = "QUEUE", value_parser = config::parse_queue)]
    queue: Option<String>,
}

impl Which {
    /// Whether all jobs that these words describe are meant, and none by its id.
    pub(super) fn are_all(&self) -> Result<bool, Failure> {
        if !self.all && (self.state.is_some() || self.queue.is_some()) {
            let say = "--state and --queue go with --all: name the jobs by their ids, or add --all";
            return Err(Failure::usage(say));
        }
        Ok(self.all)
    }
}

#[derive(Serialize)]
struct Told {
    altered: u32,
}

/// Do it, a batch at a time, and tell how many it was done to.
pub(super) async fn alter(
    common: Common,
    which: Which,
    deed: Deed,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (words, verb) = match deed {
        Deed::Retry => ("will run now", "retried"),
        Deed::Cancel => ("are cancelled, or are not tried again", "cancelled"),
    };
    if let Some(state) = which.state.filter(|state| !deed.is_for(*state)) {
        return Err(Failure::usage(format!("jobs that are {} are not {verb}", state.as_str())));
    }
    let filter = JobFilter { state: which.state, queue: which.queue, ..JobFilter::default() };
    let store = common.store().await?;
    let order = Order::by_command(deed.action(), in_words(&filter));
    let done = order.alter_all(&store, deed, &filter, u32::MAX).await;
    if json {
        show::print_json(&Told { altered: done.jobs })?;
    } else {
        show::print(&format!("{} jobs {words}", done.jobs))?;
    }
    match done.broken_off {
        Some(error) => Err(Failure { code: exit::of_store(&error), message: error.to_string() }),
        None if done.and_more => Err(Failure::failed("there are more: run it again")),
        None => Ok(ExitCode::SUCCESS),
    }
}
