//! Who carries the packets: the daemon in each lane, the plain loop it is compared with, or nobody.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL, program};
use isatap_tests::netns::Netns;
use isatap_tests::{scene, wait};

use crate::plan::Plan;

/// Whom to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// IPv6 on the bare link, without any tunnel.
    Bare,
    /// isatap-baseline: poll, one packet, poll again.
    Baseline,
    /// isatap-baseline, up to 64 packets after one poll.
    Drain,
    /// isatapd with recvmmsg and sendmmsg.
    Syscall,
    /// isatapd with io_uring.
    Uring,
}

/// What runs at one end; ends when dropped.
#[derive(Debug)]
pub(crate) enum Runner<'a> {
    Nobody,
    Loop(Child),
    Daemon(#[expect(dead_code, reason = "held until it is to stop")] Daemon<'a>),
}

impl Peer {
    /// All, in the order in which they take turns.
    pub(crate) const ALL: [Self; 5] = [
        Self::Bare,
        Self::Baseline,
        Self::Drain,
        Self::Syscall,
        Self::Uring,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Baseline => "baseline",
            Self::Drain => "drain",
            Self::Syscall => "syscall",
            Self::Uring => "uring",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare veth, no tunnel",
            Self::Baseline => "loop, one packet a call",
            Self::Drain => "loop, 64 packets a poll",
            Self::Syscall => "isatapd, syscall lane",
            Self::Uring => "isatapd, uring lane",
        }
    }

    /// Starts at the end whose locator is `v4`; returns when the tunnel interface has its address.
    pub(crate) fn start<'a>(self, plan: &Plan, ns: &'a Netns, v4: Ipv4Addr) -> Runner<'a> {
        let lane = match self {
            Self::Bare => return Runner::Nobody,
            Self::Baseline => return start_loop(plan, ns, v4, 1),
            Self::Drain => return start_loop(plan, ns, v4, 64),
            Self::Syscall => Lane::Syscall,
            Self::Uring => Lane::Uring,
        };
        let daemon = Daemon::router(ns, v4)
            .lane(lane)
            .workers(plan.workers)
            .config(&format!("Mtu {}", plan.mtu))
            .start();
        scene::set_address(ns, v4);
        Runner::Daemon(daemon)
    }

    /// The address that packets for the end at `v4` go to.
    pub(crate) fn address(self, v4: Ipv4Addr) -> Ipv6Addr {
        match self {
            Self::Bare => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(v4.octets()[3])),
            _ => scene::on_link(v4),
        }
    }
}

fn start_loop<'a>(plan: &Plan, ns: &'a Netns, v4: Ipv4Addr, burst: usize) -> Runner<'a> {
    let mut command = Command::new(program("isatap-baseline"));
    command
        .args(["--interface", TUNNEL, "--local", &v4.to_string()])
        .args(["--prefix", scene::PREFIX, "--mtu", &plan.mtu.to_string()])
        .args(["--burst", &burst.to_string()])
        .stderr(Stdio::null());
    let runner = Runner::Loop(ns.spawn(&mut command));
    wait::until("the loop to have its address", Duration::from_secs(5), || {
        let shown = ns.try_run(&format!("ip -6 addr show dev {TUNNEL} scope global"));
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        if text.contains("inet6") { Ok(()) } else { Err(text) }
    });
    runner
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        if let Self::Loop(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
