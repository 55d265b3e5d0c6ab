//! The contestant graphile_worker, the port of Graphile Worker to Rust. Its settings are explained in
//! benches/peers/README.md.

use std::io::BufRead;
use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions,
};
use peers_common::{Failure, Order, Setting, Verb, Work, now};
use serde::{Deserialize, Serialize};

/// The job.
#[derive(Clone, Deserialize, Serialize)]
struct Job {
    id: usize,
}

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "job";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let work = context.get_ext::<Work>().ok_or("the worker has no work")?;
        work.run(self.id).await.map_err(|error| error.to_string())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let order = Order::read()?;
    let worker = options(&order).init().await?;
    let utils = worker.create_utils();
    let spec = JobSpec::default();
    match order.verb {
        Verb::Setup => {}
        Verb::Fill => {
            let jobs: Vec<_> = (0..order.jobs).map(|id| (Job { id }, &spec)).collect();
            utils.add_jobs(&jobs).await?;
        }
        Verb::Trickle => {
            for line in std::io::stdin().lock().lines() {
                utils.add_job(Job { id: line?.trim().parse()? }, spec.clone()).await?;
                println!("{}", now());
            }
        }
        Verb::Work => worker.run().await?,
    }
    Ok(())
}

fn options(order: &Order) -> WorkerOptions {
    let options = WorkerOptions::default().database_url(&order.database).define_job::<Job>();
    let options = match order.verb {
        Verb::Work => options.add_extension(Work::ordered(order)),
        _ => options,
    };
    match order.setting {
        Setting::Defaults => options,
        Setting::Fast => options
            .concurrency(16)
            .poll_interval(Duration::from_millis(500))
            .complete_job_batch_delay(Duration::from_millis(5))
            .fail_job_batch_delay(Duration::from_millis(5))
            .local_queue(
                LocalQueueConfig::default().with_size(100).with_ttl(Duration::from_secs(60)),
            ),
    }
}
