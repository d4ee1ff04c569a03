//! The monitor from outside: what it refuses, what it needs, who may tell it what (FAULTS 61, 71, 72).
//!
//! ```text
//!   dut 10.0.0.1 (a bridge without ports)
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isatap_tests::daemon::{Builder, Daemon, Lane, METRICS, TUNNEL, program};
use isatap_tests::fault::{FOLLOWED, wait_successor, wish};
use isatap_tests::metrics::http_get;
use isatap_tests::netns::Netns;
use isatap_tests::scene::SOON;
use isatap_tests::{state, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn lonely() -> Netns {
    let ns = Netns::new("dut");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    ns
}

/// FAULTS 72: an engine that somebody else has taken over asks for what it must not have: each is refused, told in the log,
/// and nothing of it has happened.
#[test]
fn what_an_engine_must_not_have_is_refused() {
    let ns = lonely();
    ns.ip("addr add 2001:db8:1::1/64 dev eth0 nodad");
    let daemon = Builder::new(&ns).start();
    let before = (state::snapshot(&ns, TUNNEL), state::snapshot(&ns, "eth0"));
    let answers = wish(&daemon, "forbidden").expect("answers");
    for why in [
        "the MTU is out of bounds",
        "no host can have this IPv4 address",
        "the address is no ISATAP address",
        "metric or preference are out of bounds",
        "the port is one of the privileged ones",
    ] {
        assert!(answers.contains(why), "{why:?} is not in {answers}");
        daemon.wait_log(why);
    }
    assert!(!answers.contains(": done"), "{answers}");
    assert_eq!(
        (state::snapshot(&ns, TUNNEL), state::snapshot(&ns, "eth0")),
        before
    );
    assert!(ns.ip(&format!("link show {TUNNEL}")).contains("mtu 1280"));
    daemon.conservation();
}

/// FAULTS 61: signals are for the monitor; an engine does not hear them, so that nobody ends the tunnel by accident.
#[test]
fn an_engine_hears_no_signal_that_can_be_ignored() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    let engine = daemon.engine_pid();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGALRM,
    ] {
        kill(Pid::from_raw(engine), signal).expect("a signal");
    }
    // It answers, and it is the same one.
    assert!(daemon.ctl("status").status.success());
    assert_eq!(daemon.engine_pid(), engine);
    daemon.stop();
}

/// FAULTS 72: nor has it more routes than there could ever be, which would fill the kernel's memory.
#[test]
fn there_are_only_so_many_routes() {
    let ns = lonely();
    let daemon = Builder::new(&ns).start();
    let answers = wish(&daemon, "routes").expect("answers");
    assert!(
        answers.contains("more than this daemon would ever want"),
        "{answers}"
    );
    let routes = ns.ip(&format!("-6 route show dev {TUNNEL} proto 41"));
    assert!(
        answers.contains(&format!("\"{}\"", routes.lines().count())),
        "{answers}"
    );
}

/// FAULTS 62: a monitor that answered too late listens already where the next reload would have it listen; that is in nobody's way.
#[test]
fn what_was_asked_for_before_is_held_already() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    let answer = wish(&daemon, "listen").expect("an answer");
    assert!(answer.contains("[\"done\",\"done\"]"), "{answer}");
    daemon.stop();
}

/// FAULTS 72: an engine that asks without end and takes no answer is ended for it. The monitor waits for it never: it hears that it is to end.
#[test]
fn an_engine_that_takes_no_answers_is_ended() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    for round in 0..2 {
        let engine = daemon.engine_pid();
        assert_eq!(wish(&daemon, "flood"), None);
        if round == 0 {
            wait_successor(&daemon, engine);
            daemon.wait_log("the engine is started again: it asks again and again and takes no answer");
        }
    }
    assert!(daemon.stop() < FOLLOWED);
}

