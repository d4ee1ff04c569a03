//! One corpus for the kernel's ISATAP device and for ours, configured alike: which packets each lets in, and what it makes
//! of them (D1-D12, C3, M8, N4, V1, V11; FAULTS 1-18).
//!
//! ```text
//!   x 10.0.0.9 (crafted) ---- guest 10.0.0.1   ip tunnel ... mode isatap
//!   x 10.0.0.9 (crafted) ---- dut   10.0.0.1   isatapd
//! ```
//!
//! Each disagreement belongs to a class of `isatap_tests::disagreements`, and each class still occurs.
//! `cargo test -p isatap-tests --test kernel_differential -- --nocapture` shows the table.

use std::collections::BTreeMap;

use isatap_tests::corpus::{self, Case, GATEWAY, HOST, OWN, ROUTED, ROUTER, SECOND_ROUTER};
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::disagreements::{CLASSES, Class, Packet, Who};
use isatap_tests::guest::Guest;
use isatap_tests::kernel_peer::{self, Potential, sniffed};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, Outer, SeenInner, link_local};
use isatap_tests::raw::{Injector, Sniffer};
use isatap_tests::scene::{Opposite, SOON, on_link, set_address};
use isatap_tests::topology::{Site, UNDERLAY, mac};

/// Of every ordinary run; `ISATAP_CORPUS_SEED` in the environment tries another corpus.
const SEED: u64 = 5214;
/// Frames that a receiver surely has room for.
const BURST: usize = 50;

/// What a receiver delivered of each case.
type Delivered = BTreeMap<u32, Vec<u8>>;

/// Sends the corpus, and knows when all of it has been looked at.
struct Sender {
    injector: Injector,
    wire: Sniffer,
}

impl Sender {
    fn new(x: &Netns, to: [u8; 6]) -> Self {
        Self {
            injector: Injector::ethernet(x, UNDERLAY, to),
            wire: Sniffer::start(x, UNDERLAY),
        }
    }

    /// Returns the last packet, which the receiver has answered.
    fn send_all(&self, cases: &[Case]) -> Vec<u8> {
        let (mut sequence, mut room) = (0, 0);
        for case in cases {
            if room < case.frames.len() {
                self.fence(sequence);
                (sequence, room) = (sequence + 1, BURST.max(case.frames.len()));
            }
            room -= case.frames.len();
            case.frames.iter().for_each(|frame| self.injector.send(frame));
        }
        self.fence(sequence)
    }

    /// The receiver answers this echo request after everything before it.
    fn fence(&self, sequence: u16) -> Vec<u8> {
        let inner = Inner::new(link_local(HOST), link_local(OWN));
        let request = inner.echo_request(0xfe7c, sequence, b"fence");
        self.wire.clear();
        self.injector.send(&Outer::new(HOST, OWN).wrap(&request));
        let answer = [&0xfe7c_u16.to_be_bytes()[..], &sequence.to_be_bytes()].concat();
        self.wire.wait_for("the answer to a fence", SOON * 2, |c| {
            let inner = c.outer().and_then(|outer| outer.inner());
            let message = inner.and_then(|inner| inner.icmpv6());
            !c.outgoing && message.is_some_and(|(kind, _, body)| kind == 129 && body.starts_with(&answer))
        });
        request
    }
}

/// Commands for a receiver after which it takes the sender of all this for everybody.
fn neighbours(x: &Netns) -> Vec<String> {
    let mac = mac(x, UNDERLAY).map(|byte| format!("{byte:02x}")).join(":");
    let line = |v4| format!("ip neigh replace {v4} lladdr {mac} dev {UNDERLAY} nud permanent");
    corpus::ANSWERED.map(line).into()
}

/// By number; a case that is delivered twice is a fault of the receiver.
fn by_number(who: &str, packets: impl IntoIterator<Item = Vec<u8>>) -> Delivered {
    let mut delivered = Delivered::new();
    for packet in packets {
        let Some(id) = corpus::id_of(&packet).filter(|id| *id != 0) else {
            continue;
        };
        let before = delivered.insert(id, packet);
        assert!(before.is_none(), "{who} delivers case {id} twice");
    }
    delivered
}

fn by_the_kernel(cases: &[Case]) -> Option<Delivered> {
    let site = Site::new();
    let x = site.member("x", HOST.octets()[3]);
    let guest = Guest::start(&site, OWN)?;
    // Nothing but the tunnel's own checks stands before it; advertisements change nothing.
    guest.run("for i in all eth0; do echo 1 >/proc/sys/net/ipv4/conf/$i/accept_source_route; done");
    kernel_peer::tunnel(
        &guest,
        1280,
        &[Potential::Default(ROUTER), Potential::NoDefault(SECOND_ROUTER)],
    );
    guest.run(&format!(
        "echo 0 >/proc/sys/net/ipv6/conf/{TUNNEL}/accept_ra
        ip addr add {}/64 dev {TUNNEL} nodad
        ip route add {ROUTED}/48 via {} dev {TUNNEL}
        sniff {TUNNEL} /tmp/seen",
        on_link(OWN),
        link_local(GATEWAY)
    ));
    neighbours(&x).iter().for_each(|line| drop(guest.run(line)));
    let last = Sender::new(&x, guest.mac()).send_all(cases);
    let packets = sniffed(&guest, "/tmp/seen", &last).into_iter();
    Some(by_number(
        "the kernel",
        packets.filter(|(sent, _)| !sent).map(|(_, packet)| packet),
    ))
}

