//! Decides from where on a claim looks at each lane, and when one looks from the beginning again. Knows no SQL and reads
//! no clock.
//!
//! While any session holds an old view of the data, a database cannot take the entries of jobs that were claimed since
//! out of its indexes, and whoever looks at the head of a lane walks over all of them. So a node remembers how far it has
//! seen each lane emptied, its mark, and looks from there on. What a mark hides (a job that was committed late, that somebody
//! had locked, or that another node put back with the time that it had, and a lane that is new) is found by the next full
//! look. One is made whenever the last is so long ago that full looks take no more than a fiftieth of the time, and at the
//! latest after [`FULL_LOOK_MAX`]; where nothing stands in the way a look takes less than [`CHEAP`], and every one is full.

use std::collections::BTreeMap;
use std::time::Duration;

use turnwise_engine::{LocalInstant, ServerInstant};

use crate::job::JobId;

/// How much later than the mark's own instant a job may be committed and be found by the very next look, in microseconds.
const SLACK_US: i64 = 1_000_000;
/// A full look is made no later than this after the last.
const FULL_LOOK_MAX: Duration = Duration::from_secs(5);
/// After a full look, so many times as long as it took may pass before the next.
const FULL_LOOK_SHARE: u32 = 50;
/// A full look that took less than this may be made every time.
const CHEAP: Duration = Duration::from_millis(2);
/// What a full look takes is the least of so many: one that was held up by a busy machine says nothing of the table.
const FULL_LOOKS_JUDGED: usize = 3;
/// So many lanes are remembered that have no job just now.
const EMPTY_LANES_MAX: usize = 128;
/// Where there are more lanes than this, every look is full: their marks would be more than is saved by them.
const LANES_MAX: usize = 1_024;

/// Jobs of one queue and priority, due in the order of their times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) queue: String,
    pub(super) priority: i64,
}

/// A place in a lane, whose order is that of `scheduled_at` and then of the id. No job is before it, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Jobs that are due at this instant or later, in microseconds since the Unix epoch.
    pub(super) at_us: i64,
    /// Of those at this very instant, only the ones whose id is above this.
    pub(super) after: Option<JobId>,
}

impl Mark {
    /// Before all jobs.
    pub(super) const BEGINNING: Self = Self { at_us: i64::MIN, after: None };

    /// Right before the jobs of an instant, in microseconds since the Unix epoch.
    pub(super) const fn before(at_us: i64) -> Self {
        Self { at_us, after: None }
    }

    /// Right behind a job that was due at an instant, in microseconds since the Unix epoch.
    pub(super) const fn behind(at_us: i64, job: JobId) -> Self {
        Self { at_us, after: Some(job) }
    }
}

/// Where a claim is to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// From the beginning of every lane that there is. Otherwise at the lanes that were met alone, from their marks on.
    pub(super) is_full: bool,
    /// The lanes that were met, in their order, and their marks. A full look passes over the marks.
    pub(super) lanes: Vec<(Lane, Mark)>,
    /// How often all had been forgotten when this look was begun.
    forgotten: u64,
}

impl Look {
    /// The same from the beginning of every lane.
    pub(super) fn in_full(self) -> Self {
        Self { is_full: true, ..self }
    }
}

/// What a claim has seen of the lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// The lanes that had jobs, due or not, and where those begin now: [`Mark::behind`] the last job that was taken, or
    /// [`Mark::before`] the first that was seen where none was taken.
    pub(super) lanes: Vec<(Lane, Mark)>,
    /// Up to when jobs were due for it.
    pub(super) due: ServerInstant,
    /// How long it looked for jobs: without what it waited for locks, or took to read and to mark them.
    pub(super) took: Duration,
}

/// How far a node has seen each lane emptied.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    met: BTreeMap<Lane, Mark>,
    /// When the last full look ended; none before the first, and when all was forgotten.
    full: Option<LocalInstant>,
    /// How long the last full looks took, the newest last; missing ones count as nothing.
    took: [Duration; FULL_LOOKS_JUDGED],
    /// Up to when jobs were due for the last claim.
    due: Option<ServerInstant>,
    forgotten: u64,
}

impl Marks {
    /// Where a claim that is made at `now` is to look.
    pub(super) fn look(&self, now: LocalInstant) -> Look {
        Look {
            is_full: self.wants_full_look(now),
            lanes: self.met.iter().map(|(lane, mark)| (lane.clone(), *mark)).collect(),
            forgotten: self.forgotten,
        }
    }

    fn wants_full_look(&self, now: LocalInstant) -> bool {
        let Some(ended) = self.full else { return true };
        let took = self.took.into_iter().min().unwrap_or_default();
        let rest = match took < CHEAP {
            true => Duration::ZERO,
            false => took.saturating_mul(FULL_LOOK_SHARE).min(FULL_LOOK_MAX),
        };
        self.met.len() > LANES_MAX || now.since(ended) >= rest
    }

