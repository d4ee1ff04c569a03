//! An example of a status, for the tests of whoever reads one; and what must hold of it.

use super::*;
use crate::ops::share::DirectionShare;
use isatap_engine::ebpf::Cause;

/// A host with one usable router.
pub(crate) fn example() -> Status {
    let encap = DirectionSnapshot {
        received: 12,
        delivered: 10,
        bytes: 1000,
        drops: DropReason::ALL
            .iter()
            .map(|r| u64::from(*r == DropReason::TooBig) * 2)
            .collect(),
        ..DirectionSnapshot::default()
    };
    let snapshot = WorkerSnapshot {
        encap,
        ..WorkerSnapshot::default()
    };
    let workers = [snapshot.clone(), snapshot];
    Status {
        schema_version: SCHEMA_VERSION,
        host: "gate".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 42,
        engine_pid: 43,
        uptime_seconds: 3.5,
        role: "host".to_owned(),
        lane: "uring".to_owned(),
        workers_lane: "uring".to_owned(),
        ready: true,
        not_ready: Vec::new(),
        draining_seconds: None,
        interface: InterfaceStatus {
            name: "is0".to_owned(),
            index: 7,
            up: true,
            mtu: 1280,
            tunnel_mtu: 1280,
            addresses: vec!["fe80::5efe:a00:5/64".to_owned()],
        },
        locator: LocatorStatus {
            address: Ipv4Addr::new(10, 0, 0, 5),
            automatic: true,
            present: true,
            shared_with: Vec::new(),
        },
        routers: vec![RouterStatus {
            address: Ipv4Addr::new(10, 0, 0, 1),
            link_local: "fe80::5efe:10.0.0.1".parse().unwrap(),
            state: "usable".to_owned(),
            preference: 0,
            lifetime_seconds: Some(1799.5),
            advertised_seconds_ago: Some(0.5),
            next_solicitation_seconds: None,
            solicitations: 1,
            advertisements: 1,
            answered_seconds_ago: Some(0.25),
            round_trip_seconds: Some(0.001),
        }],
        names: vec![NameStatus {
            name: "isatap.example".to_owned(),
            addresses: vec![Ipv4Addr::new(10, 0, 0, 1)],
            answered_seconds_ago: Some(1.0),
            ttl_seconds: Some(59.0),
            next_lookup_seconds: Some(4.0),
            error: Some("no answer".to_owned()),
            failures: 2,
        }],
        resolver: ResolverStatus::default(),
        advertising: AdvertisingStatus::default(),
        route_count: 2,
        total: Traffic::total(&workers, None),
        workers: workers
            .iter()
            .enumerate()
            .map(|(number, worker)| WorkerStatus::new(number, worker))
            .collect(),
        kernel_drops: BTreeMap::from([("0".to_owned(), 3)]),
        qdisc_drops: 0,
        device_drops: 0,
        captures: 0,
        programs: ProgramsStatus::default(),
        sandbox: SandboxStatus::default(),
        configuration: vec![SettingStatus {
            name: "Mtu".to_owned(),
            value: "1280".to_owned(),
        }],
        paths: PathsStatus::default(),
        control: ControlStatus::default(),
    }
}

/// The same with programs in the kernel that carried most of the packets.
pub(crate) fn with_programs() -> Status {
    let traffic = DirectionSnapshot {
        received: 120,
        delivered: 100,
        bytes: 100_000,
        superpackets: 10,
        segments: 40,
        drops: DropReason::ALL
            .iter()
            .map(|r| u64::from(*r == DropReason::NotSite) * 20)
            .collect(),
        ..DirectionSnapshot::default()
    };
    let left = Cause::ALL
        .iter()
        .map(|cause| u64::from(*cause == Cause::Control) * 2)
        .collect();
    let share = KernelShare {
        encap: DirectionShare {
            traffic,
            carries: true,
            ..DirectionShare::default()
        },
        decap: DirectionShare {
            left,
            carries: true,
            ..DirectionShare::default()
        },
        generation: 3,
        devices: vec!["eth0".to_owned()],
        ..KernelShare::default()
    };
    let encap = DirectionSnapshot {
        received: 12,
        delivered: 10,
        batches: vec![1],
        drops: DropReason::ALL
            .iter()
            .map(|r| u64::from(*r == DropReason::TooBig) * 2)
            .collect(),
        ..DirectionSnapshot::default()
    };
    let worker = WorkerSnapshot {
        encap,
        ..WorkerSnapshot::default()
    };
    Status {
        lane: "ebpf".to_owned(),
        total: Traffic::total(&[worker.clone(), worker], Some(&share)),
        programs: (&share).into(),
        ..example()
    }
}

/// Both directions add up, with the kernel and without.
#[test]
fn the_kernels_packets_are_in_the_totals() {
    let status = with_programs();
    let encap = &status.total.encap;
    assert_eq!((encap.received, encap.packets, encap.dropped), (144, 120, 24));
    assert_eq!(encap.received, encap.packets + encap.punted + encap.dropped);
    assert_eq!(encap.drops["not_site"], 20);
    assert_eq!((encap.superpackets, encap.segments, encap.batches), (10, 40, 2));
    assert_eq!(status.programs.left.decap["control"], 2);
    assert!(status.programs.left.encap.is_empty());
    assert_eq!(status.programs.generation, 3);
    assert_eq!(ProgramsStatus::none("no clang").obstacles, ["no clang"]);
    assert!(ProgramsStatus::none("").obstacles.is_empty());
}

#[test]
fn totals_are_sums_and_silent_reasons_are_left_out() {
    let status = example();
    assert_eq!(status.total.encap.received, 24);
    assert_eq!(status.total.encap.dropped, 4);
    assert_eq!(
        status.total.encap.drops.iter().collect::<Vec<_>>(),
        [(&"too_big".to_owned(), &4)]
    );
    assert_eq!(status.workers[1].traffic.encap.packets, 10);
    assert_eq!(
        (status.routers_in("usable"), status.routers_in("unknown")),
        (1, 0)
    );
}

/// A status client of another age must find what it knows and ignore what it does not (FAULTS 75).
#[test]
fn unknown_fields_are_ignored() {
    let mut json = serde_json::to_value(example()).unwrap();
    json["future"] = serde_json::json!({"x": 1});
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), example());
}
