//! From an event to one line of text: the message, then `name=value` for each field, control characters escaped.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, callsite};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::limit::{RateLimit, Verdict};
use super::sink::Sink;

/// Longest line in bytes; the system log cuts at about this length anyway.
const MAX_LINE_LEN: usize = 2048;

/// The destination and the limits; everything that logging changes.
#[derive(Debug)]
pub(super) struct Shared {
    sink: Mutex<Sink>,
    /// One entry per place in the source that ever logged, so bounded by the program.
    limits: Mutex<HashMap<callsite::Identifier, Kind>>,
}

#[derive(Debug)]
struct Kind {
    limit: RateLimit,
    level: Level,
    /// A line of the kind, to say what was suppressed.
    example: String,
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

    fn log(&self, kind: callsite::Identifier, level: Level, line: String, now: Instant) {
        let verdict = {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Kind {
                limit: RateLimit::default(),
                level,
                example: String::new(),
            };
            let kind = limits.entry(kind).or_insert_with(new);
            let verdict = kind.limit.admit(now);
            if verdict == Verdict::Suppress {
                kind.example.clone_from(&line);
            }
            verdict
        };
        match verdict {
            Verdict::Suppress => return,
            Verdict::Write { suppressed: 0 } => self.with_sink(|sink| sink.write(level, &line)),
            Verdict::Write { suppressed } => {
                self.with_sink(|sink| {
                    sink.write(level, &format!("{line} ({suppressed} similar lines suppressed)"))
                });
            }
        }
        // A flood that has ended is told with whatever happens next, so that no count waits for its like.
        self.flush_suppressed(now);
    }

    pub(super) fn flush_suppressed(&self, now: Instant) {
        let mut lines = Vec::new();
        for kind in self
            .limits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values_mut()
        {
            if let Some(count) = kind.limit.take_suppressed(now) {
                lines.push((
                    kind.level,
                    format!("{} ({} similar lines suppressed)", kind.example, count - 1),
                ));
            }
        }
        for (level, line) in lines {
            self.with_sink(|sink| sink.write(level, &line));
        }
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
        let mut text = LineText::default();
        event.record(&mut text);
        let metadata = event.metadata();
        self.shared.log(
            metadata.callsite(),
            *metadata.level(),
            text.finish(),
            Instant::now(),
        );
    }
}

#[derive(Default)]
struct LineText {
    message: String,
    fields: String,
}

impl Visit for LineText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

impl LineText {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        let mut line = escaped(self.message.trim_start());
        if line.len() > MAX_LINE_LEN {
            let end = (0..=MAX_LINE_LEN)
                .rev()
                .find(|at| line.is_char_boundary(*at))
                .unwrap_or(0);
            line.truncate(end);
            line.push_str("...");
        }
        line
    }
}

/// `text` in one line that moves no cursor: control characters and those that turn the direction of text are escaped.
/// For names that came from outside, whether a log, a page or a terminal shows them. FAULTS 74.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let turns =
            matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

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
            r#"<30>resolved evil\n<0>root: \u{1b}[2J\u{202e} name="evil\n<0>root: \u{1b}[2J\u{202e}""#,
            "<31>why",
        ];
        assert_eq!(bench.lines(), expected);
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let bench = Bench::new();
        bench.run(|| tracing::info!("{}", "ä".repeat(3000)));
        let line = bench.lines().remove(0);
        assert_eq!(line, format!("<30>{}...", "ä".repeat(MAX_LINE_LEN / 2)));
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
            bench
                .shared
                .log(kinds[0].clone(), Level::INFO, format!("flood {number}"), later);
        }
        assert_eq!(bench.lines().len(), super::super::LINES_PER_SECOND);
        bench.shared.log(
            another,
            Level::INFO,
            "quiet".into(),
            later + Duration::from_secs(1),
        );
        assert_eq!(
            bench.lines(),
            ["<30>quiet", "<30>flood 24 (14 similar lines suppressed)"]
        );
    }
}
