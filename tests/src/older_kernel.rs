//! The tests of a file once more, in the guest: what holds on this machine's kernel also holds on its older one.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use crate::guest::{Equipment, Guest};
use crate::topology::Site;

/// The longest that the tests of one file may take there.
const PATIENCE: Duration = Duration::from_secs(170);
/// Set in the guest, whose processors are emulated.
const EMULATED: &str = "ISATAPD_TEST_EMULATED";
/// The share of an amount that is enough there.
const SHARE: u64 = 8;

/// So many bytes or packets, or a share of them where processors are emulated: there it is about what the kernel does, and not about how long.
pub fn amount(of: u64) -> u64 {
    if env::var_os(EMULATED).is_some() {
        of / SHARE
    } else {
        of
    }
}

/// Runs tests of the calling program, by their names, in a guest, with `files` of this machine and words for its environment
/// (`NAME=value ...`). Nothing happens on a machine that can have no guest.
///
/// # Panics
/// When one of them fails there, or there is none of a name.
#[track_caller]
pub fn repeat(tests: &[&str], environment: &str, files: Vec<PathBuf>) {
    let program = env::current_exe().expect("this program's path");
    let program = fs::canonicalize(&program).expect("this program");
    let equipment = Equipment {
        cpus: 2,
        memory: 768,
        lifetime: PATIENCE + Duration::from_secs(60),
        files: [files, vec![program.clone()]].concat(),
    };
    let site = Site::new();
    let Some(guest) = Guest::equipped(&site, Ipv4Addr::new(10, 0, 0, 9), &equipment) else {
        return;
    };
    let script = format!(
        "{EMULATED}=yes {environment} {} --exact {} --test-threads 1 --nocapture",
        program.display(),
        tests.join(" ")
    );
    let answer = guest.run_within(PATIENCE, &script);
    let text = format!("{}{}", answer.out, answer.err);
    eprintln!("{}{text}", guest.run("uname -sr"));
    let passed = format!("test result: ok. {} passed", tests.len());
    assert!(answer.status == 0 && text.contains(&passed), "{text}");
}
