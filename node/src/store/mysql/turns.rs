//! Statements on the turn row. The engine's `TurnRow` decides the slot, the fence and the changes; this module locks,
//! loads and saves it, and looks after the farm when a beat is accepted.
//!
//! A beat that finds nothing to do is three statements in two round trips on MariaDB: the locking read, which carries the
//! stamps, and one packet with one compound statement, the update of the row and of the node's and the insert of the beat,
//! and `COMMIT`. MySQL has no compound statements outside of routines: there it is four. A session without autocommit
//! saves the `BEGIN`. One that claims is a statement and a round trip more: the jobs are read and locked between the two,
//! and marked by the update of the rows.

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr};
use turnwise_engine::{
    Change, Exchange, Kept, LocalInstant, NodeId, ServerInstant, Slot, TurnKind, TurnRow,
};

use super::claims::{self, Taken};
use super::lanes;
use super::literals::{self, instant, number_or_null, text};
use super::rescue;
use super::schedules;
use super::session::{self, Session};
use super::{MySqlStore, PACKET_BYTES_MAX, check_in, commit, lease_end, micros_of, rows_of};
use crate::job::ClaimedJob;
use crate::store::claim_bytes::BEAT_BYTES_MAX;
use crate::store::errors::Trouble;
use crate::store::marks::Look;
use crate::store::rows::TurnColumns;
use crate::store::servers::{Bond, Line};
use crate::store::{self, StoreError, TurnReply, TurnRequest, Turns};

/// How much earlier than its time a beat may claim a job that is due on its boundary, in nanoseconds.
const EARLY_NANOS: i64 = 5_000_000;
/// How many accepted beats are kept: a day at one a second.
const BEATS_KEPT: i64 = 86_400;
/// One slot without a beat. It may be the database's fault or a node's that died.
const MISSED_SLOTS: i64 = 2;

/// The columns of the turn row.
const COLUMNS: &str = concat!(
    "t.epoch, t.high, t.slot, t.previous, t.bias, coalesce(t.period_ms, 1000), t.next_period_ms,
     t.next_period_from, t.versions, t.deputies, t.marks, ",
    micros_of!("t.beaten_at"),
    ", t.refused, t.stale_ends"
);
/// How many those are.
const COLUMNS_COUNT: usize = 14;

/// The nodes that hold jobs and may have to be declared lost, or are, or are not known: their ids in hexadecimal
/// digits. As many entries of the index are read as jobs run. (A lease may yet be made longer before it is judged.)
fn holders(clock: &str) -> String {
    format!(
        "(SELECT GROUP_CONCAT(HEX(h.node))
         FROM (SELECT DISTINCT j.node FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_running)
            WHERE j.state = 'running') h
         LEFT JOIN turnwise_nodes m ON m.id = h.node
         WHERE m.id IS NULL OR m.state = 'lost' OR m.lease_until < {clock})"
    )
}

/// Lock the turn row, then the node's, and read both. The locks come before the clock: `SYSDATE()` is evaluated when
/// the row is there. What is not locked (who holds jobs, which lanes have jobs that are due) is a hint.
fn read_text(store: &MySqlStore, node: &str, look: Option<&Look>) -> String {
    let clock = &store.inner.clock;
    let (holders, lanes) = match look {
        Some(look) => (holders(clock), lanes::probes(look, clock)),
        None => ("NULL".to_owned(), "NULL".to_owned()),
    };
    format!(
        "SELECT {COLUMNS}, n.token_floor, {now}, {holders}, {lanes}, {arrived}, {answered},
            n.drain_asked_at IS NOT NULL, {schedule}
         FROM turnwise_turn t LEFT JOIN turnwise_nodes n ON n.id = {node} AND n.state <> 'lost'
         WHERE t.id = 1 FOR UPDATE",
        now = store.now(),
        schedule = schedules::NEXT,
        arrived = micros_of!("NOW(6)"),
        answered = micros_of!("SYSDATE(6)"),
    )
}

/// The connection that is kept for the turn row. Nothing commits by itself on it, so that its first statement begins a
/// transaction.
#[derive(Debug)]
pub struct MySqlTurns {
    store: MySqlStore,
    session: Session,
    bond: Bond,
    read: String,
    beat: String,
}

