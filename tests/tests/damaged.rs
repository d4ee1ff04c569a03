//! A damaged TCP segment between good ones stays damaged: it is never merged with them into a packet that the kernel
//! takes as good (DESIGN D3, STYLE principle 5).
//!
//! ```text
//!   dut 10.0.0.1 ------ x 10.0.0.9 (crafted)         is0 on dut: 2001:db8:1::5efe:a00:1/64; GRO off on the link
//! ```

use std::io::Read;
use std::net::{Ipv6Addr, TcpListener};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, SeenInner, TCP};
use isatap_tests::raw::{Crafter, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::{Gro, UNDERLAY, set_gro};
use isatap_tests::wait;

const PORT: u16 = 5001;
const FIRST_SOURCE_PORT: u16 = 40_000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Offset of the acknowledgement number within a TCP header, and of its checksum.
const ACKNOWLEDGEMENT: usize = 4 + 4;
const CHECKSUM: usize = 16;
const IPV6_HEADER_LEN: usize = 40;
const TCP_HEADER_LEN: usize = 20;
/// Of one segment; what the daemon merges is a run of equal ones.
const SEGMENT_LEN: usize = 1000;
const SEGMENTS: usize = 12;
/// The kernel's counter of segments with a bad checksum.
const BAD_CHECKSUMS: &str = "TcpInCsumErrors";

/// How a segment is damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A byte of the data, as on a bad link.
    Data,
    /// The checksum itself.
    Checksum,
}

/// A connection into the daemon's machine whose client end is made by hand.
struct Client {
    inner: Inner,
    source_port: u16,
    /// Of the first byte of data.
    sequence: u32,
    /// What we acknowledge.
    next_theirs: u32,
}

impl Client {
    /// The three steps that open a connection.
    fn connect(crafter: &Crafter, wire: &Sniffer, source_port: u16) -> Self {
        let inner = Inner::new(on_link(X), on_link(DUT));
        let start = 0x1234_5678;
        crafter.send_inner(&inner.tcp(source_port, PORT, start, SYN, b""));
        let answer = wire.wait_for("SYN ACK", SOON, |c| {
            let seen = c.outgoing.then(|| c.outer()?.inner()).flatten();
            seen.is_some_and(|seen| is_answer(&seen, source_port, SYN | ACK))
        });
        let outer = answer.outer().expect("seen before");
        let theirs = outer.inner().expect("seen before").payload[4..8]
            .try_into()
            .expect("four bytes");
        let client = Self {
            inner,
            source_port,
            sequence: start + 1,
            next_theirs: u32::from_be_bytes(theirs).wrapping_add(1),
        };
        crafter.send_inner(&client.packet(0, ACK, b""));
        client
    }

    /// A segment whose data starts `offset` bytes into the stream.
    fn packet(&self, offset: usize, flags: u8, data: &[u8]) -> Vec<u8> {
        let sequence = self
            .sequence
            .wrapping_add(u32::try_from(offset).expect("a short stream"));
        let packet = self.inner.tcp(self.source_port, PORT, sequence, flags, data);
        let mut message = packet[IPV6_HEADER_LEN..].to_vec();
        message[ACKNOWLEDGEMENT..][..4].copy_from_slice(&self.next_theirs.to_be_bytes());
        self.inner.wrap_summed(TCP, message, CHECKSUM)
    }
}

fn is_answer(seen: &SeenInner<'_>, to_port: u16, flags: u8) -> bool {
    let tcp = seen.payload;
    seen.header.next_header().0 == TCP
        && tcp.len() >= TCP_HEADER_LEN
        && tcp[2..4] == to_port.to_be_bytes()
        && tcp[13] == flags
}

/// Data of the stream, each segment with bytes of its own.
fn segment(index: usize) -> Vec<u8> {
    (0..SEGMENT_LEN)
        .map(|at| u8::try_from((index * 31 + at) % 251).expect("a byte"))
        .collect()
}

fn damage(mut packet: Vec<u8>, how: Damage) -> Vec<u8> {
    let at = match how {
        Damage::Data => IPV6_HEADER_LEN + TCP_HEADER_LEN + SEGMENT_LEN / 2,
        Damage::Checksum => IPV6_HEADER_LEN + CHECKSUM,
    };
    packet[at] ^= 0x40;
    packet
}

