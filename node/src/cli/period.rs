//! `turnwise period`: shows the period of the farm, or changes it for all nodes at once, as a version of
//! the roster. When a change holds is the engine's to tell.

use std::process::ExitCode;

use serde::Serialize;
use turnwise_engine::{Cadence, Change, NextPeriod, Period, Slot};

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::audit::{Action, Order};
use crate::config;
use crate::rfc3339;
use crate::store::{Audit, Store, StoreError};

/// How often a change is tried. It does not commit when another change, or the next slot, came between.
const TRIES: u32 = 10;

/// Show the period, the time between two polls of the whole farm, or change it
///
/// A change holds for all nodes from the same slot on, a round or so after it was made. Nodes that were
/// started with --period must be told the new one before they are started again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise period
  turnwise period 250ms")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// The new period, from 50ms to 10s
    #[arg(value_name = "DURATION", value_parser = config::parse_period)]
    period: Option<Period>,

    /// Print {"period_ms", "pending": null or {"period_ms", "from_slot", "from"}}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    period_ms: u32,
    pending: Option<Pending>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Pending {
    period_ms: u32,
    from_slot: Slot,
    from: String,
}

/// Show or change the period.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let (cadence, now) = match args.period {
        Some(period) => change(&store, period).await?,
        None => look(&store).await?,
    };
    if args.json {
        show::print_json(&answer(&cadence, now))?;
    } else {
        show::print(&in_words(&cadence, now))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The cadence as it stands, and the slot that it is.
async fn look(store: &impl Store) -> Result<(Cadence, Slot), Failure> {
    let look = store.look().await?;
    let cadence = look.row.cadence;
    Ok((cadence, cadence.slot_at(look.clock).max(look.row.high)))
}

/// Change the period; the cadence with the change in it, and a slot before it holds.
async fn change(store: &impl Audit, period: Period) -> Result<(Cadence, Slot), Failure> {
    // On a database that has no period yet this is all there is to do.
    match store.agree_period(Some(period)).await {
        Ok(_) | Err(StoreError::OtherPeriod { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let order = Order::by_command(Action::PeriodChange, period);
    for tries in 0..TRIES {
        let (now, row, identity) = store.stamp().await?;
        let cadence = row.cadence;
        match cadence.next {
            Some(next) if next.period == period => return Ok((cadence, now)),
            Some(_) => {
                return Err(Failure::failed(format!(
                    "the period cannot be changed to {period} yet: {}. Try again after that",
                    in_words(&cadence, now)
                )));
            }
            None if cadence.period == period => return Ok((cadence, now)),
            None => {}
        }
        // A change must not commit after the slot that it is computed for: the longer the road, the later
        // that has to be.
        let Some(change) = Change::period(&row, period, now + i64::from(tries)) else { continue };
        if order.carry_out(store, store.change(&change, identity)).await? {
            return Ok((Cadence { next: change.next_period, ..cadence }, now));
        }
    }
    Err(Failure::failed(format!(
        "the period was not changed to {period}: other changes came first {TRIES} times. Try again"
    )))
}

/// A change that does not hold yet at `now`.
fn pending(cadence: &Cadence, now: Slot) -> Option<NextPeriod> {
    cadence.next.filter(|next| next.from > now)
}

fn answer(cadence: &Cadence, now: Slot) -> Answer {
    Answer {
        period_ms: cadence.period_at(now).as_millis(),
        pending: pending(cadence, now).map(|next| Pending {
            period_ms: next.period.as_millis(),
            from_slot: next.from,
            from: rfc3339::format(cadence.boundary(next.from)),
        }),
    }
}

fn in_words(cadence: &Cadence, now: Slot) -> String {
    let period = cadence.period_at(now);
    match pending(cadence, now) {
        None => format!("the period is {period}"),
        Some(next) => format!(
            "the period is {period}, and {} from slot {} on ({})",
            next.period,
            next.from,
            rfc3339::format(cadence.boundary(next.from))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_pending_until_its_slot() {
        let next = NextPeriod { from: Slot(10), period: Period::from_millis(250).unwrap() };
        let cadence = Cadence { next: Some(next), ..Cadence::new(Period::DEFAULT) };
        let pending = Pending {
            period_ms: 250,
            from_slot: Slot(10),
            from: "1970-01-01T00:00:10.000000Z".to_owned(),
        };
        let before = Answer { period_ms: 1_000, pending: Some(pending) };
        assert_eq!(answer(&cadence, Slot(9)), before);
        assert_eq!(answer(&cadence, Slot(10)), Answer { period_ms: 250, pending: None });
        assert_eq!(
            in_words(&cadence, Slot(9)),
            "the period is 1s, and 250ms from slot 10 on (1970-01-01T00:00:10.000000Z)"
        );
        assert_eq!(in_words(&cadence, Slot(11)), "the period is 250ms");
    }
}
