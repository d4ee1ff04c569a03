//! Our router and the kernel's host with a link between them that is smaller than the tunnel's packets (M1, M3,
//! M4, M8).
//!
//! ```text
//!   rtr 10.0.0.1 (isatapd) ---- m1 ==== 1300 or 600 bytes ==== m2 ---- guest 10.1.0.2 (ip tunnel ... mode isatap)
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::guest::Guest;
use isatap_tests::kernel_peer::{self, ECHO_PORT, Potential, tcp_from, tcp_to, wait_answer_from_guest};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{ROUTER, on_link, set_address};
use isatap_tests::topology::{Site, connect};
use isatap_tests::traffic::serve_echo;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// Of each TCP connection, in each direction.
const BULK: u64 = 1_000_000;
/// The end of the small link that our packets leave by.
const SMALL: &str = "small";

/// Two sites with the small link between their routers.
struct Scene {
    _sites: [Site; 2],
    router: Netns,
    middles: [Netns; 2],
    guest: Guest,
}

impl Scene {
    fn new() -> Option<Self> {
        let sites = [Site::new(), Site::new()];
        let router = sites[0].member("rtr", ROUTER.octets()[3]);
        let middles = [0, 1].map(|index: u8| {
            let address = Ipv4Addr::new(10, index, 0, 254);
            let ns = sites[usize::from(index)].member_at(&format!("m{index}"), address, 24);
            ns.sysctl("ipv4/conf/all/forwarding", "1");
            ns
        });
        connect(&middles[0], SMALL, &middles[1], SMALL);
        for (ns, own, other, beyond) in [
            (&middles[0], 1, 2, "10.1.0.0/24"),
            (&middles[1], 2, 1, "10.0.0.0/24"),
        ] {
            ns.ip(&format!("addr add 192.0.2.{own}/24 dev {SMALL}"));
            ns.ip(&format!("route add {beyond} via 192.0.2.{other}"));
        }
        router.ip("route add 10.1.0.0/24 via 10.0.0.254");
        let guest = Guest::start(&sites[1], GUEST)?;
        guest.run("ip route add 10.0.0.0/24 via 10.1.0.254");
        Some(Self {
            _sites: sites,
            router,
            middles,
            guest,
        })
    }

    /// Makes the small link so small, and has everybody forget what he knew of it.
    fn set_link(&self, mtu: u16) {
        for ns in &self.middles {
            ns.ip(&format!("link set {SMALL} mtu {mtu}"));
        }
        self.router.ip("route flush cache");
        self.guest.run("ip route flush cache");
    }
}

/// The packets on the small link by sender: whole ones without DF, whole ones with DF, fragments.
fn seen(wire: &Sniffer, from: Ipv4Addr) -> [usize; 3] {
    let count = |fragment, df| {
        wire.count(|c| {
            c.outer().is_some_and(|outer| {
                let header = &outer.header;
                outer.src() == from
                    && (header.is_fragmenting_payload(), header.dont_fragment()) == (fragment, df)
            })
        })
    };
    assert_eq!(
        count(true, true),
        0,
        "fragments that must not be fragmented further, of {from}"
    );
    [count(false, false), count(false, true), count(true, false)]
}

/// M1, M3, M4, M8: TCP goes both ways at any tunnel MTU over any link; in static mode ours never sets DF, in dynamic mode it
/// finds out what passes as the kernel's does. Between global addresses: the kernel finds no socket for what its own
/// tunnel says about link-local ones.
#[test]
fn small_links_between_us_and_the_kernel() {
    let Some(scene) = Scene::new() else { return };
    kernel_peer::tunnel(&scene.guest, 1280, &[Potential::Default(ROUTER)]);
    scene.guest.run(&format!(
        "ip addr add {}/64 dev {TUNNEL}\nmirror serve {ECHO_PORT}",
        on_link(GUEST)
    ));
    serve_echo(&scene.router, ECHO_PORT);
    for (mode, mtu) in [
        ("static", 1280),
        ("static", 1480),
        ("dynamic", 1280),
        ("dynamic", 1480),
    ] {
        let daemon = Daemon::router(&scene.router, ROUTER)
            .config(&format!("Mtu {mtu}\nPathMtu {mode}"))
            .start();
        set_address(&scene.router, ROUTER);
        scene.guest.run(&format!("ip link set {TUNNEL} mtu {mtu}"));
        wait_answer_from_guest(&scene.router, on_link(GUEST));
        for link in [1300, 600] {
            scene.set_link(link);
            let wire = Sniffer::start(&scene.middles[0], SMALL);
            tcp_to(&scene.router, on_link(GUEST), BULK);
            tcp_from(&scene.guest, "", on_link(ROUTER), BULK);
            let what = format!("with DF and in fragments, {mode}, tunnel MTU {mtu} over a link of {link}");
            let used = |from| {
                let [_, with_df, fragments] = seen(&wire, from);
                (with_df > 0, fragments > 0)
            };
            // RFC 4213 3.2.2: what IPv6 must be able to carry goes in fragments, anything larger is not sent.
            let discovered = (true, link < 1300);
            let ours = if mode == "static" {
                (false, mtu + 20 > link)
            } else {
                discovered
            };
            assert_eq!(used(ROUTER), ours, "our packets {what}");
            assert_eq!(used(GUEST), discovered, "the kernel's packets {what}");
        }
        daemon.conservation();
        let drops = daemon.drops(Direction::Decap);
        assert!(drops.is_empty(), "{drops:?}");
    }
}
