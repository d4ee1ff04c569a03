//! Who carries the packets: the daemon in each lane, the plain loop it is compared with, the kernel's own ISATAP, any other
//! tunnel, or nobody.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL, program};
use isatap_tests::netns::Netns;
use isatap_tests::programs::Node;
use isatap_tests::topology::UNDERLAY;
use isatap_tests::{scene, wait};

use crate::external::{self, External};
use crate::plan::Settings;

/// Whom to measure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// IPv6 on the bare link, without any tunnel.
    Bare,
    /// The kernel's own ISATAP, where it has one (the `sit` driver).
    Sit,
    /// The programs of isatapd's `ebpf` lane, without a daemon.
    Programs,
    /// isatap-baseline: poll, one packet, poll again.
    Baseline,
    /// isatap-baseline, up to 64 packets after one poll.
    Drain,
    /// isatapd with recvmmsg and sendmmsg.
    Syscall,
    /// isatapd with io_uring.
    Uring,
    /// isatapd with programs in the kernel.
    Ebpf,
    /// Another program.
    External(Arc<External>),
}

/// What runs at one end; ends when dropped.
#[derive(Debug)]
pub(crate) enum Runner<'a> {
    Nobody,
    Programs(#[expect(dead_code, reason = "held until it is to stop")] Box<Node<&'a Netns>>),
    Loop(Child),
    Daemon(Daemon<'a>),
    External(#[expect(dead_code, reason = "held until it is to stop")] external::Running),
}

/// One end of a tunnel to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tunnel<'a> {
    /// This end's locator.
    pub(crate) own: Ipv4Addr,
    /// The other end's.
    pub(crate) other: Ipv4Addr,
    /// With routers it is a host, without it is a router.
    pub(crate) routers: &'a [Ipv4Addr],
    pub(crate) workers: usize,
}

impl Peer {
    /// Those that come with the workspace, in the order in which they take turns.
    pub(crate) const OWN: [Self; 8] = [
        Self::Bare,
        Self::Sit,
        Self::Programs,
        Self::Baseline,
        Self::Drain,
        Self::Syscall,
        Self::Uring,
        Self::Ebpf,
    ];

    /// The key in JSON.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Bare => "bare",
            Self::Sit => "sit",
            Self::Programs => "programs",
            Self::Baseline => "baseline",
            Self::Drain => "drain",
            Self::Syscall => "syscall",
            Self::Uring => "uring",
            Self::Ebpf => "ebpf",
            Self::External(external) => &external.name,
        }
    }

    pub(crate) fn title(&self) -> String {
        match self {
            Self::Bare => "bare veth, no tunnel".into(),
            Self::Sit => "the kernel's ISATAP (sit)".into(),
            Self::Programs => "programs in the kernel alone".into(),
            Self::Baseline => "loop, one packet a call".into(),
            Self::Drain => "loop, 64 packets a poll".into(),
            Self::Syscall => "isatapd, syscall lane".into(),
            Self::Uring => "isatapd, uring lane".into(),
            Self::Ebpf => "isatapd, ebpf lane".into(),
            Self::External(external) => format!("{} (external)", external.name),
        }
    }

    /// Whether it is isatapd.
    pub(crate) const fn is_daemon(&self) -> bool {
        matches!(self, Self::Syscall | Self::Uring | Self::Ebpf)
    }

    const fn lane(&self) -> Option<Lane> {
        match self {
            Self::Syscall => Some(Lane::Syscall),
            Self::Uring => Some(Lane::Uring),
            Self::Ebpf => Some(Lane::Ebpf),
            _ => None,
        }
    }

    /// Starts in `ns`; returns when the tunnel interface has its address.
    pub(crate) fn start<'a>(&self, settings: &Settings, ns: &'a Netns, tunnel: &Tunnel<'_>) -> Runner<'a> {
        match self {
            Self::Bare => Runner::Nobody,
            Self::Sit => {
                let (v4, mtu) = (tunnel.own, settings.mtu);
                ns.ip(&format!("tunnel add {TUNNEL} mode isatap local {v4} ttl 64"));
                ns.ip(&format!("link set {TUNNEL} mtu {mtu} up"));
                scene::set_address(ns, v4);
                Runner::Nobody
            }
            Self::Programs => {
                let node = Node::new(ns, tunnel.own, UNDERLAY, settings.mtu);
                node.publish(node.rules(UNDERLAY, settings.mtu), UNDERLAY);
                node.find_neighbour(tunnel.other, UNDERLAY);
                Runner::Programs(Box::new(node))
            }
            Self::Baseline => start_loop(settings, ns, tunnel.own, 1),
            Self::Drain => start_loop(settings, ns, tunnel.own, 64),
            Self::External(external) => Runner::External(external.start(ns, tunnel, settings.mtu)),
            Self::Syscall | Self::Uring | Self::Ebpf => {
                let runner = self.carrying(self.daemon(settings, ns, tunnel));
                scene::set_address(ns, tunnel.own);
                runner
            }
        }
    }

    /// Starts as a host that learns from a router how to reach others, or as that router.
    pub(crate) fn start_between<'a>(
        &self,
        settings: &Settings,
        ns: &'a Netns,
        tunnel: &Tunnel<'_>,
    ) -> Runner<'a> {
        if !self.is_daemon() {
            return Runner::Nobody;
        }
        let mut builder = self.daemon(settings, ns, tunnel);
        if tunnel.routers.is_empty() {
            builder = builder.config(&format!("Advertise yes\nAdvertisePrefix {}/64", scene::PREFIX));
        }
        self.carrying(builder)
    }

    /// Starts a daemon, and waits until its lane is there.
    fn carrying<'a>(&self, builder: Builder<'a>) -> Runner<'a> {
        let daemon = builder.start();
        if *self == Self::Ebpf {
            daemon.wait_programs();
        }
        Runner::Daemon(daemon)
    }

    /// The daemon in this lane, about to be started; any lane for a peer that is none.
    pub(crate) fn daemon<'a>(&self, settings: &Settings, ns: &'a Netns, tunnel: &Tunnel<'_>) -> Builder<'a> {
        let builder = match tunnel.routers {
            [] => Daemon::router(ns, tunnel.own),
            routers => Daemon::host(ns, tunnel.own, routers),
        };
        builder
            .lane(self.lane().unwrap_or(Lane::Uring))
            .workers(tunnel.workers)
            .config(&format!("Mtu {}", settings.mtu))
    }

    /// The address that packets for the end at `v4` go to.
    pub(crate) fn address(&self, v4: Ipv4Addr) -> Ipv6Addr {
        match self {
            Self::Bare => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(v4.octets()[3])),
            _ => scene::on_link(v4),
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::OWN.into_iter().find(|peer| peer.name() == text);
        found.ok_or_else(|| "expected bare, sit, programs, baseline, drain, syscall, uring or ebpf".into())
    }
}

fn start_loop<'a>(settings: &Settings, ns: &'a Netns, v4: Ipv4Addr, burst: usize) -> Runner<'a> {
    let mut command = Command::new(program("isatap-baseline"));
    command
        .args(["--interface", TUNNEL, "--local", &v4.to_string()])
        .args(["--prefix", scene::PREFIX, "--mtu", &settings.mtu.to_string()])
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
