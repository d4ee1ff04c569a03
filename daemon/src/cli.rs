//! The command line of `isatapd`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::config::Overrides;
use crate::config::engine_types::MAX_WORKERS;
use crate::config::resolved::Lane;
use crate::config::values::{self, Host, Refusal};
use crate::exit::ExitStatus;
use crate::launch::detach::READY_ON_STDIN;

/// What the program is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Run(Options),
    /// Say what would run, and end.
    Check(Options),
    /// Say the version and what the kernel offers, and end.
    Version,
}

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration file, absolute, if one is named.
    pub config: Option<PathBuf>,
    /// Stay on the console.
    pub foreground: bool,
    /// This is the daemon that a launcher started.
    pub ready_on_stdin: bool,
    /// What wins over the file.
    pub overrides: Overrides,
}

impl Options {
    /// A command line that says the same, wherever it is read: for another process of this daemon.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([OsString::from(name), value]);
            }
        };
        let overrides = &self.overrides;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.clone().into_os_string());
        option("--config", path(&self.config));
        option(
            "--workers",
            overrides.workers.map(|count| count.to_string().into()),
        );
        let word = overrides.lane.and_then(|lane| {
            let known = Lane::WORDS.iter().find(|(_, known)| *known == lane);
            known.map(|(word, _)| OsString::from(word))
        });
        option("--lane", word);
        option("--user", overrides.user.as_ref().map(OsString::from));
        option("--chrootdir", path(&overrides.chroot_dir));
        option("--pidfile", path(&overrides.pidfile));
        arguments.push("--".into());
        arguments.extend(overrides.routers.iter().map(|router| match router {
            Host::Addr(addr) => addr.to_string().into(),
            Host::Name(name) => name.into(),
        }));
        arguments
    }
}

/// A command line that ends the program: help, or a mistake.
#[derive(Debug)]
pub struct Stop(clap::Error);

impl Stop {
    /// Prints the help to standard output, or the mistake to standard error; gives the exit status.
    pub fn report(&self) -> ExitStatus {
        let _ = self.0.print();
        match self.0.kind() {
            ErrorKind::DisplayHelp => ExitStatus::Ok,
            _ => ExitStatus::Usage,
        }
    }

    /// What would be printed.
    pub fn text(&self) -> String {
        self.0.to_string()
    }
}

/// Carries IPv6 over the IPv4 network of a site (ISATAP, RFC 5214).
///
/// With a ROUTER, here or in the configuration file, this is an ISATAP host; without, an ISATAP router.
#[derive(Debug, Parser)]
#[command(name = "isatapd", disable_version_flag = true, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 ok, 2 usage, 69 something needed is unavailable, 77 not permitted, \
    78 configuration, 1 other.\nSignals: HUP reload, INT and TERM stop, USR1 statistics to the log, USR2 reopen logs."
)]
struct Arguments {
    /// Configuration file; it must exist if it is named [default: /etc/isatapd.conf]
    #[arg(short, long, visible_alias = "conf", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Stay on the console and log to standard error
    #[arg(short, long)]
    foreground: bool,

    /// File for the process id, locked while the daemon runs [default: /var/run/isatapd.pid]
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,

    /// Root directory after start; made if it does not exist [default: /var/empty/isatapd]
    #[arg(short = 't', long, visible_alias = "chroot", value_name = "DIR")]
    chrootdir: Option<PathBuf>,

    /// Unprivileged user to become [default: nobody]
    #[arg(short, long, visible_alias = "username", value_name = "NAME", value_parser = user)]
    user: Option<String>,

    /// Worker threads [default: number of usable cores]
    #[arg(short, long, value_name = "N", value_parser = workers)]
    workers: Option<usize>,

    /// How packets are carried: auto, ebpf, uring or syscall [default: auto]
    #[arg(long, value_name = "LANE", value_parser = lane)]
    lane: Option<Lane>,

    /// Read and resolve the configuration, print what would run, and exit with 0 or 78
    #[arg(long)]
    check_config: bool,

    /// Print the version and the kernel features found
    #[arg(short = 'V', long)]
    version: bool,

