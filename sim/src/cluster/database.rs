//! The database's machine: the production SQLite store in memory, behind a socket. What it holds lies in the farm
//! and outlives its process; connections and statements on their way do not.
//!
//! The store is waited for without the runtime: its own thread answers while the simulated world stands still,
//! so that a statement is one instant and the order of things does not depend on the machine that simulates.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream};
use turnwise_engine::{Fate, LocalInstant, TurnStatement};
use turnwise_node::store::sqlite::{SqliteStore, SqliteTurns};
use turnwise_node::store::{NodeReport, Queues, Store, StoreError, TurnReply, TurnRequest, Turns};

use super::farm::{Farm, until};
use super::mail::PORT;
use super::passage::Arrived;
use crate::sabotage::PlantedInShell;

/// The production store.
pub(super) type Database = SqliteStore<PlantedInShell>;

/// What the process of the database works with.
pub(super) struct Session {
    pub(super) farm: Farm,
    pub(super) store: Database,
    /// What was done last must be on the disk before it is answered.
    pub(super) durable: bool,
    turns: Option<SqliteTurns<PlantedInShell>>,
}

/// Wait for the store while the simulated world stands still. A task may poll only so often before it is to let others go on;
/// there are none that could.
pub(super) fn at_once<F: Future>(future: F) -> F::Output {
    futures_executor::block_on(tokio::task::coop::unconstrained(future))
}

impl Session {
    /// A statement on the turn row.
    pub(super) fn turn(
        &mut self,
        statement: &TurnStatement,
        queues: &Queues,
        report: NodeReport,
    ) -> Result<TurnReply, StoreError> {
        let mut turns = match self.turns.take() {
            Some(turns) => turns,
            None => at_once(self.store.turns())?,
        };
        let request = TurnRequest { statement, queues, report };
        // The node's own stamps are the node's to make.
        let reply = at_once(turns.execute(&request, &|| LocalInstant::from_nanos(0)))?;
        self.turns = Some(turns);
        Ok(reply)
    }
}

/// The process of the database.
pub(super) async fn process(farm: Farm) -> turmoil::Result {
    let Some(store) = farm.look().store.clone() else { return Ok(()) };
    let session = Session { farm: farm.clone(), store, durable: true, turns: None };
    let session = Rc::new(RefCell::new(session));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        farm.look().connections += 1;
        tokio::task::spawn_local(serve(farm.clone(), Rc::clone(&session), stream));
    }
}

/// One connection: a statement at a time.
async fn serve(farm: Farm, session: Rc<RefCell<Session>>, mut stream: TcpStream) {
    let mut frame = [0; 8];
    while stream.read_exact(&mut frame).await.is_ok() {
        let number = u64::from_be_bytes(frame);
        let Some(at) = farm.look().arrives(number) else { continue };
        until(at).await;
        let mut durable = false;
        let arrived = farm.look().arrived(number);
        match arrived {
            Arrived::Unheard => continue,
            Arrived::Refused => {}
            Arrived::Work(work) => {
                let mut session = session.borrow_mut();
                session.durable = true;
                let answer = work(&mut session);
                durable = session.durable;
                if let Some(parcel) = farm.look().mail.parcel(number) {
                    parcel.answer = Some(answer);
                }
            }
        }
        let Some(at) = farm.look().answered(number, durable) else { continue };
        until(at).await;
        if stream.write_all(&frame).await.is_err() {
            farm.look().unwanted();
            return;
        }
    }
}

/// What a node sees of a connection that is no more.
pub(super) fn broken(reason: &impl ToString, fate: Fate) -> StoreError {
    StoreError::Unreachable {
        database: "the simulated database".to_owned(),
        reason: reason.to_string(),
        fate,
    }
}
