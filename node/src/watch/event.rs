//! What can happen in a farm: as JSON for programs, in words for people. Decides nothing about when it happened.

use serde::Serialize;
use turnwise_engine::{NodeId, Slot};

/// Something that happened, as of a look at the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The server's clock at the look (RFC 3339); none when the database did not answer.
    pub at: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A node, by its id and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name; the beginning of its id when nobody knows its name any more.
    pub name: String,
}

/// Whose beat it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum By {
    /// The owner's, by the ring.
    Owner,
    /// A deputy's.
    Deputy {
        /// Whose turn it would have been.
        of: Member,
    },
    /// The ring of that slot is forgotten.
    Unknown,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A slot had its beat.
    Beat {
        /// The slot.
        slot: Slot,
        /// Who beat.
        #[serde(flatten)]
        who: Member,
        /// When it arrived (RFC 3339).
        arrived_at: String,
        /// How long after the boundary of its slot, in microseconds; negative: before. None when the boundary is
        /// not known any more.
        late_us: Option<i64>,
        /// Jobs that it claimed.
        claimed: u32,
        /// Whose turn it was.
        #[serde(flatten)]
        by: By,
    },
    /// A slot passed without a beat.
    Missed {
        /// The slot.
        slot: Slot,
        /// Whose it was; none when nobody knows any more.
        owner: Option<Member>,
    },
    /// Many slots passed without a beat: an outage, or a clock that was set forward.
    Gap {
        /// The first of them.
        from: Slot,
        /// How many.
        slots: i64,
    },
    /// The ring is another one.
    Ring {
        /// The number of the roster's content.
        epoch: i64,
        /// The slot from which it holds.
        from: Slot,
        /// The nodes in the order of their turns.
        ring: Vec<Member>,
        /// Who came into it.
        joined: Vec<Member>,
        /// Who went in good order.
        left: Vec<Member>,
        /// Who was taken out of it by the others.
        removed: Vec<Member>,
    },
    /// A node announced itself.
    Came {
        /// Which.
        #[serde(flatten)]
        who: Member,
        /// A node of this name was here before, in another life.
        again: bool,
    },
    /// A node has not been heard of for longer than its lease.
    Silent {
        /// Which.
        #[serde(flatten)]
        who: Member,
    },
    /// A node that was silent is heard of again.
    Returned {
        /// Which.
        #[serde(flatten)]
        who: Member,
    },
    /// A node was declared lost: its jobs run again elsewhere.
    Died {
        /// Which.
        #[serde(flatten)]
        who: Member,
    },
    /// A node left for good.
    Left {
        /// Which.
        #[serde(flatten)]
        who: Member,
    },
    /// The server's clock was set.
    ClockStepped {
        /// By how much, in microseconds; negative: back.
        by_us: i64,
    },
    /// The period changes.
    Period {
        /// The new one, in milliseconds.
        period_ms: u32,
        /// The first slot that it holds for.
        from: Slot,
    },
    /// Beats were refused by the fence: their slots had one.
    Refused {
        /// How many.
        beats: i64,
    },
    /// Ends of jobs came too late and changed nothing.
    StaleEnds {
        /// How many.
        ends: i64,
    },
    /// The database does not answer.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The database answers again.
    Answers,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It happens every second.
    Routine,
    /// Worth a line.
    News,
    /// Worth a look.
    Trouble,
}

