//! The list of what this node holds, for a database that may know otherwise: each job from before the engine
//! hears of its claim until its end is recorded. Decides nothing: when the list is wanted is the engine's.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use turnwise_engine::Token;

use crate::job::{ClaimedJob, End, JobId};

/// The list, shared by the tasks of one life. Its lock is held for a look or a note, and never while anything
/// is waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Not more than the node's capacity: the engine counts a job for as long as it stands here.
    jobs: BTreeSet<(JobId, Token)>,
    /// The highest token that a claim was asked under.
    last: Option<Token>,
}

/// The list as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The jobs, each with its claim.
    pub(crate) jobs: Vec<(JobId, Token)>,
    /// The highest token that a claim was asked under until then.
    pub(crate) last: Token,
}

impl Holds {
    /// A claim is about to leave under this token.
    pub(crate) fn asked(&self, token: Token) {
        let mut book = self.book();
        book.last = book.last.max(Some(token));
    }

    /// These jobs have come.
    pub(crate) fn took(&self, jobs: &[ClaimedJob]) {
        self.book().jobs.extend(jobs.iter().map(|job| (job.id, job.token)));
    }

    /// These ends are recorded.
    pub(crate) fn ended(&self, ends: &[End]) {
        let mut book = self.book();
        for end in ends {
            book.jobs.remove(&(end.job, end.token));
        }
    }

    /// What is held now.
    pub(crate) fn list(&self) -> Held {
        let book = self.book();
        Held { jobs: book.jobs.iter().copied().collect(), last: book.last.unwrap_or(Token(0)) }
    }

    /// Those of an earlier list that are still held.
    pub(crate) fn still(&self, earlier: &[(JobId, Token)]) -> Vec<(JobId, Token)> {
        let book = self.book();
        earlier.iter().copied().filter(|held| book.jobs.contains(held)).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
