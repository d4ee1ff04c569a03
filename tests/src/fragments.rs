//! IPv4 fragments put together again, and what they say about who cut them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::raw::Captured;

/// A datagram of protocol 41 as it was before it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its identification.
    pub id: u16,
    /// The DF bit.
    pub dont_fragment: bool,
    /// Bytes of each piece with its IPv4 header, in the order of their offsets; one for a datagram that was not cut.
    pub pieces: Vec<usize>,
    /// The inner packet.
    pub payload: Vec<u8>,
}

/// Pieces by their offsets, each with its MF bit.
type Pieces = BTreeMap<usize, (bool, Vec<u8>)>;

/// The datagrams that went out of an interface, complete ones only, in the order in which they became complete.
pub fn datagrams(captured: &[Captured]) -> Vec<Datagram> {
    let mut done = Vec::new();
    let mut open: BTreeMap<(Ipv4Addr, u16), Pieces> = BTreeMap::new();
    for packet in captured.iter().filter(|packet| packet.outgoing) {
        let Some(outer) = packet.outer() else { continue };
        let header = &outer.header;
        let (id, offset) = (header.identification(), header.fragments_offset().byte_offset());
        if offset == 0 && !header.more_fragments() {
            done.push(Datagram {
                id,
                dont_fragment: header.dont_fragment(),
                pieces: vec![packet.packet.len()],
                payload: outer.payload.to_vec(),
            });
            continue;
        }
        let pieces = open.entry((outer.dst(), id)).or_default();
        pieces.insert(
            usize::from(offset),
            (header.more_fragments(), outer.payload.to_vec()),
        );
        let mut payload = Vec::new();
        let mut complete = false;
        for (offset, (more, piece)) in &*pieces {
            if *offset != payload.len() {
                break;
            }
            payload.extend_from_slice(piece);
            complete |= !more;
        }
        if complete {
            let pieces = pieces.values().map(|(_, piece)| piece.len() + 20).collect();
            open.remove(&(outer.dst(), id));
            done.push(Datagram {
                id,
                dont_fragment: header.dont_fragment(),
                pieces,
                payload,
            });
        }
    }
    done
}
