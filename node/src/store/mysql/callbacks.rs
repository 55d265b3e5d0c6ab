//! What is heard of attempts from elsewhere, and the secret by which callbacks are known.

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use turnwise_engine::{NodeId, ServerInstant, Token};

use super::claims::{claimed_columns, claimed_job};
use super::literals::{self, bytes_or_null, instant, number_or_null, text, text_or_null};
use super::{MySqlStore, micros_of};
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::callbacks::{Callbacks, Change, Found, LastAttempt, Word};
use crate::store::ends::CANCELLED_ELSEWHERE;
use crate::store::errors::Trouble;
use crate::store::outages::Outages;
use crate::store::rows;

/// What the turn row `t` knows of outages.
pub(super) const OUTAGES: &str = concat!(
    micros_of!("t.beaten_at"),
    ", ",
    micros_of!("t.away_from"),
    ", ",
    micros_of!("t.away_until"),
    ", t.away_us, COALESCE(t.period_ms, 1000)"
);

/// What is known of outages, from the columns [`OUTAGES`], the first of which is at this place.
pub(super) fn outages(row: &MySqlRow, first: usize) -> Result<Outages, Trouble> {
    let column = |place: usize| row.try_get::<Option<i64>, _>(first + place);
    let (from, until, in_all) = (column(1)?, column(2)?, column(3)?);
    Ok(Outages {
        beaten_at: column(0)?,
        last: from.zip(until).zip(in_all).map(|((from, until), all)| (from, until, all)),
        period: rows::period(row.try_get(first + 4)?)?,
    })
}

/// What tells the attempts of those of these jobs that go on elsewhere that somebody has cancelled them; and what tells the jobs.
pub(super) fn cancelled_elsewhere(which: &str, now: &str) -> [String; 2] {
    let error = text(CANCELLED_ELSEWHERE);
    [
        format!(
            "UPDATE turnwise_jobs j FORCE INDEX (PRIMARY) STRAIGHT_JOIN turnwise_attempts a FORCE INDEX (PRIMARY)
                ON a.job = j.id AND a.node = j.node AND a.token = j.token
             SET a.finished_at = {now}, a.error = {error}
             WHERE j.{which} AND j.given_up = 'elsewhere'"
        ),
        format!(
            "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET last_error = {error}
             WHERE {which} AND given_up = 'elsewhere'"
        ),
    ]
}

impl MySqlStore {
    /// The secret of this name, which is `offered` when there is none yet.
    pub(super) async fn secret_of(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        let (name, offered) = (text(name), text(offered));
        let found = self
            .run(format!(
                "INSERT INTO turnwise_secrets (name, value) VALUES ({name}, {offered})
                    ON DUPLICATE KEY UPDATE name = turnwise_secrets.name;
                 SELECT value FROM turnwise_secrets WHERE name = {name}"
            ))
            .await?;
        self.column(self.one(&found)?, 0)
    }
}

