//! Promises about batches: each ends once, with the last of its jobs, and what waits for it runs then and not before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use turnwise_engine::ServerInstant;
use turnwise_node::batch::{
    After, BatchCounts, BatchId, BatchRefusal, BatchState, BatchView, Need, NewBatch,
};
use turnwise_node::job::{JobFate, JobFilter, JobId, JobState, NewJob, Unique, When};
use turnwise_node::store::{
    Batches, Ended, PRUNED_AT_ONCE_MAX, Prune, Pruned, SETTLED_AT_ONCE, SealAnswer, Store,
    StoreError,
};

use crate::member::{Member, enqueue, ids, job, state};
use crate::world::{NOON, SECOND, World};

fn at(micros: i64) -> ServerInstant {
    ServerInstant::from_micros(micros)
}

/// A sealed batch of so many jobs, with a job that waits for its success and one that waits for its end.
fn batch_of(jobs: usize) -> NewBatch {
    let waiting = |url| Some(NewJob::new(url));
    NewBatch {
        name: Some("import é".to_owned()),
        on_success: waiting("/success"),
        on_complete: waiting("/complete"),
        ..NewBatch::of((0..jobs).map(|_| job()).collect())
    }
}

async fn view<S: Batches>(store: &S, batch: BatchId) -> BatchView {
    store.batch(batch).await.unwrap().unwrap()
}

/// Look at a batch as a node does: how it ended now, if it did.
async fn settle<S: Store>(store: &S, batch: BatchId) -> Option<BatchState> {
    let settled = store.settle(&[batch]).await.unwrap();
    assert!(settled.ended.iter().all(|(ended, _)| *ended == batch));
    settled.ended.first().map(|(_, state)| *state)
}

/// Run all that is due, and end it like this.
async fn run<S: Store>(a: &Member<S>, token: i64, fate: JobFate) -> Vec<JobId> {
    let claimed = a.claim(token, 99).await;
    for job in &claimed {
        a.end(job, fate).await;
    }
    ids(&claimed)
}

/// What ended like one of these a minute ago or longer.
fn old(ended: &[Ended]) -> Prune {
    let ages = ended.iter().map(|ended| (*ended, Duration::from_secs(60)));
    Prune::older_than(ages, PRUNED_AT_ONCE_MAX)
}

