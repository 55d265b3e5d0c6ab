//! What a job calls with, for people.

use sqlx::FromRow;

use super::PgStore;
use super::statement::Statement;
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::requests::{Columns, REQUEST_BYTES_SHOWN, RequestView, Requests, view};

impl Requests for PgStore {
    async fn request(&self, job: JobId) -> Result<Option<RequestView>, StoreError> {
        let statement = Statement::of(
            "SELECT j.headers::text, substring(j.body FROM 1 FOR $2), octet_length(j.body)::bigint
             FROM turnwise.jobs j WHERE j.id = $1::text::uuid",
        )
        .bind(job.to_string())
        .bind(i32::try_from(REQUEST_BYTES_SHOWN).unwrap_or(i32::MAX));
        let found = self.ask(statement).await?;
        let found = found.first().map(Columns::from_row).transpose();
        Ok(found.map_err(|error| self.trouble(error.into()))?.map(view))
    }
}
