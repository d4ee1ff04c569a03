//! Congestion notification across the tunnel (RFC 6040 4.1, 4.2): which ECN field goes out, which comes in.
//!
//! ```text
//!                       arriving outer header
//!              +---------+--------------+--------------+-------------+
//!        inner | Not-ECT |    ECT(0)    |    ECT(1)    |     CE      |
//!  +-----------+---------+--------------+--------------+-------------+
//!  |  Not-ECT  | Not-ECT | Not-ECT(!!!) | Not-ECT(!!!) |  drop(!!!)  |
//!  |  ECT(0)   | ECT(0)  | ECT(0)       | ECT(1)       |  CE         |
//!  |  ECT(1)   | ECT(1)  | ECT(1)  (!)  | ECT(1)       |  CE         |
//!  |  CE       | CE      | CE           | CE      (!!!)|  CE         |
//!  +-----------+---------+--------------+--------------+-------------+
//! ```
//!
//! The codepoints are not in numerical order: ECT(1) is `01`, ECT(0) is `10`.

/// Not capable of ECN.
pub const NOT_ECT: u8 = 0b00;
/// Capable, `01`.
pub const ECT_1: u8 = 0b01;
/// Capable, `10`.
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

const MASK: u8 = 0b11;
const DROP: u8 = 0xff;

/// What the encapsulator writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnMode {
    /// The inner field, copied (C1).
    #[default]
    Normal,
    /// Always Not-ECT, for peers whose decapsulator does not propagate congestion (C2).
    Compat,
}

/// The outer ECN field for an inner one (0..=3; higher bits are ignored).
#[inline]
pub const fn encap(mode: EcnMode, inner: u8) -> u8 {
    match mode {
        EcnMode::Normal => inner & MASK,
        EcnMode::Compat => NOT_ECT,
    }
}

/// Indexed by `inner << 2 | outer`, both as they are in the header.
const DECAP: [u8; 16] = [
    // outer:  Not-ECT  ECT(1)   ECT(0)   CE
    NOT_ECT, NOT_ECT, NOT_ECT, DROP, // inner Not-ECT
    ECT_1, ECT_1, ECT_1, CE, // inner ECT(1)
    ECT_0, ECT_1, ECT_0, CE, // inner ECT(0)
    CE, CE, CE, CE, // inner CE
];

/// The ECN field to deliver with, or `None` when the packet must be dropped (C3, FAULTS 17). Higher bits are ignored.
#[inline]
pub const fn decap(outer: u8, inner: u8) -> Option<u8> {
    match DECAP[((inner & MASK) << 2 | (outer & MASK)) as usize] {
        DROP => None,
        ecn => Some(ecn),
    }
}

/// How suspicious a pair of fields is (C4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A pair that conforming encapsulators and routers produce.
    None,
    /// `(!)`: unused so far.
    Unused,
    /// `(!!!)`: an encapsulator or a router is broken or lying; RFC 6040 asks for a rate-limited log line that can be suppressed.
    Dangerous,
}

/// What RFC 6040 says about a pair of arriving fields. Higher bits are ignored.
#[inline]
pub const fn anomaly(outer: u8, inner: u8) -> Anomaly {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, ECT_0 | ECT_1 | CE) | (CE, ECT_1) => Anomaly::Dangerous,
        (ECT_1, ECT_0) => Anomaly::Unused,
        _ => Anomaly::None,
    }
}

/// Whether a pair is one of those RFC 6040 calls currently unused and potentially dangerous.
#[inline]
pub const fn is_dangerous(outer: u8, inner: u8) -> bool {
    matches!(anomaly(outer, inner), Anomaly::Dangerous)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C3, C4, FAULTS 17: figure 4 of RFC 6040, all sixteen cells.
    #[test]
    fn decapsulation_of_all_sixteen_combinations() {
        use Anomaly::{Dangerous, None as Usual, Unused};
        let table = [
            // inner, outer, delivered, anomaly
            (NOT_ECT, NOT_ECT, Some(NOT_ECT), Usual),
            (NOT_ECT, ECT_0, Some(NOT_ECT), Dangerous),
            (NOT_ECT, ECT_1, Some(NOT_ECT), Dangerous),
            (NOT_ECT, CE, None, Dangerous),
            (ECT_0, NOT_ECT, Some(ECT_0), Usual),
            (ECT_0, ECT_0, Some(ECT_0), Usual),
            (ECT_0, ECT_1, Some(ECT_1), Usual),
            (ECT_0, CE, Some(CE), Usual),
            (ECT_1, NOT_ECT, Some(ECT_1), Usual),
            (ECT_1, ECT_0, Some(ECT_1), Unused),
            (ECT_1, ECT_1, Some(ECT_1), Usual),
            (ECT_1, CE, Some(CE), Usual),
            (CE, NOT_ECT, Some(CE), Usual),
            (CE, ECT_0, Some(CE), Usual),
            (CE, ECT_1, Some(CE), Dangerous),
            (CE, CE, Some(CE), Usual),
        ];
        for (inner, outer, delivered, kind) in table {
            assert_eq!(
                decap(outer, inner),
                delivered,
                "inner {inner:02b} outer {outer:02b}"
            );
            assert_eq!(anomaly(outer, inner), kind, "inner {inner:02b} outer {outer:02b}");
            assert_eq!(is_dangerous(outer, inner), kind == Dangerous);
        }
    }

    /// C3 in words: the more severe of CE > ECT(1) > ECT(0) > Not-ECT, unless the inner one is Not-ECT.
    #[test]
    fn decapsulation_agrees_with_the_rule_in_words() {
        let severity = |ecn: u8| {
            [NOT_ECT, ECT_0, ECT_1, CE]
                .iter()
                .position(|&e| e == ecn)
                .unwrap()
        };
        for (inner, outer) in (0..4).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
            let expected = match (inner, outer) {
                (NOT_ECT, CE) => None,
                (NOT_ECT, _) => Some(NOT_ECT),
                _ if severity(inner) >= severity(outer) => Some(inner),
                _ => Some(outer),
            };
            assert_eq!(decap(outer, inner), expected);
        }
    }

    /// C1, C2.
    #[test]
    fn encapsulation_copies_or_clears() {
        for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
            assert_eq!(encap(EcnMode::Normal, ecn), ecn);
            assert_eq!(encap(EcnMode::Compat, ecn), NOT_ECT);
            // What a normal ingress sends, an unmarked path leaves alone.
            assert_eq!(decap(encap(EcnMode::Normal, ecn), ecn), Some(ecn));
            assert_eq!(decap(encap(EcnMode::Compat, ecn), ecn), Some(ecn));
        }
    }

    #[test]
    fn a_whole_octet_may_be_passed() {
        assert_eq!(encap(EcnMode::Normal, 0xb9), ECT_1);
        assert_eq!(decap(0xfc | CE, 0xfc | ECT_0), Some(CE));
        assert_eq!(decap(0xfc | CE, 0xfc), None);
    }
}
