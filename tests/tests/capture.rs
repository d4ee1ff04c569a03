//! `isatapctl capture`: every packet with what became of it, bounded, and no burden to those that are carried (ECOSYSTEM U9).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ------ x 10.0.0.9 (crafted)
//! ```

mod capturing;

use std::net::{Ipv4Addr, SocketAddrV6};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use capturing::{Capturing, Contents};
use isatap_tests::daemon::{Daemon, Lane, TUNNEL, program};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::{Inner, Outer, link_local};
use isatap_tests::raw::Injector;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::wait;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

const PORT: u16 = 4000;

/// A packet from the crafter that is delivered, different from all others.
fn good(number: u16) -> Vec<u8> {
    Inner::new(on_link(X), on_link(DUT)).udp(number, PORT, &number.to_be_bytes())
}

/// A packet that claims to be from somebody else.
fn forged(number: u16) -> Vec<u8> {
    let other = Ipv4Addr::new(10, 0, 0, 77);
    Inner::new(link_local(other), link_local(DUT)).udp(number, PORT, b"forged")
}

fn captures(daemon: &Daemon<'_>) -> u64 {
    let (_, text) = daemon.http("/api/v1/status").expect("the status");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    status["captures"].as_u64().expect("a number of captures")
}

/// Each reason as it is counted, with the bytes that were received, and an answer where one is due.
#[test]
fn dropped_packets_carry_their_reason() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let (crafter, injector) = (scene.crafter(), Injector::tun(&scene.dut, TUNNEL));
    let capturing = Capturing::start(&daemon, "drops.pcapng", "--drops");
    let before = [Direction::Encap, Direction::Decap].map(|direction| daemon.counters(direction));

    let mut short = Inner::new(on_link(X), on_link(DUT));
    short.payload_len = Some(500);
    let nested = Inner::new(on_link(X), on_link(DUT)).wrap(41, &good(1));
    let decap = [
        ("src_mismatch", crafter.outer().wrap(&forged(1))),
        ("truncated", crafter.outer().wrap(&short.wrap(17, &[0; 8]))),
        ("nested", crafter.outer().wrap(&nested)),
        ("malformed", crafter.outer().wrap(&[0x45; 60])),
        (
            "not_site",
            Outer::new("8.8.8.8".parse().expect("an address"), DUT).wrap(&good(3)),
        ),
    ];
    for (_, packet) in &decap {
        crafter.send(packet);
    }
    crafter.send_inner(&good(4));
    let elsewhere = Inner::new(on_link(DUT), "2001:db8:dead::1".parse().expect("an address"));
    let lost = elsewhere.udp(1, PORT, b"nowhere");
    let mut group = Inner::new(on_link(DUT), "ff05::42".parse().expect("an address"));
    group.hop_limit = 9;
    let group = group.udp(1, PORT, b"a group");
    injector.send(&lost);
    injector.send(&group);
    daemon.wait_received(Direction::Decap, &before[1], 6);
    let encap = daemon.wait_received(Direction::Encap, &before[0], 2);

    let file = daemon.folder().join("drops.pcapng");
    let contents = capturing.finish();
    for (reason, packet) in &decap {
        let found = contents.with(&format!("dropped {reason} (decap, worker "));
        assert_eq!(found.len(), 1, "{reason}: {contents:#?}");
        assert_eq!(
            (found[0].direction, &found[0].bytes),
            (Direction::Decap, packet),
            "{reason}"
        );
        assert_eq!(found[0].len as usize, packet.len());
    }
    for (comment, packet) in [
        (
            "dropped no_route, answered: no route to destination (encap, worker ",
            lost,
        ),
        ("dropped dst_multicast (encap, worker ", group),
    ] {
        let mut found = contents.with(comment);
        // The kernel says other things to groups.
        found.retain(|seen| seen.bytes == packet);
        assert_eq!(found.len(), 1, "{comment}: {contents:#?}");
        assert_eq!(found[0].direction, Direction::Encap);
    }
    assert!(contents.with("delivered").is_empty());
    // As many as were counted: the kernel may have sent packets of its own through the tunnel.
    let dropped = |way| contents.packets.iter().filter(|p| p.direction == way).count() as u64;
    let counted = daemon.counters(Direction::Decap).since(&before[1]);
    assert_eq!(dropped(Direction::Decap), counted.dropped());
    assert!(dropped(Direction::Encap) >= encap.dropped());
    let statistics = contents.statistics.expect("the end of the file");
    assert_eq!(statistics.captured, contents.packets.len() as u64);
    assert_eq!((statistics.wanted, statistics.missed), (statistics.captured, 0));
    assert!(statistics.seen > statistics.wanted, "{statistics:?}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    for packet in &contents.packets {
        assert!(
            now.abs_diff(packet.at) < Duration::from_secs(60),
            "{:?}",
            packet.at
        );
    }
    // Somebody else's program reads it as well, and sees IPv4 and IPv6.
    let read = scene.dut.run(&format!("tcpdump -nr {}", file.display()));
    assert_eq!(read.lines().count(), contents.packets.len(), "{read}");
    assert!(read.contains(&format!("IP {X} > {DUT}")), "{read}");
    assert!(read.contains("IP6 2001:db8:1:"), "{read}");
    daemon.conservation();
}