    #[arg(long = READY_ON_STDIN, hide = true)]
    ready_on_stdin: bool,

    /// ISATAP router: an IPv4 address or a host name; several may be named
    #[arg(value_name = "ROUTER", value_parser = router)]
    routers: Vec<Host>,
}

/// The definition, for help, man page and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Reads a command line, beginning with the name of the program.
///
/// # Errors
/// Help was asked for, or something is wrong.
pub fn parse<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> Result<Command, Stop> {
    let matches = Arguments::command()
        .try_get_matches_from(arguments)
        .map_err(Stop)?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(Stop)?;
    if arguments.version {
        return Ok(Command::Version);
    }
    let check = arguments.check_config;
    let options = Options {
        config: absolute(arguments.config, "--config")?,
        foreground: arguments.foreground,
        ready_on_stdin: arguments.ready_on_stdin,
        overrides: Overrides {
            workers: arguments.workers,
            lane: arguments.lane,
            user: arguments.user,
            chroot_dir: absolute(arguments.chrootdir, "--chrootdir")?,
            pidfile: absolute(arguments.pidfile, "--pidfile")?,
            routers: arguments.routers,
        },
    };
    Ok(if check {
        Command::Check(options)
    } else {
        Command::Run(options)
    })
}

/// The daemon changes its directory; a relative path means the one of the caller.
fn absolute(path: Option<PathBuf>, name: &str) -> Result<Option<PathBuf>, Stop> {
    let wrong = |error: std::io::Error| {
        Stop(Arguments::command().error(ErrorKind::ValueValidation, format!("{name}: {error}")))
    };
    path.map(|path| std::path::absolute(path).map_err(wrong))
        .transpose()
}

fn user(text: &str) -> Result<String, String> {
    values::account_name(text).map_err(|refusal| explain(refusal, "a user name"))
}

fn workers(text: &str) -> Result<usize, String> {
    values::workers(text).map_err(|refusal| explain(refusal, &format!("a number from 1 to {}", MAX_WORKERS)))
}

fn lane(text: &str) -> Result<Lane, String> {
    values::one_of(text, &Lane::WORDS).map_err(|refusal| explain(refusal, "auto, ebpf, uring or syscall"))
}

fn router(text: &str) -> Result<Host, String> {
    values::host(text).map_err(|refusal| explain(refusal, "an IPv4 address or a host name"))
}

