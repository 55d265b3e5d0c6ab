//! `turnwise top`: the farm in a terminal, live. Decides when it looks and what a key leads to; what is shown is decided
//! in `screen`, what a key means in `keys`.

mod keys;
mod screen;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use self::keys::{Deed, Wish};
use self::screen::{Board, List};
use super::common::{Common, watched};
use super::failure::Failure;
use crate::job::{JobFilter, JobId};
use crate::store::{AnyStore, COUNTED_MAX, Store, StoreError, Views};
use crate::watch::Hub;

/// How often keys are looked for: what a finger does not notice.
const KEYS_EVERY: Duration = Duration::from_millis(40);
/// How often the queues are counted and the list is read again.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// Jobs in the list.
const LISTED: u32 = 100;

/// Show the farm in this terminal, live
///
/// The ring, a lane for each node, what waits in the queues, and the jobs that were given up, which can be run again
/// from here. Keys: Tab for the other lists, arrows to choose, r to run a job now, c to cancel it, ? for help, q to
/// leave. Where there is no terminal, `turnwise events` tells the same.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
}

/// Show it until somebody leaves.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    if !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        return Err(Failure::usage(
            "`turnwise top` needs a terminal to draw on and to read keys from; `turnwise events` tells the same as text",
        ));
    }
    let store = args.common.store().await?;
    // This also puts the terminal right when the program panics.
    let mut terminal = ratatui::try_init()
        .map_err(|error| Failure::failed(format!("this terminal cannot be drawn on: {error}")))?;
    let result = watched(&store, show(&mut terminal, store.clone())).await;
    ratatui::restore();
    result.map(|()| ExitCode::SUCCESS)
}

async fn show(terminal: &mut DefaultTerminal, store: AnyStore) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("the terminal failed: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let hub = Hub::new(store);
    let mut feed = hub.watch();
    let mut board = Board::default();
    let mut count_at = Instant::now();
    loop {
        if count_at <= Instant::now() {
            count(hub.store(), &mut board).await;
            count_at = Instant::now() + COUNT_EVERY;
        }
        board.clock = board.farm.as_deref().map(|farm| hub.clock(farm));
        terminal.draw(|frame| screen::draw(frame, &board)).map_err(failed)?;
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            news = feed.next() => if let Some(news) = news { board.learn(news) },
            () = tokio::time::sleep(KEYS_EVERY) => {}
        }
        while event::poll(Duration::ZERO).map_err(failed)? {
            let Event::Key(key) = event::read().map_err(failed)? else { continue };
            match keys::meant(&mut board, key) {
                None => {}
                Some(Wish::Leave) => return Ok(()),
                Some(Wish::Recount) => count_at = Instant::now(),
                Some(Wish::Do(deed, job)) => {
                    board.said = Some(perform(hub.store(), deed, job).await);
                    count_at = Instant::now();
                }
            }
        }
    }
}

/// Count the queues and read the list. Where the database does not answer, what was there stays, and the screen says so.
async fn count(store: &AnyStore, board: &mut Board) {
    let read = async {
        let filter =
            JobFilter { state: Some(board.list.state()), limit: LISTED, ..Default::default() };
        Ok::<_, StoreError>((store.tally(COUNTED_MAX).await?, store.page(&filter).await?))
    };
    if let Ok(Ok((tally, page))) = tokio::time::timeout(COUNT_EVERY, read).await {
        board.tally = Some(tally);
        board.jobs = page.jobs;
        board.chosen = board.chosen.min(board.jobs.len().saturating_sub(1));
    }
}

/// Do it; what came of it, in words.
async fn perform(store: &AnyStore, deed: Deed, job: JobId) -> String {
    let done = match deed {
        Deed::Retry => store.retry(job).await,
        Deed::Cancel => store.cancel(job).await,
    };
    match (deed, done) {
        (_, Err(error)) => format!("nothing was done: {error}"),
        (_, Ok(None)) => "nothing was done: there is no such job any more".to_owned(),
        (Deed::Retry, Ok(Some(true))) => "it runs again now".to_owned(),
        (Deed::Cancel, Ok(Some(true))) => "it is cancelled".to_owned(),
        (_, Ok(Some(false))) => match store.job(job).await {
            Ok(Some((job, _))) => format!("nothing was done: it is {} now", job.state.as_str()),
            _ => "nothing was done".to_owned(),
        },
    }
}

impl List {
    /// The state of its jobs.
    fn state(self) -> crate::job::JobState {
        match self {
            Self::Dead => crate::job::JobState::Dead,
            Self::Retrying => crate::job::JobState::Retrying,
            Self::Running => crate::job::JobState::Running,
        }
    }
}