/// A storm of HUP is a few reloads, and the monitor answers the engine all the while.
#[test]
fn a_storm_of_signals_is_survived() {
    let ns = lonely();
    let daemon = Builder::new(&ns).start();
    let engine = daemon.engine_pid();
    for round in 0..2000 {
        daemon.signal(if round % 10 == 0 {
            Signal::SIGUSR1
        } else {
            Signal::SIGHUP
        });
    }
    daemon.rewrite_config("Ttl 33\n");
    let output = daemon.ctl("reload");
    assert!(output.status.success(), "{output:?}");
    wait::until("the new value", SOON, || {
        let (_, status) = daemon.http("/api/v1/status")?;
        let status: serde_json::Value = serde_json::from_str(&status).map_err(|e| e.to_string())?;
        let settings = status["configuration"].as_array().cloned().unwrap_or_default();
        match settings.iter().find(|setting| setting["name"] == "Ttl") {
            Some(ttl) if ttl["value"] == "33" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(daemon.engine_pid(), engine);
    daemon.conservation();
}

/// A daemon in the hands of a service manager that starts it as its user.
struct Unprivileged {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_as_nobody(ns: &Netns, capabilities: &str) -> Unprivileged {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(folder.path(), 0o755);
    // Where the build is may be closed to others.
    fs::copy(program("isatapd"), path("isatapd")).expect("a copy");
    open(&path("isatapd"), 0o755);
    fs::create_dir(path("run")).expect("a folder");
    let nobody = nix::unistd::User::from_name("nobody")
        .expect("passwd")
        .expect("nobody");
    nix::unistd::chown(&path("run"), Some(nobody.uid), Some(nobody.gid)).expect("its folder");
    fs::create_dir(path("root")).expect("a folder");
    open(&path("root"), 0o555);
    let socket = path("run/control.sock");
    fs::write(path("conf"), format!("ControlSocket {}\n", socket.display())).expect("a configuration");
    open(&path("conf"), 0o644);
    // A device that is open to everybody, as most machines have it, whatever this one has.
    let tun = path("tun");
    let made = Command::new("mknod")
        .arg("-m")
        .arg("0666")
        .arg(&tun)
        .args(["c", "10", "200"])
        .status();
    assert!(made.expect("mknod").success());
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /dev/net/tun && exec setpriv \"$@\"",
        ])
        .arg(&tun)
        .args([
            "--reuid",
            "nobody",
            "--regid",
            &nobody.gid.to_string(),
            "--clear-groups",
        ])
        .args([
            format!("--inh-caps=-all,{capabilities}"),
            format!("--ambient-caps=-all,{capabilities}"),
        ])
        .arg(path("isatapd"))
        .arg("-f")
        .args([Path::new("-c"), &path("conf"), Path::new("-p"), &path("run/pid")])
        .args([Path::new("-t"), &path("root")])
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    Unprivileged {
        child: ns.spawn(&mut command),
        _folder: folder,
    }
}

/// Started as its user with ambient capabilities (`User=` and `AmbientCapabilities=` of a unit), it needs no change of user,
/// and the engine has nothing all the same.
#[test]
fn it_starts_as_its_user_with_ambient_capabilities() {
    let ns = lonely();
    let mut daemon = start_as_nobody(&ns, "+net_admin,+net_raw,+sys_chroot,+setpcap");
    let metrics = METRICS.parse().expect("an address");
    let alive = || http_get(&ns, metrics, "/ready");
    wait::until("the daemon to serve", SOON * 2, || {
        match daemon.child.try_wait() {
            Ok(None) => alive(),
            ended => panic!(
                "{ended:?}: {:?}",
                std::io::read_to_string(daemon.child.stderr.take().expect("a pipe"))
            ),
        }
    });
    let monitor = daemon.child.id();
    let text = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let field = |pid: u32, name: &str| {
        let text = text(pid);
        let line = text.lines().find(|line| line.starts_with(name)).expect("a field");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    let engine = || {
        let children = fs::read_dir("/proc").expect("proc").flatten();
        let pids = children.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
                status.contains(&format!("PPid:\t{monitor}\n")) && status.contains("Name:\tisatapd-engine\n")
            })
        })
        .max()
    };
    let first = engine().expect("an engine");
    // NET_ADMIN, NET_RAW, SYS_CHROOT, SETPCAP.
    assert_eq!(field(monitor, "CapEff:"), "0000000000043100");
    for pid in [monitor, first] {
        assert_eq!(field(pid, "NoNewPrivs:"), "1");
        assert_ne!(field(pid, "Uid:"), "0");
    }
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:", "CapBnd:"] {
        assert_eq!(field(first, set), "0000000000000000", "{set}");
    }
    // The next one is started the same way.
    kill(
        Pid::from_raw(i32::try_from(first).expect("a pid")),
        Signal::SIGKILL,
    )
    .expect("kill the engine");
    wait::holds("another engine", SOON * 2, || {
        engine().is_some_and(|pid| pid != first) && alive().is_ok()
    });
    kill(
        Pid::from_raw(i32::try_from(monitor).expect("a pid")),
        Signal::SIGTERM,
    )
    .expect("stop it");
    wait::holds("the daemon to end", SOON, || {
        matches!(daemon.child.try_wait(), Ok(Some(_)))
    });
    assert!(!ns.has_link(TUNNEL));
    assert!(!daemon._folder.path().join("run/control.sock").exists());
}

/// What is missing is named, one by one, and nothing else is asked for.
#[test]
fn each_capability_that_is_missing_is_named() {
    let ns = lonely();
    for (given, missing) in [
        ("+net_raw,+sys_chroot", "CAP_NET_ADMIN missing"),
        ("+net_admin,+sys_chroot", "CAP_NET_RAW missing"),
        ("+net_admin,+net_raw", "CAP_SYS_CHROOT missing"),
    ] {
        let mut daemon = start_as_nobody(&ns, given);
        let status = daemon.child.wait().expect("its end");
        assert_eq!(status.code(), Some(77), "{given}");
        let text = std::io::read_to_string(daemon.child.stderr.take().expect("a pipe")).expect("a message");
        assert!(text.contains(missing), "{given}: {text}");
    }
    assert!(!ns.has_link(TUNNEL));
}

