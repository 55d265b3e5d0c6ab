//! Decides which jobs the demo enqueues, how often, its batches, its schedule, its paused queue and what holds for its mail. What becomes of them is the nodes' and the sample app's.

use std::str::FromStr;
use std::time::Duration;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::batch::NewBatch;
use crate::job::{NewJob, When};
use crate::schedule::{Cron, Misfire};
use crate::store::{
    AnyStore, Batches, Limits, NewSchedule, QueueOrders, QueuePolicy, Schedules, Store, StoreError,
};

/// The most jobs a second: what three nodes and one sample app can well do on a laptop.
const A_SECOND_MAX: f64 = 200.0;
/// The fewest, other than none: one an hour.
const A_SECOND_MIN: f64 = 1.0 / 3_600.0;
/// Jobs are enqueued together, so many times a second at most.
const BUNDLES_A_SECOND: f64 = 20.0;
/// The queues of the demo's jobs. A node of the demo takes jobs from no others: in a database that is not the demo's
/// own, other jobs are left alone.
pub(crate) const QUEUES: [&str; 3] = ["demo-mail", "demo-reports", "demo-flaky"];
/// The queue that is paused.
const PAUSED_QUEUE: &str = "demo-archive";
/// When the demo's schedule comes.
const SCHEDULE: &str = "*/15 * * * * *";
/// How often a batch is made,
const BATCH_EVERY: Duration = Duration::from_secs(20);
/// the first of them after so long,
const FIRST_BATCH: Duration = Duration::from_secs(4);
/// and of how many jobs.
const JOBS_OF_A_BATCH: u64 = 12;
/// So many customers get letters.
const CUSTOMERS: u32 = 100;
/// How often a job of the demo is tried.
const MAX_ATTEMPTS: u32 = 5;

/// How many jobs a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobsRate(f64);

/// `5/s`, `90/m`, or `0` for none.
impl FromStr for JobsRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no rate of jobs; write it as 5/s or 90/m, or 0 for none");
        if text == "0" {
            return Ok(Self(0.0));
        }
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" | "1s" => 1.0,
            "m" | "1m" => 60.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let rate = number / seconds;
        // Written so that what is no number is refused too.
        if !(0.0..=A_SECOND_MAX).contains(&rate) {
            return Err(format!("{text:?}: the demo takes from 0 to {A_SECOND_MAX} jobs a second"));
        }
        // What is waited for between two jobs must be a time that there is.
        if rate > 0.0 && rate < A_SECOND_MIN {
            return Err(format!(
                "{text:?}: the demo takes no rate below one job an hour (0.02/m is a little more), but 0 for none"
            ));
        }
        Ok(Self(rate))
    }
}

impl JobsRate {
    /// Whether there are none.
    pub(crate) fn is_none(self) -> bool {
        self.0 <= 0.0
    }

    /// In words.
    pub(crate) fn words(self) -> String {
        match self.0 {
            0.0 => "no jobs".to_owned(),
            rate if rate < 1.0 / 60.0 => {
                format!("{} jobs an hour", (rate * 36_000.0).round() / 10.0)
            }
            rate if rate < 1.0 => format!("{} jobs a minute", (rate * 600.0).round() / 10.0),
            rate => format!("{} jobs a second", (rate * 10.0).round() / 10.0),
        }
    }
}

/// Enqueue jobs for ever. Where that fails, `trouble` is told, once for each time that it begins to fail.
pub(crate) async fn stream(
    store: AnyStore,
    rate: JobsRate,
    mut chance: Pcg64Mcg,
    trouble: mpsc::UnboundedSender<String>,
) {
    if rate.is_none() {
        return;
    }
    let mut ticks =
        tokio::time::interval(Duration::from_secs_f64(1.0 / rate.0.min(BUNDLES_A_SECOND)));
    // What could not be enqueued in time is not made good: the rate is a rate.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut due, mut fails) = (0_u64, 0.0_f64, false);
    let (mut batches, mut next_batch) = (0, Instant::now() + FIRST_BATCH);
    loop {
        ticks.tick().await;
        due += (rate.0 / BUNDLES_A_SECOND).max(1.0);
        let mut jobs = Vec::new();
        while due >= 1.0 {
            due -= 1.0;
            number += 1;
            jobs.push(job(number, chance.next_u32()));
        }
        let mut done = store.enqueue(&jobs).await.map(drop);
        if done.is_ok() && next_batch <= Instant::now() {
            batches += 1;
            next_batch = Instant::now() + BATCH_EVERY;
            done = store.make_batch(&batch(batches, chance.next_u32())).await.map(drop);
        }
        match done {
            Ok(()) => fails = false,
            Err(error) if !fails => {
                fails = true;
                let _ = trouble.send(format!("jobs cannot be enqueued: {error}"));
            }
            Err(_) => {}
        }
    }
}

/// Set the demo's schedule: a report at every quarter of a minute.
pub(crate) async fn set_schedule(store: &AnyStore) -> Result<(), StoreError> {
    let [_, reports, _] = QUEUES;
    let job = NewJob {
        queue: reports.to_owned(),
        max_attempts: MAX_ATTEMPTS,
        ..NewJob::new("/jobs/report?scheduled=true")
    };
    let schedule = NewSchedule {
        name: "quarter-minute-report".to_owned(),
        cron: SCHEDULE.to_owned(),
        zone: "UTC".to_owned(),
        misfire: Misfire::Skip,
        job,
    };
    let cron = Cron::parse(SCHEDULE, "UTC").ok();
    let now = store.look().await?.clock.as_micros();
    let next = cron.and_then(|cron| cron.next_after(now));
    store.put_schedule(&schedule, next).await?;
    Ok(())
}

