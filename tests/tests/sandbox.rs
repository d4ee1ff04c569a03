//! The layers of the engine's sandbox that may be waived: shown, refused by a machine, waived by the configuration
//! (FAULTS 43, 71).
//!
//! ```text
//!   dut 10.0.0.1 (confined) ------ x 10.0.0.9 (crafted)
//! ```

use std::fs;
use std::path::PathBuf;

use isatap_tests::confined::refusing_rules;
use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::fault::wish;
use isatap_tests::scene::{DUT, Opposite};
use nix::libc::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM};
use serde_json::{Value, json};
use tempfile::TempDir;

/// IORING_REGISTER_RESTRICTIONS.
const RESTRICTIONS: u32 = 11;

/// A layer, and machines without it: the errno of the calls that it takes.
struct Missing {
    layer: &'static str,
    errno: i32,
    rules: Value,
    status: i32,
    words: &'static str,
}

impl Missing {
    /// Isatapd on such a machine.
    fn program(&self, folder: &TempDir) -> PathBuf {
        refusing_rules(folder, "isatapd", &self.rules, self.errno)
    }
}

fn machines() -> Vec<Missing> {
    let call = |name: &str| json!([{ "syscall": name }]);
    let missing = |layer, errno, rules, status, words| Missing {
        layer,
        errno,
        rules,
        status,
        words,
    };
    let restrictions = json!([{
        "syscall": "io_uring_register",
        "args": [{ "index": 1, "type": "dword", "op": "eq", "val": RESTRICTIONS }]
    }]);
    let (create, restrict) = (call("landlock_create_ruleset"), call("landlock_restrict_self"));
    vec![
        missing("seccomp", EPERM, call("seccomp"), 77, "not permitted"),
        missing("seccomp", ENOSYS, call("seccomp"), 69, "not implemented"),
        missing("landlock", ENOSYS, create.clone(), 69, "no Landlock"),
        missing("landlock", EOPNOTSUPP, create, 69, "lsm="),
        missing("landlock", EPERM, restrict, 77, "not permitted"),
        missing("ring", EINVAL, restrictions, 69, "restricted"),
    ]
}

fn status_of(daemon: &Daemon<'_>) -> Value {
    let (code, text) = daemon.http("/api/v1/status").expect("an answer");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("a status")
}

/// Whether the status says of each layer that it is waived.
fn waived(daemon: &Daemon<'_>) -> Vec<(String, bool)> {
    let status = status_of(daemon);
    let layers = status["sandbox"]["layers"].as_array().expect("layers");
    let one = |layer: &Value| {
        let name = layer["name"].as_str().expect("a name").to_owned();
        (name, layer["waived"].as_bool().expect("a word"))
    };
    layers.iter().map(one).collect()
}

/// FAULTS 71: a layer that cannot be set up keeps the daemon from starting, which says which, why and what helps.
#[test]
fn a_machine_without_a_layer_is_refused() {
    for machine in machines() {
        let folder = TempDir::new().expect("a folder");
        let scene = Opposite::new();
        let output = Daemon::router(&scene.dut, DUT)
            .program(&machine.program(&folder))
            .config("Lane uring")
            .args("-f")
            .output();
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        let layer = machine.layer;
        assert_eq!(output.status.code(), Some(machine.status), "{layer}: {text}");
        assert!(text.contains(&machine.words.to_lowercase()), "{layer}: {text}");
        assert!(text.contains(&format!("sandboxwaive {layer}")), "{layer}: {text}");
    }
}

/// FAULTS 71: who names the layer is served all the same, and told at each start.
#[test]
fn a_layer_that_is_waived_is_done_without() {
    for machine in machines() {
        let (folder, layer) = (TempDir::new().expect("a folder"), machine.layer);
        let scene = Opposite::new();
        let daemon = scene.router(|builder| {
            builder
                .program(&machine.program(&folder))
                .config("Lane uring")
                .config(&format!("SandboxWaive {layer}"))
        });
        let told = format!("the sandbox is without {layer}");
        assert!(daemon.log().contains(&told), "{}", daemon.log());
        for (name, is_waived) in waived(&daemon) {
            assert_eq!(is_waived, name == layer, "{name}");
        }
        let doctor = String::from_utf8_lossy(&daemon.ctl("doctor").stdout).into_owned();
        let line = doctor.lines().find(|line| line.contains("sandbox"));
        assert!(line.is_some_and(|line| line.contains(layer)), "{doctor}");
        scene.carries(&daemon);
    }
}