/// What is carried: received bytes, next hops, and a superpacket as one.
#[test]
fn carried_packets_carry_their_way() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let crafter = scene.crafter();
    let before = daemon.counters(Direction::Decap);
    let capturing = Capturing::start(&daemon, "all.pcapng", &format!("--host {X}"));
    let other = Capturing::start(&daemon, "other.pcapng", "--host 10.0.0.8 --host 2001:db8:8::8");
    let ping = Inner::new(on_link(X), on_link(DUT)).echo_request(7, 1, b"to be seen");
    crafter.send_inner(&ping);
    daemon.wait_received(Direction::Decap, &before, 1);
    // Five datagrams in one go: the tunnel interface gives them as one superpacket.
    let encap = daemon.counters(Direction::Encap);
    scene.dut.enter(|| {
        let socket = std::net::UdpSocket::bind("[::]:0").expect("a socket");
        setsockopt(&socket, sockopt::UdpGsoSegment, &1000).expect("UDP_SEGMENT");
        let to = SocketAddrV6::new(on_link(X), PORT, 0, 0);
        assert_eq!(socket.send_to(&[7; 4500], to).expect("send"), 4500);
    });
    daemon.wait_received(Direction::Encap, &encap, 1);
    let contents = capturing.finish();
    let delivered = contents.with("delivered (decap, worker ");
    assert_eq!(delivered.len(), 1, "{contents:#?}");
    assert_eq!(delivered[0].bytes, crafter.outer().wrap(&ping));
    let answers = contents.with(&format!("sent to {X} (encap, worker "));
    assert!(!answers.is_empty(), "the kernel answers: {contents:#?}");
    let large = contents.with(&format!(
        "sent to {X} as 5 packets of at most 1048 bytes (encap, worker "
    ));
    assert_eq!(large.len(), 1, "{contents:#?}");
    assert_eq!(large[0].len, 40 + 8 + 4500);
    let nobody = other.finish();
    let statistics = nobody.statistics.expect("the end of the file");
    assert_eq!((nobody.packets.len(), statistics.wanted), (0, 0));
    assert!(statistics.seen >= 2, "{statistics:?}");
    daemon.conservation();
}

