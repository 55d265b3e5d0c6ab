//! Statements on the turn row: their texts, their arguments, and how an answer is read. Decides nothing;
//! the functions `turn_read`, `turn_beat` and `turn_change` of the schema do.

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row, SqlSafeStr};
use turnwise_engine::{
    Change, Claim, Exchange, LocalInstant, NodeId, ServerIdentity, ServerInstant, Slot, Token,
    TurnKind, TurnRow,
};

use super::claims::{self, SEEN_COLUMNS, Seen};
use super::ends::bury;
use super::session::Session;
use super::statement::{Statement, Wire};
use super::{PgStore, integer};
use crate::job::ClaimedJob;
use crate::store::claim_bytes::BEAT_BYTES_MAX;
use crate::store::errors::Trouble;
use crate::store::marks;
use crate::store::rows::{self, TurnColumns, Unreadable, json};
use crate::store::servers::Line;
use crate::store::{Look, NodeReport, StoreError, TurnReply, TurnRequest, Turns};

/// What a function answers, whether the sender was asked to drain, and when a schedule is to be fired: beside the function, since
/// functions are never replaced under a running farm, and no statement more.
macro_rules! answer_of {
    ($function:literal) => {
        concat!(
            "SELECT a.*, (SELECT n.drain_asked_at IS NOT NULL FROM turnwise.nodes n
                WHERE n.id = $1::text::uuid), (SELECT turnwise.next_schedule()) FROM turnwise.",
            $function,
            " a"
        )
    };
}

const READ: &str = answer_of!(
    "turn_read(
    $1::text::uuid, $2::bigint, $3::integer, $4::bigint, $5::bigint, $6::bigint)"
);

const BEAT: &str = answer_of!(
    "turn_beat(
    $1::text::uuid, $2::bigint, $3::bigint, $4::integer, $5::bigint,
    $6::text[], $7::text[], $8::text[], $9::smallint[], $10::bigint[],
    $11::integer, $12::bigint, $13::bigint, $14::bigint)"
);

const CHANGE: &str = answer_of!(
    "turn_change(
    $1::text::uuid, $2::bigint, $3::bigint, $4::bigint,
    $5::bigint, $6::bigint, $7::text::jsonb, $8::boolean, $9::boolean,
    $10::text::jsonb, $11::text::jsonb, $12::integer, $13::bigint,
    $14::integer, $15::bigint, $16::bigint, $17::bigint)"
);

/// The columns of `turnwise.claimed_job`, which stand first in an answer.
pub(super) const JOB_COLUMNS: usize = 13;

/// The connection that is kept for the turn row. Each statement is one round trip: the driver sends Bind,
/// Execute and Sync of a prepared statement at once; through a pooler it is one text.
#[derive(Debug)]
pub struct PgTurns {
    store: PgStore,
    line: Line<Session>,
}

impl PgTurns {
    pub(super) async fn ready(store: PgStore, mut line: Line<Session>) -> Result<Self, StoreError> {
        let Line { session, bond } = &mut line;
        if session.wire == Wire::Prepared {
            for statement in [READ, BEAT, CHANGE] {
                let prepare = (&mut session.connection).prepare(statement.into_sql_str());
                let prepared = bond.carry(prepare).await;
                prepared.map_err(|trouble| store.trouble(trouble))?;
            }
        }
        Ok(Self { store, line })
    }
}

impl Turns for PgTurns {
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        let trouble = |trouble| self.store.trouble(trouble);
        let Line { session, bond } = &mut self.line;
        let look = self.store.look_for(request.queues);
        let statement = statement(request, &look).map_err(trouble)?;
        let ready = statement.ready(session.wire).map_err(trouble)?;
        let exchange = async {
            let sent = clock();
            let rows = ready.rows(&mut session.connection).await;
            Ok::<_, Trouble>((sent, rows, clock()))
        };
        let (sent, rows, received) = bond.carry(exchange).await.map_err(trouble)?;
        let rows = rows.map_err(trouble)?;
        let answer = match &request.statement.kind {
            TurnKind::Beat { claim } => beat_answer(&rows, *claim),
            TurnKind::Read | TurnKind::Change { .. } => answer(&rows),
        };
        let answer = answer.map_err(trouble)?;
        if !answer.unreadable.is_empty() {
            let bury = bury(request.statement.node, &answer.unreadable);
            bond.carry(session.rows(&bury)).await.map_err(trouble)?;
        }
        if let Some(seen) = &answer.seen {
            self.store.saw(look, seen, request.queues);
        }
        let exchange = Exchange {
            sent,
            arrived: answer.arrived,
            answered: answer.answered,
            received,
            resolution: 1_000,
        };
        Ok(TurnReply {
            exchange,
            identity: answer.identity,
            now: answer.now,
            done: answer.done,
            row: answer.row,
            jobs: answer.jobs,
            more: answer.seen.as_ref().is_some_and(|seen| seen.more),
            kept: answer.seen.map(|seen| seen.kept).unwrap_or_default(),
            lost: answer.lost,
            drain_asked: answer.drain_asked,
            next_schedule: answer.next_schedule,
        })
    }
}

