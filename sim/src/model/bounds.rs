//! Decides what the faults of a path may cost: the protocol's table of bounds.
//!
//! One fault costs what its row of the table says. Several cost the sum of their rows, as for a lone node
//! where no node is left that none of them touches; and something more where one of them hits a node that
//! stands in for another, or that was removed by mistake ("deputy or named successor dies too", "falsely
//! removed node whose remover dies" in the table). How much more is not derived: it is what the costliest paths
//! of the searches in `docs/model.md` needed.

use super::fault::Fault;
use super::watch::Spent;

/// A further fault may cost so much more than its row, where some node is touched by none of them ...
const TOGETHER: u32 = 2;
/// ... and so much where every node is.
const TOGETHER_ALONE: u32 = 4;
/// A node that comes up where nobody is polls in so many slots; or, while those who were there before may still
/// act on what they read, once a version of the ring that was theirs can hold.
const WAITED: u32 = 4;

/// What a path may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Slots without an accepted beat.
    pub missed: u32,
    /// Beats that the fence refused.
    pub doubled: u32,
    /// Slots until the first beat, when a node comes up where nobody is.
    pub waited: u32,
}

/// What `spent` may cost in all.
pub fn allowed(spent: &[Spent]) -> Allowed {
    let members = spent.first().map_or(0, |first| first.live);
    let joined = spent.iter().filter(|spent| spent.fault == Fault::Join).count();
    let nodes = u32::from(members) + joined as u32;
    let several = spent.len() > 1;
    let alone = members <= 1 || several && is_nobody_untouched(spent, members);
    let waited = WAITED.max(u32::from(members) + 3);
    let mut sum = Allowed { waited, ..Allowed::default() };
    for spent in spent {
        sum.waited += missed(spent.fault, true, several);
        sum.missed += missed(spent.fault, alone, several);
        sum.doubled += doubled(spent.fault, nodes, several);
    }
    let more = spent.len().saturating_sub(1) as u32;
    sum.missed += more * if alone { TOGETHER_ALONE } else { TOGETHER };
    sum.doubled += more * TOGETHER;
    sum.waited += more * TOGETHER_ALONE;
    sum
}

/// Whether some fault touches every one of the first `members`: what happens to the server or its clock touches
/// all. Who comes up later is no help.
fn is_nobody_untouched(spent: &[Spent], members: u8) -> bool {
    let touches_all = |fault: Fault| fault.node().is_none() && fault != Fault::Join;
    let touches = |fault: Fault, node: u8| touches_all(fault) || fault.node() == Some(node);
    (0..members).all(|node| spent.iter().any(|spent| touches(spent.fault, node)))
}

/// The slots that `fault` may cost, to a lone node or to a ring, as the only one or one of several.
fn missed(fault: Fault, alone: bool, several: bool) -> u32 {
    match fault {
        Fault::Join | Fault::Leave { .. } | Fault::Restart => 0,
        Fault::Break { .. } | Fault::LateAnswer { .. } | Fault::LoseAnswer { .. } => {
            u32::from(alone)
        }
        Fault::Crash { .. } => u32::from(!alone || several),
        Fault::LoseRequest { .. } | Fault::Late { .. } => 1 + u32::from(alone),
        Fault::Pause { millis, .. } | Fault::Sleep { millis, .. } => match alone {
            true => millis.div_ceil(1_000) + 1,
            false => 1,
        },
        Fault::Outage { millis, .. } => {
            // After four failures a read is given more time than usual: the outage may end in it.
            millis.div_ceil(1_000) + 2 + u32::from(millis >= 4_000)
        }
        // Where a slot was missed just before, the clock is not so far behind the slots as it was set.
        Fault::Step { millis } => {
            2 * u32::from((-2_000..0).contains(&millis) || several && millis < 0)
        }
        Fault::Failover { .. } => 1,
    }
}

/// The beats of `nodes` that the fence may refuse on account of `fault`.
fn doubled(fault: Fault, nodes: u32, several: bool) -> u32 {
    match fault {
        Fault::Join | Fault::Leave { .. } | Fault::Crash { .. } => 0,
        Fault::LoseAnswer { .. } | Fault::LateAnswer { .. } | Fault::Outage { .. } => 0,
        Fault::Pause { .. } => 0,
        Fault::LoseRequest { .. } | Fault::Late { .. } | Fault::Sleep { .. } => 1,
        Fault::Break { .. } | Fault::Restart => 1,
        Fault::Step { millis } => match millis {
            0.. => nodes.max(3),
            // Far back only if every sender says what slot it takes it to be: a newcomer cannot.
            ..-2_000 if !several => 0,
            _ => nodes,
        },
        Fault::Failover { .. } => nodes,
    }
}