/// A counter of `nstat`, since the namespace was made.
fn kernel_counter(ns: &Netns, name: &str) -> u64 {
    let text = ns.run(&format!("nstat -asz {name}"));
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn a_damaged_segment_is_not_laundered(lane: Lane) {
    let scene = Opposite::new();
    set_gro(&scene.x, UNDERLAY, &scene.dut, UNDERLAY, Gro::Off);
    let daemon = scene.router(|builder| builder.lane(lane).workers(1));
    daemon.wait_lane(lane);
    let listener = scene
        .dut
        .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("listen"));
    let bench = Bench {
        scene: &scene,
        daemon: &daemon,
        crafter: scene.crafter(),
        listener,
        merges: lane != Lane::Ebpf,
    };
    let cases = [1, SEGMENTS / 2, SEGMENTS - 1].map(|at| [(at, Damage::Data), (at, Damage::Checksum)]);
    for (port, (damaged, how)) in (FIRST_SOURCE_PORT..).zip(cases.into_iter().flatten()) {
        run(&bench, port, damaged, how);
    }
    daemon.conservation();
}

struct Bench<'a> {
    scene: &'a Opposite,
    daemon: &'a Daemon<'a>,
    crafter: Crafter,
    listener: TcpListener,
    /// Whether the lane does. Programs wait for nobody and merge nothing: there it is what the kernel believes of a packet
    /// whose outer header was taken off that is looked at.
    merges: bool,
}

/// A run of segments all of which wait for the daemon at once, one of them damaged; then that one again, whole.
fn run(bench: &Bench<'_>, port: u16, damaged: usize, how: Damage) {
    let Bench {
        scene,
        daemon,
        crafter,
        listener,
        ..
    } = bench;
    let (wire, behind) = (
        Sniffer::start(&scene.dut, UNDERLAY),
        Sniffer::start(&scene.dut, TUNNEL),
    );
    let client = Client::connect(crafter, &wire, port);
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    daemon.conservation();
    let before = daemon.counters(Direction::Decap);
    let bad_before = kernel_counter(&scene.dut, BAD_CHECKSUMS);

    daemon.freeze();
    for index in 0..SEGMENTS {
        let good = client.packet(index * SEGMENT_LEN, ACK, &segment(index));
        crafter.send_inner(&if index == damaged { damage(good, how) } else { good });
    }
    daemon.thaw();
    let since = daemon.wait_received(Direction::Decap, &before, SEGMENTS as u64);
    assert_eq!(since.delivered, SEGMENTS as u64, "{since}");

    let what = format!("segment {damaged}, {how:?}");
    wait::until("the kernel to refuse one segment", SOON, || {
        match kernel_counter(&scene.dut, BAD_CHECKSUMS) - bad_before {
            1 => Ok(()),
            other => Err(format!("{what}: {other} segments have a bad checksum")),
        }
    });
    if bench.merges {
        // Unless good ones were merged, nothing is shown.
        let one = IPV6_HEADER_LEN + TCP_HEADER_LEN + SEGMENT_LEN;
        behind.wait_for("merged segment", SOON, |c| !c.outgoing && c.packet.len() > one);
    }
    let mut content = vec![0; damaged * SEGMENT_LEN];
    stream
        .read_exact(&mut content)
        .expect("what came before the damage");
    assert!(
        content
            .chunks(SEGMENT_LEN)
            .enumerate()
            .all(|(index, data)| data == segment(index)),
        "{what}"
    );

    // Nothing after the gap is read before it is filled: not the damaged bytes either.
    stream.set_nonblocking(true).expect("a socket");
    assert!(stream.read(&mut [0]).is_err(), "{what}: damaged data was read");
    stream.set_nonblocking(false).expect("a socket");
    crafter.send_inner(&client.packet(damaged * SEGMENT_LEN, ACK, &segment(damaged)));
    let mut content = vec![0; (SEGMENTS - damaged) * SEGMENT_LEN];
    stream.read_exact(&mut content).expect("all of it");
    assert!(
        content
            .chunks(SEGMENT_LEN)
            .zip(damaged..)
            .all(|(data, index)| data == segment(index)),
        "{what}"
    );
}

#[test]
fn a_damaged_segment_is_not_laundered_uring() {
    a_damaged_segment_is_not_laundered(Lane::Uring);
}

#[test]
fn a_damaged_segment_is_not_laundered_syscall() {
    a_damaged_segment_is_not_laundered(Lane::Syscall);
}

#[test]
fn a_damaged_segment_is_not_laundered_ebpf() {
    a_damaged_segment_is_not_laundered(Lane::Ebpf);
}
