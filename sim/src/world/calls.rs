//! Decides how each call of a job goes at its web app: most well, some with every way of failing that a web app knows;
//! and which id the load's jobs have.

use turnwise_node::job::JobId;
use uuid::Uuid;

use crate::random::Stream;
use crate::scenario::Load;

/// Ids of jobs begin here.
const FIRST_JOB: u128 = 0x0190_0000_0000_7000_8000_0000_0000_0000;

/// The id of a job of the load.
pub(crate) fn id_of(job: u64) -> JobId {
    JobId(Uuid::from_u128(FIRST_JOB + u128::from(job)))
}

/// The job of an id.
pub(crate) fn job_of(id: JobId) -> u64 {
    (id.0.as_u128().wrapping_sub(FIRST_JOB)) as u64
}

/// How a call goes.
pub(crate) enum Course {
    /// 200.
    Well,
    /// This status.
    Status(u16),
    /// 503, and when to come back.
    Later,
    /// No answer, ever.
    Hang,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// The connection breaks before anything is done.
    Break,
}

/// How a call goes, and how long it takes.
pub(crate) fn course(load: Load, chance: &mut Stream) -> (u64, Course) {
    let length = (-(load.runs.0 as f64) * chance.ln_uniform()) as u64;
    let (fails, how) = (chance.below(1_000_000), chance.below(8));
    let course = match (fails < u64::from(load.fails_ppm), how) {
        (false, _) => Course::Well,
        (true, 0) => Course::Later,
        (true, 1) => Course::Hang,
        (true, 2) => Course::AnswerLost,
        (true, 3) => Course::Break,
        (true, 4) => Course::Status(302),
        (true, _) => Course::Status(500),
    };
    (length.min(6_000_000_000), course)
}
