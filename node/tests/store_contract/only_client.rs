//! What apps in Rust are offered: jobs in their own transactions. By each database's own connection.

use sqlx::Connection;
use turnwise_node::client;
use turnwise_node::job::{NewJob, Unique};

use crate::member::job;
use crate::mysql::MySql;
use crate::postgres::Postgres;
use crate::sqlite::Sqlite;
use crate::world::World;

fn unique() -> NewJob {
    NewJob { unique: Some(Unique { key: "k".parse().unwrap(), window: None }), ..job() }
}

/// A job exists exactly if its transaction commits, and a key leads to who holds it.
macro_rules! promise {
    ($name:ident, $world:ty, $connection:ty, $enqueue:path) => {
        pub(crate) async fn $name(w: $world) {
            let mut connection = <$connection>::connect(&w.url()).await.unwrap();
            let mut transaction = connection.begin().await.unwrap();
            $enqueue(&mut transaction, &[job()]).await.unwrap();
            transaction.rollback().await.unwrap();
            assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(0));
            let mut transaction = connection.begin().await.unwrap();
            let (plain, first, second) = (job(), unique(), unique());
            let jobs = [plain.clone(), first.clone()];
            let ids = $enqueue(&mut transaction, &jobs).await.unwrap();
            assert_eq!(ids, [plain.id, first.id]);
            assert_eq!($enqueue(&mut transaction, &[second]).await.unwrap(), [first.id]);
            assert_eq!($enqueue(&mut transaction, &[]).await.unwrap(), []);
            let long = NewJob { url: "/".repeat(8_193), ..job() };
            let error = $enqueue(&mut transaction, &[long]).await.unwrap_err();
            assert!(error.to_string().contains("URL"), "{error}");
            transaction.commit().await.unwrap();
            assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(2));
            let client = client::Client::connect(&w.url()).unwrap();
            let told = client.enqueue(&unique()).await.unwrap();
            assert_eq!((told.id, told.is_new), (first.id, false));
            let new = job();
            let told = client.enqueue_all(&[new.clone(), unique()]).await.unwrap();
            assert_eq!((told[0].id, told[0].is_new), (new.id, true));
            assert_eq!((told[1].id, told[1].is_new), (first.id, false));
            assert_eq!(client.cancel(new.id).await.unwrap(), Some(true));
            assert_eq!(client.retry(new.id).await.unwrap(), Some(true));
            assert_eq!(client.job(new.id).await.unwrap().unwrap().0.id, new.id);
        }
    };
}

promise!(
    an_app_enqueues_in_its_own_transaction_on_postgres,
    Postgres,
    sqlx::PgConnection,
    client::in_postgres
);
promise!(
    an_app_enqueues_in_its_own_transaction_on_mariadb,
    MySql,
    sqlx::MySqlConnection,
    client::in_mysql
);
promise!(
    an_app_enqueues_in_its_own_transaction_on_sqlite,
    Sqlite,
    sqlx::SqliteConnection,
    client::in_sqlite
);
