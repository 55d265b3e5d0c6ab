//! Decides what a history comes to: tells the judge of the simulated tiers, in order of time, what was done, what the
//! database wrote down, and what the web apps saw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use turnwise_engine::journal;
use turnwise_engine::{NodeId, Slot, TurnRow};
use turnwise_node::job::{JobState, JobView};
use turnwise_node::store::Look;

use super::CALL_DEADLINE;
use super::history::{Call, Event, History};
use super::process::Recipe;
use super::server::{Attempt, Beat};
use crate::oracle::{Arrival, Disturbance, Invariant, Mark, Oracle};
use crate::report::{Picture, Report, Seen};
use crate::scenario::{Fault, Scenario, Span};
use crate::sometimes;
use crate::world::job_of;

/// A lapsed lease is explained by what was done so long before, and two periods: the longest lease, and a look.
const EXCUSED_FOR: u64 = 4_000_000_000;
/// A job that was due for so many periods, and so long, while a node had a free place is lost.
const OVERDUE_PERIODS: u64 = 8;
const OVERDUE: u64 = 12_000_000_000;

/// What is known when all is over.
pub(super) struct Facts {
    /// What was done and seen.
    pub(super) events: Vec<(u64, Event)>,
    /// The beats that the database has written down.
    pub(super) beats: Vec<Beat>,
    /// The attempts.
    pub(super) attempts: Vec<Attempt>,
    /// The jobs.
    pub(super) jobs: Vec<JobView>,
    /// The files of the journals.
    pub(super) journals: Vec<PathBuf>,
}

/// Something to be told to the judge.
enum Told<'a> {
    Event(&'a Event),
    Beat(&'a Beat),
    JobEnded { job: u64, succeeded: bool },
}

struct Judge<'a> {
    scenario: &'a Scenario,
    history: &'a History,
    period: u64,
    now: u64,
    oracle: Oracle,
    hosts: Vec<Host>,
    lives: Vec<Life>,
    by_id: BTreeMap<NodeId, u32>,
    /// The last look at the turn row.
    look: Option<Look>,
    /// What each job's attempts are known of: from when, by which life.
    attempts: BTreeMap<u64, Vec<(u64, u32)>>,
    /// Calls that are being served, and for which life.
    served: BTreeMap<Call, u32>,
    /// When a job was served last.
    touched: BTreeMap<u64, u64>,
    /// Jobs that were done.
    done: BTreeMap<u64, u32>,
    statements: u64,
    picture: Option<Picture>,
}

#[derive(Clone, Copy, Default)]
struct Host {
    up: bool,
    /// Since when.
    since: u64,
    told: bool,
    life: Option<u32>,
    excused_until: u64,
}

struct Life {
    host: u32,
    /// When it was seen first.
    since: u64,
    lost: bool,
}

/// Hold the history against the invariants.
pub(super) fn judge(
    scenario: &Scenario,
    history: &History,
    facts: &Facts,
    picture: bool,
) -> Result<Report, String> {
    let period = scenario.period.as_nanos() as u64;
    let mut judge = Judge {
        scenario,
        history,
        period,
        now: 0,
        oracle: Oracle::new(period, true),
        hosts: vec![Host::default(); scenario.nodes.len()],
        lives: Vec::new(),
        by_id: BTreeMap::new(),
        look: None,
        attempts: BTreeMap::new(),
        served: BTreeMap::new(),
        touched: BTreeMap::new(),
        done: BTreeMap::new(),
        statements: 0,
        picture: picture.then(|| Picture::new(scenario)),
    };
    judge.learn_lives(facts);
    judge.learn_attempts(facts);
    let end = scenario.duration.0;
    for (at, told) in in_order(history, facts) {
        if at > end {
            break;
        }
        judge.now = at;
        match told {
            Told::Event(event) => judge.event(event),
            Told::Beat(beat) => judge.beat(beat),
            Told::JobEnded { job, succeeded } => judge.job_ended(job, succeeded),
        }
    }
    judge.now = end;
    judge.finish(facts);
    judge.replay(&facts.journals)?;
    let row = judge.look.map_or_else(|| TurnRow::new(scenario.period), |look| look.row);
    let Judge { oracle, statements, picture, .. } = judge;
    Ok(Report::new(scenario, oracle, row, statements, 0, picture))
}

