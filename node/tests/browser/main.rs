//! The dashboard in a real browser, over a farm of real nodes: what is seen, live, by hand and by keyboard, with and
//! without JavaScript. It leaves pictures in `browser-pictures` in the target folder.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod chromium;
mod endurance;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chromium::{Chromium, DESK, Look, NIGHT, PATIENCE, PHONE, PLAIN};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;
use turnwise_engine::NodeId;
use turnwise_node::config::Retention;
use turnwise_node::dashboard::{self, Door};
use turnwise_node::serve;
use turnwise_node::store::{AnyStore, Registration, Store};

#[path = "../support/target.rs"]
mod target;

use target::Target;

/// Three nodes on one file, with a web app.
struct Farm {
    folder: TempDir,
    nodes: BTreeMap<&'static str, Child>,
    ports: BTreeMap<&'static str, u16>,
    target: String,
}

impl Farm {
    fn start(target: &Target) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (nodes, ports) = (BTreeMap::new(), BTreeMap::new());
        let mut farm = Self { folder, nodes, ports, target: target.origin() };
        for name in ["ada", "bob", "cyd"] {
            farm.node(name);
        }
        farm
    }

    fn url(&self) -> String {
        format!("sqlite://{}/turnwise.db", self.folder.path().display())
    }

    fn node(&mut self, name: &'static str) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let node = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(["run", "--name", name, "--listen", &listen, "--target", &self.target])
            .env("DATABASE_URL", self.url())
            .env("TURNWISE_LOG", "warn")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.nodes.insert(name, node);
        self.ports.insert(name, port);
        let until = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(Instant::now() < until, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, name: &str) {
        let mut node = self.nodes.remove(name).unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    fn page(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports["ada"])
    }

    /// Enqueue a job; its id.
    fn enqueue(&self, arguments: &[&str]) -> String {
        self.turnwise(&[&["enqueue"], arguments].concat())
    }

    /// Run a command; what it prints.
    fn turnwise(&self, arguments: &[&str]) -> String {
        let done = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(arguments)
            .env("DATABASE_URL", self.url())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Where a picture goes.
fn picture(name: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_turnwise"));
    let folder = binary.ancestors().nth(2).unwrap().join("browser-pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{name}.png"))
}

/// Every page, and what stands on it once it is there.
const PAGES: [(&str, &str, &str); 4] = [
    ("ring", "/", "svg.ring .slot"),
    ("timeline", "/timeline", "svg.timeline .beat"),
    ("nodes", "/nodes", ".card svg.offset"),
    ("jobs", "/jobs", "table.jobs tbody tr"),
];
/// Every way to look at them.
const LIGHTS: [(&str, Look); 3] = [("light", DESK), ("dark", NIGHT), ("phone", PHONE)];

/// The newest slot that is drawn in the ring.
const NEWEST: &str = "Number(document.querySelector('svg.ring .newest')?.dataset.slot ?? 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_farm_is_seen_and_handled_in_a_browser() {
    let target = Target::start().await;
    let farm = Farm::start(&target);
    tokio::task::spawn_blocking(move || story(farm)).await.unwrap();
}

#[ignore = "takes pictures of a farm that runs already: see scripts/pictures"]
#[test]
fn pictures_of_every_page() {
    let farm = std::env::var("TURNWISE_PICTURES_OF").unwrap();
    let farm = farm.trim_end_matches('/');
    take_pictures(&mut Chromium::start(), "gallery-", |path| format!("{farm}{path}"));
}

#[ignore = "takes an hour: see endurance"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_left_open_do_not_grow() {
    let target = Target::start().await;
    let farm = Farm::start(&target);
    tokio::task::spawn_blocking(move || endurance::leave_open(&farm)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_nodes_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve_fifty(&folder).await;
    let look = move || {
        let mut browser = Chromium::start();
        for (name, path) in [("ring", "/"), ("timeline", "/timeline"), ("nodes", "/nodes")] {
            for (light, look) in [("", DESK), ("-phone", PHONE)] {
                let mut page = browser.open(&format!("http://{address}{path}"), look);
                page.until("document.body.textContent.includes('web-50')");
                page.until("document.documentElement.scrollWidth <= innerWidth");
                page.picture(&picture(&format!("{name}-fifty{light}")));
                assert_eq!(page.complaints(), [""; 0], "{name}");
            }
        }
    };
    tokio::task::spawn_blocking(look).await.unwrap();
}

