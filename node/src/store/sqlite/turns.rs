//! Statements on the turn row. The engine's `TurnRow` decides the slot, the fence and the changes; this
//! module loads and saves it, and looks after the farm when a beat is accepted.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnwise_engine::{
    Change, Exchange, LocalInstant, NodeId, ServerInstant, Slot, TurnKind, TurnRow,
};

use super::claims::Taken;
use super::nodes::check_in;
use super::{SqliteStore, begin, callbacks, claims, lease_end, rescue, schedules, settle};
use crate::sabotage::{Bug, Sabotage, Sound};
use crate::store::errors::Trouble;
use crate::store::rows::TurnColumns;
use crate::store::{Look, StoreError, TurnReply, TurnRequest, Turns};

/// How much earlier than its time a beat may claim a job that is due on its boundary, in nanoseconds.
const EARLY_NANOS: i64 = 5_000_000;
/// How many accepted beats are kept: a day at one a second.
const BEATS_KEPT: i64 = 86_400;
/// One slot without a beat. It may be the database's fault or a node's that died.
const MISSED_SLOTS: i64 = 2;

/// The connection that is kept for the turn row.
#[derive(Debug)]
pub struct SqliteTurns<B = Sound> {
    store: SqliteStore<B>,
    connection: SqliteConnection,
}

impl<B: Sabotage> SqliteTurns<B> {
    pub(super) async fn ready(
        store: SqliteStore<B>,
        mut connection: SqliteConnection,
    ) -> Result<Self, StoreError> {
        // Reading the row brings the schema into the connection, and finds out if there is none.
        load(&mut connection).await.map_err(|trouble| store.trouble(trouble))?;
        Ok(Self { store, connection })
    }
}

impl<B: Sabotage> Turns for SqliteTurns<B> {
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        let sent = clock();
        let done = self.transaction(request).await;
        let received = clock();
        let done = done.map_err(|trouble| self.store.trouble(trouble))?;
        let Done { arrived, answered, .. } = done;
        Ok(TurnReply {
            exchange: Exchange { sent, arrived, answered, received, resolution: 1 },
            identity: self.store.identity(),
            now: done.now,
            done: done.done,
            row: done.row,
            jobs: done.claimed.jobs,
            more: done.claimed.more,
            kept: done.claimed.kept,
            lost: done.lost,
            drain_asked: done.drain_asked,
            next_schedule: done.next_schedule,
        })
    }
}

/// What a statement on the turn row came to.
struct Done {
    arrived: ServerInstant,
    answered: ServerInstant,
    now: Slot,
    done: bool,
    row: TurnRow,
    claimed: Taken,
    lost: bool,
    drain_asked: bool,
    next_schedule: Option<ServerInstant>,
}

impl<B: Sabotage> SqliteTurns<B> {
    async fn transaction(&mut self, request: &TurnRequest<'_>) -> Result<Done, Trouble> {
        let arrived = self.store.inner.clock.now();
        begin(&mut self.connection).await?;
        let done = self.statement(request, arrived).await;
        settle(&mut self.connection, done).await
    }

    async fn statement(
        &mut self,
        request: &TurnRequest<'_>,
        arrived: ServerInstant,
    ) -> Result<Done, Trouble> {
        let connection = &mut self.connection;
        let statement = request.statement;
        let node = statement.node;
        let mut stored = load(connection).await?;
        let at = self.store.now();
        let now = stored.row.stamp(at, Some(node), statement.believed);
        let period = stored.row.cadence.period;
        let known = check_in(connection, node, at, period, Some(&request.report)).await?;
        let mut claimed = Taken::default();
        let done = match &statement.kind {
            TurnKind::Read => true,
            TurnKind::Beat { claim } => {
                let before = stored.row.slot;
                let accepted = stored.row.beat(now);
                if accepted {
                    look_after::<B>(connection, &stored, at, now - before).await?;
                    if let (Some(claim), Some(known)) = (claim, known)
                        && claim.token.0 >= known.lowest
                    {
                        // A beat that came a little before its boundary claims what is due on it.
                        let boundary = stored.row.cadence.boundary(now);
                        let due = at.max(boundary.min(at.offset(EARLY_NANOS)));
                        let (queues, times) = (request.queues, (due, at));
                        let most = self.store.beat_bytes;
                        claimed = claims::take::<B>(connection, node, *claim, queues, times, most)
                            .await?;
                    }
                    record(connection, now, node, arrived, claimed.jobs.len()).await?;
                    stored.beaten_at = Some(at);
                } else {
                    stored.refused += 1;
                }
                accepted
            }
            TurnKind::Change { change, identity } => {
                *identity == self.store.identity() && stored.row.change(now, Some(node), change)
            }
        };
        save(connection, &stored).await?;
        let next_schedule = schedules::next(connection).await?;
        Ok(Done {
            arrived,
            answered: self.store.inner.clock.now(),
            now,
            done,
            row: stored.row,
            claimed,
            lost: known.is_none(),
            drain_asked: known.is_some_and(|known| known.drain_asked),
            next_schedule,
        })
    }
}

