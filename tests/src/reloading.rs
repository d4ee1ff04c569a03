//! A daemon whose configuration is changed name by name, while traffic goes through it: what changed, and what else did.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, METRICS};
use crate::scene::SOON;
use crate::state;

/// A name of the configuration as the example file documents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documented {
    /// Its spelling.
    pub name: String,
    /// A reload puts a change in force.
    pub live: bool,
}

/// Every name of the example file.
///
/// # Panics
/// When the source tree is gone, or a name says neither `[live]` nor `[restart]`.
pub fn documented() -> Vec<Documented> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/isatapd.conf");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut comment, mut all) = (String::new(), Vec::new());
    for line in text.lines() {
        match line.strip_prefix('#') {
            None => comment.clear(),
            Some(prose) if prose.is_empty() || prose.starts_with(' ') => comment.push_str(prose),
            Some(example) => {
                let live = comment.contains("[live]");
                assert!(live || comment.contains("[restart]"), "{example}: {comment}");
                let name = example.split_whitespace().next().expect("a name").to_owned();
                let known = all.iter().any(|known: &Documented| known.name == name);
                if !known {
                    all.push(Documented { name, live });
                }
            }
        }
    }
    all
}

/// `base` with `line` in place of its lines of the same name.
pub fn with_line(base: &str, line: &str) -> String {
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_lowercase();
    let kept = base.lines().filter(|old| name(old) != name(line));
    let lines: Vec<_> = kept.chain(line.lines()).collect();
    lines.join("\n") + "\n"
}

/// What a change of one name must leave alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Untouched {
    /// The other names, as they are in force.
    configuration: BTreeMap<String, Vec<String>>,
    if_index: u64,
    pid: u64,
}

/// The status document.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn status(daemon: &Daemon<'_>) -> Value {
    let output = daemon.ctl("status --json");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The values of one name in force.
#[track_caller]
pub fn in_force(daemon: &Daemon<'_>, name: &str) -> Vec<String> {
    configuration(&status(daemon)).remove(name).unwrap_or_default()
}

fn configuration(status: &Value) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in status["configuration"].as_array().expect("a list") {
        let text = |field: &str| line[field].as_str().expect("text").to_owned();
        all.entry(text("name")).or_default().push(text("value"));
    }
    all
}

impl Untouched {
    /// Looks at `daemon`, but for the name that is about to change.
    #[track_caller]
    pub fn look(daemon: &Daemon<'_>, changing: &str) -> Self {
        let status = status(daemon);
        let mut configuration = configuration(&status);
        configuration.remove(changing);
        Self {
            configuration,
            if_index: status["interface"]["index"].as_u64().expect("an index"),
            pid: status["pid"].as_u64().expect("a pid"),
        }
    }
}

/// What the daemon holds for as long as it lives: files, sockets and event queues by their numbers in the kernel.
/// Connections come and go: what is there at each of several looks is none.
#[track_caller]
pub fn lasting(daemon: &Daemon<'_>) -> BTreeMap<String, usize> {
    let mut all = state::open_files(daemon.pid());
    for _ in 0..5 {
        // A connection of its own to either socket.
        status(daemon);
        daemon.metrics();
        let now = state::open_files(daemon.pid());
        all.retain(|name, _| now.contains_key(name));
        for (name, count) in &mut all {
            *count = (*count).min(now[name]);
        }
    }
    all
}

/// Everything in `held` is held still.
///
/// # Panics
/// When not.
#[track_caller]
pub fn assert_holds(daemon: &Daemon<'_>, held: &BTreeMap<String, usize>) {
    let now = state::open_files(daemon.pid());
    let gone = |(name, count): &(&String, &usize)| now.get(*name).copied().unwrap_or(0) < **count;
    let gone: Vec<_> = held.iter().filter(gone).collect();
    assert!(gone.is_empty(), "closed: {gone:?}");
}

/// A connection to the control socket that stays.
#[derive(Debug)]
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(daemon: &Daemon<'_>) -> Self {
        let stream = UnixStream::connect(daemon.folder().join("control.sock")).expect("the control socket");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// Asks for a reload: what changed, or why it was refused.
    ///
    /// # Errors
    /// The daemon's words.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn reload(&mut self) -> Result<Vec<String>, String> {
        let request = b"{\"version\":1,\"command\":\"reload\"}\n";
        self.0.get_mut().write_all(request).expect("a request");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        match answer["ok"].take() {
            Value::Null => Err(answer["error"]["message"].as_str().expect("a reason").to_owned()),
            changes => Ok(serde_json::from_value(changes).expect("lines")),
        }
    }
}

/// A connection to the metrics page that stays, as a scraper's does.
#[derive(Debug)]
pub struct Scraper(BufReader<TcpStream>);

impl Scraper {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(daemon: &Daemon<'_>) -> Self {
        let address: SocketAddr = METRICS.parse().expect("an address");
        let stream = daemon
            .ns()
            .enter(|| TcpStream::connect(address).expect("the metrics page"));
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// Asks for the page once more on the same connection, and reads it.
    ///
    /// # Panics
    /// When the connection is no more.
    #[track_caller]
    pub fn scrape(&mut self) -> String {
        let request = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";
        self.0
            .get_mut()
            .write_all(request)
            .expect("the connection is open");
        let mut len = 0;
        loop {
            let mut line = String::new();
            let count = self.0.read_line(&mut line).expect("an answer");
            assert_ne!(count, 0, "the connection was closed");
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                len = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).expect("the page");
        String::from_utf8(body).expect("text")
    }
}