fn explain(refusal: Refusal, expected: &str) -> String {
    match refusal {
        Refusal::Because(reason) => reason,
        Refusal::Expected(None) => format!("expected {expected}"),
        Refusal::Expected(Some(near)) => format!("expected {expected}; did you mean {near}?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn run(words: &str) -> Options {
        match parse(std::iter::once("isatapd").chain(words.split_whitespace())) {
            Ok(Command::Run(options)) => options,
            other => panic!("{words}: {other:?}"),
        }
    }

    fn stop(words: &[&str]) -> Stop {
        parse(std::iter::once(&"isatapd").chain(words)).expect_err("a usage error")
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_said() {
        let options = run("");
        assert_eq!(options.overrides, Overrides::default());
        assert_eq!(
            (options.config, options.foreground, options.ready_on_stdin),
            (None, false, false)
        );
    }

    #[test]
    fn every_option_in_every_spelling() {
        let short = run("-c /c -f -p /p -t /t -u u -w 3 --lane uring 192.0.2.1 isatap.example");
        assert_eq!(short.config.as_deref(), Some(Path::new("/c")));
        assert!(short.foreground);
        assert_eq!(short.overrides.pidfile.as_deref(), Some(Path::new("/p")));
        assert_eq!(short.overrides.chroot_dir.as_deref(), Some(Path::new("/t")));
        assert_eq!(short.overrides.user.as_deref(), Some("u"));
        assert_eq!(
            (short.overrides.workers, short.overrides.lane),
            (Some(3), Some(Lane::Uring))
        );
        let hosts = [
            Host::Addr([192, 0, 2, 1].into()),
            Host::Name("isatap.example".into()),
        ];
        assert_eq!(short.overrides.routers, hosts);
        for words in [
            "--config /c --foreground --pidfile /p --chrootdir /t --user u --workers 3 --lane uring 192.0.2.1 isatap.example",
            "--conf=/c -f --pidfile=/p --chroot=/t --username=u --workers=3 --lane=URING 192.0.2.1 isatap.example",
            "192.0.2.1 -fc/c -p/p -t/t isatap.example -uu -w3 --lane uring",
        ] {
            assert_eq!(run(words), short, "{words}");
        }
        assert_eq!(run("--lane ebpf").overrides.lane, Some(Lane::Ebpf));
    }

    #[test]
    fn what_was_said_can_be_said_again() {
        for words in [
            "",
            "-c /c",
            "-c /c -p /p -t /t -u u -w 3 --lane uring 192.0.2.1 isatap.example",
            "--lane ebpf -- isatap.example",
        ] {
            let options = run(words);
            let again = std::iter::once(OsString::from("isatapd")).chain(options.arguments());
            assert!(
                matches!(parse(again), Ok(Command::Run(same)) if same == options),
                "{words}"
            );
        }
    }

    #[test]
    fn relative_paths_are_those_of_the_caller() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(run("-c x.conf").config, Some(here.join("x.conf")));
        assert_eq!(run("-p run/x").overrides.pidfile, Some(here.join("run/x")));
    }

    #[test]
    fn other_commands() {
        assert!(matches!(parse(["isatapd", "-V"]), Ok(Command::Version)));
        assert!(matches!(parse(["isatapd", "--version"]), Ok(Command::Version)));
        assert!(matches!(
            parse(["isatapd", "--check-config", "192.0.2.1"]),
            Ok(Command::Check(_))
        ));
        for help in ["-h", "--help"] {
            let stop = stop(&[help]);
            assert_eq!(stop.0.kind(), ErrorKind::DisplayHelp);
            for word in [
                "--conf",
                "--chroot",
                "--username",
                "--check-config",
                "ROUTER",
                "Exit status: 0 ok, 2 usage",
            ] {
                assert!(stop.text().contains(word), "{word}: {}", stop.text());
            }
            assert!(!stop.text().contains(READY_ON_STDIN));
        }
    }

    #[test]
    fn usage_errors_say_what_was_expected() {
        let table: &[(&[&str], &str)] = &[
            (
                &["-w", "0"],
                "invalid value '0' for '--workers <N>': expected a number from 1 to 128",
            ),
            (
                &["-w", "many"],
                "invalid value 'many' for '--workers <N>': expected a number from 1 to 128",
            ),
            (
                &["--lane", "urin"],
                "invalid value 'urin' for '--lane <LANE>': expected auto, ebpf, uring or syscall; did you mean uring?",
            ),
            (
                &["10.0.0.999"],
                "invalid value '10.0.0.999' for '[ROUTER]...': expected an IPv4 address or a host name",
            ),
            (&["-u", ""], "this cannot be the name of an account"),
            (&["-p", ""], "a value is required for '--pidfile <FILE>'"),
            (&["--frobnicate"], "unexpected argument '--frobnicate' found"),
            (
                &["-c"],
                "a value is required for '--config <FILE>' but none was supplied",
            ),
        ];
        for (words, expected) in table {
            let text = stop(words).text();
            assert!(text.contains(expected), "{words:?}: {text}");
        }
    }

    #[test]
    fn an_option_given_twice_is_an_error() {
        let twice: &[&[&str]] = &[
            &["-c", "/a", "--conf", "/b"],
            &["-f", "--foreground"],
            &["-p", "/a", "--pidfile", "/b"],
            &["-t", "/a", "--chroot", "/b"],
            &["-u", "a", "--username", "b"],
            &["-w", "1", "--workers", "1"],
            &["--lane", "auto", "--lane", "auto"],
            &["--check-config", "--check-config"],
            &["-V", "-V"],
        ];
        for words in twice {
            let stop = stop(words);
            assert!(
                stop.text().contains("cannot be used multiple times"),
                "{words:?}: {}",
                stop.text()
            );
        }
    }
}