impl What {
    /// How much it matters.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Beat { by: By::Deputy { .. }, .. } => Weight::News,
            Self::Beat { .. } => Weight::Routine,
            Self::Ring { removed, .. } if !removed.is_empty() => Weight::Trouble,
            Self::Ring { .. }
            | Self::Came { .. }
            | Self::Returned { .. }
            | Self::Left { .. }
            | Self::Period { .. }
            | Self::Answers => Weight::News,
            Self::Missed { .. }
            | Self::Gap { .. }
            | Self::Silent { .. }
            | Self::Died { .. }
            | Self::ClockStepped { .. }
            | Self::Refused { .. }
            | Self::StaleEnds { .. }
            | Self::Unreachable { .. } => Weight::Trouble,
        }
    }

    /// It in a sentence without its full stop. Names stand in it as they are: whoever shows it makes them safe.
    pub fn words(&self) -> String {
        match self {
            Self::Beat { slot, who, late_us, claimed, by, .. } => {
                let late = late_us.map_or(String::new(), |late| format!(", {}", lateness(late)));
                let claimed = match claimed {
                    0 => "empty".to_owned(),
                    n => format!("claimed {n}"),
                };
                let by = match by {
                    By::Deputy { of } => format!(" for {}", of.name),
                    By::Owner | By::Unknown => String::new(),
                };
                format!("{} beat{by} in slot {slot}: {claimed}{late}", who.name)
            }
            Self::Missed { slot, owner: Some(owner) } => {
                format!("slot {slot} was missed: it was {}'s", owner.name)
            }
            Self::Missed { slot, owner: None } => format!("slot {slot} was missed"),
            Self::Gap { from, slots } => {
                format!(
                    "{slots} slots from {from} on had no beat: an outage, or a clock set forward"
                )
            }
            Self::Ring { from, ring, joined, left, removed, .. } => {
                ring_words(*from, ring, joined, left, removed)
            }
            Self::Came { who, again: false } => format!("{} came up", who.name),
            Self::Came { who, again: true } => format!("{} came up again", who.name),
            Self::Silent { who } => format!("{} is silent: its lease is over", who.name),
            Self::Returned { who } => format!("{} is heard of again", who.name),
            Self::Died { who } => {
                format!("{} was declared lost: its jobs run again elsewhere", who.name)
            }
            Self::Left { who } => format!("{} left in good order", who.name),
            Self::ClockStepped { by_us } => {
                let way = if *by_us < 0 { "back" } else { "forward" };
                format!("the server's clock was set {way} by {}", millis(by_us.saturating_abs()))
            }
            Self::Period { period_ms, from } => {
                format!("the period is {period_ms} ms from slot {from} on")
            }
            Self::Refused { beats: 1 } => "a beat was refused: its slot had one".to_owned(),
            Self::Refused { beats } => format!("{beats} beats were refused: their slots had one"),
            Self::StaleEnds { ends } => {
                format!("{ends} ended too late: the jobs were no longer their nodes'")
            }
            Self::Unreachable { reason } => format!("the database does not answer: {reason}"),
            Self::Answers => "the database answers again".to_owned(),
        }
    }
}

fn ring_words(
    from: Slot,
    ring: &[Member],
    joined: &[Member],
    left: &[Member],
    removed: &[Member],
) -> String {
    let mut parts = Vec::new();
    for (who, what) in [(joined, "joins"), (left, "leaves"), (removed, "is taken out")] {
        if !who.is_empty() {
            parts.push(format!("{} {what}", names(who, " and ")));
        }
    }
    let order = if ring.is_empty() { "nobody".to_owned() } else { names(ring, ", ") };
    match parts.is_empty() {
        true => format!("the ring is {order}"),
        false => format!("{}: from slot {from} on the ring is {order}", parts.join(", ")),
    }
}

fn names(members: &[Member], joint: &str) -> String {
    const NAMED_MAX: usize = 12;
    let mut names: Vec<&str> =
        members.iter().take(NAMED_MAX).map(|member| member.name.as_str()).collect();
    if members.len() > NAMED_MAX {
        names.push("…");
    }
    names.join(joint)
}

/// `0.21 ms late`, `1.40 ms early`.
fn lateness(late_us: i64) -> String {
    let way = if late_us < 0 { "early" } else { "late" };
    format!("{} {way}", millis(late_us.saturating_abs()))
}

/// Microseconds as milliseconds with two places, or as seconds when there are many.
fn millis(us: i64) -> String {
    match us {
        ..10_000_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u128, name: &str) -> Member {
        Member { node: NodeId::from_u128(number), name: name.to_owned() }
    }

    #[test]
    fn events_are_one_flat_object() {
        let what = What::Beat {
            slot: Slot(7),
            who: member(1, "a"),
            arrived_at: "t".to_owned(),
            late_us: Some(-40),
            claimed: 2,
            by: By::Deputy { of: member(2, "b") },
        };
        let event = Event { at: None, what };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], "beat");
        assert_eq!(
            (&json["slot"], &json["name"], &json["by"]),
            (&7.into(), &"a".into(), &"deputy".into())
        );
        assert_eq!(json["of"]["name"], "b");
        assert_eq!(event.what.words(), "a beat for b in slot 7: claimed 2, 0.04 ms early");
    }

    #[test]
    fn a_ring_is_told_by_what_changed() {
        let ring = What::Ring {
            epoch: 3,
            from: Slot(9),
            ring: vec![member(1, "a"), member(2, "b")],
            joined: vec![],
            left: vec![],
            removed: vec![member(3, "c")],
        };
        assert_eq!(ring.words(), "c is taken out: from slot 9 on the ring is a, b");
        assert_eq!(ring.weight(), Weight::Trouble);
    }

    #[test]
    fn long_and_short_times_are_readable() {
        assert_eq!(millis(1_234), "1.23 ms");
        assert_eq!(millis(3_600_000_000), "3600.0 s");
        assert_eq!(
            What::ClockStepped { by_us: -2_000_000 }.words(),
            "the server's clock was set back by 2000.00 ms"
        );
    }
}
