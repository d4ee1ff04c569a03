//! A headless Chromium in a namespace, driven over its debugging pipe: what a person would see and click.
//!
//! Everything the page asks for, logs or throws is kept, so that a test can say there was nothing of the kind.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::netns::Netns;

/// How long one answer of the browser may take; it shares two cores with what it looks at.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: File,
    messages: Receiver<Value>,
    next_id: u64,
    session: Option<String>,
    /// Addresses the page asked for.
    pub requests: Vec<String>,
    /// What was logged as an error or warning, or thrown.
    pub complaints: Vec<String>,
    folder: TempDir,
}

impl Browser {
    /// Whether Chromium is installed.
    pub fn is_installed() -> bool {
        Command::new("chromium")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Starts it in `ns` with an empty page.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(ns: &Netns) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [input, output] = ["input", "output"].map(|name| folder.path().join(name));
        for fifo in [&input, &output] {
            nix::unistd::mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a FIFO");
        }
        let arguments = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                         --disable-background-networking --disable-component-update --disable-sync --mute-audio \
                         --remote-debugging-pipe";
        // The browser reads commands from descriptor 3 and writes to descriptor 4.
        let script = format!(
            "exec chromium {arguments} --user-data-dir='{}' about:blank 3<'{}' 4>'{}'",
            folder.path().join("profile").display(),
            input.display(),
            output.display()
        );
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", &script]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = ns.spawn(&mut command);
        // Opened for both so that nobody waits for the other end.
        let open = |path: &Path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .expect("open a FIFO")
        };
        let (input, output) = (open(&input), open(&output));
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    continue;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            next_id: 0,
            session: None,
            requests: Vec::new(),
            complaints: Vec::new(),
            folder,
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = self.call(
            "Target.attachToTarget",
            json!({"targetId": target, "flatten": true}),
        );
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        assert!(self.session.is_some(), "no session: {attached}");
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Sends a command and waits for its answer; events that come meanwhile are kept.
    ///
    /// # Panics
    /// When the browser refuses it, or does not answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).expect("write to the browser");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .messages
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("{method}: the browser does not answer: {error}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => self.requests.push(text(&parameters["request"]["url"])),
            "Runtime.exceptionThrown" => self.complaints.push(parameters["exceptionDetails"].to_string()),
            "Log.entryAdded" if parameters["entry"]["level"] != "info" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            "Runtime.consoleAPICalled" if parameters["type"] != "log" => {
                self.complaints.push(parameters["args"].to_string());
            }
            _ => {}
        }
    }

    /// Goes to `url`.
    pub fn open(&mut self, url: &str) {
        let result = self.call("Page.navigate", json!({"url": url}));
        assert!(result["errorText"].is_null(), "{url}: {result}");
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true}),
        );
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {}",
            result["exceptionDetails"]
        );
        result["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Panics
    /// When it does not become true in time.
    pub fn wait_until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.evaluate(&format!("Boolean({expression})")) != true {
            assert!(
                Instant::now() < deadline,
                "never true: {expression}\n{:#?}",
                self.complaints
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Clicks the first element of a selector as a mouse would: where it is.
    pub fn click(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            self.call(
                "Input.dispatchMouseEvent",
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}),
            );
        }
    }

    /// Makes the window so large, in CSS pixels, dark or light.
    pub fn window(&mut self, width: u32, height: u32, dark: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
        );
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": feature}));
    }

    /// Writes a picture of the whole page for people to look at; gives its bytes as base64.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn picture(&mut self, path: &Path) -> String {
        let shot = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": true}),
        );
        let data = text(&shot["data"]);
        let encoded = self.folder.path().join("picture");
        fs::write(&encoded, &data).expect("write a picture");
        let decoded = Command::new("base64")
            .arg("-d")
            .arg(&encoded)
            .output()
            .expect("run base64");
        fs::write(path, decoded.stdout).expect("write a picture");
        data
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It has helpers of its own, all in its session's group.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
