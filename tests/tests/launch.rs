//! Start and end of the process as scripts see them: exit statuses, messages, pid file, detaching, signals, reload.
//!
//! ```text
//!   dut 10.0.0.1 ------ x 10.0.0.9 (crafted)
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use isatap_tests::daemon::{Builder, Daemon, TUNNEL, program};
use isatap_tests::metrics::http_get;
use isatap_tests::netns::Netns;
use isatap_tests::packet::Inner;
use isatap_tests::raw::{Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Exit status and everything that was printed.
fn ended(output: &Output) -> (i32, String) {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

/// A namespace with one IPv4 address and nothing else.
fn lonely() -> Netns {
    let ns = Netns::new("dut");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    ns
}

#[track_caller]
fn refused(builder: Builder<'_>, status: i32, says: &[&str]) {
    let (code, text) = ended(&builder.args("-f").output());
    assert_eq!(code, status, "{text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn usage_errors_end_with_2() {
    let ns = lonely();
    for arguments in [
        "--no-such-option",
        "-w 0",
        "-w many",
        "-f -f",
        "-u a -u b",
        "--lane warp",
        "--workers",
    ] {
        refused(Builder::new(&ns).args(arguments), 2, &["--help"]);
    }
}

#[test]
fn help_and_version_end_with_0() {
    let ns = Netns::new("dut");
    let (code, text) = ended(&ns.try_run(&format!("{} --help", program("isatapd").display())));
    assert_eq!(code, 0);
    for option in [
        "--config",
        "--foreground",
        "--pidfile",
        "--chrootdir",
        "--user",
        "--workers",
        "--lane",
        "--check-config",
    ] {
        assert!(text.contains(option), "{option} is not in the help");
    }
    let (code, text) = ended(&ns.try_run(&format!("{} -V", program("isatapd").display())));
    assert_eq!(code, 0);
    assert!(text.lines().any(|line| line.starts_with("io_uring: ")), "{text}");
    let ebpf = text.lines().find(|line| line.starts_with("ebpf: "));
    let ebpf = ebpf.expect("a line about the ebpf lane");
    assert!(
        [
            "ebpf: both directions, by TCX",
            "ebpf: both directions, by clsact"
        ]
        .contains(&ebpf),
        "{ebpf}"
    );
}

#[test]
fn configuration_errors_end_with_78_and_name_the_place() {
    let ns = lonely();
    let cases: [(&str, &[&str]); 9] = [
        (
            "InterfaceNam is0",
            &["isatapd.conf:2:1", "InterfaceNam", "InterfaceName"],
        ),
        ("Mtu 1279", &["isatapd.conf:2:5", "1279", "1280"]),
        ("Mtu 1400\nMtu 1500", &["isatapd.conf:3:1", "Mtu"]),
        ("BindAddress", &["isatapd.conf:2", "BindAddress"]),
        ("BindAddress 10.0.0.256", &["isatapd.conf:2:13", "10.0.0.256"]),
        ("Ttl 0", &["isatapd.conf:2:5", "1", "255"]),
        ("SiteNetwork 10.0.0.0/33", &["isatapd.conf:2:13", "10.0.0.0/33"]),
        ("User root", &["root"]),
        ("User no-such-user-here", &["no-such-user-here"]),
    ];
    for (text, says) in cases {
        refused(Builder::new(&ns).config(text), 78, says);
        // The same from --check-config, which starts nothing.
        let (code, _) = ended(&Builder::new(&ns).config(text).args("--check-config").output());
        assert_eq!(code, 78, "{text}");
    }
    assert!(!ns.has_link(TUNNEL));
}

#[test]
fn a_root_directory_with_something_in_it_is_told_of() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    daemon.stop();
    assert!(!daemon.log().contains("is not empty"), "{}", daemon.log());
    fs::write(daemon.folder().join("root/left"), "").expect("write");
    let daemon = daemon.start_again();
    daemon.wait_log("root is not empty: whoever broke into the engine");
}

#[test]
fn what_cannot_be_used_ends_with_78() {
    let ns = lonely();
    let isatapd = program("isatapd");
    let (code, text) = ended(&ns.try_run(&format!("{} -f -c /nonexistent/isatapd.conf", isatapd.display())));
    assert_eq!(
        (code, text.contains("/nonexistent/isatapd.conf")),
        (78, true),
        "{text}"
    );

    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = folder.path().join("open.conf");
    fs::write(&open, "Mtu 1280\n").expect("write");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).expect("chmod");
    let (code, text) = ended(&ns.try_run(&format!(
        "{} --check-config -c {}",
        isatapd.display(),
        open.display()
    )));
    assert_eq!(
        (code, text.contains("open.conf")),
        (78, true),
        "a file others may write: {text}"
    );

    let link = folder.path().join("link.pid");
    symlink("/etc/passwd", &link).expect("symlink");
    let config = folder.path().join("good.conf");
    fs::write(&config, "Mtu 1280\n").expect("write");
    let line = format!(
        "{} -f -c {} -p {}",
        isatapd.display(),
        config.display(),
        link.display()
    );
    let (code, text) = ended(&ns.try_run(&line));
    assert_eq!(
        (code, text.contains("link.pid")),
        (78, true),
        "a pid file that is a link: {text}"
    );
    assert!(fs::read_to_string("/etc/passwd").expect("read").contains("root:"));
}

#[test]
fn no_or_several_addresses_end_with_78_and_are_listed() {
    let none = Netns::new("none");
    refused(Builder::new(&none), 78, &["BindAddress"]);
    let several = lonely();
    several.ip("addr add 10.1.0.7/24 dev eth0");
    refused(
        Builder::new(&several),
        78,
        &["10.0.0.1", "10.1.0.7", "BindAddress"],
    );
}

#[test]
fn the_only_address_is_picked() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    assert!(
        ns.ip(&format!("-6 addr show dev {TUNNEL}"))
            .contains("fe80::5efe:a00:1/64")
    );
    daemon.stop();
}

