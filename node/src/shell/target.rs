//! Decides whether this node's target takes connections: asked at the start and, once it refused, every
//! second until it answers.

use std::time::Duration;

use tokio::sync::mpsc;
use turnwise_engine::Input;

use super::turns::Told;
use crate::caller::Caller;

/// How often a target that is away is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The task that watches the target.
pub(crate) struct TargetTask<K: Caller> {
    pub(crate) caller: K,
    /// A call was refused.
    pub(crate) refused: mpsc::UnboundedReceiver<()>,
    pub(crate) inputs: mpsc::UnboundedSender<Told>,
}

impl<K: Caller> TargetTask<K> {
    pub(crate) async fn run(mut self) {
        let mut reachable = self.caller.reach().await;
        loop {
            if !reachable {
                tracing::warn!(
                    "the target refuses connections; claiming nothing until it accepts one"
                );
                let _ = self.inputs.send(Input::Target { reachable: false }.into());
                loop {
                    tokio::time::sleep(TRY_EVERY).await;
                    if self.inputs.is_closed() {
                        return;
                    }
                    if self.caller.reach().await {
                        break;
                    }
                }
                tracing::info!("the target accepts connections");
                let _ = self.inputs.send(Input::Target { reachable: true }.into());
                while self.refused.try_recv().is_ok() {}
            }
            if self.refused.recv().await.is_none() {
                return;
            }
            reachable = false;
        }
    }
}
