//! Decides nothing: how a wish to stop reaches the shell. The first asks for an orderly stop, the second
//! for an immediate one.

use tokio::sync::watch;

/// The receiving end of the wish to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<u32>);

/// The sending end.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<u32>);

/// A wish to stop, to be sent and received.
pub fn stop() -> (StopHandle, Stop) {
    let (sender, receiver) = watch::channel(0);
    (StopHandle(sender), Stop(receiver))
}

impl StopHandle {
    /// Ask once more.
    pub fn ask(&self) {
        self.0.send_modify(|asked| *asked += 1);
    }
}

impl Stop {
    /// Wait until a stop was asked for.
    pub async fn requested(&mut self) {
        self.asked(1).await;
    }

    /// Wait until it was asked for a second time.
    pub async fn insisted(&mut self) {
        self.asked(2).await;
    }

    async fn asked(&mut self, times: u32) {
        // Without a handle nobody can ask any more.
        if self.0.wait_for(|asked| *asked >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
