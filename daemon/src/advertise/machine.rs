//! When who is told: random delays, one pending answer for each host, rounds of unsolicited advertisements after a change
//! and before the end (RFC 4861 6.2.4-6.2.6).
//!
//! ```text
//!            set(Some)                      set(None)
//!  silent -----------> advertising -----------------------> ceasing --three rounds--> silent
//!    |                   | solicited: one answer within 0.5 s
//!    |                   ` changed: three rounds to all
//!    ` solicited: noted; spread: what another program says goes to all, once
//! ```
//!
//! A router that is being drained advertises in the tone of last words, and goes on. Where other routers have the same
//! address (anycast) there are no last words: they would take the router away from hosts that another one serves.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isatap_engine::isatap::iid;
use isatap_engine::path::limit::TokenBucket;

use super::clients::{Client, Clients, Known};
use super::message::{Content, Tone};
use super::withdrawn::{TakenBack, Withdrawn};
use crate::config::resolved::Advertise;
use crate::prl::Jitter;

/// MAX_RA_DELAY_TIME (RFC 4861 10): an answer comes within it.
const MAX_DELAY: Duration = Duration::from_millis(500);
/// MAX_INITIAL_RTR_ADVERTISEMENTS (RFC 4861 10): as often everybody is told of a change (6.2.4).
const CHANGE_ROUNDS: u8 = 3;
/// MAX_INITIAL_RTR_ADVERT_INTERVAL (RFC 4861 10).
const CHANGE_INTERVAL: Duration = Duration::from_secs(16);
/// MAX_FINAL_RTR_ADVERTISEMENTS (RFC 4861 10).
pub const FINAL_ROUNDS: u8 = 3;
/// MIN_DELAY_BETWEEN_RAS (RFC 4861 10).
const FINAL_INTERVAL: Duration = Duration::from_secs(3);
/// Hosts a second in a round: what they do upon it should not come at once.
const ROUND_PER_SECOND: u32 = 1024;
/// Advertisements a second and at once, over all; what is beyond is counted (T4).
const SENT_PER_SECOND: u32 = 8192;
const SENT_BURST: u32 = 1024;
/// Advertisements made in one turn, so that nothing else waits for long.
pub const MAX_PER_TURN: usize = 128;
/// How often silent hosts are forgotten.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);

/// A solicitation that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct Solicitation {
    /// The outer source: the one IPv4 address that is the sender's for certain. Where the inner source is an ISATAP
    /// address, it embeds the same.
    pub from: Ipv4Addr,
    /// The inner source.
    pub src: Ipv6Addr,
    /// The locator it was sent to.
    pub locator: Ipv4Addr,
}

/// What became of a solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer is on its way.
    Answered,
    /// An answer was on its way already.
    Merged,
    /// Another program answers; the sender is remembered.
    Noted,
    /// Too many hosts wait.
    TableFull,
}

impl Heard {
    /// The label on metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Merged => "merged",
            Self::Noted => "noted",
            Self::TableFull => "table_full",
        }
    }
}

/// Why an advertisement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its receiver asked.
    Solicited,
    /// What is said has changed.
    Unsolicited,
    /// This router goes.
    Final,
    /// Another program said it to all nodes.
    Spread,
}

impl Kind {
    /// The label on metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Solicited => "solicited",
            Self::Unsolicited => "unsolicited",
            Self::Final => "final",
            Self::Spread => "spread",
        }
    }
}

/// Labels of solicitations on metrics: those of [`Heard`], and one for what cannot be read.
pub const HEARD_RESULTS: [&str; 5] = [
    Heard::Answered.name(),
    "malformed",
    Heard::Merged.name(),
    Heard::Noted.name(),
    Heard::TableFull.name(),
];

/// Labels of advertisements on metrics: those of [`Kind`] for the ones sent, and why others were not.
pub const SENT_RESULTS: [&str; 6] = [
    "failed",
    Kind::Final.name(),
    "limited",
    Kind::Solicited.name(),
    Kind::Spread.name(),
    Kind::Unsolicited.name(),
];

/// An advertisement to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The outer source.
    pub from: Ipv4Addr,
    /// The outer destination.
    pub to: Ipv4Addr,
    /// The inner packet.
    pub packet: Bytes,
    /// Why.
    pub kind: Kind,
}

/// Rounds that are left.
#[derive(Clone, Copy, Debug)]
struct Rounds {
    left: u8,
    next_at: Instant,
    interval: Duration,
}

/// What is said at the moment.
#[derive(Debug)]
enum Voice {
    Silent,
    Advertising(Content, Tone),
    Ceasing(Content),
    /// Another program's words.
    Spreading(Bytes),
}

/// The machine.
#[derive(Debug)]
pub struct Advertiser {
    clients: Clients,
    voice: Voice,
    rounds: Option<Rounds>,
    withdrawn: Withdrawn,
    locators: Vec<Ipv4Addr>,
    shared: bool,
    jitter: Jitter,
    limit: TokenBucket,
    limited: u64,
    epoch: Instant,
    expired_at: Instant,
}

