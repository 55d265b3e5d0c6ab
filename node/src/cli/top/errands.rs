//! Decides when the database is asked for what the watch does not bring, the counts, the list and deeds, and how long
//! its answer is waited for. Nothing here holds up keys and signals: who asks goes on meanwhile.

use std::future::pending;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, timeout};

use super::keys::Deed;
use super::screen::List;
use crate::audit::{Action, Order};
use crate::job::{JobFilter, JobId, JobState, JobView};
use crate::store::{AnyStore, COUNTED_MAX, Store, StoreError, Tally, Views};

/// How often the queues are counted and the list is read again.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// How long the database's answer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Jobs in the list.
const LISTED: u32 = 100;

/// How many wait, and the list.
type Counted = (Tally, Vec<JobView>);

/// What is under way: a count and a deed at most.
pub(super) struct Errands<'a> {
    store: &'a AnyStore,
    count: Option<BoxFuture<'a, Option<Counted>>>,
    deed: Option<BoxFuture<'a, String>>,
    count_at: Instant,
}

/// What one of them brought.
#[derive(Debug)]
pub(super) enum Brought {
    /// What came of a deed, in words.
    Said(String),
    /// How many wait, and the list.
    Counted(Tally, Vec<JobView>),
    /// The database did not answer: what is on the screen stays, and the watch tells of the trouble.
    Nothing,
}

impl<'a> Errands<'a> {
    /// None under way, a count due.
    pub(super) fn new(store: &'a AnyStore) -> Self {
        Self { store, count: None, deed: None, count_at: Instant::now() }
    }

    /// Begin to count, for this list, if it is time and no count is under way.
    pub(super) fn count_when_due(&mut self, list: List) {
        if self.count.is_none() && self.count_at <= Instant::now() {
            self.count = Some(count(self.store, list).boxed());
            self.count_at = Instant::now() + COUNT_EVERY;
        }
    }

    /// What is under way is about another list, or as it was before a deed: count anew.
    pub(super) fn count_now(&mut self) {
        self.count = None;
        self.count_at = Instant::now();
    }

    /// Begin to do it, where no other deed is under way. What is the case now, in words.
    pub(super) fn perform(&mut self, deed: Deed, job: JobId) -> String {
        if self.deed.is_some() {
            return "nothing was done: the database has not answered about the job before yet"
                .to_owned();
        }
        self.deed = Some(perform(self.store, deed, job).boxed());
        "asking the database".to_owned()
    }

    /// The next that one of them brings; never, where none is under way. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Brought {
        tokio::select! {
            biased;
            said = finished(&mut self.deed) => {
                self.count_now();
                Brought::Said(said)
            }
            counted = finished(&mut self.count) => match counted {
                Some((tally, jobs)) => Brought::Counted(tally, jobs),
                None => Brought::Nothing,
            },
        }
    }
}

async fn finished<T>(errand: &mut Option<BoxFuture<'_, T>>) -> T {
    let Some(running) = errand else { return pending().await };
    let brought = running.await;
    *errand = None;
    brought
}

async fn count(store: &AnyStore, list: List) -> Option<Counted> {
    let filter = JobFilter { state: Some(list.state()), limit: LISTED, ..Default::default() };
    let read = async {
        Ok::<_, StoreError>((store.tally(COUNTED_MAX).await?, store.page(&filter).await?.jobs))
    };
    timeout(ANSWER_TIMEOUT, read).await.ok()?.ok()
}

/// Do it; what came of it, in words.
async fn perform(store: &AnyStore, deed: Deed, job: JobId) -> String {
    let asked = async {
        let action = match deed {
            Deed::Retry => Action::JobRetry,
            Deed::Cancel => Action::JobCancel,
        };
        let call = async {
            match deed {
                Deed::Retry => store.retry(job).await,
                Deed::Cancel => store.cancel(job).await,
            }
        };
        let done = Order::by_command(action, job).carry_out(store, call).await;
        words(deed, done, async || Some(store.job(job).await.ok()??.0.state)).await
    };
    in_time(ANSWER_TIMEOUT, asked).await
}

/// The words, or others when they take longer than this.
async fn in_time(limit: Duration, words: impl Future<Output = String>) -> String {
    timeout(limit, words).await.unwrap_or_else(|_| {
        format!("no answer within {} s: whether it was done, the list will show", limit.as_secs())
    })
}

/// What came of a deed: what the store said, and `state`, how the job is now, if it can be had.
async fn words(
    deed: Deed,
    done: Result<Option<bool>, StoreError>,
    state: impl AsyncFnOnce() -> Option<JobState>,
) -> String {
    match (deed, done) {
        (_, Err(error)) => format!("nothing was done: {error}"),
        (_, Ok(None)) => "nothing was done: there is no such job any more".to_owned(),
        (Deed::Retry, Ok(Some(true))) => "it runs again now".to_owned(),
        (Deed::Cancel, Ok(Some(true))) => match state().await {
            Some(JobState::Running) => {
                "it is cancelled: its call is dropped within some two seconds".to_owned()
            }
            _ => "it is cancelled".to_owned(),
        },
        (_, Ok(Some(false))) => match state().await {
            Some(state) => format!("nothing was done: it is {} now", state.as_str()),
            None => "nothing was done".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_of_a_deed_is_told_as_it_is() {
        use JobState::{Cancelled, Running, Succeeded};
        for (deed, done, state, told) in [
            (Deed::Cancel, Some(true), Some(Cancelled), "it is cancelled"),
            (
                Deed::Cancel,
                Some(true),
                Some(Running),
                "it is cancelled: its call is dropped within some two seconds",
            ),
            (Deed::Cancel, Some(false), Some(Succeeded), "nothing was done: it is succeeded now"),
            (Deed::Retry, Some(true), Some(Running), "it runs again now"),
            (Deed::Retry, Some(false), None, "nothing was done"),
            (Deed::Retry, None, None, "nothing was done: there is no such job any more"),
        ] {
            assert_eq!(words(deed, Ok(done), async || state).await, told);
        }
    }

    #[tokio::test]
    async fn a_deed_without_an_answer_is_given_up_with_what_is_known() {
        let said = in_time(Duration::ZERO, pending()).await;
        assert!(said.contains("whether it was done, the list will show"), "{said}");
    }

    #[tokio::test]
    async fn while_the_database_does_not_answer_others_are_served_and_no_deed_is_added() {
        let store = AnyStore::connect("sqlite::memory:", 1).unwrap();
        let mut errands = Errands::new(&store);
        (errands.count, errands.deed) = (Some(pending().boxed()), Some(pending().boxed()));
        let others = tokio::select! {
            biased;
            _ = errands.next() => false,
            () = std::future::ready(()) => true,
        };
        assert!(others);
        assert!(
            errands.perform(Deed::Retry, JobId(uuid::Uuid::nil())).contains("nothing was done")
        );

        errands.deed = Some(async { "done".to_owned() }.boxed());
        assert!(matches!(errands.next().await, Brought::Said(said) if said == "done"));
        assert!(errands.count.is_none(), "the count of before the deed is not waited for");
        errands.count = Some(async { None }.boxed());
        assert!(matches!(errands.next().await, Brought::Nothing));
    }
}
