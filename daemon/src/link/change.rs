//! Every change of the ISATAP interface that this daemon ever makes: the whole list, with who carries it out.
//!
//! ```text
//!  control decides --> Change --> Changer: the monitor's process (which may), asked over its socket
//!                                          or `Direct`, in this process
//! ```
//!
//! A change names no interface: whoever carries it out knows the only one.

pub mod direct;
pub mod message;

use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{MAX_LOCATORS, Role};
use isatap_engine::isatap::iid;

use super::NetlinkError;
use super::apply::RouteId;
use crate::slaac::Origin;

/// The length of the prefix all ISATAP link-local addresses have.
pub const LINK_LOCAL_PREFIX_LEN: u8 = 64;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Address generation off, this MTU in bytes, queue length: what a new interface is given.
    Shape(u16),
    /// Another MTU, in bytes.
    Mtu(u16),
    /// Set it up.
    Up,
    /// Set it down.
    Down,
    /// Give it the link-local address of this locator; it may be there already.
    LinkLocal(Ipv4Addr),
    /// Give it an address, or the one that is there other lifetimes.
    Address(AddressChange),
    /// Take an address of this prefix length away; it may be gone already.
    RemoveAddress(Ipv6Addr, u8),
    /// Add a route beside others of its prefix; exactly the same one only gets the new end, in seconds from now.
    Route(RouteId, Option<u32>),
    /// Remove a route; it may be gone already.
    RemoveRoute(RouteId),
    /// Write the sysctls that the role needs.
    Sysctls(Role),
    /// Write the hop limit of this host's packets; `None` for what it was in the beginning.
    HopLimit(Option<u8>),
    /// Attach the program that takes outer headers off to these devices, by interface index, and to no others; 0 is none.
    Programs(Devices),
}

/// Devices of the IPv4 network, by interface index; 0 fills up.
pub type Devices = [u32; MAX_LOCATORS];

/// An address with its lifetimes in seconds from now; `u32::MAX` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    /// The address.
    pub addr: Ipv6Addr,
    /// Of its prefix.
    pub prefix_len: u8,
    /// How long it may be used at all.
    pub valid: u32,
    /// How long new connections may begin from it.
    pub preferred: u32,
    /// Whose prefix it is.
    pub origin: Origin,
}

/// Who carries changes out.
pub trait Changer {
    /// Carries one out, and returns when the kernel has taken it.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] names the change and says why not.
    fn change(&self, change: Change) -> impl Future<Output = Result<(), NetlinkError>>;
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(mtu) | Self::Mtu(mtu) => write!(f, "set the MTU {mtu}"),
            Self::Up => f.write_str("set it up"),
            Self::Down => f.write_str("set it down"),
            Self::LinkLocal(locator) => write!(f, "add {}", iid::link_local(*locator)),
            Self::Address(change) => write!(f, "set {}/{}", change.addr, change.prefix_len),
            Self::RemoveAddress(addr, _) => write!(f, "remove {addr}"),
            Self::Route(id, _) => write!(f, "set the route {id}"),
            Self::RemoveRoute(id) => write!(f, "remove the route {id}"),
            Self::Sysctls(_) => f.write_str("write the sysctls"),
            Self::HopLimit(_) => f.write_str("write the hop limit"),
            Self::Programs(_) => f.write_str("attach the programs of the ebpf lane"),
        }
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via {
            Some(via) => write!(f, "{} via {via}", self.prefix),
            None => write!(f, "{}", self.prefix),
        }
    }
}