async fn prune<S: Store>(store: &S, ended: &[Ended]) -> Pruned {
    store.prune(&old(ended)).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(done: Result<T, StoreError>) -> BatchRefusal {
    match done {
        Err(StoreError::Batch(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) async fn a_batch_ends_with_the_last_of_its_jobs_and_what_waits_runs<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let new = batch_of(2);
    let made = a.store.make_batch(&new).await.unwrap();
    let [first, second, success, complete] = made[..] else { panic!("{made:?}") };
    assert_eq!([first, second], [new.jobs[0].id, new.jobs[1].id]);
    let seen = view(&a.store, new.id).await;
    assert_eq!((seen.name.as_deref(), seen.state), (Some("import é"), BatchState::Sealed));
    assert_eq!((seen.created_at, seen.ended_at), (at(NOON), None));
    assert_eq!(seen.counts, BatchCounts { queued: 2, ..BatchCounts::default() });
    let mut needs: Vec<_> = seen.followers.iter().map(|f| (f.job, f.need, f.state)).collect();
    needs.sort_unstable_by_key(|(job, ..)| *job != success);
    let waits = JobState::Scheduled;
    assert_eq!(needs, [(success, Need::Success, waits), (complete, Need::End, waits)]);
    let (waiting, _) = a.store.job(success).await.unwrap().unwrap();
    assert_eq!((waiting.after, waiting.particulars.batch_id()), (Some(new.id), None));
    let (own, _) = a.store.job(first).await.unwrap().unwrap();
    assert_eq!((own.after, own.particulars.batch_id()), (None, Some(new.id)));

    let claimed = a.claim(1, 9).await;
    let mut those = ids(&claimed);
    those.sort_unstable();
    assert_eq!(those, [first, second], "what waits is not due");
    assert!(claimed.iter().all(|job| job.particulars.batch_id() == Some(new.id)));
    assert_eq!(settle(&a.store, new.id).await, None);
    a.end(&claimed[0], JobFate::Succeeded).await;
    assert_eq!(settle(&a.store, new.id).await, None, "one of them runs");
    assert_eq!(a.claim(2, 9).await, []);
    w.set_clock(NOON + SECOND).await;
    a.end(&claimed[1], JobFate::Succeeded).await;
    assert_eq!(settle(&a.store, new.id).await, Some(BatchState::Succeeded));
    assert_eq!(settle(&a.store, new.id).await, None, "once");
    let seen = view(&a.store, new.id).await;
    assert_eq!((seen.state, seen.ended_at), (BatchState::Succeeded, Some(at(NOON + SECOND))));
    assert_eq!(seen.counts, BatchCounts { succeeded: 2, ..BatchCounts::default() });
    assert!(seen.followers.iter().all(|follower| follower.state == JobState::Ready));
    let claimed = a.claim(3, 9).await;
    let mut those = ids(&claimed);
    those.sort_unstable();
    let mut both = [success, complete];
    both.sort_unstable();
    assert_eq!(those, both);
    assert!(claimed.iter().all(|job| job.scheduled_at == at(NOON + SECOND)));
    assert_eq!(a.store.batches(None, 9).await.unwrap().len(), 1);
}

pub(crate) async fn a_batch_of_which_not_all_succeeded_fails<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let new = batch_of(3);
    let made = a.store.make_batch(&new).await.unwrap();
    let [one, other, third, success, complete] = made[..] else { panic!("{made:?}") };
    let claimed = a.claim(1, 9).await;
    let of = |id| claimed.iter().find(|job| job.id == id).unwrap();
    a.end(of(one), JobFate::Dead).await;
    a.end(of(other), JobFate::Retry(Duration::from_secs(3))).await;
    a.end(of(third), JobFate::Succeeded).await;
    assert_eq!(settle(&a.store, new.id).await, None, "one is to be tried again");
    w.set_clock(NOON + 4 * SECOND).await;
    let again = a.claim_one(2).await;
    assert_eq!((again.attempt, again.particulars.previous_status), (2, Some(500)));
    a.end(&again, JobFate::Succeeded).await;
    assert_eq!(settle(&a.store, new.id).await, Some(BatchState::Failed));
    let counts = BatchCounts { succeeded: 2, dead: 1, ..BatchCounts::default() };
    assert_eq!(view(&a.store, new.id).await.counts, counts);
    let (given_up, _) = a.store.job(success).await.unwrap().unwrap();
    assert_eq!((given_up.state, given_up.after), (JobState::Cancelled, None));
    assert!(given_up.last_error.unwrap().contains("not every job"));
    assert_eq!(run(&a, 3, JobFate::Succeeded).await, [complete]);
    // A person has the dead one run again: that changes nothing of what was.
    assert_eq!(a.store.retry(one).await.unwrap(), Some(true));
    assert_eq!(run(&a, 4, JobFate::Succeeded).await, [one]);
    assert_eq!(settle(&a.store, new.id).await, None);
    assert_eq!(view(&a.store, new.id).await.state, BatchState::Failed);
}

pub(crate) async fn an_open_batch_waits_to_be_sealed_and_is_sealed_once<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let new = NewBatch { is_sealed: false, ..batch_of(1) };
    a.store.make_batch(&new).await.unwrap();
    assert_eq!(run(&a, 1, JobFate::Succeeded).await, [new.jobs[0].id]);
    assert_eq!(settle(&a.store, new.id).await, None);
    let late = enqueue(&a.store, NewJob { batch: Some(new.id), ..job() }).await;
    assert_eq!(run(&a, 2, JobFate::Succeeded).await, [late]);
    assert_eq!(a.store.seal(new.id).await.unwrap(), SealAnswer::Sealed);
    let again = a.store.seal(new.id).await.unwrap();
    assert_eq!(again, SealAnswer::Before(BatchState::Sealed));
    // It may be extended by its own jobs still.
    let own = enqueue(&a.store, NewJob { batch: Some(new.id), ..job() }).await;
    assert_eq!(settle(&a.store, new.id).await, None);
    assert_eq!(run(&a, 3, JobFate::Succeeded).await, [own]);
    assert_eq!(settle(&a.store, new.id).await, Some(BatchState::Succeeded));
    let again = a.store.seal(new.id).await.unwrap();
    assert_eq!(again, SealAnswer::Before(BatchState::Succeeded));
    assert_eq!(a.store.seal(BatchId::generate()).await.unwrap(), SealAnswer::Unknown);
    // One of nothing ends as soon as it is looked at.
    let nothing = NewBatch::of(Vec::new());
    a.store.make_batch(&nothing).await.unwrap();
    assert_eq!(settle(&a.store, nothing.id).await, Some(BatchState::Succeeded));
}

pub(crate) async fn what_cannot_be_of_a_batch_is_refused_and_nothing_is_written<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let store = w.store();
    let (one, other, ended) = (batch_of(1), batch_of(1), NewBatch::of(Vec::new()));
    for batch in [&one, &other, &ended] {
        store.make_batch(batch).await.unwrap();
    }
    assert_eq!(settle(&store, ended.id).await, Some(BatchState::Succeeded));
    let jobs = "SELECT count(*) FROM turnwise.jobs";
    let before = w.number(jobs).await;
    let after = |batch, need| Some(After { batch, need });
    let refused = async |job: NewJob| refusal(store.enqueue(&[super::member::job(), job]).await);

    let nowhere = BatchId::generate();
    let unknown = BatchRefusal::Unknown(nowhere);
    assert_eq!(refused(NewJob { batch: Some(nowhere), ..job() }).await, unknown);
    assert_eq!(refused(NewJob { after: after(nowhere, Need::End), ..job() }).await, unknown);
    let over = BatchRefusal::Ended(ended.id, BatchState::Succeeded);
    assert_eq!(refused(NewJob { batch: Some(ended.id), ..job() }).await, over);
    let when = When::In(Duration::from_secs(1));
    let timed = NewJob { when, after: after(one.id, Need::End), ..job() };
    assert_eq!(refused(timed).await, BatchRefusal::TwoTimes);
    let itself = NewJob { batch: Some(one.id), after: after(one.id, Need::End), ..job() };
    assert_eq!(refused(itself).await, BatchRefusal::Cycle(one.id, one.id));
    assert_eq!(w.number(jobs).await, before);
    let exists = refusal(store.make_batch(&NewBatch { id: one.id, ..batch_of(1) }).await);
    assert_eq!(exists, BatchRefusal::Exists(one.id));
    let name = Some("x".repeat(257));
    let long = refusal(store.make_batch(&NewBatch { name, ..batch_of(1) }).await);
    assert_eq!(long, BatchRefusal::LongName(257));
    assert_eq!(w.number(jobs).await, before);
    // A chain is none; to close it is.
    let link = NewJob { batch: Some(one.id), after: after(other.id, Need::End), ..job() };
    enqueue(&store, link).await;
    let third = batch_of(1);
    store.make_batch(&third).await.unwrap();
    let link = NewJob { batch: Some(other.id), after: after(third.id, Need::Success), ..job() };
    enqueue(&store, link).await;
    let close = NewJob { batch: Some(third.id), after: after(one.id, Need::End), ..job() };
    assert_eq!(refused(close).await, BatchRefusal::Cycle(third.id, one.id));
}

