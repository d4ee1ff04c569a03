//! One machine in two sites, a daemon for each: what arrives from one never alters the other (RFC 5214 6.2, 7.3; RFC 4213 5;
//! A5, A7, D2).
//!
//! ```text
//!   r1 10.0.0.1 (crafted) ---- eth0 10.0.0.10  dut  eth1 10.1.0.10 ---- r2 10.1.0.1 (crafted)
//!                                       is0         is1
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::metrics::{Metrics, http_get};
use isatap_tests::nd::{
    self, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Outer, isatap, link_local};
use isatap_tests::raw::{Captured, Crafter, Sniffer};
use isatap_tests::scene::SOON;
use isatap_tests::state;
use isatap_tests::topology::{Site, UNDERLAY, mac};
use isatap_tests::wait;

const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 1, 0, 10)];
const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 1, 0, 1)];
const DEVICES: [&str; 2] = [UNDERLAY, "eth1"];
const TUNNELS: [&str; 2] = [TUNNEL, "is1"];
const PORTS: [u16; 2] = [9441, 9442];

struct Bench {
    _sites: [Site; 2],
    dut: Netns,
    routers: [Netns; 2],
}

impl Bench {
    fn new() -> Self {
        let sites = [Site::new(), Site::new()];
        let routers = [
            sites[0].member_at("r1", ROUTERS[0], 24),
            sites[1].member_at("r2", ROUTERS[1], 24),
        ];
        let dut = sites[0].member_at("dut", OWN[0], 24);
        sites[1].attach(&dut, DEVICES[1]);
        dut.ip(&format!("addr add {}/24 dev {}", OWN[1], DEVICES[1]));
        // The daemon's own check is what is looked at, not the kernel's.
        for device in ["all", DEVICES[0], DEVICES[1]] {
            dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
        }
        Self {
            _sites: sites,
            dut,
            routers,
        }
    }

    /// The daemon of site `n`, which finds its address by the way to its router.
    fn start(&self, n: usize) -> Daemon<'_> {
        // What programs carry reaches no raw socket, and so not the witness.
        Builder::new(&self.dut)
            .lane(Lane::Uring)
            .config(&format!(
                "InterfaceName {}\nBindAddress auto\nServerAddress {}\nMetricsListen 127.0.0.1:{}",
                TUNNELS[n], ROUTERS[n], PORTS[n]
            ))
            .workers(1)
            .start_at(PORTS[n])
    }

    fn crafter(&self, n: usize) -> Crafter {
        Crafter::new(
            &self.routers[n],
            UNDERLAY,
            ROUTERS[n],
            mac(&self.dut, DEVICES[n]),
            OWN[n],
        )
    }

    /// Advertisements that daemon `n` has taken.
    fn accepted(&self, n: usize) -> u64 {
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS[n]));
        let (_, text) = http_get(&self.dut, address, "/metrics").expect("metrics");
        let metrics = Metrics::parse(&text).expect("metrics");
        metrics.sum("isatapd_router_advertisements_total", &[("result", "accepted")])
    }

    /// A message that site `n` does take, sent after others, and waited for: those have been seen as well.
    #[track_caller]
    fn take_one_more(&self, n: usize, crafter: &Crafter) {
        let before = self.accepted(n);
        crafter.send_inner(&advertisement(
            n,
            ROUTERS[n],
            &format!("2001:db8:{}::", n + 1),
            1800,
        ));
        wait::until("an advertisement to be taken", SOON, || {
            match self.accepted(n) - before {
                0 => Err("none"),
                _ => Ok(()),
            }
        });
        assert_eq!(
            self.accepted(n) - before,
            1,
            "nothing but the real one, at {}",
            TUNNELS[n]
        );
    }
}

/// An advertisement to the host of site `n` that claims to be of the router with the address `from`.
fn advertisement(n: usize, from: Ipv4Addr, prefix: &str, lifetime: u16) -> Vec<u8> {
    let prefix: Ipv6Addr = prefix.parse().expect("a prefix");
    let body = nd::router_advertisement(lifetime, &nd::prefix_option(prefix, 64, 86400, 14400));
    nd::packet(link_local(from), link_local(OWN[n]), ROUTER_ADVERTISEMENT, &body)
}

