//! The hosts that solicited lately: whom an advertisement to all nodes is for, and who waits for one now.
//!
//! Bounded: anybody may solicit in any name. When the table is full, whoever solicited once and is silent for longest gives
//! way first; hosts that came back, as real ones do, go last (FAULTS 52).

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Hosts remembered at most, in less than a megabyte.
pub const MAX_CLIENTS: usize = 4096;

/// How long a silent host is remembered: the longest lifetime a router can have (RFC 4861 6.2.1). Afterwards it has asked
/// again, or it is gone.
const MEMORY: Duration = Duration::from_secs(9000);
/// Whoever solicits again after so long is a host that was served: unserved ones repeat sooner (RFC 7559 2).
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How many waiting ones are passed over to find one to forget.
const MAX_PASSED_OVER: usize = 64;

/// One host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Where an advertisement goes to inside.
    pub(super) addr: Ipv6Addr,
    /// Our address that it solicited.
    pub(super) locator: Ipv4Addr,
    /// It waits because it asked.
    pub(super) asked: bool,
    heard_at: Instant,
    steady: bool,
    due_at: Option<Instant>,
}

/// The table, by IPv4 address.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_addr: HashMap<Ipv4Addr, Client>,
    by_age: BTreeSet<(bool, Instant, Ipv4Addr)>,
    by_due: BTreeSet<(Instant, Ipv4Addr)>,
}

impl Clients {
    /// Notes a solicitation; false when there is no room for a new host.
    pub(super) fn hear(&mut self, now: Instant, v4: Ipv4Addr, addr: Ipv6Addr, locator: Ipv4Addr) -> bool {
        if let Some(client) = self.by_addr.get_mut(&v4) {
            self.by_age.remove(&(client.steady, client.heard_at, v4));
            client.steady |= now.saturating_duration_since(client.heard_at) >= STEADY_AFTER;
            (client.addr, client.locator, client.heard_at) = (addr, locator, now);
            self.by_age.insert((client.steady, now, v4));
            return true;
        }
        if self.by_addr.len() >= MAX_CLIENTS && !self.forget_one() {
            return false;
        }
        let client = Client {
            addr,
            locator,
            asked: false,
            heard_at: now,
            steady: false,
            due_at: None,
        };
        self.by_addr.insert(v4, client);
        self.by_age.insert((false, now, v4));
        true
    }

    /// Has a host wait until `at`; false when it waits already, and goes on as before. `asked`: because it solicited.
    pub(super) fn schedule(&mut self, v4: Ipv4Addr, at: Instant, asked: bool) -> bool {
        let Some(client) = self.by_addr.get_mut(&v4) else {
            return false;
        };
        client.asked |= asked;
        if client.due_at.is_some() {
            return false;
        }
        client.due_at = Some(at);
        self.by_due.insert((at, v4));
        true
    }

    /// The next host whose wait is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Ipv4Addr, Client)> {
        let &(at, v4) = self.by_due.first().filter(|(at, _)| *at <= now)?;
        self.by_due.remove(&(at, v4));
        let client = self.by_addr.get_mut(&v4)?;
        client.due_at = None;
        let taken = *client;
        client.asked = false;
        Some((v4, taken))
    }

    /// Nobody waits any more.
    pub(super) fn cancel_all(&mut self) {
        for (_, v4) in std::mem::take(&mut self.by_due) {
            if let Some(client) = self.by_addr.get_mut(&v4) {
                (client.due_at, client.asked) = (None, false);
            }
        }
    }

    /// When the next wait is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(at, _)| *at)
    }

    /// Forgets who has been silent for too long and waits for nothing.
    pub(super) fn expire(&mut self, now: Instant) {
        let old = |(_, at, v4): &&(bool, Instant, Ipv4Addr)| {
            now.saturating_duration_since(*at) >= MEMORY && self.is_idle(*v4)
        };
        let gone: Vec<_> = self.by_age.iter().filter(old).copied().collect();
        gone.into_iter().for_each(|entry| self.forget(entry));
    }

    /// Every host.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Client)> {
        self.by_addr.iter().map(|(v4, client)| (*v4, client))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_addr.len()
    }

    fn is_idle(&self, v4: Ipv4Addr) -> bool {
        self.by_addr
            .get(&v4)
            .is_some_and(|client| client.due_at.is_none())
    }

    /// Makes room for one.
    fn forget_one(&mut self) -> bool {
        let idle = self
            .by_age
            .iter()
            .take(MAX_PASSED_OVER)
            .find(|entry| self.is_idle(entry.2));
        let Some(entry) = idle.copied() else {
            return false;
        };
        self.forget(entry);
        true
    }

    fn forget(&mut self, entry: (bool, Instant, Ipv4Addr)) {
        self.by_age.remove(&entry);
        self.by_addr.remove(&entry.2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn v4(number: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(number).unwrap())
    }

    fn hear(clients: &mut Clients, now: Instant, number: usize) -> bool {
        clients.hear(now, v4(number), Ipv6Addr::LOCALHOST, US)
    }

    /// FAULTS 52, DESIGN D13: at the bound whoever came once goes before whoever came back.
    #[test]
    fn past_the_bound_strangers_give_way() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clients = Clients::default();
        assert!(hear(&mut clients, at(0), 0));
        assert!(hear(&mut clients, at(60), 0), "the host came back");
        for number in 1..10 * MAX_CLIENTS {
            assert!(hear(&mut clients, at(61), number));
            assert!(clients.len() <= MAX_CLIENTS);
        }
        let known = |clients: &Clients, number| clients.iter().any(|(addr, _)| addr == v4(number));
        assert!(known(&clients, 0) && known(&clients, 10 * MAX_CLIENTS - 1));
        assert!(!known(&clients, 1));
        assert_eq!(clients.by_age.len(), MAX_CLIENTS);
    }

    #[test]
    fn whoever_waits_is_not_forgotten() {
        let now = Instant::now();
        let mut clients = Clients::default();
        for number in 0..MAX_CLIENTS {
            assert!(hear(&mut clients, now, number));
            assert!(clients.schedule(v4(number), now, true));
        }
        assert!(!hear(&mut clients, now, MAX_CLIENTS));
        assert_eq!(clients.take_due(now).unwrap().0, v4(0));
        assert!(hear(&mut clients, now, MAX_CLIENTS));
        assert_eq!(clients.len(), MAX_CLIENTS);
    }

    #[test]
    fn the_silent_are_forgotten() {
        let now = Instant::now();
        let mut clients = Clients::default();
        hear(&mut clients, now, 0);
        hear(&mut clients, now + Duration::from_secs(1), 1);
        clients.expire(now + MEMORY);
        assert_eq!(clients.len(), 1);
        clients.schedule(v4(1), now, false);
        clients.expire(now + 2 * MEMORY);
        assert_eq!(clients.len(), 1, "it waits");
        clients.cancel_all();
        clients.expire(now + 2 * MEMORY);
        assert_eq!((clients.len(), clients.next_due()), (0, None));
    }

    /// T4: one pending answer for each host.
    #[test]
    fn a_host_waits_once() {
        let now = Instant::now();
        let mut clients = Clients::default();
        hear(&mut clients, now, 0);
        assert!(clients.schedule(v4(0), now, false));
        assert!(!clients.schedule(v4(0), now + Duration::from_secs(9), true));
        let (_, client) = clients.take_due(now).unwrap();
        assert!(client.asked);
        assert!(clients.take_due(now + Duration::from_secs(9)).is_none());
        assert!(clients.schedule(v4(0), now, false), "and then again");
    }
}
