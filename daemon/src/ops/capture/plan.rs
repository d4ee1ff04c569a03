//! What a client asks for, checked: within bounds, and in the engine's terms.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use isatap_engine::capture::{CaptureConfig, Filter, MAX_HOSTS, ReasonSet};
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;
use serde::{Deserialize, Serialize};

/// Packets a second and worker unless asked otherwise.
pub const DEFAULT_RATE: u32 = 10_000;
/// Packets a second and worker at most.
pub const MAX_RATE: u32 = 1_000_000;
/// Bytes of a packet unless asked otherwise: all of the largest superpacket.
pub const DEFAULT_SNAPLEN: u32 = MAX_SNAPLEN;
/// Bytes of a packet at least: the longest outer header.
pub const MIN_SNAPLEN: u32 = 60;
/// Bytes of a packet at most: an IPv6 header and the longest payload without jumbo option.
pub const MAX_SNAPLEN: u32 = 40 + 65_535;
/// Longest capture.
const MAX_SECONDS: f64 = 7.0 * 86_400.0;

/// The request as it travels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// Dropped packets alone.
    #[serde(default)]
    pub drops: bool,
    /// `encap` or `decap` alone.
    #[serde(default)]
    pub direction: Option<String>,
    /// Packets dropped for one of these reasons alone.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Packets from or to one of these alone.
    #[serde(default)]
    pub hosts: Vec<IpAddr>,
    /// Ends after so many packets.
    #[serde(default)]
    pub count: Option<u64>,
    /// Ends after so many seconds.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Bytes of each packet, at most.
    #[serde(default)]
    pub snaplen: Option<u32>,
    /// Packets a second and worker, at most.
    #[serde(default)]
    pub rate: Option<u32>,
}

/// The request, checked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For the engine.
    pub config: CaptureConfig,
    /// Ends after so many packets.
    pub count: Option<u64>,
    /// Ends after so long.
    pub limit: Option<Duration>,
}

impl CaptureRequest {
    /// Checks the request.
    ///
    /// # Errors
    /// A sentence that names what cannot be.
    pub fn plan(&self) -> Result<Plan, String> {
        let direction = self.direction.as_deref().map(direction).transpose()?;
        let reasons = self.reasons.iter().map(|name| reason(name));
        let filter = Filter {
            direction,
            drops_only: self.drops,
            reasons: reasons.collect::<Result<ReasonSet, _>>()?,
            hosts: hosts(&self.hosts)?,
        };
        let snaplen = self.snaplen.unwrap_or(DEFAULT_SNAPLEN);
        if !(MIN_SNAPLEN..=MAX_SNAPLEN).contains(&snaplen) {
            return Err(format!(
                "snaplen {snaplen} is not in {MIN_SNAPLEN}..{MAX_SNAPLEN}"
            ));
        }
        let rate = self.rate.unwrap_or(DEFAULT_RATE);
        if !(1..=MAX_RATE).contains(&rate) {
            return Err(format!("rate {rate} is not in 1..{MAX_RATE} packets a second"));
        }
        let limit = match self.seconds {
            Some(seconds) if !(0.0..=MAX_SECONDS).contains(&seconds) => {
                return Err(format!("{seconds} seconds are not in 0..{MAX_SECONDS}"));
            }
            seconds => seconds.map(Duration::from_secs_f64),
        };
        if self.count == Some(0) {
            return Err("a capture of 0 packets is none".to_owned());
        }
        Ok(Plan {
            config: CaptureConfig {
                filter,
                snaplen: usize::try_from(snaplen).unwrap_or(usize::MAX),
                rate,
            },
            count: self.count,
            limit,
        })
    }
}

fn direction(name: &str) -> Result<Direction, String> {
    let known = Direction::ALL.into_iter().find(|known| known.name() == name);
    known.ok_or_else(|| format!("no direction {name:?}: encap, or decap"))
}

fn reason(name: &str) -> Result<DropReason, String> {
    let known = DropReason::ALL.iter().find(|known| known.name() == name);
    known
        .copied()
        .ok_or_else(|| format!("no reason {name:?} to drop: isatapctl capture --help has the list"))
}

fn hosts(list: &[IpAddr]) -> Result<[Option<IpAddr>; MAX_HOSTS], String> {
    if list.len() > MAX_HOSTS {
        return Err(format!("{} hosts are more than {MAX_HOSTS}", list.len()));
    }
    let mut hosts = [None; MAX_HOSTS];
    for (slot, host) in hosts.iter_mut().zip(list) {
        *slot = Some(*host);
    }
    Ok(hosts)
}

/// The filter in words, for the log and the file.
impl fmt::Display for CaptureRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.drops || !self.reasons.is_empty() {
            "dropped packets"
        } else {
            "all packets"
        })?;
        if let Some(direction) = &self.direction {
            write!(f, ", {direction}")?;
        }
        if !self.reasons.is_empty() {
            write!(f, ", for {}", self.reasons.join(" or "))?;
        }
        if !self.hosts.is_empty() {
            let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
            write!(f, ", from or to {}", hosts.join(" or "))?;
        }
        let rate = self.rate.unwrap_or(DEFAULT_RATE);
        write!(f, ", at most {rate} a second and worker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_filters() {
        let request = CaptureRequest {
            drops: true,
            direction: Some("decap".to_owned()),
            reasons: vec!["ecn".to_owned(), "no_route".to_owned()],
            hosts: vec!["10.0.0.9".parse().unwrap()],
            count: Some(7),
            seconds: Some(1.5),
            snaplen: Some(96),
            rate: None,
        };
        let plan = request.plan().unwrap();
        let filter = plan.config.filter;
        assert_eq!(filter.direction, Some(Direction::Decap));
        assert!(filter.drops_only && filter.reasons.contains(DropReason::NoRoute));
        assert!(!filter.reasons.contains(DropReason::Loop));
        assert_eq!(filter.hosts[..2], [Some("10.0.0.9".parse().unwrap()), None]);
        assert_eq!((plan.config.snaplen, plan.config.rate), (96, DEFAULT_RATE));
        assert_eq!(
            (plan.count, plan.limit),
            (Some(7), Some(Duration::from_millis(1500)))
        );
        assert_eq!(
            request.to_string(),
            "dropped packets, decap, for ecn or no_route, from or to 10.0.0.9, at most 10000 a second and worker"
        );
        assert!(CaptureRequest::default().plan().is_ok());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |change: fn(&mut CaptureRequest), part: &str| {
            let mut request = CaptureRequest::default();
            change(&mut request);
            let message = request.plan().unwrap_err();
            assert!(message.contains(part), "{message}");
        };
        refused(|r| r.direction = Some("up".to_owned()), "\"up\"");
        refused(|r| r.reasons = vec!["tea".to_owned()], "\"tea\"");
        refused(|r| r.hosts = vec!["::1".parse().unwrap(); 9], "9 hosts");
        refused(|r| r.count = Some(0), "0 packets");
        refused(|r| r.seconds = Some(f64::NAN), "NaN");
        refused(|r| r.seconds = Some(-1.0), "-1");
        refused(|r| r.snaplen = Some(59), "59");
        refused(|r| r.snaplen = Some(u32::MAX), "snaplen");
        refused(|r| r.rate = Some(0), "rate 0");
        refused(|r| r.rate = Some(MAX_RATE + 1), "rate");
    }
}