impl MySqlTurns {
    pub(super) async fn ready(store: MySqlStore, line: Line<Session>) -> Result<Self, StoreError> {
        let Line { mut session, bond } = line;
        let look = store.inner.lanes.full_look();
        let [read, beat] = [None, Some(&look)].map(|look| read_text(&store, "?", look));
        let prepared = bond.carry(prepare(&mut session.connection, &[&read, &beat])).await;
        prepared.map_err(|trouble| store.trouble(trouble))?;
        Ok(Self { store, session, bond, read, beat })
    }
}

async fn prepare(
    connection: &mut MySqlConnection,
    statements: &[&String],
) -> Result<(), sqlx::Error> {
    for statement in statements {
        let text = AssertSqlSafe((*statement).clone()).into_sql_str();
        connection.prepare(text).await?;
        // Once for nothing, so that the tables are open when it counts.
        sqlx::query(AssertSqlSafe(statement.replace("FOR UPDATE", "")))
            .persistent(false)
            .bind("")
            .fetch_all(&mut *connection)
            .await?;
    }
    session::run(connection, "SET SESSION autocommit = 0".to_owned()).await?;
    Ok(())
}

impl Turns for MySqlTurns {
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        let beats = matches!(request.statement.kind, TurnKind::Beat { .. });
        let look = self.store.inner.lanes.look();
        let sql = if beats { &self.beat } else { &self.read };
        let prepared = sqlx::query(AssertSqlSafe(sql.clone()).into_sql_str())
            .bind(request.statement.node.to_string());
        // The marks are others each time: what looks from them on is not prepared.
        let from_marks = (beats && !look.is_full)
            .then(|| read_text(&self.store, &literals::node(request.statement.node), Some(&look)));
        let bond = self.bond.clone();
        // The exchange is the statement that carries the stamps, alone.
        let exchange = async {
            let sent = clock();
            let connection = &mut self.session.connection;
            let rows = match from_marks {
                Some(text) => session::run(connection, text).await?,
                None => prepared.fetch_all(connection).await?,
            };
            Ok::<_, sqlx::Error>((sent, rows, clock()))
        };
        let exchanged = bond.carry(exchange).await;
        let (sent, rows, received) = exchanged.map_err(|trouble| self.store.trouble(trouble))?;
        let done = bond.carry(self.carry_out(request, look, &rows)).await;
        let done = done.map_err(|trouble| self.store.trouble(trouble))?;
        if beats {
            let prepared = bond.carry(self.prepare_beat()).await;
            prepared.map_err(|trouble| self.store.trouble(trouble))?;
        }
        let Done { arrived, answered, .. } = done;
        Ok(TurnReply {
            exchange: Exchange { sent, arrived, answered, received, resolution: 1_000 },
            identity: self.session.identity,
            now: done.now,
            done: done.done,
            row: done.row,
            jobs: done.jobs,
            more: done.more,
            kept: done.kept,
            lost: done.lost,
            drain_asked: done.drain_asked,
            next_schedule: done.next_schedule,
        })
    }
}

impl MySqlTurns {
    /// The next beat asks after the lanes that were met by then; the server is told its text before it counts.
    async fn prepare_beat(&mut self) -> Result<(), sqlx::Error> {
        let beat = read_text(&self.store, "?", Some(&self.store.inner.lanes.full_look()));
        if beat != self.beat {
            let text = AssertSqlSafe(beat.clone()).into_sql_str();
            (&mut self.session.connection).prepare(text).await?;
            self.beat = beat;
        }
        Ok(())
    }
}

/// Several statements as one, which fails where the first of them fails; unless they are more than one packet takes.
fn as_one(statements: Vec<String>) -> Vec<String> {
    let bytes: usize = statements.iter().map(String::len).sum();
    match statements.len() > 1 && bytes < PACKET_BYTES_MAX / 2 {
        true => vec![format!("BEGIN NOT ATOMIC {}; END", statements.join("; "))],
        false => statements,
    }
}

