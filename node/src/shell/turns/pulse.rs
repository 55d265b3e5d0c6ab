//! Decides what others may know of the engine: this process by its pulse, the farm by the report that goes along with a
//! statement.

use std::time::Duration;

use turnwise_engine::Status;

use super::super::life::Stage;
use super::TurnsTask;
use crate::clock::Clock;
use crate::store::{NodeReport, Store};

/// What everybody may know of the engine, as of its last input.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// Server time minus local time, in nanoseconds; none before the first exchange.
    pub offset: Option<i64>,
    /// The node is in the newest ring.
    pub in_ring: bool,
    /// The node is out of the ring for good.
    pub left: bool,
    /// Jobs held.
    pub held: u32,
    /// No claim is on its way or lost: `held` is all that this node has.
    pub settled: bool,
    /// How long a node may need to leave: the round of the longest ring, and the two slots that a change takes.
    pub round: Duration,
    /// Somebody asked the node to drain, by its row in the table.
    pub drain_asked: bool,
    /// Why the last statement on the turn row failed; none when it was answered.
    pub trouble: Option<String>,
}

impl<C: Clock, S: Store, T: Stage> TurnsTask<C, S, T> {
    pub(super) fn report(&self) -> NodeReport {
        let now = self.clock.now();
        let status = self.engine.status(now);
        let micros = |nanos: i64| nanos.div_euclid(1_000);
        let wall = self.clock.wall_micros();
        NodeReport {
            offset_us: status.offset.map(|offset| {
                micros(offset.nanos.saturating_add(now.as_nanos() as i64)).saturating_sub(wall)
            }),
            offset_error_us: status.offset.map(|offset| micros(offset.error) + 1),
            transit_us: status.way_there.map(micros),
            running: status.held,
        }
    }

    fn round(&self) -> Duration {
        let Some(row) = self.engine.row() else { return Duration::ZERO };
        let rings = row.roster.versions.iter().map(|version| version.ring.len());
        let slots = u32::try_from(rings.max().unwrap_or(0) + 2).unwrap_or(u32::MAX);
        row.cadence.period.as_duration().saturating_mul(slots)
    }

    pub(super) fn publish(&self) {
        let Status { offset, rank, left, held, settled, .. } = self.engine.status(self.clock.now());
        self.channels.pulse.send_replace(Pulse {
            offset: offset.map(|offset| offset.nanos),
            in_ring: rank.is_some(),
            left,
            held,
            settled,
            round: self.round(),
            drain_asked: self.drain_asked,
            trouble: self.trouble.clone(),
        });
    }
}
