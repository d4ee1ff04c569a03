//! One event as its parts: what happened in words, the values in it by name, the place in the source.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// Longest message and longest value in bytes; the system log cuts at about this length anyway.
pub(super) const MAX_TEXT_LEN: usize = 2048;

/// An event to be written. Nothing in it moves a cursor or begins a line: FAULTS 74.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, String)>,
    /// Where in the source, if the compiler said so.
    pub(super) place: Option<(&'static str, u32)>,
    /// How many of its kind were not written before it.
    pub(super) suppressed: u64,
}

impl Record {
    /// A message without values.
    pub(super) fn plain(level: Level, message: &str) -> Self {
        Self {
            level,
            message: cut(escaped(message)),
            fields: Vec::new(),
            place: None,
            suppressed: 0,
        }
    }

    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let metadata = event.metadata();
        let mut record = Self::plain(*metadata.level(), &parts.message);
        let values = parts.fields.into_iter();
        record.fields = values.map(|(name, value)| (name, cut(escaped(&value)))).collect();
        record.place = metadata.file().zip(metadata.line());
        record
    }

    /// The whole in one line: values that the message does not say already follow it by name.
    pub(super) fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.fields {
            if !says(&self.message, value) {
                if !line.is_empty() {
                    line.push(' ');
                }
                let _ = write!(line, "{name}={value}");
            }
        }
        if self.suppressed > 0 {
            let _ = write!(line, " ({} similar lines suppressed)", self.suppressed);
        }
        cut(line)
    }
}

/// Whether a value is in a message as a word, or as several: `1` is not in `10.0.0.1`, an address is in its prefix.
fn says(message: &str, value: &str) -> bool {
    if value.contains(char::is_whitespace) {
        return message.contains(value);
    }
    let mut words = message.split_whitespace();
    words.any(|word| {
        let bare = word.trim_matches(|c| ",;:.()\"'".contains(c));
        [word, bare].contains(&value) || bare.split_once('/').is_some_and(|(head, _)| head == value)
    })
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

impl Parts {
    fn take(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT_LEN {
        let end = (0..=MAX_TEXT_LEN)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
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

    #[test]
    fn values_that_the_message_says_are_not_said_twice() {
        let mut record = Record::plain(Level::INFO, "router 192.0.2.1: usable -> unreachable");
        record.fields = vec![
            ("router", "192.0.2.1".into()),
            ("state", "unreachable".into()),
            ("silent_seconds", "30".into()),
        ];
        assert_eq!(
            record.line(),
            "router 192.0.2.1: usable -> unreachable silent_seconds=30"
        );
        let mut address = Record::plain(Level::INFO, "address fe80::1/64");
        address.fields.push(("address", "fe80::1".into()));
        assert_eq!(address.line(), "address fe80::1/64");
        record.fields.push(("count", "1".into()));
        assert!(record.line().ends_with(" count=1"), "{}", record.line());
        record.fields.pop();
        record.suppressed = 4;
        assert!(
            record
                .line()
                .ends_with(" silent_seconds=30 (4 similar lines suppressed)")
        );
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let record = Record::plain(Level::INFO, &"ä".repeat(3000));
        let expected = format!("{}...", "ä".repeat(MAX_TEXT_LEN / 2));
        assert_eq!(record.message, expected);
        assert_eq!(
            record.line().len(),
            MAX_TEXT_LEN + "...".len(),
            "cut once more, and no longer"
        );
    }
}
