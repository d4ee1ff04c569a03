//! The mirror kept current: notifications in, a fresh dump whenever one got lost (FAULTS 55).

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::time::Instant;

use super::{Effect, MirrorState, Netlink, NetlinkError};

/// What tells about changes: links, addresses of both families, IPv6 routes.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

/// Least time between two dumps, so that a storm of changes costs a bounded share of control's time.
const MIN_DUMP_INTERVAL: Duration = Duration::from_millis(50);

/// Failed dumps in a row before the caller is told, and the pause between them.
const MAX_FAILURES: u32 = 10;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Most notifications taken before the caller gets its turn.
const MAX_BURST: usize = 4096;

/// The mirror and the sockets that feed it.
pub struct Watch {
    netlink: Netlink,
    notifications: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    state: MirrorState,
    resync: bool,
    dumped_at: Instant,
    overruns: u64,
    failures: u32,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("state", &self.state)
            .field("overruns", &self.overruns)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Subscribes, then dumps: what changes in between arrives again as a notification.
    ///
    /// # Errors
    /// When the kernel gives no socket or refuses the dump.
    pub async fn open(netlink: Netlink, if_index: u32) -> Result<Self, NetlinkError> {
        let (connection, _, notifications) = rtnetlink::new_multicast_connection(&GROUPS)?;
        tokio::spawn(connection);
        let state = MirrorState::from_dump(if_index, &netlink.dump(if_index).await?);
        Ok(Self {
            netlink,
            notifications: notifications.map(|(message, _)| message).boxed(),
            state,
            resync: false,
            dumped_at: Instant::now(),
            overruns: 0,
            failures: 0,
        })
    }

    /// The mirror now.
    pub fn state(&self) -> &MirrorState {
        &self.state
    }

    /// How often notifications were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Waits for something that concerns us: [`Effect::Changed`] or [`Effect::Gone`]. May be dropped at any await
    /// without losing a change.
    ///
    /// # Errors
    /// When the netlink socket died or a dump failed: the caller cannot go on blind.
    pub async fn changed(&mut self) -> Result<Effect, NetlinkError> {
        loop {
            if self.resync {
                return self.dump().await;
            }
            let lost = || NetlinkError::Closed {
                operation: "wait for netlink notifications".to_owned(),
            };
            let first = self.notifications.next().await.ok_or_else(lost)?;
            // No await from here on: what was taken from the stream is also applied.
            let mut effect = self.take(&first);
            for _ in 1..MAX_BURST {
                let Some(Some(next)) = futures_util::FutureExt::now_or_never(self.notifications.next())
                else {
                    break;
                };
                effect = effect.max(self.take(&next));
            }
            match effect {
                Effect::Nothing => {}
                Effect::Changed | Effect::Gone => return Ok(effect),
                Effect::Resync => self.resync = true,
            }
        }
    }

    fn take(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) -> Effect {
        match &message.payload {
            NetlinkPayload::InnerMessage(inner) => {
                let effect = self.state.apply(message.header.flags, inner);
                self.resync |= effect == Effect::Resync;
                effect
            }
            NetlinkPayload::Overrun(_) => {
                self.overruns += 1;
                self.resync = true;
                Effect::Resync
            }
            _ => Effect::Nothing,
        }
    }

    async fn dump(&mut self) -> Result<Effect, NetlinkError> {
        tokio::time::sleep_until(self.dumped_at + MIN_DUMP_INTERVAL).await;
        let if_index = self.state.if_index();
        // Notifications that wait already describe what the dump will show anyhow; later ones stay in the stream.
        let dump = match self.netlink.dump(if_index).await {
            Ok(dump) => dump,
            Err(error) if error.errno() == Some(nix::libc::ENODEV) => return Ok(Effect::Gone),
            // The old state is better than none for the moment: the next attempt follows.
            Err(error) if self.failures < MAX_FAILURES => {
                tracing::warn!("{error}; trying again");
                self.failures += 1;
                self.dumped_at = Instant::now() + RETRY_AFTER;
                return Ok(Effect::Changed);
            }
            Err(error) => return Err(error),
        };
        self.failures = 0;
        self.state = MirrorState::from_dump(if_index, &dump);
        self.dumped_at = Instant::now();
        self.resync = false;
        Ok(Effect::Changed)
    }
}
