//! Three routers under one anycast address that BIRD announces while they are ready: one is drained, killed, hangs,
//! loses its helper, and comes back; hosts keep their transfers and notice nothing (P16; FAULTS 34, 60). Topology: see
//! `isatap_tests::fleet`; the snippet under test is doc/anycast/bird.conf.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::fleet::{ANYCAST, Fleet, INTERVAL, Router, host_v4, server, shares};
use isatap_tests::ping::ping_until;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::SOON;
use isatap_tests::state::routes;
use isatap_tests::steady::{Pulse, Stream};
use isatap_tests::wait;

/// What an outage may take where nothing has to be found out: the kernel tells of it. The rest is for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(4);
/// A daemon that hangs is noticed after two seconds.
const HANGS: Duration = Duration::from_secs(8);

fn shipped(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../doc/anycast")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the snippet suggests in comments is something that BIRD takes.
#[test]
fn bird_takes_what_the_snippet_suggests() {
    let text = shipped("bird.conf");
    // Examples are what is set in by more than one blank.
    let line = |line: &str| line.strip_prefix("#   ").unwrap_or(line).to_owned();
    let whole: Vec<_> = text.lines().map(line).collect();
    let whole = format!(
        "router id 10.9.1.2;\nprotocol device {{ }}\n{}\n",
        whole.join("\n")
    );
    for protocol in ["ospf v2", "ospf v3", "bfd", "bgp"] {
        assert!(
            whole.contains(&format!("\nprotocol {protocol} ")),
            "no {protocol} in {whole}"
        );
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), &whole).expect("write it");
    let check = std::process::Command::new("bird")
        .arg("-p")
        .arg("-c")
        .arg(file.path())
        .output();
    let check = check.expect("bird2; run tests/setup.sh");
    assert!(check.status.success(), "{check:?}\n{whole}");
}

/// systemd finds nothing wrong with the unit, and little that it could do.
#[test]
fn the_unit_is_sound() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unit = folder.path().join("isatap-up.service");
    let text = shipped("isatap-up.service");
    assert!(
        text.contains("\nExecStart=/usr/bin/isatapctl ready --hold isatap-up\n"),
        "{text}"
    );
    std::fs::write(&unit, text.replace("/usr/bin/isatapctl", "/bin/true")).expect("write it");
    for arguments in [
        &["verify", "--man=no"][..],
        &["security", "--offline=true", "--threshold=20"],
    ] {
        let analyzed = std::process::Command::new("systemd-analyze")
            .arg("--no-pager")
            .args(arguments)
            .arg(&unit)
            .output();
        let analyzed = analyzed.expect("systemd; run tests/setup.sh");
        let said = String::from_utf8_lossy(&analyzed.stderr).into_owned();
        assert!(
            analyzed.status.success() && !said.contains("isatap-up.service:"),
            "{arguments:?}: {analyzed:?}"
        );
    }
}

struct Traffic {
    pulses: Vec<Pulse>,
    streams: Vec<Stream>,
}

impl Traffic {
    fn start(fleet: &Fleet) -> Self {
        let number = |index: usize| u16::try_from(index + 1).expect("few hosts");
        let hosts = || (0..).zip(&fleet.hosts);
        let flows =
            |index| -> Vec<Ipv6Addr> { (0..4).map(|flow| server(0x100 * number(index) + flow)).collect() };
        let pulses = hosts().map(|(index, ns)| Pulse::start(ns, &fleet.server, &flows(index), INTERVAL));
        let streams =
            hosts().map(|(index, ns)| Stream::start(ns, &fleet.server, server(0x1000 + number(index))));
        Self {
            pulses: pulses.collect(),
            streams: streams.collect(),
        }
    }

    /// Waits until every flow is answered again, then says how long the longest silence since `began` was.
    #[track_caller]
    fn tell(&self, what: &str, began: Instant, limit: Duration) {
        let outcome = Pulse::since(&self.pulses, began, SOON * 6);
        eprintln!("{what}: {outcome}");
        assert!(outcome.asked > 0 && outcome.silence < limit, "{what}: {outcome}");
        for stream in &self.streams {
            stream.wait_more(64 * 1024, SOON * 12);
        }
    }
}

