//! What a job does: one POST to the target with keep-alive, or nothing but be counted.

use crate::{Count, Failure, Order};

/// The work of a job; clones share connections and count.
#[derive(Clone, Debug)]
pub enum Work {
    /// Call the target.
    Call {
        /// Keeps connections alive, as many as there are calls at once.
        client: reqwest::Client,
        /// The target's origin.
        target: String,
    },
    /// Do nothing.
    Nothing(Count),
}

impl Work {
    /// The work that was ordered.
    pub fn ordered(order: &Order) -> Self {
        match &order.target {
            Some(target) => Self::Call { client: reqwest::Client::new(), target: target.clone() },
            None => Self::Nothing(Count::reported(order.jobs)),
        }
    }

    /// Do the work of this job.
    ///
    /// # Errors
    ///
    /// When the target does not answer, or with another status than 2xx.
    pub async fn run(&self, job: usize) -> Result<(), Failure> {
        match self {
            Self::Call { client, target } => {
                let answer =
                    client.post(format!("{target}/jobs/{job}")).send().await?.error_for_status()?;
                answer.bytes().await?;
            }
            Self::Nothing(count) => count.done(job),
        }
        Ok(())
    }
}
