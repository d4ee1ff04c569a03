//! Writes the first inputs of each corpus, from the packets of the other tests:
//!
//! ```text
//! cargo test -p isatap-fuzz --test seeds -- --ignored
//! ```

#[path = "seeds/control.rs"]
mod control;
#[path = "seeds/privileged.rs"]
mod privileged;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use isatap_engine::isatap::mark::Mark;
use isatap_tests::corpus;
use isatap_tests::nd::{self, Advertisement};
use isatap_tests::packet::{Inner, Outer, checksum, isatap, link_local};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

fn on_link(v4: Ipv4Addr) -> Ipv6Addr {
    isatap("2001:db8:1::", false, v4)
}

fn write(target: &str, inputs: impl IntoIterator<Item = Vec<u8>>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).expect("a directory");
    for (number, input) in inputs.into_iter().enumerate() {
        fs::write(dir.join(format!("seed-{number:03}")), input).expect("a file");
    }
}

/// Inner packets that the two Rulebooks know what to do with.
fn inner_packets() -> Vec<Vec<u8>> {
    let behind: Ipv6Addr = "2001:db8:7::1".parse().expect("an address");
    let far: Ipv6Addr = "2001:db8:ffff::1".parse().expect("an address");
    let mut packets = Vec::new();
    for (src, dst) in [
        (on_link(HOST), on_link(OWN)),
        (on_link(OWN), on_link(HOST)),
        (link_local(HOST), link_local(OWN)),
        (link_local(OWN), link_local(ROUTER)),
        (behind, on_link(OWN)),
        (on_link(OWN), behind),
        (on_link(OWN), "2001:db8:6::1".parse().expect("an address")),
        (far, on_link(OWN)),
        (on_link(OWN), far),
        (on_link(OWN), "2002:a00:1::1".parse().expect("an address")),
    ] {
        let inner = Inner::new(src, dst);
        packets.push(inner.udp(1, 9, b"payload"));
        packets.push(inner.tcp(1, 9, 7, ACK, b"payload"));
        packets.push(inner.echo_request(1, 1, b"payload"));
    }
    packets
}

fn discovery_packets() -> Vec<Vec<u8>> {
    let all_nodes: Ipv6Addr = "ff02::1".parse().expect("an address");
    let prefix: Ipv6Addr = "2001:db8:1::".parse().expect("a prefix");
    let dns = [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)];
    let options = [
        nd::prefix_option(prefix, 64, 3600, 1800),
        nd::mtu_option(1480),
        nd::route_option("2001:db8:9::".parse().expect("a prefix"), 48, 1, 600),
        nd::dns_option(&dns, 600),
        nd::link_layer_option(1, [2, 0, 0, 0, 0, 1]),
        b"\x1f\x03\0\0\0\0\x02\x58\x04site\x07example\0\0\0".to_vec(),
    ];
    let mut packets: Vec<_> = (0..=options.len())
        .map(|count| Advertisement::new(&options[..count]).packet(link_local(ROUTER), link_local(OWN)))
        .collect();
    packets.extend(options.iter().map(|option| {
        Advertisement::new(std::slice::from_ref(option)).packet(link_local(ROUTER), all_nodes)
    }));
    packets.push(
        Advertisement::new(&options)
            .lifetime(0)
            .packet(link_local(ROUTER), all_nodes),
    );
    packets.push(nd::packet(
        link_local(HOST),
        link_local(OWN),
        133,
        &nd::router_solicitation(),
    ));
    packets.push(nd::packet(
        link_local(ROUTER),
        link_local(OWN),
        135,
        &nd::neighbour_solicitation(link_local(OWN)),
    ));
    packets.push(nd::packet(
        link_local(ROUTER),
        link_local(OWN),
        136,
        &nd::neighbour_advertisement(0xe0, link_local(ROUTER)),
    ));
    packets.push(nd::packet(
        link_local(ROUTER),
        link_local(OWN),
        137,
        &nd::redirect(link_local(HOST), on_link(HOST)),
    ));
    packets
}

