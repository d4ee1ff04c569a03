//! A router that is stopped and started again, as an update of its packages does: its host has nobody else, and is served again
//! soon (P8, V3; RFC 7559 2).
//!
//! ```text
//!   srv ---- r1 10.0.0.1 (isatapd, advertises itself) ---- h 10.0.0.10 (isatapd 10.0.0.1)     see isatap_tests::routers
//! ```

use std::time::Duration;

use isatap_tests::asker::EVERYTHING;
use isatap_tests::configured::Configured;
use isatap_tests::daemon::Daemon;
use isatap_tests::ping::ping_until;
use isatap_tests::routers::{Routers, router_v4, server};
use isatap_tests::scene::SOON;

/// The host asks after 4 to 8 seconds, and, if the router was not there yet, after as long again.
const BACK: Duration = Duration::from_secs(40);

/// P8, V3: the answer that ends the search is one with a lifetime.
#[test]
fn the_only_router_is_found_again() {
    let scene = Routers::new(1);
    let mut router = Daemon::router(&scene.routers[0], router_v4(0))
        .config(EVERYTHING)
        .start();
    router.wait_ready();
    let host = scene.host().start();
    scene.wait_usable(&host, 1);
    ping_until(&scene.host, &server(1).to_string(), SOON);

    // Its end is told: the host has no default router, and nobody will tell it of another.
    router.stop();
    Configured::wait(&scene.host, "the end of the default route", SOON, |seen| {
        seen.to("default").is_empty()
    });
    let router = router.start_again();
    router.wait_ready();
    ping_until(&scene.host, &server(1).to_string(), BACK);
    scene.wait_usable(&host, 1);
    host.conservation();
    router.conservation();
}
