//! Who else has a say about outer packets: netfilter, IPsec, other listeners to protocol 41. Programs in the kernel that carry
//! packets (`ebpf`) pass all of them by, so that whoever chooses the lane has to know.
//!
//! ```text
//!   nf_tables: chains ----------+
//!   iptables: names of tables --+--> firewall
//!   xfrm: policies, default --------> ipsec
//!   /proc/net/raw --------------+
//!   devices, when one changed --+--> listeners
//! ```
//!
//! What cannot be read counts as present, and is told once; what the kernel does not have is absent. Of rules and policies there is
//! word when they change ([`Lookout::words`]); the others are found at the next look. [`questions`] reads, without I/O; the rest is
//! here.

mod questions;

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use isatap_engine::ebpf::Segmenters;
use nix::libc;
use nix::sys::stat::fstat;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use tracing::{info, warn};

use crate::link::plain::{self, Word};
use crate::link::raw_table::inodes_of_protocol_41;

/// Names of the IPv4 tables that iptables has made of old (not those that `iptables-nft` translates), one a line.
const IPTABLES: &str = "/proc/thread-self/net/ip_tables_names";
/// The raw sockets of this network namespace.
const RAW_SOCKETS: &str = "/proc/thread-self/net/raw";
/// The modules in the kernel.
const MODULES: &str = "/proc/modules";
/// Most that is read of a file, in bytes: some thousand raw sockets.
const MAX_FILE_LEN: u64 = 1 << 20;
/// What a kernel says that does not have a netlink family ...
const NO_FAMILY: i32 = libc::EPROTONOSUPPORT;
/// ... or has that of netfilter, but not this part (nfnetlink_rcv_msg of net/netfilter/nfnetlink.c).
const NO_SUBSYSTEM: i32 = libc::EINVAL;

/// Who else has a say about outer packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Netfilter has rules that would see outer packets: nf_tables (ip, inet, netdev) or iptables.
    pub firewall: bool,
    /// There are IPsec policies, or packets without one are refused.
    pub ipsec: bool,
    /// Others than this daemon listen to protocol 41: raw sockets, or sit tunnels that are up.
    pub listeners: bool,
    /// Others shape or filter what goes out by the ISATAP interface ([`super::shaping`] looks for that).
    pub shaping: bool,
    /// Devices that would cut what comes out of the tunnel wrongly ([`super::segmenters`] looks for them).
    pub segmenters: Segmenters,
}

impl Others {
    /// Whether outer packets are to be seen by somebody who does not see those that programs carry.
    pub fn would_miss(&self) -> bool {
        self.firewall || self.ipsec
    }
}

/// Looks for [`Others`] in the network namespace of the thread that uses it.
#[derive(Debug)]
pub struct Lookout {
    /// Inodes of this daemon's raw sockets.
    own: BTreeSet<u64>,
    chains: Source,
    tables: Source,
    policies: Source,
    sockets: Source,
    tunnels: Source,
    devices: Devices,
}

impl Lookout {
    /// A lookout that knows this daemon's raw sockets of protocol 41, `own`.
    ///
    /// # Errors
    /// When the kernel gives no socket, or says nothing about one of `own`.
    pub fn open<'a>(own: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Self> {
        let own: Result<_, _> = own.map(|fd| fstat(fd).map(|about| about.st_ino)).collect();
        Ok(Self {
            own: own?,
            chains: Source::new("the rules of nf_tables")
                .of_module("nf_tables")
                .with_word(NETLINK_NETFILTER, questions::NFTABLES_GROUP),
            tables: Source::new("the tables of iptables"),
            policies: Source::new("the policies of IPsec")
                .of_module("xfrm_user")
                .with_word(NETLINK_XFRM, questions::POLICY_GROUP),
            sockets: Source::new("the raw sockets"),
            tunnels: Source::new("the sit tunnels"),
            devices: Devices::open()?,
        })
    }

    /// Looks. Takes a lock of the kernel that may be held for long (RTNL) only when a device has changed since.
    pub fn look(&self) -> Others {
        Others {
            firewall: self.chains.ask(chains) || self.tables.ask(tables),
            ipsec: self.policies.ask(policies),
            listeners: self.sockets.ask(|| self.foreign_sockets())
                || self.tunnels.ask(|| self.devices.tunnels().map(Some)),
            shaping: false,
            segmenters: Segmenters::default(),
        }
    }

    /// Readable when it is time for another look; which ones there are is found out by looking.
    pub fn words(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [&self.chains, &self.policies].map(|source| source.word.get().map(Word::as_fd))
    }

    fn foreign_sockets(&self) -> io::Result<Option<bool>> {
        let table = read(RAW_SOCKETS)?;
        let is_own = |inode: Option<u64>| inode.is_some_and(|inode| self.own.contains(&inode));
        Ok(Some(inodes_of_protocol_41(&table).any(|inode| !is_own(inode))))
    }
}

