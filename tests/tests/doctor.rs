//! `isatapctl doctor` on machines with something wrong: each trap is made in a namespace, found, and gone when mended.
//!
//! ```text
//!   dut 10.0.0.1 (router) ------ x 10.0.0.9
//! ```

use std::path::Path;
use std::process::{Command, Output};

use isatap_tests::asker::{ALL_ROUTERS, ANSWERED, Asker, EVERYTHING};
use isatap_tests::confined::refusing;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL, program};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::packet::Inner;
use isatap_tests::raw::Injector;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

fn report(daemon: &Daemon<'_>) -> (bool, String) {
    read(daemon.ctl("doctor"))
}

fn read(output: Output) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.success(), text.concat())
}

/// What it says in a world of files of its own, which `change` has made otherwise; `socket` leads to the daemon.
fn report_where(scene: &Opposite, socket: &Path, change: &str) -> (bool, String) {
    let script = format!("{change}\nexec \"$1\" --socket \"$2\" doctor");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh"])
        .arg(program("isatapctl"))
        .arg(socket);
    read(
        scene
            .dut
            .enter(|| command.output())
            .expect("util-linux is installed"),
    )
}

fn socket(daemon: &Daemon<'_>) -> std::path::PathBuf {
    daemon.folder().join("control.sock")
}

/// The line about `subject`.
fn line<'a>(report: &'a str, subject: &str) -> &'a str {
    let about = |line: &&str| {
        line.split_once(' ')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(subject))
    };
    report
        .lines()
        .find(about)
        .unwrap_or_else(|| panic!("nothing about {subject}:\n{report}"))
}

/// FAULTS 29, 36, 59: forwarding off, a second program with protocol 41, a small MTU, strict reverse paths, a firewall.
#[test]
fn traps_are_found_and_gone_when_mended() {
    let scene = Opposite::new();
    // By `ebpf`, told to carry all the same, no firewall would refuse anything.
    let daemon = scene.router(|builder| builder.config("Lane auto\nAdvertise yes"));

    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");
    let (fine, text) = report(&daemon);
    assert!(fine, "{text}");
    for subject in [
        "daemon",
        "ready",
        "forwarding",
        "protocol 41",
        "MTU",
        "firewall",
        "advertisements",
    ] {
        assert!(line(&text, subject).starts_with("ok"), "{subject}: {text}");
    }

    scene.dut.sysctl("ipv6/conf/all/forwarding", "0");
    let (fine, text) = report(&daemon);
    assert!(
        !fine && line(&text, "forwarding").starts_with("OBSTACLE"),
        "{text}"
    );
    assert!(
        text.contains("-> sysctl -w net.ipv6.conf.all.forwarding=1"),
        "{text}"
    );
    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");

    let second = scene
        .dut
        .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(41))));
    let (_, text) = report(&daemon);
    assert!(line(&text, "protocol 41").starts_with("WARNING"), "{text}");
    drop(second);
    let (_, text) = report(&daemon);
    assert!(line(&text, "protocol 41").starts_with("ok"), "{text}");

    let addresses = scene.dut.ip("-o -4 addr show");
    let device = addresses
        .lines()
        .find(|line| line.contains(&format!(" {DUT}/")))
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("the device of the locator")
        .to_owned();
    scene.dut.ip(&format!("link set {device} mtu 1280"));
    assert!(line(&report(&daemon).1, "MTU").starts_with("WARNING"));
    scene.dut.ip(&format!("link set {device} mtu 1500"));

    scene.dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "1");
    let (_, text) = report(&daemon);
    assert!(
        line(&text, "rp_filter").contains(&format!("strict for {device}")),
        "{text}"
    );
    scene.dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
    assert!(line(&report(&daemon).1, "rp_filter").starts_with("ok"));

    scene.dut.run("nft add table inet f");
    scene
        .dut
        .run("nft add chain inet f o { type filter hook output priority 0 ; }");
    scene.dut.run("nft add rule inet f o ip protocol 41 drop");
    // Programs in the kernel would pass the rule by until they are told of it.
    wait::until("the firewall to refuse a packet", SOON, || {
        scene.dut.try_run(&format!("ping -6 -c 1 -W 1 {}", on_link(X)));
        let (fine, text) = report(&daemon);
        if !fine && line(&text, "firewall").starts_with("OBSTACLE") {
            Ok(())
        } else {
            Err(text)
        }
    });
    daemon.conservation();
}

