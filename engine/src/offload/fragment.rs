//! IPv4 fragments of a datagram that our own link does not take whole (RFC 791 3.2): where to cut.
//!
//! ```text
//!  payload of the datagram   |<------ room ------>|<------ room ------>|<- rest ->|
//!                            0                    a multiple of 8                 len
//! ```
//!
//! Only for datagrams without DF (RFC 6864 4.1, M10); DF is for who wants to hear instead.

use crate::isatap::plateau;
use crate::wire::ipv4::MIN_HEADER_LEN;

/// One fragment's share of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first byte, a multiple of 8.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// The piece that begins at `start`, of a payload of `len` bytes, in IPv4 packets of at most `mtu` bytes: all the rest if that
/// fits, else as much as may come before another fragment. An `mtu` below 68 counts as 68, which every link takes.
#[inline]
pub fn piece(start: usize, len: usize, mtu: u16) -> Piece {
    let room = usize::from(mtu.max(plateau::MIN)) - MIN_HEADER_LEN;
    let rest = len.saturating_sub(start);
    let take = if rest <= room { rest } else { room & !7 };
    Piece {
        start,
        end: start + take,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(len: usize, mtu: u16) -> Vec<(usize, usize)> {
        let mut all = vec![];
        let mut start = 0;
        while start < len {
            let piece = piece(start, len, mtu);
            all.push((piece.start, piece.end));
            start = piece.end;
        }
        all
    }

    #[test]
    fn cut_where_rfc_791_says() {
        assert_eq!(pieces(1280, 1300), [(0, 1280)]);
        assert_eq!(pieces(1280, 1299), [(0, 1272), (1272, 1280)]);
        assert_eq!(pieces(1280, 600), [(0, 576), (576, 1152), (1152, 1280)]);
        assert_eq!(pieces(100, 0), [(0, 48), (48, 96), (96, 100)]);
    }

    proptest! {
        /// Nothing is left out or doubled, each fragment fits, and each but the last is a multiple of 8.
        #[test]
        fn pieces_cover_the_payload(len in 1usize..65_516, mtu in 0u16..) {
            let all = pieces(len, mtu);
            prop_assert_eq!(all.first().map(|first| first.0), Some(0));
            prop_assert_eq!(all.last().map(|last| last.1), Some(len));
            prop_assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0 && pair[1].0 % 8 == 0));
            prop_assert!(all.iter().all(|(start, end)| end - start + 20 <= usize::from(mtu.max(68))));
        }
    }
}
