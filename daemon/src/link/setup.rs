//! Sets the ISATAP interface up, and its link-local address again whenever that got lost (RFC 5214 6.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::isatap::iid;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};

use super::{Netlink, NetlinkError};

/// Packets the TUN interface queues towards us; the kernel's default of 500 is less than one burst (FAULTS 30).
pub const TX_QUEUE_LEN: u32 = 10_000;

/// The length of the prefix all ISATAP addresses have.
const PREFIX_LEN: u8 = 64;

/// How long the route to a new address may take, on a machine with much else to do; and how often to look.
const DELIVERY_LIMIT: Duration = Duration::from_millis(500);
const DELIVERY_RETRY: Duration = Duration::from_millis(1);

/// The interface to be worked on.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its index.
    pub if_index: u32,
    /// Its name, for messages.
    pub name: String,
}

impl Interface {
    /// Address generation off, MTU, queue length, then up and the link-local address of `locator`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses one step; the message names it.
    pub async fn set_up(
        &self,
        netlink: &Netlink,
        mtu: u16,
        locator: Option<Ipv4Addr>,
    ) -> Result<(), NetlinkError> {
        let mut shape = self.message();
        shape.attributes.extend([
            LinkAttribute::Mtu(u32::from(mtu)),
            LinkAttribute::TxQueueLen(TX_QUEUE_LEN),
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
                In6AddrGenMode::None,
            )])]),
        ]);
        netlink
            .set_link(&format!("set MTU {mtu} on {}", self.name), shape)
            .await?;
        self.set_link_up(netlink).await?;
        match locator {
            Some(locator) => self.add_link_local(netlink, locator).await,
            None => Ok(()),
        }
    }

    /// Changes the MTU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_mtu(&self, netlink: &Netlink, mtu: u16) -> Result<(), NetlinkError> {
        let mut message = self.message();
        message.attributes.push(LinkAttribute::Mtu(u32::from(mtu)));
        netlink
            .set_link(&format!("set MTU {mtu} on {}", self.name), message)
            .await
    }

    /// Gives the interface the link-local address of `locator`; it may be there already. Returns when the kernel
    /// takes packets for it: it adds the route for that a moment after the address, and an advertisement that came
    /// in between would be lost, though its sender counts as having answered. An address that somebody takes away
    /// meanwhile (an interface that flaps) is not waited for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_link_local(&self, netlink: &Netlink, locator: Ipv4Addr) -> Result<(), NetlinkError> {
        let addr = iid::link_local(locator);
        netlink
            .add_address(&format!("add {addr} to {}", self.name), self.link_local(addr))
            .await?;
        let deadline = Instant::now() + DELIVERY_LIMIT;
        while !netlink.is_delivered(self.if_index, addr).await?
            && netlink.has_address(self.if_index, addr).await?
            && Instant::now() < deadline
        {
            tokio::time::sleep(DELIVERY_RETRY).await;
        }
        Ok(())
    }

    /// Takes the link-local address of `locator` away; it may be gone already.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub async fn remove_link_local(&self, netlink: &Netlink, locator: Ipv4Addr) -> Result<(), NetlinkError> {
        self.remove_address(netlink, iid::link_local(locator), PREFIX_LEN)
            .await
    }

    /// Takes an address away; it may be gone already.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub async fn remove_address(
        &self,
        netlink: &Netlink,
        addr: Ipv6Addr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut message = self.link_local(addr);
        message.header.prefix_len = prefix_len;
        let removed = netlink
            .delete_address(&format!("remove {addr} from {}", self.name), message)
            .await;
        match removed {
            Err(error) if error.errno() == Some(nix::libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// Deletes the interface, whoever still holds one of its queues: a ring lets go of its files some time after its
    /// process has ended, and until then the name would be taken.
    ///
    /// # Errors
    /// When the kernel refuses, also because it is gone already.
    pub async fn delete(&self, netlink: &Netlink) -> Result<(), NetlinkError> {
        netlink
            .delete_link(&format!("delete {}", self.name), self.message())
            .await
    }

    /// Sets the interface down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_down(&self, netlink: &Netlink) -> Result<(), NetlinkError> {
        let mut message = self.message();
        message.header.change_mask = LinkFlags::Up;
        netlink
            .set_link(&format!("set {} down", self.name), message)
            .await
    }

    async fn set_link_up(&self, netlink: &Netlink) -> Result<(), NetlinkError> {
        let mut message = self.message();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        netlink.set_link(&format!("set {} up", self.name), message).await
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.if_index;
        message
    }

    fn link_local(&self, addr: Ipv6Addr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = self.if_index;
        message.header.prefix_len = PREFIX_LEN;
        message.header.scope = AddressScope::Link;
        message.header.flags = AddressHeaderFlags::Nodad | AddressHeaderFlags::Permanent;
        message.attributes = vec![
            AddressAttribute::Address(IpAddr::V6(addr)),
            AddressAttribute::Local(IpAddr::V6(addr)),
            AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent),
        ];
        message
    }
}
