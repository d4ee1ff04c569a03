//! Good packets with a few bytes changed at random, the outer header's checksum put right again more often than not.

use super::{Case, Corpus, GATEWAY, HOST, OWN, ROUTED, ROUTER, datagram};
use crate::nd;
use crate::packet::{Inner, Outer, checksum, isatap, link_local};
use crate::scene::PREFIX;

const COUNT: usize = 3000;
/// Bytes of the outer header, and where in the inner one the number of the case is.
const OUTER_LEN: usize = 20;
const NUMBER: std::ops::Range<usize> = OUTER_LEN + 1..OUTER_LEN + 4;

pub(super) fn add(corpus: &mut Corpus) {
    let own = isatap(PREFIX, false, OWN);
    let templates = [
        (HOST, datagram(&Inner::new(isatap(PREFIX, false, HOST), own))),
        (HOST, datagram(&Inner::new(link_local(HOST), link_local(OWN)))),
        (
            HOST,
            Inner::new(link_local(HOST), link_local(OWN)).tcp(9, 9, 1, 0x10, b"a segment"),
        ),
        (
            ROUTER,
            datagram(&Inner::new("2001:db8:5::1".parse().expect("an address"), own)),
        ),
        (
            GATEWAY,
            datagram(&Inner::new(
                format!("{ROUTED}1").parse().expect("an address"),
                own,
            )),
        ),
        (
            HOST,
            nd::packet(
                link_local(HOST),
                link_local(OWN),
                135,
                &nd::neighbour_solicitation(link_local(OWN)),
            ),
        ),
        (
            ROUTER,
            nd::packet(
                link_local(ROUTER),
                link_local(OWN),
                134,
                &nd::router_advertisement(0, &[]),
            ),
        ),
    ];
    for _ in 0..COUNT {
        let (src, payload) = &templates[corpus.random(templates.len())];
        let mut packet = Outer::new(*src, OWN).wrap(&corpus.numbered(payload));
        let mut changed = Vec::new();
        for _ in 0..=corpus.random(3) {
            // Headers more often than what is behind them.
            let within = if corpus.random(4) == 0 {
                packet.len()
            } else {
                OUTER_LEN + 40
            };
            let at = corpus.random(within);
            if !NUMBER.contains(&at) {
                packet[at] = u8::try_from(corpus.random(256)).expect("a byte");
                changed.push(at.to_string());
            }
        }
        if corpus.random(8) != 0 {
            packet[10..12].fill(0);
            let sum = checksum(&[&packet[..OUTER_LEN]]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
        }
        let case = Case {
            id: corpus.next_id(),
            group: "damage",
            note: format!("from {src}, bytes {} changed", changed.join(", ")),
            whole: packet.clone(),
            frames: vec![packet],
        };
        corpus.cases.push(case);
    }
}
