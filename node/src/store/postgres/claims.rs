//! Claims outside the turn, and what every claim says and hears beside its jobs: from where on it looks at which lanes, and
//! what it saw of them. When it looks from the beginning again is decided in `marks`.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use turnwise_engine::{Claim, Kept, NodeId, ServerInstant};

use super::ends::bury;
use super::statement::Statement;
use super::turns::{JOB_COLUMNS, claimed};
use super::{PgStore, check_in, integer};
use crate::clock::{BootClock, Clock};
use crate::job::JobId;
use crate::store::claim_bytes::CLAIM_BYTES_MAX;
use crate::store::errors::Trouble;
use crate::store::marks::{Lane, Look, Mark, Marks, Sight};
use crate::store::rows;
use crate::store::{Claimed, NodeReport, Queues, StoreError};

/// What is remembered of the looks of claims.
#[derive(Debug, Default)]
pub(super) struct Looks {
    pub(super) marks: Marks,
    /// What the last of them looked at.
    queues: Queues,
}

/// How many columns an answer has for what was seen, behind those of a job: `looked_us` to `lost`.
pub(super) const SEEN_COLUMNS: usize = 5;

impl PgStore {
    pub(super) async fn claim_jobs(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let look = self.look_for(queues);
        let statement = Statement::of(
            "SELECT * FROM turnwise.jobs_claim(
                $1::text::uuid, $2::bigint, $3::integer, $4::bigint,
                $5::text[], $6::text[], $7::text[], $8::smallint[], $9::bigint[],
                $10::integer, $11::bigint, $12::bigint, $13::bigint)",
        )
        .bind(node.to_string())
        .bind(claim.token.0)
        .bind(integer(claim.limit))
        .bind(CLAIM_BYTES_MAX as i64);
        let statement = with_lanes(statement, &look, queues)
            .bind(integer(report.running))
            .bind(report.offset_us)
            .bind(report.offset_error_us)
            .bind(report.transit_us);
        let rows = self.ask(statement).await?;
        let trouble = |trouble| self.trouble(trouble);
        let (last, jobs) = last_of(&rows).map_err(trouble)?;
        let seen = Seen::read(last, jobs, claim, CLAIM_BYTES_MAX as i64).map_err(trouble)?;
        let (jobs, unreadable, none) = claimed(jobs).map_err(trouble)?;
        if none > 0 {
            return Err(trouble(Trouble::corrupt("a claimed job without an id".to_owned())));
        }
        if !unreadable.is_empty() {
            self.ask(bury(node, &unreadable)).await?;
        }
        self.saw(look, &seen, queues);
        let Seen { more, kept, lost, .. } = seen;
        Ok(Claimed { jobs, more, kept, check_in: check_in(lost) })
    }

    /// Where a claim from `queues` that is made now is to look. What was left out before has not been looked at.
    pub(super) fn look_for(&self, queues: &Queues) -> Look {
        let mut looks = self.looks();
        if looks.queues != *queues {
            looks.queues = queues.clone();
            looks.marks.forget();
        }
        looks.marks.look(BootClock.now())
    }

    /// A claim was committed that looked so.
    pub(super) fn saw(&self, mut look: Look, seen: &Seen, queues: &Queues) {
        let Some((took, due)) = seen.looked else { return };
        // A beat that put jobs back looks from the beginning whatever it was told.
        look.is_full |= seen.lanes.is_some();
        let sight = Sight { lanes: seen.sight(&look, due, queues), due, took };
        self.looks().marks.saw(&look, sight, |lane| takes(queues, &lane.queue), BootClock.now());
    }

    /// Jobs may have been put back with the times that they had.
    pub(super) fn put_back(&self) {
        self.looks().marks.forget();
    }
}

/// The jobs of an answer, and its last row, which is none.
pub(super) fn last_of(rows: &[PgRow]) -> Result<(&PgRow, &[PgRow]), Trouble> {
    rows.split_last().ok_or_else(|| Trouble::corrupt("a claim that answers nothing".to_owned()))
}

/// The arguments from `p_queues` to `p_from`.
pub(super) fn with_lanes(statement: Statement, look: &Look, queues: &Queues) -> Statement {
    let statement = statement.bind(queues.only()).bind(queues.except());
    let (mut names, mut priorities, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for (lane, mark) in looked_at(look, queues) {
        names.push(lane.queue.clone());
        priorities.push(i16::try_from(lane.priority).unwrap_or(0));
        starts.push((*mark != Mark::BEGINNING).then_some(mark.at_us));
    }
    let known = !look.is_full;
    statement
        .bind(known.then_some(names))
        .bind(known.then_some(priorities))
        .bind(known.then_some(starts))
}

fn looked_at<'a>(look: &'a Look, queues: &Queues) -> impl Iterator<Item = &'a (Lane, Mark)> {
    look.lanes.iter().filter(move |(lane, _)| takes(queues, &lane.queue))
}