/// A queue that is paused, with a few jobs: they wait for somebody to resume it.
pub(crate) async fn set_paused(store: &AnyStore) -> Result<(), StoreError> {
    store.pause(PAUSED_QUEUE).await?;
    let job = |number| NewJob {
        queue: PAUSED_QUEUE.to_owned(),
        max_attempts: MAX_ATTEMPTS,
        ..NewJob::new(format!("/jobs/report?archive={number}"))
    };
    store.enqueue(&[1, 2, 3].map(job)).await.map(drop)
}

/// Of the letters to a customer one is sent at a time.
pub(crate) async fn set_policy(store: &AnyStore) -> Result<(), StoreError> {
    let [mail, ..] = QUEUES;
    let limits = Limits { concurrency_per_key: Some(1), ..Limits::default() };
    store.put_policy(mail, &QueuePolicy { limits, ..QueuePolicy::default() }).await
}

/// One batch: letters, sometimes with one that goes to a page that often fails; a report when all are sent, and one in any case.
fn batch(number: u64, chance: u32) -> NewBatch {
    let [mail, reports, flaky] = QUEUES;
    let job = |queue: &str, url: String| NewJob {
        queue: queue.to_owned(),
        max_attempts: MAX_ATTEMPTS,
        ..NewJob::new(url)
    };
    let letter = |place: u64| match place == 0 && chance.is_multiple_of(3) {
        true => job(flaky, format!("/jobs/flaky?batch={number}")),
        false => job(mail, format!("/jobs/mail?batch={number}&letter={place}")),
    };
    NewBatch {
        name: Some(format!("letters, number {number}")),
        on_success: Some(job(reports, format!("/jobs/report?sent={number}"))),
        on_complete: Some(job(reports, format!("/jobs/report?batch={number}"))),
        ..NewBatch::of((0..JOBS_OF_A_BATCH).map(letter).collect())
    }
}

/// One job: of twenty, fourteen are mail, three reports, and three go to a page that often fails.
fn job(number: u64, chance: u32) -> NewJob {
    let [mail, reports, flaky] = QUEUES;
    let (queue, path) = match chance % 20 {
        0..=13 => (mail, "/jobs/mail"),
        14..=16 => (reports, "/jobs/report"),
        _ => (flaky, "/jobs/flaky"),
    };
    let customer = format!("customer {}", chance / 20 % CUSTOMERS);
    NewJob {
        queue: queue.to_owned(),
        concurrency_key: customer.parse().ok(),
        body: Some(format!("{{\"number\": {number}}}").into_bytes()),
        when: When::Now,
        max_attempts: MAX_ATTEMPTS,
        ..NewJob::new(format!("{path}?number={number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_and_told() {
        for (text, words) in [
            ("5/s", "5 jobs a second"),
            ("0.5/s", "30 jobs a minute"),
            ("90/m", "1.5 jobs a second"),
            ("0.02/m", "1.2 jobs an hour"),
            ("0", "no jobs"),
            ("0/s", "no jobs"),
        ] {
            assert_eq!(text.parse::<JobsRate>().unwrap().words(), words);
        }
    }

    #[test]
    fn a_rate_that_is_none_is_refused_with_what_would_be() {
        for (text, reason) in [
            ("", "is no rate"),
            ("5", "write it as 5/s"),
            ("5/h", "is no rate"),
            ("many/s", "is no rate"),
            ("-1/s", "from 0 to 200"),
            ("NaN/s", "from 0 to 200"),
            ("201/s", "from 0 to 200"),
            ("1e-300/s", "no rate below one job an hour"),
            ("0.016/m", "no rate below one job an hour"),
        ] {
            let error = text.parse::<JobsRate>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_batch_has_its_letters_and_what_follows_in_the_demos_queues() {
        for chance in 0..3 {
            let batch = batch(7, chance);
            assert_eq!(batch.jobs.len() as u64, JOBS_OF_A_BATCH);
            assert!(batch.is_sealed);
            let all = batch.all_jobs();
            assert_eq!(all.len() as u64, JOBS_OF_A_BATCH + 2);
            assert!(all.iter().all(|job| QUEUES.contains(&job.queue.as_str())));
            let flaky = all.iter().filter(|job| job.url.starts_with("/jobs/flaky")).count();
            assert_eq!(flaky, usize::from(chance == 0));
        }
    }

    #[test]
    fn the_key_of_a_job_is_its_customer() {
        let key = |chance| job(1, chance).concurrency_key.unwrap().as_str().to_owned();
        assert_eq!([key(0), key(2_045)], ["customer 0", "customer 2"]);
    }

    #[test]
    fn each_kind_of_job_comes_up() {
        for queue in QUEUES {
            let of_it = (0..20).filter(|chance| job(1, *chance).queue == queue).count();
            assert!(of_it >= 3, "{queue}: {of_it}");
        }
    }
}
