//! A real browser, headless, driven over its DevTools protocol through a pair of pipes. Decides nothing about what is
//! tried with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take. Long enough for any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The browser. It ends with this.
pub(crate) struct Chromium {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    number: u64,
    /// What it told without being asked, by the page's session.
    told: Vec<Value>,
    _profile: TempDir,
}

/// A page: a tab of its own.
pub(crate) struct Page<'a> {
    browser: &'a mut Chromium,
    session: String,
    target: String,
}

/// What a page holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What JavaScript holds after everything that can be let go of has been.
    pub(crate) heap_bytes: u64,
    /// The nodes that are kept though they stand in the document no more, and a few that the browser adds itself.
    pub(crate) loose_nodes: i64,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) scheme: &'static str,
    pub(crate) script: bool,
}

pub(crate) const DESK: Look = Look { width: 1360, height: 860, scheme: "light", script: true };
pub(crate) const NIGHT: Look = Look { scheme: "dark", ..DESK };
pub(crate) const PHONE: Look = Look { width: 390, height: 844, ..DESK };
pub(crate) const PLAIN: Look = Look { script: false, ..DESK };

impl Chromium {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser reads commands from its descriptor 3 and writes answers to 4: the shell puts them there.
        let mut process = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let Ok(message) = message else { return };
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { process, to, from, number: 0, told: Vec::new(), _profile: profile }
    }

    /// Open a page of this address, looked at in this way, and wait until it is there.
    pub(crate) fn open(&mut self, url: &str, look: Look) -> Page<'_> {
        let target = self.ask(None, "Target.createTarget", &json!({"url": "about:blank"}));
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attach = json!({"targetId": target, "flatten": true});
        let session = self.ask(None, "Target.attachToTarget", &attach);
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let mut page = Page { browser: self, session, target };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.ask(&format!("{domain}.enable"), &json!({}));
        }
        page.ask(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": look.width, "height": look.height, "deviceScaleFactor": 2, "mobile": look.width < 600}),
        );
        let scheme = json!({"name": "prefers-color-scheme", "value": look.scheme});
        page.ask("Emulation.setEmulatedMedia", &json!({"features": [scheme]}));
        page.ask("Emulation.setScriptExecutionDisabled", &json!({"value": !look.script}));
        page.go(url);
        page
    }

    fn ask(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        let answer = self.ask_for(session, method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Its answer, which may be an error.
    fn ask_for(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.number += 1;
        let number = self.number;
        let mut message = json!({"id": number, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).expect("chromium is not there: scripts/setup tests");
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.hear(until).unwrap_or_else(|| {
                panic!("chromium does not answer {method}; is it there? scripts/setup tests")
            });
            if message["id"] == number {
                return message;
            }
            self.told.push(message);
        }
    }

    fn hear(&self, until: Instant) -> Option<Value> {
        self.from.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Page<'_> {
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.browser.ask(Some(&self.session), method, params)
    }

    pub(crate) fn go(&mut self, url: &str) {
        self.browser.told.retain(|told| told["method"] != "Page.loadEventFired");
        self.ask("Page.navigate", &json!({"url": url}));
        let until = Instant::now() + PATIENCE;
        let loaded = |told: &Value| told["method"] == "Page.loadEventFired";
        while !self.browser.told.iter().any(loaded) {
            let told = self.browser.hear(until).expect("the page is not loaded");
            self.browser.told.push(told);
        }
    }

    /// What an expression of JavaScript comes to in the page. Works where the page's own scripts are off, too.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", &params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, selector: &str) -> String {
        let found = self.value(&format!("document.querySelector({selector:?})?.textContent ?? ''"));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Wait until an expression is true. On the way from one page to the next it is not.
    pub(crate) fn until(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        let params = json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
        loop {
            let session = self.session.clone();
            let answer = self.browser.ask_for(Some(&session), "Runtime.evaluate", &params);
            if answer["result"]["result"]["value"] == true {
                return;
            }
            let text = if Instant::now() < until { String::new() } else { self.text("body") };
            assert!(Instant::now() < until, "it never came true: {expression}\n{answer}\n{text}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Click, as a hand does: by the mouse, in the middle of the element.
    pub(crate) fn click(&mut self, selector: &str) {
        let find = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}});
                const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let place = self.value(&find);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.ask("Input.dispatchMouseEvent", &event);
        }
    }

    /// What it holds, once it has let go of what it does not need.
    pub(crate) fn memory(&mut self) -> Memory {
        // One collection lets go of what the next one finds to be free.
        for _ in 0..2 {
            self.ask("HeapProfiler.collectGarbage", &json!({}));
        }
        let heap = self.ask("Runtime.getHeapUsage", &json!({}));
        let shown = self.value(
            "(() => { const all = document.createTreeWalker(document); let nodes = 1;
                while (all.nextNode()) nodes += 1; return nodes; })()",
        );
        let nodes = self.ask("Memory.getDOMCounters", &json!({}));
        Memory {
            heap_bytes: heap["usedSize"].as_f64().unwrap() as u64,
            loose_nodes: nodes["nodes"].as_i64().unwrap() - shown.as_i64().unwrap(),
        }
    }

    /// Keep no account of what it loads any more: the account itself would grow.
    pub(crate) fn forget_network(&mut self) {
        self.ask("Network.disable", &json!({}));
    }

    /// Press a key.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            let code = if key == "Tab" { 9 } else { 13 };
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", &event);
        }
    }

    /// Keep a picture of it.
    pub(crate) fn picture(&mut self, to: &Path) {
        let answer = self.ask("Page.captureScreenshot", &json!({"format": "png"}));
        std::fs::write(to, base64(answer["data"].as_str().unwrap())).unwrap();
    }

    /// What the browser complained of: violations of the policy, errors of scripts.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.value("1");
        let session = &self.session;
        let of_page = self.browser.told.iter().filter(|told| told["sessionId"] == session.as_str());
        let complaints = of_page.filter_map(|told| match told["method"].as_str()? {
            "Log.entryAdded" if told["params"]["entry"]["level"] == "error" => {
                Some(told["params"]["entry"]["text"].to_string())
            }
            "Runtime.exceptionThrown" => Some(told["params"]["exceptionDetails"].to_string()),
            "Page.javascriptDialogOpening" => Some(told.to_string()),
            _ => None,
        });
        complaints.collect()
    }

    /// How many bytes were loaded, by address.
    pub(crate) fn loaded(&self) -> BTreeMap<String, u64> {
        let mut addresses = BTreeMap::new();
        let mut bytes = BTreeMap::new();
        for told in
            self.browser.told.iter().filter(|told| told["sessionId"] == self.session.as_str())
        {
            let (of, params) = (told["params"]["requestId"].to_string(), &told["params"]);
            match told["method"].as_str() {
                Some("Network.requestWillBeSent") => {
                    addresses.insert(
                        of,
                        params["request"]["url"].as_str().unwrap_or_default().to_owned(),
                    );
                }
                Some("Network.loadingFinished") => {
                    bytes.insert(of, params["encodedDataLength"].as_f64().unwrap_or(0.0) as u64);
                }
                _ => {}
            }
        }
        let of = |(of, bytes)| Some((addresses.get(&of)?.clone(), bytes));
        bytes.into_iter().filter_map(of).collect()
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let target = json!({"targetId": self.target});
            self.browser.ask(None, "Target.closeTarget", &target);
            self.browser.told.clear();
        }
    }
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == byte).unwrap() as u32;
        (bits, held) = (bits << 6 | digit, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
