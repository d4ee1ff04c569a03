//! What the kernel lost beside the workers: packets for us that found the tunnel interface's queue full, and packets of
//! everybody that the queueing or the devices of the underlay refused. Asked for when somebody wants to know, never on the
//! packet path.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};

use super::{Netlink, NetlinkError};

/// How long all answers may take: somebody waits for a scrape, and what was known before is good enough.
const PATIENCE: Duration = Duration::from_millis(20);
/// Devices added up at most.
const MAX_DEVICES: usize = 16;
/// Devices remembered at most, those that were of the underlay once among them.
const MAX_REMEMBERED: usize = 64;

/// The kernel's counters, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Packets that a full queue of the tunnel interface dropped: workers were too slow.
    pub tun: u64,
    /// Packets that the tunnel interface did not take from programs in the kernel: it was down, or there was no room.
    pub tun_rx: u64,
    /// Packets that the queueing disciplines of the underlay's devices dropped, ours and others'. Ours are among the drops for
    /// `send_error` as well. Begins anew when a discipline is replaced.
    pub qdisc: u64,
    /// Packets that the underlay's devices did not send, ours and others': nobody else hears what became of a packet that
    /// programs in the kernel sent, be it that there was no room for one more neighbour.
    pub device: u64,
    queues: PerDevice,
    devices: PerDevice,
}

/// What each device counts for itself. One that is no underlay any more, since its address went, keeps what it had: without it the sum
/// would go back, and with it again whoever computes rates would take all that the device ever lost for the losses of a moment.
#[derive(Clone, Debug, Default)]
struct PerDevice {
    last: BTreeMap<u32, u64>,
    /// Of devices that are remembered no more.
    forgotten: u64,
}

impl PerDevice {
    fn take(&mut self, if_index: u32, count: u64) {
        self.last.insert(if_index, count);
    }

    /// Remembers no more than that, `current` ones in any case: their counts come again. The lowest number is the oldest device.
    fn forget(&mut self, current: &BTreeSet<u32>) {
        while self.last.len() > MAX_REMEMBERED
            && let Some(oldest) = self.last.keys().find(|device| !current.contains(device)).copied()
        {
            let count = self.last.remove(&oldest).unwrap_or_default();
            self.forgotten = self.forgotten.saturating_add(count);
        }
    }

    fn sum(&self) -> u64 {
        self.last
            .values()
            .fold(self.forgotten, |sum, count| sum.saturating_add(*count))
    }
}

/// What an interface did not take.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    /// Packets to be sent.
    sent: u64,
    /// The same, where the kernel or a driver takes it for an error.
    errors: u64,
    /// Packets that came in.
    received: u64,
}

impl Losses {
    /// Reads them anew; what is not answered in time stays as it was.
    pub async fn refresh(&mut self, netlink: &Netlink, tunnel: u32, underlay: impl Iterator<Item = u32>) {
        let devices: BTreeSet<u32> = underlay.take(MAX_DEVICES).collect();
        let read = async {
            if let Ok(refused) = netlink.refused(tunnel).await {
                (self.tun, self.tun_rx) = (refused.sent, refused.received);
            }
            if let Ok(dropped) = netlink.qdisc_drops(&devices).await {
                for (if_index, count) in dropped {
                    self.queues.take(if_index, count);
                }
                self.queues.forget(&devices);
                self.qdisc = self.queues.sum();
            }
            for if_index in &devices {
                if let Ok(refused) = netlink.refused(*if_index).await {
                    self.devices.take(*if_index, refused.sent + refused.errors);
                }
            }
            self.devices.forget(&devices);
            self.device = self.devices.sum();
        };
        if tokio::time::timeout(PATIENCE, read).await.is_err() {
            tracing::debug!("the kernel is slow to tell what it dropped");
        }
    }
}

impl Netlink {
    /// Packets that an interface dropped instead of sending, and of receiving, them.
    async fn refused(&self, if_index: u32) -> Result<Refused, NetlinkError> {
        let mut question = LinkMessage::default();
        question.header.index = if_index;
        let answers = self
            .request(
                "read the counters of the interface",
                RouteNetlinkMessage::GetLink(question),
                NLM_F_REQUEST,
            )
            .await?;
        let links = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(&link.attributes),
            _ => None,
        });
        let mut counts = links.flatten().filter_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(Refused {
                sent: stats.tx_dropped,
                errors: stats.tx_errors,
                received: stats.rx_dropped,
            }),
            _ => None,
        });
        Ok(counts.next().unwrap_or_default())
    }

    /// Packets that the root queueing discipline of each of these devices dropped; they know of those below them.
    ///
    /// All of the machine's are listed: asked for one alone, the kernel tells it to everybody who listens to changes.
    async fn qdisc_drops(&self, devices: &BTreeSet<u32>) -> Result<BTreeMap<u32, u64>, NetlinkError> {
        let answers = self
            .request(
                "list queueing disciplines",
                RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()),
                NLM_F_REQUEST | NLM_F_DUMP,
            )
            .await?;
        let disciplines = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(discipline) => Some(discipline),
            _ => None,
        });
        let ours = disciplines.filter_map(|discipline| {
            let device = u32::try_from(discipline.header.index).ok()?;
            let is_ours = discipline.header.parent == TcHandle::ROOT && devices.contains(&device);
            is_ours.then(|| (device, drops_of(discipline)))
        });
        Ok(ours.collect())
    }
}

fn drops_of(discipline: &TcMessage) -> u64 {
    let stats = discipline
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            TcAttribute::Stats2(stats) => Some(stats),
            _ => None,
        });
    let drops = stats.flatten().filter_map(|part| match part {
        TcStats2::Queue(queue) => Some(u64::from(queue.drops)),
        _ => None,
    });
    drops.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_lost_stays_when_others_take_its_place() {
        let mut lost = PerDevice::default();
        lost.take(2, 1_000_000);
        assert_eq!(lost.sum(), 1_000_000);
        lost.take(3, 5);
        assert_eq!(lost.sum(), 1_000_005);
        lost.take(2, 1_000_001);
        assert_eq!(lost.sum(), 1_000_006);
        for if_index in 4..1000 {
            let before = lost.sum();
            lost.take(2, 1_000_001);
            lost.take(if_index, 1);
            lost.forget(&BTreeSet::from([2, if_index]));
            assert_eq!(lost.sum(), before + 1);
        }
        assert!(lost.last.len() <= MAX_REMEMBERED);
    }
}
