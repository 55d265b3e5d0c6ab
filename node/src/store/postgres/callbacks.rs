//! What is heard of attempts from elsewhere. What it makes of a job is decided by `job_heard` of the schema.

use sqlx::Row;
use sqlx::postgres::PgRow;
use turnwise_engine::{NodeId, Token};

use super::PgStore;
use super::statement::Statement;
use super::turns::{JOB_COLUMNS, claimed_job};
use crate::job::{JobId, Progress};
use crate::store::StoreError;
use crate::store::callbacks::{Callbacks, LastAttempt, Word};
use crate::store::errors::Trouble;
use crate::store::rows::{self, fate_word, micros, storable};

impl PgStore {
    /// The secret of this name, which is `offered` when there is none yet.
    pub(super) async fn secret_of(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        let statement = Statement::of(
            "WITH new AS (
                INSERT INTO turnwise.secrets (name, value) VALUES ($1, $2)
                ON CONFLICT (name) DO NOTHING RETURNING value)
             SELECT value FROM new UNION ALL SELECT value FROM turnwise.secrets WHERE name = $1 LIMIT 1",
        );
        // Whoever inserts it just now is waited for, and seen by the second try alone.
        for _ in 0..2 {
            let statement = statement.clone().bind(name.to_owned()).bind(offered.to_owned());
            if let Some(row) = self.ask(statement).await?.first() {
                return row.try_get(0).map_err(|error| self.trouble(error.into()));
            }
        }
        Err(self.trouble(Trouble::corrupt(format!("no secret {name:?} though it was stored"))))
    }
}

impl Callbacks for PgStore {
    async fn last_attempt(&self, job: JobId) -> Result<Option<LastAttempt>, StoreError> {
        // As a claim answers it, with three columns behind.
        let statement = Statement::of(
            "SELECT j.id::text, j.token, j.queue, j.method, j.url, NULL::text, NULL::bytea, 0::bigint,
                j.attempt::bigint, j.max_attempts::bigint, j.hand_backs::bigint, j.deadline_ms,
                turnwise.micros(j.scheduled_at), j.priority::bigint, NULL::bigint, NULL::bigint,
                turnwise.particulars(turnwise.queue_policies(), j.queue, j.retry_wait_ms, j.retry_wait_max_ms,
                    j.asynchronous, j.heartbeat_ms, j.schedule, j.batch, j.attempt, j.last_status, j.parent),
                j.node::text, j.state, j.state = 'running' OR j.state = 'queued' AND j.awaits_since IS NOT NULL
             FROM turnwise.jobs j WHERE j.id = $1::text::uuid AND j.node IS NOT NULL AND j.token IS NOT NULL",
        );
        let found = self.ask(statement.bind(job.to_string())).await?;
        let found = found.first().map(|row| read(job, row)).transpose();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn hear(
        &self,
        job: JobId,
        (node, token): (NodeId, Token),
        word: &Word,
    ) -> Result<bool, StoreError> {
        let nothing = Progress::default();
        let (fate, wait, error, answer, progress) = match word {
            Word::Alive { within, progress } => ("alive", micros(*within), &None, &None, progress),
            Word::Ended { fate, error, answer } => {
                let (word, wait) = fate_word(*fate);
                (word, wait, error, answer, &nothing)
            }
        };
        let statement = Statement::of(
            "SELECT turnwise.job_heard($1::text::uuid, $2::text::uuid, $3, $4, $5, $6, ($7::bytea[])[1], $8, $9)",
        )
        .bind(job.to_string())
        .bind(node.to_string())
        .bind(token.0)
        .bind(fate)
        .bind(wait)
        .bind(storable(error.as_deref()))
        .bind(vec![answer.as_deref()])
        .bind(progress.percent.map(i32::from))
        .bind(storable(progress.note.as_deref()));
        let (goes_on,): (bool,) = self.ask_for_one(statement).await?;
        Ok(goes_on)
    }
}

fn read(job: JobId, row: &PgRow) -> Result<LastAttempt, Trouble> {
    let at = JOB_COLUMNS + 4;
    Ok(LastAttempt {
        job: claimed_job(job.to_string(), row)?,
        node: rows::node_id(&row.try_get::<String, _>(at)?)?,
        state: row.try_get(at + 1)?,
        goes_on: row.try_get(at + 2)?,
    })
}
