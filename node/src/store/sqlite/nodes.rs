//! Statements on the rows of nodes: announcing one, its check-ins, asking it to drain, and what it says of itself. Each runs
//! inside a transaction of the caller's.

use sqlx::sqlite::SqliteConnection;
use turnwise_engine::{NodeId, Period, ServerInstant};

use super::{lease_end, period};
use crate::store::errors::Trouble;
use crate::store::rows::{self, NodeColumns};
use crate::store::{DrainAnswer, NodeReport, Registration, TargetView, check_ins, migrate};

pub(super) async fn register(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: &Registration,
) -> Result<(), Trouble> {
    // Rows of nodes long gone. An hour by the last beat too, so that a step of the clock alone makes
    // nobody look gone.
    sqlx::query(
        "DELETE FROM turnwise_nodes WHERE lease_until < ?1 - 3600000000
            AND lease_until < (SELECT beaten_at FROM turnwise_turn WHERE id = 1) - 3600000000",
    )
    .bind(at.as_micros())
    .execute(&mut *connection)
    .await?;
    let period = period(connection).await?;
    sqlx::query(
        "INSERT INTO turnwise_nodes
            (id, name, state, lease_until, started_at, last_check_in, capacity, version)
         VALUES (?1, ?2, 'live', ?3, ?4, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET
            name = excluded.name, state = 'live', lease_until = excluded.lease_until,
            started_at = excluded.started_at, last_check_in = excluded.last_check_in,
            capacity = excluded.capacity, version = excluded.version",
    )
    .bind(node.id.to_string())
    .bind(&node.name)
    .bind(lease_end(at, period))
    .bind(at.as_micros())
    .bind(i64::from(node.capacity))
    .bind(migrate::THIS)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn deregister(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE turnwise_nodes SET state = 'left', running = 0, last_check_in = ?2
         WHERE id = ?1 AND state <> 'lost'",
    )
    .bind(node.to_string())
    .bind(at.as_micros())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn drain(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
) -> Result<Option<DrainAnswer>, Trouble> {
    let row: Option<(bool, bool)> = sqlx::query_as(
        "SELECT state = 'live', drain_asked_at IS NOT NULL FROM turnwise_nodes WHERE id = ?",
    )
    .bind(node.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    let answer = match row {
        None => return Ok(None),
        Some((false, _)) => DrainAnswer::Gone,
        Some((true, true)) => DrainAnswer::AskedBefore,
        Some((true, false)) => DrainAnswer::Asked,
    };
    if answer == DrainAnswer::Asked {
        sqlx::query("UPDATE turnwise_nodes SET drain_asked_at = ?2 WHERE id = ?1")
            .bind(node.to_string())
            .bind(at.as_micros())
            .execute(connection)
            .await?;
    }
    Ok(Some(answer))
}

pub(super) async fn write_targets(
    connection: &mut SqliteConnection,
    node: NodeId,
    targets: &[TargetView],
) -> Result<(), Trouble> {
    sqlx::query("UPDATE turnwise_nodes SET targets = ?2 WHERE id = ?1")
        .bind(node.to_string())
        .bind(rows::targets_json(targets)?)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn list(connection: &mut SqliteConnection) -> Result<Vec<NodeColumns>, Trouble> {
    let nodes = sqlx::query_as(
        "SELECT id, name, state, lease_until, last_check_in, capacity, running, offset_us,
            offset_error_us, transit_us, drain_asked_at IS NOT NULL, targets
         FROM turnwise_nodes",
    )
    .fetch_all(connection)
    .await?;
    Ok(nodes)
}

/// What an operation of a node finds in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The lowest token that may still claim.
    pub(super) lowest: i64,
    /// Somebody asked it to drain.
    pub(super) drain_asked: bool,
}

/// A check-in beside the work of a claim or an end: it renews the lease when it is worth it. The node's row; none when the
/// node is not known or was declared lost.
pub(super) async fn pass_by(
    connection: &mut SqliteConnection,
    node: NodeId,
    at: ServerInstant,
    period: Period,
    report: Option<&NodeReport>,
) -> Result<Option<Known>, Trouble> {
    let row: Option<(i64, bool, i64, i64)> = sqlx::query_as(
        "SELECT token_floor, drain_asked_at IS NOT NULL, last_check_in, lease_until
         FROM turnwise_nodes WHERE id = ?1 AND state <> 'lost'",
    )
    .bind(node.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    match row {
        Some((lowest, drain_asked, last, lease))
            if !check_ins::is_worth_writing(at, period, last, lease) =>
        {
            Ok(Some(Known { lowest, drain_asked }))
        }
        Some(_) => check_in(connection, node, at, period, report).await,
        None => Ok(None),
    }
}

/// Renew the node's lease. Its row; none when the node is not known or was declared lost.
pub(super) async fn check_in(
    connection: &mut SqliteConnection,
    node: NodeId,
    at: ServerInstant,
    period: Period,
    report: Option<&NodeReport>,
) -> Result<Option<Known>, Trouble> {
    let row: Option<(i64, bool)> = match report {
        Some(report) => {
            sqlx::query_as(
                "UPDATE turnwise_nodes SET
                    last_check_in = ?2, lease_until = ?3, running = ?4,
                    offset_us = ?5, offset_error_us = ?6, transit_us = ?7
                 WHERE id = ?1 AND state <> 'lost' RETURNING token_floor, drain_asked_at IS NOT NULL",
            )
            .bind(node.to_string())
            .bind(at.as_micros())
            .bind(lease_end(at, period))
            .bind(i64::from(report.running))
            .bind(report.offset_us)
            .bind(report.offset_error_us)
            .bind(report.transit_us)
            .fetch_optional(connection)
            .await?
        }
        None => {
            sqlx::query_as(
                "UPDATE turnwise_nodes SET last_check_in = ?2, lease_until = ?3
                 WHERE id = ?1 AND state <> 'lost' RETURNING token_floor, drain_asked_at IS NOT NULL",
            )
            .bind(node.to_string())
            .bind(at.as_micros())
            .bind(lease_end(at, period))
            .fetch_optional(connection)
            .await?
        }
    };
    Ok(row.map(|(lowest, drain_asked)| Known { lowest, drain_asked }))
}
