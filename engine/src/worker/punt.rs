//! Packets for control: copied out of their slot, through a bounded channel, with a bell.
//!
//! Solicitations and advertisements are rare; a flood of them fills the channel and is counted, never waited for.

use std::net::Ipv4Addr;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::io::wake::Bell;
use crate::path::PuntKind;

/// Punts that wait for control at most.
pub const MAX_PUNTS_WAITING: usize = 256;

/// One inner packet that is control's business.
#[derive(Clone, Debug)]
pub struct Punt {
    /// What it is.
    pub kind: PuntKind,
    /// The whole inner packet.
    pub packet: Bytes,
    /// The addresses of the outer header it came in; `None` when it came from the TUN queue.
    pub outer: Option<OuterEnds>,
}

/// Where an outer packet came from, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterEnds {
    /// The sender.
    pub src: Ipv4Addr,
    /// The locator it was sent to.
    pub dst: Ipv4Addr,
}

/// The workers' end.
#[derive(Clone, Debug)]
pub(crate) struct PuntSender {
    channel: Sender<Punt>,
    bell: Bell,
}

impl PuntSender {
    /// A channel whose receiver's bell is `bell`.
    pub(crate) fn new(bell: Bell) -> (Self, Receiver<Punt>) {
        let (channel, receiver) = bounded(MAX_PUNTS_WAITING);
        (Self { channel, bell }, receiver)
    }

    /// Copies `packet` to control; `false` when too many wait already.
    pub(crate) fn send(&self, kind: PuntKind, packet: &[u8], outer: Option<OuterEnds>) -> bool {
        if self.channel.is_full() {
            return false;
        }
        let sent = self
            .channel
            .try_send(Punt {
                kind,
                packet: Bytes::copy_from_slice(packet),
                outer,
            })
            .is_ok();
        self.bell.ring();
        sent
    }
}