/// The turn row with what stands beside the engine's part of it.
struct Stored {
    row: TurnRow,
    beaten_at: Option<ServerInstant>,
    refused: i64,
    stale_ends: i64,
}

async fn load(connection: &mut SqliteConnection) -> Result<Stored, Trouble> {
    let row = sqlx::query(
        "SELECT epoch, high, slot, previous, bias, coalesce(period_ms, 1000), next_period_ms,
            next_period_from, versions, deputies, marks, beaten_at, refused, stale_ends
         FROM turnwise_turn WHERE id = 1",
    )
    .fetch_one(connection)
    .await?;
    stored(&row)
}

fn stored(row: &SqliteRow) -> Result<Stored, Trouble> {
    let columns = TurnColumns {
        epoch: row.try_get(0)?,
        high: row.try_get(1)?,
        slot: row.try_get(2)?,
        previous: row.try_get(3)?,
        bias: row.try_get(4)?,
        period_ms: row.try_get(5)?,
        next_period_ms: row.try_get(6)?,
        next_period_from: row.try_get(7)?,
        versions: row.try_get(8)?,
        deputies: row.try_get(9)?,
        marks: row.try_get(10)?,
    };
    Ok(Stored {
        row: columns.into_row()?,
        beaten_at: row.try_get::<Option<i64>, _>(11)?.map(ServerInstant::from_micros),
        refused: row.try_get(12)?,
        stale_ends: row.try_get(13)?,
    })
}

async fn save(connection: &mut SqliteConnection, stored: &Stored) -> Result<(), Trouble> {
    let columns = TurnColumns::of(&stored.row)?;
    sqlx::query(
        "UPDATE turnwise_turn SET
            epoch = ?, high = ?, slot = ?, previous = ?, bias = ?, period_ms = ?,
            next_period_ms = ?, next_period_from = ?, versions = ?, deputies = ?, marks = ?,
            beaten_at = ?, refused = ?
         WHERE id = 1",
    )
    .bind(columns.epoch)
    .bind(columns.high)
    .bind(columns.slot)
    .bind(columns.previous)
    .bind(columns.bias)
    .bind(columns.period_ms)
    .bind(columns.next_period_ms)
    .bind(columns.next_period_from)
    .bind(columns.versions)
    .bind(columns.deputies)
    .bind(columns.marks)
    .bind(stored.beaten_at.map(ServerInstant::as_micros))
    .bind(stored.refused)
    .execute(connection)
    .await?;
    Ok(())
}