impl Callbacks for MySqlStore {
    async fn last_attempt(&self, job: JobId) -> Result<Option<LastAttempt>, StoreError> {
        let found = self
            .run(format!(
                "SELECT {}, j.node, j.state, j.state = 'running' OR j.given_up <=> 'elsewhere'
                 FROM turnwise_jobs j FORCE INDEX (PRIMARY)
                 WHERE j.id = '{job}' AND j.node IS NOT NULL AND j.token IS NOT NULL",
                claimed_columns("j.token", "j.attempt", 0)
            ))
            .await?;
        let found = found.first().map(read).transpose();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn hear(
        &self,
        job: JobId,
        (node, token): (NodeId, Token),
        word: &Word,
    ) -> Result<bool, StoreError> {
        let read = format!(
            "SELECT {OUTAGES} FROM turnwise_turn t WHERE t.id = 1;
             SELECT {}, j.state = 'queued', j.cancel_requested, {}, {}, j.deadline_ms, j.last_status, {}, {}
             FROM turnwise_jobs j FORCE INDEX (PRIMARY)
             WHERE j.id = '{job}' AND j.node = {} AND j.token = {}
                AND (j.state = 'running' OR j.given_up = 'elsewhere') FOR UPDATE",
            self.now(),
            micros_of!("j.started_at"),
            micros_of!("j.scheduled_at"),
            micros_of!("j.awaits_since"),
            micros_of!("j.awaits_until"),
            literals::node(node),
            token.0
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let (turn, found) = found.split_first().ok_or_else(|| self.nothing())?;
        let outages = outages(turn, 0).map_err(|trouble| self.trouble(trouble))?;
        let found = found.first().map(found_attempt).transpose();
        let Some((at, found)) = found.map_err(|trouble| self.trouble(trouble))? else {
            self.commit(session, Vec::new()).await?;
            return Ok(false);
        };
        let change = Change::new(found, word, at, &outages);
        self.commit(session, written(job, at, &change)).await?;
        Ok(true)
    }
}

fn read(row: &MySqlRow) -> Result<LastAttempt, Trouble> {
    // Behind the columns of a claimed job.
    const AT: usize = 14;
    Ok(LastAttempt {
        job: claimed_job(row)?,
        node: rows::node_id(&row.try_get::<String, _>(AT)?)?,
        state: row.try_get(AT + 1)?,
        goes_on: row.try_get::<i64, _>(AT + 2)? != 0,
    })
}

fn found_attempt(row: &MySqlRow) -> Result<(ServerInstant, Found), Trouble> {
    let found = Found {
        is_elsewhere: row.try_get::<i64, _>(1)? != 0,
        is_cancelled: row.try_get::<i64, _>(2)? != 0,
        started_at: row.try_get(3)?,
        scheduled_at: row.try_get(4)?,
        deadline_ms: row.try_get(5)?,
        last_status: row.try_get(6)?,
        awaits_since: row.try_get(7)?,
        awaits_until: row.try_get(8)?,
    };
    Ok((ServerInstant::from_micros(row.try_get(0)?), found))
}

fn written(job: JobId, at: ServerInstant, change: &Change<'_>) -> Vec<String> {
    let instant_or = |at: Option<i64>, otherwise: &str| at.map_or(otherwise.to_owned(), instant);
    match change {
        Change::GoesOn { queued_at, scheduled_at, progress } => vec![format!(
            "UPDATE turnwise_jobs SET
                progress = COALESCE({}, progress), progress_note = COALESCE({}, progress_note),
                queued_at = {}, scheduled_at = {}
             WHERE id = '{job}'",
            number_or_null(progress.percent.map(i64::from)),
            text_or_null(rows::storable(progress.note.as_deref()).as_deref()),
            instant_or(*queued_at, "queued_at"),
            instant_or(*scheduled_at, "scheduled_at"),
        )],
        Change::Ended { state, finished_at, queued_at, scheduled_at, status, error, answer } => {
            let is_the_last = *state == "succeeded";
            let of_attempt = match is_the_last {
                true => format!(
                    "DELETE a FROM turnwise_attempts a JOIN turnwise_jobs j
                        ON a.job = j.id AND a.node = j.node AND a.token = j.token WHERE j.id = '{job}'"
                ),
                false => {
                    let (at, error) = (instant(at.as_micros()), text_or_null(error.as_deref()));
                    let answer = bytes_or_null(*answer);
                    format!(
                        "INSERT INTO turnwise_attempts
                            (job, node, token, attempt, started_at, finished_at, status, error, answer)
                         SELECT j.id, j.node, j.token, j.attempt, j.started_at, {at}, {}, {error}, {answer}
                         FROM turnwise_jobs j FORCE INDEX (PRIMARY) WHERE j.id = '{job}'
                         ON DUPLICATE KEY UPDATE finished_at = {at}, error = {error}, answer = {answer}",
                        number_or_null(*status)
                    )
                }
            };
            vec![
                of_attempt,
                format!(
                    "UPDATE turnwise_jobs SET state = '{state}', finished_at = {}, queued_at = {},
                        scheduled_at = {}, last_status = {}, last_error = {}, answer = {}, awaits_since = NULL
                     WHERE id = '{job}'",
                    instant_or(*finished_at, "NULL"),
                    instant(*queued_at),
                    instant_or(*scheduled_at, "scheduled_at"),
                    number_or_null(*status),
                    text_or_null(error.as_deref()),
                    bytes_or_null(answer.filter(|_| is_the_last)),
                ),
            ]
        }
    }
}
