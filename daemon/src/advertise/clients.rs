//! The hosts that solicited lately: whom an advertisement to all nodes is for, and who waits for one now.
//!
//! Bounded, and tight, so that a large site fits: anybody may solicit in any name. When the table is full, whoever solicited once and is silent for longest gives
//! way first; hosts that came back, as real ones do, go last (FAULTS 52).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::isatap::iid;

use super::order::{Order, Place, Queue};

/// Hosts remembered at most, in less than a megabyte.
pub const MAX_CLIENTS: usize = 16_384;

/// How long a silent host is remembered: the longest lifetime a router can have (RFC 4861 6.2.1). Afterwards it has asked
/// again, or it is gone.
const MEMORY: Duration = Duration::from_secs(9000);
/// Whoever solicits again after so long is a host that was served: unserved ones repeat sooner (RFC 7559 2).
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How many waiting ones are passed over to find one to forget.
const MAX_PASSED_OVER: usize = 64;
/// Where a host without an address listens.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// One host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Where an advertisement goes to outside.
    pub(super) v4: Ipv4Addr,
    /// And inside.
    pub(super) addr: Ipv6Addr,
    /// Our address that it solicited.
    pub(super) locator: Ipv4Addr,
    /// It waits because it asked.
    pub(super) asked: bool,
}

/// Tenths of a second since the table began: for thirteen years.
type Tenths = u32;

/// What is kept of a host.
#[derive(Clone, Copy, Debug)]
struct Record {
    v4: Ipv4Addr,
    locator: Ipv4Addr,
    /// The first half of its interface identifier, with the `u` bit as it has it; 0 when it gave none.
    identifier: u32,
    heard_at: Tenths,
    queue: Queue,
    waits: bool,
    asked: bool,
}

impl Record {
    /// It has a link-local address with the identifier that it solicited with, under whatever prefix (RFC 5214 6.2). Whoever
    /// gave none is told by the group (RFC 4861 6.2.6).
    fn client(&self) -> Client {
        let identifier = u128::from(self.identifier) << 32 | u128::from(self.v4.to_bits());
        let link_local = Ipv6Addr::from_bits(0xfe80 << 112 | identifier);
        Client {
            v4: self.v4,
            addr: if self.identifier == 0 {
                ALL_NODES
            } else {
                link_local
            },
            locator: self.locator,
            asked: self.asked,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Clients {
    began: Instant,
    places: HashMap<Ipv4Addr, Place>,
    records: Vec<Record>,
    /// Places of records that are forgotten.
    free: Vec<Place>,
    order: Order,
    /// Who waits, by microseconds since the table began.
    due: BinaryHeap<Reverse<(u64, Place)>>,
}

impl Clients {
    /// An empty one.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            places: HashMap::new(),
            records: Vec::new(),
            free: Vec::new(),
            order: Order::default(),
            due: BinaryHeap::new(),
        }
    }

    /// Notes a solicitation from `addr`, which is the host's address inside; false when there is no room for a new host.
    pub(super) fn hear(&mut self, now: Instant, v4: Ipv4Addr, addr: Ipv6Addr, locator: Ipv4Addr) -> bool {
        let heard_at = self.tenths(now);
        let identifier = match iid::embedded(&addr) {
            Some(embedded) if embedded == v4 => {
                u32::try_from(addr.to_bits() >> 32 & 0xffff_ffff).unwrap_or(0)
            }
            _ => 0,
        };
        if let Some(&place) = self.places.get(&v4) {
            let record = &mut self.records[usize::from(place)];
            self.order.take(record.queue, place);
            if heard_at.saturating_sub(record.heard_at) >= tenths(STEADY_AFTER) {
                record.queue = Queue::Steady;
            }
            (record.identifier, record.locator, record.heard_at) = (identifier, locator, heard_at);
            self.order.push(record.queue, place);
            return true;
        }
        let record = Record {
            v4,
            locator,
            identifier,
            heard_at,
            queue: Queue::Stranger,
            waits: false,
            asked: false,
        };
        if self.places.len() >= MAX_CLIENTS && !self.forget_one() {
            return false;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.records[usize::from(place)] = record;
                place
            }
            None => {
                let Ok(place) = Place::try_from(self.records.len()) else {
                    return false;
                };
                self.records.push(record);
                place
            }
        };
        self.places.insert(v4, place);
        self.order.push(Queue::Stranger, place);
        true
    }

    /// Has a host wait until `at`; false when it waits already, and goes on as before. `asked`: because it solicited.
    pub(super) fn schedule(&mut self, v4: Ipv4Addr, at: Instant, asked: bool) -> bool {
        let Some(&place) = self.places.get(&v4) else {
            return false;
        };
        let record = &mut self.records[usize::from(place)];
        record.asked |= asked;
        if std::mem::replace(&mut record.waits, true) {
            return false;
        }
        self.due.push(Reverse((self.micros(at), place)));
        true
    }

