//! From an event to its line: at most so many of a kind a second, and the count of the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{Event, Subscriber, callsite};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::limit::{RateLimit, Verdict};
use super::record::Record;
use super::sink::Sink;

/// The destination and the limits; everything that logging changes.
#[derive(Debug)]
pub(super) struct Shared {
    sink: Mutex<Sink>,
    /// One entry per place in the source that ever logged, so bounded by the program.
    limits: Mutex<HashMap<callsite::Identifier, Kind>>,
}

#[derive(Debug, Default)]
struct Kind {
    limit: RateLimit,
    /// The last line of the kind that was suppressed, to say what it was.
    example: Option<Record>,
}

impl Shared {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink: Mutex::new(sink),
            limits: Mutex::default(),
        }
    }

    pub(super) fn with_sink<T>(&self, act: impl FnOnce(&mut Sink) -> T) -> T {
        act(&mut self.sink.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn log(&self, kind: callsite::Identifier, mut record: Record, now: Instant) {
        {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            let kind = limits.entry(kind).or_default();
            match kind.limit.admit(now) {
                Verdict::Suppress => {
                    kind.example = Some(record);
                    return;
                }
                Verdict::Write { suppressed } => record.suppressed = suppressed,
            }
        }
        self.with_sink(|sink| sink.write(&record));
        // A flood that has ended is told with whatever happens next, so that no count waits for its like.
        self.flush_suppressed(now);
    }

    /// Writes what was suppressed, where there is room again; whether there was none for some.
    pub(super) fn flush_suppressed(&self, now: Instant) -> bool {
        let mut records = Vec::new();
        let mut owing = false;
        for kind in self
            .limits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values_mut()
        {
            if let Some(count) = kind.limit.take_suppressed(now)
                && let Some(mut record) = kind.example.take()
            {
                // It is one of those that were suppressed.
                record.suppressed = count - 1;
                records.push(record);
            }
            owing |= kind.limit.owes();
        }
        for record in records {
            self.with_sink(|sink| sink.write(&record));
        }
        owing
    }
}

/// Writes every event it is given.
#[derive(Debug)]
pub(super) struct LineLayer {
    shared: Arc<Shared>,
}

impl LineLayer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let kind = event.metadata().callsite();
        self.shared.log(kind, Record::of(event), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt as _;

    use crate::config::resolved::Facility;

    struct Bench {
        _dir: tempfile::TempDir,
        log: UnixDatagram,
        shared: Arc<Shared>,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let log = UnixDatagram::bind(&path).unwrap();
            log.set_nonblocking(true).unwrap();
            let (sink, complaint) = Sink::open_syslog(&path, Facility::DAEMON, false);
            assert_eq!(complaint, None);
            Self {
                _dir: dir,
                log,
                shared: Arc::new(Shared::new(sink)),
            }
        }

        fn run(&self, act: impl FnOnce()) {
            let subscriber = tracing_subscriber::registry().with(LineLayer::new(Arc::clone(&self.shared)));
            tracing::subscriber::with_default(subscriber, act);
        }

        fn lines(&self) -> Vec<String> {
            let mut lines = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(len) = self.log.recv(&mut buffer) {
                let line = String::from_utf8(buffer[..len].to_vec()).unwrap();
                lines.push(line.replace(&format!("isatapd[{}]: ", std::process::id()), ""));
            }
            lines
        }
    }

    #[test]
    fn fields_levels_and_hostile_text() {
        let bench = Bench::new();
        let hostile = "evil\n<0>root: \u{1b}[2J\u{202e}";
        bench.run(|| {
            tracing::error!("gone");
            tracing::warn!(router = %"192.0.2.1", count = 3, "router is silent");
            tracing::info!(name = hostile, "resolved {hostile}");
            tracing::debug!("why");
        });
        let expected = [
            "<27>gone",
            "<28>router is silent router=192.0.2.1 count=3",
            r"<30>resolved evil\n<0>root: \u{1b}[2J\u{202e}",
            "<31>why",
        ];
        assert_eq!(bench.lines(), expected);
    }

    /// FAULTS 70.
    #[test]
    fn a_flood_of_one_kind_is_counted_and_leaves_others_alone() {
        let bench = Bench::new();
        bench.run(|| {
            for number in 0..1000 {
                tracing::warn!(number, "bad packet");
            }
            tracing::info!("something else");
        });
        let lines = bench.lines();
        let floods = lines.iter().filter(|line| line.contains("bad packet")).count();
        // A loaded machine may need more than a second for a thousand lines.
        assert!(
            (super::super::LINES_PER_SECOND..1000).contains(&floods),
            "{lines:#?}"
        );
        assert_eq!(lines.last().unwrap(), "<30>something else");
        bench
            .shared
            .flush_suppressed(Instant::now() + Duration::from_secs(2));
        let lines = bench.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("<28>bad packet number=999 ("), "{lines:?}");
    }

    #[test]
    fn what_was_suppressed_is_told_with_the_next_line_of_any_kind() {
        let bench = Bench::new();
        let start = Instant::now();
        bench.run(|| tracing::info!("a kind"));
        let kinds: Vec<_> = bench.shared.limits.lock().unwrap().keys().cloned().collect();
        bench.run(|| tracing::info!("another kind"));
        let another = bench
            .shared
            .limits
            .lock()
            .unwrap()
            .keys()
            .find(|kind| !kinds.contains(kind))
            .cloned()
            .unwrap();
        bench.lines();
        let later = start + Duration::from_secs(60);
        for number in 0..25 {
            let record = Record::plain(Level::INFO, &format!("flood {number}"));
            bench.shared.log(kinds[0].clone(), record, later);
        }
        assert_eq!(bench.lines().len(), super::super::LINES_PER_SECOND);
        // Whoever comes too early is told to come again.
        assert!(bench.shared.flush_suppressed(later + Duration::from_millis(999)));
        assert_eq!(bench.lines().len(), 0);
        let quiet = Record::plain(Level::INFO, "quiet");
        bench.shared.log(another, quiet, later + Duration::from_secs(1));
        assert_eq!(
            bench.lines(),
            ["<30>quiet", "<30>flood 24 (14 similar lines suppressed)"]
        );
    }
}
