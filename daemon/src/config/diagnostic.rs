//! What is wrong with a configuration, where, and what was expected instead.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use crate::exit::{ExitError, ExitStatus};

/// Longest piece of the operator's own text repeated in a message, in characters.
const MAX_QUOTED_CHARS: usize = 64;

/// Largest number of diagnostics printed for one file; the rest is only counted.
pub const MAX_DIAGNOSTICS: usize = 100;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place in the configuration file. Lines and columns (characters, not bytes) count from 1.
    File {
        /// The file as the operator named it, control characters escaped.
        file: Arc<str>,
        /// Line.
        line: u32,
        /// Column.
        column: u32,
    },
    /// An argument of the command line, such as `--user`.
    Argument(&'static str),
    /// Nobody wrote it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}: "),
            Self::Argument(name) => write!(f, "command line: {name}: "),
            Self::Default => Ok(()),
        }
    }
}

/// A value together with where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub origin: Origin,
    /// What, with the offending text and what was expected.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.message)
    }
}

/// Everything that is wrong with a configuration: at least one diagnostic, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    diagnostics: Vec<Diagnostic>,
    status: ExitStatus,
}

impl ConfigError {
    /// Wrong configuration, status 78.
    pub fn new(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            diagnostics,
            status: ExitStatus::Config,
        }
    }

    /// A single finding without a place in a file.
    pub fn single(message: impl Into<String>) -> Self {
        Self::new(vec![Diagnostic {
            origin: Origin::Default,
            message: message.into(),
        }])
    }

    /// The findings.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// What the process ends with if this stops it.
    pub fn status(&self) -> ExitStatus {
        self.status
    }
}

impl fmt::Display for ConfigError {
    /// One line per finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().take(MAX_DIAGNOSTICS).enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{diagnostic}")?;
        }
        match self.diagnostics.len().checked_sub(MAX_DIAGNOSTICS) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n... and {more} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for ExitError {
    fn from(error: ConfigError) -> Self {
        Self::new(error.status, error.to_string())
    }
}

/// `text` in quotes with everything a terminal could misread escaped, cut to a readable length.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        if index == MAX_QUOTED_CHARS {
            out.push_str("...");
            break;
        }
        out.extend(character.escape_debug());
    }
    out.push('"');
    out
}

/// A path for a message: control characters escaped, not quoted, so that it can be clicked on and copied.
pub fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .flat_map(char::escape_debug)
        .collect()
}

/// Of `known`, what the writer of `text` most likely meant, if anything comes near.
pub fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong, at least one: more would suggest nonsense.
    let allowed = (text.chars().count() / 3).max(1);
    let lower = text.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let names = ["InterfaceName", "Mtu", "Ttl"];
        assert_eq!(did_you_mean("interfacname", names), Some("InterfaceName"));
        assert_eq!(did_you_mean("mut", names), Some("Mtu"));
        assert_eq!(did_you_mean("Frobnicate", names), None);
        assert_eq!(did_you_mean("", names), None);
    }

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        assert_eq!(quoted("a\u{1b}[2J\"\u{202e}"), r#""a\u{1b}[2J\"\u{202e}""#);
        assert_eq!(quoted(&"x".repeat(70)), format!("\"{}...\"", "x".repeat(64)));
        assert_eq!(shown(Path::new("/etc/a\nb")), r"/etc/a\nb");
    }

    #[test]
    fn a_flood_of_findings_is_cut_and_counted() {
        let one = Diagnostic {
            origin: Origin::Default,
            message: "wrong".into(),
        };
        let error = ConfigError::new(vec![one; MAX_DIAGNOSTICS + 7]);
        let text = error.to_string();
        assert_eq!(text.lines().count(), MAX_DIAGNOSTICS + 1);
        assert!(text.ends_with("\n... and 7 more"));
    }
}