/// What an accepted beat does before it claims, for steps of the clock, outages and lost nodes.
/// `silence` is how many slots lie between the last accepted beat and this one.
async fn look_after<B: Sabotage>(
    connection: &mut SqliteConnection,
    stored: &Stored,
    at: ServerInstant,
    silence: i64,
) -> Result<(), Trouble> {
    let lease_end = lease_end(at, stored.row.cadence.period);
    let at_us = at.as_micros();
    if stored.beaten_at.is_some_and(|beaten_at| at < beaten_at) {
        // The clock was set back: what was due stays due, and every lease of a live node begins anew. By the last
        // beat, which is of the clock before, nobody can tell who has checked in since, or for how long the
        // database was away. No other lease outlasts its length.
        sqlx::query(
            "UPDATE turnwise_nodes SET lease_until = ?1 WHERE state = 'live' OR lease_until > ?1",
        )
        .bind(lease_end)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE turnwise_jobs SET
                queued_at = ?1,
                scheduled_at = CASE
                    WHEN attempt > 0 THEN scheduled_at - (queued_at - ?1)
                    WHEN scheduled_at <= queued_at THEN min(scheduled_at, ?1)
                    ELSE scheduled_at END
             WHERE state = 'queued' AND queued_at > ?1",
        )
        .bind(at_us)
        .execute(&mut *connection)
        .await?;
    }
    if let Some(beaten_at) = stored.beaten_at
        && silence == MISSED_SLOTS
    {
        // A living node may not have reached the database in the missed slot either: the slot counts for no
        // lease. (A node that checked in last at c is then found by the first beat from c + 3.5 P on, at
        // the latest at c + 4.5 P: no later than one whose missed slot comes after its lease.)
        sqlx::query(
            "UPDATE turnwise_nodes SET lease_until = lease_until + ?1 WHERE lease_until >= ?2",
        )
        .bind(stored.row.cadence.period.as_nanos() / 1_000)
        .bind(beaten_at.as_micros())
        .execute(&mut *connection)
        .await?;
    }
    if let Some(beaten_at) = stored.beaten_at.filter(|beaten_at| *beaten_at < at)
        && silence >= MISSED_SLOTS
    {
        // Nor was anything heard meanwhile of a job that goes on elsewhere.
        callbacks::put_off(connection, beaten_at, at).await?;
    }
    if let Some(beaten_at) = stored.beaten_at
        && silence > MISSED_SLOTS
        && !B::plants(Bug::OutageCountsForLeases)
    {
        // Nobody beat for a while: the database was away, not the nodes. (A live node that holds jobs had its lease at
        // the last beat, or would have been declared lost by it. That its lease ends before that beat may be the
        // clock's doing, which was set back and has come to that time again.)
        sqlx::query(
            "UPDATE turnwise_nodes SET lease_until = ?1 WHERE state = 'live' OR lease_until >= ?2",
        )
        .bind(lease_end)
        .bind(beaten_at.as_micros())
        .execute(&mut *connection)
        .await?;
    }
    rescue::rescue::<B>(connection, at).await
}

async fn record(
    connection: &mut SqliteConnection,
    slot: Slot,
    node: NodeId,
    arrived: ServerInstant,
    claimed: usize,
) -> Result<(), Trouble> {
    sqlx::query(
        "INSERT INTO turnwise_beats (slot, node, arrived_at, claimed) VALUES (?, ?, ?, ?)
         ON CONFLICT (slot) DO UPDATE SET
            node = excluded.node, arrived_at = excluded.arrived_at, claimed = excluded.claimed",
    )
    .bind(slot.0)
    .bind(node.to_string())
    .bind(arrived.as_micros())
    .bind(i64::try_from(claimed).unwrap_or(i64::MAX))
    .execute(&mut *connection)
    .await?;
    if slot.0 % 64 == 0 {
        sqlx::query(
            "DELETE FROM turnwise_beats WHERE slot IN (
                SELECT slot FROM turnwise_beats WHERE slot <= ? ORDER BY slot LIMIT 1000)",
        )
        .bind(slot.0 - BEATS_KEPT)
        .execute(connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn look(
    connection: &mut SqliteConnection,
    clock: ServerInstant,
) -> Result<Look, Trouble> {
    let stored = load(connection).await?;
    Ok(Look { row: stored.row, clock, refused: stored.refused, stale_ends: stored.stale_ends })
}

pub(super) async fn stamp_as_nobody(
    connection: &mut SqliteConnection,
    clock: impl Fn() -> ServerInstant,
) -> Result<(Slot, TurnRow), Trouble> {
    let mut stored = load(connection).await?;
    let now = stored.row.stamp(clock(), None, None);
    save(connection, &stored).await?;
    Ok((now, stored.row))
}

pub(super) async fn change_as_nobody(
    connection: &mut SqliteConnection,
    clock: impl Fn() -> ServerInstant,
    change: &Change,
) -> Result<bool, Trouble> {
    let mut stored = load(connection).await?;
    let now = stored.row.stamp(clock(), None, None);
    let done = stored.row.change(now, None, change);
    save(connection, &stored).await?;
    Ok(done)
}
