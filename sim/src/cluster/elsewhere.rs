//! Decides how jobs go on that a web app has accepted: when it says that it lives, how it ends, whether it is heard of at all.
//! It speaks to the database as a node's API does for it.

use std::time::Duration;

use turnwise_engine::{NodeId, Token};
use turnwise_node::caller::answer::called_back;
use turnwise_node::job::{JobFate, Progress};
use turnwise_node::store::{Callbacks, Word};

use super::Cluster;
use super::database::{Database, at_once};
use super::farm::World;
use crate::random::Stream;
use crate::world::id_of;

/// An app that cannot reach the database tries again after so long.
const AGAIN: u64 = 500_000_000;
/// Of those that are accepted, how many are never heard of, and how many too late, in eighths.
const SILENT: u64 = 1;
const LATE: u64 = 1;
/// Work elsewhere takes at most so long, and is late by at most so much.
const WORKS_FOR: u64 = 9_000_000_000;

/// An attempt that goes on elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    pub(super) life: u32,
    pub(super) node: NodeId,
    pub(super) token: Token,
    /// How long it may go without a word.
    pub(super) within: u64,
    /// Whatever is heard, it ends here.
    pub(super) last: u64,
    /// The database knows that it was accepted.
    pub(super) is_recorded: bool,
    /// It cannot have been given up before, by what was heard of it.
    pub(super) until: u64,
    /// What was left of that when the database was found away, since the last word.
    pub(super) left: Option<u64>,
    /// When its app says something next; never: nothing more is heard of it.
    speaks_at: u64,
    /// When it is done, or has failed.
    ends_at: u64,
    succeeds: bool,
}

impl World {
    /// A web app is about to answer 202 to the call of this job for this life. False when it may not.
    pub(super) fn accepts(&mut self, job: u64, life: u32) -> bool {
        let now = self.now;
        let Some((holder, token)) = self.claims.get(&job).copied() else { return false };
        let node = self.by_id.iter().find(|(_, number)| **number == life).map(|(id, _)| *id);
        let (Some(node), Some(said)) = (node, self.orders.told.asynchronous.get(&job).copied())
        else {
            return false;
        };
        if holder != life {
            return false;
        }
        // Of its own: whatever else is drawn shifts nothing here.
        let name = format!("job {job} elsewhere under {}", token.0);
        let mut chance = Stream::new(self.scenario.seed, &name);
        if chance.below(4) == 0 {
            return false;
        }
        let (kind, length) = (chance.below(8), chance.below(WORKS_FOR));
        let succeeds = chance.below(3) > 0;
        let is_late = (SILENT..SILENT + LATE).contains(&kind);
        // The attempt began a little before, and its deadline counts from there.
        let last = said.began.saturating_add(said.deadline);
        let within = said.heartbeat.unwrap_or(said.deadline);
        let until = now.saturating_add(within).min(last);
        let ends_at = if is_late { until + length } else { now + length };
        let elsewhere = Elsewhere {
            life,
            node,
            token,
            within,
            last,
            is_recorded: false,
            until,
            left: None,
            speaks_at: match (kind < SILENT, is_late) {
                (true, _) => u64::MAX,
                (false, true) => ends_at,
                (false, false) => ends_at.min(now + within / 3),
            },
            ends_at,
            succeeds,
        };
        self.accepted(job, elsewhere);
        true
    }
}

impl Cluster<'_> {
    /// The web apps say of what goes on there what is to be said by now.
    pub(super) fn say_what_goes_on(&mut self) {
        let (now, speak) = {
            let world = self.farm.look();
            let is_due = |of: &Elsewhere| of.speaks_at <= world.now;
            let all = world.orders.told.elsewhere.iter();
            let due: Vec<_> = all.filter(|(_, of)| is_due(of)).map(|(key, _)| *key).collect();
            (world.now, due)
        };
        for (job, token) in speak {
            match self.reachable() {
                Some(store) => self.say(&store, now, (job, token)),
                None => {
                    let mut world = self.farm.look();
                    if let Some(of) = world.orders.told.elsewhere.get_mut(&(job, token)) {
                        let left = *of.left.get_or_insert(of.until.saturating_sub(now));
                        of.until = of.until.max(now + left);
                        of.speaks_at = now + AGAIN;
                    }
                }
            }
        }
    }

    fn say(&mut self, store: &Database, now: u64, key: (u64, Token)) {
        let Some(of) = self.farm.look().orders.told.elsewhere.get(&key).cloned() else { return };
        let job = id_of(key.0);
        let ends = of.ends_at <= now;
        let word = match ends {
            false => Word::Alive {
                within: Duration::from_nanos(of.within),
                progress: Progress { percent: Some((now % 101) as u8), note: None },
            },
            true => {
                let failed = (!of.succeeds).then(|| "it went wrong elsewhere".to_owned());
                let Ok(Some(last)) = at_once(store.last_attempt(job)) else { return };
                let (fate, error) = called_back(&last.job, failed, false, None, now);
                Word::Ended { fate, error, answer: None }
            }
        };
        if ends && of.succeeds {
            *self.farm.look().done.entry(key.0).or_insert(0) += 1;
        }
        let heard = at_once(store.hear(job, (of.node, of.token), &word));
        let mut world = self.farm.look();
        match (heard, word) {
            (Err(_), _) => {
                if let Some(of) = world.orders.told.elsewhere.get_mut(&key) {
                    of.speaks_at = now + AGAIN;
                }
            }
            (Ok(false), _) => world.is_not_heard(key),
            (Ok(true), Word::Alive { .. }) => world.heard_to_live(key),
            (Ok(true), Word::Ended { fate, .. }) => world.heard_to_end(key, fate),
        }
    }
}

impl Elsewhere {
    /// A word was taken down now: it may go on for as long again.
    pub(super) fn lives(&mut self, now: u64) {
        self.until = self.until.max(now.saturating_add(self.within).min(self.last));
        self.left = None;
        self.speaks_at = self.ends_at.min(now + self.within / 3);
    }
}

/// Whether nothing more is due to the job.
pub(super) fn is_over(fate: JobFate) -> bool {
    matches!(fate, JobFate::Succeeded | JobFate::Dead)
}
