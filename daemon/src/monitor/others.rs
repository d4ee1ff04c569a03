//! Who else has a say about outer packets.
use std::io;
use std::os::fd::BorrowedFd;
/// L
#[derive(Debug)]
pub struct Lookout;
impl Lookout {
    /// o
    pub fn open<'a>(_own: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Self> {
        Ok(Self)
    }
    /// l
    pub fn look(&self) -> Others {
        Others::default()
    }
}
/// Who else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Netfilter has rules that would see outer packets (nftables families ip, inet, netdev; iptables).
    pub firewall: bool,
    /// IPsec policies exist (xfrm).
    pub ipsec: bool,
    /// Others than this daemon listen to protocol 41: raw sockets, or sit tunnels.
    pub listeners: bool,
}
