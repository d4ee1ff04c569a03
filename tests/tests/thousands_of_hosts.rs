//! A router with more hosts than a small table holds: each is answered, is known to the next engine, and hears the end (T3, T7).
//!
//! ```text
//!   dut 10.0.0.1 (isatapd, Advertise yes) ---+--- x 10.0.0.9    speaks for 10.1.0.0/16, which is behind it
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::asker::{ALL_ROUTERS, Told};
use isatap_tests::daemon::Daemon;
use isatap_tests::fault::{kill_engine, let_it_live, wait_successor};
use isatap_tests::nd::{self, ROUTER_SOLICITATION};
use isatap_tests::packet::{Outer, link_local};
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{DUT, Opposite, SOON, X};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

const HOSTS: u32 = 5000;
/// Hosts that ask at once, and how often some do: of all networks that it is not connected to, a router lets 1024 a second in, and 64 at
/// once.
const AT_ONCE: usize = 60;
const ASKED_EVERY: Duration = Duration::from_millis(62);
/// How long one waits for an answer, which takes up to half a second.
const PATIENCE: Duration = Duration::from_millis(700);
/// By when all are served, on a machine that has other things to do as well.
const ALL_SERVED: Duration = Duration::from_secs(60);

fn hosts() -> impl Iterator<Item = Ipv4Addr> {
    (0..HOSTS).map(|number| Ipv4Addr::from_bits(0x0a01_0100 + number))
}

/// Who was told what: how often it heard of a router, and how often that there is none.
fn told(wire: &Sniffer) -> BTreeMap<Ipv4Addr, [usize; 2]> {
    let mut all = BTreeMap::<_, [usize; 2]>::new();
    for told in wire.packets().iter().filter_map(Told::read) {
        let (from, to) = told.outer;
        assert_eq!((from, told.inner), (DUT, (link_local(DUT), link_local(to))));
        all.entry(to).or_default()[usize::from(told.lifetime() == 0)] += 1;
    }
    all
}

#[test]
fn every_host_is_served_and_hears_the_end() {
    let scene = Opposite::new();
    scene.dut.ip(&format!("route add 10.1.0.0/16 via {X}"));
    let mut router = Daemon::router(&scene.dut, DUT)
        .workers(1)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64\n")
        .start();
    let (crafter, wire) = (scene.crafter(), Sniffer::start(&scene.x, UNDERLAY));
    let ask = |v4: Ipv4Addr| {
        let question = nd::router_solicitation();
        let inner = nd::packet(link_local(v4), ALL_ROUTERS, ROUTER_SOLICITATION, &question);
        crafter.send(&Outer::new(v4, DUT).wrap(&inner));
    };
    let mut unserved: Vec<_> = hosts().collect();
    wait::until("every host to be served", ALL_SERVED, || {
        for some in unserved.chunks(AT_ONCE) {
            some.iter().for_each(|v4| ask(*v4));
            thread::sleep(ASKED_EVERY);
        }
        thread::sleep(PATIENCE);
        let served = told(&wire);
        unserved.retain(|v4| !served.contains_key(v4));
        if unserved.is_empty() {
            Ok(())
        } else {
            Err(format!("{} unserved", unserved.len()))
        }
    });
    assert_eq!(
        router.metrics().sum("isatapd_router_clients", &[]),
        u64::from(HOSTS)
    );
    let answered = told(&wire);
    assert!(answered.values().all(|[_, without]| *without == 0));
    router.conservation();

    let_it_live(Instant::now());
    let old = kill_engine(&router);
    wait_successor(&router, old);
    router.wait_log(&format!("known from the engine before: {HOSTS} host(s)"));
    router.conservation();
    assert_eq!(told(&wire), answered, "nothing has changed for them");
    let shown = router.ctl("hosts 10.1.2.0/24 --json");
    let shown: serde_json::Value =
        serde_json::from_slice(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    let addrs = shown["hosts"].as_array().expect("hosts").iter();
    let addrs = addrs.map(|host| host["addr"].as_str().expect("an address"));
    let expected = (0..=u8::MAX).map(|last| Ipv4Addr::new(10, 1, 2, last).to_string());
    assert!(addrs.eq(expected), "{shown}");
    assert_eq!(shown["total"], HOSTS);

    wire.clear();
    let took = router.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let heard = wait::until("every host to hear the end", SOON, || {
        let heard = told(&wire);
        if heard.len() == HOSTS as usize {
            Ok(heard)
        } else {
            Err(format!("{} have", heard.len()))
        }
    });
    let rounds = |wanted: usize| heard.values().filter(|[_, last]| *last == wanted).count();
    println!(
        "{took:?} to stop; {:?} hosts heard it 1, 2, 3 times",
        [1, 2, 3].map(rounds)
    );
    assert!(hosts().all(|v4| heard[&v4][0] == 0 && (1..=3).contains(&heard[&v4][1])));
}