fn takes(queues: &Queues, queue: &str) -> bool {
    match queues {
        Queues::All => true,
        Queues::Only(these) => these.iter().any(|name| name == queue),
        Queues::AllBut(these) => these.iter().all(|name| name != queue),
    }
}

/// What a claim saw of the lanes.
#[derive(Debug)]
pub(super) struct Seen {
    /// How long it looked, and up to when jobs were due; none when it did not look.
    looked: Option<(Duration, ServerInstant)>,
    /// The lanes that had jobs; none when it looked at known ones alone.
    lanes: Option<Vec<Lane>>,
    /// The last job that was taken from each lane.
    taken: BTreeMap<Lane, Mark>,
    /// Whether there may be more that was due than was taken.
    pub(super) more: bool,
    /// What was left behind because of a limit.
    pub(super) kept: Kept,
    /// Something was, whether anything of it can be asked for or not.
    left_behind: bool,
    pub(super) lost: bool,
}

impl Seen {
    pub(super) fn read(
        last: &PgRow,
        jobs: &[PgRow],
        claim: Claim,
        bytes_max: i64,
    ) -> Result<Self, Trouble> {
        let at = JOB_COLUMNS;
        let looked_us: Option<i64> = last.try_get(at + 1)?;
        let due: Option<i64> = last.try_get(at + 2)?;
        let names: Option<Vec<String>> = last.try_get(at + 3)?;
        let priorities: Option<Vec<i16>> = last.try_get(at + 4)?;
        let (mut taken, mut bytes) = (BTreeMap::new(), 0);
        for row in jobs {
            // A row that cannot be read is told of elsewhere.
            if let Ok((lane, mark, body)) = place_of(row) {
                bytes += body;
                let last = taken.entry(lane).or_insert(mark);
                *last = mark.max(*last);
            }
        }
        let lanes = names.map(|names| {
            let priorities = priorities.unwrap_or_default().into_iter().map(i64::from);
            names
                .into_iter()
                .zip(priorities)
                .map(|(queue, priority)| Lane { queue, priority })
                .collect()
        });
        let is_full = jobs.len() >= claim.limit as usize;
        Ok(Self {
            looked: looked_us.zip(due).map(|(took, due)| {
                let took = Duration::from_micros(u64::try_from(took).unwrap_or(0));
                (took, ServerInstant::from_micros(due))
            }),
            lanes,
            taken,
            // The next body may have been too long for what was left.
            more: is_full || bytes + BODY_BYTES_MAX > bytes_max,
            kept: kept(last)?,
            left_behind: last.try_get::<Option<i64>, _>(KEPT)?.is_some(),
            lost: last.try_get(at + SEEN_COLUMNS)?,
        })
    }

    fn sight(&self, look: &Look, due: ServerInstant, queues: &Queues) -> Vec<(Lane, Mark)> {
        let met: Vec<(&Lane, Mark)> = match &self.lanes {
            Some(lanes) => lanes.iter().map(|lane| (lane, Mark::BEGINNING)).collect(),
            None => looked_at(look, queues).map(|(lane, mark)| (lane, *mark)).collect(),
        };
        let place = |lane: &Lane, before: Mark| match self.taken.get(lane) {
            Some(last) => *last,
            None if !self.more && !self.left_behind => Mark::before(due.as_micros()),
            None => before,
        };
        met.into_iter().map(|(lane, before)| (lane.clone(), place(lane, before))).collect()
    }
}

/// Where the last row of an answer says that something was kept back because of a limit; and that it may be claimed as soon as a job ends.
const KEPT: usize = 1;
const UNTIL_ONE_ENDS: i64 = 1;

/// What the last row of an answer says of limits, where those before it have the token and the length of a body.
fn kept(last: &PgRow) -> Result<Kept, Trouble> {
    let until_one_ends: Option<i64> = last.try_get(KEPT)?;
    let wait_us: Option<i64> = last.try_get(7)?;
    Ok(Kept {
        until_one_ends: until_one_ends == Some(UNTIL_ONE_ENDS),
        rate_wait: wait_us.map(|wait| Duration::from_micros(u64::try_from(wait).unwrap_or(0))),
    })
}

/// The longest body that is read, in bytes.
const BODY_BYTES_MAX: i64 = crate::job::BODY_BYTES_MAX as i64;

/// A claimed job's lane and place in it, and how many bytes of its body were sent.
fn place_of(row: &PgRow) -> Result<(Lane, Mark, i64), Trouble> {
    let id: JobId = rows::job_id(&row.try_get::<String, _>(0)?)?;
    let lane = Lane { queue: row.try_get(2)?, priority: row.try_get(JOB_COLUMNS)? };
    let bytes: i64 = row.try_get(7)?;
    let bytes = if bytes <= BODY_BYTES_MAX { bytes } else { 0 };
    Ok((lane, Mark::behind(row.try_get(12)?, id), bytes))
}
