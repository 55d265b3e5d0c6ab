//! Two real PostgreSQL servers, one of which follows the other by streaming replication, until it takes over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::postgres::Cluster;

/// How long the standby may take to catch up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the standby is called to its primary.
const STANDBY: &str = "standby";

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// When the standby has it too: a failover loses nothing that was acknowledged.
    Synchronous,
    /// When the primary has it.
    Asynchronous,
}

/// Two servers. Each has its port for good, whichever of them is the primary.
pub struct Replicated {
    servers: [Cluster; 2],
    primary: AtomicUsize,
    replication: Replication,
}

impl Replicated {
    /// A new primary, as [`Cluster::start`] makes it, and a standby that has caught up with it.
    pub fn start(replication: Replication) -> Self {
        let servers = [Cluster::start(), Cluster::without_data(&[])];
        let pair = Self { servers, primary: AtomicUsize::new(0), replication };
        pair.rebuild_standby();
        pair
    }

    /// Both servers, in an order that never changes.
    pub fn servers(&self) -> &[Cluster; 2] {
        &self.servers
    }

    /// The one that takes writes.
    pub fn primary(&self) -> &Cluster {
        &self.servers[self.primary.load(Ordering::Relaxed)]
    }

    /// The other one.
    pub fn standby(&self) -> &Cluster {
        &self.servers[1 - self.primary.load(Ordering::Relaxed)]
    }

    /// The primary is killed, as by a power cut, and the standby takes over. The old primary stays down; restarted as it
    /// is ([`Cluster::restart`]), it would take writes beside the new one.
    pub fn fail_over(&self) {
        self.primary().kill9();
        self.promote();
    }

    /// The standby takes over, whatever the primary does.
    pub fn promote(&self) {
        self.standby().promote();
        self.primary.fetch_xor(1, Ordering::Relaxed);
    }

    /// The server that is not the primary becomes a standby with a fresh copy of the data, and catches up.
    pub fn rebuild_standby(&self) {
        let (primary, standby) = (self.primary(), self.standby());
        // A copy is not to inherit for whom its primary waits: there will be nobody when it takes over.
        self.wait_for("");
        standby.follow(primary, STANDBY);
        let streams = format!(
            "SELECT count(*) FROM pg_stat_replication
             WHERE application_name = '{STANDBY}' AND state = 'streaming'"
        );
        until("the standby streams", || primary.psql(&streams) == "1");
        if self.replication == Replication::Synchronous {
            self.wait_for(STANDBY);
            let waits = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            until("the primary waits for the standby", || primary.psql(waits) == "1");
        }
    }

    /// From now on the standby hears nothing of the primary: what is committed then, it lacks.
    pub fn cut_replication(&self) {
        let standby = self.standby();
        standby.psql("ALTER SYSTEM SET primary_conninfo = ''");
        standby.psql("SELECT pg_reload_conf()");
        let streams = "SELECT count(*) FROM pg_stat_replication";
        until("the standby is cut off", || self.primary().psql(streams) == "0");
    }

    fn wait_for(&self, standby: &str) {
        let primary = self.primary();
        primary.psql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"));
        primary.psql("SELECT pg_reload_conf()");
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}
