//! Decides nothing: what can go wrong in a farm that is searched, and what it is called.

use std::fmt;

/// A kind of fault; a search is told which kinds it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A new node comes up.
    Join,
    /// A node leaves in good order.
    Leave,
    /// A node's process is killed; what it has in flight arrives all the same, or does not.
    Crash,
    /// A statement is lost on its way to the server.
    LoseRequest,
    /// The answer to a statement is lost.
    LoseAnswer,
    /// A statement is held up on its way to the server: a late beat, a delayed compare-and-set.
    Late,
    /// An answer is held up on its way back.
    LateAnswer,
    /// A connection breaks, and its node notices at once; the statement on it was executed, or was not.
    Break,
    /// A node stands still while its clock runs.
    Pause,
    /// A node stands still, and its clock with it.
    Sleep,
    /// The server's clock is set.
    Step,
    /// The server answers nothing for a while.
    Outage,
    /// The server comes back under another identity; every connection breaks.
    Restart,
    /// Another server takes over, and lacks the last statements that the first one executed.
    Failover,
}

impl Kind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Join,
        Self::Leave,
        Self::Crash,
        Self::LoseRequest,
        Self::LoseAnswer,
        Self::Late,
        Self::LateAnswer,
        Self::Break,
        Self::Pause,
        Self::Sleep,
        Self::Step,
        Self::Outage,
        Self::Restart,
        Self::Failover,
    ];

    /// All that the protocol promises bounds for: all but a failover that loses statements.
    pub fn promised() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|kind| *kind != Self::Failover).collect()
    }

    /// A word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Crash => "crash",
            Self::LoseRequest => "lost request",
            Self::LoseAnswer => "lost answer",
            Self::Late => "late statement",
            Self::LateAnswer => "late answer",
            Self::Break => "broken connection",
            Self::Pause => "pause",
            Self::Sleep => "sleep",
            Self::Step => "step",
            Self::Outage => "outage",
            Self::Restart => "restart",
            Self::Failover => "failover",
        }
    }
}

/// A fault. Nodes are numbered from 0 in the order in which they came up; times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "the variants are described by their kinds, the fields by their names"
)]
pub enum Fault {
    Join,
    Leave { node: u8 },
    Crash { node: u8, request_lost: bool },
    LoseRequest { node: u8 },
    LoseAnswer { node: u8 },
    Late { node: u8, millis: u32 },
    LateAnswer { node: u8, millis: u32 },
    Break { node: u8, executed: bool },
    Pause { node: u8, millis: u32, timer_first: bool },
    Sleep { node: u8, millis: u32 },
    Step { millis: i32 },
    Outage { millis: u32, refuses: bool },
    Restart,
    Failover { statements: u8 },
}

impl Fault {
    /// Of what kind it is.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Join => Kind::Join,
            Self::Leave { .. } => Kind::Leave,
            Self::Crash { .. } => Kind::Crash,
            Self::LoseRequest { .. } => Kind::LoseRequest,
            Self::LoseAnswer { .. } => Kind::LoseAnswer,
            Self::Late { .. } => Kind::Late,
            Self::LateAnswer { .. } => Kind::LateAnswer,
            Self::Break { .. } => Kind::Break,
            Self::Pause { .. } => Kind::Pause,
            Self::Sleep { .. } => Kind::Sleep,
            Self::Step { .. } => Kind::Step,
            Self::Outage { .. } => Kind::Outage,
            Self::Restart => Kind::Restart,
            Self::Failover { .. } => Kind::Failover,
        }
    }

    /// The node that it happens to, if it is one node's.
    pub const fn node(self) -> Option<u8> {
        match self {
            Self::Leave { node }
            | Self::Crash { node, .. }
            | Self::LoseRequest { node }
            | Self::LoseAnswer { node }
            | Self::Late { node, .. }
            | Self::LateAnswer { node, .. }
            | Self::Break { node, .. }
            | Self::Pause { node, .. }
            | Self::Sleep { node, .. } => Some(node),
            Self::Join | Self::Step { .. } | Self::Outage { .. } => None,
            Self::Restart | Self::Failover { .. } => None,
        }
    }

    /// Whether it sets the server's clock, or a node's.
    pub const fn sets_a_clock(self) -> bool {
        matches!(self, Self::Step { .. } | Self::Sleep { .. })
    }

    /// How long it lasts, in milliseconds.
    pub const fn lasts(self) -> u32 {
        match self {
            // What was held up also misleads its node about the way, by as much, until the next exchange.
            Self::Late { millis, .. } | Self::LateAnswer { millis, .. } => 2 * millis,
            Self::Pause { millis, .. }
            | Self::Sleep { millis, .. }
            | Self::Outage { millis, .. } => millis,
            _ => 0,
        }
    }
}

/// The name of a node: a letter.
pub(super) fn name(node: u8) -> char {
    char::from(b'A' + node % 26)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Join => write!(f, "a node comes up"),
            Self::Leave { node } => write!(f, "{} is told to leave", name(node)),
            Self::Crash { node, request_lost: false } => write!(f, "{} crashes", name(node)),
            Self::Crash { node, request_lost: true } => {
                write!(f, "{} crashes and its request is lost", name(node))
            }
            Self::LoseRequest { node } => write!(f, "the request of {} is lost", name(node)),
            Self::LoseAnswer { node } => write!(f, "the answer to {} is lost", name(node)),
            Self::Late { node, millis } => {
                write!(f, "the request of {} is held up by {millis} ms", name(node))
            }
            Self::LateAnswer { node, millis } => {
                write!(f, "the answer to {} is held up by {millis} ms", name(node))
            }
            Self::Break { node, executed: false } => {
                write!(f, "the connection of {} breaks before its statement arrives", name(node))
            }
            Self::Break { node, executed: true } => {
                write!(f, "the connection of {} breaks after its statement", name(node))
            }
            Self::Pause { node, millis, timer_first } => {
                let order = if timer_first { ", its timer is served first" } else { "" };
                write!(f, "{} stands still for {millis} ms{order}", name(node))
            }
            Self::Sleep { node, millis } => {
                write!(f, "{} stands still for {millis} ms, and its clock too", name(node))
            }
            Self::Step { millis } => write!(f, "the server's clock is set by {millis} ms"),
            Self::Outage { millis, refuses: false } => {
                write!(f, "the server answers nothing for {millis} ms")
            }
            Self::Outage { millis, refuses: true } => {
                write!(f, "the server refuses connections for {millis} ms")
            }
            Self::Restart => write!(f, "the server comes back under another identity"),
            Self::Failover { statements } => {
                write!(f, "another server takes over and lacks the last {statements} statements")
            }
        }
    }
}