impl Advertiser {
    /// One that is silent. `epoch`: before all that happens, and the same for every engine that recalls what this one keeps.
    pub fn new(epoch: Instant, jitter: Jitter) -> Self {
        Self {
            clients: Clients::new(epoch),
            voice: Voice::Silent,
            rounds: None,
            withdrawn: Withdrawn::default(),
            locators: Vec::new(),
            shared: false,
            jitter,
            limit: TokenBucket::new(SENT_BURST, SENT_PER_SECOND),
            limited: 0,
            epoch,
            expired_at: epoch,
        }
    }

    /// What to say from now on, and how; `None` for nothing. Who is known hears of every change.
    pub fn set(&mut self, now: Instant, says: Option<(&Advertise, u16)>, tone: Tone) {
        let tone = if self.shared { Tone::Normal } else { tone };
        let Some((says, mtu)) = says else {
            return self.cease(now);
        };
        let content = Content::new(says, mtu);
        self.withdrawn.replace(now, says);
        if let Voice::Advertising(old, before) = &self.voice
            && (old, *before) == (&content, tone)
        {
            return;
        }
        self.voice = Voice::Advertising(content, tone);
        match tone {
            Tone::Normal => self.begin(now, CHANGE_ROUNDS, CHANGE_INTERVAL),
            Tone::Final => self.begin(now, FINAL_ROUNDS, FINAL_INTERVAL),
        }
    }

    /// Says nothing any more, and so much to all, unless they know or another router goes on under this address.
    fn cease(&mut self, now: Instant) {
        if !matches!(self.voice, Voice::Advertising(..)) {
            return;
        }
        match std::mem::replace(&mut self.voice, Voice::Silent) {
            Voice::Advertising(content, Tone::Normal) if !self.shared => {
                self.voice = Voice::Ceasing(content);
                self.begin(now, FINAL_ROUNDS, FINAL_INTERVAL);
            }
            _ => {
                self.rounds = None;
                self.clients.cancel_all();
            }
        }
    }

    /// The addresses that carry the tunnel, the preferred one first. `shared`: other routers have them, too; says whether
    /// that is news, which [`Advertiser::set`] wants to know.
    pub fn set_locators(&mut self, locators: &[Ipv4Addr], shared: bool) -> bool {
        if self.locators != locators {
            self.locators = locators.to_vec();
        }
        std::mem::replace(&mut self.shared, shared) != shared
    }

    /// Takes a solicitation.
    pub fn solicited(&mut self, now: Instant, heard: &Solicitation) -> Heard {
        if !self.clients.hear(now, heard.from, heard.src, heard.locator) {
            return Heard::TableFull;
        }
        if !matches!(self.voice, Voice::Advertising(..)) {
            return Heard::Noted;
        }
        let at = now + self.jitter.between(Duration::ZERO, MAX_DELAY);
        if self.clients.schedule(heard.from, at, true) {
            Heard::Answered
        } else {
            Heard::Merged
        }
    }

    /// What the next engine is to remember of a host: the bytes, and where among [`MEMORY_LEN`](super::MEMORY_LEN).
    pub fn kept(&self, v4: Ipv4Addr) -> Option<(usize, impl AsRef<[u8]>)> {
        self.clients.kept(v4)
    }

    /// Remembers the hosts that an engine before this one has kept, as long as none is known. They have been told what there
    /// was to tell, so that this is news for none of them.
    pub fn recall(&mut self, now: Instant, kept: &[u8]) {
        if self.clients.len() == 0 {
            self.clients.recall(now, kept);
        }
    }

    /// What this router takes back, for the next engine.
    pub fn taken_back(&self) -> Vec<TakenBack> {
        self.withdrawn.kept(self.epoch)
    }

    /// Goes on with what an engine before this one took back, before the first [`Advertiser::set`].
    pub fn recall_taken_back(&mut self, now: Instant, kept: Vec<TakenBack>) {
        self.withdrawn.recall(self.epoch, now, kept);
    }

    /// Another program on this machine says `packet` to all nodes: everybody who solicited lately gets it. The newest
    /// words replace older ones that are still on their way.
    pub fn spread(&mut self, now: Instant, packet: Bytes) {
        if !matches!(self.voice, Voice::Advertising(..)) {
            self.voice = Voice::Spreading(packet);
            self.rounds = None;
            self.schedule_all(now);
        }
    }

