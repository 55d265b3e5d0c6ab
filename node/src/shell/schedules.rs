//! Fires schedules. Decides when a node looks at them: at each of its beats that is told of a time which comes before the
//! beats of the next two slots, so that the job of that time is there when the beat of its own slot claims it, though one
//! of the nodes in between be dead. What is fired is decided in `crate::schedule`.

use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use turnwise_engine::{Period, ServerInstant};

use super::aside::Aside;
use super::batches::Look;
use super::life::Stage;
use super::notes::LastingLog;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{DUE_AT_ONCE, Fire, Store, StoreError};

/// Times are fired so many periods ahead.
const PERIODS_AHEAD: i64 = 2;
/// A look that takes longer is given up; the next beat of somebody looks again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be looked at, given at a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Times up to then.
    Until(ServerInstant),
    /// All that is to come: a clock was set, or another server answers.
    Anew,
}

pub(crate) type Horizon = watch::Sender<Option<Due>>;

/// A beat of this node, stamped `at`, was accepted, and told that the next time of a schedule is `next`.
pub(crate) fn beaten(
    horizon: &Horizon,
    at: ServerInstant,
    next: Option<ServerInstant>,
    period: Period,
) {
    let until = at.offset(PERIODS_AHEAD.saturating_mul(period.as_nanos()));
    if next.is_some_and(|next| next <= until) {
        // Whoever is to look anew has not looked yet.
        horizon.send_if_modified(|due| match due {
            Some(Due::Anew) => false,
            _ => {
                *due = Some(Due::Until(until));
                true
            }
        });
    }
}

/// The task that fires.
pub(crate) struct SchedulesTask<S: Store, T: Stage> {
    pub(crate) aside: Aside<S>,
    pub(crate) stage: PhantomData<T>,
    pub(crate) horizon: Horizon,
    /// Told up to when batches are to be looked at: the beats tell one time for both.
    pub(crate) looks: mpsc::UnboundedSender<Look>,
}

impl<S: Store, T: Stage> SchedulesTask<S, T> {
    pub(crate) async fn run(self) {
        let mut log = LastingLog::default();
        let mut given = self.horizon.subscribe();
        while given.changed().await.is_ok() {
            let mut due = None;
            // Taken, and nobody is told: this task would be woken again by itself.
            self.horizon.send_if_modified(|given| {
                due = given.take();
                false
            });
            let Some(due) = due else { continue };
            let _ = self.looks.send(Look::Due(match due {
                Due::Until(until) => until,
                Due::Anew => ServerInstant::from_nanos(i64::MAX),
            }));
            if T::Bugs::plants(Bug::NothingIsFired) {
                continue;
            }
            let look = async {
                match due {
                    Due::Until(until) if T::Bugs::plants(Bug::TimesAreFiredLate) => {
                        self.look(until.offset(-4_000_000_000)).await
                    }
                    Due::Until(until) => self.look(until).await,
                    Due::Anew => self.realign().await,
                }
            };
            match tokio::time::timeout(LOOK_TIMEOUT, look).await {
                Ok(Ok(())) => log.succeeded(),
                Ok(Err(error)) => {
                    if !log.failed("schedules cannot be fired", &error) {
                        tracing::debug!("schedules were not fired: {error}");
                    }
                }
                Err(_) => tracing::warn!(
                    "schedules were not fired: the database did not answer within {} s. It is tried again with the next beat",
                    LOOK_TIMEOUT.as_secs()
                ),
            }
        }
        // The node ends with those who hold its other tasks.
        std::future::pending::<()>().await;
    }

    /// Fire what comes up to then, a few schedules and a few times at once. One that cannot be fired holds up none of the
    /// others.
    async fn look(&self, until: ServerInstant) -> Result<(), StoreError> {
        let store = self.aside.store();
        loop {
            let (now, schedules) = store.due_schedules(until).await?;
            let (mut failed, mut is_done) = (None, true);
            for schedule in &schedules {
                let mut fire = schedule.fire(now, until);
                if T::Bugs::plants(Bug::NextTimeIsPassedOver) && !fire.times.is_empty() {
                    let later = schedule.parsed().ok().zip(fire.next);
                    fire.next = later.and_then(|(cron, next)| cron.next_after(next));
                }
                match store.fire(&fire).await {
                    Ok(true) => {
                        tell(&fire);
                        let until = until.as_micros();
                        is_done &=
                            fire.error.is_some() || fire.next.is_none_or(|next| next > until);
                    }
                    // Somebody else has.
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(schedule = %fire.schedule, "a schedule was not fired: {error}");
                        failed = Some(error);
                    }
                }
            }
            match failed {
                Some(error) => return Err(error),
                None if is_done && schedules.len() < DUE_AT_ONCE as usize => return Ok(()),
                None => {}
            }
        }
    }

    /// A clock was set: what waits for a time that lies farther ahead than the next one by the clock as it is now waits for that
    /// one. Times that were fired before are not fired again.
    async fn realign(&self) -> Result<(), StoreError> {
        let store = self.aside.store();
        let (now, schedules) = store.due_schedules(ServerInstant::from_nanos(i64::MAX)).await?;
        for schedule in &schedules {
            if let Some(fire) = schedule.realigned(now)
                && store.fire(&fire).await?
            {
                tracing::info!(schedule = %fire.schedule, "its next time is nearer: a clock was set back");
            }
        }
        Ok(())
    }
}

/// What became of a schedule, for the log.
fn tell(fire: &Fire) {
    let (schedule, times, skipped) = (&fire.schedule, fire.times.len(), fire.skipped);
    if let Some(error) = &fire.error {
        tracing::warn!(%schedule, "this schedule fires nothing, and is looked at again in an hour: {error}");
    } else if skipped > 0 {
        tracing::warn!(%schedule, times, skipped, "times of this schedule were missed");
    } else {
        tracing::debug!(%schedule, times, "fired");
    }
}
