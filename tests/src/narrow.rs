//! Two nodes whose IPv4 path has a link in the middle that may be narrow.
//!
//! ```text
//!   a 10.1.0.1 eth0 ---- left r1 middle ==== middle r2 right ---- eth0 10.2.0.1 b      is0 on both: 2001:db8:1::5efe:<v4>/64
//!                                  10.9.0.0/30
//! ```

use std::net::Ipv4Addr;

use crate::daemon::{Builder, Daemon};
use crate::netns::Netns;
use crate::ping::ping_direct_until;
use crate::scene::{SOON, on_link, set_address};
use crate::topology::{UNDERLAY, connect};

/// The locator of `a`.
pub const A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The locator of `b`.
pub const B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// The router next to `a`, as `a` sees it: it complains about what does not fit the middle.
pub const R1: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);

/// The namespaces.
#[derive(Debug)]
pub struct Narrow {
    /// One end.
    pub a: Netns,
    /// The other.
    pub b: Netns,
    /// The routers between, `a`'s first.
    pub routers: [Netns; 2],
}

impl Narrow {
    /// Builds them; every link takes 1500 bytes.
    pub fn new() -> Self {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        let routers = [Netns::new("r1"), Netns::new("r2")];
        connect(&a, UNDERLAY, &routers[0], "left");
        connect(&routers[0], "middle", &routers[1], "middle");
        connect(&routers[1], "right", &b, UNDERLAY);
        for router in &routers {
            router.sysctl("ipv4/ip_forward", "1");
            // Each packet that does not fit is told of.
            router.sysctl("ipv4/icmp_ratelimit", "0");
        }
        a.ip_batch(&format!(
            "addr add {A}/24 brd + dev {UNDERLAY}\nroute add default via {R1}\n"
        ));
        b.ip_batch(&format!(
            "addr add {B}/24 brd + dev {UNDERLAY}\nroute add default via 10.2.0.254\n"
        ));
        routers[0].ip_batch(
            "addr add 10.1.0.254/24 dev left\naddr add 10.9.0.1/30 dev middle\nroute add 10.2.0.0/24 via 10.9.0.2\n",
        );
        routers[1].ip_batch(
            "addr add 10.2.0.254/24 dev right\naddr add 10.9.0.2/30 dev middle\nroute add 10.1.0.0/24 via 10.9.0.1\n",
        );
        Self { a, b, routers }
    }

    /// Sets what the link in the middle takes.
    pub fn set_middle(&self, mtu: u16) {
        for router in &self.routers {
            router.ip(&format!("link set middle mtu {mtu}"));
        }
    }

    /// Starts both daemons with further configuration by `options`, and gives their interfaces addresses. Returns when
    /// they reach each other.
    #[track_caller]
    pub fn start(&self, options: impl Fn(Builder<'_>) -> Builder<'_>) -> [Daemon<'_>; 2] {
        let daemons = [(&self.a, A), (&self.b, B)].map(|(ns, v4)| {
            let daemon = options(Daemon::router(ns, v4)).start();
            set_address(ns, v4);
            daemon
        });
        ping_direct_until(&self.a, &on_link(B).to_string(), SOON);
        ping_direct_until(&self.b, &on_link(A).to_string(), SOON);
        daemons
    }
}

impl Default for Narrow {
    fn default() -> Self {
        Self::new()
    }
}
