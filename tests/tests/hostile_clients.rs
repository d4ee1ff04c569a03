//! Clients of the control socket and of HTTP that mean ill, or come from another age, while packets pass.
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ------ x 10.0.0.9 (crafted)
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, METRICS, program};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::Inner;
use isatap_tests::raw::Crafter;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link, set_address};
use isatap_tests::{state, wait};

/// Connections of one who wants to keep others out.
const MANY: usize = 1000;
/// Bytes of a request without end.
const HUGE: usize = 1 << 30;

fn control(daemon: &Daemon<'_>) -> UnixStream {
    let stream = UnixStream::connect(daemon.folder().join("control.sock")).expect("the control socket");
    stream
        .set_read_timeout(Some(4 * SOON))
        .and_then(|()| stream.set_write_timeout(Some(4 * SOON)))
        .expect("timeouts");
    stream
}

/// Packets pass meanwhile, none is lost.
#[track_caller]
fn packets_pass(daemon: &Daemon<'_>, crafter: &Crafter) {
    let before = daemon.counters(Direction::Decap);
    for port in 0..200 {
        crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(port, 9, b"meanwhile"));
    }
    let since = daemon.wait_received(Direction::Decap, &before, 200);
    assert_eq!(since.delivered, since.received, "{since}");
}

/// FAULTS 64: a thousand connections that say nothing, or half a request: others are told that the daemon is busy, and are served
/// when they have gone.
#[test]
fn a_thousand_silent_connections_hold_up_no_packet() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let crafter = scene.crafter();
    let descriptors = state::descriptors_of(&daemon);
    let mut silent: Vec<UnixStream> = Vec::with_capacity(MANY);
    for number in 0..MANY {
        let mut stream = control(&daemon);
        if number % 2 == 0 {
            let _ = stream.write_all(b"{\"version\":1,");
        }
        silent.push(stream);
    }
    packets_pass(&daemon, &crafter);
    let output = daemon.ctl("status");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("too many clients"), "{told}");
    assert!(
        state::descriptors_of(&daemon) < descriptors + 64,
        "what is refused holds nothing"
    );
    drop(silent);
    wait::holds("others to be served", SOON, || {
        daemon.ctl("status").status.success()
    });
    packets_pass(&daemon, &crafter);
    daemon.conservation();
}

/// FAULTS 65: the same at the metrics. They wait in the listener's queue there, and those that say nothing are cut off in turn.
#[test]
fn a_thousand_silent_scrapes_hold_up_no_packet() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let crafter = scene.crafter();
    let before = daemon.counters(Direction::Decap);
    let silent: Vec<_> = scene.dut.enter(|| {
        let address = METRICS.parse().expect("an address");
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok();
        // The listener's queue is full at some time.
        (0..MANY).map_while(connect).collect()
    });
    assert!(silent.len() > 32, "{} connections", silent.len());
    for port in 0..200 {
        crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(port, 9, b"meanwhile"));
    }
    // The control socket is another door.
    wait::until("packets to be delivered", SOON, || {
        let status: serde_json::Value =
            serde_json::from_slice(&daemon.ctl("status --json").stdout).expect("the status");
        let decap = &status["total"]["decap"];
        let received = decap["received"].as_u64().unwrap_or(0) - before.received;
        if received >= 200 && decap["packets"].as_u64() >= Some(before.delivered + 200) {
            Ok(())
        } else {
            Err(decap.to_string())
        }
    });
    drop(silent);
    wait::until("the metrics to be served", 4 * SOON, || {
        daemon.http("/metrics").map(drop)
    });
    daemon.conservation();
}

/// FAULTS 64: a gigabyte without an end of line is refused after 64 KiB, and memory does not grow.
#[test]
fn a_request_without_end_is_refused_early() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let crafter = scene.crafter();
    packets_pass(&daemon, &crafter);
    let before = state::resident_kib(daemon.pid());
    let mut stream = control(&daemon);
    let chunk = vec![b'['; 1 << 20];
    let mut written = 0;
    while written < HUGE {
        match stream.write(&chunk) {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    assert!(written < HUGE, "all of it was taken");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    // The answer may be lost with the connection; a daemon that was asked for nonsense says so and nothing else.
    assert!(
        answer.is_empty() || answer.contains("at most 65536 bytes"),
        "{answer}"
    );
    packets_pass(&daemon, &crafter);
    let grown = state::resident_kib(daemon.pid()).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
    daemon.conservation();
}

/// FAULTS 64: the socket is its owner's and its group's.
#[test]
fn another_user_may_not_ask() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    // The program and the socket lie where another user may look.
    let folder = tempfile::Builder::new()
        .prefix("isatapd-test-")
        .tempdir()
        .expect("a temporary folder");
    let ctl = folder.path().join("isatapctl");
    std::fs::copy(program("isatapctl"), &ctl).expect("a copy of the program");
    for open in [folder.path(), daemon.folder()] {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(open, all).expect("open a folder");
    }
    let mut command = Command::new(&ctl);
    command
        .arg("--socket")
        .arg(daemon.folder().join("control.sock"))
        .arg("status");
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    let output = daemon.ns().enter(|| command.output()).expect("isatapctl");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{told}");
    assert!(
        told.contains("may not connect") && told.contains("ControlSocket"),
        "{told}"
    );
}

