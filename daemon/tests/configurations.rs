//! Ten thousand configuration files: each is accepted or refused with its place, none hurts, and what is accepted means
//! the same when it is written down and read again (FAULTS 62, 63).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_tests::config_files::{ConfigFiles, Kind, seed};
use isatapd::config::machine::{Candidate, Machine};
use isatapd::config::resolve::resolve;
use isatapd::config::resolved::User;
use isatapd::config::source::MAX_FILE_LEN;
use isatapd::config::{ConfigError, Loader, Overrides, Settings, file};

const FILES: usize = 10_000;
/// No file may take longer, whatever is in it; a machine that does other things as well is allowed for.
const LIMIT: Duration = Duration::from_secs(5);

/// A machine that answers at once, and always the same.
struct Tables;

impl Machine for Tables {
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        match name {
            "isatap.example" => Ok(vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)]),
            _ => Err("Name or service not known".to_owned()),
        }
    }

    fn addresses(&self) -> Result<Vec<Candidate>, String> {
        Ok(vec![Candidate {
            addr: Ipv4Addr::new(10, 0, 0, 1),
            interface: "eth0".to_owned(),
        }])
    }

    fn source_towards(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(10, 0, 0, 1))
    }

    fn user(&self, name: &str) -> Result<Option<User>, String> {
        let id = match name {
            "root" | "toor" => 0,
            "nobody" => 65534,
            "isatap" => 990,
            _ => return Ok(None),
        };
        Ok(Some(User {
            name: name.to_owned(),
            uid: id,
            gid: id,
        }))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Ok((name == "netops").then_some(44))
    }

    fn usable_cores(&self) -> usize {
        2
    }
}

fn load(bytes: &[u8]) -> Result<Settings, ConfigError> {
    let parsed = file::parse(&"f.conf".into(), bytes).map_err(ConfigError::new)?;
    resolve(parsed, &Overrides::default(), Some("/etc/f.conf".into()), &Tables)
}

/// Whether a message begins with the place it speaks of: the file with line and column, or the file as a whole.
fn has_place(message: &str) -> bool {
    let Some(rest) = message.strip_prefix("f.conf:") else {
        return false;
    };
    let mut parts = rest.splitn(3, ':');
    let is_number =
        |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok_and(|number| number > 0));
    is_number(parts.next()) && is_number(parts.next())
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    text.escape_debug().to_string().replace("\\n", "\n")
}

/// Everything that must hold for any file; whether it was accepted.
fn judge(kind: Kind, bytes: &[u8]) -> bool {
    match load(bytes) {
        Ok(settings) => {
            let text = settings.to_string();
            let again = load(text.as_bytes()).unwrap_or_else(|error| {
                panic!(
                    "accepted, and its own words are not:\n{error}\n{text}\nof\n{}",
                    shown(bytes)
                )
            });
            assert_eq!(
                again,
                settings,
                "another meaning when written down:\n{text}\nof\n{}",
                shown(bytes)
            );
            assert_eq!(again.to_string(), text);
            true
        }
        Err(error) => {
            assert_ne!(
                kind,
                Kind::Right,
                "nothing is wrong with it:\n{error}\n{}",
                shown(bytes)
            );
            assert!(!error.diagnostics().is_empty());
            for diagnostic in error.diagnostics() {
                let text = diagnostic.to_string();
                assert!(has_place(&text), "no place: {text:?}\n{}", shown(bytes));
                assert!(!text.contains(char::is_control), "{text:?}");
                assert!(text.len() < 1000, "{} bytes: {text}", text.len());
            }
            // However much is wrong, what is printed has a bound.
            assert!(error.to_string().lines().count() <= 101);
            false
        }
    }
}

#[test]
fn ten_thousand_files() {
    let seed = seed();
    println!("ISATAPD_TEST_SEED={seed}");
    let mut files = ConfigFiles::new(seed, &[]);
    let mut counts: BTreeMap<(String, bool), u32> = BTreeMap::new();
    let mut slowest = (Duration::ZERO, 0);
    for number in 0..FILES {
        let (kind, bytes) = files.make();
        if bytes.len() as u64 > MAX_FILE_LEN {
            continue; // The next test: such a file is not even read.
        }
        let began = Instant::now();
        let accepted = judge(kind, &bytes);
        let took = began.elapsed();
        assert!(took < LIMIT, "file {number} took {took:?}:\n{}", shown(&bytes));
        slowest = slowest.max((took, number));
        *counts.entry((format!("{kind:?}"), accepted)).or_default() += 1;
    }
    println!(
        "{counts:?}; the slowest was number {} with {:?}",
        slowest.1, slowest.0
    );
    let count = |accepted| {
        counts
            .iter()
            .filter(|((_, was), _)| *was == accepted)
            .map(|(_, count)| count)
            .sum::<u32>()
    };
    assert!(count(true) > 2000 && count(false) > 3000, "{counts:?}");
}

/// FAULTS 62: a file of 10 MB, whatever is in it, costs no more than its first megabyte.
#[test]
fn huge_files_are_not_read() {
    let mut files = ConfigFiles::new(seed(), &[]);
    let huge = std::iter::repeat_with(|| files.make()).filter(|(kind, _)| *kind == Kind::Huge);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.conf");
    for (_, bytes) in huge.take(4) {
        std::fs::write(&path, &bytes).unwrap();
        let began = Instant::now();
        let loader = Loader::open(Some(path.clone()), Overrides::default()).unwrap();
        let error = loader.load().unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        assert!(began.elapsed() < LIMIT);
        // Just what is read, full of the same.
        let began = Instant::now();
        judge(Kind::Huge, &bytes[..usize::try_from(MAX_FILE_LEN).unwrap()]);
        let (first, took) = (shown(&bytes[..40]), began.elapsed());
        println!("{took:?} for a megabyte of {first}");
        assert!(took < LIMIT, "{took:?} for a megabyte of {first}");
    }
}
