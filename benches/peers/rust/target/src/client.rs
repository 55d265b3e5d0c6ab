//! Enqueues jobs for Turnwise as an app does: by plain INSERT.

use std::io::BufRead;
use std::time::Duration;

use peers_common::{Failure, Order, Verb, now};
use sqlx::{Connection, PgConnection};

/// Do what the harness asks for.
pub(crate) async fn run() -> Result<(), Failure> {
    let order = Order::read()?;
    let mut database = PgConnection::connect(&order.database).await?;
    match order.verb {
        Verb::Fill => {
            let many = "INSERT INTO turnwise.jobs (url) SELECT '/jobs/' || n FROM generate_series(0, $1 - 1) AS n";
            sqlx::query(many).bind(i64::try_from(order.jobs)?).execute(&mut database).await?;
        }
        Verb::Trickle => {
            for line in std::io::stdin().lock().lines() {
                let one = "INSERT INTO turnwise.jobs (url) VALUES ($1)";
                sqlx::query(one)
                    .bind(format!("/jobs/{}", line?.trim()))
                    .execute(&mut database)
                    .await?;
                println!("{}", now());
            }
        }
        Verb::Setup | Verb::Work => return Err("`turnwise` itself does that".into()),
    }
    // Let the server end the session before the process does.
    tokio::time::timeout(Duration::from_secs(5), database.close()).await??;
    Ok(())
}
