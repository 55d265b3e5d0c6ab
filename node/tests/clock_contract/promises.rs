//! What the shell relies on, whatever its clock is made of:
//!
//! - what it shows never goes back, and goes on while one waits;
//! - no sleep ends before the clock shows its instant, however coarse the clock and late the wake-up, nor do any of
//!   several at once;
//! - to wait for an instant that has passed, or is now, is not to wait at all;
//! - a sleep that is given up leaves nothing behind.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use turnwise_engine::LocalInstant;
use turnwise_node::clock::Clock;

/// Calls each promise's name with `$each`.
macro_rules! promises {
    ($each:ident) => {
        $each! {
            what_is_shown_never_goes_back,
            no_sleep_ends_early,
            sleeps_at_once_end_no_earlier,
            the_past_is_not_waited_for,
            a_sleep_can_be_given_up,
        }
    };
}
pub(crate) use promises;

/// Around what the sleeps are made of: the runtime's tick, the margins, the longest single wait.
const SPANS: [Duration; 9] = [
    Duration::from_nanos(1),
    Duration::from_micros(149),
    Duration::from_micros(151),
    Duration::from_millis(1),
    Duration::from_nanos(2_999_999),
    Duration::from_nanos(3_000_001),
    Duration::from_micros(20_500),
    Duration::from_millis(250),
    Duration::from_millis(1_203),
];

pub(crate) async fn what_is_shown_never_goes_back<C: Clock>(clock: C) {
    let mut shown = clock.now();
    for step in 0..2_000 {
        let now = clock.now();
        assert!(now >= shown, "{now:?} after {shown:?}");
        shown = now;
        if step % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(step / 100)).await;
        }
    }
    let later = shown + Duration::from_millis(20);
    clock.sleep_until(later).await;
    assert!(clock.now() > shown, "it stands still");
}

pub(crate) async fn no_sleep_ends_early<C: Clock>(clock: C) {
    for span in SPANS {
        let until = clock.now() + span;
        clock.sleep_until(until).await;
        assert_reached(&clock, until, span);
        let until = clock.now() + span;
        clock.sleep_nearly_until(until).await;
        assert_reached(&clock, until, span);
    }
}

pub(crate) async fn sleeps_at_once_end_no_earlier<C: Clock>(clock: C) {
    let begun = clock.now();
    let mut tasks = Vec::new();
    for span in SPANS {
        let (coarse, fine, until) = (clock.clone(), clock.clone(), begun + span);
        tasks.push(tokio::spawn(async move {
            coarse.sleep_until(until).await;
            assert_reached(&coarse, until, span);
        }));
        tasks.push(tokio::spawn(async move {
            fine.sleep_nearly_until(until).await;
            assert_reached(&fine, until, span);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn the_past_is_not_waited_for<C: Clock>(clock: C) {
    // Its clock shows more than nothing by now.
    clock.sleep_until(LocalInstant::from_nanos(1)).await;
    let now = clock.now();
    let before = LocalInstant::from_nanos(now.as_nanos().saturating_sub(1_000_000_000));
    for past in [LocalInstant::from_nanos(0), before, now] {
        assert!(is_at_once(clock.sleep_until(past)), "{past:?} at {now:?}");
        assert!(is_at_once(clock.sleep_nearly_until(past)), "{past:?} at {now:?}");
    }
    let ahead = clock.now() + Duration::from_secs(3_600);
    assert!(!is_at_once(clock.sleep_until(ahead)), "an hour is waited for");
}

pub(crate) async fn a_sleep_can_be_given_up<C: Clock>(clock: C) {
    let soon = clock.now() + Duration::from_millis(30);
    let never = clock.now() + Duration::from_secs(1_000_000);
    tokio::select! {
        () = clock.sleep_until(never) => panic!("eleven days have passed"),
        () = clock.sleep_nearly_until(never) => panic!("eleven days have passed"),
        () = clock.sleep_until(soon) => {}
    }
    assert_reached(&clock, soon, Duration::from_millis(30));
    let next = clock.now() + Duration::from_millis(5);
    clock.sleep_nearly_until(next).await;
    assert_reached(&clock, next, Duration::from_millis(5));
}

fn assert_reached<C: Clock>(clock: &C, until: LocalInstant, span: Duration) {
    let now = clock.now();
    assert!(now >= until, "a sleep of {span:?} ended {:?} early", until.since(now));
}

/// Whether there is nothing to wait for.
fn is_at_once(sleep: impl Future<Output = ()>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(sleep).poll(&mut context) == Poll::Ready(())
}
