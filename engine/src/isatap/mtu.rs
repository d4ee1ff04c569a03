//! Does an inner packet fit the tunnel, and may IPv4 fragment the result (RFC 4213 3.2)?
//!
//! | mode | path MTU - 20 | inner packet | then |
//! |---|---|---|---|
//! | static (M2, M3) | not looked at | > tunnel MTU | too big, report the tunnel MTU |
//! | | | else | send, DF clear |
//! | dynamic (M4) | < 1280 | > 1280 | too big, report 1280 |
//! | | | else | send, DF clear: IPv4 fragments |
//! | | >= 1280 | > path MTU - 20 | too big, report path MTU - 20 |
//! | | | else | send, DF set |
//!
//! In dynamic mode, too, no packet is larger than the tunnel MTU: that is what the interface promises.

/// Bytes of the outer header.
pub const OVERHEAD: u16 = 20;
/// The smallest tunnel MTU: what every IPv6 link must carry (RFC 8200 5).
pub const TUNNEL_MTU_MIN: u16 = 1280;
/// The tunnel MTU without configuration (RFC 4213 3.2.1, M2).
pub const TUNNEL_MTU_DEFAULT: u16 = 1280;
/// The largest inner packet that an IPv4 datagram holds.
pub const TUNNEL_MTU_MAX: u16 = u16::MAX - OVERHEAD;

/// Whether the path to a peer is explored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathMtuMode {
    /// One tunnel MTU for all, DF always clear (RFC 4213 3.2.1).
    #[default]
    Static,
    /// Per peer, DF set where the path is good for 1280 bytes (RFC 4213 3.2.2).
    Dynamic,
}

/// What is known about the way to a peer, in bytes of IPv4 packet. Never more than a peer can be sent: 65535 says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// What every link of the path takes; never more than `link`.
    path: u16,
    /// What our own link takes. Larger packets are fragmented here: the kernel refuses them.
    link: u16,
}

impl PathMtu {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self::of_path(u16::MAX);

    /// Some link of the path takes no more than `mtu`.
    pub const fn of_path(mtu: u16) -> Self {
        Self {
            path: mtu,
            link: u16::MAX,
        }
    }

    /// Our own link takes no more than `mtu`.
    pub const fn of_link(mtu: u16) -> Self {
        Self { path: mtu, link: mtu }
    }

    /// Both of what two say.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            path: self.path.min(other.path),
            link: self.link.min(other.link),
        }
    }

    /// What every link of the path takes, as far as known.
    #[inline]
    pub const fn path(&self) -> u16 {
        self.path
    }

    /// What our own link takes, as far as known.
    #[inline]
    pub const fn link(&self) -> u16 {
        self.link
    }
}

/// The tunnel MTU with its mode; the MTU is always within [`TUNNEL_MTU_MIN`]..=[`TUNNEL_MTU_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuPolicy {
    mode: PathMtuMode,
    mtu: u16,
}

/// What to do with a packet of some length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuVerdict {
    /// Send it.
    Fits {
        /// The DF bit of the outer header.
        dont_fragment: bool,
    },
    /// Answer with an ICMPv6 Packet Too Big instead.
    TooBig {
        /// The MTU to report: at least 1280 (FAULTS 24, 25).
        report: u32,
    },
}

impl MtuPolicy {
    /// A policy; a tunnel MTU outside the possible range is clamped into it.
    pub const fn new(mode: PathMtuMode, tunnel_mtu: u16) -> Self {
        let mtu = if tunnel_mtu < TUNNEL_MTU_MIN {
            TUNNEL_MTU_MIN
        } else if tunnel_mtu > TUNNEL_MTU_MAX {
            TUNNEL_MTU_MAX
        } else {
            tunnel_mtu
        };
        MtuPolicy { mode, mtu }
    }

    /// The static policy of RFC 4213 3.2.1.
    pub const fn fixed(tunnel_mtu: u16) -> Self {
        Self::new(PathMtuMode::Static, tunnel_mtu)
    }

    /// The same tunnel MTU in another mode.
    #[inline]
    pub const fn with_mode(self, mode: PathMtuMode) -> Self {
        Self { mode, mtu: self.mtu }
    }

    /// What of a path limits packets of this tunnel; the rest is as good as unknown.
    #[must_use]
    pub const fn relevant(&self, path: PathMtu) -> PathMtu {
        let largest = self.mtu + OVERHEAD;
        let link = if path.link < largest { path.link } else { u16::MAX };
        let path = if path.path < largest { path.path } else { u16::MAX };
        PathMtu { path, link }
    }

    /// The tunnel MTU in bytes of inner packet.
    #[inline]
    pub const fn tunnel_mtu(&self) -> u16 {
        self.mtu
    }

    /// The mode.
    #[inline]
    pub const fn mode(&self) -> PathMtuMode {
        self.mode
    }

    /// Decides for an inner packet of `inner_len` bytes (for a superpacket, its largest segment) when nothing is known about the
    /// path to the peer.
    #[inline]
    pub const fn decide(&self, inner_len: usize) -> MtuVerdict {
        self.decide_on_path(inner_len, None)
    }

