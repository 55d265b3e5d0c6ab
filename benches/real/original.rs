//! The design that this one began from, as the yardstick, on a real server: a timer of 10 ms, the server's time from one
//! sample (its stamp and half the round trip), and the slot modulo the number of machines. When the timer finds that the
//! slot is another and its own, it polls. Decides nothing else: nobody joins, dies or runs jobs here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use turnwise_engine::{NodeId, Period, TurnKind, TurnStatement};
use turnwise_node::clock::{BootClock, Clock};
use turnwise_node::store::{AnyStore, NodeReport, Queues, Store, TurnRequest, Turns};

/// The timer.
const TICK: Duration = Duration::from_millis(10);

/// A farm of such machines. Stopped with this value.
pub struct Originals {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    errors: Arc<Mutex<Vec<i64>>>,
}

impl Originals {
    /// `count` machines on the empty database at `url`, with this period.
    pub fn start(url: &str, count: u32, period: Period) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = AnyStore::connect(url, 1).unwrap();
            store.migrate().await.unwrap();
            store.agree_period(Some(period)).await.unwrap();
        });
        let is_over = Arc::<AtomicBool>::default();
        let errors = Arc::<Mutex<Vec<i64>>>::default();
        let threads = (0..count).map(|rank| {
            let (url, is_over, errors) =
                (url.to_owned(), Arc::clone(&is_over), Arc::clone(&errors));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(machine(&url, rank, count, period, &is_over, &errors));
            })
        });
        Self { threads: threads.collect(), is_over, errors }
    }

    /// How late each poll arrived after the boundary that its slot begins with, in nanoseconds, by the server's stamp.
    pub fn errors(&self) -> Vec<i64> {
        assert!(!self.threads.iter().any(JoinHandle::is_finished), "a machine broke down");
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Originals {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

async fn machine(
    url: &str,
    rank: u32,
    count: u32,
    period: Period,
    is_over: &AtomicBool,
    errors: &Mutex<Vec<i64>>,
) {
    let store = AnyStore::connect(url, 1).unwrap();
    let mut turns = store.turns().await.unwrap();
    let node = NodeId::from_u128(uuid::Uuid::new_v4().as_u128());
    let poll = TurnStatement { node, believed: None, kind: TurnKind::Read };
    let (clock, queues) = (BootClock, Queues::All);
    let mut offset = None;
    let mut polled = i64::MIN;
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !is_over.load(Ordering::Relaxed) {
        timer.tick().await;
        let local = clock.now().as_nanos() as i64;
        let slot = offset.map(|offset| (local + offset) / period.as_nanos());
        let is_due = |slot| slot > polled && slot % i64::from(count) == i64::from(rank);
        if !slot.is_none_or(is_due) {
            continue;
        }
        let request =
            TurnRequest { statement: &poll, queues: &queues, report: NodeReport::default() };
        let reply = turns.execute(&request, &|| clock.now()).await.unwrap();
        let exchange = reply.exchange;
        let arrived = exchange.arrived.as_nanos();
        if let Some(slot) = slot {
            polled = slot;
            let late = arrived - slot * period.as_nanos();
            errors.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        }
        let trip = exchange.received.nanos_from(exchange.sent);
        offset = Some(arrived + trip / 2 - exchange.received.as_nanos() as i64);
    }
}
