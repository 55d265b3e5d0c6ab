//! Decides nothing: the places that a set of runs must have been at, or it has shown nothing about them.
//!
//! A mark is set where something worth testing has *happened* (a deputy beat for a dead node, a lost claim
//! was recovered), as FoundationDB's `CODE_PROBE` and Antithesis' `sometimes` do. A sweep prints how often
//! each was reached, and fails when one never was.

/// Note that a mark was reached if `condition` holds: `sometimes!(marks, Mark::Takeover, kind == Takeover)`.
#[macro_export]
macro_rules! sometimes {
    ($marks:expr, $mark:expr, $condition:expr) => {
        if $condition {
            $marks.reach($mark);
        }
    };
}

macro_rules! marks {
    ($($name:ident = $word:literal,)+) => {
        /// Something that must happen in some run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mark {
            $(#[doc = $word] $name,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What happened, in words.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

marks! {
    Joined = "a node joined",
    Left = "a node left in good order",
    Removed = "a node was removed",
    RemovedSeveral = "several nodes were removed at once",
    RemovedAlive = "of the removed, a node that lived",
    CameBack = "a node that was removed by mistake joined again",
    Deputised = "a deputy beat for a node that was gone",
    TookOver = "a node took over a ring of the dead",
    Refused = "a beat was refused",
    Skipped = "a turn was skipped and noted",
    BeatTwice = "a beat was sent a second time after its connection broke",
    LoneSurvivor = "one node alone took every slot",
    LargeRing = "a ring of ten or more",
    StepProven = "a node proved a step of the server's clock",
    Biased = "a step back was absorbed by the bias",
    PeriodChanged = "a change of the period came into force",
    ServerChanged = "a node noticed another server",
    WholeRoundSilent = "a silence of a whole round ended",
    ClaimedWithBeat = "a beat claimed jobs",
    ClaimedOutside = "a backlog was claimed outside of turns",
    ClaimCut = "a claim brought fewer jobs than it asked for, of more",
    LostClaimRecovered = "a claim whose answer was lost was recovered",
    ClaimReleased = "a claim that could not be recovered was released",
    LeaseRenewed = "a lease was renewed",
    LeaseLapsed = "a lease ran out and its jobs ran again",
    LeaseExtended = "an outage extended the leases",
    StaleEnd = "a stale end was refused",
    RetriedJob = "a job failed and was tried again",
    DeadJob = "a job spent all its attempts",
    JobRemoved = "a job that had ended was removed",
    KeyHeld = "a unique key was held by another job",
    KeyFreed = "a unique key went from a job that had ended to another",
    CancelledWaiting = "a job was cancelled that waited",
    CancelledRunning = "a call was dropped since its job was cancelled",
    QueuePaused = "a queue with jobs was paused",
    PlacesTaken = "as many jobs of a queue ran as it allows, and more were due",
    RateReached = "a queue had given out what its rate allows, and more were due",
    KeyTaken = "as many jobs of a key ran as its queue allows",
    QueueHeldBack = "a target asked for less, and a queue was held back",
    CalledBack = "a job that went on elsewhere called back",
    NothingHeard = "a job that went on elsewhere was tried again, since nothing was heard of it",
    HeardTooLate = "a word of a job that went on elsewhere came too late",
    BatchSucceeded = "a batch ended whose jobs all succeeded",
    BatchFailed = "a batch ended whose jobs did not all succeed",
    BatchCancelled = "a batch was cancelled",
    BatchExtended = "a job added another to its batch",
    ScheduleFired = "a schedule was fired",
    FiredForTheDead = "a time was fired late, since nobody had",
    CameBackLost = "a node that was declared lost came back under a new id",
    DrainedWhileBusy = "a node left while it held jobs",
    LateRequest = "a statement arrived after it had been given up",
    LateAnswer = "an answer arrived after its statement had been given up",
    DroppedEffect = "an effect was dropped since it would have been too late",
    StatementDoubled = "a road gave a statement to the database twice",
    StatementLost = "a road lost a statement or its answer, by chance",
    StatementUndone = "the database undid a statement on the jobs",
    StatementHeldUp = "a road held up a statement or its answer, by chance",
    JudgedAlone = "an event was judged alone by its row of the table of bounds",
    JudgedJoin = "a join was judged alone, without jobs",
    JudgedJoinBusy = "a join was judged alone, with jobs",
    JudgedLeave = "a leave was judged alone, without jobs",
    JudgedLeaveBusy = "a leave was judged alone, with jobs",
    JudgedCrash = "a crash was judged alone, without jobs",
    JudgedCrashBusy = "a crash was judged alone, with jobs",
    JudgedCrashes = "several crashes at once were judged alone, without jobs",
    JudgedCrashesBusy = "several crashes at once were judged alone, with jobs",
    JudgedAnswerLost = "a lost answer was judged alone, without jobs",
    JudgedAnswerLostBusy = "a lost answer was judged alone, with jobs",
    JudgedRequestLost = "a lost or late request was judged alone, without jobs",
    JudgedRequestLostBusy = "a lost or late request was judged alone, with jobs",
    JudgedNothing = "an event that costs no slot was judged alone, without jobs",
    JudgedNothingBusy = "an event that costs no slot was judged alone, with jobs",
    JudgedOutage = "an outage was judged alone, without jobs",
    JudgedOutageBusy = "an outage was judged alone, with jobs",
    JudgedForward = "a step forward of the server's clock was judged alone, without jobs",
    JudgedForwardBusy = "a step forward of the server's clock was judged alone, with jobs",
    JudgedBackByLittle = "a step back by up to two slots was judged alone, without jobs",
    JudgedBackByLittleBusy = "a step back by up to two slots was judged alone, with jobs",
    JudgedBack = "a step back by more was judged alone, without jobs",
    JudgedBackBusy = "a step back by more was judged alone, with jobs",
    JudgedCrashAfterCrash = "two crashes, one after the other, were judged alone, without jobs",
    JudgedCrashAfterCrashBusy = "two crashes, one after the other, were judged alone, with jobs",
    JudgedCrashAndLeave = "a crash and a leave were judged alone, without jobs",
    JudgedCrashAndLeaveBusy = "a crash and a leave were judged alone, with jobs",
    JudgedRemoverDies = "of two, a standstill of one and a crash were judged alone, without jobs",
    JudgedRemoverDiesBusy = "of two, a standstill of one and a crash were judged alone, with jobs",
    JudgedReturn = "one who came where nobody was left was judged alone, without jobs",
    JudgedReturnBusy = "one who came where nobody was left was judged alone, with jobs",
    DeputyDied = "a node died that stood in for another",
    RemoverDied = "of two, one died when it had removed the other, which lives",
}

/// How often each mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// A mark was reached.
    pub fn reach(&mut self, mark: Mark) {
        if let Some(count) = self.0.get_mut(mark as usize) {
            *count += 1;
        }
    }

    /// How often.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0.get(mark as usize).copied().unwrap_or(0)
    }

    /// Add another run's.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// The marks that were never reached.
    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }
}
