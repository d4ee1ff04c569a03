//! Headers right and wrong: lengths, versions, IPv4 options, fragments, ECN, hop limits, extension headers, and tunnels in
//! the tunnel (RFC 791, RFC 4213 3.5 and 3.6, RFC 6040, RFC 8200 4).

use super::{Corpus, HOST, OWN, ROUTER, datagram, plain};
use crate::packet::{Inner, Outer, TCP, UDP, isatap, udp_message};
use crate::scene::PREFIX;

pub(super) fn add(corpus: &mut Corpus) {
    lengths(corpus);
    versions(corpus);
    options(corpus);
    fragments(corpus);
    ecn(corpus);
    hop_limits(corpus);
    next_headers(corpus);
    chains(corpus);
    transports(corpus);
}

fn lengths(corpus: &mut Corpus) {
    let whole = datagram(&plain());
    for len in 0..whole.len() {
        corpus.add_inner("lengths", format!("cut to {len} bytes"), &whole[..len]);
    }
    for padding in [1, 2, 3, 7, 8, 40, 100, 1000] {
        let padded = [whole.as_slice(), &vec![0xee; padding]].concat();
        corpus.add_inner("lengths", format!("{padding} bytes of padding"), &padded);
    }
    for claimed in [0, 1, 7, 31, 33, 40, 100, 1280, 1480, 0x7fff, 0xffff] {
        let mut inner = plain();
        inner.payload_len = Some(claimed);
        corpus.add_inner(
            "lengths",
            format!("payload length says {claimed}"),
            &datagram(&inner),
        );
    }
    for size in [0, 1, 512, 1200, 1232, 1233, 1400, 1432] {
        let data = vec![0x55; size];
        corpus.add_inner(
            "lengths",
            format!("{size} bytes of data"),
            &plain().udp(9, 9, &data),
        );
    }
    let full = u16::try_from(20 + whole.len()).expect("a length");
    for claimed in [0, 19, 20, 40, 59, 60, full - 1, full + 1, 1500, 0xffff] {
        let mut outer = Outer::new(HOST, OWN);
        outer.total_len = Some(claimed);
        corpus.add("lengths", format!("total length says {claimed}"), &outer, &whole);
    }
    for words in 0..=15 {
        let mut outer = Outer::new(HOST, OWN);
        outer.header_words = Some(words);
        corpus.add(
            "lengths",
            format!("header length says {words} words"),
            &outer,
            &whole,
        );
    }
}

fn versions(corpus: &mut Corpus) {
    for version in 0..=15 {
        let mut inner = plain();
        inner.version = version;
        corpus.add_inner("versions", format!("inner version {version}"), &datagram(&inner));
        let mut outer = Outer::new(HOST, OWN);
        outer.version = version;
        corpus.add(
            "versions",
            format!("outer version {version}"),
            &outer,
            &datagram(&plain()),
        );
    }
}

