//! Statements on the ends of attempts: their arguments and what they answer. What an ended job becomes is decided by
//! `jobs_finish` of the schema, and of those that go on elsewhere by `jobs_finish_or_await`.

use turnwise_engine::{NodeId, Token};

use super::statement::Statement;
use super::{PgStore, check_in};
use crate::job::{End, EndOutcome, JobFate};
use crate::store::ends::{CANCELLED_ELSEWHERE, any_awaits};
use crate::store::rows::{Unreadable, fate_word, storable};
use crate::store::{CheckIn, StoreError};

impl PgStore {
    pub(super) async fn end_jobs(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        let fates: Vec<_> = ends.iter().map(|end| fate_word(end.fate)).collect();
        let awaits = any_awaits(ends);
        let statement = Statement::of(match awaits {
            false => {
                "SELECT outcomes, lost FROM turnwise.jobs_finish(
                    $1::text::uuid, $2::text[]::uuid[], $3::bigint[], $4::text[], $5::bigint[],
                    $6::integer[], $7::text[], $8::bytea[])"
            }
            true => {
                "SELECT outcomes, lost FROM turnwise.jobs_finish_or_await(
                    $1::text::uuid, $2::text[]::uuid[], $3::bigint[], $4::text[], $5::bigint[],
                    $6::integer[], $7::text[], $8::bytea[], $9)"
            }
        })
        .bind(node.to_string())
        .bind(ends.iter().map(|end| end.job.to_string()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.token.0).collect::<Vec<_>>())
        .bind(fates.iter().map(|(word, _)| *word).collect::<Vec<_>>())
        .bind(fates.iter().map(|(_, wait)| *wait).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.status.map(i32::from)).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| storable(end.error.as_deref())).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.answer.as_deref()).collect::<Vec<_>>());
        let statement = match awaits {
            true => statement.bind(CANCELLED_ELSEWHERE.to_owned()),
            false => statement,
        };
        let (codes, lost): (Vec<i32>, bool) = self.ask_for_one(statement).await?;
        if ends.iter().any(|end| end.fate == JobFate::HandBack) {
            self.put_back();
        }
        let outcomes: Vec<_> = codes
            .into_iter()
            .map(|code| match code {
                0 => EndOutcome::Ended,
                1 => EndOutcome::AlreadyEnded,
                _ => EndOutcome::Stale,
            })
            .collect();
        let stale = outcomes.iter().filter(|outcome| **outcome == EndOutcome::Stale).count();
        if stale > 0 {
            self.count_stale(stale).await;
        }
        Ok((outcomes, check_in(lost)))
    }

    /// A statement of its own, since the turn row is never locked after a node's. The ends stand without
    /// it, so its failure is only told.
    async fn count_stale(&self, stale: usize) {
        let statement = Statement::of(
            "UPDATE turnwise.turn SET stale_ends = stale_ends + $1::bigint WHERE id = 1",
        )
        .bind(i64::try_from(stale).unwrap_or(i64::MAX));
        if let Err(error) = self.ask(statement).await {
            tracing::warn!(%error, stale, "stale ends were not counted");
        }
    }
}

/// End claimed jobs whose rows cannot be read. Another round trip, which no other claim costs; when it fails,
/// so does the claim, and its recovery finds the rows again.
pub(super) fn bury(node: NodeId, unreadable: &[(Token, Unreadable<String>)]) -> Statement {
    Statement::of(
        "SELECT turnwise.jobs_end(
            $1::text::uuid, $2::text[], $3::bigint[], array_fill('dead'::text, ARRAY[cardinality($2)]),
            array_fill(0::bigint, ARRAY[cardinality($2)]),
            array_fill(NULL::integer, ARRAY[cardinality($2)]), $4::text[],
            array_fill(NULL::bytea, ARRAY[cardinality($2)]))",
    )
    .bind(node.to_string())
    .bind(unreadable.iter().map(|(_, row)| row.id.as_str()).collect::<Vec<_>>())
    .bind(unreadable.iter().map(|(token, _)| token.0).collect::<Vec<_>>())
    .bind(unreadable.iter().map(|(_, row)| storable(Some(&row.error))).collect::<Vec<_>>())
}
