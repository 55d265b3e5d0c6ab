//! Decides nothing: the places where a simulation may plant a bug, to see whether its invariants find it.
//!
//! Each type of the engine carries a [`Sabotage`] as a type parameter of no size. The product's is
//! [`Sound`], for which [`Sabotage::plants`] is a constant `false`, so that the compiler removes every one of
//! these places; a simulator brings its own. A type parameter, and not a feature of the package: features
//! are united over a workspace, and a simulator's build would plant bugs in the product.

use core::fmt::Debug;
use core::hash::Hash;

/// Whether a bug is planted.
pub trait Sabotage: Copy + Debug + PartialEq + Eq + Hash + 'static {
    /// Whether `bug` is planted.
    fn plants(bug: Bug) -> bool;
}

/// No bug is planted: the engine of the product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sound;

impl Sabotage for Sound {
    #[inline(always)]
    fn plants(_: Bug) -> bool {
        false
    }
}

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// A bug that can be planted: one rule of the engine or of the turn row, broken.
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
    // The clock.
    /// A beat is aimed by the offset and half a round trip, so that an uneven road makes it early or late.
    AimByHalfRoundTrip = "aim-by-half-round-trip",
    /// A beat is sent when its boundary comes, and not earlier by the way there.
    AimWithoutTransit = "aim-without-transit",
    /// The interval of the offset is not widened by what the clocks may have drifted.
    IntervalDoesNotWiden = "interval-does-not-widen",
    /// The resolution of the server's stamps is taken to be nothing.
    IntervalIgnoresResolution = "interval-ignores-resolution",
    /// An exchange that contradicts the interval is taken for a mistake, and the interval kept.
    StepIsIgnored = "step-is-ignored",
    /// The rate of the clock is followed in the wrong direction.
    RateIsReversed = "rate-is-reversed",
    /// The clock of the old server is believed of the new one.
    ClockOutlivesServer = "clock-outlives-server",

    // The ring.
    /// A turn is taken however long ago the row was read.
    LicenceNeverEnds = "licence-never-ends",
    /// A licence ends two slots later than it may.
    LicenceEndsLate = "licence-ends-late",
    /// A statement without an answer is not followed by a read: the turn after next is taken on an old view.
    FailureKeepsLicence = "failure-keeps-licence",
    /// A turn that passed is not followed by a read.
    SkippedTurnKeepsLicence = "skipped-turn-keeps-licence",
    /// Nobody is ever suspected.
    NobodyIsSuspected = "nobody-is-suspected",
    /// Owners are suspected after a silence of a whole round too.
    OutageIsSuspicious = "outage-is-suspicious",
    /// Whoever owned a slot of the last round is suspected, though it has read the row since.
    ReadersAreSuspected = "readers-are-suspected",
    /// Only the owner of the slot just before is looked at.
    OnlyTheLastIsSuspected = "only-the-last-is-suspected",
    /// A node that was removed by mistake does not come back.
    RemovedStaysOut = "removed-stays-out",
    /// A node that finds nobody alive waits for them for ever.
    NobodyTakesOver = "nobody-takes-over",
    /// A version takes effect before everyone can have heard of it.
    VersionHoldsEarly = "version-holds-early",
    /// The ring of a new version starts where the old list did, wherever the turn is.
    RingIsNotTurned = "ring-is-not-turned",
    /// Versions are forgotten as soon as the next is published.
    VersionsAreForgotten = "versions-are-forgotten",
    /// The deputy of a dead node begins a round late.
    DeputyBeginsLate = "deputy-begins-late",
    /// A dead node has no deputy.
    RemovalNamesNoDeputy = "removal-names-no-deputy",
    /// A leaving node has no deputy.
    LeaverNamesNoDeputy = "leaver-names-no-deputy",
    /// A leaving node names the first of the next version.
    LeaverNamesWrongDeputy = "leaver-names-wrong-deputy",
    /// A leaving node goes on taking turns while it waits for the answer.
    LeaverKeepsLicence = "leaver-keeps-licence",
    /// A leaving node is gone before its leave has committed.
    LeaverGoesUnheard = "leaver-goes-unheard",

    // The fence: what a statement does to the turn row.
    /// A slot may have a second beat.
    FenceLetsSecondIn = "fence-lets-second-in",
    /// Slot numbers follow the server's clock back.
    SlotsGoBack = "slots-go-back",
    /// A change commits on an old epoch.
    ChangeIgnoresEpoch = "change-ignores-epoch",
    /// A change commits after the slot that it was computed with.
    ChangeIgnoresSlot = "change-ignores-slot",
    /// A removal commits though its victim has read the row since.
    RemovalIgnoresReads = "removal-ignores-reads",
    /// A takeover commits though others may still act.
    TakeoverIgnoresOthers = "takeover-ignores-others",
    /// A read is noted as a licence for no longer than its own slot.
    MarksEndEarly = "marks-end-early",

    // Leases and claims.
    /// The lease is never renewed.
    LeaseIsNotRenewed = "lease-is-not-renewed",
    /// The lease is renewed when it has already ended.
    LeaseIsRenewedLate = "lease-is-renewed-late",
    /// A claim whose answer was lost is forgotten.
    LostClaimIsForgotten = "lost-claim-is-forgotten",
    /// A claim whose answer was lost is taken for one that took nothing.
    RecoveredJobsAreNotCounted = "recovered-jobs-are-not-counted",
    /// Another server's history is taken for the old one's.
    HistoryIsTrusted = "history-is-trusted",
    /// The same token is used for every claim.
    TokenIsReused = "token-is-reused",
    /// A node claims as if it held nothing.
    ClaimsWhenFull = "claims-when-full",
    /// A node claims while its target is away.
    ClaimsWithoutTarget = "claims-without-target",
    /// A node claims while it leaves.
    ClaimsWhileLeaving = "claims-while-leaving",
    /// A node that was declared lost goes on.
    LossIsIgnored = "loss-is-ignored",
    /// A claim that brought all that it asked for is taken for the last that is needed.
    BacklogIsForgotten = "backlog-is-forgotten",
    /// An answer that brought fewer and says that there are more is taken for one that brought all.
    MoreIsIgnored = "more-is-ignored",
    /// A queue that gives out its next job later is not asked before the next turn.
    RateIsNotAwaited = "rate-is-not-awaited",
    /// A job that ends makes room in its queue, and nobody asks who may have it.
    RoomIsNotAskedFor = "room-is-not-asked-for",
    /// The answer to a claim takes back that there is more, which another answer has told of since it was sent.
    OlderAnswerTakesBack = "older-answer-takes-back",
    /// A node takes all its claims for answered, and goes.
    ClaimsAreNotAwaited = "claims-are-not-awaited",
    /// A refused beat claims jobs all the same.
    RefusedBeatClaims = "refused-beat-claims",

    // Timers.
    /// A statement is waited for for ever.
    PatienceIsEndless = "patience-is-endless",
    /// A statement is given up before it can be answered.
    PatienceIsShort = "patience-is-short",
    /// A deadline that has passed stays armed.
    DeadlineIsRearmed = "deadline-is-rearmed",
    /// Reads that fail are repeated at once.
    ReadsAreNotSpaced = "reads-are-not-spaced",
    /// Work that fails is repeated at once.
    WorkIsNotSpaced = "work-is-not-spaced",
    /// A beat is sent however late it is.
    BeatsAreSentLate = "beats-are-sent-late",

    // Accounting.
    /// Ended jobs are counted twice.
    EndsCountTwice = "ends-count-twice",
    /// Ended jobs are not counted.
    EndsDoNotCount = "ends-do-not-count",
    /// A claim is counted for what it asked for, not for what it got.
    ClaimsCountAsAsked = "claims-count-as-asked",
    /// The arrival error is noted with the wrong sign.
    ArrivalErrorIsReversed = "arrival-error-is-reversed",
    /// A turn that was not taken is not noted.
    SkippedTurnsAreNotNoted = "skipped-turns-are-not-noted",
}
