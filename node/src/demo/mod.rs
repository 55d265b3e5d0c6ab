//! Decides the course of `turnwise demo`: a farm on one machine that needs nothing. Each node is a process of its own,
//! this program as `turnwise run`; what it stands on differs from production in two things alone, its clock and its way
//! to the database.
//!
//! - `farm`: the nodes, and what can be done to them; `process`: how one is run;
//! - `jobs`: what is enqueued; `target`: the sample app that is called;
//! - `command`: the lines that can be typed; `terminal`: keyboard and screen; `told`: what the screen tells;
//! - `controls`: the buttons on the dashboard;
//! - `folder`: the temporary files.

mod command;
mod controls;
mod farm;
mod folder;
mod jobs;
mod process;
mod target;
mod terminal;
mod told;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use self::command::{Command, HELP};
use self::controls::{Buttons, SharedFarm, lock};
use self::farm::Farm;
use self::folder::Folder;
use self::process::{Recipe, settings_in};
use self::terminal::{Keyboard, Screen};
use crate::api;
use crate::config::{Listen, Retention};
use crate::dashboard::{self, Door};
use crate::serve;
use crate::store::{AnyStore, Store, StoreError};
use crate::watch::{Feed, Hub};

pub use self::jobs::JobsRate;

/// The most nodes that a demo begins with.
pub const NODES_MAX: usize = command::NODES_MAX;

/// The demo's own database, in its folder.
const DATABASE: &str = "demo.db";
/// Connections to the database, for the jobs and for the pages.
const CONNECTIONS: u32 = 2;
/// How often the nodes' processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the nodes are given to stop: their jobs' time, and then some.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);

/// What a demo is told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes there are at first, from 1 to [`NODES_MAX`].
    pub nodes: usize,
    /// Where the dashboard listens. An address that nobody asked for is given up for another when it is taken.
    pub listen: Listen,
    /// How many jobs are enqueued.
    pub rate: JobsRate,
    /// When it ends by itself; none: never.
    pub time: Option<Duration>,
    /// The database; none: one of its own, that is removed with it.
    pub database_url: Option<String>,
    /// Open the dashboard in a browser, where there is one.
    pub browser: bool,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database has another farm.
    #[error(
        "the database has {nodes} living nodes of another farm, which would run the demo's jobs; give the demo a database of its own, or leave --database-url out. (Nodes that were killed count for three seconds more.)"
    )]
    InUse {
        /// How many.
        nodes: usize,
    },
    /// The dashboard has no address.
    #[error(
        "the dashboard cannot listen on {address}: {reason}. Choose another address with --listen"
    )]
    Taken {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
    /// A node cannot be started.
    #[error("a node cannot be started: {0}")]
    NoNode(String),
    /// Something of the system's.
    #[error("the demo cannot {what}: {reason}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        reason: io::Error,
    },
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |reason| DemoError::System { what, reason }
}

/// Run the demo until it is told to end. Everything that it made is removed then.
pub async fn run(plan: Plan) -> Result<(), DemoError> {
    let mut signals = Signals::listen().map_err(cannot("listen to signals"))?;
    let folder = Folder::make().map_err(cannot("make a temporary folder"))?;
    let (said, heard) = mpsc::unbounded_channel();
    let stage = Stage::set(&plan, &folder, said).await?;
    let mut show = Show::begin(&plan, &stage, heard);
    show.go_on(&mut signals).await;
    // Nothing is enqueued for nodes that leave, and in a database that stays nothing is left for nobody.
    stop(stage.jobs).await;
    show.end(&mut signals).await;
    // Nobody presses a button, or opens the database again, while the folder is removed.
    stop(stage.pages).await;
    drop(stage.hub);
    folder.remove().map_err(cannot("remove its temporary folder"))
}

/// Everything that runs, but for the screen.
struct Stage {
    farm: SharedFarm,
    hub: Hub,
    address: SocketAddr,
    target: SocketAddr,
    database: String,
    /// What enqueues jobs.
    jobs: JoinHandle<()>,
    /// What answers browsers.
    pages: JoinHandle<()>,
}

