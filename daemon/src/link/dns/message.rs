//! What the daemon may say to its helper: so many addresses, so many names, and nothing that means more; and the words it hears. Pure.
//!
//! ```text
//!  servers 1 | domains 1 | 16 each ... | length 1, text ... each
//! ```

use std::fmt;
use std::net::Ipv6Addr;

use crate::slaac::{MAX_NAME_SERVERS, MAX_SEARCH_DOMAINS};

/// The longest name as text.
const MAX_NAME_LEN: usize = 253;

/// The longest message.
pub(super) const MAX_MESSAGE_LEN: usize = 2 + 16 * MAX_NAME_SERVERS + (1 + MAX_NAME_LEN) * MAX_SEARCH_DOMAINS;

/// Name servers and search domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub(super) servers: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
}

/// What the helper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handed over.
    Done,
    /// The programs that are there refused.
    Failed,
    /// There is no program for it.
    Nobody,
}

/// What comes back, a byte each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The helper did this.
    Did(Outcome),
    /// The first helper asks for the names.
    Asks,
    /// One that follows another asks for them.
    AsksAgain,
}

impl Word {
    const ALL: [Self; 5] = [
        Self::Did(Outcome::Done),
        Self::Did(Outcome::Failed),
        Self::Did(Outcome::Nobody),
        Self::Asks,
        Self::AsksAgain,
    ];

    pub(super) fn byte(self) -> u8 {
        (0..)
            .zip(Self::ALL)
            .find_map(|(byte, word)| (word == self).then_some(byte))
            .unwrap_or(u8::MAX)
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

impl Outcome {
    /// In status and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "handed over",
            Self::Failed => "refused",
            Self::Nobody => "no program takes them",
        }
    }
}

impl Names {
    /// As many as a message holds; what is no plain name is left out.
    pub fn new(servers: &[Ipv6Addr], search: &[String]) -> Self {
        Self {
            servers: servers.iter().copied().take(MAX_NAME_SERVERS).collect(),
            search: search
                .iter()
                .filter(|name| is_plain(name))
                .take(MAX_SEARCH_DOMAINS)
                .cloned()
                .collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty()
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let count = |count| u8::try_from(count).unwrap_or(0);
        let mut bytes = vec![count(self.servers.len()), count(self.search.len())];
        for server in &self.servers {
            bytes.extend(server.octets());
        }
        for name in &self.search {
            bytes.push(count(name.len()));
            bytes.extend(name.bytes());
        }
        bytes
    }

    /// Reads a message; `None` when there is anything in it that [`Names::encode`] would not
    /// have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[servers, domains], rest) = bytes.split_first_chunk()?;
        let (servers, domains) = (usize::from(servers), usize::from(domains));
        if servers > MAX_NAME_SERVERS || domains > MAX_SEARCH_DOMAINS {
            return None;
        }
        let (addresses, mut rest) = rest.split_at_checked(servers * 16)?;
        let (addresses, _) = addresses.as_chunks::<16>();
        let mut names = Self {
            servers: addresses.iter().map(|octets| Ipv6Addr::from(*octets)).collect(),
            search: Vec::new(),
        };
        for _ in 0..domains {
            let (&len, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(len))?;
            let name = std::str::from_utf8(name).ok().filter(|name| is_plain(name))?;
            names.search.push(name.to_owned());
            rest = after;
        }
        let unicast = |addr: &Ipv6Addr| !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast();
        (rest.is_empty() && names.servers.iter().all(unicast)).then_some(names)
    }
}

/// Whether a name means nothing but itself on a command line and in a file.
fn is_plain(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-')
    };
    name.len() <= MAX_NAME_LEN && name.split('.').all(label)
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "none");
        }
        let servers: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        let search = self.search.join(" ");
        match (servers.is_empty(), search.is_empty()) {
            (false, true) => write!(f, "{}", servers.join(" ")),
            (true, false) => write!(f, "search {search}"),
            _ => write!(f, "{} search {search}", servers.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_hold_plain_names_only() {
        let servers: Vec<_> = (1..20_u128)
            .map(|n| Ipv6Addr::from((0x2001_0db8 << 96) + n))
            .collect();
        let search = ["a.example", "-x", "a b", "a\nb", "", "a..b", "~.", "b_c"].map(str::to_owned);
        let names = Names::new(&servers, &search);
        assert_eq!(names.servers.len(), MAX_NAME_SERVERS);
        assert_eq!(names.search, ["a.example", "b_c"]);
        assert_eq!(Names::decode(&names.encode()), Some(names));
        let longest = Names {
            servers: servers[..MAX_NAME_SERVERS].to_vec(),
            search: vec![["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join("."); 8],
        };
        assert_eq!(longest.encode().len(), MAX_MESSAGE_LEN);
        assert_eq!(Names::decode(&longest.encode()), Some(longest));
    }

    #[test]
    fn what_the_daemon_would_not_say_is_refused() {
        let mut many = vec![9, 0];
        many.extend([0x20; 144]);
        for bytes in [
            &b""[..],
            b"\0",
            b"\x01\x00",
            b"\0\x01",
            b"\0\x01\x02a",
            b"\0\x01\x02-a",
            b"\0\x01\x03a b",
            b"\0\0x",
            b"\0\x09",
            &many,
            &[&[1, 0][..], &[0; 16]].concat(),
            &[&[1, 0][..], &[0xff; 16]].concat(),
        ] {
            assert_eq!(Names::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(Names::decode(b"\0\0"), Some(Names::default()));
    }

    #[test]
    fn each_word_has_a_byte() {
        for word in Word::ALL {
            assert_eq!(Word::from_byte(word.byte()), Some(word));
        }
        assert_eq!(Word::from_byte(5), None);
    }

    proptest! {
        #[test]
        fn what_can_be_read_is_what_would_be_written(bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..80)) {
            if let Some(names) = Names::decode(&bytes) {
                prop_assert_eq!(&names.encode(), &bytes);
                prop_assert_eq!(&Names::new(&names.servers, &names.search), &names);
            }
        }
    }
}
