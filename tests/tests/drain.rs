//! `isatapctl drain`: a router is taken out of service and back. Hosts hear of it whoever advertises, what still comes is
//! carried, everybody who watches sees it (T7, T11, V3; FAULTS 61).
//!
//! ```text
//!   srv ---- rtr 10.0.0.1 (isatapd) ---+--- h1 10.0.0.2 (isatapd 10.0.0.1)
//!                                      +--- a<n> 10.0.0.<n> (crafted)     see isatap_tests::scene, asker
//! ```

use std::net::Ipv4Addr;

use isatap_tests::asker::{ALL_ROUTERS, ANSWERED, Asker, EVERYTHING};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Daemon, TUNNEL, program};
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::fleet::{Holder, MARKER};
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::ping::ping_until;
use isatap_tests::radvd::Radvd;
use isatap_tests::raw::Sniffer;
use isatap_tests::routers::radvd_conf;
use isatap_tests::scene::{DUT, Opposite, ROUTER, SERVER, SOON, Scene, host_v4, on_link, set_address};
use isatap_tests::wait;
use nix::sys::signal::Signal;

#[track_caller]
fn drain(daemon: &Daemon<'_>, arguments: &str) -> String {
    let output = daemon.ctl(&format!("drain {arguments}"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn status(daemon: &Daemon<'_>) -> serde_json::Value {
    let (_, text) = daemon.http("/api/v1/status").expect("a status");
    serde_json::from_str(&text).expect("JSON")
}

/// T7, FAULTS 61: known hosts hear lifetime 0 at once, whoever asks hears it, too; it outlives a reload and ends by --undo.
#[test]
fn a_router_that_advertises() {
    let scene = Opposite::new();
    let mut router = Daemon::router(&scene.dut, DUT).config(EVERYTHING).start();
    router.wait_ready();
    assert_eq!(router.metrics().sum("isatapd_role", &[("role", "router")]), 1);
    let known = Asker::new(&scene.site, 20, &scene.dut, DUT);
    known.ask(ALL_ROUTERS);
    assert_eq!(known.wait(1, ANSWERED)[0].lifetime(), 1200);
    known.forget();

    let said = drain(&router, "");
    assert!(said.contains("telling 1 host(s)"), "{said}");
    let told = known.wait(1, ANSWERED).remove(0);
    // RFC 4191 2.2: without a lifetime the preference has no meaning, and is medium.
    assert_eq!((told.lifetime(), told.body[1]), (0, 0));
    assert_eq!(told.prefixes(), [], "addresses stay as they are");
    let late = Asker::new(&scene.site, 21, &scene.dut, DUT);
    late.ask(ALL_ROUTERS);
    assert_eq!(late.wait(1, ANSWERED)[0].lifetime(), 0);

    // Everybody who watches sees it, after a reload as before.
    let changed = EVERYTHING.replace("AdvertiseMtu 1400", "AdvertiseMtu 1380");
    router.rewrite_config(&format!("BindAddress {DUT}\n{changed}"));
    assert!(router.ctl("reload").status.success());
    let ready = router.http("/ready").expect("an answer");
    assert!(ready.0 == 503 && ready.1.contains("drain --undo"), "{ready:?}");
    assert_eq!(router.http("/healthz").expect("an answer").0, 200);
    let metrics = router.metrics();
    assert_eq!(
        (
            metrics.sum("isatapd_draining", &[]),
            metrics.sum("isatapd_ready", &[])
        ),
        (1, 0)
    );
    let json = status(&router);
    assert!(
        json["draining_seconds"].as_f64().is_some() && json["ready"] == false,
        "{json}"
    );
    let text = String::from_utf8_lossy(&router.ctl("status").stdout).into_owned();
    assert!(
        text.contains("being drained") && text.contains("\ndraining "),
        "{text}"
    );
    assert!(drain(&router, "").contains("has been drained for"));
    // And after an upgrade, for as long as before.
    let since = status(&router)["draining_seconds"].as_f64().expect("a time");
    assert!(router.ctl("upgrade").status.success(), "{}", router.log());
    let now = status(&router)["draining_seconds"].as_f64().expect("a time");
    assert!(now > since, "{now} s, after {since} s");
    let asked = router.ctl("ready");
    assert_eq!(asked.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&asked.stderr).contains("being drained"),
        "{asked:?}"
    );

    // What comes is carried.
    let inside = Sniffer::start(&scene.dut, TUNNEL);
    let probe = Inner::new(on_link(late.v4), on_link(DUT)).udp(9, 9, b"carried all the same");
    late.send(&probe);
    inside.wait_for("a packet through a drained router", SOON, |seen| {
        seen.packet == probe
    });

    known.forget();
    assert!(drain(&router, "--undo").contains("back in service"));
    let told = known.wait_such("the router again", ANSWERED, |told| told.lifetime() == 1200);
    assert_eq!(told.body[1] >> 3 & 3, 1, "its preference as well");
    router.wait_ready();
    assert!(router.ctl("ready").status.success());
    assert_eq!(router.metrics().sum("isatapd_draining", &[]), 0);
    assert!(drain(&router, "--undo").contains("in service"));

    // The end of a drained router is an end as any other.
    drain(&router, "");
    known.forget();
    router.conservation();
    router.stop();
    known.wait_such("last words", SOON, |told| told.lifetime() == 0);
}

/// The same where radvd answers: this daemon answers in its place, then leaves it to radvd again.
#[test]
fn a_router_with_radvd() {
    let scene = Scene::new(1);
    let router = Daemon::router(&scene.router, ROUTER).start();
    set_address(&scene.router, ROUTER);
    router.wait_route("2001:db8:1::/64");
    let _radvd = Radvd::start(&scene.router, &radvd_conf("medium", 1800, 86400));
    let ns = &scene.hosts[0];
    let host = Daemon::host(ns, host_v4(0), &[ROUTER]).start();
    let has_router = |has| {
        Configured::wait(ns, &format!("a default router: {has}"), SOON * 2, |seen| {
            seen.default_routers().is_empty() != has
        })
    };
    has_router(true);
    ping_until(ns, &SERVER.to_string(), SOON);

    assert!(drain(&router, "").contains("instead of by radvd"));
    let seen = has_router(false);
    assert!(
        seen.address(on_link(host_v4(0))).is_some(),
        "the address stays: {seen:?}"
    );
    let heard = |host: &Daemon<'_>| {
        host.metrics()
            .sum("isatapd_router_advertisements_total", &[("result", "accepted")])
    };
    let before = heard(&host);
    host.ctl("rs");
    wait::holds("an answer to a solicitation", SOON * 2, || heard(&host) > before);
    has_router(false);
    // Its neighbours, and the router itself, it reaches as before.
    ping_until(ns, &on_link(ROUTER).to_string(), SOON);

    drain(&router, "--undo");
    host.ctl("rs");
    has_router(true);
    ping_until(ns, &SERVER.to_string(), SOON);
    router.conservation();
    host.conservation();
}

/// P16: an address that other routers have as well is not taken from hosts, by draining, by silence or at the end.
#[test]
fn a_router_with_a_shared_address() {
    let scene = Opposite::new();
    let shared = Ipv4Addr::new(10, 1, 1, 1);
    scene.dut.ip(&format!("addr add {shared}/32 dev lo"));
    let mut router = Daemon::router(&scene.dut, shared).config(EVERYTHING).start();
    router.wait_ready();
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    asker.ns.ip(&format!("route add {shared} via {DUT}"));
    let asker = Asker::again(asker, &scene.dut, shared);
    asker.ask(link_local(shared));
    assert_eq!(asker.wait(1, ANSWERED)[0].lifetime(), 1200);
    assert_eq!(status(&router)["advertising"]["shared"], true);
    let text = String::from_utf8_lossy(&router.ctl("status").stdout).into_owned();
    assert!(
        text.contains("yes, under an address that is shared, 1 host(s)"),
        "{text}"
    );
    asker.forget();

    assert!(drain(&router, "").contains("hosts are told nothing"));
    assert_eq!(router.http("/ready").expect("an answer").0, 503);
    asker.ask(link_local(shared));
    assert_eq!(
        asker.wait(1, ANSWERED)[0].lifetime(),
        1200,
        "it goes on elsewhere"
    );
    router.conservation();
    router.stop();
    assert!(
        asker.told().iter().all(|told| told.lifetime() == 1200),
        "{:?}",
        asker.told()
    );
}

/// A host leads nobody anywhere; the end of an engine does not end the draining, a restart of the daemon does.
#[test]
fn what_cannot_be_drained_and_what_ends_it() {
    let scene = Opposite::new();
    let host = Daemon::host(&scene.dut, DUT, &[Ipv4Addr::new(10, 0, 0, 7)]).start();
    let refused = host.ctl("drain");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("this is a host"),
        "{refused:?}"
    );
    assert_eq!(host.metrics().sum("isatapd_role", &[("role", "host")]), 1);
    drop(host);

    let mut router = Daemon::router(&scene.dut, DUT).start();
    drain(&router, "");
    // A router that becomes a host is drained no longer, nor when it is a router again.
    router.rewrite_config(&format!("BindAddress {DUT}\nServerAddress 10.0.0.7\n"));
    assert!(router.ctl("reload").status.success());
    assert!(status(&router)["draining_seconds"].is_null());
    router.rewrite_config(&format!("BindAddress {DUT}\n"));
    assert!(router.ctl("reload").status.success());
    router.wait_ready();
    drain(&router, "");
    // The next engine is drained, too.
    let old = kill_engine(&router);
    wait_successor(&router, old);
    assert_eq!(router.metrics().sum("isatapd_draining", &[]), 1);
    assert_eq!(router.http("/ready").expect("an answer").0, 503);
    router.signal(Signal::SIGKILL);
    router.wait_exit(SOON);
    let again = Daemon::router(&scene.dut, DUT).start();
    again.wait_ready();
    let ctl = program("isatapctl");
    let missing = format!("{} --socket /nonexistent ready --wait 0.3", ctl.display());
    let missing = again.ns().try_run(&missing);
    assert_eq!(missing.status.code(), Some(69), "{missing:?}");
}

