//! Hundreds of configuration files thrown at a running daemon: each reload is refused with a place, and nothing changes, or
//! accepted as `isatapctl check` says; and each is counted (FAULTS 62, 63).
//!
//! ```text
//!   dut 10.0.0.1 (isatapd) ------ x 10.0.0.9 (crafted)
//! ```

use isatap_tests::config_files::{ConfigFiles, Kind, seed};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::Inner;
use isatap_tests::raw::Sniffer;
use isatap_tests::reloading::{Control, status};
use isatap_tests::scene::{DUT, Opposite, SOON, on_link};
use isatap_tests::state::{open_files, resident_kib};
use isatap_tests::wait;

const FILES: usize = 300;
/// What a running daemon cannot have for the asking: accounts, a control socket elsewhere, names that nobody resolves here.
/// And the metrics page stays where the test looks for it.
const WITHOUT: &[&str] = &["User", "ControlSocket", "PeerRouter", "MetricsListen"];
/// Room for what a machine does with memory that is free again.
const GROWTH_KIB: u64 = 8192;

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    text.escape_debug().to_string().replace("\\n", "\n")
}

/// Whether `isatapctl check` can say the same as a reload: it asks for accounts outside of the chroot.
fn is_comparable(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    !WITHOUT.iter().any(|name| text.contains(&name.to_lowercase()))
}

#[test]
fn a_running_daemon_takes_or_refuses_each() {
    let seed = seed();
    println!("ISATAPD_TEST_SEED={seed}");
    let scene = Opposite::new();
    let base = format!("BindAddress {DUT}\nWorkers 1\n");
    let daemon = scene.router(|builder| builder.workers(1));
    let mut files = ConfigFiles::new(seed, WITHOUT);
    let mut control = Control::connect(&daemon);
    // The connection is held from the first answer on.
    assert_eq!(control.reload(), Ok(vec![]));
    let (open, memory) = (open_files(daemon.pid()), resident_kib(daemon.pid()));
    let before = status(&daemon);
    let (mut taken, mut refused) = (1u64, 0u64);
    for number in 0..FILES {
        let (kind, bytes) = files.make();
        // It follows on a first line here; a byte order mark has its place before it.
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let in_force = status(&daemon)["configuration"].take();
        daemon.rewrite_config_bytes(bytes);
        let path = daemon.folder().join("isatapd.conf");
        let outcome = control.reload();
        if is_comparable(bytes) {
            let check = daemon.ctl(&format!("check --no-lookup {}", path.display()));
            let can = if outcome.is_ok() { Some(0) } else { Some(78) };
            assert_eq!(
                check.status.code(),
                can,
                "{number}: {outcome:?}, {check:?}\n{}",
                shown(bytes)
            );
        }
        match outcome {
            Ok(_) => taken += 1,
            Err(error) => {
                refused += 1;
                assert_ne!(kind, Kind::Right, "{number}: {error}\n{}", shown(bytes));
                let place = format!("{}:", path.display());
                let first = error.lines().next().unwrap_or_default();
                let is_fault_of_the_file = first.starts_with(&place);
                assert!(
                    is_fault_of_the_file,
                    "{number}: no place in {error}\n{}",
                    shown(bytes)
                );
                assert_eq!(
                    status(&daemon)["configuration"],
                    in_force,
                    "{number}: {error}\n{}",
                    shown(bytes)
                );
            }
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 50 && refused > 100, "{taken} taken, {refused} refused");

    // As if nothing had been.
    daemon.rewrite_config(&base);
    control.reload().expect("the file it was started with");
    taken += 1;
    let after = status(&daemon);
    for field in ["pid", "configuration", "locator", "role", "lane"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["interface"]["index"], before["interface"]["index"]);
    let metrics = daemon.metrics();
    let count = |result| metrics.sum("isatapd_config_reloads_total", &[("result", result)]);
    assert_eq!((count("success"), count("failure")), (taken, refused));
    let (inside, crafter) = (
        Sniffer::start(&scene.dut, isatap_tests::daemon::TUNNEL),
        scene.crafter(),
    );
    let probe = Inner::new(on_link(crafter.v4), on_link(DUT)).udp(9, 9, b"as before");
    let earlier = daemon.counters(Direction::Decap);
    crafter.send_inner(&probe);
    let since = daemon.wait_received(Direction::Decap, &earlier, 1);
    assert!(since.drops.is_empty(), "{since}");
    inside.wait_for("the packet", SOON, |seen| seen.packet == probe);
    wait::until("no descriptor to be left", SOON, || {
        let now = open_files(daemon.pid());
        if now.values().sum::<usize>() <= open.values().sum() {
            Ok(())
        } else {
            Err(format!("{now:?}, at first {open:?}"))
        }
    });
    let grown = resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    daemon.conservation();
}
