//! A real browser, told what to do over its DevTools protocol: JSON over two pipes, a zero byte behind each message.
//! <https://chromedevtools.github.io/devtools-protocol/>

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{broadcast, oneshot},
    time::timeout,
};

use crate::bot::PATIENCE;

/// What the browser is called, by distribution.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// It needs neither a screen nor the network, and asks nobody for anything of its own.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
    "--remote-debugging-pipe",
];

/// How many events of one tab may be unread.
const EVENTS_MAX: usize = 4_096;

/// A browser that finds every name at one address. It ends with this value.
pub struct Browser {
    wire: Arc<Wire>,
    _child: Child,
    _profile: TempDir,
}

/// One visitor's only tab, with cookies of its own.
pub struct Tab {
    wire: Arc<Wire>,
    session: String,
}

struct Wire {
    input: tokio::sync::Mutex<ChildStdin>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: broadcast::Sender<Value>,
    next: AtomicU64,
}

impl Browser {
    /// Starts a browser for which every name is at this port of this machine.
    pub async fn start(port: u16) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let mut child = started(&profile, port);
        let (input, output) = (child.stdin.take().expect("it is a pipe"), child.stdout.take().expect("it is a pipe"));
        let wire = Arc::new(Wire {
            input: tokio::sync::Mutex::new(input),
            waiting: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            next: AtomicU64::new(1),
        });
        tokio::spawn(read(wire.clone(), output));
        Self { wire, _child: child, _profile: profile }
    }

    /// Another visitor: a tab that shares nothing with others, as large as a phone's.
    pub async fn visitor(&self) -> Tab {
        let context = self.wire.call(None, "Target.createBrowserContext", json!({})).await;
        let target = json!({ "url": "about:blank", "browserContextId": context["browserContextId"] });
        let target = self.wire.call(None, "Target.createTarget", target).await;
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.wire.call(None, "Target.attachToTarget", attached).await;
        let session = attached["sessionId"].as_str().expect("a session has a name").to_owned();
        let tab = Tab { wire: self.wire.clone(), session };
        let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        tab.call("Emulation.setDeviceMetricsOverride", phone).await;
        tab.call("Page.enable", json!({})).await;
        tab.call("Network.enable", json!({})).await;
        tab.speaks("zh-CN").await;
        tab
    }
}

impl Tab {
    /// Opens an address, and waits until the page where it ends is loaded.
    pub async fn opens(&self, url: &str) {
        self.loads("", self.call("Page.navigate", json!({ "url": url }))).await;
    }

    /// Taps the first element that a selector finds, and waits until the page where it leads is loaded.
    pub async fn taps(&self, selector: &str) {
        self.loads("", self.runs(&tap(selector))).await;
    }

    /// Taps where nothing must happen.
    pub async fn taps_in_vain(&self, selector: &str) {
        // A policy is held against a form as soon as it is sent.
        let told = "new Promise(done => document.addEventListener('securitypolicyviolation', \
                    event => done(event.effectiveDirective)))";
        let broken = self.runs(&format!("(() => {{ const told = {told}; {}; return told; }})()", tap(selector))).await;
        assert_eq!(broken, json!("form-action"));
    }

    /// Goes back to the page before, and waits until that has led to an address that begins like this.
    pub async fn goes_back_and_on_to(&self, url: &str) {
        self.loads(url, self.runs("history.back()")).await;
    }

    /// The address that the visitor sees.
    pub async fn url(&self) -> String {
        self.runs("location.href").await.as_str().expect("an address is a text").to_owned()
    }

    /// What the visitor reads.
    pub async fn text(&self) -> String {
        self.runs("document.body.innerText").await.as_str().expect("it is a text").to_owned()
    }

    /// The page's source, as the browser has it.
    pub async fn html(&self) -> String {
        self.runs("document.documentElement.outerHTML").await.as_str().expect("it is a text").to_owned()
    }

    /// Runs a script as the debugger, whatever the page's policy is, and returns what comes of it.
    pub async fn runs(&self, script: &str) -> Value {
        let script = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let told = self.call("Runtime.evaluate", script).await;
        assert!(told.get("exceptionDetails").is_none(), "{told}");
        told["result"]["value"].clone()
    }

    /// The visitor's language from now on.
    pub async fn speaks(&self, language: &str) {
        self.sends(&[("Accept-Language", language)]).await;
    }

    /// Adds headers to all that the tab asks for from now on.
    pub async fn sends(&self, headers: &[(&str, &str)]) {
        let headers: HashMap<&str, &str> = headers.iter().copied().collect();
        self.call("Network.setExtraHTTPHeaders", json!({ "headers": headers })).await;
    }

    /// Does what makes the tab load another page, whose address begins like this, and waits until it is there. A page that was
    /// kept for the way back is there at once.
    async fn loads(&self, url: &str, doing: impl Future<Output = Value>) {
        let mut events = self.wire.events.subscribe();
        doing.await;
        let navigated = async {
            loop {
                let event = events.recv().await.expect("the browser runs");
                let is_ours = event["sessionId"] == self.session.as_str() && event["method"] == "Page.frameNavigated";
                if is_ours && event["params"]["frame"]["url"].as_str().is_some_and(|to| to.starts_with(url)) {
                    return;
                }
            }
        };
        timeout(PATIENCE, navigated).await.expect("the tab goes somewhere");
        self.runs(
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', () => done()))",
        )
        .await;
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        self.wire.call(Some(&self.session), method, parameters).await
    }
}

fn tap(selector: &str) -> String {
    format!("document.querySelector({}).click()", json!(selector))
}

impl Wire {
    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        self.waiting().insert(id, sender);
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.input.lock().await.write_all(&bytes).await.expect("the browser reads");
        let reply = timeout(PATIENCE, reply).await.unwrap_or_else(|_| panic!("{method} was not answered"));
        let reply = reply.unwrap_or_else(|_| panic!("the browser ended before it answered {method}"));
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["result"].clone()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Value>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out what the browser says: answers to whoever asked, events to whoever listens.
async fn read(wire: Arc<Wire>, output: ChildStdout) {
    let (mut output, mut message) = (BufReader::new(output), Vec::new());
    while output.read_until(0, &mut message).await.is_ok_and(|length| length > 0) {
        let said: Value = serde_json::from_slice(message.trim_ascii_end().strip_suffix(b"\0").unwrap_or(&message))
            .unwrap_or_else(|error| panic!("the browser speaks no JSON: {error}"));
        message.clear();
        match said["id"].as_u64().and_then(|id| wire.waiting().remove(&id)) {
            Some(waiting) => _ = waiting.send(said),
            // Nobody may be listening.
            None => _ = wire.events.send(said),
        }
    }
    // Who waits hears that it ended.
    wire.waiting().clear();
}

fn started(profile: &TempDir, port: u16) -> Child {
    let name = NAMES.into_iter().find(|name| is_there(name)).unwrap_or_else(|| {
        panic!("there is no browser on this machine ({}); Debian has one in its package `chromium`", NAMES.join(", "))
    });
    // The pipes are to be its third and fourth file; what it prints is for nobody.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", name]).args(FLAGS);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--host-resolver-rules=MAP * 127.0.0.1:{port}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("there is a shell")
}

fn is_there(name: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).any(|directory| directory.join(name).is_file())
}