    /// The next host whose wait is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Client> {
        let now = self.micros(now);
        let &Reverse((_, place)) = self.due.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.due.pop();
        let record = &mut self.records[usize::from(place)];
        let taken = record.client();
        (record.waits, record.asked) = (false, false);
        Some(taken)
    }

    /// Nobody waits any more.
    pub(super) fn cancel_all(&mut self) {
        for Reverse((_, place)) in self.due.drain() {
            let record = &mut self.records[usize::from(place)];
            (record.waits, record.asked) = (false, false);
        }
    }

    /// When the next wait is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let Reverse((at, _)) = self.due.peek()?;
        Some(self.began + Duration::from_micros(*at))
    }

    /// Forgets who has been silent for too long and waits for nothing.
    pub(super) fn expire(&mut self, now: Instant) {
        let now = self.tenths(now);
        for queue in [Queue::Stranger, Queue::Steady] {
            let is_old = |place: &Place| now.saturating_sub(self.record(*place).heard_at) >= tenths(MEMORY);
            let old = self.order.iter(queue).take_while(is_old);
            let gone: Vec<_> = old.filter(|place| !self.record(*place).waits).collect();
            gone.into_iter().for_each(|place| self.forget(place));
        }
    }

    /// Every host.
    pub(super) fn iter(&self) -> impl Iterator<Item = Client> {
        self.places.values().map(|place| self.record(*place).client())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn record(&self, place: Place) -> &Record {
        &self.records[usize::from(place)]
    }

    /// Makes room for one.
    fn forget_one(&mut self) -> bool {
        let strangers = self.order.iter(Queue::Stranger);
        let all = strangers.chain(self.order.iter(Queue::Steady));
        let idle = all.take(MAX_PASSED_OVER).find(|place| !self.record(*place).waits);
        idle.map(|place| self.forget(place)).is_some()
    }

    fn forget(&mut self, place: Place) {
        let Record { v4, queue, .. } = *self.record(place);
        self.order.take(queue, place);
        self.places.remove(&v4);
        self.free.push(place);
    }

    fn tenths(&self, at: Instant) -> Tenths {
        tenths(at.saturating_duration_since(self.began))
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

fn tenths(duration: Duration) -> Tenths {
    Tenths::try_from(duration.as_millis() / 100).unwrap_or(Tenths::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn v4(number: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(number).unwrap())
    }

    fn hear(clients: &mut Clients, now: Instant, number: usize) -> bool {
        clients.hear(now, v4(number), iid::link_local(v4(number)), US)
    }

    /// FAULTS 52, DESIGN D13: at the bound whoever came once goes before whoever came back.
    #[test]
    fn past_the_bound_strangers_give_way() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clients = Clients::new(start);
        assert!(hear(&mut clients, at(0), 0));
        assert!(hear(&mut clients, at(60), 0), "the host came back");
        for number in 1..10 * MAX_CLIENTS {
            assert!(hear(&mut clients, at(61), number));
            assert!(clients.len() <= MAX_CLIENTS);
        }
        let known = |clients: &Clients, number| clients.iter().any(|client| client.v4 == v4(number));
        assert!(known(&clients, 0) && known(&clients, 10 * MAX_CLIENTS - 1));
        assert!(!known(&clients, 1));
        assert_eq!(clients.records.len(), MAX_CLIENTS);
    }

    /// FAULTS 52: all hosts wait at once, the table has grown, and takes less than a megabyte.
    #[test]
    fn a_full_table_is_small() {
        let now = Instant::now();
        let mut clients = Clients::new(now);
        for number in 0..MAX_CLIENTS {
            assert!(hear(&mut clients, now, number));
            assert!(clients.schedule(v4(number), now + STEADY_AFTER, true));
        }
        // A hash table is seven eighths full at most, and has a byte more for each place.
        let places =
            (clients.places.capacity() * 8 / 7).next_power_of_two() * (size_of::<(Ipv4Addr, Place)>() + 1);
        let records = clients.records.capacity() * size_of::<Record>() + clients.order.bytes();
        let due = clients.due.capacity() * size_of::<Reverse<(u64, Place)>>();
        assert!(
            places + records + due < 1 << 20,
            "{places} + {records} + {due} bytes"
        );
    }

    #[test]
    fn whoever_waits_is_not_forgotten() {
        let now = Instant::now();
        let mut clients = Clients::new(now);
        for number in 0..MAX_CLIENTS {
            assert!(hear(&mut clients, now, number));
            assert!(clients.schedule(v4(number), now, true));
        }
        assert!(!hear(&mut clients, now, MAX_CLIENTS));
        assert_eq!(clients.take_due(now).unwrap().v4, v4(0));
        assert!(hear(&mut clients, now, MAX_CLIENTS));
        assert_eq!(clients.len(), MAX_CLIENTS);
    }

    #[test]
    fn the_silent_are_forgotten() {
        let now = Instant::now();
        let mut clients = Clients::new(now);
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
        let mut clients = Clients::new(now);
        hear(&mut clients, now, 0);
        assert!(clients.schedule(v4(0), now, false));
        assert!(!clients.schedule(v4(0), now + Duration::from_secs(9), true));
        let client = clients.take_due(now).unwrap();
        assert!(client.asked);
        assert!(clients.take_due(now + Duration::from_secs(9)).is_none());
        assert!(clients.schedule(v4(0), now, false), "and then again");
    }
}