    /// Decides with the IPv4 path MTU to the peer, where one is known; static mode does not look at it.
    #[inline]
    pub const fn decide_on_path(&self, inner_len: usize, outer_path_mtu: Option<u16>) -> MtuVerdict {
        let (limit, dont_fragment) = match (self.mode, outer_path_mtu) {
            (PathMtuMode::Static, _) => (self.mtu, false),
            (PathMtuMode::Dynamic, None) => (self.mtu, true),
            (PathMtuMode::Dynamic, Some(path_mtu)) => {
                let room = path_mtu.saturating_sub(OVERHEAD);
                if room < TUNNEL_MTU_MIN {
                    (TUNNEL_MTU_MIN, false)
                } else if room < self.mtu {
                    (room, true)
                } else {
                    (self.mtu, true)
                }
            }
        };
        if inner_len > limit as usize {
            MtuVerdict::TooBig { report: limit as u32 }
        } else {
            MtuVerdict::Fits { dont_fragment }
        }
    }
}

impl Default for MtuPolicy {
    fn default() -> Self {
        MtuPolicy::fixed(TUNNEL_MTU_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::MtuVerdict::{Fits, TooBig};
    use super::*;
    use crate::miri::cases;

    const DF: MtuVerdict = Fits { dont_fragment: true };
    const NO_DF: MtuVerdict = Fits { dont_fragment: false };

    /// M1, M2: the default, the bounds, never 64 KiB by fragmentation.
    #[test]
    fn tunnel_mtu_is_bounded_and_1280_by_default() {
        assert_eq!(MtuPolicy::default().tunnel_mtu(), 1280);
        for (asked, given) in [
            (0, 1280),
            (68, 1280),
            (1279, 1280),
            (1480, 1480),
            (65_515, 65_515),
            (65_535, 65_515),
        ] {
            assert_eq!(MtuPolicy::fixed(asked).tunnel_mtu(), given, "asked for {asked}");
        }
        assert_eq!(MtuPolicy::default().decide(65_535), TooBig { report: 1280 });
    }

    /// A link that takes every packet of the tunnel is no reason for anything.
    #[test]
    fn only_what_limits_counts() {
        let policy = MtuPolicy::fixed(1480);
        for (link, path, known) in [
            (1500, 1500, (u16::MAX, u16::MAX)),
            (1499, 1500, (1499, 1499)),
            (u16::MAX, 600, (u16::MAX, 600)),
            (9000, 1300, (u16::MAX, 1300)),
        ] {
            let both = policy.relevant(PathMtu::of_link(link).and(PathMtu::of_path(path)));
            assert_eq!((both.link(), both.path()), known, "{link} {path}");
        }
        assert_eq!(policy.relevant(PathMtu::UNKNOWN), PathMtu::UNKNOWN);
    }

    /// M7, M4: no sender is ever told less than 1280, whatever is claimed of the path (RFC 8021, RFC 8201 4).
    #[test]
    fn m7_no_report_below_1280() {
        for mode in [PathMtuMode::Static, PathMtuMode::Dynamic] {
            for path in (0..=u16::MAX).step_by(cases(1, 255)) {
                let verdict = MtuPolicy::new(mode, 1480).decide_on_path(1481, Some(path));
                assert!(
                    matches!(verdict, TooBig { report: 1280..=1480 }),
                    "{path}: {verdict:?}"
                );
            }
        }
    }

    /// M3, FAULTS 24, 25: DF stays clear at every size and no path MTU, forged or not, changes anything.
    #[test]
    fn static_mode() {
        for path_mtu in [None, Some(0), Some(68), Some(1400), Some(u16::MAX)] {
            for (mtu, len, verdict) in [
                (1280, 41, NO_DF),
                (1280, 1280, NO_DF),
                (1280, 1281, TooBig { report: 1280 }),
                (1480, 1281, NO_DF),
                (1480, 1480, NO_DF),
                (1480, 1481, TooBig { report: 1480 }),
                (65_515, 65_515, NO_DF),
                (65_515, 65_516, TooBig { report: 65_515 }),
            ] {
                assert_eq!(
                    MtuPolicy::fixed(mtu).decide_on_path(len, path_mtu),
                    verdict,
                    "{len} at {mtu}"
                );
            }
        }
    }

    /// M4, FAULTS 25: the algorithm of RFC 4213 3.2.2.
    #[test]
    fn dynamic_mode() {
        let policy = MtuPolicy::new(PathMtuMode::Dynamic, 1480);
        for (path_mtu, len, verdict) in [
            (None, 1480, DF),
            (None, 1481, TooBig { report: 1480 }),
            (Some(1500), 1480, DF),
            (Some(1500), 1481, TooBig { report: 1480 }),
            (Some(9000), 1481, TooBig { report: 1480 }),
            (Some(1400), 1380, DF),
            (Some(1400), 1381, TooBig { report: 1380 }),
            (Some(1300), 1280, DF),
            (Some(1300), 1281, TooBig { report: 1280 }),
            (Some(1299), 1280, NO_DF),
            (Some(1299), 1281, TooBig { report: 1280 }),
            (Some(600), 41, NO_DF),
            (Some(600), 1280, NO_DF),
            (Some(0), 1280, NO_DF),
            (Some(0), 1281, TooBig { report: 1280 }),
        ] {
            assert_eq!(
                policy.decide_on_path(len, path_mtu),
                verdict,
                "{len} over {path_mtu:?}"
            );
        }
    }
}