#[test]
fn without_a_daemon_it_says_so_and_looks_at_the_machine() {
    let scene = Opposite::new();
    let program = isatap_tests::daemon::program("isatapctl");
    let output = scene
        .dut
        .try_run(&format!("{} --socket /nonexistent doctor", program.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(line(&text, "daemon").starts_with("OBSTACLE"), "{text}");
    assert!(line(&text, "/dev/net/tun").starts_with("ok"), "{text}");
}

/// FAULTS 41: a policy that refuses io_uring, and little memory to lock.
#[test]
fn what_rings_need_is_looked_at() {
    let (scene, folder) = (Opposite::new(), TempDir::new().expect("a folder"));
    let daemon = scene.router(|builder| builder.workers(1).limit("memlock", 4 << 20));
    let (_, text) = report(&daemon);
    assert!(line(&text, "io_uring").starts_with("ok"), "{text}");
    assert!(
        line(&text, "locked memory").starts_with("note") && line(&text, "locked memory").contains("4096 KiB"),
        "{text}"
    );
    assert!(text.contains("-> kernels before 5.12"), "{text}");
    let refused = refusing(&folder, "isatapctl", "io_uring_setup", nix::libc::EPERM);
    let ask = format!(
        "{} --socket {} doctor",
        refused.display(),
        socket(&daemon).display()
    );
    let (_, text) = read(scene.dut.try_run(&ask));
    assert!(line(&text, "io_uring").starts_with("WARNING"), "{text}");
    assert!(text.contains("sysctl kernel.io_uring_disabled=0"), "{text}");
}

/// FAULTS 36, 59: kernel tunnels that are loaded (this test shows it a list of modules with one), radvd with and without
/// what ISATAP needs, a device node that is not there, capabilities that cannot be had.
#[test]
fn traps_in_files_are_found() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let with_modules = |content: &str| {
        // A kernel without modules has no such file, so that all of /proc has to be made.
        let change = format!(
            "mount -t tmpfs none /mnt; mkdir /mnt/proc; mount --rbind /proc /mnt/proc; mount -t tmpfs none /proc; \
             ln -s /mnt/proc/self /mnt/proc/sys /proc; echo '{content}' >/proc/modules"
        );
        report_where(&scene, &socket(&daemon), &change).1
    };
    for module in ["sit", "tunnel4", "ipip"] {
        let text = with_modules(&format!("{module} 28672 0 - Live 0x0"));
        assert!(line(&text, "kernel tunnels").starts_with("WARNING"), "{text}");
        assert!(line(&text, "kernel tunnels").contains(module), "{text}");
    }
    let text = with_modules("tun 65536 2 - Live 0x0");
    assert!(line(&text, "kernel tunnels").starts_with("ok"), "{text}");

    let nowhere = Path::new("/nonexistent");
    let (fine, text) = report_where(&scene, nowhere, "mount -t tmpfs none /dev/net");
    assert!(
        !fine && line(&text, "/dev/net/tun").starts_with("OBSTACLE") && text.contains("-> modprobe tun"),
        "{text}"
    );
    let (_, text) = report_where(&scene, nowhere, "");
    assert!(line(&text, "capabilities").starts_with("ok"), "{text}");
    let (fine, text) = report_where(
        &scene,
        nowhere,
        "exec setpriv --bounding-set -net_raw \"$1\" --socket \"$2\" doctor",
    );
    assert!(
        !fine && line(&text, "capabilities").contains("CAP_NET_RAW"),
        "{text}"
    );
}

/// ECOSYSTEM U8: who advertises, from the file of radvd.
#[test]
fn radvd_without_what_isatap_needs_is_found() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    for (file, says) in [
        ("interface eth7 { AdvSendAdvert on; };", "WARNING"),
        ("interface is0 { UnicastOnly on; };", "WARNING"),
        ("interface is0 { AdvSendAdvert on; };", "note"),
        ("interface is0 { AdvSendAdvert on; UnicastOnly on; };", "ok"),
    ] {
        // A folder of its own: the file need not exist on this machine.
        let change = format!(
            "mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work; \
             mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc; \
             echo '{file}' >/etc/radvd.conf"
        );
        let (_, text) = report_where(&scene, &socket(&daemon), &change);
        assert!(line(&text, "advertisements").starts_with(says), "{file}: {text}");
    }
}