fn options(corpus: &mut Corpus) {
    let with = |corpus: &mut Corpus, note: &str, options: &[u8]| {
        let mut outer = Outer::new(HOST, OWN);
        outer.options = options.to_vec();
        corpus.add("IPv4 options", note, &outer, &datagram(&plain()));
    };
    for count in (4..=40).step_by(4) {
        with(corpus, &format!("{count} bytes of NOP"), &vec![1; count]);
        with(corpus, &format!("{count} bytes of end of list"), &vec![0; count]);
    }
    let [a, b, c, d] = OWN.octets();
    for (note, options) in [
        ("record route, full", &[7, 7, 8, 10, 0, 0, 3][..]),
        ("record route, empty", &[7, 7, 4, 0, 0, 0, 0]),
        ("timestamp", &[68, 8, 5, 0, 0, 0, 0, 0]),
        ("timestamp, overflown", &[68, 8, 9, 0xf0, 0, 0, 0, 0]),
        ("router alert", &[148, 4, 0, 0]),
        ("security", &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("stream id", &[136, 4, 0, 1]),
        ("an unknown option", &[30, 4, 1, 2]),
        ("loose source route, at its end", &[131, 7, 8, 10, 0, 0, 9]),
        ("strict source route, at its end", &[137, 7, 8, 10, 0, 0, 9]),
        ("loose source route through us", &[131, 7, 4, a, b, c, d]),
        ("strict source route onwards", &[137, 7, 4, 10, 0, 0, 77]),
        ("two source routes", &[131, 3, 4, 137, 3, 4]),
        ("option of length 0", &[30, 0, 1, 1]),
        ("option of length 1", &[30, 1, 1, 1]),
        ("option longer than the header", &[30, 44, 1, 1]),
        ("option without a length", &[1, 1, 1, 30]),
        (
            "record route with a pointer inside itself",
            &[7, 7, 2, 0, 0, 0, 0],
        ),
        ("source route too short", &[131, 2, 1, 1]),
        ("NOP, then the end, then anything", &[1, 0, 30, 99]),
    ] {
        with(corpus, note, options);
    }
}

fn fragments(corpus: &mut Corpus) {
    for (data_len, size) in [
        (100, 8),
        (100, 40),
        (1000, 512),
        (1400, 600),
        (1400, 728),
        (4000, 1480),
        (9000, 1480),
    ] {
        let data: Vec<u8> = (0..=250).cycle().take(data_len).collect();
        for order in [
            "in order",
            "reversed",
            "last first",
            "one twice",
            "one missing",
            "two overlap",
        ] {
            let payload = corpus.numbered(&plain().udp(9, 9, &data));
            let mut outer = Outer::new(HOST, OWN);
            outer.id = u16::try_from(corpus.next_id() & 0xffff).expect("16 bits");
            let mut frames = outer.fragments(&payload, size);
            match order {
                "reversed" => frames.reverse(),
                "last first" => frames.rotate_right(1),
                "one twice" => frames.insert(1, frames[0].clone()),
                "one missing" => drop(frames.remove(frames.len() / 2)),
                "two overlap" => {
                    let mut piece = outer.clone();
                    piece.fragment_offset = 8;
                    piece.more_fragments = true;
                    frames.insert(1, piece.wrap(&vec![0xbb; size]));
                }
                _ => {}
            }
            let note = format!("{data_len} bytes in pieces of {size}, {order}");
            corpus.add_frames("fragments", note, outer.wrap(&payload), frames);
        }
    }
    for (note, more, offset, df) in [
        ("more fragments and nothing more", true, 0, false),
        ("DF and more fragments", true, 0, true),
        ("a last piece alone", false, 8, false),
        ("a last piece at the end of the range", false, 65528, false),
        ("DF alone", false, 0, true),
    ] {
        let mut outer = Outer::new(HOST, OWN);
        (outer.more_fragments, outer.fragment_offset, outer.dont_fragment) = (more, offset, df);
        outer.id = u16::try_from(corpus.next_id() & 0xffff).expect("16 bits");
        corpus.add("fragments", note, &outer, &datagram(&plain()));
    }
}

fn ecn(corpus: &mut Corpus) {
    for dscp in [0, 10, 46] {
        for (outer_ecn, inner_ecn) in (0..4).flat_map(|outer| (0..4).map(move |inner| (outer, inner))) {
            let mut inner = plain();
            inner.traffic_class = dscp << 2 | inner_ecn;
            let mut outer = Outer::new(HOST, OWN);
            outer.tos = 8 << 2 | outer_ecn;
            let note = format!("outer {outer_ecn:02b}, inner {inner_ecn:02b}");
            corpus.add("ECN", note, &outer, &datagram(&inner));
        }
    }
}

fn hop_limits(corpus: &mut Corpus) {
    for limit in [0, 1, 2, 64, 255] {
        let mut inner = plain();
        inner.hop_limit = limit;
        corpus.add_inner("hop limits", format!("inner {limit}"), &datagram(&inner));
        let mut outer = Outer::new(HOST, OWN);
        outer.ttl = limit;
        corpus.add(
            "hop limits",
            format!("outer {limit}"),
            &outer,
            &datagram(&plain()),
        );
    }
}

fn next_headers(corpus: &mut Corpus) {
    for next in 0..=255 {
        // Eight bytes that are a whole extension header for those that are one.
        let body = [
            &[UDP, 0, 1, 4, 0, 0, 0, 0][..],
            &udp_message(9, 9, b"next header"),
        ]
        .concat();
        corpus.add_inner(
            "next headers",
            format!("next header {next}"),
            &plain().wrap(next, &body),
        );
    }
    for nested in [4, 41, 47] {
        let inner = Inner::new(isatap(PREFIX, false, ROUTER), isatap(PREFIX, false, OWN));
        let packet = inner.wrap(nested, &datagram(&plain()));
        let note = format!("router: a tunnel of protocol {nested} inside");
        corpus.add("next headers", note, &Outer::new(ROUTER, OWN), &packet);
    }
}

fn chains(corpus: &mut Corpus) {
    let options = |next: u8, len: u8| [next, len, 1, 4, 0, 0, 0, 0];
    for kind in [0, 43, 60] {
        for count in 1..=12 {
            let mut body = Vec::new();
            for index in 1..=count {
                body.extend_from_slice(&options(if index == count { UDP } else { 60 }, 0));
            }
            body.extend_from_slice(&udp_message(9, 9, b"behind a chain"));
            corpus.add_inner(
                "extension headers",
                format!("{kind} and {} of 60", count - 1),
                &plain().wrap(kind, &body),
            );
        }
        for len in [1, 2, 3, 255] {
            let body = [&options(UDP, len)[..], &udp_message(9, 9, b"behind a liar")].concat();
            corpus.add_inner(
                "extension headers",
                format!("{kind} of length {len}"),
                &plain().wrap(kind, &body),
            );
        }
        for len in 1..8 {
            let body = options(UDP, 0);
            corpus.add_inner(
                "extension headers",
                format!("{kind}, {len} bytes of it"),
                &plain().wrap(kind, &body[..len]),
            );
        }
    }
    for (note, offset, more) in [
        ("atomic", 0, false),
        ("first", 0, true),
        ("later", 64, true),
        ("last", 64, false),
    ] {
        for next in [UDP, TCP, 58, 60, 44, 59] {
            let field: u16 = offset | u16::from(more);
            let [high, low] = field.to_be_bytes();
            let id = corpus.next_id().to_be_bytes();
            let head = [next, 0, high, low, id[0], id[1], id[2], id[3]];
            let body = [&head[..], &udp_message(9, 9, b"a fragment of a packet")].concat();
            corpus.add_inner(
                "extension headers",
                format!("{note} fragment of {next}"),
                &plain().wrap(44, &body),
            );
        }
    }
    for words in [0, 1, 2, 4, 255] {
        let body = [&[UDP, words][..], &[0; 22], &udp_message(9, 9, b"authenticated")].concat();
        corpus.add_inner(
            "extension headers",
            format!("authentication header of {words}"),
            &plain().wrap(51, &body),
        );
    }
}

fn transports(corpus: &mut Corpus) {
    for sender in [HOST, ROUTER] {
        let outer = Outer::new(sender, OWN);
        let inner = Inner::new(isatap(PREFIX, false, sender), isatap(PREFIX, false, OWN));
        let tcp = inner.tcp(9, 9, 1, 0x02, b"");
        let echo = inner.echo_request(1, 1, b"echo");
        let udp = inner.udp(9, 9, b"odd");
        for (note, packet, checksum) in [("TCP", tcp, 56), ("UDP", udp, 46), ("echo", echo, 42)] {
            corpus.add("transports", note, &outer, &packet);
            for sum in [0, 0xffff, 0x1234] {
                let mut packet = packet.clone();
                packet[checksum..checksum + 2].copy_from_slice(&u16::to_be_bytes(sum));
                corpus.add(
                    "transports",
                    format!("{note}, checksum {sum:#06x}"),
                    &outer,
                    &packet,
                );
            }
        }
        for kind in 0..=255 {
            if !(133..=137).contains(&kind) {
                corpus.add(
                    "transports",
                    format!("ICMPv6 type {kind}"),
                    &outer,
                    &inner.icmpv6(kind, 0, &[0; 24]),
                );
            }
        }
    }
}