pub(crate) async fn the_same_batch_again_changes_nothing<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let new = batch_of(2);
    let made = a.store.make_batch(&new).await.unwrap();
    assert_eq!(a.store.make_batch(&new).await.unwrap(), made);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(4));
    // Nor does a job again, though its batch has ended meanwhile what it waited for.
    run(&a, 1, JobFate::Succeeded).await;
    settle(&a.store, new.id).await;
    assert_eq!(a.store.make_batch(&new).await.unwrap(), made);
    assert_eq!(run(&a, 2, JobFate::Succeeded).await.len(), 2);
    // One whose unique key another holds is no job of the batch.
    let key = || Some(Unique { key: "k".parse().unwrap(), window: None });
    let holder = enqueue(&a.store, NewJob { unique: key(), ..job() }).await;
    let keyed = NewBatch::of(vec![NewJob { unique: key(), ..job() }]);
    assert_eq!(a.store.make_batch(&keyed).await.unwrap(), [holder]);
    let (view_of_holder, _) = a.store.job(holder).await.unwrap().unwrap();
    assert_eq!(view_of_holder.particulars.batch_id(), None);
    assert_eq!(settle(&a.store, keyed.id).await, Some(BatchState::Succeeded));
}

pub(crate) async fn a_cancelled_batch_takes_along_what_waits_for_it<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let new = batch_of(1);
    let made = a.store.make_batch(&new).await.unwrap();
    let [own, success, complete] = made[..] else { panic!("{made:?}") };
    assert_eq!(a.store.cancel_batch(new.id).await.unwrap(), Some(true));
    assert_eq!(a.store.cancel_batch(new.id).await.unwrap(), Some(true), "again");
    for job in [success, complete] {
        let (seen, _) = a.store.job(job).await.unwrap().unwrap();
        assert_eq!(seen.state, JobState::Cancelled);
        assert!(seen.last_error.unwrap().contains("was cancelled"));
    }
    assert_eq!(state(&a.store, own).await, JobState::Ready, "its own are for the caller");
    let late = a.store.enqueue(&[NewJob { batch: Some(new.id), ..job() }]).await;
    assert_eq!(refusal(late), BatchRefusal::Ended(new.id, BatchState::Cancelled));
    run(&a, 1, JobFate::Succeeded).await;
    assert_eq!(settle(&a.store, new.id).await, None);
    let seen = view(&a.store, new.id).await;
    assert_eq!((seen.state, seen.ended_at), (BatchState::Cancelled, Some(at(NOON))));
    // What is to wait for one that is over does not: it runs, or never.
    let done = NewBatch::of(vec![job()]);
    a.store.make_batch(&done).await.unwrap();
    run(&a, 2, JobFate::Dead).await;
    assert_eq!(settle(&a.store, done.id).await, Some(BatchState::Failed));
    assert_eq!(a.store.cancel_batch(done.id).await.unwrap(), Some(false));
    assert_eq!(a.store.cancel_batch(BatchId::generate()).await.unwrap(), None);
    let waits = async |batch, need| {
        let after = Some(After { batch, need });
        state(&a.store, enqueue(&a.store, NewJob { after, ..job() }).await).await
    };
    assert_eq!(waits(done.id, Need::Success).await, JobState::Cancelled);
    assert_eq!(waits(new.id, Need::End).await, JobState::Cancelled);
    assert_eq!(waits(done.id, Need::End).await, JobState::Ready);
}