/// What a statement on the turn row came to.
struct Done {
    arrived: ServerInstant,
    answered: ServerInstant,
    now: Slot,
    done: bool,
    row: TurnRow,
    jobs: Vec<ClaimedJob>,
    more: bool,
    kept: Kept,
    lost: bool,
    drain_asked: bool,
    next_schedule: Option<ServerInstant>,
}

impl MySqlTurns {
    /// The rest of a transaction that began with the locking read.
    async fn carry_out(
        &mut self,
        request: &TurnRequest<'_>,
        mut look: Look,
        rows: &[MySqlRow],
    ) -> Result<Done, Trouble> {
        let node = request.statement.node;
        let Head {
            mut stored,
            lowest,
            at,
            holders,
            listed,
            arrived,
            answered,
            drain_asked,
            next_schedule,
        } = head(rows)?;
        let now = stored.row.stamp(at, Some(node), request.statement.believed);
        let period = stored.row.cadence.period;
        let (mut taken, mut sight) = (Taken::default(), None);
        let mut beat = Vec::new();
        let done = match &request.statement.kind {
            TurnKind::Read => true,
            TurnKind::Beat { claim } => {
                let before = stored.row.slot;
                let accepted = stored.row.beat(now);
                if accepted {
                    let farm = Farm { store: &self.store, stored: &stored, at, holders };
                    let connection = &mut self.session.connection;
                    let listed = match farm.look_after(connection, now - before).await? {
                        // What was put back has the times that it had.
                        true => {
                            look = self.store.inner.lanes.full_look();
                            farm.listed_again(connection, &look).await?
                        }
                        false => listed,
                    };
                    if let (Some(claim), Some(lowest)) = (claim, lowest)
                        && claim.token.0 >= lowest
                    {
                        // A beat that came a little before its boundary claims what is due on it.
                        let boundary = stored.row.cadence.boundary(now);
                        let due = at.max(boundary.min(at.offset(EARLY_NANOS)));
                        let (claim, queues) = (*claim, request.queues);
                        let clock = &self.store.inner.clock;
                        let lanes = &self.store.inner.lanes;
                        let found = lanes.found(connection, &look, &listed, clock).await?;
                        let times = (due, at);
                        let bytes = BEAT_BYTES_MAX;
                        taken = claims::take(connection, node, claim, queues, &found, times, bytes)
                            .await?;
                        sight = Some((found, due));
                    }
                    beat = record(now, node, arrived, taken.count());
                    stored.beaten_at = Some(at);
                } else {
                    stored.refused += 1;
                }
                accepted
            }
            TurnKind::Change { change, identity } => {
                *identity == self.session.identity && stored.row.change(now, Some(node), change)
            }
        };
        let renewed = check_in(at, period, Some(&request.report));
        let mut statements = vec![save(&stored, Some((node, &renewed)), &taken)?];
        statements.append(&mut beat);
        statements.append(&mut taken.entered);
        statements.extend(taken.buried(at));
        if self.session.compounds {
            statements = as_one(statements);
        }
        commit(&mut self.session.connection, statements).await?;
        if let Some((found, due)) = sight {
            self.store.inner.lanes.saw(&look, found, taken.reached, due);
        }
        let (row, lost) = (stored.row, lowest.is_none());
        Ok(Done {
            arrived,
            answered,
            now,
            done,
            row,
            jobs: taken.jobs,
            more: taken.more,
            kept: taken.kept,
            lost,
            drain_asked,
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

/// What the locking read answered.
struct Head {
    stored: Stored,
    /// The node's lowest token that may still claim; none when the node is not known or was declared lost.
    lowest: Option<i64>,
    at: ServerInstant,
    holders: Vec<String>,
    /// The lanes that have jobs, as listed.
    listed: String,
    arrived: ServerInstant,
    answered: ServerInstant,
    /// Somebody asked the node to drain.
    drain_asked: bool,
    next_schedule: Option<ServerInstant>,
}

fn head(rows: &[MySqlRow]) -> Result<Head, Trouble> {
    let row = first(rows)?;
    let micros = |at| Ok::<_, Trouble>(ServerInstant::from_micros(row.try_get(at)?));
    let holders: Option<String> = row.try_get(COLUMNS_COUNT + 2)?;
    Ok(Head {
        stored: stored(row)?,
        lowest: row.try_get(COLUMNS_COUNT)?,
        at: micros(COLUMNS_COUNT + 1)?,
        holders: split(holders.as_deref()).filter_map(literals::from_hex).collect(),
        listed: row.try_get::<Option<String>, _>(COLUMNS_COUNT + 3)?.unwrap_or_default(),
        arrived: micros(COLUMNS_COUNT + 4)?,
        answered: micros(COLUMNS_COUNT + 5)?,
        drain_asked: row.try_get::<i64, _>(COLUMNS_COUNT + 6)? != 0,
        next_schedule: row
            .try_get::<Option<i64>, _>(COLUMNS_COUNT + 7)?
            .map(ServerInstant::from_micros),
    })
}

fn first(rows: &[MySqlRow]) -> Result<&MySqlRow, Trouble> {
    let missing = || Trouble::corrupt("a table turnwise_turn without its row".to_owned());
    rows.first().ok_or_else(missing)
}

/// The parts of what GROUP_CONCAT() put together.
fn split(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').filter(|part| !part.is_empty())
}

fn stored(row: &MySqlRow) -> Result<Stored, Trouble> {
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

/// Save the turn row, with the check-in of its sender and the jobs that it took.
fn save(
    stored: &Stored,
    renewed: Option<(NodeId, &str)>,
    taken: &Taken,
) -> Result<String, Trouble> {
    let columns = TurnColumns::of(&stored.row)?;
    let mut tables = "turnwise_turn t".to_owned();
    let mut set = format!(
        "t.epoch = {}, t.high = {}, t.slot = {}, t.previous = {}, t.bias = {}, t.period_ms = {},
         t.next_period_ms = {}, t.next_period_from = {}, t.versions = {}, t.deputies = {},
         t.marks = {}, t.beaten_at = {}, t.refused = {}",
        columns.epoch,
        columns.high,
        columns.slot,
        columns.previous,
        columns.bias,
        columns.period_ms,
        number_or_null(columns.next_period_ms),
        number_or_null(columns.next_period_from),
        text(&columns.versions),
        text(&columns.deputies),
        text(&columns.marks),
        stored.beaten_at.map_or("NULL".to_owned(), |at| instant(at.as_micros())),
        stored.refused,
    );
    if let Some((node, renewed)) = renewed {
        let node = literals::node(node);
        tables.push_str(&format!(
            " LEFT JOIN turnwise_nodes n ON n.id = {node} AND n.state <> 'lost'"
        ));
        set.push_str(&format!(", {renewed}"));
    }
    if let Some((join, mark)) = taken.mark() {
        tables.push_str(&join);
        set.push_str(&format!(", {mark}"));
    }
    Ok(format!("UPDATE {tables} SET {set} WHERE t.id = 1"))
}

/// The farm as an accepted beat finds it.
struct Farm<'a> {
    store: &'a MySqlStore,
    stored: &'a Stored,
    at: ServerInstant,
    holders: Vec<String>,
}

impl Farm<'_> {
    /// What an accepted beat does before it claims, for steps of the clock, outages and lost nodes. `silence` is how many
    /// slots lie between the last accepted beat and this one. Whether jobs may have been put back.
    async fn look_after(
        &self,
        connection: &mut MySqlConnection,
        silence: i64,
    ) -> Result<bool, Trouble> {
        let mut changed = false;
        let period = self.stored.row.cadence.period;
        if let Some(beaten_at) = self.stored.beaten_at {
            let lease_end = instant(lease_end(self.at, period));
            let beaten = instant(beaten_at.as_micros());
            if self.at < beaten_at {
                // The clock was set back: what was due stays due, and every lease of a live node begins anew. By the last
                // beat, which is of the clock before, nobody can tell who has checked in since, or for how long the
                // database was away. No other lease outlasts its length.
                rows_of(
                    connection,
                    format!(
                        "UPDATE turnwise_nodes SET lease_until = {lease_end}
                         WHERE state = 'live' OR lease_until > {lease_end}"
                    ),
                )
                .await?;
                rescue::step_back(connection, self.at).await?;
                changed = true;
            }
            if silence == MISSED_SLOTS {
                // A living node may not have reached the database in the missed slot either: the slot counts for no
                // lease. (A node that checked in last at c is then found by the first beat from c + 3.5 P on, at
                // the latest at c + 4.5 P: no later than one whose missed slot comes after its lease.)
                rows_of(
                    connection,
                    format!(
                        "UPDATE turnwise_nodes SET lease_until = lease_until + INTERVAL {} MICROSECOND
                         WHERE lease_until >= {beaten}",
                        period.as_nanos() / 1_000
                    ),
                )
                .await?;
            }
            if silence >= MISSED_SLOTS && beaten_at < self.at {
                // Nor was anything heard meanwhile of a job that goes on elsewhere.
                rescue::put_off(connection, beaten_at, self.at).await?;
            }
            if silence > MISSED_SLOTS {
                // Nobody beat for a while: the database was away, not the nodes. (A live node that holds jobs had its lease at
                // the last beat, or would have been declared lost by it. That its lease ends before that beat may be the
                // clock's doing, which was set back and has come to that time again.)
                rows_of(
                    connection,
                    format!(
                        "UPDATE turnwise_nodes SET lease_until = {lease_end}
                         WHERE state = 'live' OR lease_until >= {beaten}"
                    ),
                )
                .await?;
            }
        }
        if !self.holders.is_empty() {
            changed |= rescue::rescue(connection, self.at, &self.holders).await?;
        }
        Ok(changed)
    }

    async fn listed_again(
        &self,
        connection: &mut MySqlConnection,
        look: &Look,
    ) -> Result<String, Trouble> {
        let probes = lanes::probes(look, &self.store.inner.clock);
        let again = rows_of(connection, format!("SELECT {probes}")).await?;
        Ok(first(&again)?.try_get(0)?)
    }
}

fn record(slot: Slot, node: NodeId, arrived: ServerInstant, claimed: usize) -> Vec<String> {
    let arrived = instant(arrived.as_micros());
    let set = format!("node = '{node}', arrived_at = {arrived}, claimed = {claimed}");
    let slot = slot.0;
    let mut statements = vec![format!(
        "INSERT INTO turnwise_beats SET slot = {slot}, {set} ON DUPLICATE KEY UPDATE {set}"
    )];
    if slot % 64 == 0 {
        statements.push(format!(
            "DELETE FROM turnwise_beats WHERE slot <= {} ORDER BY slot LIMIT 1000",
            slot - BEATS_KEPT
        ));
    }
    statements
}

/// A look at the row.
pub(super) fn look_text(now: &str) -> String {
    format!("SELECT {COLUMNS}, {now} FROM turnwise_turn t WHERE t.id = 1")
}

pub(super) fn look(row: &MySqlRow) -> Result<store::Look, Trouble> {
    let stored = stored(row)?;
    Ok(store::Look {
        row: stored.row,
        clock: ServerInstant::from_micros(row.try_get(COLUMNS_COUNT)?),
        refused: stored.refused,
        stale_ends: stored.stale_ends,
    })
}

/// Lock and read the row for a statement of no node's.
async fn begin_as_nobody(
    store: &MySqlStore,
    connection: &mut MySqlConnection,
) -> Result<Head, Trouble> {
    let text = read_text(store, "NULL", None);
    head(&rows_of(connection, format!("START TRANSACTION; {text}")).await?)
}

pub(super) async fn stamp_as_nobody(
    store: &MySqlStore,
    connection: &mut MySqlConnection,
) -> Result<(Slot, TurnRow), Trouble> {
    let Head { mut stored, at, .. } = begin_as_nobody(store, connection).await?;
    let now = stored.row.stamp(at, None, None);
    commit(connection, vec![save(&stored, None, &Taken::default())?]).await?;
    Ok((now, stored.row))
}

pub(super) async fn change_as_nobody(
    store: &MySqlStore,
    connection: &mut MySqlConnection,
    change: &Change,
) -> Result<bool, Trouble> {
    let Head { mut stored, at, .. } = begin_as_nobody(store, connection).await?;
    let now = stored.row.stamp(at, None, None);
    let done = stored.row.change(now, None, change);
    commit(connection, vec![save(&stored, None, &Taken::default())?]).await?;
    Ok(done)
}