    /// A claim that looked so was committed, and this is what it saw. `looked_at` tells the lanes that it looked at (not
    /// those that it was to leave out): of these, what is not in sight has no job. It ends at `now`.
    pub(super) fn saw(
        &mut self,
        look: &Look,
        sight: Sight,
        looked_at: impl Fn(&Lane) -> bool,
        now: LocalInstant,
    ) {
        let back = self.due.map_or(0, |before| before.as_micros() - sight.due.as_micros());
        if back > SLACK_US {
            // The clock was set back: jobs may be due at earlier times than before.
            self.forget();
        }
        self.due = Some(sight.due);
        if look.forgotten != self.forgotten {
            // Begun before something was put back, it may not have seen that.
            return;
        }
        if look.is_full {
            self.full = Some(now);
            self.took.rotate_left(1);
            self.took[FULL_LOOKS_JUDGED - 1] = sight.took;
        }
        let empty = Mark::before(sight.due.as_micros().saturating_sub(SLACK_US));
        let seen: BTreeMap<Lane, Mark> = sight.lanes.into_iter().collect();
        if look.is_full && self.met.len() > seen.len() + EMPTY_LANES_MAX {
            self.met.retain(|lane, _| seen.contains_key(lane));
        }
        for (_, mark) in self.met.iter_mut().filter(|(lane, _)| looked_at(lane)) {
            *mark = empty;
        }
        self.met.extend(seen.into_iter().map(|(lane, mark)| (lane, mark.min(empty))));
    }

