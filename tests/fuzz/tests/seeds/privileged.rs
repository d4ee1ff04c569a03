//! What crosses a border of privilege: messages of both processes, changes good and bad, lists for the helper.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{MAX_LOCATORS, Role};
use isatapd::link::apply::RouteId;
use isatapd::link::change::{AddressChange, Change, Devices};
use isatapd::link::dns::Names;
use isatapd::monitor::binding::{Bounds, Left, LookedUp};
use isatapd::monitor::others::Others;
use isatapd::monitor::wire::{Answer, Asked, Cause, MapsShape, Order, Say, Setup, Suspect, VERSION};
use isatapd::slaac::Origin;

use super::{OWN, ROUTER, on_link, write};
use isatap_tests::packet::link_local;

pub(super) fn write_seeds() {
    let changes: Vec<_> = changes()
        .into_iter()
        .map(|change| Say::Change(7, change).encode())
        .collect();
    let addrs = ["127.0.0.1:9441", "0.0.0.0:80", "[::1]:0", "[2001:db8::1]:1023"];
    let listens = addrs.map(|addr| Say::Listen(8, addr.parse().expect("an address")).encode());
    let suspects = [0, u16::MAX].map(|worker| suspect(worker).encode());
    let asked = changes.iter().chain(&listens).chain(&suspects);
    write("monitor_gate", asked.cloned());
    write(
        "monitor_messages",
        says().chain(orders()).chain(changes.into_iter().step_by(4)),
    );
    helper_messages();
}

/// Devices of each kind, one that is not there, and the tunnel itself.
const DEVICES: Devices = {
    let mut devices = [0; MAX_LOCATORS];
    let of_each_kind = [1, 2, 3, 4, 5, 4711, u32::MAX];
    let mut at = 0;
    while at < of_each_kind.len() {
        devices[at] = of_each_kind[at];
        at += 1;
    }
    devices
};

fn changes() -> Vec<Change> {
    let address = AddressChange {
        addr: on_link(OWN),
        prefix_len: 128,
        valid: 7200,
        preferred: 3600,
        origin: Origin::Advertised,
    };
    let route = |prefix: &str, via| RouteId {
        prefix: prefix.parse().expect("a prefix"),
        metric: 1024,
        via,
        preference: 0,
        origin: Origin::Advertised,
    };
    let router = Some(link_local(ROUTER));
    let own = RouteId {
        origin: Origin::Own,
        ..route("2001:db8:1::/64", None)
    };
    vec![
        Change::Shape(1480),
        Change::Shape(68),
        Change::Mtu(1280),
        Change::Up,
        Change::Down,
        Change::LinkLocal(OWN),
        Change::LinkLocal(Ipv4Addr::LOCALHOST),
        Change::Address(address),
        Change::Address(AddressChange {
            addr: Ipv6Addr::LOCALHOST,
            ..address
        }),
        Change::Address(AddressChange {
            prefix_len: 0,
            ..address
        }),
        Change::RemoveAddress(on_link(OWN), 128),
        Change::RemoveAddress(Ipv6Addr::UNSPECIFIED, 200),
        Change::Route(route("::/0", router), Some(1800)),
        Change::Route(route("2001:db8:7::/48", router), None),
        Change::Route(route("::/0", None), Some(1)),
        Change::Route(route("ff00::/8", router), Some(1)),
        Change::Route(route("::/0", Some(Ipv6Addr::LOCALHOST)), Some(1)),
        Change::Route(own, None),
        Change::RemoveRoute(own),
        Change::RemoveRoute(route("fe80::/64", None)),
        Change::Sysctls(Role::Host),
        Change::Sysctls(Role::Router),
        Change::HopLimit(Some(64)),
        Change::HopLimit(None),
        Change::Programs([4; MAX_LOCATORS]),
        Change::Programs(DEVICES),
    ]
}

fn says() -> impl Iterator<Item = Vec<u8>> {
    let says = [
        Say::Ready,
        Say::Reloading,
        Say::Status("carries packets".into()),
        Say::Status("\u{e4}".repeat(300)),
        Say::Alive,
        Say::Reloaded,
        Say::StopListening,
        Say::Upgrade(1),
        Say::Attend(u32::MAX),
        suspect(1),
    ];
    let failed = Cause::ALL.map(|cause| Say::Failed(cause, 1, "worker 0 is stuck".into()));
    says.into_iter().chain(failed).map(|say| say.encode())
}

fn suspect(worker: u16) -> Say {
    Say::Suspect(Suspect {
        worker,
        thread: 4711,
        turns: 1 << 40,
        looked_at: 1 << 50,
    })
}

fn orders() -> impl Iterator<Item = Vec<u8>> {
    let setup = Setup {
        version: VERSION,
        interface: "is0".into(),
        if_index: 4,
        key: 0x5214_5214,
        workers: 2,
        udp_offload: true,
        steered: false,
        gso_sizes: true,
        ids: [65534, 65534],
        waived: Default::default(),
        detached: true,
        successor: true,
        restarts: [3; Cause::ALL.len()],
        upgrades: 1,
        rules: 5,
        filters: 0x5214,
        metrics: true,
        names: false,
        programs: true,
    };
    let answers = [
        Answer::Done,
        Answer::Kernel(22),
        Answer::Refused("the MTU is out of bounds".into()),
    ];
    let asked = [
        Asked::Reload,
        Asked::Summary,
        Asked::ReopenLogs,
        Asked::Terminate,
        Asked::Interrupt,
        Asked::HandOver,
    ];
    let others = Others {
        firewall: true,
        ..Others::default()
    };
    let left = Left {
        bounds: Bounds {
            now: Some(vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]),
            before: None,
        },
        looked_up: Some(LookedUp {
            name: "isatap.example".into(),
            addresses: vec![Ipv4Addr::new(10, 0, 0, 1)],
        }),
    };
    let first = [
        Order::Setup(setup),
        Order::Maps(MapsShape { slots: 64, cpus: 2 }),
        Order::WithoutPrograms("no clang".into()),
        Order::Worker(1),
        Order::Begin,
        Order::Others(others),
        Order::Left(left),
    ];
    let answers = answers.map(|answer| Order::Answer(7, answer));
    let all = first.into_iter().chain(answers).chain(asked.map(Order::Signal));
    all.map(|order| order.encode())
}

fn helper_messages() {
    let server = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
    let lists: [(&[Ipv6Addr], &[&str]); 5] = [
        (&[], &[]),
        (&[server(0x53)], &[]),
        (&[], &["example.net"]),
        (
            &[server(1), server(2), server(3)],
            &["a.example", "b_c.example", "d-e"],
        ),
        (
            &[link_local(OWN)],
            &["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.example"],
        ),
    ];
    let good = lists.map(|(servers, search)| {
        let search: Vec<_> = search.iter().map(|name| (*name).to_owned()).collect();
        Names::new(servers, &search).encode()
    });
    let bad: [&[u8]; 7] = [
        b"",
        b"\x01\0",
        b"\xff\xff",
        b"\0\x01\x05-flag",
        b"\0\x01\x07../../x",
        b"\0\x01\x04a..b",
        b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
    ];
    write("helper_message", good.into_iter().chain(bad.map(<[u8]>::to_vec)));
}