/// What cannot be held is said, with the status of its kind; a second holder does not take the first one's interface.
#[test]
fn what_cannot_be_held() {
    let scene = Opposite::new();
    let router = Daemon::router(&scene.dut, DUT).start();
    router.wait_ready();
    let holder = Holder::start(&router);
    wait::holds("the interface to be up", SOON, || {
        scene
            .dut
            .try_run(&format!("ip -o link show dev {MARKER} up"))
            .stdout
            .len()
            > 10
    });
    for (name, reason) in [
        (
            MARKER,
            "cannot hold isatap-up: there is an interface of this name already",
        ),
        ("lo", "cannot hold lo: there is"),
        ("sixteen-letters-", "sixteen-letters-"),
    ] {
        let refused = router.ctl(&format!("ready --hold {name}"));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(69), "{name}: {said}");
        assert!(said.contains(reason), "{said}");
    }
    // Somebody deletes it: it is made again while there is reason to.
    scene.dut.ip(&format!("link del {MARKER}"));
    wait::holds("the interface to be there again", SOON, || {
        scene.dut.has_link(MARKER)
    });
    // It has no address, so that nothing is ever sent through it.
    let addresses = scene.dut.ip(&format!("-o addr show dev {MARKER}"));
    assert_eq!(addresses, "");
    drop(holder);
    wait::holds("the interface to go with its holder", SOON, || {
        !scene.dut.has_link(MARKER)
    });
    // Without the capability to make it.
    let socket = router.folder().join("control.sock");
    let line = format!(
        "setpriv --bounding-set -net_admin --inh-caps -net_admin {} --socket {} ready --hold {MARKER}",
        program("isatapctl").display(),
        socket.display()
    );
    let refused = scene.dut.try_run(&line);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    router.conservation();
}
