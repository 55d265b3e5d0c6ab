//! For apps in Rust: enqueue jobs and ask after them. With a connection of its own ([`Client`]), or in the app's own
//! transaction ([`in_postgres`], [`in_mysql`], [`in_sqlite`]), so that a job exists exactly if the transaction commits.
//!
//! ```no_run
//! use turnwise_node::client::Client;
//! use turnwise_node::job::NewJob;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("postgres://localhost/app")?;
//! let job = NewJob { queue: "mail".to_owned(), ..NewJob::new("/jobs/send?to=ada") };
//! let enqueued = client.enqueue(&job).await?;
//! println!("{} is {}", enqueued.id, if enqueued.is_new { "new" } else { "there already" });
//! # Ok(())
//! # }
//! ```
//!
//! In a transaction, with the sqlx that this crate was built with:
//!
//! ```no_run
//! use turnwise_node::client;
//! use turnwise_node::job::NewJob;
//! use turnwise_node::sqlx::{self, Connection, PgConnection};
//!
//! # async fn example(connection: &mut PgConnection) -> Result<(), Box<dyn std::error::Error>> {
//! let mut transaction = connection.begin().await?;
//! sqlx::query("UPDATE orders SET paid = true WHERE id = 7").execute(&mut *transaction).await?;
//! client::in_postgres(&mut transaction, &[NewJob::new("/jobs/receipt?order=7")]).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```

use crate::batch::{BatchId, BatchView, Need, NewBatch};
use crate::batch_orders;
use crate::job::{Attempts, JobId, JobView, NewJob};
use crate::store::{AnyStore, Batches, SealAnswer, Store, StoreError};

pub use crate::store::InTransactionError;
pub use crate::store::mysql::enqueue_in as in_mysql;
pub use crate::store::postgres::enqueue_in as in_postgres;
pub use crate::store::sqlite::enqueue_in as in_sqlite;

/// So many connections at most; none is opened before it is needed.
const CONNECTIONS: u32 = 2;

/// A way to the database of a farm. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    store: AnyStore,
}

/// What became of a job that was to be enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id; or that of the job which holds its unique key.
    pub id: JobId,
    /// False when a job that was there holds the unique key, and nothing was inserted. (An id of one's own that is there
    /// already counts as new: it cannot be told from an answer that was lost.)
    pub is_new: bool,
}

impl Client {
    /// The database that a URL names, as in `turnwise run --database-url`. Nothing is dialled yet.
    ///
    /// # Errors
    ///
    /// The URL is none, or of no database that is supported.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        AnyStore::connect(url, CONNECTIONS).map(|store| Self { store })
    }

    /// Enqueue a job.
    ///
    /// # Errors
    ///
    /// Nothing was enqueued; or, when [`StoreError::fate`] is unknown, perhaps it was: it is harmless to say it again with the
    /// same [`NewJob::id`].
    pub async fn enqueue(&self, job: &NewJob) -> Result<Enqueued, StoreError> {
        let ids = self.store.enqueue(std::slice::from_ref(job)).await?;
        let id = ids.first().copied().unwrap_or(job.id);
        Ok(Enqueued { id, is_new: id == job.id })
    }

    /// Enqueue jobs, all or none, in their order.
    ///
    /// # Errors
    ///
    /// As with [`Client::enqueue`].
    pub async fn enqueue_all(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>, StoreError> {
        let ids = self.store.enqueue(jobs).await?;
        let one = |(id, job): (JobId, &NewJob)| Enqueued { id, is_new: id == job.id };
        Ok(ids.into_iter().zip(jobs).map(one).collect())
    }

    /// A job with the newest of its attempts; none: there is none (any more).
    ///
    /// # Errors
    ///
    /// The database does not answer, or says no.
    pub async fn job(&self, id: JobId) -> Result<Option<(JobView, Attempts)>, StoreError> {
        self.store.job(id).await
    }

    /// Cancel a job, as [`Store::cancel`] has it: false when it has ended, none when there is none.
    ///
    /// # Errors
    ///
    /// As with [`Client::job`].
    pub async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.store.cancel(id).await
    }

    /// Run a job now that waits or was given up, as [`Store::retry`] has it: false when it is running or has succeeded, none
    /// when there is none.
    ///
    /// # Errors
    ///
    /// As with [`Client::job`].
    pub async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.store.retry(id).await
    }

    /// Make a batch with its first jobs and those that wait for it, all or nothing: the ids of the jobs, in that order.
    ///
    /// # Errors
    ///
    /// As with [`Client::enqueue`]; it is harmless to say it again with the same ids.
    pub async fn make_batch(&self, batch: &NewBatch) -> Result<Vec<JobId>, StoreError> {
        batch_orders::make(&self.store, batch).await.map(|made| made.ids)
    }

    /// Enqueue a job that runs when all of these jobs have ended, as it needs: its id.
    ///
    /// # Errors
    ///
    /// As with [`Client::enqueue`]; or [`StoreError::Batch`]: there is no such job, or it belongs to a batch of others too.
    pub async fn enqueue_after(
        &self,
        job: &NewJob,
        jobs: &[JobId],
        need: Need,
    ) -> Result<JobId, StoreError> {
        batch_orders::enqueue_after(&self.store, job, jobs, need).await
    }

    /// Nobody but its own jobs will add any more to a batch, so that it ends with the last of them.
    ///
    /// # Errors
    ///
    /// As with [`Client::job`].
    pub async fn seal_batch(&self, batch: BatchId) -> Result<SealAnswer, StoreError> {
        batch_orders::seal(&self.store, batch).await
    }

    /// A batch, with the first of those jobs that wait for it; none: there is none (any more).
    ///
    /// # Errors
    ///
    /// As with [`Client::job`].
    pub async fn batch(&self, batch: BatchId) -> Result<Option<BatchView>, StoreError> {
        self.store.batch(batch).await
    }
}
