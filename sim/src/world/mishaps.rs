//! Decides nothing: what is to befall the next statement of a node, until it does.

/// Mishaps that wait for their statement. They die with the node's process, as its connections do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mishaps {
    /// The next statement on the turn row is lost on its way.
    pub(crate) lose_request: bool,
    /// The answer to the next statement on the turn row is lost.
    pub(crate) lose_answer: bool,
    /// The answer to the next change of the roster is lost.
    pub(crate) lose_change: bool,
    /// The answer to the next statement on the jobs is lost.
    pub(crate) lose_work: bool,
    /// The database undoes the next statement on the jobs.
    pub(crate) deadlock: bool,
    /// The connection breaks under the next statement on the turn row.
    pub(crate) reset: bool,
    /// The next statement leaves so much later, in nanoseconds.
    pub(crate) stall: u64,
    /// The next statement on the jobs leaves so much later, in nanoseconds.
    pub(crate) stall_work: u64,
    /// The next change of the roster is so much longer on its way, in nanoseconds.
    pub(crate) hold_change: u64,
}