    /// Jobs were put back with the times that they had, or another server answers: the next look is a full one.
    pub(super) fn forget(&mut self) {
        self.forgotten += 1;
        self.full = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instant of the server's clock, in microseconds.
    const NOON: i64 = 1_800_000_000_000_000;
    const SECOND: i64 = 1_000_000;

    fn at(millis: u64) -> LocalInstant {
        LocalInstant::from_nanos(millis * 1_000_000)
    }

    fn lane(queue: &str, priority: i64) -> Lane {
        Lane { queue: queue.to_owned(), priority }
    }

    fn sight(lanes: &[(Lane, Mark)], due_us: i64, took_ms: u64) -> Sight {
        let (due, took) = (ServerInstant::from_micros(due_us), Duration::from_millis(took_ms));
        Sight { lanes: lanes.to_vec(), due, took }
    }

    /// Marks after full looks that ended at 1 s, each took so long, and saw that.
    fn after(lanes: &[(Lane, Mark)], took_ms: u64) -> Marks {
        let mut marks = Marks::default();
        for _ in 0..FULL_LOOKS_JUDGED {
            let look = marks.look(at(1_000));
            assert!(look.is_full, "the first are full");
            marks.saw(&look, sight(lanes, NOON, took_ms), |_| true, at(1_000));
        }
        marks
    }

    fn mark_of(marks: &Marks, of: &Lane) -> Option<Mark> {
        marks.look(at(0)).lanes.into_iter().find(|(lane, _)| lane == of).map(|(_, mark)| mark)
    }

    #[test]
    fn every_look_is_full_where_nothing_stands_in_the_way() {
        let marks = after(&[(lane("a", 0), Mark::before(NOON))], 0);
        assert!(marks.look(at(1_000)).is_full);
    }

    #[test]
    fn full_looks_take_a_fiftieth_of_the_time_and_are_made_every_five_seconds() {
        let seen = [(lane("a", 0), Mark::before(NOON))];
        for (took, rest) in [(2, 100), (20, 1_000), (99, 4_950), (100, 5_000), (60_000, 5_000)] {
            let marks = after(&seen, took);
            assert!(!marks.look(at(1_000 + rest - 1)).is_full, "took {took} ms");
            assert!(marks.look(at(1_000 + rest)).is_full, "took {took} ms");
        }
    }

    #[test]
    fn a_single_look_that_was_held_up_hides_nothing() {
        let mut marks = after(&[(lane("a", 0), Mark::before(NOON))], 0);
        let look = marks.look(at(1_100));
        marks.saw(&look, sight(&[], NOON, 60_000), |_| true, at(1_100));
        assert!(marks.look(at(1_100)).is_full);
    }

    #[test]
    fn a_look_that_is_not_full_puts_the_next_full_one_off_for_nobody() {
        let mut marks = after(&[(lane("a", 0), Mark::before(NOON))], 20);
        for now in [1_400, 1_800] {
            let look = marks.look(at(now));
            assert!(!look.is_full);
            marks.saw(&look, sight(&[], NOON, 500), |_| true, at(now));
        }
        assert!(marks.look(at(2_000)).is_full);
    }

    #[test]
    fn a_lane_is_looked_at_behind_what_was_taken_from_it() {
        let (long_ago, job) = (NOON - 60 * SECOND, JobId::generate());
        let mut marks = after(&[(lane("a", 0), Mark::behind(long_ago, job))], 20);
        assert_eq!(mark_of(&marks, &lane("a", 0)), Some(Mark::behind(long_ago, job)));
        // Further on.
        let look = marks.look(at(1_100));
        let next = Mark::behind(long_ago + 5, job);
        marks.saw(&look, sight(&[(lane("a", 0), next)], NOON + SECOND, 0), |_| true, at(1_100));
        assert_eq!(mark_of(&marks, &lane("a", 0)), Some(next));
        // A full look that found one further back leaves what may be there beside it in sight.
        let look = marks.look(at(9_000));
        assert!(look.is_full);
        let late = Mark::behind(long_ago - 7, job);
        marks.saw(&look, sight(&[(lane("a", 0), late)], NOON + SECOND, 0), |_| true, at(9_000));
        assert_eq!(mark_of(&marks, &lane("a", 0)), Some(late));
    }

    #[test]
    fn what_is_committed_a_second_late_is_before_no_mark() {
        let job = JobId::generate();
        let seen = [
            (lane("taken", 0), Mark::behind(NOON - 3, job)),
            (lane("later", 0), Mark::before(NOON + 60 * SECOND)),
        ];
        let mut marks = after(&seen, 20);
        let slack = Mark::before(NOON - SECOND);
        assert_eq!(mark_of(&marks, &lane("taken", 0)), Some(slack));
        assert_eq!(mark_of(&marks, &lane("later", 0)), Some(slack));
        // One that was met and has no job.
        let look = marks.look(at(1_100));
        marks.saw(&look, sight(&[], NOON + 9 * SECOND, 0), |_| true, at(1_100));
        let slack = Mark::before(NOON + 8 * SECOND);
        assert_eq!(mark_of(&marks, &lane("later", 0)), Some(slack));
    }

    #[test]
    fn a_lane_that_was_left_out_keeps_its_mark() {
        let long_ago = Mark::before(NOON - 60 * SECOND);
        let mut marks = after(&[(lane("a", 0), long_ago), (lane("b", 0), long_ago)], 20);
        let look = marks.look(at(1_100));
        marks.saw(&look, sight(&[], NOON, 0), |lane| lane.queue != "b", at(1_100));
        assert_eq!(mark_of(&marks, &lane("a", 0)), Some(Mark::before(NOON - SECOND)));
        assert_eq!(mark_of(&marks, &lane("b", 0)), Some(long_ago));
    }

    #[test]
    fn what_was_put_back_is_seen_by_the_next_look_even_while_another_is_under_way() {
        let long_ago = Mark::before(NOON - 60 * SECOND);
        let mut marks = after(&[(lane("a", 0), long_ago)], 20);
        let under_way = marks.look(at(1_100));
        marks.forget();
        marks.saw(&under_way, sight(&[], NOON, 0), |_| true, at(1_200));
        assert_eq!(mark_of(&marks, &lane("a", 0)), Some(long_ago));
        let look = marks.look(at(1_200));
        assert!(look.is_full);
        marks.saw(&look, sight(&[], NOON, 20), |_| true, at(1_300));
        assert!(!marks.look(at(1_300)).is_full, "once");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_the_next_look_full() {
        let mut marks = after(&[(lane("a", 0), Mark::before(NOON))], 20);
        let look = marks.look(at(1_100));
        marks.saw(&look, sight(&[], NOON - SECOND, 0), |_| true, at(1_100));
        assert!(!marks.look(at(1_100)).is_full, "as little as a beat may be early");
        let look = marks.look(at(1_200));
        marks.saw(&look, sight(&[], NOON - 3 * SECOND, 0), |_| true, at(1_200));
        let look = marks.look(at(1_200));
        assert!(look.is_full);
        marks.saw(&look, sight(&[], NOON - 3 * SECOND, 20), |_| true, at(1_300));
        assert!(!marks.look(at(1_300)).is_full, "once");
    }

    #[test]
    fn lanes_without_jobs_are_forgotten_when_there_are_many() {
        let mut marks = Marks::default();
        for number in 0..1_000 {
            let look = marks.look(at(0));
            let new = lane("q", number);
            let seen = [(new.clone(), Mark::before(NOON))];
            marks.saw(&look, sight(&seen, NOON, 0), |_| true, at(0));
            assert!(marks.look(at(0)).lanes.len() <= EMPTY_LANES_MAX + 2);
            assert!(mark_of(&marks, &new).is_some());
        }
    }

    #[test]
    fn where_there_are_very_many_lanes_every_look_is_full() {
        let all: Vec<_> =
            (0..=1_024).map(|number| (lane("q", number), Mark::before(NOON))).collect();
        assert!(!after(&all[1..], 20).look(at(1_000)).is_full);
        assert!(after(&all, 20).look(at(1_000)).is_full);
    }
}
