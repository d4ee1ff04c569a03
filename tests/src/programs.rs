//! A machine whose tunnel is carried by the programs of the `ebpf` lane alone: no daemon runs, and nobody reads the TUN queue.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::{Cause, Egress, Segmenters, Surroundings, compile};
use isatap_engine::fib::{Ipv6Prefix, Locator, NextHop, RulebookBuilder};
use isatap_engine::io::ebpf::{Attachment, Hook, Neighbour, Programs, Shared};
use isatap_engine::io::tun::Tun;
use isatap_engine::isatap::iid;
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;
use isatap_engine::wire::vnet;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;

use crate::daemon::TUNNEL;
use crate::netns::Netns;
use crate::packet::link_local;
use crate::scene::{PREFIX, SOON, on_link, set_address};
use crate::topology::mac;
use crate::wait;

/// Entries of its tables.
const SLOTS: u32 = 1024;

/// The machine, with programs at its tunnel and at its underlay, in a namespace of its own or somebody's.
#[derive(Debug)]
pub struct Node<N: Borrow<Netns> = Netns> {
    /// Where it is.
    pub ns: N,
    v4: Ipv4Addr,
    shared: Shared,
    /// Of the programs that others have taken the places of.
    before: Vec<Shared>,
    queue: File,
    attachments: Vec<Attachment>,
    programs: Programs,
}

impl<N: Borrow<Netns>> Node<N> {
    /// Programs between the ISATAP interface, which is made here, and `device`, which has the address `v4` already.
    ///
    /// # Panics
    /// When the kernel refuses anything.
    pub fn new(ns: N, v4: Ipv4Addr, device: &str, mtu: u16) -> Self {
        let hook = Hook::of_the_kernel().unwrap_or_else(|error| panic!("hooks: {error:?}"));
        Self::hooked(ns, v4, device, mtu, hook)
    }

    /// The same with the programs attached in a certain way.
    ///
    /// # Panics
    /// As [`Node::new`].
    pub fn hooked(owned: N, v4: Ipv4Addr, device: &str, mtu: u16, hook: Hook) -> Self {
        let ns = owned.borrow();
        let (mut tun, mut programs) = ns.enter(|| {
            let tun = Tun::create(TUNNEL, 1).unwrap_or_else(|error| panic!("{TUNNEL}: {error}"));
            let programs = Programs::load(SLOTS, TUNNEL);
            (
                tun,
                programs.unwrap_or_else(|error| panic!("programs: {error:?}")),
            )
        });
        let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
        let queue = File::from(tun.queues.remove(0));
        fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a queue that does not block");
        // Nothing that nobody asked for: no address, no solicitation.
        ns.ip(&format!("link set {TUNNEL} addrgenmode none mtu {mtu}"));
        ns.sysctl(&format!("ipv6/conf/{TUNNEL}/accept_ra"), "0");
        ns.ip(&format!("link set {TUNNEL} up"));
        ns.ip(&format!("addr add {}/64 dev {TUNNEL} nodad", link_local(v4)));
        set_address(ns, v4);
        // The kernel takes packets for a new address a moment later.
        for addr in [on_link(v4), link_local(v4)] {
            wait::holds(&format!("a route to {addr}"), SOON * 6, || {
                let routes = ns.ip(&format!("-6 route show table local {addr}"));
                routes.contains("local")
            });
        }
        let attachments = ns.enter(|| {
            let mut attach = |direction, device: &str| {
                let attached = programs.attach_by(hook, direction, device);
                attached.unwrap_or_else(|error| panic!("attach to {device}: {error:?}"))
            };
            vec![attach(Direction::Decap, device), attach(Direction::Encap, TUNNEL)]
        });
        Self {
            ns: owned,
            v4,
            shared,
            before: Vec::new(),
            queue,
            attachments,
            programs,
        }
    }

