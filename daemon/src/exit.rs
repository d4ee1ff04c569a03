//! Exit statuses, and the error that carries one to `main` together with its remedy.
//!
//! The numbers are those of CONTRACT.md (sysexits where sysexits has one); scripts depend on them.

use std::fmt;

/// What a process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Everything was done.
    Ok = 0,
    /// None of the others.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Something needed is not there, or somebody else holds it (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The caller may not do this (`EX_NOPERM`).
    NotPermitted = 77,
    /// Something named by the configuration or the command line cannot be used (`EX_CONFIG`).
    Config = 78,
}

impl ExitStatus {
    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status with this number; numbers of no meaning here become [`ExitStatus::Other`].
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            2 => Self::Usage,
            69 => Self::Unavailable,
            77 => Self::NotPermitted,
            78 => Self::Config,
            _ => Self::Other,
        }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// An error that ends the program: which status, what happened, and what the operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitError {
    status: ExitStatus,
    message: String,
    remedy: Option<String>,
}

impl ExitError {
    /// An error of any status.
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            remedy: None,
        }
    }

    /// Status 69: something needed is unavailable or held by somebody else.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Unavailable, message)
    }

    /// Status 77: not permitted.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::NotPermitted, message)
    }

    /// Status 78: the configuration cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Config, message)
    }

    /// Status 1: anything else.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Other, message)
    }

    /// Status 77 when `error` says "not permitted", else `otherwise`: for calls that fail for both reasons.
    pub fn from_io(error: &std::io::Error, otherwise: ExitStatus, context: impl fmt::Display) -> Self {
        let status = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ExitStatus::NotPermitted,
            _ => otherwise,
        };
        let message = format!("{context}: {error}");
        match error.raw_os_error().and_then(remedy_of_limit) {
            Some(remedy) => Self::unavailable(message).with_remedy(remedy),
            None => Self::new(status, message),
        }
    }

    /// The same error with the sentence that tells the operator what to change, unless the limit that was reached says that itself.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy.get_or_insert_with(|| remedy.into());
        self
    }

    /// What the process ends with.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// What happened, without the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if there is something to say.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

/// What to do about a limit, whatever it was that did not fit.
fn remedy_of_limit(errno: i32) -> Option<&'static str> {
    use nix::libc::{EAGAIN, EFBIG, EMFILE, ENFILE, ENOSPC};
    match errno {
        EMFILE => Some("raise LimitNOFILE= of the unit, or ulimit -n; each worker takes some"),
        ENFILE => Some("raise sysctl fs.file-max"),
        // Of a process or a thread that was to be started: nothing else that is said with an exit status would have to wait.
        EAGAIN => Some(
            "raise TasksMax= and LimitNPROC= of the unit, or ulimit -u; each worker is a thread, whose stack LimitAS= (ulimit -v) may be too small for",
        ),
        EFBIG => Some("raise LimitFSIZE= of the unit, or ulimit -f"),
        ENOSPC => Some("make room on that file system, or choose another place"),
        _ => None,
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            Some(remedy) => write!(f, "{}; {remedy}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ExitError {}

/// Prints `error` on standard error, each line with the name of the program; that nobody reads it is no reason to panic.
pub fn report(error: &ExitError) {
    report_as("isatapd", error);
}

/// The same for another program.
pub fn report_as(program: &str, error: &ExitError) {
    use std::io::Write as _;
    // The journal takes lines for information unless they begin like this (sd-daemon(3)).
    let priority = if crate::launch::log::journal_is_standard_error() {
        "<3>"
    } else {
        ""
    };
    for line in error.to_string().lines() {
        let line = crate::launch::log::escaped(line);
        let _ = writeln!(std::io::stderr(), "{priority}{program}: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_scripts_depend_on() {
        let all = [
            (ExitStatus::Ok, 0),
            (ExitStatus::Other, 1),
            (ExitStatus::Usage, 2),
            (ExitStatus::Unavailable, 69),
            (ExitStatus::NotPermitted, 77),
            (ExitStatus::Config, 78),
        ];
        for (status, code) in all {
            assert_eq!(status.code(), code);
            assert_eq!(ExitStatus::from_code(code), status);
        }
        assert_eq!(ExitStatus::from_code(139), ExitStatus::Other);
    }

    #[test]
    fn an_error_says_what_and_what_to_do() {
        let error =
            ExitError::unavailable("interface is0 is taken").with_remedy("choose another InterfaceName");
        assert_eq!(
            error.to_string(),
            "interface is0 is taken; choose another InterfaceName"
        );
        assert_eq!(error.status(), ExitStatus::Unavailable);
    }

    /// FAULTS 66: whoever names a remedy of his own does not know that there is a limit.
    #[test]
    fn a_limit_says_itself_who_raises_it() {
        for (errno, says) in [
            (nix::libc::EMFILE, "LimitNOFILE="),
            (nix::libc::EAGAIN, "TasksMax="),
            (nix::libc::EFBIG, "LimitFSIZE="),
            (nix::libc::ENOSPC, "make room"),
        ] {
            let error = std::io::Error::from_raw_os_error(errno);
            let error = ExitError::from_io(&error, ExitStatus::Config, "x").with_remedy("choose another");
            assert_eq!(error.status(), ExitStatus::Unavailable);
            assert!(error.remedy().unwrap().contains(says), "{error}");
        }
        let other = std::io::Error::from_raw_os_error(nix::libc::EROFS);
        let other = ExitError::from_io(&other, ExitStatus::Config, "x").with_remedy("choose another");
        assert_eq!(
            (other.status(), other.remedy()),
            (ExitStatus::Config, Some("choose another"))
        );
    }

    #[test]
    fn permission_errors_have_their_own_status() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(
            ExitError::from_io(&denied, ExitStatus::Config, "x").status(),
            ExitStatus::NotPermitted
        );
        assert_eq!(
            ExitError::from_io(&missing, ExitStatus::Config, "x").status(),
            ExitStatus::Config
        );
    }
}
