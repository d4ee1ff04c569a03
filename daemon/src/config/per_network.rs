//! A value that holds everywhere but in some IPv4 networks (`PathMtu`, `Ecn`).

use std::fmt::Display;
use std::net::Ipv4Addr;

use super::engine_types::Ipv4Prefix;

/// One value for all peers, and others for the peers in some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerNetwork<T> {
    /// Where no network of the list holds the peer.
    pub everywhere: T,
    /// Each network once; the longest that holds the peer decides.
    pub networks: Vec<(Ipv4Prefix, T)>,
}

impl<T: Copy> PerNetwork<T> {
    /// The value for `peer`.
    pub fn of(&self, peer: Ipv4Addr) -> T {
        self.longest(|network| network.contains(peer))
    }

    /// The value for the peers in `network` that no longer network holds.
    pub fn within(&self, network: Ipv4Prefix) -> T {
        self.longest(|wider| wider.len() <= network.len() && wider.contains(network.addr()))
    }

    fn longest(&self, holds: impl Fn(&Ipv4Prefix) -> bool) -> T {
        let holds = self.networks.iter().filter(|(network, _)| holds(network));
        holds
            .max_by_key(|(network, _)| network.len())
            .map_or(self.everywhere, |(_, value)| *value)
    }

    /// The words of the lines that say this, one line after the other, as `--check-config` shows them.
    pub fn lines(&self, word: impl Fn(T) -> &'static str) -> Vec<Vec<String>> {
        let networks = self.networks.iter();
        std::iter::once(vec![word(self.everywhere).to_owned()])
            .chain(networks.map(|(network, value)| vec![word(*value).to_owned(), network.to_string()]))
            .collect()
    }
}

/// The values of a repeatable name, one line each.
pub fn one_each<T: Display>(values: &[T]) -> Vec<Vec<String>> {
    values.iter().map(|value| vec![value.to_string()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_network_decides() {
        let network = |text: &str| text.parse::<Ipv4Prefix>().unwrap();
        let value = PerNetwork {
            everywhere: 0,
            networks: vec![
                (network("10.1.2.0/24"), 2),
                (network("10.0.0.0/8"), 1),
                (network("10.1.2.3/32"), 3),
            ],
        };
        for (peer, expected) in [
            ([192, 0, 2, 1], 0),
            ([10, 9, 9, 9], 1),
            ([10, 1, 2, 9], 2),
            ([10, 1, 2, 3], 3),
        ] {
            assert_eq!(value.of(peer.into()), expected);
        }
        assert_eq!(value.within(network("10.1.2.0/25")), 2);
        assert_eq!(value.within(network("10.1.0.0/16")), 1);
        assert_eq!(value.within(network("0.0.0.0/0")), 0);
    }
}