/// FAULTS 72: an engine that somebody else has taken over would have the programs everywhere: they go where the tunnel may be. One
/// that asks for a device that has just gone is not told off for it.
#[test]
fn programs_go_where_the_tunnel_may_be() {
    let ns = lonely();
    ns.ip_batch(
        "link add eth1 type bridge\naddr add 10.0.1.1/24 dev eth1\nlink set eth1 up\n\
         link add eth2 type bridge\nlink set eth2 up\n",
    );
    let index = |device: &str| state::if_index(&ns, device);
    let at = |daemon: &Daemon<'_>, device: &str| {
        wait::until(&format!("programs at {device}"), SOON, || {
            let (_, status) = daemon.http("/api/v1/status")?;
            let status: serde_json::Value = serde_json::from_str(&status).map_err(|e| e.to_string())?;
            let devices = &status["programs"]["devices"];
            if *devices == serde_json::json!([device]) {
                Ok(())
            } else {
                Err(format!("{devices}\n{}", daemon.log()))
            }
        });
    };
    let daemon = Daemon::router(&ns, [10, 0, 0, 1].into()).lane(Lane::Ebpf).start();
    at(&daemon, "eth0");
    let engine = daemon.engine_pid();
    let asked = || -> Vec<String> {
        let answer = wish(&daemon, "devices").expect("an answer");
        answer.split('"').map(str::to_owned).collect()
    };
    let (ethernet, locator) = ("no Ethernet device", "no address that may carry the tunnel");
    let judged = |allowed: &[&str]| {
        let answers = asked();
        let answer = |index: u32| {
            let found = answers
                .iter()
                .find(|line| line.starts_with(&format!("{index}: ")));
            found.unwrap_or_else(|| panic!("no answer about {index} in {answers:?}"))
        };
        for device in ["eth0", "eth1", "eth2", "lo", TUNNEL] {
            let expected = match device {
                _ if allowed.contains(&device) => "done",
                "eth0" | "eth1" | "eth2" => locator,
                _ => ethernet,
            };
            let text = answer(index(device));
            assert!(text.contains(expected), "{device}: {text}");
        }
        assert!(answer(16).contains("no such device"), "{answers:?}");
    };
    judged(&["eth0"]);
    daemon.wait_log(&format!(
        "attach a program to device {}: refused, the device has no address",
        index("eth1")
    ));
    assert!(!daemon.log().contains("attach a program to device 16"));
    assert_eq!(daemon.engine_pid(), engine);

    // What the operator changes, and only he, is another matter; what held before holds until he changes it again.
    let reload = |address: &str| {
        daemon.rewrite_config(&format!("BindAddress {address}\n"));
        let output = daemon.ctl("reload");
        assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    };
    reload("10.0.1.1");
    at(&daemon, "eth1");
    judged(&["eth0", "eth1"]);
    let other = daemon.ctl("drain");
    assert!(other.status.success(), "{other:?}");
    judged(&["eth0", "eth1"]);
    assert_eq!(daemon.engine_pid(), engine);
    // Who takes over goes by what the one before did.
    let output = daemon.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    judged(&["eth0", "eth1"]);
}

/// The devices where a process has programs by TCX, as it holds them: nobody is asked.
fn devices_with_programs(pid: i32) -> BTreeSet<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .expect("a process")
        .flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let of_tcx = texts.filter(|text| text.contains("link_type:\ttcx"));
    let index = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("ifindex:"));
        line.expect("a device").trim().parse().expect("a number")
    };
    of_tcx.map(index).collect()
}

/// FAULTS 72: a device that loses its address loses the program, and has it again with the address, whatever the engine asks
/// for: this one is stopped, and asks for nothing.
#[test]
fn programs_leave_a_device_that_loses_its_address() {
    let ns = lonely();
    let mut daemon = Daemon::router(&ns, [10, 0, 0, 1].into()).lane(Lane::Ebpf).start();
    daemon.wait_programs();
    let [tunnel, eth0] = [TUNNEL, "eth0"].map(|device| state::if_index(&ns, device));
    let monitor = daemon.pid();
    let at = |devices: &[u32]| {
        wait::until("programs where they should be", SOON, || {
            let found = devices_with_programs(monitor);
            if found == devices.iter().copied().collect() {
                Ok(())
            } else {
                Err(format!("{found:?}\n{}", daemon.log()))
            }
        });
    };
    at(&[tunnel, eth0]);
    let engine = Pid::from_raw(daemon.engine_pid());
    kill(engine, Signal::SIGSTOP).expect("stop the engine");
    // An address that is nothing to the tunnel changes nothing.
    ns.ip("addr add 10.0.9.9/24 dev eth0");
    ns.ip("addr del 10.0.0.1/24 dev eth0");
    at(&[tunnel]);
    ns.ip("addr add 10.0.0.1/24 dev eth0");
    at(&[tunnel, eth0]);
    kill(engine, Signal::SIGCONT).expect("let it go on");
    for told in ["the program is taken from device", "may have a program again"] {
        assert!(daemon.log().contains(told), "{told:?} is not in {}", daemon.log());
    }
    daemon.conservation();
    assert_eq!(daemon.engine_pid(), engine.as_raw(), "{}", daemon.log());
    daemon.stop();
}
