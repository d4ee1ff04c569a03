//! Where the daemon's words go, on the real sockets of a system log and a journal (U11; FAULTS 66, 70, 74).
//!
//! ```text
//!   dut 10.0.0.1, files of its own (/dev/log, /run/systemd/journal/socket) ------ x 10.0.0.9 (crafted)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, METRICS, TUNNEL, program};
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::metrics::{Direction, Metrics, http_get};
use isatap_tests::netns::Netns;
use isatap_tests::packet::Inner;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link, set_address};
use isatap_tests::scratch_root::{BUILT, ScratchRoot};
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// Lines of one kind in a second (the contract's U11).
const LINES_PER_SECOND: usize = 10;

/// A log that takes datagrams, with when they came.
struct Listener {
    socket: Arc<UnixDatagram>,
    heard: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody hears any more, and who writes is told so.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Listener {
    /// In `ns` for its limit of lines that may wait, which is what systemd makes it.
    fn at(root: &ScratchRoot, ns: &Netns, path: &str) -> Self {
        ns.sysctl("unix/max_dgram_qlen", "512");
        let path = root.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        let _ = fs::remove_file(&path);
        let socket = Arc::new(ns.enter(|| UnixDatagram::bind(&path).expect("a socket")));
        // As the receivers of real logs have it: everybody may write.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
        let heard: Arc<Mutex<Vec<_>>> = Arc::default();
        let (lines, ear) = (Arc::clone(&heard), Arc::clone(&socket));
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(len @ 1..) = ear.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let now = Instant::now();
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((now, text));
            }
        });
        Self { socket, heard }
    }

    fn all(&self) -> Vec<(Instant, String)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    fn wait(&self, text: &str) -> String {
        wait::until(&format!("{text:?} in the log"), SOON, || {
            let all = self.all();
            let found = all.iter().find(|(_, line)| line.contains(text));
            found
                .map(|(_, line)| line.clone())
                .ok_or_else(|| format!("{all:#?}"))
        })
    }

    fn forget(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A detached daemon with the files of `root`, ended with its namespace at the latest.
struct Detached<'a> {
    root: &'a ScratchRoot,
    ns: &'a Netns,
    pid: i32,
}

impl<'a> Detached<'a> {
    #[track_caller]
    fn start(root: &'a ScratchRoot, ns: &'a Netns, config: &str) -> Self {
        root.write("etc/isatapd.conf", config);
        let mut command = root.command(format!("{BUILT}/isatapd"));
        let output = ns.enter(|| command.stdin(Stdio::null()).output().expect("start"));
        assert!(output.status.success(), "{output:?}");
        let pid = root.read("run/isatapd.pid").trim().parse().expect("a pid");
        Self { root, ns, pid }
    }

    fn reload(&self) -> bool {
        let mut command = self.root.command(format!("{BUILT}/isatapctl"));
        let output = self
            .ns
            .enter(|| command.arg("reload").output().expect("isatapctl"));
        output.status.success()
    }

    fn metrics(&self) -> Metrics {
        let (_, text) = http_get(self.ns, METRICS.parse().expect("an address"), "/metrics").expect("metrics");
        Metrics::parse(&text).expect("metrics")
    }

    fn stop(self) {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).expect("signal");
        wait::holds("the daemon to end", SOON, || !self.ns.has_link(TUNNEL));
    }
}