/// The router that gets most from the hosts now.
fn busiest(routers: &[&Router<'_>]) -> usize {
    let seen = shares(routers, || std::thread::sleep(INTERVAL * 30));
    (0..seen.len()).max_by_key(|index| seen[*index]).expect("routers")
}

/// Waits until router `index` gets nothing any more.
#[track_caller]
fn wait_left(routers: &[&Router<'_>], index: usize) {
    wait::until(&format!("nothing at router {index}"), SOON * 6, || {
        let seen = shares(routers, || std::thread::sleep(INTERVAL * 20))[index];
        if seen == 0 { Ok(()) } else { Err(seen) }
    });
}

#[track_caller]
fn usable(hosts: &[Daemon<'_>]) {
    for host in hosts {
        let metrics = host.metrics();
        assert_eq!(
            metrics.sum("isatapd_routers", &[("state", "usable")]),
            1,
            "{}",
            host.ns().name()
        );
        // Nobody told it that its router went.
        assert!(routes(host.ns(), TUNNEL).contains("default via"));
    }
}

/// P16, FAULTS 34, 60: as above.
#[test]
fn hosts_notice_nothing() {
    let fleet = Fleet::new(true);
    let routing = fleet.route();
    let mut routers: Vec<_> = (0..fleet.routers.len())
        .map(|index| fleet.start(index, ANYCAST))
        .collect();
    fleet.wait_ways(3, true);
    // The way to hosts stays the tunnel, though BIRD puts all it knows into the kernel.
    for router in &routers {
        let main = router.daemon.ns().ip("-6 route show 2001:db8:1::/64");
        assert!(main.contains(TUNNEL) && !main.contains("isatap-up"), "{main}");
    }
    let wire = Sniffer::start(&fleet.hosts[0], "eth0");
    let hosts: Vec<_> = (0..fleet.hosts.len())
        .map(|index| fleet.host(index, &ANYCAST.to_string()).start())
        .collect();
    for host in &hosts {
        host.wait_ready();
        ping_until(host.ns(), &server(1).to_string(), SOON * 2);
    }
    // Whatever comes from a router comes from the address of all of them: the source check of hosts relies on it.
    let sources: Vec<_> = wire
        .packets()
        .iter()
        .filter(|seen| !seen.outgoing)
        .filter_map(|seen| seen.outer().map(|outer| (outer.src(), outer.dst())))
        .filter(|(_, dst)| *dst == host_v4(0))
        .collect();
    assert!(
        !sources.is_empty() && sources.iter().all(|(src, _)| *src == ANYCAST),
        "{sources:?}"
    );

    let traffic = Traffic::start(&fleet);
    let began = Instant::now();
    std::thread::sleep(INTERVAL * 50);
    traffic.tell("before", began, AT_ONCE);

    // Drained: the hosts' router stays their router, at another place.
    let all: Vec<_> = routers.iter().collect();
    let drained = busiest(&all);
    let began = Instant::now();
    let said = all[drained].drain(false);
    assert!(said.contains("hosts are told nothing"), "{said}");
    let status = all[drained].daemon.http("/ready").expect("an answer");
    assert!(
        status.0 == 503 && status.1.contains("being drained"),
        "{status:?}"
    );
    fleet.wait_ways(2, true);
    wait_left(&all, drained);
    traffic.tell("drained", began, AT_ONCE);
    usable(&hosts);
    all[drained].drain(true);
    fleet.wait_ways(3, true);

    // It hangs.
    let hung = busiest(&all);
    let began = Instant::now();
    all[hung].daemon.freeze();
    all[hung].wait_announced(false);
    fleet.wait_ways(2, true);
    traffic.tell("hung", began, HANGS);
    all[hung].daemon.thaw();
    fleet.wait_ways(3, true);

    // The helper is killed, and started again.
    let orphaned = busiest(&all);
    let began = Instant::now();
    routers[orphaned].holder.as_mut().expect("a helper").kill();
    routers[orphaned].wait_announced(false);
    fleet.wait_ways(2, true);
    traffic.tell("helper killed", began, AT_ONCE);
    routers[orphaned].announce();
    fleet.wait_ways(3, true);

    // The daemon is killed.
    let all: Vec<_> = routers.iter().collect();
    let killed = busiest(&all);
    let began = Instant::now();
    routers[killed].kill();
    routers[killed].wait_announced(false);
    fleet.wait_ways(2, true);
    traffic.tell("killed", began, AT_ONCE);
    usable(&hosts);

    // Another one is stopped in order: no last words under an address that lives on.
    let rest: Vec<_> = (0..routers.len()).filter(|index| *index != killed).collect();
    let began = Instant::now();
    routers[rest[0]].daemon.stop();
    routers[rest[0]].wait_announced(false);
    fleet.wait_ways(1, true);
    traffic.tell("stopped", began, AT_ONCE);
    usable(&hosts);

    // Both come back.
    for index in [killed, rest[0]] {
        let began = Instant::now();
        let gone = routers.remove(index);
        drop(gone);
        routers.insert(index, fleet.start(index, ANYCAST));
        traffic.tell("back", began, AT_ONCE);
    }
    fleet.wait_ways(3, true);
    assert!(routing.core.ask("show protocols").contains("Established"));

    let Traffic { pulses, streams } = traffic;
    streams
        .into_iter()
        .for_each(|stream| assert!(stream.finish() > 0));
    for pulse in pulses {
        eprintln!("in all: {}", pulse.finish());
    }
    for daemon in hosts.iter().chain(routers.iter().map(|router| &router.daemon)) {
        daemon.conservation();
    }
}
