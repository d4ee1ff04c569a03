//! `isatapctl doctor`: what on this machine stands in the way of the tunnel, each with the remedy.
//!
//! ```text
//!  Sight: what the machine says (files of /proc, outputs of ip, nft, ethtool) and the daemon's status
//!    -> checks: pure, one function for each trap -> findings -> text, and exit status 1 if one is an obstacle
//! ```

mod checks;
mod filters;
mod machine;
mod sight;

use std::path::Path;

use super::client::Client;
use crate::ops::protocol::Command;
use sight::Sight;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// Looked at, and in order.
    Fine,
    /// Could not be looked at, or is worth knowing.
    Note,
    /// Works, but not as well as it could, or not for long.
    Warning,
    /// The tunnel cannot work like this.
    Obstacle,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    /// What was looked at, in two or three words.
    pub(super) subject: &'static str,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; empty when nothing is to be done.
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn fine(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Grade::Fine, subject, found, "")
    }

    pub(super) fn new(
        grade: Grade,
        subject: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            grade,
            subject,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

/// Looks at this machine, and at the daemon behind `socket` if there is one: the report, and how much stands in the way.
pub fn run(socket: &Path) -> (String, usize) {
    let status = Client::connect(socket).and_then(|mut client| client.get(Command::Status));
    let sight = Sight::of_this_machine(status.map_err(|error| error.message().to_owned()));
    let findings = checks::all(&sight);
    let obstacles = findings.iter().filter(|finding| finding.grade == Grade::Obstacle);
    (report(&findings), obstacles.count())
}

/// The findings as text, the worst last, where the eye is.
fn report(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.grade);
    let mut text = String::new();
    for finding in sorted {
        let mark = match finding.grade {
            Grade::Fine => "ok",
            Grade::Note => "note",
            Grade::Warning => "WARNING",
            Grade::Obstacle => "OBSTACLE",
        };
        text.push_str(&format!("{mark:<9} {:<17} {}\n", finding.subject, finding.found));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("{:<27} -> {}\n", "", finding.remedy));
        }
    }
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    text.push_str(&format!(
        "\n{} obstacle(s), {} warning(s), {} looked at\n",
        count(Grade::Obstacle),
        count(Grade::Warning),
        findings.len()
    ));
    text
}
