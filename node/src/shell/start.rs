//! Decides how a node comes up: it waits for its database, brings the schema up to date, agrees on the
//! period and announces itself.

use std::time::Duration;

use rand_core::Rng;
use turnwise_engine::{NodeId, Period};
use uuid::Builder;

use super::patience::Patience;
use super::stop::Stop;
use crate::callback::Callbacks;
use crate::store::{Registration, Store, StoreError};

/// The first wait for a database that is away; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(250);
/// The longest wait between tries.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long most tries may take. What is lost on the way may be lost for good: so they are soon given up, and only some
/// may take longer, up to [`TRY_TIMEOUT_MAX`] ([`Patience`]), for a schema that takes long to make.
const TRY_TIMEOUT_MIN: Duration = Duration::from_secs(4);
/// The longest that one try may take.
const TRY_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// How a node comes up.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) capacity: u32,
    pub(crate) period: Option<Period>,
    pub(crate) migrate: bool,
    /// Give up at the first failure in place of waiting.
    pub(crate) fail_fast: bool,
    /// How jobs that go on elsewhere are heard of.
    pub(crate) callbacks: Option<Callbacks>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Started {
    /// The node is registered under this id, and the secret of callbacks is known.
    As(NodeId),
    /// Somebody asked it to stop before it was up.
    Stopped,
}

impl Start {
    /// Come up, under a new id. Waits while the database is away; what waiting cannot mend is an error.
    pub(crate) async fn start<S: Store>(
        &self,
        store: &S,
        random: &mut impl Rng,
        stop: &mut Stop,
    ) -> Result<Started, StoreError> {
        let mut wait = WAIT_MIN;
        let mut patience = Patience::new(TRY_TIMEOUT_MIN, TRY_TIMEOUT_MAX);
        let mut tries = 0_u32;
        loop {
            let attempt = self.attempt(store, new_id(random));
            let attempt = tokio::time::timeout(patience.now(), attempt);
            let error = tokio::select! {
                biased;
                () = stop.requested() => return Ok(Started::Stopped),
                result = attempt => match result {
                    Ok(Ok(id)) => return Ok(Started::As(id)),
                    Ok(Err(error)) if self.fail_fast || !error.is_transient() => return Err(error),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => {
                        // That was waiting enough.
                        patience.spent();
                        wait = WAIT_MIN;
                        "the database did not answer in time".to_owned()
                    }
                },
            };
            tries += 1;
            if tries.is_power_of_two() {
                tracing::warn!(tries, "waiting for the database: {error}");
            }
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(Started::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    async fn attempt<S: Store>(&self, store: &S, id: NodeId) -> Result<NodeId, StoreError> {
        if self.migrate {
            for name in store.migrate().await? {
                tracing::info!(name, "applied a migration");
            }
        }
        store.check_schema().await?;
        let period = store.agree_period(self.period).await?;
        if let Some(callbacks) = &self.callbacks {
            callbacks.secret.look_up(store).await?;
        }
        let (name, capacity) = (self.name.clone(), self.capacity);
        store.register(&Registration { id, name, capacity }).await?;
        tracing::info!(node = %id, name = self.name, %period, capacity, "registered");
        Ok(id)
    }
}

/// A new id for a node: a UUID of version 4.
fn new_id(random: &mut impl Rng) -> NodeId {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    NodeId::new(Builder::from_random_bytes(bytes).into_uuid())
}