/// Stop it where it is, and wait until it has stopped.
async fn stop(task: JoinHandle<()>) {
    task.abort();
    // An error says that it was stopped: it was to be.
    let _ = task.await;
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "a demonstration is another one each time")]
    async fn set(
        plan: &Plan,
        folder: &Folder,
        said: mpsc::UnboundedSender<String>,
    ) -> Result<Self, DemoError> {
        let own = || format!("sqlite://{}", folder.path().join(DATABASE).display());
        let database = plan.database_url.clone().unwrap_or_else(own);
        let store = AnyStore::connect(&database, CONNECTIONS)?;
        store.migrate().await?;
        refuse_other_farms(&store).await?;
        let listener = listen(plan.listen).await?;
        let address = listener.local_addr().map_err(cannot("listen"))?;
        let chance = || Pcg64Mcg::from_seed(Uuid::new_v4().into_bytes());
        let target = target::open(chance()).await.map_err(cannot("open its sample app"))?;
        std::fs::write(settings_in(folder.path()), "").map_err(cannot("write its files"))?;
        let program = std::env::current_exe().map_err(cannot("find its own program"))?;
        let mut farm = Farm::new(Recipe {
            program,
            folder: folder.path().to_owned(),
            database: database.clone(),
            target: format!("http://{target}"),
        });
        for _ in 0..plan.nodes {
            farm.add().map_err(DemoError::NoNode)?;
        }
        let farm = Arc::new(Mutex::new(farm));
        // In a database that stays it would go on when the demo is over.
        if plan.database_url.is_none() && !plan.rate.is_none() {
            jobs::set_schedule(&store).await?;
            jobs::set_policy(&store).await?;
            jobs::set_paused(&store).await?;
        }
        let jobs = tokio::spawn(jobs::stream(store.clone(), plan.rate, chance(), said.clone()));
        let buttons = Arc::new(Buttons { farm: Arc::clone(&farm), said });
        let hub = Hub::new(store);
        let door = Door::new(address, None);
        let kept = Retention::default();
        let routes =
            dashboard::router(hub.clone(), kept, door, Some(buttons), api::v1(hub.clone()));
        let pages = tokio::spawn(serve::serve(listener, routes));
        Ok(Self { farm, hub, address, target, database, jobs, pages })
    }
}

/// The demo's nodes would take turns with those of a real farm, which would run its jobs.
async fn refuse_other_farms(store: &AnyStore) -> Result<(), DemoError> {
    let nodes = store.nodes().await?;
    let living = nodes.iter().filter(|node| matches!(node.state.as_str(), "live" | "joining"));
    match living.count() {
        0 => Ok(()),
        nodes => Err(DemoError::InUse { nodes }),
    }
}

async fn listen(listen: Listen) -> Result<TcpListener, DemoError> {
    match api::bind(listen.address).await {
        Ok(listener) => Ok(listener),
        Err(reason) if listen.explicit => Err(DemoError::Taken { address: listen.address, reason }),
        // A node of this machine has the usual address: any other will do.
        Err(_) => {
            let any = SocketAddr::new(listen.address.ip(), 0);
            api::bind(any).await.map_err(|reason| DemoError::Taken { address: any, reason })
        }
    }
}

/// What ends a demo from outside, and what a shell does to one.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    go_on: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            go_on: signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGCONT as i32))?,
        })
    }

    /// The next of them; whether it ends the demo.
    async fn next_ends(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hang_up.recv() => true,
            _ = self.go_on.recv() => false,
        }
    }

    async fn end(&mut self) {
        while !self.next_ends().await {}
    }
}

/// The demo as it is seen and steered from the terminal.
struct Show {
    farm: SharedFarm,
    feed: Feed,
    heard: mpsc::UnboundedReceiver<String>,
    screen: Screen,
    keyboard: Keyboard,
    begun: Instant,
    time: Option<Duration>,
    keeps_database: bool,
}

