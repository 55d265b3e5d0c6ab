//! `turnwise events`: the stream of what happens in the farm, on stdout. What happened is decided in `watch`.

use std::process::ExitCode;
use std::time::Duration;

use super::common::{Common, watched};
use super::failure::Failure;
use super::show;
use crate::watch::{Event, Feed, Hub, Weight};

/// Print what happens in the farm, as it happens, until interrupted
///
/// Beats as they land, slots that are missed, changes of the ring, nodes that come, die and leave, steps of the
/// server's clock. It only looks at the database: no node is asked, and nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise events
  turnwise events --news
  turnwise events --json | jq 'select(.event == \"missed\")'")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,

    /// Leave out what happens every second: beats of whose turn it is
    #[arg(long)]
    news: bool,

    /// End after so long [default: go on]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
}

/// Print events until the time is up or nobody reads them.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let mut feed = Hub::new(store.clone()).watch();
    let print = watched(&store, print(&mut feed, &args));
    match args.lasts {
        None => print.await?,
        Some(lasts) => tokio::time::timeout(lasts, print).await.unwrap_or(Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Print until nobody reads it.
async fn print(feed: &mut Feed, args: &Args) -> Result<(), Failure> {
    while let Some(news) = feed.next().await {
        for event in news.events.iter() {
            if args.news && event.what.weight() == Weight::Routine {
                continue;
            }
            let line = if args.json { show::json(event)? } else { line(event) };
            if !show::print_if_read(&line)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// `05:30:03.041  a beat in slot 1795498203: empty, 0.07 ms late`.
fn line(event: &Event) -> String {
    let time = event.at.as_deref().and_then(|at| at.get(11..23)).unwrap_or("--:--:--.---");
    format!("{time}  {}", show::printable(&event.what.words()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::What;

    #[test]
    fn a_line_begins_with_the_servers_time_and_cannot_drive_a_terminal() {
        let what = What::Unreachable { reason: "no\u{1b}[31m".to_owned() };
        let mut event = Event { at: Some("2026-11-24T05:30:03.041250Z".to_owned()), what };
        assert_eq!(line(&event), "05:30:03.041  the database does not answer: no\\u{1b}[31m");
        event.at = None;
        assert!(line(&event).starts_with("--:--:--.---  "));
    }
}
