//! What the engine's process may have done: everything else is refused, whoever has taken that process over (FAULTS 72).
//!
//! A change names no interface, so that none can be about another one. What is left to judge is whether it is one that
//! this daemon would ever want: addresses that are ISATAP's, routes to routers of this link, sizes that IPv6 allows.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use isatap_engine::isatap::iid;
use isatap_engine::isatap::mtu::{TUNNEL_MTU_MAX, TUNNEL_MTU_MIN};

use super::devices::Device;
use super::wire::Suspect;
use crate::link::apply::RouteId;
use crate::link::change::{AddressChange, Change};
use crate::slaac::Origin;

/// Ports below need a privilege that nobody here has; an engine does not get at them through the monitor either.
const FIRST_FREE_PORT: u16 = 1024;

/// Why a request is refused, for log and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// The address is not one that ISATAP forms.
    #[error("the address is no ISATAP address of this host's")]
    Address,
    /// The prefix length is not the one such addresses have.
    #[error("the prefix length is not one of this daemon's addresses")]
    PrefixLength,
    /// The IPv4 address is none that a host can have.
    #[error("no host can have this IPv4 address")]
    Locator,
    /// The MTU is out of bounds.
    #[error("the MTU is out of bounds")]
    Mtu,
    /// The destination of a route is not one to be routed.
    #[error("nobody routes this destination")]
    Destination,
    /// The next hop is not a router of this link.
    #[error("the next hop is no ISATAP router of this link")]
    NextHop,
    /// Metric or preference are out of bounds.
    #[error("metric or preference are out of bounds")]
    Metric,
    /// Lifetimes that contradict each other, or an end that is none.
    #[error("the lifetimes contradict each other")]
    Lifetime,
    /// The port needs a privilege.
    #[error("the port is one of the privileged ones")]
    Port,
    /// The device is not one that packets of an IPv4 network come in by, or the tunnel's own.
    #[error("the device is no Ethernet device beside the tunnel")]
    Device,
    /// Nor one that the tunnel is at.
    #[error("the device has no address that may carry the tunnel")]
    NoLocator,
    /// There is as much of it as there could ever be.
    #[error("there are more than this daemon would ever want")]
    Amount,
    /// No engine was told to have this worker.
    #[error("there is no such worker")]
    Worker,
}

impl Refusal {
    /// Whether it takes no more than a machine that changes while the engine speaks.
    pub const fn may_be_late(self) -> bool {
        matches!(self, Self::NoLocator)
    }
}

/// Whether a change may be carried out.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn change(change: &Change) -> Result<(), Refusal> {
    match change {
        Change::Shape(mtu) | Change::Mtu(mtu) => {
            require((TUNNEL_MTU_MIN..=TUNNEL_MTU_MAX).contains(mtu), Refusal::Mtu)
        }
        Change::Up | Change::Down | Change::Sysctls(_) => Ok(()),
        Change::LinkLocal(locator) => require(is_host(*locator), Refusal::Locator),
        Change::Address(change) => address(change),
        Change::RemoveAddress(addr, prefix_len) => {
            require(*prefix_len <= 128, Refusal::PrefixLength)?;
            require(iid::embedded(addr).is_some(), Refusal::Address)
        }
        Change::Route(id, expires) => {
            route(id)?;
            // What routers promised ends by itself should this daemon not; its own part has no end.
            let ends = *expires != Some(0) && (id.origin == Origin::Advertised || expires.is_none());
            require(ends, Refusal::Lifetime)
        }
        Change::RemoveRoute(id) => route(id),
        Change::HopLimit(limit) => require(*limit != Some(0), Refusal::Metric),
        // Judged one by one, by what they are; see [`device`].
        Change::Programs(_) => Err(Refusal::Device),
    }
}

/// Whether the program that takes outer headers off may be at this device, where `tunnel` is our own interface and `may_carry` says
/// which addresses the configuration lets carry the tunnel. It would drop what comes in there by rules of the engine, also for
/// other tunnels of the machine.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn device(
    index: u32,
    device: &Device,
    tunnel: u32,
    may_carry: impl Fn(Ipv4Addr) -> bool,
) -> Result<(), Refusal> {
    require(index != tunnel && device.is_ethernet, Refusal::Device)?;
    let mut hosts = device.addresses.iter().copied().filter(|addr| is_host(*addr));
    require(hosts.any(may_carry), Refusal::NoLocator)
}

/// Whether metrics may be served there.
///
/// # Errors
/// The port is a privileged one.
pub fn listen(addr: SocketAddr) -> Result<(), Refusal> {
    require(addr.port() == 0 || addr.port() >= FIRST_FREE_PORT, Refusal::Port)
}

/// Whether there is such a worker in an engine of so many.
///
/// # Errors
/// There is none.
pub fn suspect(suspect: &Suspect, workers: usize) -> Result<(), Refusal> {
    require(usize::from(suspect.worker) < workers, Refusal::Worker)
}

