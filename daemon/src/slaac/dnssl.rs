//! The names of a DNS search list option: RFC 1035 labels without compression, padded with zeros (RFC 8106 5.2).
//!
//! The names end up in files and command lines of others, so only letters, digits, `-` and `_` pass.

/// The longest name on the wire, its last zero included (RFC 1035 2.3.4).
const MAX_NAME_LEN: usize = 255;
/// The longest label; above are compression pointers, which this option does not have.
const MAX_LABEL_LEN: usize = 63;

/// Writes names one after the other, without padding. What is no domain name must have been refused before.
pub(crate) fn encode(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        for label in name.split('.').filter(|label| !label.is_empty()) {
            let label = &label.as_bytes()[..label.len().min(MAX_LABEL_LEN)];
            bytes.push(u8::try_from(label.len()).unwrap_or(0));
            bytes.extend_from_slice(label);
        }
        bytes.push(0);
    }
    bytes
}

/// Reads the names, in lower case, and how many could not be read. A name with an odd character costs only itself; one
/// whose labels leave the option costs all that follow.
pub(crate) fn decode(mut rest: &[u8]) -> (Vec<String>, u32) {
    let (mut names, mut ignored) = (Vec::new(), 0);
    while rest.first().is_some_and(|len| *len != 0) {
        let Some((labels, after)) = split(rest) else {
            return (names, ignored + 1);
        };
        rest = after;
        match text(&labels) {
            Some(name) => names.push(name),
            None => ignored += 1,
        }
    }
    (names, ignored)
}

/// The labels of the first name, and what follows it.
fn split(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let (mut labels, mut rest) = (Vec::new(), bytes);
    loop {
        let (&len, after) = rest.split_first()?;
        let len = usize::from(len);
        if len == 0 {
            return (bytes.len() - after.len() <= MAX_NAME_LEN).then_some((labels, after));
        }
        if len > MAX_LABEL_LEN {
            return None;
        }
        let (label, after) = after.split_at_checked(len)?;
        labels.push(label);
        rest = after;
    }
}

fn text(labels: &[&[u8]]) -> Option<String> {
    let mut name = String::new();
    for label in labels {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.iter().all(plain) || label.starts_with(b"-") || label.ends_with(b"-") {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// V10, FAULTS 49: what a search list may look like, and what costs a name or the rest of the list.
    #[test]
    fn v10_search_lists() {
        let long = {
            let mut name = Vec::new();
            for _ in 0..4 {
                name.push(63);
                name.extend([b'a'; 63]);
            }
            name.push(0);
            name
        };
        let table: &[(&[u8], &[&str], u32)] = &[
            (b"", &[], 0),
            (b"\0\0\0\0\0\0\0\0", &[], 0),
            (b"\x07example\x03org\0\0\0\0", &["example.org"], 0),
            (b"\x01A\0\x01b\x02_c\0\0", &["a", "b._c"], 0),
            // No end, a label longer than the option, a compression pointer.
            (b"\x01a\0\x07example", &["a"], 1),
            (b"\x01a\0\x3fb\0", &["a"], 1),
            (b"\x01a\0\xc0\x00\x01b\0", &["a"], 1),
            // Characters that mean something to a file or a command line.
            (b"\x03a b\0\x01c\0", &["c"], 1),
            (b"\x03a\nb\0\x02-d\0\x01~\0\x01.\0\x02e-\0\x02\xc3\xa4\0", &[], 6),
            (&long, &[], 1),
        ];
        for (bytes, expected, ignored) in table {
            let (names, count) = decode(bytes);
            assert_eq!(names, *expected, "{bytes:?}");
            assert_eq!(count, *ignored, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let names = ["example.org", "a.b.c", "x-1.example"].map(str::to_owned);
        assert_eq!(decode(&encode(&names)), (names.to_vec(), 0));
        let wire = encode(&["example.org".to_owned()]);
        assert_eq!(wire, b"\x07example\x03org\x00");
    }

    proptest! {
        #[test]
        fn any_bytes_give_plain_names(bytes in prop::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..300)) {
            let (names, _) = decode(&bytes);
            for name in names {
                prop_assert!(!name.is_empty() && name.len() < MAX_NAME_LEN);
                prop_assert!(name.split('.').all(|label| (1..=MAX_LABEL_LEN).contains(&label.len())));
                prop_assert!(!name.starts_with('-'));
            }
        }
    }
}
