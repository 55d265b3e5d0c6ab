//! The clock leaf: a node's own skewed, drifting clock. Decides nothing that the scenario does not.

use std::time::Duration;

use turnwise_engine::LocalInstant;
use turnwise_node::clock::Clock;

use super::farm::Farm;

/// The clock of a simulated machine.
#[derive(Clone)]
pub struct NodeClock {
    pub(super) farm: Farm,
    pub(super) host: u32,
}

impl NodeClock {
    /// How long it takes, in true time, until the clock shows `until`; none: it does.
    fn rest(&self, until: LocalInstant) -> Option<Duration> {
        let mut world = self.farm.look();
        let now = world.now;
        if world.local(self.host) >= until {
            return None;
        }
        let host = world.host(self.host);
        let mut at = host.clock.when(until, now);
        let late = host.plan.clock.late_wake.0 as f64;
        if late > 0.0 {
            at += (-late * host.chance.ln_uniform()) as u64;
        }
        Some(Duration::from_nanos(at - now))
    }
}

impl Clock for NodeClock {
    fn now(&self) -> LocalInstant {
        self.farm.look().local(self.host)
    }

    fn wall_micros(&self) -> i64 {
        // The wall clock is for show: it shows what the other one does.
        (self.now().as_nanos() / 1_000) as i64
    }

    async fn sleep_until(&self, until: LocalInstant) {
        while let Some(rest) = self.rest(until) {
            tokio::time::sleep(rest).await;
        }
    }

    async fn sleep_nearly_until(&self, until: LocalInstant) {
        self.sleep_until(until).await;
    }

    fn spin_until(&self, _: LocalInstant) {
        // Time stands still while a simulated thread runs.
    }
}