fn require(holds: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn address(change: &AddressChange) -> Result<(), Refusal> {
    require(change.prefix_len == 128, Refusal::PrefixLength)?;
    let embedded = iid::embedded(&change.addr).filter(|v4| is_host(*v4));
    require(is_routable(&change.addr) && embedded.is_some(), Refusal::Address)?;
    require(change.preferred <= change.valid, Refusal::Lifetime)
}

fn route(id: &RouteId) -> Result<(), Refusal> {
    let destination = id.prefix.addr();
    require(
        id.prefix.len() == 0 || is_routable(&destination),
        Refusal::Destination,
    )?;
    match id.via {
        // A prefix of the link; everything on it would be a default route to nowhere.
        None => require(id.prefix.len() > 0, Refusal::NextHop)?,
        Some(via) => require(
            iid::is_link_local_64(&via) && iid::embedded(&via).is_some_and(is_host),
            Refusal::NextHop,
        )?,
    }
    require(
        id.metric > 0 && (-1..=1).contains(&id.preference),
        Refusal::Metric,
    )
}

/// Neither link-local nor multicast, nor inside of ::/16, where loopback and the forms of IPv4 addresses live
/// (RFC 4291 2.5; the prefix of translators, 64:ff9b::/96, is outside).
fn is_routable(addr: &Ipv6Addr) -> bool {
    addr.segments()[0] != 0 && !addr.is_multicast() && !addr.is_unicast_link_local()
}

fn is_host(addr: Ipv4Addr) -> bool {
    let first = addr.octets()[0];
    first != 0 && first != 127 && first < 224
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_engine::fib::{MAX_LOCATORS, Role};

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn set(addr: &str) -> AddressChange {
        AddressChange {
            addr: v6(addr),
            prefix_len: 128,
            valid: 7200,
            preferred: 3600,
            origin: Origin::Advertised,
        }
    }

    fn to(prefix: &str, via: Option<&str>) -> RouteId {
        RouteId {
            prefix: prefix.parse().unwrap(),
            metric: 1024,
            via: via.map(v6),
            preference: 0,
            origin: Origin::Advertised,
        }
    }

    #[test]
    fn what_this_daemon_asks_for_is_let_through() {
        let own = RouteId {
            origin: Origin::Own,
            ..to("2001:db8:1::/64", None)
        };
        for wanted in [
            Change::Shape(1280),
            Change::Mtu(65_515),
            Change::Up,
            Change::Down,
            Change::LinkLocal([10, 0, 0, 1].into()),
            Change::Address(set("2001:db8:1::5efe:a00:1")),
            Change::Address(set("fd00::200:5efe:808:808")),
            Change::RemoveAddress(v6("fe80::5efe:a00:9"), 64),
            Change::RemoveAddress(v6("2001:db8:1::5efe:a00:1"), 128),
            Change::Route(to("::/0", Some("fe80::5efe:a00:1")), Some(1800)),
            Change::Route(to("2001:db8::/32", Some("fe80::200:5efe:808:808")), None),
            Change::Route(to("64:ff9b::/96", Some("fe80::5efe:a00:1")), Some(60)),
            Change::Route(own, None),
            Change::RemoveRoute(own),
            Change::Sysctls(Role::Router),
            Change::HopLimit(None),
            Change::HopLimit(Some(64)),
        ] {
            assert_eq!(change(&wanted), Ok(()), "{wanted:?}");
        }
        assert_eq!(listen("127.0.0.1:9441".parse().unwrap()), Ok(()));
        assert_eq!(listen("[::]:0".parse().unwrap()), Ok(()));
    }

    /// FAULTS 72: each refusal by itself.
    #[test]
    fn everything_else_is_refused_and_says_why() {
        let router = Some("fe80::5efe:a00:1");
        let odd = |edit: fn(&mut RouteId)| {
            let mut id = to("2001:db8::/32", Some("fe80::5efe:a00:1"));
            edit(&mut id);
            Change::Route(id, Some(60))
        };
        let own = RouteId {
            origin: Origin::Own,
            ..to("2001:db8:1::/64", None)
        };
        let address = |edit: fn(&mut AddressChange)| {
            let mut change = set("2001:db8:1::5efe:a00:1");
            edit(&mut change);
            Change::Address(change)
        };
        for (asked, why) in [
            (Change::Shape(1279), Refusal::Mtu),
            (Change::Mtu(0), Refusal::Mtu),
            (Change::Mtu(u16::MAX), Refusal::Mtu),
            (Change::LinkLocal([127, 0, 0, 1].into()), Refusal::Locator),
            (Change::LinkLocal([0, 0, 0, 0].into()), Refusal::Locator),
            (Change::LinkLocal([224, 0, 0, 1].into()), Refusal::Locator),
            (Change::LinkLocal([255, 255, 255, 255].into()), Refusal::Locator),
            (Change::Address(set("2001:db8:1::1")), Refusal::Address),
            (Change::Address(set("::1")), Refusal::Address),
            (Change::Address(set("::5efe:a00:1")), Refusal::Address),
            (Change::Address(set("fe80::5efe:a00:1")), Refusal::Address),
            (Change::Address(set("ff02::5efe:a00:1")), Refusal::Address),
            (Change::Address(set("2001:db8:1::5efe:e000:1")), Refusal::Address),
            (address(|it| it.prefix_len = 0), Refusal::PrefixLength),
            (address(|it| it.prefix_len = 64), Refusal::PrefixLength),
            (address(|it| it.prefix_len = 129), Refusal::PrefixLength),
            (address(|it| it.preferred = it.valid + 1), Refusal::Lifetime),
            (Change::RemoveAddress(v6("2001:db8:1::1"), 128), Refusal::Address),
            (
                Change::RemoveAddress(v6("fe80::5efe:a00:1"), 129),
                Refusal::PrefixLength,
            ),
            (Change::Route(to("::/0", None), Some(60)), Refusal::NextHop),
            (
                Change::Route(to("::/0", Some("fe80::1")), Some(60)),
                Refusal::NextHop,
            ),
            (
                Change::Route(to("::/0", Some("2001:db8::5efe:a00:1")), Some(60)),
                Refusal::NextHop,
            ),
            (
                Change::Route(to("::/0", Some("fe80::5efe:7f00:1")), Some(60)),
                Refusal::NextHop,
            ),
            (Change::Route(to("fe80::/64", None), None), Refusal::Destination),
            (Change::Route(to("ff00::/8", router), None), Refusal::Destination),
            (Change::Route(to("::/96", router), None), Refusal::Destination),
            (Change::Route(to("::1/128", router), None), Refusal::Destination),
            (Change::Route(to("::/0", router), Some(0)), Refusal::Lifetime),
            (Change::Route(own, Some(60)), Refusal::Lifetime),
            (odd(|id| id.metric = 0), Refusal::Metric),
            (odd(|id| id.preference = 2), Refusal::Metric),
            (odd(|id| id.preference = i8::MIN), Refusal::Metric),
            (Change::RemoveRoute(to("fe80::/64", None)), Refusal::Destination),
            (Change::RemoveRoute(to("::/0", Some("fe80::1"))), Refusal::NextHop),
            (Change::HopLimit(Some(0)), Refusal::Metric),
            (Change::Programs([2; MAX_LOCATORS]), Refusal::Device),
        ] {
            assert_eq!(change(&asked), Err(why), "{asked:?}");
        }
        assert_eq!(listen("0.0.0.0:80".parse().unwrap()), Err(Refusal::Port));
        assert_eq!(listen("[::1]:1023".parse().unwrap()), Err(Refusal::Port));
        let of = |worker| Suspect {
            worker,
            thread: 1,
            turns: 7,
            looked_at: 0,
        };
        assert_eq!(suspect(&of(1), 2), Ok(()));
        assert_eq!(suspect(&of(2), 2), Err(Refusal::Worker));
    }

    /// FAULTS 72: a program goes where the tunnel may be, and nowhere else.
    #[test]
    fn devices_are_judged_by_what_they_are() {
        const TUNNEL: u32 = 7;
        let ours = Ipv4Addr::new(10, 0, 0, 1);
        let may_carry = |addr: Ipv4Addr| addr == ours || addr.is_loopback();
        let with = |addresses: &[[u8; 4]]| Device {
            is_ethernet: true,
            addresses: addresses.iter().map(|addr| (*addr).into()).collect(),
        };
        let plain = Device {
            is_ethernet: false,
            ..with(&[[10, 0, 0, 1]])
        };
        for (index, found, expected) in [
            (2, with(&[[10, 0, 0, 1]]), Ok(())),
            (2, with(&[[192, 0, 2, 1], [10, 0, 0, 1]]), Ok(())),
            (2, with(&[[10, 0, 0, 2]]), Err(Refusal::NoLocator)),
            (2, with(&[]), Err(Refusal::NoLocator)),
            (2, with(&[[127, 0, 0, 1]]), Err(Refusal::NoLocator)),
            (2, plain, Err(Refusal::Device)),
            (TUNNEL, with(&[[10, 0, 0, 1]]), Err(Refusal::Device)),
        ] {
            assert_eq!(
                device(index, &found, TUNNEL, may_carry),
                expected,
                "{index}: {found:?}"
            );
        }
        let late: Vec<_> = [Refusal::Device, Refusal::NoLocator, Refusal::Mtu]
            .into_iter()
            .filter(|refusal| refusal.may_be_late())
            .collect();
        assert_eq!(late, [Refusal::NoLocator]);
    }
}