/// The dashboard over a ring of fifty as it is written down: no node of it runs.
async fn serve_fifty(folder: &TempDir) -> SocketAddr {
    let path = folder.path().join("turnwise.db");
    let store = AnyStore::connect(&format!("sqlite://{}", path.display()), 1).unwrap();
    store.migrate().await.unwrap();
    store.agree_period(None).await.unwrap();
    let mut ring = Vec::new();
    for number in 1..=50 {
        let id = NodeId::from_u128(number);
        let name = format!("web-{number}");
        store.register(&Registration { id, name, capacity: 16 }).await.unwrap();
        ring.push(format!("\"{id}\""));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let beats: Vec<String> = (now - 500..now)
        .filter(|slot| slot % 83 != 0)
        .map(|slot| {
            let node = NodeId::from_u128(u128::from(slot % 50 + 1));
            let late = if slot % 61 == 0 { 300_000 } else { 90 };
            format!("({slot}, '{node}', {}, {})", slot * 1_000_000 + late, slot % 13)
        })
        .collect();
    let sql = format!(
        "UPDATE turnwise_turn SET slot = {0}, high = {0}, epoch = 50,
            versions = '[{{\"from\":{1},\"ring\":[{2}]}}]';
         INSERT INTO turnwise_beats VALUES {3};",
        now - 1,
        now - now % 50 - 1_000,
        ring.join(","),
        beats.join(",")
    );
    let options = SqliteConnectOptions::new().filename(&path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::new(address, None);
    let routes = dashboard::router(store, Retention::default(), door, None, axum::Router::new());
    tokio::spawn(serve::serve(listener, routes));
    address
}

/// One farm and one browser for all of it, since both take a while to start.
fn story(mut farm: Farm) {
    let mut browser = Chromium::start();
    a_beat_is_seen_to_land(&mut browser, &farm);
    every_page_is_there_in_every_light(&mut browser, &farm);
    a_job_is_retried_by_hand(&mut browser, &farm);
    hostile_texts_stay_texts(&mut browser, &farm);
    without_javascript_all_is_there(&mut browser, &farm);
    the_keyboard_is_enough(&mut browser, &farm);
    the_ring_is_seen_to_close(&mut browser, &mut farm);
}

fn a_beat_is_seen_to_land(browser: &mut Chromium, farm: &Farm) {
    let mut page = browser.open(&farm.page("/"), DESK);
    page.until(
        "document.querySelector('#ring-words').textContent.startsWith('3 nodes take turns')",
    );
    let seen = page.value(NEWEST).as_i64().unwrap();
    page.until(&format!("{NEWEST} > {}", seen + 2));
    page.until("document.getElementById('link').textContent === 'live'");
    // From the arrival at the database to the page: what the stream was told and when it was shown. Printed, not judged.
    let ages = page.value(
        "new Promise(done => { const ages = []; document.addEventListener('news', e => {
            for (const event of e.detail.events) if (event.event === 'beat') ages.push(Date.now() - Date.parse(event.arrived_at));
            if (ages.length >= 10) done(ages); }); })",
    );
    println!("ms from a beat's arrival at the database to the page: {ages}");
    let turned = "document.getElementById('hand').getAttribute('transform')";
    let before = page.value(turned);
    page.until(&format!("{turned} !== {before}"));
    let bytes: u64 = page
        .loaded()
        .iter()
        .filter(|(url, _)| {
            !url.contains("part=") && !url.contains("/live?") && !url.ends_with("/live")
        })
        .map(|(_, bytes)| bytes)
        .sum();
    println!("the home page is {bytes} bytes in all, as loaded");
    assert!(bytes > 0 && bytes < 100 * 1024, "{bytes}");
    assert_eq!(page.complaints(), [""; 0]);
}

fn every_page_is_there_in_every_light(browser: &mut Chromium, farm: &Farm) {
    for number in 0..24 {
        let path = ["/slow/400", "/slow/2500", "/status/500", "/slow/9000"][number % 4];
        farm.enqueue(&[path, "--queue", ["mail", "default", "reports"][number % 3]]);
    }
    take_pictures(browser, "", |path| farm.page(path));
}

/// A picture of every page in every light, once it is there and live.
fn take_pictures(browser: &mut Chromium, prefix: &str, address: impl Fn(&str) -> String) {
    for (name, path, shows) in PAGES {
        for (light, look) in LIGHTS {
            let mut page = browser.open(&address(path), look);
            page.until(&format!("document.querySelector({shows:?})"));
            page.until("document.getElementById('link').textContent === 'live'");
            // Nothing makes the whole page wider than the window.
            page.until("document.documentElement.scrollWidth <= innerWidth");
            std::thread::sleep(Duration::from_millis(600));
            page.picture(&picture(&format!("{prefix}{name}-{light}")));
            assert_eq!(page.complaints(), [""; 0], "{name}, {light}");
        }
    }
}