fn statement(request: &TurnRequest<'_>, look: &marks::Look) -> Result<Statement, Trouble> {
    let node = request.statement.node;
    let believed = request.statement.believed;
    match &request.statement.kind {
        TurnKind::Read => Ok(read(Some(node), believed, &request.report)),
        TurnKind::Beat { claim } => {
            let statement = Statement::of(BEAT)
                .bind(node.to_string())
                .bind(believed.map(|slot| slot.0))
                .bind(claim.map(|claim| claim.token.0))
                .bind(claim.map(|claim| integer(claim.limit)))
                .bind(BEAT_BYTES_MAX as i64);
            let statement = claims::with_lanes(statement, look, request.queues);
            Ok(with_report(statement, &request.report))
        }
        TurnKind::Change { change: to, identity } => {
            change(Some(node), believed, to, *identity, &request.report)
        }
    }
}

fn read(node: Option<NodeId>, believed: Option<Slot>, report: &NodeReport) -> Statement {
    let statement = Statement::of(READ)
        .bind(node.map(|node| node.to_string()))
        .bind(believed.map(|slot| slot.0));
    with_report(statement, report)
}

fn change(
    node: Option<NodeId>,
    believed: Option<Slot>,
    change: &Change,
    identity: ServerIdentity,
    report: &NodeReport,
) -> Result<Statement, Trouble> {
    let statement = Statement::of(CHANGE)
        .bind(node.map(|node| node.to_string()))
        .bind(believed.map(|slot| slot.0))
        .bind(identity.started)
        .bind(identity.timeline)
        .bind(change.epoch.0)
        .bind(change.latest.0)
        .bind(json(&change.victims)?)
        .bind(change.takeover)
        .bind(change.forgets_sender)
        .bind(json(&change.roster.versions)?)
        .bind(json(&change.roster.deputies)?)
        .bind(change.next_period.map(|next| integer(next.period.as_millis())))
        .bind(change.next_period.map(|next| next.from.0));
    Ok(with_report(statement, report))
}

fn with_report(statement: Statement, report: &NodeReport) -> Statement {
    statement
        .bind(integer(report.running))
        .bind(report.offset_us)
        .bind(report.offset_error_us)
        .bind(report.transit_us)
}

/// What a statement on the turn row answered.
pub(super) struct Answer {
    pub(super) jobs: Vec<ClaimedJob>,
    /// What a claim saw beside the jobs.
    seen: Option<Seen>,
    unreadable: Vec<(Token, Unreadable<String>)>,
    pub(super) row: TurnRow,
    pub(super) now: Slot,
    pub(super) identity: ServerIdentity,
    pub(super) done: bool,
    pub(super) lost: bool,
    drain_asked: bool,
    next_schedule: Option<ServerInstant>,
    pub(super) arrived: ServerInstant,
    pub(super) answered: ServerInstant,
}

/// The answer of `turn_read` and `turn_change`: no jobs, and one row.
pub(super) fn answer(rows: &[PgRow]) -> Result<Answer, Trouble> {
    let (turn, _) = claims::last_of(rows)?;
    let row = turn_row(turn, JOB_COLUMNS)?;
    let at = JOB_COLUMNS + TURN_COLUMNS;
    Ok(Answer {
        jobs: Vec::new(),
        seen: None,
        unreadable: Vec::new(),
        now: row.high,
        row,
        identity: ServerIdentity { started: turn.try_get(at)?, timeline: turn.try_get(at + 1)? },
        done: turn.try_get(at + 2)?,
        lost: turn.try_get(at + 3)?,
        arrived: ServerInstant::from_micros(turn.try_get(at + 4)?),
        answered: ServerInstant::from_micros(turn.try_get(at + 5)?),
        drain_asked: turn.try_get::<Option<bool>, _>(at + 6)?.unwrap_or(false),
        next_schedule: next_schedule(turn, at + 7)?,
    })
}