fn kind(captured: &Captured) -> Option<u8> {
    Some(captured.outer()?.inner()?.icmpv6()?.0)
}

#[test]
fn what_arrives_from_one_site_never_alters_the_other() {
    // A5, A7, D2, cross-injected both ways, also in the name of the other site's router.
    let bench = Bench::new();
    let seen = [0, 1].map(|n| Sniffer::start(&bench.routers[n], UNDERLAY));
    let crafters = [0, 1].map(|n| bench.crafter(n));
    let daemons = [0, 1].map(|n| bench.start(n));
    for n in [0, 1] {
        // Each solicits its own router, on its own device, from its own address.
        seen[n].wait_for("a solicitation", SOON, |c| kind(c) == Some(ROUTER_SOLICITATION));
        bench.take_one_more(n, &crafters[n]);
        let own = isatap(&format!("2001:db8:{}::", n + 1), false, OWN[n]);
        wait::holds("the address", SOON, || {
            state::addresses(&bench.dut, TUNNELS[n]).contains(&format!("{own}/128"))
        });
        assert_eq!(state::addresses(&bench.dut, TUNNELS[n]).len(), 2);
    }
    let before = TUNNELS.map(|tunnel| state::snapshot(&bench.dut, tunnel));
    // Somebody without a filter sees that the kernel lets all of it in.
    let witness = Witness::start(&bench.dut);
    let mut sent = 0;
    for (here, there) in [(0, 1), (1, 0)] {
        for (src, dst) in [
            (ROUTERS[there], OWN[there]),
            (ROUTERS[there], OWN[here]),
            (ROUTERS[here], OWN[there]),
        ] {
            for router in ROUTERS {
                let target = link_local(OWN[there]);
                let solicitation = nd::neighbour_solicitation(target);
                for inner in [
                    advertisement(there, router, "2001:db8:bad::", 1800),
                    advertisement(there, router, &format!("2001:db8:{}::", there + 1), 0),
                    nd::packet(link_local(router), target, NEIGHBOUR_SOLICITATION, &solicitation),
                ] {
                    crafters[here].send(&Outer::new(src, dst).wrap(&inner));
                    sent += 1;
                }
            }
        }
    }
    witness.saw(sent);
    for n in [0, 1] {
        bench.take_one_more(n, &crafters[n]);
    }
    assert_eq!(TUNNELS.map(|tunnel| state::snapshot(&bench.dut, tunnel)), before);
    let answers = || [0, 1].map(|n| seen[n].count(|c| kind(c) == Some(NEIGHBOUR_ADVERTISEMENT)));
    assert_eq!(answers(), [0, 0]);
    // The same question where it belongs has an answer.
    for n in [0, 1] {
        let body = nd::neighbour_solicitation(link_local(OWN[n]));
        let from = link_local(ROUTERS[n]);
        crafters[n].send_inner(&nd::packet(
            from,
            link_local(OWN[n]),
            NEIGHBOUR_SOLICITATION,
            &body,
        ));
        seen[n].wait_for("an answer", SOON, |c| kind(c) == Some(NEIGHBOUR_ADVERTISEMENT));
    }
    assert_eq!(answers(), [1, 1]);
    drop(daemons);
}

/// A raw socket beside the daemons' that takes everything.
struct Witness(socket2::Socket);

impl Witness {
    fn start(ns: &Netns) -> Self {
        let socket = ns.enter(|| {
            let raw = socket2::Type::RAW;
            socket2::Socket::new(socket2::Domain::IPV4, raw, Some(socket2::Protocol::from(41)))
                .expect("a raw socket")
        });
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        Self(socket)
    }

    /// So many packets came in.
    #[track_caller]
    fn saw(&self, count: usize) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        for number in 0..count {
            self.0
                .recv(&mut buffer)
                .unwrap_or_else(|e| panic!("packet {number} of {count}: {e}"));
        }
    }
}
