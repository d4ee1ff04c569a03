//! Sets the ISATAP interface up, and its link-local address again whenever that got lost (RFC 5214 6.2).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::isatap::iid;

use super::change::{Change, Changer};
use super::{Netlink, NetlinkError};

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
        changer: &impl Changer,
        netlink: &Netlink,
        mtu: u16,
        locator: Option<Ipv4Addr>,
    ) -> Result<(), NetlinkError> {
        changer.change(Change::Shape(mtu)).await?;
        changer.change(Change::Up).await?;
        match locator {
            Some(locator) => self.add_link_local(changer, netlink, locator).await,
            None => Ok(()),
        }
    }

    /// Gives the interface the link-local address of `locator`; it may be there already. Returns when the kernel
    /// takes packets for it: it adds the route for that a moment after the address, and an advertisement that came
    /// in between would be lost, though its sender counts as having answered. An address that somebody takes away
    /// meanwhile (an interface that flaps) is not waited for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_link_local(
        &self,
        changer: &impl Changer,
        netlink: &Netlink,
        locator: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let addr = iid::link_local(locator);
        changer.change(Change::LinkLocal(locator)).await?;
        let deadline = Instant::now() + DELIVERY_LIMIT;
        while !netlink.is_delivered(self.if_index, addr).await?
            && netlink.has_address(self.if_index, addr).await?
            && Instant::now() < deadline
        {
            tokio::time::sleep(DELIVERY_RETRY).await;
        }
        Ok(())
    }
}