/// All that is to be told, in order of time.
fn in_order<'a>(history: &History, facts: &'a Facts) -> Vec<(u64, Told<'a>)> {
    let stamp =
        |micros: i64| history.at_stamp(turnwise_engine::ServerInstant::from_nanos(micros * 1_000));
    let mut all: Vec<_> =
        facts.events.iter().map(|(at, event)| (*at, Told::Event(event))).collect();
    all.extend(facts.beats.iter().map(|beat| (stamp(beat.arrived_us), Told::Beat(beat))));
    all.extend(facts.jobs.iter().filter_map(|job| {
        let succeeded = job.state == JobState::Succeeded;
        let at = history.at_stamp(job.finished_at?);
        (succeeded || job.state == JobState::Dead)
            .then_some((at, Told::JobEnded { job: job_of(job.id), succeeded }))
    }));
    all.sort_by_key(|(at, _)| *at);
    all
}

impl Judge<'_> {
    /// Which node is whose life is known from the first look that shows it; who it was, from its name.
    fn learn_lives(&mut self, facts: &Facts) {
        for (at, event) in &facts.events {
            let Event::Nodes(nodes) = event else { continue };
            for (id, name, _) in nodes {
                if self.by_id.contains_key(id) {
                    continue;
                }
                let host = (0..self.hosts.len() as u32).find(|host| Recipe::name(*host) == *name);
                if let Some(host) = host {
                    self.by_id.insert(*id, self.lives.len() as u32);
                    self.lives.push(Life { host, since: *at, lost: false });
                }
            }
        }
    }

    fn learn_attempts(&mut self, facts: &Facts) {
        for attempt in &facts.attempts {
            let (Ok(job), Ok(node)) =
                (attempt.job.parse().map(job_of), attempt.node.parse::<NodeId>())
            else {
                continue;
            };
            let started = turnwise_engine::ServerInstant::from_nanos(attempt.started_us * 1_000);
            if let Some(life) = self.by_id.get(&node) {
                let known = self.attempts.entry(job).or_default();
                known.push((self.history.at_stamp(started), *life));
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Up(host) => {
                *self.host(*host) = Host { up: true, since: self.now, ..Host::default() };
                self.excuse(*host, self.now);
                self.disturbed(self.now, Disturbance::Join);
                self.seen(*host, Seen::Up);
            }
            Event::Killed(host) => {
                *self.host(*host) = Host::default();
                self.seen(*host, Seen::Killed);
            }
            Event::Told(host) => {
                self.host(*host).told = true;
                self.disturbed(self.now, Disturbance::Fault(Fault::Drain { node: *host }));
            }
            Event::Ended(host, how) => self.ended(*host, how),
            Event::Fault(fault, alive) => self.fault(*fault, *alive),
            Event::Befell(fault) => self.disturbed(self.now, Disturbance::Fault(*fault)),
            Event::MachineStalled(lasts) => {
                // Everybody stood still with it; nothing is promised of that.
                let lasts = Span(lasts.as_nanos() as u64);
                let fault = Fault::Pause { node: 0, lasts };
                let began = self.now.saturating_sub(lasts.0);
                let Oracle { ring, marks, violations, .. } = &mut self.oracle;
                ring.disturbed(began, self.now, Disturbance::Fault(fault), marks, violations);
                for host in 0..self.hosts.len() as u32 {
                    self.excuse(host, self.now);
                }
            }
            Event::Enqueued(job) => self.oracle.jobs.enqueued(self.now, *job),
            Event::Begun(call) => self.run_begins(*call),
            Event::Over(call, done) => self.run_over(*call, *done),
            Event::Row(look) => self.row(look),
            Event::Nodes(nodes) => self.nodes(nodes),
        }
        let living = self.hosts.iter().filter(|host| host.up && !host.told).count();
        self.oracle.ring.living(living);
    }

    fn ended(&mut self, host: u32, how: &str) {
        let told = self.host(host).told;
        if !told || !(how.contains(": 0") || how.contains(": 75")) {
            self.violated(Invariant::NoPanic, || {
                format!("{} ended by itself: {how}; its log says why", Recipe::name(host))
            });
        }
        *self.host(host) = Host::default();
        let now = self.now;
        self.oracle.ring.extend(now);
        self.seen(host, Seen::Left);
    }

    fn fault(&mut self, fault: Fault, alive: bool) {
        let until = self.now + fault.lasts().0;
        // What a restart is of the process's own is told when it happens.
        if let Some(what) = Disturbance::of(fault, alive)
            && !matches!(fault, Fault::Drain { .. } | Fault::Deploy { .. })
        {
            self.disturbed(until, what);
        }
        match fault.node() {
            Some(node) => self.excuse(node, until),
            None => {
                for host in 0..self.hosts.len() as u32 {
                    self.excuse(host, until);
                }
            }
        }
        self.seen(fault.node().unwrap_or(u32::MAX), Seen::Fault(fault));
    }

    fn beat(&mut self, beat: &Beat) {
        self.statements += 1;
        let Ok(node) = beat.node.parse::<NodeId>() else { return };
        let life = self.by_id.get(&node).copied();
        let host = life.map_or(u32::MAX, |life| self.lives[life as usize].host);
        let slot = Slot(beat.slot);
        let Some(look) = &self.look else { return };
        let (roster, cadence) = (&look.row.roster, &look.row.cadence);
        let server = turnwise_engine::ServerInstant::from_nanos(beat.arrived_us * 1_000);
        let error = server.nanos_from(cadence.boundary(slot));
        let last = roster.last().map_or(&[][..], |last| &last.ring[..]);
        let living = self.hosts.iter().filter(|host| host.up && !host.told).count();
        let whole = last.len() == living
            && last.iter().all(|node| {
                self.by_id.get(node).is_some_and(|life| {
                    let host = self.hosts[self.lives[*life as usize].host as usize];
                    host.up && !host.told && host.life == Some(*life)
                })
            });
        let deputy = roster.ring_owner(slot) != Some(node);
        let arrival = Arrival {
            at: self.now,
            slot,
            believed: slot,
            node: host,
            accepted: true,
            in_turn: roster.owner(slot) == Some(node),
            deputy,
            error,
            ring: roster.versions.iter().map(|version| version.ring.len()).max().unwrap_or(0),
            whole,
        };
        let Oracle { ring, marks, violations, .. } = &mut self.oracle;
        sometimes!(marks, Mark::ClaimedWithBeat, beat.claimed > 0);
        ring.beat(arrival, marks, violations);
        let seen =
            Seen::Beat { slot: slot.0, accepted: true, error, claimed: beat.claimed, deputy };
        self.seen(host, seen);
    }

    /// The turn row as it is now. What the fence refused since the last look is only counted there.
    fn row(&mut self, look: &Look) {
        if let Some(last) = &self.look {
            let refused = look.refused.saturating_sub(last.refused);
            for _ in 0..refused.clamp(0, 1_000) {
                let slot = look.row.high;
                let ring = look.row.roster.versions.iter().map(|version| version.ring.len()).max();
                let arrival = Arrival {
                    at: self.now,
                    slot,
                    believed: slot,
                    node: u32::MAX,
                    accepted: false,
                    in_turn: false,
                    deputy: false,
                    error: 0,
                    ring: ring.unwrap_or(0),
                    whole: true,
                };
                self.statements += 1;
                let Oracle { ring, marks, violations, .. } = &mut self.oracle;
                ring.beat(arrival, marks, violations);
            }
            sometimes!(self.oracle.marks, Mark::StaleEnd, look.stale_ends > last.stale_ends);
        }
        self.look = Some(look.clone());
    }

    fn nodes(&mut self, nodes: &[(NodeId, String, String)]) {
        for (id, _, state) in nodes {
            let Some(number) = self.by_id.get(id).copied() else { continue };
            let (now, host) = (self.now, self.lives[number as usize].host);
            // The newest life of a process is the one that it leads; those of the process before it are over.
            let is_here = self.lives[number as usize].since >= self.host(host).since;
            let is_over = state == "lost" || state == "left";
            if is_here && !is_over && self.host(host).life < Some(number) {
                if self.host(host).life.is_some() {
                    self.disturbed(now, Disturbance::Reborn);
                }
                self.host(host).life = Some(number);
            }
            if state == "lost" && !self.lives[number as usize].lost {
                self.lives[number as usize].lost = true;
                let Host { up, life, excused_until, .. } = *self.host(host);
                let excused = !up || life != Some(number) || excused_until > now;
                let Oracle { jobs, marks, violations, .. } = &mut self.oracle;
                jobs.lapsed(now, number, excused, marks, violations);
                self.disturbed(now, Disturbance::Reborn);
            }
        }
    }

    fn run_begins(&mut self, call: Call) {
        let life = self.life_of(call);
        self.served.insert(call, life);
        self.touched.insert(call.job, self.now);
        let (now, capacity) = (self.now, self.scenario.nodes[call.host as usize].capacity);
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        jobs.runs(now, call.job, life, violations);
        let busy = self.served.values().filter(|other| **other == life).count();
        if busy > capacity as usize {
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {life}, which may run {capacity} jobs at once, runs {busy}")
            });
        }
        self.seen(call.host, Seen::Runs { job: call.job, lasts: 0 });
    }

    /// Whose call it is: the attempts say, where they hold it already; else whoever lives there.
    fn life_of(&self, call: Call) -> u32 {
        let here =
            |life: u32| self.lives.get(life as usize).is_some_and(|life| life.host == call.host);
        let known = self.attempts.get(&call.job).into_iter().flatten();
        let last = known
            .filter(|(since, life)| *since <= self.now + self.period / 4 && here(*life))
            .max_by_key(|(since, _)| *since);
        let (since, attempt) = last.copied().unzip();
        match (attempt, self.hosts[call.host as usize].life) {
            // An attempt that was not written down yet is of the life that is led now.
            (Some(life), now)
                if now.is_none_or(|now| now == life)
                    || since > Some(self.now.saturating_sub(CALL_DEADLINE.as_nanos() as u64)) =>
            {
                life
            }
            (_, Some(life)) => life,
            (Some(life), None) => life,
            (None, None) => u32::MAX,
        }
    }

    fn run_over(&mut self, call: Call, done: bool) {
        let Some(life) = self.served.remove(&call) else { return };
        self.touched.insert(call.job, self.now);
        self.oracle.jobs.stops(call.job, life);
        if done {
            *self.done.entry(call.job).or_insert(0) += 1;
        }
    }

    fn job_ended(&mut self, job: u64, succeeded: bool) {
        self.statements += 1;
        if succeeded && !self.done.contains_key(&job) {
            self.violated(Invariant::Accounting, || {
                format!("job {job} is recorded as succeeded and was never done")
            });
        }
        let Oracle { jobs, marks, .. } = &mut self.oracle;
        jobs.ended(job, succeeded, marks);
    }

    fn finish(&mut self, facts: &Facts) {
        let now = self.now;
        let lost = self.lost_jobs(facts);
        let Oracle { ring, jobs, marks, violations, .. } = &mut self.oracle;
        ring.finish(now, marks, violations);
        jobs.finish(now, &lost, violations);
    }

    /// What should have run or ended by now, and has not: with the farm at peace for long enough.
    fn lost_jobs(&self, facts: &Facts) -> Vec<u64> {
        let grace = OVERDUE + OVERDUE_PERIODS * self.period;
        let free = self.hosts.iter().any(|host| {
            host.up && !host.told && host.life.is_some() && host.excused_until + grace < self.now
        });
        if !free {
            return Vec::new();
        }
        let overdue = |job: &&JobView| {
            let number = job_of(job.id);
            match job.state {
                JobState::Ready => self.history.at_stamp(job.scheduled_at) + grace < self.now,
                JobState::Running => {
                    let served = self.served.keys().any(|call| call.job == number);
                    let touched = self.touched.get(&number).copied().unwrap_or(0);
                    !served && touched + CALL_DEADLINE.as_nanos() as u64 + grace < self.now
                }
                _ => false,
            }
        };
        let mut lost: Vec<_> =
            facts.jobs.iter().filter(overdue).map(|job| job_of(job.id)).collect();
        // What was enqueued, and acknowledged, and is not there.
        let there: std::collections::BTreeSet<_> =
            facts.jobs.iter().map(|job| job_of(job.id)).collect();
        lost.extend(facts.events.iter().filter_map(|(_, event)| match event {
            Event::Enqueued(job) if !there.contains(job) => Some(*job),
            _ => None,
        }));
        lost
    }

    /// What each process told its engine, told to a fresh one.
    fn replay(&mut self, files: &[PathBuf]) -> Result<(), String> {
        for file in files {
            if let Some(difference) = replay_file(file)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.violated(Invariant::Replay, || format!("{name}: {difference}"));
            }
        }
        Ok(())
    }

    fn host(&mut self, number: u32) -> &mut Host {
        &mut self.hosts[number as usize]
    }

    fn excuse(&mut self, host: u32, until: u64) {
        let until = until + EXCUSED_FOR + 2 * self.period;
        let host = self.host(host);
        host.excused_until = host.excused_until.max(until);
    }

    fn disturbed(&mut self, until: u64, what: Disturbance) {
        let Oracle { ring, marks, violations, .. } = &mut self.oracle;
        ring.disturbed(self.now, until.max(self.now), what, marks, violations);
    }

    fn violated(&mut self, invariant: Invariant, detail: impl FnOnce() -> String) {
        self.oracle.violations.add(self.now, invariant, detail);
    }

    fn seen(&mut self, host: u32, seen: Seen) {
        if let Some(picture) = &mut self.picture {
            picture.add(self.now, host, seen);
        }
    }
}

/// What a fresh engine does otherwise than the one that the journal is of; none: nothing.
fn replay_file(file: &Path) -> Result<Option<String>, String> {
    let name = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let Some(header) = crate::journal::header(&text) else { return Ok(None) };
    let entries = match crate::journal::entries(&text) {
        Ok(entries) => entries,
        Err(error) => return Ok(Some(error)),
    };
    Ok(journal::replay(&header, entries).err().map(|difference| difference.to_string()))
}

#[cfg(test)]
mod tests;
