//! `turnwise top`: the farm in a terminal, live. Decides in which order keys, signals and answers are served; what is
//! shown is decided in `screen`, what a key means in `keys`, when the database is asked, and how long, in `errands`.

mod errands;
mod keys;
mod screen;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};

use self::errands::{Brought, Errands};
use self::keys::Wish;
use self::screen::{Board, List};
use super::common::{Common, watched};
use super::failure::Failure;
use crate::store::AnyStore;
use crate::watch::Hub;

/// How often keys are looked for: what a finger does not notice.
const KEYS_EVERY: Duration = Duration::from_millis(40);

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
    let mut errands = Errands::new(hub.store());
    loop {
        errands.count_when_due(board.list);
        board.clock = board.farm.as_deref().map(|farm| hub.clock(farm));
        terminal.draw(|frame| screen::draw(frame, &board)).map_err(failed)?;
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            brought = errands.next() => match brought {
                Brought::Said(said) => board.said = Some(said),
                Brought::Counted(tally, jobs) => {
                    board.tally = Some(tally);
                    board.list_anew(jobs);
                }
                Brought::Nothing => {}
            },
            Some(news) = feed.next() => board.learn(news),
            () = tokio::time::sleep(KEYS_EVERY) => {}
        }
        while event::poll(Duration::ZERO).map_err(failed)? {
            let Event::Key(key) = event::read().map_err(failed)? else { continue };
            match keys::meant(&mut board, key) {
                None => {}
                Some(Wish::Leave) => return Ok(()),
                Some(Wish::Recount) => errands.count_now(),
                Some(Wish::Do(deed, job)) => board.said = Some(errands.perform(deed, job)),
            }
        }
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