/// The answer of `turn_beat`: jobs first, the turn row last.
fn beat_answer(rows: &[PgRow], claim: Option<Claim>) -> Result<Answer, Trouble> {
    let (turn, claimed_rows) = claims::last_of(rows)?;
    let (jobs, unreadable, none) = claimed(claimed_rows)?;
    if none > 0 {
        return Err(Trouble::corrupt("a claimed job without an id".to_owned()));
    }
    let seen = claim.map(|claim| Seen::read(turn, claimed_rows, claim, BEAT_BYTES_MAX as i64));
    let at = JOB_COLUMNS + SEEN_COLUMNS;
    let row = turn_row(turn, at + 1)?;
    let lost = turn.try_get(at)?;
    let at = at + 1 + TURN_COLUMNS;
    Ok(Answer {
        jobs,
        seen: seen.transpose()?,
        unreadable,
        now: row.high,
        row,
        identity: ServerIdentity { started: turn.try_get(at)?, timeline: turn.try_get(at + 1)? },
        done: turn.try_get(at + 2)?,
        lost,
        arrived: ServerInstant::from_micros(turn.try_get(at + 3)?),
        answered: ServerInstant::from_micros(turn.try_get(at + 4)?),
        drain_asked: turn.try_get::<Option<bool>, _>(at + 5)?.unwrap_or(false),
        next_schedule: next_schedule(turn, at + 6)?,
    })
}

fn next_schedule(row: &PgRow, at: usize) -> Result<Option<ServerInstant>, Trouble> {
    Ok(row.try_get::<Option<i64>, _>(at)?.map(ServerInstant::from_micros))
}

/// How many columns make up the turn row.
const TURN_COLUMNS: usize = 11;

fn turn_row(row: &PgRow, at: usize) -> Result<TurnRow, Trouble> {
    TurnColumns {
        epoch: row.try_get(at)?,
        high: row.try_get(at + 1)?,
        slot: row.try_get(at + 2)?,
        previous: row.try_get(at + 3)?,
        bias: row.try_get(at + 4)?,
        period_ms: i64::from(row.try_get::<i32, _>(at + 5)?),
        next_period_ms: row.try_get::<Option<i32>, _>(at + 6)?.map(i64::from),
        next_period_from: row.try_get(at + 7)?,
        versions: row.try_get(at + 8)?,
        deputies: row.try_get(at + 9)?,
        marks: row.try_get(at + 10)?,
    }
    .into_row()
}

/// Claimed jobs, rows that cannot be read, and how many rows are none.
type Sifted = (Vec<ClaimedJob>, Vec<(Token, Unreadable<String>)>, usize);

/// The jobs in the first columns of rows.
pub(super) fn claimed(rows: &[PgRow]) -> Result<Sifted, Trouble> {
    let (mut jobs, mut unreadable, mut none) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    for row in rows {
        let Some(id) = row.try_get::<Option<String>, _>(0)? else {
            none += 1;
            continue;
        };
        match claimed_job(id.clone(), row) {
            Ok(job) => jobs.push(job),
            Err(trouble) => {
                unreadable.push((Token(row.try_get(1)?), Unreadable::new(id, &trouble)));
            }
        }
    }
    Ok((jobs, unreadable, none))
}

pub(super) fn claimed_job(id: String, row: &PgRow) -> Result<ClaimedJob, Trouble> {
    rows::claimed_job((
        id,
        row.try_get(1)?,
        row.try_get(2)?,
        row.try_get(3)?,
        row.try_get(4)?,
        row.try_get(5)?,
        row.try_get(6)?,
        row.try_get(7)?,
        row.try_get(8)?,
        row.try_get(9)?,
        row.try_get(10)?,
        row.try_get(11)?,
        row.try_get(12)?,
        row.try_get::<Option<Vec<String>>, _>(JOB_COLUMNS + 3)?
            .and_then(|said| said.into_iter().next()),
    ))
}

pub(super) fn look(row: &PgRow) -> Result<Look, Trouble> {
    Ok(Look {
        row: turn_row(row, 0)?,
        clock: ServerInstant::from_micros(row.try_get(TURN_COLUMNS)?),
        refused: row.try_get(TURN_COLUMNS + 1)?,
        stale_ends: row.try_get(TURN_COLUMNS + 2)?,
    })
}

pub(super) fn read_as_nobody() -> Statement {
    read(None, None, &NodeReport::default())
}

pub(super) fn change_as_nobody(
    to: &Change,
    identity: ServerIdentity,
) -> Result<Statement, Trouble> {
    change(None, None, to, identity, &NodeReport::default())
}