/// FAULTS 75: a client that is newer, or older, or none at all, gets one clear answer.
#[test]
fn clients_of_another_age_are_told_so() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let ask = |line: &str| {
        let mut stream = BufReader::new(control(&daemon));
        stream.get_mut().write_all(line.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_line(&mut answer).expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["version"], 1);
        answer["error"].clone()
    };
    let newer = ask("{\"version\":2,\"command\":{\"new\":\"shape\"}}\n");
    assert_eq!(newer["code"], "version");
    let message = newer["message"].as_str().expect("a message");
    assert!(
        message.contains("speaks version 1") && message.contains("not 2"),
        "{message}"
    );
    let unknown = ask("{\"version\":1,\"command\":\"teleport\"}\n");
    assert_eq!(unknown["code"], "bad_request");
    let message = unknown["message"].as_str().expect("a message");
    assert!(
        message.contains("teleport") && message.contains("isatapd 0."),
        "{message}"
    );
    assert_eq!(ask("GET / HTTP/1.1\n")["code"], "bad_request");
    // A field that this daemon does not know is none of its business.
    let more = ask("{\"version\":1,\"command\":\"status\",\"since\":\"yesterday\"}\n");
    assert!(more.is_null(), "{more}");
}

/// FAULTS 75: a daemon that is newer or older than the client is told by the client, with what to do.
#[test]
fn daemons_of_another_age_are_told_by_the_client() {
    let folder = tempfile::Builder::new()
        .prefix("isatapd-test-")
        .tempdir()
        .expect("a temporary folder");
    let path = folder.path().join("control.sock");
    for (answer, parts) in [
        (
            "{\"version\":2,\"error\":{\"code\":\"version\",\"message\":\"isatapd 9.0 speaks version 2\"}}\n",
            ["isatapd 9.0 speaks version 2", "isatapctl of the same version"],
        ),
        (
            "{\"version\":1,\"error\":{\"code\":\"bad_request\",\"message\":\"not a request: unknown variant\"}}\n",
            ["unknown variant", "isatapctl of the same version"],
        ),
        (
            "{\"version\":1,\"ok\":{\"schema_version\":9,\"all\":\"new\"}}\n",
            ["unexpected shape", "isatapctl of the same version"],
        ),
        ("SSH-2.0-OpenSSH_9.2\n", ["no isatapd answers there", ""]),
    ] {
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("a clone"))
                .read_line(&mut line)
                .expect("a request");
            stream.write_all(answer.as_bytes()).expect("an answer");
        });
        let output = Command::new(program("isatapctl"))
            .arg("--socket")
            .arg(&path)
            .arg("status")
            .output()
            .expect("isatapctl");
        server.join().expect("the server");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        for part in parts {
            assert!(told.contains(part), "{part} is not in: {told}");
        }
        std::fs::remove_file(&path).expect("remove the socket");
    }
}

/// A daemon with so many descriptors at most, if it starts with them.
fn started_with(scene: &Opposite, limit: usize) -> Option<Daemon<'_>> {
    let daemon = Daemon::router(&scene.dut, DUT)
        .workers(1)
        .descriptors(limit)
        .launch();
    let proc = format!("/proc/{}/exe", daemon.pid());
    let started = wait::until("the start to succeed or to fail", 2 * SOON, || {
        if matches!(daemon.http("/healthz"), Ok((200, _))) {
            return Ok(true);
        }
        // A child that has ended but was not waited for has no exe link any more.
        match std::fs::read_link(&proc) {
            Ok(_) => Err("neither"),
            Err(_) => Ok(false),
        }
    });
    started.then_some(daemon)
}

