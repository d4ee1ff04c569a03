//! The tunnel interface set down and up, deleted, and its IPv4 address changed, again and again under load: how long a flow is
//! silent each time, and that nothing is left behind (FAULTS 54, 56, 57).
//!
//! ```text
//!   srv 2001:db8:99::2 ---- rtr 10.0.0.1 (isatapd, advertises) ----- h1 10.0.0.2 (isatapd), questions and a transfer to srv
//! ```
//!
//! Short by default; `ISATAPD_TEST_DOWNS=1000`, `ISATAPD_TEST_DELETIONS=50` and `ISATAPD_TEST_CHANGES=100` make it long.

use std::fmt;
use std::net::Ipv4Addr;
use std::slice;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Builder, Daemon, TUNNEL};
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{ROUTER, SERVER, Scene, host_v4, set_address};
use isatap_tests::state::{self, descriptors, resident_kib, wait_configured};
use isatap_tests::steady::{Outcome, Pulse, Stream};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

/// Between two questions: the resolution of the silences.
const INTERVAL: Duration = Duration::from_millis(1);
/// Long enough for anything, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// A silence is as long as this at most, by the median.
const RESTORED: Duration = Duration::from_secs(1);
/// Between two rounds: the flow is well again, and TCP gets on.
const BREATH: Duration = Duration::from_millis(100);
/// TCP that was interrupted again and again tries ever more seldom, at the end every two minutes.
const TCP_PATIENCE: Duration = Duration::from_secs(150);
/// Room for buffers that had not been used before; a leak in each round of a long run is more.
const GROWTH_KIB: u64 = 8192;

fn rounds(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// What the rounds of one fault cost.
#[derive(Debug, Default)]
struct Costs(Vec<Outcome>);

impl Costs {
    fn silences(&self) -> Vec<Duration> {
        let mut silences: Vec<_> = self.0.iter().map(|outcome| outcome.silence).collect();
        silences.sort_unstable();
        silences
    }

    /// The silence that so many in a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let silences = self.silences();
        silences[(silences.len() * percent / 100).min(silences.len() - 1)]
    }

    fn median(&self) -> Duration {
        self.percentile(50)
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asked, lost) = self.0.iter().fold((0, 0), |(asked, lost), outcome| {
            (asked + outcome.asked, lost + outcome.lost)
        });
        write!(
            f,
            "{} times: silence median {:.1?}, p99 {:.1?}, worst {:.1?}; {lost} of {asked} questions lost meanwhile",
            self.0.len(),
            self.median(),
            self.percentile(99),
            self.percentile(100)
        )
    }
}

fn router(scene: &Scene) -> Daemon<'_> {
    Daemon::router(&scene.router, ROUTER)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link")
        .workers(2)
        .start()
}

/// A host with whatever address its IPv4 network gives it.
fn host(scene: &Scene) -> Daemon<'_> {
    let ns = &scene.hosts[0];
    let daemon = Builder::new(ns)
        .config(&format!("BindAddress auto\nServerAddress {ROUTER}"))
        .workers(2)
        .start();
    wait_configured(ns, &[host_v4(0)]);
    ping_until(ns, &SERVER.to_string(), PATIENCE);
    daemon
}

/// Strikes so often under load; what each round cost.
#[track_caller]
fn strike(pulse: &Pulse, times: usize, mut fault: impl FnMut(usize)) -> Costs {
    let mut costs = Costs::default();
    for round in 0..times {
        let began = Instant::now();
        fault(round);
        costs
            .0
            .push(Pulse::since(slice::from_ref(pulse), began, PATIENCE));
        std::thread::sleep(BREATH);
    }
    costs
}

/// FAULTS 57: questions and a TCP connection go on over an interface that is set down and up; router and host take turns.
#[test]
fn down_and_up_under_load() {
    let scene = Scene::new(1);
    let (router, host) = (router(&scene), host(&scene));
    let daemons = [&router, &host];
    let indices = daemons.map(|daemon| state::if_index(daemon.ns(), TUNNEL));
    let (ns, server) = (&scene.hosts[0], &scene.server);
    let pulse = Pulse::start(ns, server, &[SERVER], INTERVAL);
    let stream = Stream::start(ns, server, SERVER);
    let flap = |round: usize| {
        let ns = daemons[round % 2].ns();
        ns.ip_batch(&format!("link set {TUNNEL} down\nlink set {TUNNEL} up\n"));
    };
    strike(&pulse, 4, flap);
    let engines = daemons.map(Daemon::engine_pid);
    let held = engines.map(|pid| (descriptors(pid), resident_kib(pid)));
    let costs = strike(&pulse, rounds("ISATAPD_TEST_DOWNS", 40), flap);
    let grown = engines.map(resident_kib).into_iter().zip(held);
    let grown = grown.map(|(now, (_, then))| now.saturating_sub(then)).max();
    eprintln!(
        "down and up {costs}; memory grew by {} KiB",
        grown.unwrap_or_default()
    );
    assert!(costs.median() <= RESTORED, "{costs}");
    assert!(grown < Some(GROWTH_KIB), "{grown:?} KiB");
    for (pid, (open, _)) in engines.into_iter().zip(held) {
        wait::holds("as many descriptors as before", PATIENCE, || {
            descriptors(pid) <= open
        });
    }
    stream.wait_more(32 * 1024, TCP_PATIENCE);
    stream.finish();
    pulse.finish();
    assert_eq!(daemons.map(Daemon::engine_pid), engines, "nobody died of it");
    assert_eq!(
        daemons.map(|daemon| state::if_index(daemon.ns(), TUNNEL)),
        indices
    );
    daemons.into_iter().for_each(Daemon::conservation);
}

