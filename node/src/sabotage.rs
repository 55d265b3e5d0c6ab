//! Decides nothing: the places where a simulation may plant a bug in the shell or in the store, to see whether its
//! invariants find it. Made as the engine's are (`turnwise_engine::Sabotage`): by a type parameter of no size, which
//! for the product is [`Sound`], so that the compiler removes every one of these places.

use std::fmt::Debug;

/// Whether a bug is planted.
pub trait Sabotage: Copy + Debug + Send + Sync + 'static {
    /// Whether `bug` is planted.
    fn plants(bug: Bug) -> bool;
}

/// No bug is planted: the node of the product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sound;

impl Sabotage for Sound {
    #[inline(always)]
    fn plants(_: Bug) -> bool {
        false
    }
}

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// A bug that can be planted: one rule of the shell or of the store, broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// What is broken, in words.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

bugs! {
    // Statements.
    /// A statement is sent however late it has become.
    EffectIsSentLate = "effect-is-sent-late",
    /// The answer to a statement that was given up is taken for the answer to the next.
    AnswerIsMismatched = "answer-is-mismatched",
    /// A renewal of the lease is answered without asking the database.
    RenewalIsForgotten = "renewal-is-forgotten",
    /// The engine is not told that its node was declared lost.
    LossIsNotTold = "loss-is-not-told",
    /// Jobs of a lost claim are recovered and then not run.
    RecoveredJobsAreDropped = "recovered-jobs-are-dropped",
    /// A claim that cannot be recovered is not given up.
    ReleaseIsForgotten = "release-is-forgotten",
    /// After a failover only the lease is renewed.
    ReconcileIsARenewal = "reconcile-is-a-renewal",
    /// The engine is not told that there are more jobs than a claim brought.
    MoreIsNotTold = "more-is-not-told",
    /// What a beat claimed is not on the list of what the node holds.
    ListLacksClaims = "list-lacks-claims",

    // Batches.
    /// A batch ends though some of its jobs still run.
    BatchForgetsWhatRuns = "batch-forgets-what-runs",
    /// What waits for the success of a batch runs though it failed.
    BatchFailureIsSuccess = "batch-failure-is-success",
    /// What waits for a batch is due at once.
    WaitingIsNotPutOff = "waiting-is-not-put-off",
    /// Nobody looks at batches.
    NoBatchIsLookedAt = "no-batch-is-looked-at",
    /// A batch is looked at when a job of its ended, and never again.
    BatchIsLookedAtByEndsAlone = "batch-is-looked-at-by-ends-alone",

    // Runs and ends.
    /// Of the jobs that a beat claimed only the first is run.
    OnlyFirstJobRuns = "only-first-job-runs",
    /// A failed call is recorded as a success.
    FailureIsSuccess = "failed-call-is-success",
    /// An end that could not be recorded is forgotten.
    EndIsTriedOnce = "end-is-tried-once",
    /// Of several ends only the first is recorded.
    OnlyFirstEndIsRecorded = "only-first-end-is-recorded",
    /// Calls go on when the node was declared lost.
    CallsOutliveTheLife = "calls-outlive-the-life",
    /// An answer of 202 is taken for the end of a job that is asynchronous.
    AcceptedIsDone = "accepted-is-done",
    /// Nobody is told that the target refused a call.
    RefusalIsNotTold = "refusal-is-not-told",
    /// A target that was away is never tried again.
    TargetStaysAway = "target-stays-away",
    /// A call goes on though its job was cancelled.
    CancelIsNotHeard = "cancel-is-not-heard",

    // Retention.
    /// Jobs are removed however short ago they ended.
    AgeIsIgnored = "age-is-ignored",
    /// A job is as old as a clock says that was set forward.
    StepMakesOlder = "step-makes-older",
    /// Nobody removes ended jobs.
    NothingIsPruned = "nothing-is-pruned",

    // Schedules.
    /// Nobody fires schedules.
    NothingIsFired = "nothing-is-fired",
    /// The time after those that were fired is passed over.
    NextTimeIsPassedOver = "next-time-is-passed-over",
    /// Times are fired when they have come, and not ahead.
    TimesAreFiredLate = "times-are-fired-late",

    // The course of a life.
    /// A node that is told to stop does not leave the ring.
    LeaveIsNotSaid = "leave-is-not-said",
    /// A node that is told to stop does not wait for its jobs.
    DrainDoesNotWait = "drain-does-not-wait",
    /// Calls that are cut short at the end of a drain are not given back.
    DrainDropsJobs = "drain-drops-jobs",
    /// A node that was declared lost comes back under its old id.
    IdIsKept = "id-is-kept",

    // What the store does.
    /// Whoever says that a job ended is believed.
    EndIgnoresClaim = "end-ignores-claim",
    /// An outage counts against the leases of those who live.
    OutageCountsForLeases = "outage-counts-for-leases",
    /// Jobs of dead nodes are left where they are.
    NobodyIsRescued = "nobody-is-rescued",
    /// What is removed need not have ended.
    PruneTakesWhatRuns = "prune-takes-what-runs",
    /// A time of a schedule is noted as fired, and no job is inserted.
    FiringHasNoJob = "firing-has-no-job",
    /// Jobs of a queue that is paused are claimed.
    PauseIsIgnored = "pause-is-ignored",
    /// As many jobs of a queue are claimed as there are free places on the node, however many of it run.
    ConcurrencyIsIgnored = "concurrency-is-ignored",
    /// A job that goes on elsewhere takes no place of its queue.
    ElsewhereTakesNoPlace = "elsewhere-takes-no-place",
    /// What was claimed of a queue is not counted against its rate.
    RateIsForgotten = "rate-is-forgotten",
    /// However many jobs of a concurrency key run, others of it are claimed.
    KeyIsIgnored = "key-is-ignored",
    /// A target that asks for less is not heard.
    SlowDownIsIgnored = "slow-down-is-ignored",
    /// Whoever knows a job is believed when it says how the job goes on.
    CallbackIgnoresClaim = "callback-ignores-claim",
    /// A heartbeat puts off nothing.
    HeartbeatPutsOffNothing = "heartbeat-puts-off-nothing",
    /// A job that is enqueued with a unique key gets none.
    UniqueKeyIsForgotten = "unique-key-is-forgotten",
}