/// FAULTS 66: with as few descriptors as it takes to run, clients wait, and packets do not; with fewer it says so at the start.
#[test]
fn few_descriptors_are_no_matter_for_packets() {
    let scene = Opposite::new();
    // The start needs some more than it keeps: the smallest limit that it starts with.
    let daemon = (20..200)
        .step_by(4)
        .find_map(|limit| started_with(&scene, limit))
        .expect("a limit that is enough");
    set_address(&scene.dut, DUT);
    scene.wait_prefix(&daemon);
    let crafter = scene.crafter();
    let before = daemon.counters(Direction::Decap);
    let silent: Vec<_> = (0..8).map(|_| control(&daemon)).collect();
    for port in 0..200 {
        crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(port, 9, b"meanwhile"));
    }
    drop(silent);
    wait::holds("others to be served", 4 * SOON, || {
        daemon.ctl("status").status.success()
    });
    let since = daemon.wait_received(Direction::Decap, &before, 200);
    assert_eq!(since.delivered, since.received, "{since}");
    let told = daemon.ctl("capture -w /dev/null --seconds 0.1");
    assert!(told.status.success(), "{told:?}");
    daemon.conservation();
    drop(daemon);
    let output = Daemon::router(&scene.dut, DUT)
        .workers(1)
        .args("-f")
        .descriptors(16)
        .output();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains("Too many open files") && told.contains("LimitNOFILE"),
        "{told}"
    );
}

/// FAULTS 66: a disk that is full is said, and the daemon has nothing to do with it.
#[test]
fn a_full_disk_is_the_clients_affair() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let crafter = scene.crafter();
    packets_pass(&daemon, &crafter);
    for command in ["histogram --hlog /dev/full", "capture -w /dev/full"] {
        let output = daemon.ctl(command);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {told}");
        assert!(
            told.contains("/dev/full") && told.contains("No space left"),
            "{command}: {told}"
        );
    }
    packets_pass(&daemon, &crafter);
    daemon.conservation();
}

/// FAULTS 65: how long a scrape takes while packets are dropped and delivered as fast as they come: a figure, since machines differ.
#[test]
fn scrapes_under_load_are_answered() {
    const SCRAPES: usize = 50;
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let crafter = scene.crafter();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut times = Vec::with_capacity(SCRAPES);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut port = 0u16;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                port = port.wrapping_add(1);
                crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(port, 9, b"load"));
            }
        });
        for _ in 0..SCRAPES {
            let asked = Instant::now();
            let answer = daemon.http("/metrics");
            times.push(asked.elapsed());
            if !matches!(answer, Ok((200, _))) {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{answer:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    times.sort();
    let received = daemon.counters(Direction::Decap).received;
    eprintln!(
        "scrapes while {received} packets came: median {:?}, longest {:?}",
        times[SCRAPES / 2],
        times[SCRAPES - 1]
    );
    assert!(received > 1000, "{received} packets");
    daemon.conservation();
}

/// FAULTS 74: names that mean something to a terminal, a shell, JSON or Prometheus arrive as text.
#[test]
fn hostile_names_are_text() {
    let scene = Opposite::new();
    let name = "a\"\\<b>$(x)";
    let daemon = Daemon::router(&scene.dut, DUT)
        .config(&format!("InterfaceName {name}"))
        .start();
    let status: serde_json::Value =
        serde_json::from_slice(&daemon.ctl("status --json").stdout).expect("JSON");
    assert_eq!(status["interface"]["name"], name);
    assert!(
        daemon
            .http("/metrics")
            .is_ok_and(|(code, text)| code == 200 && !text.contains("<b>"))
    );
    let file = daemon.folder().join("names.pcapng");
    let output = daemon.ctl(&format!("capture --seconds 0.1 -w {}", file.display()));
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(file).expect("a file");
    assert!(bytes.windows(name.len()).any(|part| part == name.as_bytes()));
    // Names that no file could give, on the terminal of whoever asks.
    let mut rename = Command::new("ip");
    rename.args(["link", "set", name, "name", "i\u{1b}[31m\u{9b}2J"]);
    let renamed = scene.dut.spawn(&mut rename).wait().expect("it ends");
    assert!(renamed.success());
    daemon.wait_log("is called");
    for command in ["status", "status --json", "doctor", "workers"] {
        let output = daemon.ctl(command);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let moves = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(moves), "{command}: {text:?}");
        let is_named = matches!(command, "workers") || text.contains("[31m");
        assert!(is_named, "{command}: {text}");
    }
    assert!(daemon.http("/metrics").is_ok_and(|(code, _)| code == 200));
}