pub(crate) async fn a_job_waits_for_jobs<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let [one, other] = [enqueue(&a.store, job()).await, enqueue(&a.store, job()).await];
    let (last, failed) = (job(), job());
    let after =
        async |job: &NewJob, jobs: &[JobId], need| a.store.enqueue_after(job, jobs, need).await;
    let (batch, id) = after(&last, &[one, other, one], Need::Success).await.unwrap();
    assert_eq!(id, last.id);
    // Again, for an answer that was lost; and another, for the same jobs.
    assert_eq!(after(&last, &[one, other], Need::Success).await.unwrap(), (batch, id));
    let (same, _) = after(&failed, &[other, one], Need::End).await.unwrap();
    assert_eq!(same, batch);
    let part = refusal(after(&job(), &[one], Need::End).await);
    assert_eq!(part, BatchRefusal::OfAnother(one, batch));
    let nobody = JobId::generate();
    let none = refusal(after(&job(), &[nobody], Need::End).await);
    assert_eq!(none, BatchRefusal::NoJob(nobody));
    assert_eq!(refusal(after(&job(), &[], Need::End).await), BatchRefusal::WaitsForMany(0));
    let mut done = run(&a, 1, JobFate::Succeeded).await;
    done.sort_unstable();
    let mut both = [one, other];
    both.sort_unstable();
    assert_eq!(done, both);
    assert_eq!(settle(&a.store, batch).await, Some(BatchState::Succeeded));
    assert_eq!(run(&a, 2, JobFate::Succeeded).await.len(), 2);
    // A chain: what waits for a job that waits waits for that, not for what that waits for.
    let first = enqueue(&a.store, job()).await;
    let (before_second, second) = after(&job(), &[first], Need::Success).await.unwrap();
    let (before_third, third) = after(&job(), &[second], Need::End).await.unwrap();
    let all = [before_second.0, before_third.0, first.0, second.0, third.0];
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), 5, "no id is that of a batch and of a job");
    assert_eq!(run(&a, 10, JobFate::Succeeded).await, [first]);
    assert_eq!(settle(&a.store, before_third).await, None, "the second has not run");
    assert_eq!(settle(&a.store, before_second).await, Some(BatchState::Succeeded));
    assert_eq!(run(&a, 11, JobFate::Succeeded).await, [second]);
    assert_eq!(settle(&a.store, before_third).await, Some(BatchState::Succeeded));
    assert_eq!(run(&a, 12, JobFate::Succeeded).await, [third]);
    // Of jobs that have ended already.
    let dead = enqueue(&a.store, job()).await;
    run(&a, 3, JobFate::Dead).await;
    let (batch, waits) = after(&job(), &[dead], Need::Success).await.unwrap();
    assert_eq!(settle(&a.store, batch).await, Some(BatchState::Failed));
    assert_eq!(state(&a.store, waits).await, JobState::Cancelled);
    // And given another try since: what the batch says of them is not so any more, but an answer that was lost is found again.
    assert_eq!(a.store.retry(dead).await.unwrap(), Some(true));
    let other = refusal(after(&job(), &[dead], Need::Success).await);
    assert_eq!(other, BatchRefusal::TriedAgain(batch, BatchState::Failed));
    let again = NewJob { id: waits, ..job() };
    assert_eq!(after(&again, &[dead], Need::Success).await.unwrap(), (batch, waits));
    // Of a batch that was cancelled nothing is waited for.
    let cancelled = NewBatch::of(vec![job()]);
    a.store.make_batch(&cancelled).await.unwrap();
    assert_eq!(a.store.cancel_batch(cancelled.id).await.unwrap(), Some(true));
    let (of, waits) = after(&job(), &[cancelled.jobs[0].id], Need::End).await.unwrap();
    assert_eq!((of, state(&a.store, waits).await), (cancelled.id, JobState::Cancelled));
}