/// What the kernel refuses after the worker had decided otherwise comes with the reason that is counted.
fn refusals_are_shown(lane: Lane) {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1).lane(lane));
    let (crafter, injector) = (scene.crafter(), Injector::tun(&scene.dut, TUNNEL));
    let capturing = Capturing::start(&daemon, "refused.pcapng", "");
    scene.dut.run("nft add table ip t");
    scene
        .dut
        .run("nft add chain ip t out { type filter hook output priority 0 ; }");
    scene.dut.run("nft add rule ip t out ip protocol 41 drop");
    let before = daemon.counters(Direction::Encap);
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, PORT, b"refused");
    injector.send(&packet);
    let encap = daemon.wait_received(Direction::Encap, &before, 1);
    scene.dut.run("nft delete table ip t");
    scene.dut.ip(&format!("link set {TUNNEL} down"));
    let before = daemon.counters(Direction::Decap);
    let inner = Inner::new(link_local(X), link_local(DUT)).udp(1, PORT, b"down");
    crafter.send_inner(&inner);
    let decap = daemon.wait_received(Direction::Decap, &before, 1);
    assert_eq!(decap.drops.get("tun_down"), Some(&1), "{decap}");
    scene.dut.ip(&format!("link set {TUNNEL} up"));
    let contents = capturing.finish();
    let refused = contents.with(&format!(
        "dropped send_error: the kernel refused it on its way to {X} (encap, worker 0)"
    ));
    assert_eq!(
        Some(&(refused.len() as u64)),
        encap.drops.get("send_error"),
        "{contents:#?}"
    );
    assert!(refused.iter().any(|seen| seen.bytes == packet));
    let down = contents.with("dropped tun_down: the kernel refused it (decap, worker 0)");
    assert_eq!(down.len(), 1, "{contents:#?}");
    assert_eq!((down[0].direction, &down[0].bytes), (Direction::Decap, &inner));
    daemon.conservation();
}

#[test]
fn refusals_are_shown_uring() {
    refusals_are_shown(Lane::Uring);
}

#[test]
fn refusals_are_shown_syscall() {
    refusals_are_shown(Lane::Syscall);
}

#[test]
fn refusals_are_shown_ebpf() {
    refusals_are_shown(Lane::Ebpf);
}

/// More than the rate: every packet is counted as captured or as missed, and the others pass.
#[test]
fn a_flood_is_captured_or_missed_to_the_last_packet() {
    const FLOOD: u16 = 5000;
    let scene = Opposite::new();
    // With one worker the kernel's count of what it dropped is exact.
    let daemon = scene.router(|builder| builder.workers(1));
    let crafter = scene.crafter();
    let before = daemon.counters(Direction::Decap);
    let capturing = Capturing::start(&daemon, "flood.pcapng", "--reason src_mismatch --rate 50 -s 60");
    for number in 0..FLOOD {
        crafter.send_inner(&forged(number));
        if number % 10 == 0 {
            crafter.send_inner(&good(number));
        }
    }
    let sent = u64::from(FLOOD) + u64::from(FLOOD.div_ceil(10));
    let kernel = || daemon.metrics().sum("isatapd_kernel_drops_total", &[]);
    let since = wait::until("everything to be counted", 4 * SOON, || {
        let since = daemon.counters(Direction::Decap).since(&before);
        // What a full socket dropped is not to be seen by anybody.
        if since.received + kernel() >= sent && since.balanced() {
            Ok(since)
        } else {
            Err(since.to_string())
        }
    });
    let contents = capturing.finish();
    let statistics = contents.statistics.expect("the end of the file");
    assert_eq!(Some(&statistics.wanted), since.drops.get("src_mismatch"));
    assert_eq!(statistics.captured + statistics.missed, statistics.wanted);
    assert_eq!(statistics.captured, contents.packets.len() as u64);
    assert!(
        statistics.missed > 0 && statistics.captured >= 50,
        "{statistics:?}"
    );
    // The comments of the packets account for what was missed before each.
    let told: u64 = contents
        .packets
        .iter()
        .filter_map(|p| missed_before(&p.comment))
        .sum();
    assert!(told <= statistics.missed, "{told} of {statistics:?}");
    assert!(contents.packets.iter().all(|p| p.bytes.len() == 60 && p.len > 60));
    assert!(since.delivered > 0, "{since}");
    daemon.conservation();
}

fn missed_before(comment: &str) -> Option<u64> {
    let (_, after) = comment.split_once("; ")?;
    after.strip_suffix(" missed before it")?.parse().ok()
}