/// DESIGN D3, FAULTS 30: how the underlay merges, translators on the way, and what the kernel had no room for.
#[test]
fn traps_of_the_way_are_found() {
    let scene = Opposite::new();
    // A lane of workers: queues overflow while they do not run.
    let daemon = scene.router(|builder| builder.workers(1).lane(Lane::Uring));
    let grade = |subject: &str| {
        let (_, text) = report(&daemon);
        line(&text, subject).to_owned()
    };
    for (setting, says) in [
        ("gro on", "ok        GRO               on"),
        ("gro off", "ok        GRO               off"),
    ] {
        scene.dut.run(&format!("ethtool -K {UNDERLAY} {setting}"));
        let found = grade("GRO");
        assert!(found.starts_with(says), "{setting}: {found}");
    }

    scene.dut.run("nft add table ip n");
    scene
        .dut
        .run("nft add chain ip n p { type nat hook postrouting priority 100 ; }");
    assert!(grade("NAT").starts_with("ok"));
    scene.dut.run("nft add rule ip n p oifname other masquerade");
    assert!(grade("NAT").starts_with("note"));
    scene.dut.run("nft insert rule ip n p ip protocol 41 accept");
    assert!(grade("NAT").starts_with("ok"));
    scene.dut.run("nft delete table ip n");

    assert!(grade("kernel's drops").starts_with("ok"));
    let injector = Injector::tun(&scene.dut, TUNNEL);
    scene.dut.run(&format!("ip link set {TUNNEL} txqueuelen 10"));
    daemon.freeze();
    let lost = || KernelDrops::read(&scene.dut).at("is0 tx");
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, 4000, b"too many");
    for _ in 0..100_000 {
        injector.send(&packet);
        if lost() > 0 {
            break;
        }
    }
    daemon.thaw();
    assert!(grade("kernel's drops").starts_with("note"));
}

/// FAULTS 29: a router that cannot send its answers says so once, with the reason, however many hosts ask; doctor finds it, and there
/// is nothing more to find when it can.
#[test]
fn answers_that_are_not_sent_are_told() {
    let scene = Opposite::new();
    let daemon = Daemon::router(&scene.dut, DUT).config(EVERYTHING).start();
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    let failed = || {
        let name = "isatapd_router_advertisements_sent_total";
        daemon.metrics().sum(name, &[("result", "failed")])
    };
    let (_, text) = report(&daemon);
    assert!(line(&text, "sending").starts_with("ok"), "{text}");
    scene.dut.run("nft add table ip t");
    scene
        .dut
        .run("nft add chain ip t out { type filter hook output priority 0; }");
    scene.dut.run("nft add rule ip t out ip protocol 41 drop");
    for asked in 1..=3 {
        asker.ask(ALL_ROUTERS);
        wait::holds("an answer that is refused", SOON, || failed() >= asked);
    }
    let refused = format!("cannot advertise to {}: Operation not permitted", asker.v4);
    daemon.wait_log(&refused);
    assert_eq!(daemon.log().matches(&refused).count(), 1, "{}", daemon.log());
    let (_, text) = report(&daemon);
    assert!(line(&text, "sending").starts_with("note"), "{text}");
    assert!(text.contains("3 advertisement(s)"), "{text}");
    scene.dut.run("nft delete table ip t");
    asker.ask(ALL_ROUTERS);
    asker.wait(1, ANSWERED);
    assert_eq!(failed(), 3);
    daemon.conservation();
}