/// A host configured by hand: it needs no router's word, and goes on when one takes leave. Before there is a router: one that
/// advertises would give the host the same address, now before and now after this does.
fn independent_host(scene: &Scene) -> Daemon<'_> {
    let ns = &scene.hosts[0];
    let daemon = Daemon::host(ns, host_v4(0), &[ROUTER])
        .config("DefaultRoute no")
        .workers(2)
        .start();
    set_address(ns, host_v4(0));
    ns.ip(&format!(
        "route add default via {} dev {TUNNEL} metric 1",
        link_local(ROUTER)
    ));
    daemon
}

/// FAULTS 56: the router's interface is deleted. The daemon ends at once and says why, the next one serves in the same place,
/// and the host's TCP connection outlives them all.
#[test]
fn deleted_under_load() {
    let scene = Scene::new(1);
    let (host, router) = (independent_host(&scene), router(&scene));
    let (ns, server) = (&scene.hosts[0], &scene.server);
    ping_until(ns, &SERVER.to_string(), PATIENCE);
    let pulse = Pulse::start(ns, server, &[SERVER], INTERVAL);
    let stream = Stream::start(ns, server, SERVER);
    let mut serving = Some(router);
    let mut endings = Vec::new();
    let costs = strike(&pulse, rounds("ISATAPD_TEST_DELETIONS", 4), |_| {
        let mut daemon = serving.take().expect("one serves");
        scene.router.ip(&format!("link del {TUNNEL}"));
        let deleted = Instant::now();
        let status = daemon.wait_exit(PATIENCE);
        endings.push(deleted.elapsed());
        assert!(status.code().is_some_and(|code| code != 0), "{status:?}");
        assert!(daemon.log().contains("was deleted"), "{}", daemon.log());
        serving = Some(daemon.start_again());
    });
    endings.sort_unstable();
    let median = endings[endings.len() / 2];
    eprintln!(
        "deleted, ended, started again {costs}; ended after {median:.1?}, at the latest after {:.1?}",
        endings[endings.len() - 1]
    );
    assert!(median <= RESTORED, "{endings:?}");
    stream.wait_more(32 * 1024, TCP_PATIENCE);
    stream.finish();
    pulse.finish();
    host.conservation();
    serving.expect("one serves").conservation();
}

/// FAULTS 54: the host's IPv4 address becomes another one and back, as in a network that renumbers: another tunnel address
/// on the same interface, in the same process.
#[test]
fn another_address_under_load() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
    let scene = Scene::new(1);
    let (router, host) = (router(&scene), host(&scene));
    let ns = &scene.hosts[0];
    let (index, engine) = (state::if_index(ns, TUNNEL), host.engine_pid());
    let pulse = Pulse::roaming(ns, &scene.server, &[SERVER], INTERVAL);
    let both = [host_v4(0), OTHER];
    let change = |round: usize| {
        let (old, new) = (both[round % 2], both[(round + 1) % 2]);
        ns.ip_batch(&format!(
            "addr del {old}/24 dev {UNDERLAY}\naddr add {new}/24 brd + dev {UNDERLAY}\n"
        ));
        wait_configured(ns, &[new]);
    };
    strike(&pulse, 4, change);
    let (open, memory) = (descriptors(engine), resident_kib(engine));
    let costs = strike(&pulse, rounds("ISATAPD_TEST_CHANGES", 10), change);
    let grown = resident_kib(engine).saturating_sub(memory);
    eprintln!("another IPv4 address {costs}; memory grew by {grown} KiB");
    assert!(costs.median() <= RESTORED, "{costs}");
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    wait::holds("as many descriptors as before", PATIENCE, || {
        descriptors(engine) <= open
    });
    pulse.finish();
    assert_eq!((state::if_index(ns, TUNNEL), host.engine_pid()), (index, engine));
    [router, host].iter().for_each(Daemon::conservation);
}