/// The number in `<...>`: facility times eight and severity.
fn priority(line: &str) -> u32 {
    let number = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    number
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_detached_daemon_logs_to_the_system_log_and_follows_the_configuration() {
    let (root, scene) = (ScratchRoot::new(), Opposite::new());
    let log = Listener::at(&root, &scene.dut, "dev/log");
    let config = |more: &str| format!("BindAddress {DUT}\n{more}\n");
    let daemon = Detached::start(&root, &scene.dut, &config("SyslogFacility local3"));
    let line = log.wait("worker(s), interface is0");
    // local3 is 19, information is 6.
    // By whichever of the two processes.
    assert!(line.starts_with("<158>isatapd["), "{line}");

    // Both are changed by a reload: errors alone, of another facility.
    root.write(
        "etc/isatapd.conf",
        &config("SyslogFacility local7\nLogLevel error"),
    );
    assert!(daemon.reload());
    // The last line of before, which may come later than the answer.
    log.wait("reload asked for");
    log.forget();
    scene.dut.ip(&format!("link set {TUNNEL} down"));
    wait::holds("the daemon to see it", SOON, || {
        let ready = http_get(&scene.dut, METRICS.parse().expect("an address"), "/ready");
        ready.is_ok_and(|(status, _)| status == 503)
    });
    root.write("etc/isatapd.conf", &config("Ttl 999"));
    assert!(!daemon.reload());
    let line = log.wait("isatapd.conf:2:5");
    assert_eq!(priority(&line), 23 * 8 + 3, "{line}");
    let quieter = log.all();
    assert!(
        quieter.iter().all(|(_, line)| priority(line) == 23 * 8 + 3),
        "{quieter:#?}"
    );

    // Everything again; and the log may be restarted meanwhile: the next line finds it.
    root.write("etc/isatapd.conf", &config("LogLevel debug"));
    assert!(daemon.reload());
    drop(log);
    let log = Listener::at(&root, &scene.dut, "dev/log");
    kill(Pid::from_raw(daemon.pid), Signal::SIGUSR1).expect("signal");
    let line = log.wait("encap: ");
    assert_eq!(priority(&line), 3 * 8 + 6, "{line}");
    daemon.stop();
    log.wait("stopping on signal TERM");
}

/// FAULTS 70: whatever arrives and whoever asks, a second has ten lines of a kind, and the rest is counted.
#[test]
fn floods_make_few_lines_and_none_is_lost_in_silence() {
    let (root, scene) = (ScratchRoot::new(), Opposite::new());
    let log = Listener::at(&root, &scene.dut, "dev/log");
    let daemon = Detached::start(&root, &scene.dut, &format!("BindAddress {DUT}\nLogLevel debug\n"));
    set_address(&scene.dut, DUT);
    let crafter = scene.crafter();
    let before = daemon.metrics().direction(Direction::Decap);
    log.wait("worker(s), interface is0");
    log.forget();
    let started = Instant::now();

    // 100 000 packets that are refused for several reasons, dangerous congestion marks among them.
    const PACKETS: u64 = 100_000;
    let stranger = "2001:db8:bad::1".parse().expect("an address");
    let bad: Vec<Vec<u8>> = [
        (
            3,
            Inner::new(on_link(X), on_link(DUT)).udp(1, 2, b"marked outside"),
        ),
        (0, Inner::new(stranger, on_link(DUT)).udp(1, 2, b"who is this")),
        (0, vec![0x60; 30]),
        (0, vec![0x45; 60]),
    ]
    .into_iter()
    .map(|(tos, inner)| {
        let mut outer = crafter.outer();
        outer.tos = tos;
        outer.wrap(&inner)
    })
    .collect();
    for n in 0..PACKETS {
        crafter.send(&bad[usize::try_from(n).expect("few") % bad.len()]);
        if n % 200 == 199 {
            // Not faster than they are taken, so that each one is judged.
            wait::until("the packets to be counted", SOON, || {
                let since = daemon.metrics().direction(Direction::Decap).since(&before);
                if since.received > n {
                    Ok(())
                } else {
                    Err(since.to_string())
                }
            });
        }
    }
    let since = daemon.metrics().direction(Direction::Decap).since(&before);
    assert!(since.received >= PACKETS && since.balanced(), "{since}");
    let seconds = usize::try_from(started.elapsed().as_secs()).expect("not long") + 1;
    let lines = log.all();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (_, line) in &lines {
        let kind: String = line.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        *kinds.entry(kind).or_default() += 1;
    }
    eprintln!(
        "{PACKETS} bad packets in {seconds} s: {} lines {kinds:#?}",
        lines.len()
    );
    assert!(
        kinds.values().all(|count| *count <= LINES_PER_SECOND * seconds),
        "{kinds:#?}"
    );
    assert!(
        lines.iter().any(|(_, line)| line.contains("is marked")),
        "{lines:#?}"
    );

    // Someone who reloads again and again: lines written and lines suppressed are all that there were.
    log.forget();
    const RELOADS: usize = 100;
    (0..RELOADS).for_each(|_| assert!(daemon.reload()));
    let said = "configuration loaded again: nothing changed";
    wait::until("every reload to be accounted for", SOON, || {
        let lines = log.all();
        let lines: Vec<_> = lines.iter().filter(|(_, line)| line.contains(said)).collect();
        let suppressed: usize = lines.iter().map(|(_, line)| suppressed(line)).sum();
        if lines.len() + suppressed == RELOADS {
            Ok(())
        } else {
            Err(format!("{} lines, {suppressed} suppressed", lines.len()))
        }
    });
    let times: Vec<_> = log
        .all()
        .into_iter()
        .filter(|(_, line)| line.contains(said))
        .map(|(at, _)| at)
        .collect();
    for window in times.windows(LINES_PER_SECOND + 1) {
        // They were written a second apart at least; the listener may have been late for the first of them.
        let apart = window[LINES_PER_SECOND] - window[0];
        assert!(
            apart >= Duration::from_millis(500),
            "{LINES_PER_SECOND} lines and one more within {apart:?}"
        );
    }
    daemon.stop();
}

/// The count in `(3 similar lines suppressed)`.
fn suppressed(line: &str) -> usize {
    let count = line
        .rsplit_once(" (")
        .and_then(|(_, rest)| rest.strip_suffix(" similar lines suppressed)"));
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// A daemon whose standard error leads to the journal gives it fields.
#[test]
fn the_journal_gets_fields() {
    let (root, scene) = (ScratchRoot::new(), Opposite::new());
    let log = Listener::at(&root, &scene.dut, "run/systemd/journal/socket");
    // A router's name that nobody answers for.
    let config = format!("BindAddress {DUT}\nServerAddress {X} evil.example\nSyslogFacility local1\n");
    root.write("etc/isatapd.conf", &config);
    root.write(
        "etc/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    );
    let stderr = File::create(root.path("tmp/stderr")).expect("a file");
    let metadata = stderr.metadata().expect("a file");
    let mut command = root.command(format!("{BUILT}/isatapd"));
    command
        .args(["--foreground", "--pidfile", "/run/isatapd.pid"])
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stdin(Stdio::null())
        .stderr(stderr);
    let mut child = scene.dut.spawn(&mut command);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let signal = |signal| kill(pid, signal).expect("signal the daemon");
    let started = log.wait(" worker(s), interface is0 with ");
    for field in [
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=isatapd",
        "SYSLOG_FACILITY=17",
        "CODE_FILE=daemon/src/control/opening.rs",
    ] {
        assert!(started.lines().any(|line| line == field), "{field}: {started}");
    }
    // What happened to whom.
    let name = log.wait("ISATAPD_NAME=evil.example");
    assert!(name.contains("PRIORITY=4\n"), "{name}");
    scene.dut.ip(&format!("link set {TUNNEL} down"));
    let down = log.wait("ISATAPD_INTERFACE=is0");
    assert!(
        down.contains("MESSAGE=interface is0 was set down") && down.contains("PRIORITY=4\n"),
        "{down}"
    );

    // A mistake of the operator by file, line and column; FAULTS 74: what is quoted of it moves no cursor, turns no text,
    // and makes no field.
    let hostile = "9\u{1b}[2J\u{202e}\rPRIORITY=0";
    root.write("etc/isatapd.conf", &format!("{config}\nTtl {hostile}\n"));
    signal(Signal::SIGHUP);
    let mistake = log.wait("ISATAPD_FILE=/etc/isatapd.conf");
    for field in ["PRIORITY=3", "ISATAPD_LINE=5", "ISATAPD_COLUMN=5"] {
        assert!(mistake.lines().any(|line| line == field), "{field}: {mistake}");
    }
    assert!(
        mistake.contains("\\u{1b}") && !mistake.contains(['\u{1b}', '\r', '\u{202e}']),
        "{mistake:?}"
    );
    assert_eq!(mistake.matches("\nPRIORITY=").count(), 1, "{mistake:?}");

    // FAULTS 66: a journal that is gone costs lines, nothing else; when it is back it hears how many.
    drop(log);
    fs::remove_file(root.path("run/systemd/journal/socket")).expect("remove");
    let mut reload = root.command(format!("{BUILT}/isatapctl"));
    let refused = scene
        .dut
        .enter(|| reload.arg("reload").output().expect("isatapctl"));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let log = Listener::at(&root, &scene.dut, "run/systemd/journal/socket");
    signal(Signal::SIGUSR2);
    signal(Signal::SIGUSR1);
    log.wait("lines were lost here");
    signal(Signal::SIGTERM);
    let status = wait::until("the daemon to end", SOON, || {
        child.try_wait().ok().flatten().ok_or("it runs")
    });
    assert_eq!(status.code(), Some(0));
    assert_eq!(root.read("tmp/stderr"), "", "nothing is said twice");
}

/// Before there is a log, and where the journal has none of our fields, an error is an error.
#[test]
fn a_failed_start_is_an_error_in_the_journal() {
    let (root, scene) = (ScratchRoot::new(), Opposite::new());
    root.write("etc/isatapd.conf", "Ttl 999\n");
    let stderr = File::create(root.path("tmp/stderr")).expect("a file");
    let metadata = stderr.metadata().expect("a file");
    let mut command = root.command(format!("{BUILT}/isatapd"));
    command
        .arg("--foreground")
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stderr(stderr);
    let status = scene.dut.enter(|| command.status().expect("start"));
    assert_eq!(status.code(), Some(78));
    let text = root.read("tmp/stderr");
    assert!(text.starts_with("<3>isatapd: /etc/isatapd.conf:1:5: "), "{text}");
}

/// FAULTS 66: who reads standard error may stand still (a terminal after Ctrl-S, a log on a full disk). Nothing waits for him, not even a
/// new engine, and he is told how much he has missed.
#[test]
fn standard_error_that_nobody_reads_holds_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipe, wrapped) = (folder.path().join("pipe"), folder.path().join("isatapd"));
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    let script = format!(
        "#!/bin/sh\nexec {} \"$@\" 2<>{}\n",
        program("isatapd").display(),
        pipe.display()
    );
    fs::write(&wrapped, script).expect("a program");
    fs::set_permissions(&wrapped, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut options = File::options();
    let mut reader = options
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&pipe)
        .expect("the pipe");
    let full = |written: std::io::Result<usize>| written.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
    while !full(reader.write(&[b'.'; 4096])) {}

    let scene = Opposite::new();
    let daemon = Daemon::router(&scene.dut, DUT).program(&wrapped).start();
    for _ in 0..3 {
        assert!(daemon.ctl("reload").status.success());
    }
    let old = kill_engine(&daemon);
    wait_successor(&daemon, old);
    assert!(daemon.ctl("upgrade").status.success());
    assert!(daemon.ctl("reload").status.success());

    let mut heard = String::new();
    wait::until("the lines that were lost to be told of", SOON, || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = reader.read(&mut bytes) {
            heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
        daemon.ctl("reload");
        if heard.contains("lines were lost here: standard error did not take them\n") {
            Ok(())
        } else {
            Err(heard.trim_start_matches('.').to_owned())
        }
    });
}