pub(crate) async fn a_batch_that_waits_in_vain_for_another_is_looked_at<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let first = NewBatch::of(vec![job()]);
    a.store.make_batch(&first).await.unwrap();
    let after = Some(After { batch: first.id, need: Need::Success });
    let second = NewBatch::of(vec![NewJob { after, ..job() }]);
    a.store.make_batch(&second).await.unwrap();
    run(&a, 1, JobFate::Dead).await;
    let settled = a.store.settle(&[first.id]).await.unwrap();
    assert_eq!(settled.ended, [(first.id, BatchState::Failed)]);
    assert_eq!(settled.again, [second.id]);
    assert_eq!(settle(&a.store, second.id).await, Some(BatchState::Failed));
}

pub(crate) async fn batches_are_looked_at_when_it_is_time<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let mut a = Member::register(&w, 1).await;
    assert_eq!(a.beat().await.next_schedule, None);
    let open = NewBatch { is_sealed: false, ..batch_of(1) };
    a.store.make_batch(&open).await.unwrap();
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.beat().await.next_schedule, None, "an open one does not end");
    let new = batch_of(1);
    a.store.make_batch(&new).await.unwrap();
    w.set_clock(NOON + 2 * SECOND).await;
    assert_eq!(a.beat().await.next_schedule, Some(at(NOON + SECOND)));
    assert_eq!(a.store.due_batches(at(NOON)).await.unwrap(), []);
    assert_eq!(a.store.due_batches(at(NOON + 2 * SECOND)).await.unwrap(), [new.id]);
    assert_eq!(settle(&a.store, new.id).await, None);
    w.set_clock(NOON + 3 * SECOND).await;
    let next = a.beat().await.next_schedule.unwrap();
    assert_eq!(next, at(NOON + 7 * SECOND), "five seconds after it was looked at");
    assert_eq!(a.store.due_batches(at(NOON + 3 * SECOND)).await.unwrap(), []);
    a.store.cancel(new.jobs[0].id).await.unwrap();
    assert_eq!(settle(&a.store, new.id).await, Some(BatchState::Failed));
    w.set_clock(NOON + 4 * SECOND).await;
    assert_eq!(a.beat().await.next_schedule, None);
}

