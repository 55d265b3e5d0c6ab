//! Decides nothing: how a wish to stop reaches the shell. The first asks for an orderly stop, the second
//! for an immediate one. What the table asks for is an orderly stop and never counts as the second.

use tokio::sync::watch;

/// The receiving end of the wish to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: watch::Receiver<u32>,
    /// The table asked for it.
    by_table: bool,
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<u32>);

/// A wish to stop, to be sent and received.
pub fn stop() -> (StopHandle, Stop) {
    let (sender, receiver) = watch::channel(0);
    (StopHandle(sender), Stop { asked: receiver, by_table: false })
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
        if !self.by_table {
            self.asked(1).await;
        }
    }

    /// The table asks for a stop: it is requested from now on, in this life of the node and in any further one.
    pub(crate) fn request_by_table(&mut self) {
        self.by_table = true;
    }

    /// Wait until it was asked for a second time.
    pub async fn insisted(&mut self) {
        self.asked(2).await;
    }

    async fn asked(&mut self, times: u32) {
        // Without a handle nobody can ask any more.
        if self.asked.wait_for(|asked| *asked >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_the_table_asks_for_is_no_signal() {
        let (handle, mut stop) = stop();
        assert!(stop.requested().now_or_never().is_none());
        stop.request_by_table();
        stop.requested().await;
        handle.ask();
        assert!(stop.insisted().now_or_never().is_none(), "the first signal cuts nothing short");
        handle.ask();
        stop.insisted().await;
    }
}
