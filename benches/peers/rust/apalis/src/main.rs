//! The contestant apalis-postgres. Its settings are explained in benches/peers/README.md.

use std::io::BufRead;

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage};
use peers_common::{Failure, Order, Setting, Verb, Work, now};

const QUEUE: &str = "jobs";

async fn job(id: usize, work: Data<Work>) -> Result<(), BoxDynError> {
    work.run(id).await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let order = Order::read()?;
    let pool = PgPool::connect(&order.database).await?;
    match order.verb {
        Verb::Setup => PostgresStorage::setup(&pool).await?,
        Verb::Fill => {
            // A transaction of at most a thousand jobs: the arrays of one statement stay of a usual size.
            let jobs: Vec<_> = (0..order.jobs).collect();
            for some in jobs.chunks(1000) {
                storage(&pool, Config::default()).push_bulk(some.to_vec()).await?;
            }
        }
        Verb::Trickle => {
            let mut storage = storage(&pool, Config::default());
            for line in std::io::stdin().lock().lines() {
                storage.push(line?.trim().parse()?).await?;
                println!("{}", now());
            }
        }
        Verb::Work => work(&order, &pool).await?,
    }
    Ok(())
}

fn storage(pool: &PgPool, config: Config) -> PostgresStorage<usize> {
    PostgresStorage::new(pool).with_config(config.queue(QUEUE))
}

async fn work(order: &Order, pool: &PgPool) -> Result<(), Failure> {
    let builder = WorkerBuilder::new("peer");
    let work = Work::ordered(order);
    match order.setting {
        Setting::Defaults => {
            let backend = storage(pool, Config::default());
            builder.backend(backend).data(work).build(job).run().await?;
        }
        Setting::Fast => {
            let config = Config::default().batch_size(100).lock_tasks(false);
            let backend = storage(pool, config).with_pubsub();
            builder.backend(backend).parallelize(tokio::spawn).data(work).build(job).run().await?;
        }
    }
    Ok(())
}