#[test]
fn what_somebody_else_holds_ends_with_69() {
    let ns = lonely();
    ns.ip(&format!("link add {TUNNEL} type bridge"));
    refused(Builder::new(&ns), 69, &[TUNNEL]);
    ns.ip(&format!("link del {TUNNEL}"));

    let daemon = Builder::new(&ns).start();
    let pidfile = daemon.folder().join("pid");
    let config = daemon.folder().join("isatapd.conf");
    let line = format!(
        "{} -f -c {} -p {}",
        program("isatapd").display(),
        config.display(),
        pidfile.display()
    );
    let (code, text) = ended(&ns.try_run(&line));
    assert_eq!(code, 69, "{text}");
    assert!(
        text.contains(&daemon.pid().to_string()) || text.contains("pid"),
        "{text}"
    );
}

#[test]
fn without_permission_it_ends_with_77() {
    let ns = lonely();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("isatapd.conf");
    fs::write(&config, "Mtu 1280\n").expect("write");
    let pidfile = folder.path().join("pid");
    let line = format!(
        "setpriv --bounding-set=-all --inh-caps=-all {} -f -c {} -p {}",
        program("isatapd").display(),
        config.display(),
        pidfile.display()
    );
    let (code, text) = ended(&ns.try_run(&line));
    assert_eq!(code, 77, "{text}");
}

#[test]
fn check_config_prints_what_would_run() {
    let ns = lonely();
    let builder = Builder::new(&ns)
        .config("ServerAddress 10.0.0.7 10.0.0.8\nMtu 1400")
        .args("--check-config -w 3");
    let (code, text) = ended(&builder.output());
    assert_eq!(code, 0, "{text}");
    for part in ["10.0.0.7", "10.0.0.8", "1400", "3"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!ns.has_link(TUNNEL));
}