impl Show {
    fn begin(plan: &Plan, stage: &Stage, heard: mpsc::UnboundedReceiver<String>) -> Self {
        let keyboard = Keyboard::new();
        let mut screen = Screen::new(keyboard.is_by_keys());
        screen.say(&greeting(plan, stage));
        let url = format!("http://{}/", stage.address);
        if plan.browser && has_browser() && open::that_detached(&url).is_err() {
            screen.say("No browser could be opened; the address above works in any.");
        }
        Self {
            farm: Arc::clone(&stage.farm),
            feed: stage.hub.watch(),
            heard,
            screen,
            keyboard,
            begun: Instant::now(),
            time: plan.time,
            keeps_database: plan.database_url.is_some(),
        }
    }

    /// Until it is to end.
    async fn go_on(&mut self, signals: &mut Signals) {
        let end = self.time.map(|time| self.begun + time);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while !self.screen.is_gone() {
            tokio::select! {
                biased;
                ends = signals.next_ends() => match ends {
                    true => return,
                    false => self.keyboard.take_keys(),
                },
                () = until(end) => return,
                typed = self.keyboard.next() => {
                    self.screen.show_typed(&self.keyboard.typed());
                    if typed.lines.iter().any(|line| self.obey(line)) || typed.is_end {
                        return;
                    }
                }
                Some(news) = self.feed.next() => {
                    for event in news.events.iter() {
                        told::tell(&mut self.screen, self.begun.elapsed(), event);
                    }
                }
                Some(said) = self.heard.recv() => self.tell(&said),
                _ = looks.tick() => {
                    let ended = lock(&self.farm).find_ended();
                    for said in ended {
                        self.tell(&said);
                    }
                }
            }
        }
    }

    /// Do what a line says; true when it ends the demo.
    fn obey(&mut self, line: &str) -> bool {
        let said = match line.parse() {
            Ok(Command::Quit) => return true,
            Ok(Command::Help) => Ok(HELP.to_owned()),
            Ok(Command::Nodes) => Ok(lock(&self.farm).describe().join("\n")),
            Ok(Command::Add) => lock(&self.farm).add(),
            Ok(Command::To(which, deed)) => lock(&self.farm).obey(which, deed),
            Err(error) => Err(error),
        };
        self.screen.say(&format!("> {line}"));
        match said {
            Ok(said) => self.screen.say(&said.replace(" Watch:", "\n  Watch:")),
            Err(said) => self.screen.say(&format!("No: {said}")),
        }
        false
    }

    fn tell(&mut self, text: &str) {
        self.screen.tell(self.begun.elapsed(), text);
    }

    /// Stop every node, in good order where that is possible.
    async fn end(mut self, signals: &mut Signals) {
        self.screen.close();
        self.screen.say("Stopping: every node leaves the ring and finishes its jobs.");
        self.screen.close();
        self.keyboard.give_back();
        lock(&self.farm).ask_to_stop();
        let farm = Arc::clone(&self.farm);
        let ended = async {
            while !lock(&farm).has_ended() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            biased;
            () = ended => {}
            // Asked twice, it ends at once.
            () = signals.end() => {}
            () = sleep(STOP_TIMEOUT) => {}
        }
        lock(&self.farm).clear();
        let left = match self.keeps_database {
            true => "Ended. No process is left; what the demo wrote is in your database.",
            false => "Ended. No process is left, and nothing on the disk.",
        };
        self.screen.say(left);
        self.screen.close();
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Whether a browser would be seen.
fn has_browser() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(not(target_os = "linux")) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

fn greeting(plan: &Plan, stage: &Stage) -> String {
    let farm = lock(&stage.farm);
    let count = match plan.nodes {
        1 => "One node, a process of its own, takes".to_owned(),
        n => format!("{n} nodes, each a process of its own, take"),
    };
    let database = match plan.database_url {
        Some(_) => "the database that you gave it".to_owned(),
        None => format!("a new SQLite database ({})", stage.database),
    };
    format!(
        "{count} turns on {database}:\n\n{nodes}\n\n\
         Dashboard   http://{address}/\n\
         Jobs        {rate}, to a sample app at http://{target}: mail is quick, reports are slow, and the rest often fails\n\n\
         Below, a letter a second: whose beat it was (· is a slot without one). Type help for what you can do to them;\n\
         begin with `kill 2`. Ctrl-C ends it.\n",
        nodes = farm.describe().join("\n"),
        address = stage.address,
        rate = plan.rate.words(),
        target = stage.target,
    )
}
