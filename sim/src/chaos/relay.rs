//! The road between a node and its database: a relay of TCP connections that delays each direction by its own base
//! and queues, holds it, and breaks connections. What is cut off arrives when the cut has ended, as TCP would send it
//! again. Decides how long bytes are on their way; loses none but with their connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::history::{Event, History};
use crate::scenario::{self, Fault};
use crate::world::Roads;

/// The most that is read at once.
const CHUNK: usize = 16 * 1024;
/// So many chunks may be on the way in one direction.
const UNDER_WAY: usize = 1_024;
/// What TCP lost is sent again after so long, at least.
const RETRANSMISSION: u64 = 200_000_000;

/// A node's road.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    /// Where the node finds the servers of its database, in their order.
    pub(super) addresses: Vec<SocketAddr>,
    road: Arc<Road>,
}

#[derive(Debug)]
struct Road {
    host: u32,
    history: History,
    state: Mutex<State>,
    /// Goes up when all connections are to break.
    broken: watch::Sender<u64>,
}

/// What becomes of bytes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) roads: Roads,
    /// What a slow database adds to each answer, in nanoseconds.
    pub(super) slow: u64,
    /// The next answer is lost, and its connection with it.
    pub(super) lose_answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

/// What is on its way: when it is due, and what; nothing: the end of it.
type Parcel = (u64, Option<Vec<u8>>);

impl Relay {
    /// A road to the servers of the database, from a free port of loopback to each, open until this process ends.
    pub(super) async fn open(
        host: u32,
        plan: &scenario::Node,
        seed: u64,
        servers: &[SocketAddr],
        history: &History,
    ) -> std::io::Result<Self> {
        let roads = Roads::new(plan, seed, &format!("node {host} relay"));
        let road = Arc::new(Road {
            host,
            history: history.clone(),
            state: Mutex::new(State { roads, slow: 0, lose_answer: false }),
            broken: watch::channel(0).0,
        });
        let mut addresses = Vec::new();
        for server in servers.iter().copied() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            addresses.push(listener.local_addr()?);
            let accepting = Arc::clone(&road);
            tokio::spawn(async move {
                while let Ok((node, _)) = listener.accept().await {
                    tokio::spawn(connection(Arc::clone(&accepting), node, server));
                }
            });
        }
        Ok(Self { addresses, road })
    }

    /// Look at the road, or change it.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.road.look()
    }

    /// Break all connections.
    pub(super) fn reset(&self) {
        self.road.broken.send_modify(|count| *count += 1);
    }
}

impl Road {
    fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When bytes that enter now arrive; none: they are lost, and their connection.
    fn enter(&self, direction: Direction) -> Option<u64> {
        let now = self.history.now();
        let mut state = self.look();
        let slow = state.slow;
        if direction == Direction::Back && std::mem::take(&mut state.lose_answer) {
            drop(state);
            self.history.write(Event::Befell(Fault::LoseAnswer { node: self.host }));
            return None;
        }
        let way = match direction {
            Direction::There => &mut state.roads.there,
            Direction::Back => &mut state.roads.back,
        };
        let passage = way.pass(now);
        let again = now.max(way.cut_until) + way.road.base.0 + RETRANSMISSION;
        let arrives = passage.arrives.unwrap_or(again);
        Some(if direction == Direction::Back { arrives + slow } else { arrives })
    }

    /// Until when nothing comes out at the other end.
    fn closed_until(&self, direction: Direction) -> u64 {
        let state = self.look();
        let way = match direction {
            Direction::There => &state.roads.there,
            Direction::Back => &state.roads.back,
        };
        way.held_until.max(way.cut_until)
    }
}

async fn connection(road: Arc<Road>, node: TcpStream, server: SocketAddr) {
    let mut broken = road.broken.subscribe();
    // A server that refuses is seen as one that refuses: the connection ends at once.
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (node.set_nodelay(true), server.set_nodelay(true));
    let (mut node_in, mut node_out) = node.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let there = pump(&road, Direction::There, &mut node_in, &mut server_out);
    let back = pump(&road, Direction::Back, &mut server_in, &mut node_out);
    tokio::select! {
        biased;
        _ = broken.changed() => {}
        // Each of them ends with an error when the connection is to break.
        _ = async { tokio::try_join!(there, back) } => {}
    }
}

/// Carry bytes in one direction, to the end of them.
async fn pump(
    road: &Road,
    direction: Direction,
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
) -> std::io::Result<()> {
    let (parcels, mut arriving) = mpsc::channel::<Parcel>(UNDER_WAY);
    let enter = async move {
        let mut last = 0;
        loop {
            let mut bytes = vec![0; CHUNK];
            let count = from.read(&mut bytes).await?;
            bytes.truncate(count);
            let Some(due) = road.enter(direction) else {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            };
            // Bytes do not overtake each other.
            last = due.max(last);
            let parcel = (last, (count > 0).then_some(bytes));
            if parcels.send(parcel).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    let arrive = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(road.history.instant(due)).await;
            loop {
                let closed = road.closed_until(direction);
                if closed <= road.history.now() {
                    break;
                }
                tokio::time::sleep_until(road.history.instant(closed)).await;
            }
            match bytes {
                Some(bytes) => to.write_all(&bytes).await?,
                None => return to.shutdown().await,
            }
        }
        Ok(())
    };
    tokio::try_join!(enter, arrive).map(|_| ())
}
