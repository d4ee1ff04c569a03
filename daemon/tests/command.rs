//! The program `isatapd` as a shell sees it: statuses, messages, the launcher. What needs a running engine
//! is in the `tests` crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use isatapd::launch::pidfile::PidFile;

const ISATAPD: &str = env!("CARGO_BIN_EXE_isatapd");

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration of one line that names a locator, so that no test depends on the machine's addresses.
    fn config(&self, more: &str) -> PathBuf {
        let path = self.path("isatapd.conf");
        std::fs::write(&path, format!("BindAddress 192.0.2.77\n{more}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(ISATAPD);
        command
            .args(words)
            .args(["-p"])
            .arg(self.path("pid"))
            .arg("-t")
            .arg(self.path("empty"));
        read(command.stdin(Stdio::null()).output().unwrap(), self.dir.path())
    }
}

fn read(output: Output, dir: &Path) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(dir.to_str().unwrap(), "DIR");
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn usage_errors_are_two_and_help_is_zero() {
    for words in [
        ["-w", "0"].as_slice(),
        &["-f", "-f"],
        &["--nonsense"],
        &["10.0.0.999"],
        &["--ready-on-stdin"],
    ] {
        let output = Command::new(ISATAPD)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
    let help = Command::new(ISATAPD).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let version = Command::new(ISATAPD).arg("-V").output().unwrap();
    assert_eq!(version.status.code(), Some(0));
    let text = String::from_utf8(version.stdout).unwrap();
    assert!(
        text.starts_with(&format!("isatapd {}\n", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    for feature in ["io_uring: ", "ebpf: "] {
        assert!(text.lines().any(|line| line.starts_with(feature)), "{text}");
    }
}

#[test]
fn a_check_prints_what_would_run() {
    let bench = Bench::new();
    let config = bench.config("Mtu 1400");
    let config = config.to_str().unwrap();
    let (status, printed, errors) = bench.run(&["--check-config", "-c", config, "-w", "3", "192.0.2.1"]);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert!(
        printed.starts_with("# ISATAP host at 192.0.2.77\n# potential router list: 192.0.2.1\n"),
        "{printed}"
    );
    for line in [
        "Mtu 1400",
        "Workers 3",
        "PidFile DIR/pid",
        "ServerAddress 192.0.2.1",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}: {printed}"
        );
    }
    assert!(
        !bench.path("pid").exists() && !bench.path("empty").exists(),
        "a check touches nothing"
    );
}

#[test]
fn every_obstacle_to_a_check_is_78() {
    let bench = Bench::new();
    let config = bench.config("Mtuu 1400\nTtl 0");
    let config = config.to_str().unwrap();
    let (status, _, errors) = bench.run(&["--check-config", "-c", config]);
    assert_eq!(status, 78);
    let expected = "\
isatapd: DIR/isatapd.conf:2:1: \"Mtuu\" is no name of this file; did you mean Mtu?
isatapd: DIR/isatapd.conf:3:5: Ttl \"0\": expected inherit or a number from 1 to 255
";
    assert_eq!(errors, expected);

    bench.config("");
    let check = |words: &[&str]| bench.run(&[&["--check-config", "-c", config], words].concat());
    assert_eq!(check(&[]).0, 0);
    assert_eq!(check(&["-u", "root"]).0, 78);
    assert_eq!(check(&["-u", "no-such-user"]).0, 78);
    assert_eq!(
        check(&["--lane", "ebpf"]).0,
        0,
        "the kernel is asked when it is needed"
    );
    std::fs::write(bench.path("empty"), "").unwrap();
    assert_eq!(check(&[]).0, 78, "the chroot is a file");
    std::fs::remove_file(bench.path("empty")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.path("pid")).unwrap();
    assert_eq!(check(&[]).0, 78, "the pid file is a link");
    let (status, _, errors) = bench.run(&["--check-config", "-c", "/no/such/file"]);
    assert_eq!(status, 78);
    let missing =
        "isatapd: /no/such/file: the configuration cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(errors, missing);
    std::fs::set_permissions(config, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(
        bench.run(&["--check-config", "-c", config]).0,
        78,
        "others may write the file"
    );
}

/// The launcher ends as the daemon does, and says what the daemon says.
#[test]
fn a_start_that_fails_is_told_the_same_detached_and_not() {
    let bench = Bench::new();
    let config = bench.config("Ttl 0");
    let config = config.to_str().unwrap();
    let expected = (
        78,
        String::new(),
        "isatapd: DIR/isatapd.conf:2:5: Ttl \"0\": expected inherit or a number from 1 to 255\n".to_owned(),
    );
    assert_eq!(bench.run(&["-c", config]), expected);
    assert_eq!(bench.run(&["-f", "-c", config]), expected);
}

#[test]
fn relative_paths_survive_detaching() {
    let bench = Bench::new();
    bench.config("Ttl 0");
    let output = Command::new(ISATAPD)
        .args(["-c", "isatapd.conf"])
        .current_dir(bench.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (status, _, errors) = read(output, bench.dir.path());
    assert_eq!(status, 78);
    assert!(errors.contains("DIR/isatapd.conf:2:5:"), "{errors}");
}

#[test]
fn a_second_daemon_is_refused() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let config = bench.config("");
    let pidfile = PidFile::acquire(&bench.path("pid")).unwrap();
    for words in [
        ["-c", config.to_str().unwrap()].as_slice(),
        &["-f", "-c", config.to_str().unwrap()],
    ] {
        let (status, _, errors) = bench.run(words);
        assert_eq!(status, 69, "{errors}");
        let expected = format!(
            "another isatapd (process {}) holds the pid file DIR/pid",
            std::process::id()
        );
        assert!(errors.contains(&expected), "{errors}");
    }
    pidfile.remove();
}

#[test]
fn an_unprivileged_start_says_what_is_missing() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let config = bench.config("");
    let output = Command::new(ISATAPD)
        .args(["-f", "-c", config.to_str().unwrap(), "-p"])
        .arg(bench.path("pid"))
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::null())
        .output();
    // Where the build directory is closed to others, nobody cannot even execute the program.
    let Ok(output) = output else { return };
    let (status, _, errors) = read(output, bench.dir.path());
    assert_eq!(status, 77, "{errors}");
    assert!(errors.contains("CAP_NET_ADMIN"), "{errors}");
    assert!(errors.contains("start isatapd as root"), "{errors}");
}
