//! What a job calls with, for people.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{SqliteStore, Trouble, text};
use crate::job::JobId;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::requests::{REQUEST_BYTES_SHOWN, RequestView, Requests, view};

impl<B: Sabotage> Requests for SqliteStore<B> {
    async fn request(&self, job: JobId) -> Result<Option<RequestView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = sqlx::query(
            "SELECT headers, substr(CAST(body AS BLOB), 1, ?2), length(CAST(body AS BLOB))
             FROM turnwise_jobs WHERE id = ?1",
        )
        .bind(job.to_string())
        .bind(REQUEST_BYTES_SHOWN)
        .fetch_optional(&mut *connection)
        .await;
        connection.give_back();
        let read = |row: SqliteRow| -> Result<RequestView, Trouble> {
            Ok(view((text(&row, 0)?, row.try_get(1)?, row.try_get(2)?)))
        };
        let found = found.map_err(Trouble::from).and_then(|row| row.map(read).transpose());
        found.map_err(|trouble| self.trouble(trouble))
    }
}