/// What the gate for neighbour discovery refuses, for each of its reasons, and what it alone lets through.
fn gated_packets() -> Vec<Vec<u8>> {
    let far: Ipv6Addr = "2001:db8:ffff::1".parse().expect("an address");
    let all_routers: Ipv6Addr = "ff02::2".parse().expect("an address");
    let (src, dst) = (link_local(ROUTER), link_local(OWN));
    let whole = Advertisement::new(&[]).packet(src, dst);
    let edited = |edit: fn(&mut Vec<u8>)| {
        let mut packet = whole.clone();
        edit(&mut packet);
        packet
    };
    let body = nd::router_advertisement(1800, &[]);
    let mut other_code = Inner::new(src, dst);
    other_code.hop_limit = 255;
    let mut fragment = whole.clone();
    // A fragment header before the message, of a packet that is whole.
    fragment.splice(40..40, [58, 0, 0, 0, 0, 0, 0, 1]);
    (fragment[5], fragment[6]) = (whole[5] + 8, 44);
    vec![
        edited(|packet| packet[7] = 64),
        edited(|packet| packet[42] ^= 1),
        other_code.icmpv6(134, 1, &body),
        nd::packet(src, dst, 134, &body[..8]),
        nd::packet(src, dst, 134, &[&body[..], &[5, 0, 0, 0, 0, 0, 0, 0]].concat()),
        nd::packet(on_link(ROUTER), dst, 134, &body),
        fragment,
        nd::packet(src, all_routers, 133, &nd::router_solicitation()),
        nd::packet(src, on_link(HOST), 133, &nd::router_solicitation()),
        nd::packet(src, dst, 137, &nd::redirect(link_local(HOST), far)),
        nd::packet(src, dst, 137, &nd::redirect(link_local(ROUTER), far)),
        nd::packet(src, dst, 137, &nd::redirect(far, far)),
    ]
}

/// Advertisements that say otherwise than a router beside, in each field.
fn disagreements() -> Vec<Vec<u8>> {
    let dns: Ipv6Addr = "2001:db8::54".parse().expect("an address");
    let other = [
        nd::dns_option(&[dns], 900),
        b"\x1f\x04\0\0\0\0\x03\x84\x05other\x07example\0\0\0\0\0\0\0\0\0".to_vec(),
        nd::mtu_option(1400),
    ];
    let mut body = nd::router_advertisement(1800, &other.concat());
    let plain = body.clone();
    // Hop limit, M and O, reachable time, retrans timer.
    (body[0], body[1]) = (32, 0xc0);
    body[4..12].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 3, 0xe8]);
    [plain, body]
        .map(|body| nd::packet(link_local(ROUTER), link_local(OWN), 134, &body))
        .into()
}

/// The packet as GRO, or a neighbour that leaves checksums to hardware, would have it: with the sum over its pseudo-header
/// where the checksum is to be.
fn with_partial_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let (next, len) = (packet[6], packet.len() - 40);
    let len = u32::try_from(len).expect("a packet").to_be_bytes();
    let sum = !checksum(&[&packet[8..40], &len, &[0, 0, 0, next]]);
    let at = 40 + if next == 6 { 16 } else { 6 };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Packets whose checksums are only begun: merged, single, with flags that nobody merges, cut off, too long for what they are.
fn partial_packets() -> Vec<Vec<u8>> {
    let inner = Inner::new(on_link(HOST), on_link(OWN));
    let (small, large) = (vec![0x5a; 100], vec![0x5a; 3000]);
    let mut packets = Vec::new();
    for data in [&small, &large] {
        // ACK and PSH; SYN, RST, URG, CWR besides.
        for flags in [ACK | PSH, ACK | 2, ACK | 4, ACK | 0x20, ACK | 0x80] {
            packets.push(with_partial_checksum(inner.tcp(1, 9, 7, flags, data)));
        }
        packets.push(with_partial_checksum(inner.udp(1, 9, data)));
    }
    // Long options leave no room for a segment; a header that is longer than its packet; a datagram of another length.
    let mut options = inner.tcp(1, 9, 7, ACK, &large);
    options[40 + 12] = 15 << 4;
    packets.push(with_partial_checksum(options));
    let mut header = inner.tcp(1, 9, 7, ACK, b"");
    header[40 + 12] = 15 << 4;
    packets.push(with_partial_checksum(header));
    let mut datagram = inner.udp(1, 9, &small);
    datagram[40 + 5] ^= 1;
    packets.push(with_partial_checksum(datagram));
    packets
}

fn vnet(gso: u8, size: u16, csum_start: u16, csum_offset: u16) -> Vec<u8> {
    let mut header = vec![u8::from(gso != 0), gso];
    for field in [60, size, csum_start, csum_offset] {
        header.extend_from_slice(&field.to_ne_bytes());
    }
    header
}

