//! What a job calls with, for people.

use sqlx::FromRow;

use super::MySqlStore;
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::requests::{Columns, REQUEST_BYTES_SHOWN, RequestView, Requests, view};

impl Requests for MySqlStore {
    async fn request(&self, job: JobId) -> Result<Option<RequestView>, StoreError> {
        let found = self.run(format!(
            "SELECT headers, SUBSTRING(body, 1, {REQUEST_BYTES_SHOWN}), CAST(OCTET_LENGTH(body) AS SIGNED)
             FROM turnwise_jobs WHERE id = '{job}'"
        ));
        let found = found.await?.first().map(Columns::from_row).transpose();
        Ok(found.map_err(|error| self.trouble(error.into()))?.map(view))
    }
}