fn by_us(cases: &[Case], is_router: bool, lane: Lane) -> Delivered {
    let scene = Opposite::new();
    for device in ["all", UNDERLAY] {
        scene
            .dut
            .sysctl(&format!("ipv4/conf/{device}/accept_source_route"), "1");
    }
    let builder = if is_router {
        let builder = Daemon::router(&scene.dut, OWN);
        builder.config(&format!("PeerRouter {ROUTER}\nPeerRouter {SECOND_ROUTER}"))
    } else {
        Daemon::host(&scene.dut, OWN, &[ROUTER, SECOND_ROUTER])
    };
    // One worker: what is sent last is judged last.
    let daemon = builder.lane(lane).workers(1).start();
    set_address(&scene.dut, OWN);
    scene.dut.ip(&format!(
        "route add {ROUTED}/48 via {} dev {TUNNEL}",
        link_local(GATEWAY)
    ));
    daemon.wait_route(&format!("{ROUTED}/48"));
    scene.wait_prefix(&daemon);
    neighbours(&scene.x)
        .iter()
        .for_each(|line| drop(scene.dut.run(line)));
    let inside = Sniffer::start(&scene.dut, TUNNEL);
    Sender::new(&scene.x, mac(&scene.dut, UNDERLAY)).send_all(cases);
    daemon.conservation();
    let packets = inside.packets().into_iter();
    by_number("isatapd", packets.filter(|c| !c.outgoing).map(|c| c.packet))
}

fn judge(case: &Case, kernel: &Delivered, ours: &Delivered) -> Option<Who> {
    match (kernel.get(&case.id), ours.get(&case.id)) {
        (None, None) => None,
        (Some(_), None) => Some(Who::KernelTakes),
        (None, Some(_)) => Some(Who::WeTake),
        (Some(kernel), Some(ours)) => {
            // The kernel cuts padding off later, in its IPv6 input.
            let len = SeenInner::read(kernel).map_or(kernel.len(), |inner| 40 + inner.payload.len());
            (kernel[..len] != ours[..]).then_some(Who::BothTake)
        }
    }
}

/// D1 to D12, C3, M8, N4, V1, V11.
#[test]
fn the_kernel_and_we_judge_alike() {
    let seed = std::env::var("ISATAP_CORPUS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let cases = corpus::generate(seed.unwrap_or(SEED));
    let Some(kernel) = by_the_kernel(&cases) else {
        return;
    };
    let mut explained = [0; CLASSES.len()];
    for (is_router, lane) in [
        (false, Lane::Uring),
        (false, Lane::Syscall),
        (false, Lane::Ebpf),
        (true, Lane::Uring),
        (true, Lane::Ebpf),
    ] {
        let who = format!(
            "{} on the {} lane",
            if is_router { "router" } else { "host" },
            lane.name()
        );
        let ours = by_us(&cases, is_router, lane);
        println!("\n--- isatapd as {who}\n{}", groups(&cases, &kernel, &ours));
        let faults = compare(&cases, &kernel, &ours, is_router, &mut explained);
        assert!(
            faults.is_empty(),
            "isatapd as {who}, {} faults:\n{}",
            faults.len(),
            faults.join("\n")
        );
    }
    println!("\n--- disagreements\n{}", classes(&explained));
    let idle: Vec<_> = CLASSES
        .iter()
        .zip(explained)
        .filter(|(class, count)| class.always && *count == 0)
        .collect();
    assert!(
        idle.is_empty(),
        "these classes explain nothing any more: {idle:#?}"
    );
}

/// Sorts disagreements into classes, counting those that one class alone explains; returns what no class explains, and
/// what a class is wrong about.
fn compare(
    cases: &[Case],
    kernel: &Delivered,
    ours: &Delivered,
    is_router: bool,
    explained: &mut [usize; CLASSES.len()],
) -> Vec<String> {
    let mut faults = Vec::new();
    for case in cases {
        let packet = Packet::read(case, is_router);
        let classes: Vec<_> = CLASSES
            .iter()
            .enumerate()
            .filter(|(_, class)| packet.as_ref().is_some_and(class.explains))
            .collect();
        let judged = judge(case, kernel, ours);
        let told = || format!("case {}, {}: {}", case.id, case.group, case.note);
        let fitting: Vec<_> = classes
            .iter()
            .filter(|(_, class)| Some(class.who) == judged)
            .collect();
        match (judged, &fitting[..]) {
            (None, _) => {}
            (Some(who), []) => faults.push(format!("{who:?}, for no known reason: {}", told())),
            (_, [(index, _)]) => explained[*index] += 1,
            _ => {}
        }
        for (_, class) in classes {
            if class.always && class.who == Who::KernelTakes && ours.contains_key(&case.id) {
                faults.push(format!(
                    "taken by us in spite of {:?} ({}): {}",
                    class.name,
                    class.clause,
                    told()
                ));
            }
        }
    }
    faults
}

/// How often the two agree, by group of cases.
fn groups(cases: &[Case], kernel: &Delivered, ours: &Delivered) -> String {
    let mut groups: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for case in cases {
        let column = match judge(case, kernel, ours) {
            None if kernel.contains_key(&case.id) => 1,
            None => 2,
            Some(_) => 3,
        };
        let row = groups.entry(case.group).or_default();
        row[0] += 1;
        row[column] += 1;
    }
    let mut text = format!(
        "{:20} {:>6} {:>11} {:>13} {:>7}\n",
        "", "cases", "both take", "both refuse", "differ"
    );
    for (group, [all, take, refuse, differ]) in groups {
        text += &format!("{group:20} {all:6} {take:11} {refuse:13} {differ:7}\n");
    }
    text
}

/// The classes, and how many packets each explains alone.
fn classes(explained: &[usize; CLASSES.len()]) -> String {
    let line = |(class, count): (&Class, &usize)| {
        format!(
            "{count:6}  {:52} {:12} {}\n",
            class.name,
            format!("{:?}", class.who),
            class.clause
        )
    };
    CLASSES.iter().zip(explained).map(line).collect()
}