/// `None` where the kernel has no nf_tables.
fn chains() -> io::Result<Option<bool>> {
    let search = |kind, payload: &[u8]| Ok(questions::sees_outer(kind, payload)?.then_some(()));
    match plain::find(NETLINK_NETFILTER, &questions::chains(), search) {
        Err(error) if is(&error, NO_FAMILY) || is(&error, NO_SUBSYSTEM) => Ok(None),
        found => found.map(|found| Some(found.is_some())),
    }
}

/// `None` where the kernel has no iptables.
fn tables() -> io::Result<Option<bool>> {
    match read(IPTABLES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        names => names.map(|names| Some(!names.is_empty())),
    }
}

/// `None` where the kernel has no IPsec.
fn policies() -> io::Result<Option<bool>> {
    let found = plain::find(NETLINK_XFRM, &questions::policies(), |kind, payload| {
        questions::has_policies(kind, payload).map(Some)
    });
    match found {
        Err(error) if is(&error, NO_FAMILY) => return Ok(None),
        Ok(Some(false)) => {}
        found => return found.map(|found| Some(found.unwrap_or(true))),
    }
    let found = plain::find(NETLINK_XFRM, &questions::default_policy(), |kind, payload| {
        questions::refuses_by_default(kind, payload).map(Some)
    });
    match found {
        // Before Linux 5.15: nothing but acceptance.
        Err(error) if is(&error, libc::EINVAL) => Ok(Some(false)),
        found => found.map(|found| Some(found.unwrap_or(true))),
    }
}

/// What the kernel is asked about, and what has become of that.
#[derive(Debug)]
struct Source {
    /// What it is, in words.
    name: &'static str,
    /// Asking has the kernel load this module if it does not have it.
    module: Option<&'static str>,
    /// The netlink family and the groups that tell of changes.
    told_by: Option<(isize, u32)>,
    word: OnceCell<Word>,
    /// The kernel does not have it.
    absent: Cell<bool>,
    /// That it cannot be read has been told.
    told: Cell<bool>,
}

impl Source {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            module: None,
            told_by: None,
            word: OnceCell::new(),
            absent: Cell::new(false),
            told: Cell::new(false),
        }
    }

    fn of_module(self, module: &'static str) -> Self {
        Self {
            module: Some(module),
            ..self
        }
    }

    fn with_word(self, family: isize, groups: u32) -> Self {
        Self {
            told_by: Some((family, groups)),
            ..self
        }
    }

    /// Hears of changes from now on, and has heard of those of before. Without word they are found at the next look.
    fn listen(&self) {
        match (self.word.get(), self.told_by) {
            (Some(word), _) => drop(word.came()),
            (None, Some((family, groups))) => {
                if let Ok(word) = Word::of_family(family, groups) {
                    self.word.get_or_init(|| word);
                }
            }
            (None, None) => {}
        }
    }

    /// The answer, if any; present if it cannot be had.
    fn ask(&self, question: impl FnOnce() -> io::Result<Option<bool>>) -> bool {
        // It looked for the module in vain; a search each second is too many.
        if self.absent.get() && self.module.is_some_and(|module| !is_loaded(module)) {
            return false;
        }
        // Before the question: what changes after it is the next look's.
        self.listen();
        let answer = question();
        self.absent.set(matches!(answer, Ok(None)));
        match answer {
            Ok(found) => found.unwrap_or(false),
            Err(error) => {
                let is_news = !self.told.replace(true);
                if is_news && error.kind() == io::ErrorKind::PermissionDenied {
                    // That of the unit: for root alone, and nothing that is wrong with the machine.
                    info!(
                        "{} are not for this user to read, and count as present",
                        self.name
                    );
                } else if is_news {
                    warn!("{} cannot be read, and count as present: {error}", self.name);
                }
                true
            }
        }
    }
}