pub(crate) async fn after_a_clock_was_set_back_every_batch_is_looked_at_page_by_page<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let store = w.store();
    w.set_clock(NOON + 3_600 * SECOND).await;
    let many = SETTLED_AT_ONCE as usize + 30;
    let mut all = BTreeSet::new();
    for _ in 0..many {
        let new = NewBatch::of(vec![job()]);
        store.make_batch(&new).await.unwrap();
        all.insert(new.id);
    }
    let far = format!(
        "SELECT count(*) FROM turnwise.batches WHERE look_at > {}",
        W::instant(NOON + 6 * SECOND)
    );
    w.set_clock(NOON).await;
    assert_eq!(w.number(&far).await, Some(many as i64));
    // All that there is, as who hears of the clock asks.
    let anew = ServerInstant::from_nanos(i64::MAX);
    let (mut looked, mut pages) = (BTreeSet::new(), 0);
    loop {
        let due = store.due_batches(anew).await.unwrap();
        assert!(due.len() <= SETTLED_AT_ONCE as usize);
        if due.is_empty() {
            break;
        }
        pages += 1;
        assert!(pages <= 2, "some are due again at once: {} are looked at", looked.len());
        assert_eq!(store.settle(&due).await.unwrap().ended, []);
        looked.extend(due);
    }
    assert_eq!(looked, all);
    assert_eq!(w.number(&far).await, Some(0));
    // One that was missed then, since somebody held it, say, is found at any look.
    let missed = looked.pop_first().unwrap();
    let ahead = W::instant(NOON + 61 * SECOND);
    w.run(&format!("UPDATE turnwise.batches SET look_at = {ahead} WHERE id = '{missed}'")).await;
    assert_eq!(store.due_batches(at(NOON + 2 * SECOND)).await.unwrap(), [missed]);
    assert_eq!(store.settle(&[missed]).await.unwrap().ended, []);
    assert_eq!(store.due_batches(at(NOON + 2 * SECOND)).await.unwrap(), []);
    assert_eq!(w.number(&far).await, Some(0));
    // And one that is a minute ahead, as one that is old may be, is not.
    let ahead = W::instant(NOON + 60 * SECOND);
    w.run(&format!("UPDATE turnwise.batches SET look_at = {ahead} WHERE id = '{missed}'")).await;
    assert_eq!(store.due_batches(at(NOON + 2 * SECOND)).await.unwrap(), []);
}

/// Where single rows are locked.
pub(crate) async fn a_waiting_job_that_somebody_holds_delays_no_other_batch<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    const HELD: usize = 20;
    let a = Member::register(&w, 1).await;
    let (mut batches, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..=HELD {
        let new = NewBatch { on_success: Some(job()), ..NewBatch::of(vec![job()]) };
        let made = a.store.make_batch(&new).await.unwrap();
        batches.push(new.id);
        waiting.push(made[1]);
    }
    run(&a, 1, JobFate::Succeeded).await;
    let free = batches[HELD];
    w.run("BEGIN").await;
    for job in &waiting[..HELD] {
        w.run(&format!("UPDATE turnwise.jobs SET url = '/new' WHERE id = '{job}'")).await;
    }
    let begun = Instant::now();
    let settled = a.store.settle(&batches).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(settled.ended, [(free, BatchState::Succeeded)]);
    let mut again = settled.again;
    again.sort_unstable();
    batches.pop();
    batches.sort_unstable();
    assert_eq!(again, batches, "those are to be looked at again soon");
    assert!(took < Duration::from_secs(2), "{HELD} that are held took {took:?}");
    // Who cancels a batch waits for what is held.
    let cancelled = batches.remove(0);
    let released = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        w.run("ROLLBACK").await;
    };
    let (done, ()) = tokio::join!(a.store.cancel_batch(cancelled), released);
    assert_eq!(done.unwrap(), Some(true));
    let of_cancelled = view(&a.store, cancelled).await.followers;
    assert_eq!(of_cancelled[0].state, JobState::Cancelled);
    // And those that were held end as soon as they are looked at again.
    let settled = a.store.settle(&batches).await.unwrap();
    assert_eq!((settled.ended.len(), settled.again), (HELD - 1, vec![]));
    assert_eq!(run(&a, 2, JobFate::Succeeded).await.len(), HELD);
}