/// FAULTS 64: so many and no more; one whose client is killed ends.
#[test]
fn captures_are_bounded_and_end_with_their_clients() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let running: Vec<_> = (0..4)
        .map(|number| Capturing::start(&daemon, &format!("{number}.pcapng"), ""))
        .collect();
    assert_eq!(captures(&daemon), 4);
    let output = daemon.ctl("capture -w /dev/null");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("4 captures run already"), "{told}");
    for capturing in &running {
        capturing.signal(Signal::SIGKILL);
    }
    wait::until("the captures to end", SOON, || match captures(&daemon) {
        0 => Ok(()),
        count => Err(format!("{count} run")),
    });
    // Not what the kernel says to groups by itself.
    let nothing = "--seconds 0.1 --host 192.0.2.1";
    let again = Capturing::start(&daemon, "again.pcapng", nothing).wait();
    assert!(again.status.success(), "{again:?}");
    assert!(again.told.contains("0 packets captured"), "{again:?}");
    daemon.wait_log("capture for uid 0");
    daemon.conservation();
}

/// FAULTS 66: a full disk ends the capture with a clear message, leaves a file that can be read, and nothing else.
#[test]
fn a_full_disk_ends_the_capture_and_nothing_else() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let crafter = scene.crafter();
    let disk = Disk::new(64);
    let capturing = Capturing::launch(&daemon, disk.folder.path().join("full.pcapng"), "");
    wait::holds("the capture to begin", SOON, || captures(&daemon) == 1);
    let before = daemon.counters(Direction::Decap);
    let packet = Inner::new(on_link(X), on_link(DUT)).udp(1, PORT, &[0x5a; 1200]);
    for _ in 0..100 {
        crafter.send_inner(&packet);
    }
    let ended = capturing.wait();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.told.contains("No space left on device"), "{ended:?}");
    let contents = Contents::read(&disk.folder.path().join("full.pcapng"));
    let count = format!("; {} packets are in it", contents.packets.len());
    assert!(ended.told.contains(&count), "{ended:?}, {count}");
    assert_eq!(contents.statistics, None);
    let since = daemon.wait_received(Direction::Decap, &before, 100);
    assert_eq!(since.delivered, since.received, "{since}");
    wait::holds("the capture to be over", SOON, || captures(&daemon) == 0);
    daemon.conservation();
}

/// A small disk of its own.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(kib: u32) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("isatapd-test-disk-")
            .tempdir()
            .expect("a temporary folder");
        let options = format!("size={kib}k");
        nix::mount::mount(
            Some("none"),
            folder.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("a small disk");
        Self { folder }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Straight into somebody else's program, with an exact count; a reader that has enough ends the capture.
#[test]
fn a_pipe_takes_packets_as_they_come() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let crafter = scene.crafter();
    let sent = daemon.folder().join("sent");
    let piped = |arguments: &str, reader: &str| {
        let line = format!(
            "({} --socket {} capture -w - {arguments}) | {reader}",
            program("isatapctl").display(),
            daemon.folder().join("control.sock").display()
        );
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = daemon.ns().spawn(&mut command);
        wait::holds("the capture to begin", SOON, || captures(&daemon) == 1);
        for number in 0..20 {
            crafter.send_inner(&good(number));
        }
        std::fs::write(&sent, "").expect("a file");
        let output = child.wait_with_output().expect("both programs");
        wait::holds("the capture to end", SOON, || captures(&daemon) == 0);
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (seen, told) = piped("--direction decap -c 3", "tcpdump -nr -");
    assert_eq!(seen.lines().count(), 3, "{seen}{told}");
    assert!(told.contains("3 packets captured of "), "{told}");
    let (seen, told) = piped("--direction decap", "tcpdump -nc 2 -r -");
    assert_eq!(seen.lines().count(), 2, "{seen}{told}");
    // The reader takes what is told along, and is gone by then.
    std::fs::remove_file(&sent).expect("it is there");
    // Not before the capture has been seen to begin.
    let reader = format!(
        "(until [ -e {} ]; do sleep 0.05; done; head -c 1 >/dev/null)",
        sent.display()
    );
    let (seen, told) = piped("--direction decap 2>&1; echo $? >&2", &reader);
    assert_eq!((seen.as_str(), told.trim()), ("", "0"));
    daemon.conservation();
}