/// FAULTS 43: who is free to choose takes the lane without a ring rather than a ring without restrictions.
#[test]
fn a_ring_that_cannot_be_restricted_is_not_used() {
    let machine = machines().pop().expect("the ring comes last");
    let folder = TempDir::new().expect("a folder");
    let scene = Opposite::new();
    let program = machine.program(&folder);
    let daemon = scene.router(|builder| builder.program(&program).config("Lane auto"));
    daemon.wait_log("the syscall lane carries, since io_uring cannot: a ring cannot be restricted");
    scene.carries(&daemon);
}

/// FAULTS 71: builds with a sanitizer make calls that nobody foresees; one line does without every layer.
#[test]
fn every_layer_can_be_waived() {
    for lane in Lane::ALL {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| builder.lane(lane).config("SandboxWaive seccomp, landlock ring"));
        let told = "the sandbox is without landlock and seccomp and ring, as SandboxWaive says";
        assert!(daemon.log().contains(told), "{}", daemon.log());
        assert!(waived(&daemon).iter().all(|(_, is_waived)| *is_waived));
        let filters = |process: &str| {
            let text = fs::read_to_string(format!("/proc/{process}/status")).expect("a status");
            let lines = text.lines().filter(|line| line.starts_with("Seccomp"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        for pid in [daemon.pid(), daemon.engine_pid()] {
            assert_eq!(
                filters(&pid.to_string()),
                filters("self"),
                "no filter but those that the test has"
            );
        }
        scene.carries(&daemon);
    }
}

/// FAULTS 71: a directory that is open, since the configuration is read there again, leads nowhere else; without the layer it
/// leads out of the root.
#[test]
fn an_open_directory_leads_nowhere_else() {
    for (waive, elsewhere) in [("", "EACCES"), ("SandboxWaive landlock", "opened")] {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| builder.config(waive));
        let said = wish(&daemon, "elsewhere").expect("an answer");
        assert!(said.contains("isatapd.conf: opened"), "{said}");
        assert!(said.contains(&format!("\".: {elsewhere}\"")), "{said}");
        assert!(said.contains(&format!("proc/version: {elsewhere}\"")), "{said}");
        daemon.conservation();
    }
}

/// FAULTS 71: what is in force is said in one place. Beside programs the workers are those of one of these lanes.
#[test]
fn the_status_says_what_threads_may_do() {
    for lane in Lane::OF_WORKERS {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| builder.lane(lane));
        let status = status_of(&daemon);
        let threads = status["sandbox"]["threads"].as_array().expect("threads");
        let of = |kind: &str| {
            let found = threads.iter().find(|thread| thread["kind"] == kind);
            let thread = found.unwrap_or_else(|| panic!("no {kind} in {threads:?}"));
            [&thread["system_calls"], &thread["ring_operations"]]
                .map(|count| count.as_u64().expect("a number"))
        };
        let worker = of(&format!("worker ({})", lane.name()));
        let [control, watch] = ["control", "monitor-watch"].map(of);
        eprintln!(
            "{}: control {control:?}, worker {worker:?}, watch {watch:?}",
            lane.name()
        );
        assert!(worker[0] < control[0] && watch[0] < control[0]);
        assert_eq!(worker[1], if lane == Lane::Uring { 7 } else { 0 });
        assert_eq!([control[1], watch[1]], [0, 0]);
        assert!(waived(&daemon).iter().all(|(_, is_waived)| !is_waived));
        let doctor = String::from_utf8_lossy(&daemon.ctl("doctor").stdout).into_owned();
        assert!(doctor.contains("sandbox"), "{doctor}");
    }
}