pub(crate) async fn of_many_who_look_at_once_one_ends_a_batch<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    for round in 0..5 {
        let new = batch_of(6);
        a.store.make_batch(&new).await.unwrap();
        let claimed = a.claim(2 * round + 1, 6).await;
        assert_eq!(claimed.len(), 6);
        // Each ends its own job, and looks then; the last to look sees all of them.
        let tasks: Vec<_> = claimed
            .into_iter()
            .map(|job| {
                let (store, node, batch) = (w.store(), a.id, new.id);
                tokio::spawn(async move {
                    let end = super::member::end_of(&job, JobFate::Succeeded);
                    store.end(node, &[end]).await.unwrap();
                    let mut ended = 0;
                    loop {
                        let settled = store.settle(&[batch]).await.unwrap();
                        ended += settled.ended.len();
                        if settled.again.is_empty() {
                            return ended;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
            })
            .collect();
        let mut ended = 0;
        for task in tasks {
            ended += task.await.unwrap();
        }
        assert_eq!(ended, 1);
        assert_eq!(run(&a, 2 * round + 2, JobFate::Succeeded).await.len(), 2);
    }
}

pub(crate) async fn a_batch_keeps_its_jobs_until_it_has_ended_and_goes_with_them<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let new = NewBatch { on_success: None, on_complete: None, ..batch_of(2) };
    a.store.make_batch(&new).await.unwrap();
    let claimed = a.claim(1, 2).await;
    a.end(&claimed[0], JobFate::Succeeded).await;
    let prune = async || prune(&a.store, &Ended::ALL).await.jobs;
    w.set_clock(NOON + 100 * SECOND).await;
    assert_eq!(prune().await, 0, "its batch goes on");
    a.end(&claimed[1], JobFate::Succeeded).await;
    assert_eq!(settle(&a.store, new.id).await, Some(BatchState::Succeeded));
    assert_eq!(prune().await, 1);
    assert_eq!(view(&a.store, new.id).await.counts.succeeded, 2, "as it was when it ended");
    w.set_clock(NOON + 200 * SECOND).await;
    assert_eq!(prune().await, 1);
    assert_eq!(a.store.batch(new.id).await.unwrap(), None);
    // What waited goes as other jobs do, and leaves nothing.
    let new = batch_of(1);
    a.store.make_batch(&new).await.unwrap();
    run(&a, 2, JobFate::Succeeded).await;
    settle(&a.store, new.id).await;
    run(&a, 3, JobFate::Succeeded).await;
    w.set_clock(NOON + 300 * SECOND).await;
    assert_eq!(prune().await, 3);
    for table in ["batches", "waits", "jobs"] {
        let left = w.number(&format!("SELECT count(*) FROM turnwise.{table}")).await;
        assert_eq!(left, Some(0), "{table}");
    }
}

pub(crate) async fn a_batch_without_jobs_goes_when_it_is_old<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let made = async |batch: NewBatch| {
        a.store.make_batch(&batch).await.unwrap();
        batch.id
    };
    // One that never had a job, one that was cancelled, and one whose jobs are gone, with those that waited for it, whoever removed them.
    let never = made(NewBatch::of(Vec::new())).await;
    let cancelled = made(NewBatch::of(Vec::new())).await;
    assert_eq!(a.store.cancel_batch(cancelled).await.unwrap(), Some(true));
    let failed = made(batch_of(1)).await;
    run(&a, 1, JobFate::Dead).await;
    assert_eq!(settle(&a.store, never).await, Some(BatchState::Succeeded));
    assert_eq!(settle(&a.store, failed).await, Some(BatchState::Failed));
    w.run("DELETE FROM turnwise.attempts").await;
    w.run("DELETE FROM turnwise.jobs").await;
    // Those that go on, and one that has a job still, stay.
    let open = made(NewBatch { is_sealed: false, ..NewBatch::of(Vec::new()) }).await;
    let sealed = made(NewBatch::of(Vec::new())).await;
    let kept = made(NewBatch::of(vec![job()])).await;
    let own = run(&a, 2, JobFate::Dead).await;
    assert_eq!(settle(&a.store, kept).await, Some(BatchState::Failed));
    assert_eq!(a.store.retry(own[0]).await.unwrap(), Some(true));

    let is_there = async |batch| a.store.batch(batch).await.unwrap().is_some();
    let none = Pruned { jobs: 0, next: None };
    w.set_clock(NOON + 60 * SECOND - 1).await;
    assert_eq!(prune(&a.store, &Ended::ALL).await, none);
    assert!(is_there(never).await && is_there(cancelled).await && is_there(failed).await);
    // Each is kept as long as a job that ended like it.
    w.set_clock(NOON + 60 * SECOND).await;
    assert_eq!(prune(&a.store, &[Ended::Dead]).await, none);
    assert!(is_there(never).await && is_there(cancelled).await && !is_there(failed).await);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.waits").await, Some(0));
    assert_eq!(prune(&a.store, &[Ended::Succeeded, Ended::Cancelled]).await, none);
    assert!(!is_there(never).await && !is_there(cancelled).await);
    assert!(is_there(open).await && is_there(sealed).await && is_there(kept).await);
}

pub(crate) async fn many_batches_without_jobs_go_some_at_a_time<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let store = w.store();
    let (now, ended) = (W::instant(NOON), W::instant(NOON - 100 * SECOND));
    let rows: Vec<String> = (0..350)
        .map(|_| format!("('{}', 'succeeded', {now}, {ended})", BatchId::generate()))
        .collect();
    let rows = rows.join(", ");
    w.run(&format!("INSERT INTO turnwise.batches (id, state, created_at, ended_at) VALUES {rows}"))
        .await;
    let mut next = Some(old(&[Ended::Succeeded]));
    let (mut left, mut calls) = (350, 0);
    while let Some(prune) = next {
        let pruned = store.prune(&prune).await.unwrap();
        assert_eq!(pruned.jobs, 0);
        let now_left = w.number("SELECT count(*) FROM turnwise.batches").await.unwrap();
        assert!(left - now_left <= 100, "{} at once", left - now_left);
        assert!(now_left < left || pruned.next.is_none(), "it would never end");
        (left, next) = (now_left, pruned.next);
        calls += 1;
    }
    assert_eq!((left, calls), (0, 4));
}

pub(crate) async fn jobs_are_listed_by_their_batch<W>(w: W)
where
    W: World,
    W::Store: Batches,
{
    let a = Member::register(&w, 1).await;
    let (one, other) = (batch_of(3), batch_of(1));
    a.store.make_batch(&one).await.unwrap();
    a.store.make_batch(&other).await.unwrap();
    let of =
        |batch, state| JobFilter { batch: Some(batch), state, limit: 9, ..JobFilter::default() };
    let listed = async |filter: JobFilter| a.store.jobs(&filter).await.unwrap().len();
    assert_eq!(listed(of(one.id, None)).await, 3);
    assert_eq!(listed(of(one.id, Some(JobState::Running))).await, 0);
    a.claim(1, 9).await;
    assert_eq!(listed(of(one.id, Some(JobState::Running))).await, 3);
    assert_eq!(listed(of(other.id, None)).await, 1);
    let newest = a.store.batches(None, 1).await.unwrap();
    let rest = a.store.batches(Some(newest[0].id), 9).await.unwrap();
    assert_eq!((newest.len(), rest.len()), (1, 1));
    assert!(newest[0].id > rest[0].id);
    assert_eq!(newest[0].counts.running + rest[0].counts.running, 4);
}