#[test]
fn the_configuration_of_the_old_program_runs_unchanged() {
    let ns = lonely();
    let old = "\n# /etc/isatapd.conf\n\n  interfacename\tis7   # any case, blanks, comments\nBINDADDRESS 10.0.0.1\n\
               ServerAddress 10.0.0.2\n   SyslogFacility   local3\n\n";
    let mut daemon = Builder::new(&ns).config(old).start();
    assert!(ns.ip("-6 addr show dev is7").contains("fe80::5efe:a00:1/64"));
    let routers = daemon.ctl("routers");
    assert!(
        String::from_utf8_lossy(&routers.stdout).contains("10.0.0.2"),
        "{routers:?}"
    );
    daemon.stop();
    assert!(!ns.has_link("is7"), "the interface is gone with the daemon");
}

#[test]
fn routers_on_the_command_line_make_a_host() {
    let ns = lonely();
    let daemon = Builder::new(&ns).args("10.0.0.2 10.0.0.3").start();
    let status = String::from_utf8_lossy(&daemon.ctl("status --json").stdout).into_owned();
    assert!(
        status.contains("\"host\"") && status.contains("schema_version"),
        "{status}"
    );
    // A host without a usable router cannot carry anything.
    assert_eq!(daemon.http("/ready").map(|(status, _)| status), Ok(503));
    assert_eq!(daemon.http("/healthz").map(|(status, _)| status), Ok(200));
}

#[test]
fn term_ends_it_within_a_second_and_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let ns = lonely();
        let mut daemon = Builder::new(&ns).start();
        let pidfile = daemon.folder().join("pid");
        let written = fs::read_to_string(&pidfile).expect("a pid file");
        assert_eq!(written.trim(), daemon.pid().to_string());
        let asked = std::time::Instant::now();
        daemon.signal(signal);
        let status = daemon.wait_exit(SOON);
        assert_eq!(status.code(), Some(0), "{signal}: {}", daemon.log());
        assert!(
            asked.elapsed() <= Duration::from_secs(1),
            "{signal}: {:?}",
            asked.elapsed()
        );
        assert!(!ns.has_link(TUNNEL));
        wait::holds("the pid file to be removed", Duration::from_secs(1), || {
            !pidfile.exists()
        });
    }
}

#[test]
fn the_launcher_returns_when_the_daemon_is_ready() {
    let ns = lonely();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("isatapd.conf");
    let socket = folder.path().join("control.sock");
    fs::write(&config, format!("ControlSocket {}\n", socket.display())).expect("write");
    let pidfile = folder.path().join("pid");
    let line = |extra: &str| {
        let root = folder.path().join("root");
        let files = format!(
            "-c {} -p {} -t {}",
            config.display(),
            pidfile.display(),
            root.display()
        );
        format!("{} {files} {extra}", program("isatapd").display())
    };
    let (code, text) = ended(&ns.try_run(&line("")));
    assert_eq!(code, 0, "{text}");
    // No waiting here: it is ready when the launcher says so.
    assert!(ns.has_link(TUNNEL));
    let ready = http_get(&ns, "127.0.0.1:9441".parse().expect("an address"), "/ready");
    assert_eq!(ready.map(|(status, _)| status), Ok(200));
    let pid: i32 = fs::read_to_string(&pidfile)
        .expect("a pid file")
        .trim()
        .parse()
        .expect("a pid");
    assert!(Path::new("/proc").join(pid.to_string()).exists());
    let session = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let parent = session
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(1))
        .map(str::to_owned);
    assert_ne!(
        parent,
        Some(std::process::id().to_string()),
        "it is detached from who started it"
    );

    // A second one fails, and its launcher says so with the status of the daemon.
    let (code, text) = ended(&ns.try_run(&line("")));
    assert_eq!(code, 69, "{text}");
    assert!(ns.has_link(TUNNEL), "the first one is untouched");

    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("signal the daemon");
    wait::holds("the daemon to end", SOON, || !ns.has_link(TUNNEL));

    // A bad configuration, likewise.
    fs::write(&config, "Mtu 1\n").expect("write");
    let (code, text) = ended(&ns.try_run(&line("")));
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("isatapd.conf:1:5"), "{text}");
}