    /// What is to be sent now, at most [`MAX_PER_TURN`]; ask again until there is nothing.
    pub fn due(&mut self, now: Instant) -> Vec<Outgoing> {
        self.keep_up(now);
        let mut list = Vec::new();
        while list.len() < MAX_PER_TURN
            && let Some(client) = self.clients.take_due(now)
        {
            let clock = now.saturating_duration_since(self.epoch);
            if !self
                .limit
                .take(u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX))
            {
                self.limited += 1;
                continue;
            }
            list.extend(self.message(&client));
        }
        list
    }

    /// The last words to everybody known, at once; nothing when this router does not advertise, or another one goes on
    /// under its address.
    pub fn last_words(&self) -> impl Iterator<Item = Outgoing> {
        let content = match &self.voice {
            Voice::Advertising(content, _) | Voice::Ceasing(content) if !self.shared => Some(content),
            _ => None,
        };
        let everybody = content.map(|content| self.clients.iter().map(move |known| (content, known)));
        everybody
            .into_iter()
            .flatten()
            .filter_map(|(content, client)| self.build(content, Tone::Final, &client))
    }

    /// When [`Advertiser::due`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let rounds = self.rounds.map(|rounds| rounds.next_at);
        let forget = (self.clients.len() > 0).then(|| self.expired_at + EXPIRE_INTERVAL);
        [self.clients.next_due(), rounds, forget]
            .into_iter()
            .flatten()
            .min()
    }

    /// Hosts that solicited lately.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// They, in no order.
    pub fn known(&self, now: Instant) -> impl Iterator<Item = Known> {
        self.clients.known(now)
    }

    /// Advertisements that the limit over all held back.
    pub fn limited(&self) -> u64 {
        self.limited
    }

    /// Whoever waits already gets the new words with the first round.
    fn begin(&mut self, now: Instant, rounds: u8, interval: Duration) {
        self.rounds = Some(Rounds {
            left: rounds,
            next_at: now,
            interval,
        });
        // Whoever comes later hears the new words anyway.
        self.keep_up(now);
    }

    /// Rounds that are due, hosts to be forgotten.
    fn keep_up(&mut self, now: Instant) {
        if now.saturating_duration_since(self.expired_at) >= EXPIRE_INTERVAL {
            self.expired_at = now;
            self.clients.expire(now);
            self.withdrawn.expire(now);
        }
        let Some(rounds) = self.rounds.filter(|rounds| rounds.next_at <= now) else {
            return;
        };
        if rounds.left == 0 || self.clients.len() == 0 {
            self.rounds = None;
            if matches!(self.voice, Voice::Ceasing(_)) {
                self.voice = Voice::Silent;
                self.clients.cancel_all();
            }
            return;
        }
        let period = self.schedule_all(now);
        self.rounds = Some(Rounds {
            left: rounds.left - 1,
            next_at: now + rounds.interval.max(period),
            ..rounds
        });
    }

    /// Everybody, one after the other; how long that takes. Whoever still waits from the last time is told once for both.
    fn schedule_all(&mut self, now: Instant) -> Duration {
        let everybody: Vec<_> = self.clients.iter().map(|client| client.v4).collect();
        let count = u32::try_from(everybody.len()).unwrap_or(u32::MAX);
        let period = MAX_DELAY.max(Duration::from_secs(1) * count / ROUND_PER_SECOND);
        for v4 in everybody {
            let at = now + self.jitter.between(Duration::ZERO, period);
            self.clients.schedule(v4, at, false);
        }
        period
    }

    fn message(&self, client: &Client) -> Option<Outgoing> {
        match &self.voice {
            Voice::Silent => None,
            Voice::Advertising(content, tone) => self.build(content, *tone, client),
            Voice::Ceasing(content) => self.build(content, Tone::Final, client),
            Voice::Spreading(packet) => Some(Outgoing {
                from: self.spoken_from(packet)?,
                to: client.v4,
                packet: packet.clone(),
                kind: Kind::Spread,
            }),
        }
    }

    fn build(&self, content: &Content, tone: Tone, client: &Client) -> Option<Outgoing> {
        // An address that is gone speaks no more.
        let has = |locator: &&Ipv4Addr| **locator == client.locator;
        let from = *self.locators.iter().find(has).or(self.locators.first())?;
        let ends = (iid::link_local(from), client.addr);
        let (kind, withdrawn) = match tone {
            Tone::Final => (Kind::Final, Vec::new()),
            Tone::Normal if client.asked => (Kind::Solicited, self.withdrawn.options_for(content, client.v4)),
            Tone::Normal => (Kind::Unsolicited, self.withdrawn.options_for(content, client.v4)),
        };
        Some(Outgoing {
            from,
            to: client.v4,
            packet: content.packet(tone, ends, client.v4, withdrawn).into(),
            kind,
        })
    }

    /// The locator in the source of another program's packet, or the preferred one.
    fn spoken_from(&self, packet: &[u8]) -> Option<Ipv4Addr> {
        let source = packet
            .get(8..24)
            .and_then(|octets| <[u8; 16]>::try_from(octets).ok());
        let embedded = source.and_then(|octets| iid::embedded(&Ipv6Addr::from(octets)));
        let named = self.locators.iter().find(|locator| Some(**locator) == embedded);
        named.or(self.locators.first()).copied()
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
