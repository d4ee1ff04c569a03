//! Looks names up: hosts file first, then DNS, with the machine's own settings (RFC 5214 8.3.2; FAULTS 46, 47).
//!
//! Nothing is cached here: `names` keeps what its TTL allows. Both files are read anew at each lookup, through
//! directories that were opened before the change of root, so that a laptop that moved, or a reload, needs nothing else.
//!
//! ```text
//!  start(names) --> a task each --> files (blocking thread) --> dns --> next() -> (name, result)
//! ```

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::names::{Answer, LookupError, MAX_NAMES};

mod check;
mod dns;
mod files;

pub use check::check;
pub use dns::{Questions, answer, questions};
use files::Files;

/// Longest time of one lookup, whatever it meets.
pub const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// A way to look names up, made before the change of root.
#[derive(Clone, Debug)]
pub struct Resolver {
    files: Arc<Files>,
}

impl Resolver {
    /// Finds `/etc/resolv.conf` and `/etc/hosts`. Neither has to exist: what is not there is looked for again at each
    /// lookup.
    pub fn open() -> Self {
        Self {
            files: Arc::new(Files::open()),
        }
    }

    /// The directories that both files are read in again.
    pub fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.files.directories()
    }

    /// Looks one name up; takes at most [`LOOKUP_LIMIT`] and keeps nothing else from running.
    ///
    /// # Errors
    /// There is no such name, it has no IPv4 address, or nobody knows now.
    pub async fn look_up(&self, name: &str) -> Result<Answer, LookupError> {
        let lookup = self.look_up_unbounded(name.to_owned());
        match tokio::time::timeout(LOOKUP_LIMIT, lookup).await {
            Ok(result) => result,
            Err(_) => Err(LookupError::Temporary(format!(
                "no answer within {} s",
                LOOKUP_LIMIT.as_secs()
            ))),
        }
    }

    async fn look_up_unbounded(&self, name: String) -> Result<Answer, LookupError> {
        let (files, wanted) = (Arc::clone(&self.files), name.clone());
        let read = tokio::task::spawn_blocking(move || (files.host(&wanted), files.resolv_conf()));
        let failed = |error| LookupError::Temporary(format!("the reader of the hosts file failed: {error}"));
        let (host, resolv_conf) = read.await.map_err(failed)?;
        if !host.is_empty() {
            return Ok(Answer {
                addrs: host,
                ttl: Duration::ZERO,
                from_hosts_file: true,
            });
        }
        let settings = dns::Settings::parse(&resolv_conf.map_err(LookupError::Temporary)?);
        dns::look_up(&settings, &name).await
    }
}

type Report = (String, Result<Answer, LookupError>);

/// Starts lookups in the control loop.
#[derive(Clone, Debug)]
pub struct Lookups {
    resolver: Resolver,
    report: mpsc::Sender<Report>,
}

/// Where they end.
#[derive(Debug)]
pub struct Results {
    results: mpsc::Receiver<Report>,
}

/// Both ends.
pub fn lookups(resolver: Resolver) -> (Lookups, Results) {
    let (report, results) = mpsc::channel(MAX_NAMES);
    (Lookups { resolver, report }, Results { results })
}

impl Lookups {
    /// Starts looking each name up. Must be called inside the runtime.
    pub fn start(&self, names: Vec<String>) {
        for name in names {
            let lookups = self.clone();
            tokio::spawn(async move {
                let result = lookups.resolver.look_up(&name).await;
                // Fails when nobody listens any more: the daemon ends.
                let _ = lookups.report.send((name, result)).await;
            });
        }
    }
}

impl Results {
    /// The next name with its result; never, once nobody can start lookups. May be dropped and called again.
    pub async fn next(&mut self) -> (String, Result<Answer, LookupError>) {
        match self.results.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }
}