fn is_loaded(module: &str) -> bool {
    let modules = read(MODULES).unwrap_or_default();
    modules
        .lines()
        .any(|line| line.split_whitespace().next() == Some(module))
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

/// A file of `/proc`.
fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let len = File::open(path)?.take(MAX_FILE_LEN).read_to_string(&mut text)?;
    if u64::try_from(len).is_ok_and(|len| len < MAX_FILE_LEN) {
        Ok(text)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// The devices: asked for when one has changed.
#[derive(Debug)]
struct Devices {
    word: Word,
    /// Whether one is a sit tunnel that is up; `None` when that has to be found out.
    tunnels: Cell<Option<bool>>,
}

impl Devices {
    fn open() -> io::Result<Self> {
        Ok(Self {
            word: Word::of(libc::RTMGRP_LINK)?,
            tunnels: Cell::new(None),
        })
    }

    fn tunnels(&self) -> io::Result<bool> {
        // Before the question: what changes after it is the next look's.
        let changed = self.word.came()?;
        if let Some(known) = self.tunnels.get().filter(|_| !changed) {
            return Ok(known);
        }
        self.tunnels.set(None);
        let search = |kind, payload: &[u8]| Ok(questions::hears(kind, payload)?.then_some(()));
        let found = plain::find(NETLINK_ROUTE, &questions::devices(), search)?.is_some();
        self.tunnels.set(Some(found));
        Ok(found)
    }
}

#[cfg(test)]
#[path = "others/guest_tests.rs"]
mod guest_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_tests::netns::Netns;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

    #[test]
    fn devices_are_asked_for_when_one_has_changed() {
        let ns = Netns::new("others");
        ns.enter(|| {
            let devices = Devices::open().unwrap();
            assert!(!devices.tunnels().unwrap());
            // What was known is taken for true until there is word of a device.
            devices.tunnels.set(Some(true));
            assert!(devices.tunnels().unwrap());
            ns.ip("link add eth0 type veth peer name far-eth0");
            assert!(!devices.tunnels().unwrap());
            devices.tunnels.set(Some(true));
            ns.ip("link set eth0 up");
            assert!(!devices.tunnels().unwrap());
            // More than the socket has room for: the word that some were lost is word enough.
            devices.tunnels.set(Some(true));
            let storm = "link set eth0 mtu 1400\nlink set eth0 mtu 1500\n".repeat(400);
            ns.ip_batch(&storm);
            assert!(!devices.tunnels().unwrap());
            devices.tunnels.set(Some(true));
            assert!(devices.tunnels().unwrap(), "nothing is left over");
        });
    }

    /// Rules and policies that come and go make a lookout's socket readable, until it has looked.
    #[test]
    fn there_is_word_of_rules_and_policies() {
        let ns = Netns::new("others");
        ns.enter(|| {
            let lookout = Lookout::open(std::iter::empty()).unwrap();
            assert!(lookout.words().iter().all(Option::is_none), "nobody has looked");
            assert_eq!(lookout.look(), Others::default());
            let heard = || {
                lookout.words().map(|word| {
                    let mut sources = [PollFd::new(word.unwrap(), PollFlags::POLLIN)];
                    poll(&mut sources, PollTimeout::ZERO).unwrap() == 1
                })
            };
            assert_eq!(heard(), [false, false]);
            let filter =
                "nft add table ip seen { chain in { type filter hook input priority 0; counter; }; }";
            let policy = "ip xfrm policy add dir out dst 192.0.2.2 proto 41 action block";
            for (command, word, is_there) in [
                (
                    filter,
                    [true, false],
                    Others {
                        firewall: true,
                        ..Others::default()
                    },
                ),
                ("nft delete table ip seen", [true, false], Others::default()),
                (
                    policy,
                    [false, true],
                    Others {
                        ipsec: true,
                        ..Others::default()
                    },
                ),
                ("ip xfrm policy deleteall", [false, true], Others::default()),
                (
                    "ip xfrm policy setdefault out block",
                    [false, true],
                    Others {
                        ipsec: true,
                        ..Others::default()
                    },
                ),
            ] {
                let command = command.replace(';', " ;");
                let program: Vec<_> = command.split_whitespace().collect();
                let output = std::process::Command::new(program[0])
                    .args(&program[1..])
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
                assert_eq!(heard(), word, "{command}");
                assert_eq!(lookout.look(), is_there, "{command}");
                assert_eq!(heard(), [false, false], "{command}");
            }
        });
    }

    #[test]
    fn a_part_of_netfilter_that_is_not_there_is_no_firewall() {
        // Three more than any kernel has.
        let question = plain::message(15 << 8, NLM_F_REQUEST | NLM_F_DUMP, &[0; 4]);
        let answer = plain::find(NETLINK_NETFILTER, &question, |_, _| Ok(Some(())));
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(NO_SUBSYSTEM));
    }

    #[test]
    fn what_is_absent_is_asked_for_again_when_its_module_comes() {
        let asked = Cell::new(0);
        let answer = |answer: io::Result<Option<bool>>| {
            asked.set(asked.get() + 1);
            answer
        };
        let source = Source::new("it").of_module("no_such_module");
        assert!(source.ask(|| answer(Ok(Some(true)))));
        assert!(!source.ask(|| answer(Ok(None))));
        assert!(!source.ask(|| answer(Ok(Some(true)))));
        assert_eq!(asked.get(), 2);
        // One that asking does not load.
        let source = Source::new("it");
        assert!(!source.ask(|| answer(Ok(None))));
        assert!(source.ask(|| answer(Ok(Some(true)))));
        assert_eq!(asked.get(), 4);
    }

    #[test]
    fn what_cannot_be_read_counts_as_present_until_it_can() {
        let source = Source::new("it");
        assert!(source.ask(|| Err(io::ErrorKind::TimedOut.into())));
        assert!(source.told.get());
        assert!(!source.ask(|| Ok(Some(false))));
    }
}