#[test]
fn reload_changes_what_changed_and_refuses_a_bad_file() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let _sink = scene.crafter();
    let (injector, wire) = (
        Injector::tun(&scene.dut, TUNNEL),
        Sniffer::start(&scene.dut, UNDERLAY),
    );
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, 2, b"reload");
    let wait_ttl = |want: u8| {
        wait::holds(&format!("packets with TTL {want}"), SOON, || {
            wire.clear();
            injector.send(&packet);
            let ours = wire.wait_for("a packet", SOON, |c| {
                c.outer().is_some_and(|outer| outer.payload == packet)
            });
            ours.outer().expect("protocol 41").header.ttl() == want
        });
    };
    wait_ttl(64);
    let index = scene.dut.ip(&format!("-o link show {TUNNEL}"));
    daemon.rewrite_config("BindAddress 10.0.0.1\nTtl 33\n");
    daemon.signal(Signal::SIGHUP);
    wait_ttl(33);
    daemon.rewrite_config("BindAddress 10.0.0.1\nTtl 999\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("isatapd.conf:3:5");
    wait_ttl(33);
    wait::holds("both results to be counted", SOON, || {
        let metrics = daemon.metrics();
        let results = metrics.by_label("isatapd_config_reloads_total", &[], "result");
        results.values().copied().collect::<Vec<_>>() == [1, 1]
    });
    assert_eq!(
        scene.dut.ip(&format!("-o link show {TUNNEL}")),
        index,
        "the interface was not touched"
    );
    assert!(
        scene
            .dut
            .ip(&format!("-6 addr show dev {TUNNEL}"))
            .contains("2001:db8:1::5efe:a00:1/64")
    );
    // The same by the tool, which says what became of it.
    let (code, text) = ended(&daemon.ctl("reload"));
    assert_eq!(code, 1, "{text}");
    daemon.rewrite_config("BindAddress 10.0.0.1\nTtl 44\n");
    let (code, text) = ended(&daemon.ctl("reload"));
    assert_eq!(code, 0, "{text}");
    wait_ttl(44);
    daemon.conservation();
}

#[test]
fn a_folder_in_place_of_the_file_is_told_of_as_such() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let file = daemon.folder().join("isatapd.conf");
    fs::remove_file(&file).expect("remove the file");
    fs::create_dir(&file).expect("make a folder");
    let (code, text) = ended(&daemon.ctl("reload"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("isatapd.conf: this is a directory"), "{text}");
    assert!(!text.contains("User"), "{text}");
    scene.carries(&daemon);
    fs::remove_dir(&file).expect("remove the folder");
    daemon.rewrite_config("BindAddress 10.0.0.1\nTtl 44\n");
    let (code, text) = ended(&daemon.ctl("reload"));
    assert_eq!(code, 0, "{text}");
    daemon.conservation();
}

#[test]
fn usr1_writes_statistics_and_other_signals_are_survived() {
    let ns = lonely();
    let daemon = Builder::new(&ns).start();
    let before = daemon.log();
    daemon.signal(Signal::SIGPIPE);
    daemon.signal(Signal::SIGUSR2);
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_log("encap");
    assert!(!before.contains("encap received"), "{before}");
    daemon.wait_alive();
}

#[test]
fn a_bind_address_that_is_not_there_yet_is_waited_for() {
    let ns = lonely();
    let daemon = Daemon::router(&ns, "10.0.0.200".parse().expect("an address")).start();
    assert_eq!(daemon.http("/ready").map(|(status, _)| status), Ok(503));
    ns.ip("addr add 10.0.0.200/24 dev eth0");
    daemon.wait_ready();
}
