//! A host without a daemon that solicits a router and reads what it is told, byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::nd::{self, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use crate::netns::Netns;
use crate::packet::link_local;
use crate::raw::{Captured, Crafter, Sniffer};
use crate::topology::{Site, UNDERLAY, mac};

/// Where routers listen.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A router's configuration with everything it can say of itself.
pub const EVERYTHING: &str = "\
Advertise yes
AdvertisePrefix 2001:db8:1::/64 on-link valid 7200 preferred 3600
AdvertiseRoute 2001:db8:f000::/36 preference high lifetime 600
AdvertiseDns 2001:db8::53 2001:db8::54 lifetime 900
AdvertiseSearch example.org lifetime 800
AdvertiseMtu 1400
RouterLifetime 1200
RouterPreference high
Mtu 1400
Workers 1
";

/// What fits any answer: the longest delay of half a second, and a busy machine.
pub const ANSWERED: Duration = Duration::from_secs(2);

/// The host.
#[derive(Debug)]
pub struct Asker {
    /// Its namespace.
    pub ns: Netns,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    crafter: Crafter,
    wire: Sniffer,
}

/// A router advertisement as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// Outer source and destination.
    pub outer: (Ipv4Addr, Ipv4Addr),
    /// Inner source and destination.
    pub inner: (Ipv6Addr, Ipv6Addr),
    /// Hop limit of the inner packet.
    pub hop_limit: u8,
    /// Length of the inner packet.
    pub len: usize,
    /// What follows the checksum: hop limit, flags, lifetimes, then the options.
    pub body: Vec<u8>,
}

/// A prefix information option: the prefix, its flags (0x80 on-link, 0x40 autonomous), valid and preferred lifetimes.
pub type ToldPrefix = (Ipv6Addr, u8, u32, u32);

impl Asker {
    /// A new member of `site` that knows the router at `router` in `ns`.
    pub fn new(site: &Site, last: u8, ns: &Netns, router: Ipv4Addr) -> Self {
        let [a, b, c, _] = router.octets();
        let v4 = Ipv4Addr::new(a, b, c, last);
        let member = site.member(&format!("a{last}"), last);
        let crafter = Crafter::new(&member, UNDERLAY, v4, mac(ns, UNDERLAY), router);
        // What is sent to it finds its Ethernet address at once.
        member.run(&format!("ping -n -c 1 -W 2 {router}"));
        Self {
            wire: Sniffer::start(&member, UNDERLAY),
            ns: member,
            v4,
            crafter,
        }
    }

    /// The same host that knows another address of the router in `ns`.
    pub fn again(asker: Self, ns: &Netns, router: Ipv4Addr) -> Self {
        let crafter = Crafter::new(&asker.ns, UNDERLAY, asker.v4, mac(ns, UNDERLAY), router);
        Self { crafter, ..asker }
    }

    /// Its link-local address.
    pub fn addr(&self) -> Ipv6Addr {
        link_local(self.v4)
    }

    /// Solicits the router at `dst`.
    pub fn ask(&self, dst: Ipv6Addr) {
        self.send(&nd::packet(
            self.addr(),
            dst,
            ROUTER_SOLICITATION,
            &nd::router_solicitation(),
        ));
    }

    /// Sends any inner packet to the router.
    pub fn send(&self, inner: &[u8]) {
        self.crafter.send_inner(inner);
    }

    /// What puts packets on the wire.
    pub fn crafter(&self) -> &Crafter {
        &self.crafter
    }

    /// Every advertisement so far.
    pub fn told(&self) -> Vec<Told> {
        self.wire.packets().iter().filter_map(Told::read).collect()
    }

    /// Forgets what was told so far.
    pub fn forget(&self) {
        self.wire.clear();
    }

    /// Waits until it has been told `count` times, and returns all.
    ///
    /// # Panics
    /// When not within `limit`.
    #[track_caller]
    pub fn wait(&self, count: usize, limit: Duration) -> Vec<Told> {
        self.wire
            .wait_count("router advertisement", count, limit, |c| Told::read(c).is_some());
        self.told()
    }

    /// Waits for an advertisement such as `wanted` tells, and returns it.
    ///
    /// # Panics
    /// When there is none within `limit`.
    #[track_caller]
    pub fn wait_such(&self, what: &str, limit: Duration, wanted: impl Fn(&Told) -> bool) -> Told {
        let seen = self
            .wire
            .wait_for(what, limit, |c| Told::read(c).is_some_and(|told| wanted(&told)));
        Told::read(&seen).expect("just read")
    }
}

impl Told {
    /// Reads an outer packet that came in; `None` for anything but a router advertisement with a right checksum.
    pub fn read(captured: &Captured) -> Option<Self> {
        let outer = captured.outer().filter(|_| !captured.outgoing)?;
        let inner = outer.inner()?;
        let (kind, code, body) = inner.icmpv6()?;
        if (kind, code) != (ROUTER_ADVERTISEMENT, 0) || !inner.checksum_is_right() {
            return None;
        }
        Some(Self {
            at: captured.at,
            outer: (outer.src(), outer.dst()),
            inner: (inner.src(), inner.dst()),
            hop_limit: *captured.packet.get(20 + 7)?,
            len: 40 + inner.payload.len(),
            body: body.to_vec(),
        })
    }

    /// Seconds as a default router.
    pub fn lifetime(&self) -> u16 {
        u16::from_be_bytes([self.body[2], self.body[3]])
    }

    /// Type and content of each option, as long as they are well-formed.
    pub fn options(&self) -> Vec<(u8, Vec<u8>)> {
        let mut options = Vec::new();
        let mut rest = self.body.get(12..).unwrap_or_default();
        while let [kind, units, ..] = *rest {
            let len = usize::from(units) * 8;
            if len == 0 || len > rest.len() {
                break;
            }
            options.push((kind, rest[2..len].to_vec()));
            rest = &rest[len..];
        }
        options
    }

    /// Options of one type.
    pub fn of_type(&self, wanted: u8) -> Vec<Vec<u8>> {
        let options = self.options().into_iter();
        options
            .filter(|(kind, _)| *kind == wanted)
            .map(|(_, content)| content)
            .collect()
    }

    /// Its prefixes.
    pub fn prefixes(&self) -> Vec<ToldPrefix> {
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        let prefix = |content: Vec<u8>| {
            let octets: [u8; 16] = content[14..30].try_into().expect("sixteen bytes");
            assert_eq!(content[0], 64, "length of an advertised prefix");
            (
                Ipv6Addr::from(octets),
                content[1],
                word(&content[2..6]),
                word(&content[6..10]),
            )
        };
        self.of_type(3).into_iter().map(prefix).collect()
    }
}