    /// Has the program for what comes in at another device, too.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn attach_to(&mut self, device: &str) {
        let (ns, programs) = (self.ns.borrow(), &mut self.programs);
        let attached = ns.enter(|| programs.attach(Direction::Decap, device));
        self.attachments
            .push(attached.unwrap_or_else(|error| panic!("attach to {device}: {error:?}")));
    }

    /// What such a machine knows: a router of [`PREFIX`], for everybody.
    pub fn rules(&self, device: &str, mtu: u16) -> RulebookBuilder {
        let prefix = Ipv6Prefix::containing(PREFIX.parse().expect("a prefix"), 64).expect("a length");
        RulebookBuilder {
            locators: vec![Locator {
                addr: self.v4,
                if_index: self.index(device),
            }],
            own6: vec![iid::link_local(self.v4), on_link(self.v4)],
            routes: vec![(prefix, NextHop::OnLink)],
            any_site: true,
            mtu,
            ..RulebookBuilder::default()
        }
    }

    /// Has the programs decide by `rules` from now on, with everything that leaves by `device`.
    ///
    /// # Panics
    /// When the rules cannot be.
    pub fn publish(&self, rules: RulebookBuilder, device: &str) {
        self.publish_in(rules, self.surroundings(device));
    }

    /// The same with a gateway that everything goes to.
    ///
    /// # Panics
    /// As [`Node::publish`].
    pub fn publish_via(&self, rules: RulebookBuilder, device: &str, via: Ipv4Addr) {
        let mut surroundings = self.surroundings(device);
        surroundings.egress[0].via = via;
        self.publish_in(rules, surroundings);
    }

    /// Everything is carried, and goes out by `device`.
    pub fn surroundings(&self, device: &str) -> Surroundings {
        Surroundings {
            link_len: 0,
            carry_in: true,
            carry_out: true,
            alone: true,
            own_v4: Vec::new(),
            egress: vec![Egress {
                network: "0.0.0.0/0".parse().expect("a prefix"),
                device: self.index(device),
                // The programs ask the device.
                mtu: u16::MAX,
                via: Ipv4Addr::UNSPECIFIED,
            }],
            segmenters: Segmenters::default(),
        }
    }

    /// The programs decide by `rules`, in these surroundings, from now on.
    ///
    /// # Panics
    /// As [`Node::publish`].
    pub fn publish_in(&self, rules: RulebookBuilder, surroundings: Surroundings) {
        let rules = rules.build().expect("a Rulebook");
        let image = compile(&rules, &surroundings, self.shared.slots_per_table(), 0x5eed);
        self.shared
            .publish(&image.expect("rules that fit"))
            .expect("published");
    }

    /// Loads the programs once more, has them decide by `rules`, and puts them into the places of those that carry, as another
    /// process would that these are left to.
    ///
    /// # Panics
    /// When the kernel refuses anything.
    pub fn exchange(&mut self, rules: RulebookBuilder, device: &str) {
        let load = || Programs::load(SLOTS, TUNNEL);
        let loaded = self.ns.borrow().enter(load);
        let mut programs = loaded.unwrap_or_else(|error| panic!("programs: {error:?}"));
        let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
        self.before.push(std::mem::replace(&mut self.shared, shared));
        self.publish(rules, device);
        let old = std::mem::take(&mut self.attachments);
        self.attachments = self.ns.borrow().enter(|| {
            let replaced = old.into_iter().map(|old| programs.replace(hand_over(old)));
            let replaced: Result<_, _> = replaced.collect();
            replaced.unwrap_or_else(|error| panic!("an exchange: {error:?}"))
        });
        self.programs = programs;
    }

    /// Has the programs send frames to a host behind `device` themselves, or no longer.
    pub fn set_neighbour(&self, addr: Ipv4Addr, device: &str, link: Option<[[u8; 6]; 2]>) {
        self.set_neighbour_at(addr, self.index(device), link);
    }

    /// The same by the interface index of a device that need not be there.
    pub fn set_neighbour_at(&self, addr: Ipv4Addr, device: u32, link: Option<[[u8; 6]; 2]>) {
        self.tell(addr, device, link, false);
    }

    /// Has them know a neighbour that the kernel doubts.
    pub fn doubt_neighbour_at(&self, addr: Ipv4Addr, device: u32, link: [[u8; 6]; 2]) {
        self.tell(addr, device, Some(link), true);
    }

    /// Whether such news could be told them a moment later as well.
    pub fn may_wait(&self, news: &Neighbour) -> bool {
        self.shared.may_wait(news)
    }

    fn tell(&self, addr: Ipv4Addr, device: u32, link: Option<[[u8; 6]; 2]>, is_doubted: bool) {
        self.shared.set_neighbours(&[Neighbour {
            addr,
            device,
            link,
            is_doubted,
        }]);
    }

    /// Has them do so if the kernel finds that host.
    pub fn find_neighbour(&self, addr: Ipv4Addr, device: &str) {
        let ns = self.ns.borrow();
        // It answers or not: what counts is whether the kernel knows it then.
        ns.try_run(&format!("ping -c 1 -W 1 {addr}"));
        let shown = ns.ip(&format!("neigh show {addr} dev {device}"));
        let link = shown
            .split_whitespace()
            .skip_while(|word| *word != "lladdr")
            .nth(1);
        if let Some(link) = link.and_then(parse_mac) {
            self.set_neighbour(addr, device, Some([link, mac(ns, device)]));
        }
    }

    /// As when whoever told of neighbours is gone.
    ///
    /// # Panics
    /// When the map cannot be mapped.
    pub fn revoke_neighbours(&self) {
        self.programs.revoke_neighbours().expect("a mapped map");
    }

    /// A counter of the programs that were put there last.
    pub fn count_of_last(&self, direction: Direction, counter: Counter) -> u64 {
        self.shared.count(counter, direction as usize)
    }

    /// A counter of the programs, all that were there.
    pub fn count(&self, direction: Direction, counter: Counter) -> u64 {
        let all = self.before.iter().chain([&self.shared]);
        all.map(|shared| shared.count(counter, direction as usize)).sum()
    }

    /// Segments of a direction that the programs carried, in superpackets or alone.
    pub fn segments(&self, direction: Direction) -> u64 {
        let count = |counter| self.count(direction, counter);
        count(Counter::Segments) + count(Counter::Packets) - count(Counter::Superpackets)
    }

    /// Packets of a direction that the programs left to a worker.
    pub fn left(&self, direction: Direction) -> u64 {
        let all = Cause::ALL.iter();
        all.map(|cause| self.count(direction, Counter::Passed(*cause)))
            .sum()
    }

    /// Packets of a direction that the programs dropped.
    pub fn dropped(&self, direction: Direction) -> u64 {
        let all = DropReason::ALL.iter();
        all.map(|reason| self.count(direction, Counter::Dropped(*reason)))
            .sum()
    }

    /// The queue of another TUN interface of this machine, which a guest of it or a VPN could be behind: what is written to it, IPv6 packets
    /// with a vnet header, is forwarded.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn forward_others(&self) -> File {
        const OTHERS: &str = "others";
        let ns = self.ns.borrow();
        let mut tun = ns
            .enter(|| Tun::create(OTHERS, 1))
            .unwrap_or_else(|error| panic!("{OTHERS}: {error}"));
        ns.ip(&format!("link set {OTHERS} up"));
        ns.sysctl("ipv6/conf/all/forwarding", "1");
        File::from(tun.queues.remove(0))
    }

    /// The inner packets that wait for a worker.
    ///
    /// # Panics
    /// When the queue cannot be read.
    pub fn queued(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut frame = vec![0; 1 << 16];
        loop {
            match self.queue.read(&mut frame) {
                Ok(len) => packets.push(frame[vnet::LEN..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return packets,
                Err(error) => panic!("the TUN queue: {error}"),
            }
        }
    }

    /// The interface index of a device.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn index(&self, device: &str) -> u32 {
        self.ns
            .borrow()
            .enter(|| if_nametoindex(device))
            .unwrap_or_else(|error| panic!("{device}: {error}"))
    }
}

impl<N: Borrow<Netns>> Drop for Node<N> {
    fn drop(&mut self) {
        let attachments = std::mem::take(&mut self.attachments);
        self.ns.borrow().enter(|| drop(attachments));
    }
}

/// What whoever takes `old` over has, once whoever had it is gone without detaching it.
///
/// # Panics
/// When no descriptor is left.
pub fn hand_over(old: Attachment) -> Attachment {
    let (place, link) = old.place().expect("a place");
    let link = link.map(|link| link.try_clone_to_owned().expect("a descriptor"));
    match old.hook() {
        Hook::Tcx => drop(old),
        Hook::Clsact => std::mem::forget(old),
    }
    Attachment::taken(place, link, TUNNEL).expect("taken over")
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok()
}
