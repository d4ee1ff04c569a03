//! The dashboard in a real browser: it shows what happens, asks nobody else, complains of nothing, and believes no name.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isatap_tests::browser::Browser;
use isatap_tests::daemon::Daemon;
use isatap_tests::fault::{kill_engine, let_it_live, wait_successor};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{ROUTER, Scene, host_v4, on_link, set_address};

fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    folder
}

#[test]
fn the_page_shows_traffic_drops_and_routers() {
    assert!(
        Browser::is_installed(),
        "chromium is not installed; run tests/setup.sh"
    );
    let scene = Scene::new(1);
    let host = &scene.hosts[0];
    let router = Daemon::router(&scene.router, ROUTER).workers(2).start();
    set_address(&scene.router, ROUTER);
    let _host = Daemon::host(host, host_v4(0), &[ROUTER]).start();
    let _radvd = isatap_tests::radvd::Radvd::start(&scene.router, &isatap_tests::radvd::Radvd::snippet());
    ping_until(host, &on_link(ROUTER).to_string(), Duration::from_secs(20));

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Something to see: answered packets, and packets that find no way.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                host.try_run(&format!("ping -6 -q -c 200 -i 0.002 {}", on_link(ROUTER)));
                host.try_run("ping -6 -q -c 5 -i 0.01 -W 1 2001:db8:1::1");
            }
        });
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&scene, &router)));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = looked {
            std::panic::resume_unwind(panic);
        }
    });
    router.conservation();
}

fn look(scene: &Scene, router: &Daemon<'_>) {
    let mut browser = Browser::start(&scene.router);
    browser.window(1400, 1500, false);
    browser.open("http://127.0.0.1:9441/");
    browser.wait_until("document.getElementById('state')?.textContent === 'ready'");
    browser.wait_until("typeof points !== 'undefined' && points.length >= 5");
    browser.wait_until("points.some((p) => p.decap.packets > 10)");
    browser.wait_until("document.querySelectorAll('#packets canvas').length === 1");
    browser.wait_until("document.getElementById('facts').textContent.includes('router at 10.0.0.1')");
    browser.wait_until("document.getElementById('setting-table').textContent.includes('InterfaceName')");
    browser.picture(&pictures().join("light.png"));

    // What is clicked changes what is shown.
    browser.click("#split button[data-value=worker]");
    browser.wait_until("document.querySelector('#packets .u-legend').textContent.includes('encap 1')");
    browser.click("#direction button[data-value=decap]");
    browser.wait_until("document.getElementById('heat-title').textContent === 'decap'");
    browser.click("#span button[data-value='60']");
    browser.wait_until("view.span === 60");
    browser.click("#theme");
    browser.wait_until("document.documentElement.dataset.theme === 'dark'");
    browser.picture(&pictures().join("dark.png"));
    browser.click("#pause");
    browser.wait_until("view.paused && document.getElementById('pause').textContent === 'resume'");
    browser.click("#pause");

    // A wall and a phone: nothing sticks out.
    for (name, width, height) in [("wall", 2560, 1440), ("phone", 390, 844)] {
        browser.window(width, height, true);
        browser.wait_until("document.querySelectorAll('.chart canvas').length >= 6");
        browser.picture(&pictures().join(format!("{name}.png")));
        let sticks_out = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
        assert!(
            sticks_out.as_i64().is_some_and(|pixels| pixels <= 0),
            "{name}: {sticks_out}"
        );
    }

    // A name is text, whatever it says. Looked at in the same breath: the next sample draws the tables anew.
    let shown = browser.evaluate(
        "(() => { const s = structuredClone(last); s.status.routers = [{ address: '<img src=x onerror=window.hit=1>', \
         state: '<b>usable</b>', advertised_seconds_ago: 1, lifetime_seconds: 2, round_trip_seconds: null }]; \
         tables(s.status, undefined); const table = document.getElementById('router-table'); \
         return [table.textContent.includes('<img src=x'), table.querySelectorAll('img, b').length]; })()",
    );
    assert_eq!(shown, serde_json::json!([true, 0]));
    assert!(browser.evaluate("window.hit ?? null").is_null());

    // An operator takes the router out of service.
    assert!(router.ctl("drain").status.success());
    browser.wait_until("document.getElementById('state').textContent === 'draining'");
    browser.wait_until("document.getElementById('obstacles').textContent.includes('drain --undo')");
    browser.picture(&pictures().join("draining.png"));
    assert!(router.ctl("drain --undo").status.success());
    browser.wait_until("document.getElementById('state').textContent === 'ready'");

    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
    let foreign: Vec<_> = browser
        .requests
        .iter()
        .filter(|url| !url.starts_with("http://127.0.0.1:9441/"))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    // What the page says is what the daemon counted.
    let shown = browser
        .evaluate("last.status.total.decap.received")
        .as_u64()
        .unwrap_or(0);
    assert!(shown > 0 && shown <= router.counters(isatap_tests::metrics::Direction::Decap).received);

    // The engine that dies is followed by one that the page finds by itself.
    let_it_live(Instant::now());
    let old = kill_engine(router);
    wait_successor(router, old);
    browser
        .wait_until("document.getElementById('facts').textContent.includes('engine started again 1 time')");
    browser.wait_until("document.getElementById('state').textContent === 'ready'");
    browser.picture(&pictures().join("restarted.png"));
}