fn a_job_is_retried_by_hand(browser: &mut Chromium, farm: &Farm) {
    let id = farm.enqueue(&["/status/404", "--max-attempts", "1"]);
    let mut page = browser.open(&farm.page(&format!("/jobs/{id}")), DESK);
    page.until("document.querySelector('.facts .state').dataset.state === 'dead'");
    page.picture(&picture("job-light"));
    page.click("form[action$='/retry'] button");
    page.until("document.querySelector('.said')?.textContent === 'It runs again now.'");
    page.until("document.querySelectorAll('.attempts li').length === 2");
    page.until("document.querySelector('.facts .state').dataset.state === 'dead'");
    page.until("document.querySelector(\"form[action$='/cancel']\") === null");
    // One that can be cancelled, and is by somebody else while this one is asked.
    let id = farm.enqueue(&["/ok", "--in", "1h"]);
    page.go(&farm.page(&format!("/jobs/{id}")));
    page.click("form[action$='/cancel'] button");
    page.until("document.querySelector('h1').textContent === 'Cancel this job?'");
    farm.turnwise(&["jobs", "cancel", &id]);
    page.click("button.danger");
    page.until("document.querySelector('.said.refused')?.textContent.includes('is cancelled now')");
    assert_eq!(page.complaints(), [""; 0]);
}

fn hostile_texts_stay_texts(browser: &mut Chromium, farm: &Farm) {
    let hostile =
        "/</title><script>document.title='caught'</script><img/src=x/onerror=alert(1)>'\"&";
    let id = farm.enqueue(&[hostile, "--queue", "hostile"]);
    for path in ["/jobs".to_owned(), format!("/jobs/{id}"), "/timeline".to_owned()] {
        let mut page = browser.open(&farm.page(&path), DESK);
        page.until("document.getElementById('link').textContent === 'live'");
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(
            page.value("document.querySelectorAll('img, script:not([src]), [onerror]').length"),
            0
        );
        assert_ne!(page.value("document.title"), "caught");
        assert_eq!(page.complaints(), [""; 0], "{path}");
    }
}

fn without_javascript_all_is_there(browser: &mut Chromium, farm: &Farm) {
    let mut page = browser.open(&farm.page("/"), PLAIN);
    let seen = page.value(NEWEST).as_i64().unwrap();
    assert!(seen > 0 && page.text("#ring-words").starts_with("3 nodes take turns"));
    // The page loads itself again.
    page.until(&format!("{NEWEST} > {}", seen + 3));
    page.picture(&picture("ring-without-javascript"));
    let id = farm.enqueue(&["/status/404", "--max-attempts", "1"]);
    let dead = "document.querySelector('.facts .state')?.dataset.state === 'dead'";
    page.go(&farm.page(&format!("/jobs/{id}")));
    page.until(dead);
    page.click("form[action$='/retry'] button");
    page.until("document.querySelector('.said')?.textContent === 'It runs again now.'");
}

fn the_keyboard_is_enough(browser: &mut Chromium, farm: &Farm) {
    let mut page = browser.open(&farm.page("/"), DESK);
    page.press("Tab");
    page.until("document.activeElement.classList.contains('skip')");
    let mut reached = Vec::new();
    for _ in 0..13 {
        page.press("Tab");
        let at = page.value("document.activeElement.getAttribute('href') ?? ''");
        reached.push(at.as_str().unwrap_or_default().to_owned());
    }
    for path in ["/", "/timeline", "/nodes", "/jobs", "/batches", "/queues", "/schedules"] {
        assert!(reached.iter().any(|at| at == path), "{path} is reached by keys: {reached:?}");
    }
    assert!(reached.iter().any(|at| at.starts_with("/nodes/")), "{reached:?}");
}

fn the_ring_is_seen_to_close(browser: &mut Chromium, farm: &mut Farm) {
    let url = farm.page("/");
    let mut page = browser.open(&url, DESK);
    page.until("document.getElementById('link').textContent === 'live'");
    farm.kill("cyd");
    page.until("document.querySelector('svg.ring .slot.missed')");
    page.until("[...document.querySelectorAll('.news .trouble')].some(e => e.textContent.includes('cyd is taken out'))");
    page.until("document.querySelector('#alarm').textContent !== ''");
    page.picture(&picture("ring-a-crash"));
    page.until(
        "document.querySelector('#ring-words').textContent.startsWith('2 nodes take turns')",
    );
    let seen = page.value(NEWEST).as_i64().unwrap();
    page.until(&format!("{NEWEST} > {}", seen + 4));
    page.picture(&picture("ring-closed"));
    farm.node("cyd");
    page.until(
        "document.querySelector('#ring-words').textContent.startsWith('3 nodes take turns')",
    );
    page.picture(&picture("ring-and-open-again"));
    assert_eq!(page.complaints(), [""; 0]);
}
