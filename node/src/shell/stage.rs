//! Decides where the engine's task runs in production: on a thread and a runtime of its own, so that
//! nothing stands between the instant at which a beat is due and its way to the socket.

use std::future::Future;

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::oneshot;

use super::life::Stage;
use crate::sabotage::Sound;

/// A thread for the engine, at real-time priority where the system permits it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PreciseThread;

impl Stage for PreciseThread {
    type Bugs = Sound;

    #[expect(clippy::disallowed_methods, reason = "this is the stage that a simulator replaces")]
    fn perform<F>(&self, engine: F) -> oneshot::Receiver<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("turns".to_owned());
        let spawned = thread.spawn(move || {
            ask_for_real_time();
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!("the thread of the turns has no runtime: {error}");
                    return;
                }
            };
            let _ = done.send(runtime.block_on(engine));
            runtime.shutdown_background();
        });
        if let Err(error) = spawned {
            tracing::error!("there is no thread for the turns: {error}");
        }
        result
    }
}

fn ask_for_real_time() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Min;
    match set_thread_priority_and_policy(thread_native_id(), priority, policy) {
        Ok(()) => tracing::debug!("the thread of the turns runs at real-time priority"),
        Err(error) => tracing::debug!("no real-time priority for the thread of the turns: {error}"),
    }
}
