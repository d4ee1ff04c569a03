//! What the daemon counts: the text of `/metrics`, read back.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::netns::Netns;

/// How long an HTTP exchange with a live daemon may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the Prometheus or OpenMetrics text format.
    ///
    /// # Errors
    /// The line that is in neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| Sample::parse(line).ok_or_else(|| format!("not a sample: {line}")));
        Ok(Self {
            samples: samples.collect::<Result<_, _>>()?,
        })
    }

    /// The sum over all samples of `name` that carry all of `labels`; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let total: f64 = self.matching(name, labels).map(|sample| sample.value).sum();
        // Counters are whole numbers far below 2^53.
        format!("{total:.0}").parse().unwrap_or(0)
    }

    /// Whether there is any sample of `name` that carries all of `labels`.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Values of `name` by the value of one label, zeros left out.
    pub fn by_label(&self, name: &str, labels: &[(&str, &str)], key: &str) -> BTreeMap<String, u64> {
        let mut grouped = BTreeMap::new();
        for sample in self.matching(name, labels) {
            if let Some(label) = sample.labels.get(key)
                && !grouped.contains_key(label)
            {
                let mut exact = labels.to_vec();
                exact.push((key, label));
                grouped.insert(label.clone(), self.sum(name, &exact));
            }
        }
        grouped.retain(|_, value| *value > 0);
        grouped
    }

    /// The counters of one direction.
    pub fn direction(&self, direction: Direction) -> Counters {
        let labels = [("direction", direction.label())];
        Counters {
            received: self.sum("isatapd_received_packets_total", &labels),
            delivered: self.sum("isatapd_packets_total", &labels),
            punted: self.sum("isatapd_punted_packets_total", &labels),
            superpackets: self.sum("isatapd_superpackets_total", &labels),
            drops: self.by_label("isatapd_drops_total", &labels, "reason"),
        }
    }

    /// Packets of either direction that workers have taken.
    pub fn taken_by_workers(&self) -> u64 {
        let taken = |labels: &[_]| self.sum("isatapd_received_packets_total", labels);
        taken(&[]) - taken(&[("worker", "kernel")])
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (head, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (inside, rest) = rest.rsplit_once('}')?;
                (name, inside, rest)
            }
            None => {
                let (name, rest) = line.split_once(' ')?;
                (name, "", rest)
            }
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        let mut map = BTreeMap::new();
        let mut left = labels;
        while !left.is_empty() {
            let (key, after) = left.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            map.insert(key.to_owned(), value.to_owned());
            left = after.strip_prefix(',').unwrap_or(after);
        }
        Some(Self {
            name: head.to_owned(),
            labels: map,
            value,
        })
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the TUN interface to the IPv4 network.
    Encap,
    /// From the IPv4 network to the TUN interface.
    Decap,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Encap, Self::Decap];

    /// The label on metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
        }
    }
}

/// The counters of one direction at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Read from the kernel.
    pub received: u64,
    /// Written to the kernel.
    pub delivered: u64,
    /// Given to control.
    pub punted: u64,
    /// How many of the received were larger than one packet.
    pub superpackets: u64,
    /// Drops by reason, zeros left out.
    pub drops: BTreeMap<String, u64>,
}

impl Counters {
    /// All drops.
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }

    /// Whether everything received has been accounted for (DESIGN D12).
    pub fn balanced(&self) -> bool {
        self.received == self.delivered + self.punted + self.dropped()
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut drops = self.drops.clone();
        for (reason, count) in &before.drops {
            if let Some(now) = drops.get_mut(reason) {
                *now -= count;
            }
        }
        drops.retain(|_, count| *count > 0);
        Self {
            received: self.received - before.received,
            delivered: self.delivered - before.delivered,
            punted: self.punted - before.punted,
            superpackets: self.superpackets - before.superpackets,
            drops,
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {} = delivered {} + punted {} + dropped {} {:?}",
            self.received,
            self.delivered,
            self.punted,
            self.dropped(),
            self.drops
        )
    }
}

/// Asks the HTTP server at `address` inside `ns` for `path`: status and body.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub fn http_get(ns: &Netns, address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    ns.enter(|| exchange(address, path).map_err(|e| format!("GET {path} from {address}: {e}")))
}

fn exchange(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parsed.ok_or_else(|| std::io::Error::other(format!("not HTTP: {answer:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP isatapd_packets x
# TYPE isatapd_packets counter
isatapd_packets_total{direction="encap",worker="0"} 5
isatapd_packets_total{direction="encap",worker="1"} 7
isatapd_packets_total{direction="decap",worker="0"} 2
isatapd_received_packets_total{direction="encap",worker="0"} 13
isatapd_drops_total{direction="encap",reason="no_route"} 1
isatapd_drops_total{direction="encap",reason="ecn"} 0
isatapd_up 1
# EOF
"#;

    #[test]
    fn samples_are_summed_by_label() {
        let metrics = Metrics::parse(TEXT).expect("text format");
        let encap = metrics.direction(Direction::Encap);
        assert_eq!((encap.received, encap.delivered, encap.dropped()), (13, 12, 1));
        assert_eq!(encap.drops, BTreeMap::from([("no_route".to_owned(), 1)]));
        assert!(encap.balanced());
        assert!(!metrics.direction(Direction::Decap).balanced());
        assert_eq!(metrics.sum("isatapd_up", &[]), 1);
        assert!(!metrics.has("isatapd_down", &[]));
        assert!(Metrics::parse("what is this").is_err());
    }
}
