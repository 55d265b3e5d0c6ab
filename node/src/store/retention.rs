//! Which ended jobs go, how many at a time, and how one removal goes on where the last one stopped. When that is done is
//! the shell's to decide, and a person's.

use std::time::Duration;

use turnwise_engine::ServerInstant;

use crate::batch::BatchState;

/// The most jobs that one statement removes.
pub const PRUNED_AT_ONCE_MAX: u32 = 1_000;
/// So many batches that ended alike, the oldest, are looked through with each for those that have no job.
pub(super) const BATCHES_AT_ONCE: u32 = 100;

/// How a job ended. Jobs that wait or run have no word here: nobody can ask for their removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It was given up.
    Dead,
    /// A person cancelled it.
    Cancelled,
    /// It succeeded.
    Succeeded,
}

impl Ended {
    /// All of them, the fewest first: those of which there are more must not hold up the others.
    pub const ALL: [Self; 3] = [Self::Dead, Self::Cancelled, Self::Succeeded];

    /// The word for it, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Succeeded => "succeeded",
        }
    }

    /// The state with this word.
    pub(super) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ended| ended.as_str() == word)
    }

    /// The state of the batches that are kept as long as jobs which ended like this, if they have no job any more.
    pub(super) const fn of_batch(self) -> BatchState {
        match self {
            Self::Dead => BatchState::Failed,
            Self::Cancelled => BatchState::Cancelled,
            Self::Succeeded => BatchState::Succeeded,
        }
    }
}

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    olds: Vec<Old>,
    most: u32,
}

/// Jobs that ended like this, at `from` or later, and so long ago or longer, by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) ended: Ended,
    pub(super) age: Duration,
    pub(super) from: ServerInstant,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// So many jobs, each with its attempts.
    pub jobs: u32,
    /// What to go on with; none: there was nothing else to remove.
    pub next: Option<Prune>,
}

impl Prune {
    /// Jobs that ended like one of these, each longer ago than its age. At most `most` at once, and never more than
    /// [`PRUNED_AT_ONCE_MAX`].
    pub fn older_than(ages: impl IntoIterator<Item = (Ended, Duration)>, most: u32) -> Self {
        let from = ServerInstant::from_nanos(i64::MIN);
        let mut olds: Vec<Old> =
            ages.into_iter().map(|(ended, age)| Old { ended, age, from }).collect();
        olds.sort_by_key(|old| old.ended);
        olds.dedup_by_key(|old| old.ended);
        Self { olds, most: most.min(PRUNED_AT_ONCE_MAX) }
    }

    pub(super) fn olds(&self) -> &[Old] {
        &self.olds
    }

    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// What comes of it when these jobs were removed, each with its end, and no more since that was enough at once.
    ///
    /// What goes on begins with the last of them, so that what is left in an index of those that are gone need not be
    /// read through again. A job that somebody held just now is left for another time.
    pub(super) fn removed(&self, gone: &[(Ended, ServerInstant)], is_full: bool) -> Pruned {
        let jobs = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        let next = (is_full && jobs > 0).then(|| {
            let mut next = self.clone();
            for old in &mut next.olds {
                let ends = gone.iter().filter(|(ended, _)| *ended == old.ended).map(|(_, at)| *at);
                old.from = ends.fold(old.from, ServerInstant::max);
            }
            next
        });
        Pruned { jobs, next }
    }
}

impl Pruned {
    /// The same, when so many batches without jobs were removed too: as many as are looked through at once, so that there may be more.
    pub(super) fn with_batches(self, prune: &Prune, batches: usize) -> Self {
        let more = batches >= BATCHES_AT_ONCE as usize;
        let next = self.next.or_else(|| more.then(|| prune.clone()));
        Self { jobs: self.jobs, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(micros: i64) -> ServerInstant {
        ServerInstant::from_micros(micros)
    }

    #[test]
    fn a_removal_that_was_full_goes_on_where_it_stopped() {
        let prune = Prune::older_than([(Ended::Succeeded, HOUR), (Ended::Dead, 2 * HOUR)], 3);
        let gone = [(Ended::Dead, at(9)), (Ended::Succeeded, at(4)), (Ended::Succeeded, at(5))];
        let Pruned { jobs: 3, next: Some(next) } = prune.removed(&gone, true) else { panic!() };
        let of = |ended, age, from| Old { ended, age, from: at(from) };
        assert_eq!(next.olds, [of(Ended::Dead, 2 * HOUR, 9), of(Ended::Succeeded, HOUR, 5)]);
        let done = next.removed(&gone[..2], false);
        assert_eq!((done.jobs, done.next), (2, None));
    }

    #[test]
    fn a_removal_of_many_batches_goes_on_though_there_was_no_job() {
        let prune = Prune::older_than([(Ended::Succeeded, HOUR)], 3);
        let many = BATCHES_AT_ONCE as usize;
        let none = prune.removed(&[], false).with_batches(&prune, many - 1);
        assert_eq!((none.jobs, none.next), (0, None));
        let more = prune.removed(&[], false).with_batches(&prune, many);
        assert_eq!((more.jobs, more.next.as_ref()), (0, Some(&prune)));
        let gone = [(Ended::Succeeded, at(4)); 3];
        let full = prune.removed(&gone, true).with_batches(&prune, many);
        assert_eq!(full, prune.removed(&gone, true), "from the last of them on");
    }

    #[test]
    fn no_more_is_asked_for_than_a_statement_takes() {
        assert_eq!(Prune::older_than([(Ended::Dead, HOUR)], u32::MAX).most, PRUNED_AT_ONCE_MAX);
        let none = Prune::older_than([], 5).removed(&[], true);
        assert_eq!((none.jobs, none.next), (0, None));
    }

    #[test]
    fn every_word_that_is_stored_has_its_end() {
        for ended in Ended::ALL {
            assert_eq!(Ended::named(ended.as_str()), Some(ended));
        }
        assert_eq!(Ended::named("running"), None);
    }
}
