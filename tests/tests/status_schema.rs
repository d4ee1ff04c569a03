//! The published schema of the status, and real statuses: host and router, each lane, at rest and busy (ECOSYSTEM U2).
//!
//! Whoever reads a status ignores what it does not know, and so does the schema; here every object is closed, so that no field
//! is written that the schema does not describe.

use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{DUT, Opposite, ROUTER, SOON, Scene, X, host_v4, on_link};
use serde_json::{Value, json};

/// The schema as the program prints it, which must be the published one.
fn schema(daemon: &Daemon<'_>) -> Value {
    let output = daemon.ctl("status --schema");
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("a schema");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../doc/status.schema.json");
    let published = std::fs::read_to_string(path).expect("the published schema");
    let published: Value = serde_json::from_str(&published).expect("JSON");
    assert_eq!(printed, published);
    printed
}

/// Refuses fields that are not described, wherever the schema describes any.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Checks what the daemon says of itself, in both ways of asking.
#[track_caller]
fn check(daemon: &Daemon<'_>) -> Value {
    let open = schema(daemon);
    assert!(jsonschema::draft202012::meta::is_valid(&open), "{open}");
    let mut closed = open.clone();
    close(&mut closed);
    let validator = jsonschema::draft202012::new(&closed).expect("a schema");
    let output = daemon.ctl("status --json");
    assert!(output.status.success(), "{output:?}");
    let (_, http) = daemon.http("/api/v1/status").expect("the status");
    let mut last = Value::Null;
    for text in [output.stdout.as_slice(), http.as_bytes()] {
        last = serde_json::from_slice(text).expect("JSON");
        let faults: Vec<_> = validator
            .iter_errors(&last)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}\n{last:#}");
    }
    // A reader of another age: more is allowed, less is not, and neither is another version.
    let valid = |change: fn(&mut Value)| {
        let mut changed = last.clone();
        change(&mut changed);
        (
            jsonschema::draft202012::is_valid(&open, &changed),
            validator.is_valid(&changed),
        )
    };
    assert_eq!(valid(|status| status["future"] = json!(1)), (true, false));
    assert_eq!(
        valid(|status| status["schema_version"] = json!(2)),
        (false, false)
    );
    assert_eq!(
        valid(|status| status["interface"]["mtu"] = json!("large")),
        (false, false)
    );
    let removed = |status: &mut Value| drop(status.as_object_mut().expect("an object").remove("total"));
    assert_eq!(valid(removed), (false, false));
    last
}

#[test]
fn a_host_and_its_router() {
    let scene = Scene::new(1);
    let router = Daemon::router(&scene.router, ROUTER)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\nAdvertiseDns 2001:db8:99::53")
        .start();
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER])
        .config("PathMtu dynamic")
        .start();
    host.wait_ready();
    ping_until(&scene.hosts[0], &on_link(ROUTER).to_string(), SOON);
    let told = check(&host);
    assert_eq!(told["role"], "host");
    assert_eq!(told["routers"][0]["state"], "usable");
    let told = check(&router);
    assert_eq!(
        (&told["role"], &told["advertising"]["on"]),
        (&json!("router"), &json!(true))
    );
}

fn busy(lane: Lane) {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(lane).workers(2).config("PeerRouter 10.0.0.7"));
    let crafter = scene.crafter();
    let before = daemon.counters(Direction::Decap);
    let forged = Inner::new(
        link_local("10.0.0.77".parse().expect("an address")),
        link_local(DUT),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2000u16 {
                crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(number, 9, b"busy"));
                crafter.send_inner(&forged.udp(number, 9, b"forged"));
            }
        });
        for _ in 0..5 {
            check(&daemon);
        }
    });
    daemon.conservation();
    let since = daemon.counters(Direction::Decap).since(&before);
    assert!(since.received > 0, "{since}");
    let told = check(&daemon);
    assert_eq!(told["lane"], lane.name());
    assert!(
        told["total"]["decap"]["drops"]["src_mismatch"].as_u64() > Some(0),
        "{told:#}"
    );
}

#[test]
fn a_busy_router_uring() {
    busy(Lane::Uring);
}

#[test]
fn a_busy_router_syscall() {
    busy(Lane::Syscall);
}

#[test]
fn a_busy_router_ebpf() {
    busy(Lane::Ebpf);
}