#[test]
#[ignore = "run by whoever changes the seeds: it writes files"]
fn write_seeds() {
    let corpus = corpus::generate(1);
    let every = |step: usize| corpus.iter().map(|case| case.whole.clone()).step_by(step);
    let small = |packet: &Vec<u8>| packet.len() < 300;

    let wrapped = |from: Ipv4Addr, inner: &[u8]| Outer::new(from, OWN).wrap(inner);
    let senders = [HOST, ROUTER, GATEWAY];
    let known: Vec<_> = inner_packets()
        .iter()
        .chain(&discovery_packets())
        .enumerate()
        .map(|(number, inner)| wrapped(senders[number % 3], inner))
        .collect();
    let partial = partial_packets();
    let partial = partial.iter().map(|inner| wrapped(HOST, inner));
    let mut gated = discovery_packets();
    gated.extend(gated_packets());
    let gated = gated.iter().map(|inner| wrapped(ROUTER, inner));
    let rest = every(400).filter(small).chain(partial).chain(gated);
    write("decap", known.iter().cloned().chain(rest));
    write(
        "headers",
        inner_packets()
            .into_iter()
            .step_by(2)
            .chain(every(900).filter(small)),
    );

    let plain = |inner: &Vec<u8>| [vec![0; 10], inner.clone()].concat();
    let mut frames: Vec<_> = inner_packets()
        .iter()
        .chain(&discovery_packets())
        .map(plain)
        .collect();
    let mut superpackets = Vec::new();
    for (len, size) in [(100, 40), (3000, 1000), (1400, 1400), (0, 100), (500, 1)] {
        let inner = Inner::new(on_link(OWN), on_link(HOST));
        let data = vec![0x5a; len];
        superpackets.push([vnet(4, size, 40, 16), inner.tcp(1, 9, 7, ACK | PSH, &data)].concat());
        superpackets.push([vnet(5, size, 40, 6), inner.udp(1, 9, &data)].concat());
    }
    frames.extend(superpackets.iter().cloned());
    write("encap", frames);
    write("split", superpackets.clone());
    write("checksum", superpackets);

    let mut runs = Vec::new();
    for (count, len) in [(1, 10), (2, 10), (3, 100), (5, 8)] {
        for udp in [true, false] {
            for short in [true, false] {
                let mut run = Vec::new();
                for number in 0..count {
                    let last = number + 1 == count;
                    let data = vec![b'x'; if last && short { len / 2 } else { len }];
                    let inner = Inner::new(on_link(HOST), on_link(OWN));
                    let sequence = 7 + u32::try_from(number * len).expect("a small run");
                    let packet = if udp {
                        inner.udp(1, 9, &data)
                    } else {
                        inner.tcp(1, 9, sequence, if last { ACK | PSH } else { ACK }, &data)
                    };
                    run.extend_from_slice(&u16::try_from(packet.len()).expect("a packet").to_be_bytes());
                    run.extend_from_slice(&packet);
                }
                runs.push(run);
            }
        }
    }
    write("merge", runs);

    write("nd_messages", discovery_packets());
    write(
        "advertisement",
        discovery_packets().into_iter().chain(disagreements()),
    );
    let timed = |packets: &[Vec<u8>]| {
        let mut input = Vec::new();
        for packet in packets {
            input.extend_from_slice(&300u16.to_le_bytes());
            input.extend_from_slice(&u16::try_from(packet.len()).expect("a packet").to_le_bytes());
            input.extend_from_slice(packet);
        }
        input
    };
    let packets = discovery_packets();
    write(
        "autoconfiguration",
        (0..packets.len()).map(|from| timed(&packets[from..(from + 4).min(packets.len())])),
    );

    let quotes: Vec<_> = inner_packets()
        .iter()
        .flat_map(|inner| [ROUTER, GATEWAY, HOST].map(|to| Outer::new(OWN, to).wrap(inner)))
        .step_by(2)
        .collect();
    write("icmp_quote", quotes.clone());
    // With DF, and for one of two with the identification that nobody outside knows.
    let claim = |said: u32, quote: &[u8], is_known: bool| {
        let mut marked = quote.to_vec();
        marked[6] = 0x40;
        let to: [u8; 4] = marked[16..20].try_into().expect("an address");
        let id = Mark::default().identification(OWN, to.into());
        if is_known {
            marked[4..6].copy_from_slice(&id.to_be_bytes());
        }
        [said.to_be_bytes().to_vec(), marked].concat()
    };
    let claims = quotes
        .iter()
        .enumerate()
        .map(|(number, quote)| claim(1300, quote, number % 2 == 1));
    // What fits is said, or not, or is nothing new; the quote is the least that a router sends, or less; the inner packet is another.
    let long = Outer::new(OWN, HOST).wrap(&Inner::new(on_link(OWN), on_link(HOST)).udp(1, 9, &[0x5a; 1200]));
    let short = [20, 22, 28, 44, 60].map(|len| claim(0, &long[..len], true));
    let other_len = {
        let mut quote = long.clone();
        quote[20 + 5] ^= 1;
        claim(0, &quote, true)
    };
    let whole = [0, 68, 500, 1280, 65_535, 1 << 20].map(|said| claim(said, &long, true));
    write("path_claim", claims.chain(short).chain(whole).chain([other_len]));

    // Choices of a kernel: none of them another one, and many.
    let scripts = (0..24u8).map(|seed| {
        let bytes = (0..usize::from(seed) * 16).map(|at| at.to_le_bytes()[0].wrapping_mul(seed | 1) ^ seed);
        bytes.collect()
    });
    write("ring_states", scripts);

    control::write_seeds();
    privileged::write_seeds();
}
