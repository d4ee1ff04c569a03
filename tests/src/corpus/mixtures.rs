//! Packets with several peculiarities at once, each drawn at random: what one check lets pass, another has to see.

use std::net::Ipv4Addr;

use super::addresses::{DESTINATIONS, IDENTIFIERS, PREFIXES, SENDERS, SOURCES, assemble};
use super::discovery::{FAULTS, message};
use super::{Corpus, OWN, address};
use crate::packet::{Inner, Outer, TCP, UDP, isatap, udp_message};
use crate::scene::PREFIX;

const COUNT: usize = 4000;

pub(super) fn add(corpus: &mut Corpus) {
    for _ in 0..COUNT {
        let (sender, v4) = sender(corpus);
        let inner = inner(corpus, v4);
        let (mut packet, upper) = payload(corpus, &inner);
        let lie = lie_about_length(corpus, &mut packet);
        let outer = outer(corpus, v4);
        let note = format!(
            "{sender}: {} > {}, {upper}, {lie}, {outer:?}",
            inner.src, inner.dst
        );
        if corpus.once_in(8) {
            let payload = corpus.numbered(&packet);
            let size = corpus.draw(&[8, 16, 48, 512]);
            corpus.add_frames(
                "mixtures",
                note,
                outer.wrap(&payload),
                outer.fragments(&payload, size),
            );
        } else {
            corpus.add("mixtures", note, &outer, &packet);
        }
    }
}

/// Mostly one of those that may send at all, who come first in the list.
fn sender(corpus: &mut Corpus) -> (&'static str, Ipv4Addr) {
    let usual = !corpus.once_in(10);
    corpus.draw(if usual { &SENDERS[..4] } else { &SENDERS })
}

fn inner(corpus: &mut Corpus, v4: Ipv4Addr) -> Inner {
    let src = match corpus.random(8) {
        0 => address(corpus.draw(&SOURCES)),
        1 | 2 => {
            let embedded = corpus.draw(&[v4, OWN, Ipv4Addr::new(10, 0, 0, 77)]);
            assemble(corpus.draw(&PREFIXES).1, corpus.draw(&IDENTIFIERS).1, embedded)
        }
        _ => {
            let prefix = corpus.draw(&["fe80::", PREFIX]);
            isatap(prefix, corpus.once_in(2), v4)
        }
    };
    let dst = if corpus.once_in(3) {
        address(corpus.draw(&DESTINATIONS))
    } else {
        isatap(corpus.draw(&["fe80::", PREFIX]), false, OWN)
    };
    let mut inner = Inner::new(src, dst);
    inner.traffic_class = u8::try_from(corpus.random(256)).expect("a byte");
    inner.hop_limit = corpus.draw(&[0, 1, 64, 254, 255, 255]);
    if corpus.once_in(40) {
        inner.version = corpus.draw(&[0, 4, 5, 7, 15]);
    }
    inner
}

/// A packet of that header, or neighbour discovery between the same two, and what it is.
fn payload(corpus: &mut Corpus, inner: &Inner) -> (Vec<u8>, String) {
    if corpus.once_in(4) {
        let (kind, fault) = (corpus.draw(&[133, 134, 135, 136, 137]), corpus.draw(&FAULTS));
        let fault = if corpus.once_in(2) { "nothing" } else { fault };
        return (
            message(kind, inner.src, inner.dst, fault),
            format!("type {kind}, wrong: {fault}"),
        );
    }
    let data = vec![0x5a; corpus.random(200)];
    let upper = corpus.draw(&[UDP, UDP, TCP, 58, 59, 50, 4, 41, 47, 132, 253]);
    let message = match upper {
        TCP => inner.tcp(9, 9, 1, 0x10, &data).split_off(40),
        58 => inner.echo_request(1, 1, &data).split_off(40),
        _ => udp_message(9, 9, &data),
    };
    let (first, headers) = chain(corpus, upper);
    let note = format!("{upper} behind {} bytes of headers", headers.len());
    (inner.wrap(first, &[headers, message].concat()), note)
}

/// Extension headers before `upper`, most often none, and the number that the first header has.
fn chain(corpus: &mut Corpus, upper: u8) -> (u8, Vec<u8>) {
    let count = corpus.draw(&[0, 0, 0, 0, 1, 1, 2, 3, 8, 9]);
    let kinds: Vec<u8> = (0..count)
        .map(|_| corpus.draw(&[0, 43, 44, 51, 60, 60]))
        .collect();
    let mut headers = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(upper);
        headers.extend_from_slice(&match kind {
            44 => [next, 0, 0, corpus.draw(&[0, 1, 8]), 0, 0, 0, 1],
            _ if corpus.once_in(20) => [next, 200, 1, 4, 0, 0, 0, 0],
            _ => [next, 0, 1, 4, 0, 0, 0, 0],
        });
    }
    (kinds.first().copied().unwrap_or(upper), headers)
}

fn lie_about_length(corpus: &mut Corpus, packet: &mut Vec<u8>) -> &'static str {
    match corpus.random(30) {
        0 => {
            packet.truncate(corpus.random(packet.len()));
            "cut"
        }
        1 | 2 => {
            packet.extend_from_slice(&[0xee; 24]);
            "padded"
        }
        3 => {
            packet[4..6].fill(0);
            "payload length 0"
        }
        _ => "as long as it says",
    }
}

fn outer(corpus: &mut Corpus, v4: Ipv4Addr) -> Outer {
    let mut outer = Outer::new(v4, OWN);
    outer.tos = u8::try_from(corpus.random(256)).expect("a byte");
    outer.ttl = corpus.draw(&[1, 64, 255]);
    outer.id = u16::try_from(corpus.next_id() & 0xffff).expect("16 bits");
    outer.dont_fragment = corpus.once_in(2);
    if corpus.once_in(12) {
        outer.options = corpus
            .draw(&[
                &[1, 1, 1, 1][..],
                &[148, 4, 0, 0],
                &[131, 7, 8, 10, 0, 0, 9],
                &[30, 0, 0, 0],
            ])
            .to_vec();
    }
    outer
}
