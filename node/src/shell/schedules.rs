//! Fires schedules. Decides when a node looks at them: at each of its beats that is told of a time which comes before the
//! beats of the next two slots, so that the job of that time is there when the beat of its own slot claims it, though one
//! of the nodes in between be dead. What is fired is decided in `crate::schedule`.

use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::watch;
use turnwise_engine::{Period, ServerInstant};

use super::aside::Aside;
use super::life::Stage;
use super::notes::LastingLog;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{DUE_AT_ONCE, Store, StoreError};

/// Times are fired so many periods ahead.
const PERIODS_AHEAD: i64 = 2;
/// A look that takes longer is given up; the next beat of somebody looks again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Up to when times are to be fired now, when any is: given at a beat.
pub(crate) type Horizon = watch::Sender<Option<ServerInstant>>;

/// A beat of this node, stamped `at`, was accepted, and told that the next time of a schedule is `next`.
pub(crate) fn beaten(
    horizon: &Horizon,
    at: ServerInstant,
    next: Option<ServerInstant>,
    period: Period,
) {
    let until = at.offset(PERIODS_AHEAD.saturating_mul(period.as_nanos()));
    if next.is_some_and(|next| next <= until) {
        horizon.send_replace(Some(until));
    }
}

/// The task that fires.
pub(crate) struct SchedulesTask<S: Store, T: Stage> {
    pub(crate) aside: Aside<S>,
    pub(crate) stage: PhantomData<T>,
    pub(crate) horizon: watch::Receiver<Option<ServerInstant>>,
}

impl<S: Store, T: Stage> SchedulesTask<S, T> {
    pub(crate) async fn run(mut self) {
        let mut log = LastingLog::default();
        while self.horizon.changed().await.is_ok() {
            let Some(mut until) = *self.horizon.borrow_and_update() else { continue };
            if T::Bugs::plants(Bug::TimesAreFiredLate) {
                until = until.offset(-4_000_000_000);
            }
            if T::Bugs::plants(Bug::NothingIsFired) {
                continue;
            }
            match tokio::time::timeout(LOOK_TIMEOUT, self.look(until)).await {
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

    /// Fire what comes up to then, a few schedules at a time.
    async fn look(&self, until: ServerInstant) -> Result<(), StoreError> {
        let store = self.aside.store();
        loop {
            let (now, schedules) = store.due_schedules(until).await?;
            for schedule in &schedules {
                let mut fire = schedule.fire(now, until);
                if T::Bugs::plants(Bug::NextTimeIsPassedOver) && !fire.times.is_empty() {
                    let later = schedule.parsed().ok().zip(fire.next);
                    fire.next = later.and_then(|(cron, next)| cron.next_after(next));
                }
                let (name, times, skipped) = (&fire.schedule, fire.times.len(), fire.skipped);
                if !store.fire(&fire).await? {
                    continue;
                }
                if let Some(error) = &fire.error {
                    tracing::warn!(schedule = %name, "this schedule fires nothing any more: {error}");
                } else if skipped > 0 {
                    tracing::warn!(schedule = %name, times, skipped, "times of this schedule were missed");
                } else {
                    tracing::debug!(schedule = %name, times, "fired");
                }
            }
            if schedules.len() < DUE_AT_ONCE as usize {
                return Ok(());
            }
        }
    }
}
