//! The hosts that solicited lately: whom an advertisement to all nodes is for, and who waits for one now.
//!
//! Bounded, and tight, so that a large site fits: anybody may solicit in any name. When the table is full, whoever solicited once
//! and is silent for longest gives way first; hosts that came back, as real ones do, go last (FAULTS 52).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::order::{Order, Place, Queue};
use super::record::{RECORD_LEN, Record, Tenths};

/// Hosts remembered at most, in less than a megabyte.
pub const MAX_CLIENTS: usize = 16_384;

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
    /// Where an advertisement goes to outside.
    pub(super) v4: Ipv4Addr,
    /// And inside.
    pub(super) addr: Ipv6Addr,
    /// Our address that it solicited.
    pub(super) locator: Ipv4Addr,
    /// It waits because it asked.
    pub(super) asked: bool,
}

impl From<&Record> for Client {
    fn from(record: &Record) -> Self {
        Self {
            v4: record.v4,
            addr: record.addr(),
            locator: record.locator,
            asked: record.asked,
        }
    }
}

/// What there is to say of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its address inside, if it solicited with one.
    pub link_local: Option<Ipv6Addr>,
    /// Our address that it solicited.
    pub locator: Ipv4Addr,
    /// Since it solicited last, to a tenth of a second.
    pub silent_for: Duration,
    /// It solicited again after it was served.
    pub came_back: bool,
}

/// Bytes of the hosts that an engine leaves to the next: each has its place.
pub const MEMORY_LEN: usize = MAX_CLIENTS * RECORD_LEN;

/// The table.
#[derive(Debug)]
pub(super) struct Clients {
    epoch: Instant,
    places: HashMap<Ipv4Addr, Place>,
    records: Vec<Record>,
    /// Places of records that are forgotten.
    free: Vec<Place>,
    order: Order,
    /// Who waits, by microseconds since the epoch.
    due: BinaryHeap<Reverse<(u64, Place)>>,
}

impl Clients {
    /// An empty one. `epoch`: before all that happens, and the same for every engine that is to go on with this table.
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
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
        let identifier = Record::identifier_of(&addr, v4);
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
            ..Record::NOBODY
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

    /// What the next engine is to remember of a host: the bytes, and where among those of all hosts.
    pub(super) fn kept(&self, v4: Ipv4Addr) -> Option<(usize, [u8; RECORD_LEN])> {
        let place = *self.places.get(&v4)?;
        Some((usize::from(place) * RECORD_LEN, self.record(place).encode()))
    }

    /// Remembers, in an empty table, what an engine before this one has kept; each host has its place again.
    pub(super) fn recall(&mut self, now: Instant, kept: &[u8]) {
        let now = self.tenths(now);
        let is_fresh = |record: &Record| {
            now.checked_sub(record.heard_at)
                .is_some_and(|silent_for| silent_for < tenths(MEMORY))
        };
        // Places that were never used take no room.
        let used = kept
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last / RECORD_LEN + 1);
        let kept = kept.chunks_exact(RECORD_LEN).take(used.min(MAX_CLIENTS));
        let kept = kept.map(|bytes| Record::decode(bytes).filter(is_fresh));
        let mut heard = Vec::new();
        for (place, record) in (0..).zip(kept) {
            match record {
                Some(record) => heard.push((record.heard_at, place)),
                None => self.free.push(place),
            }
            self.records.push(record.unwrap_or(Record::NOBODY));
        }
        heard.sort_unstable();
        for (_, place) in heard {
            let Record { v4, queue, .. } = *self.record(place);
            // It was forgotten once, and came to another place.
            if let Some(before) = self.places.get(&v4).copied() {
                self.forget(before);
                self.records[usize::from(before)] = Record::NOBODY;
            }
            self.places.insert(v4, place);
            self.order.push(queue, place);
        }
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
        let taken = Client::from(&*record);
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
        Some(self.epoch + Duration::from_micros(*at))
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
        self.places.values().map(|place| self.record(*place).into())
    }

    /// What there is to say of each.
    pub(super) fn known(&self, now: Instant) -> impl Iterator<Item = Known> {
        let now = self.tenths(now);
        self.places.values().map(move |place| {
            let record = self.record(*place);
            let silent_for = now.saturating_sub(record.heard_at);
            Known {
                v4: record.v4,
                link_local: (record.identifier != 0).then(|| record.addr()),
                locator: record.locator,
                silent_for: Duration::from_millis(100 * u64::from(silent_for)),
                came_back: record.queue == Queue::Steady,
            }
        })
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
        tenths(at.saturating_duration_since(self.epoch))
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

fn tenths(duration: Duration) -> Tenths {
    Tenths::try_from(duration.as_millis() / 100).unwrap_or(Tenths::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_engine::isatap::iid;

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

    /// T7: an engine that dies, or is exchanged, takes no host along.
    #[test]
    fn the_next_engine_remembers() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut memory = vec![0; MEMORY_LEN];
        let mut hear = |clients: &mut Clients, now, number| {
            assert!(hear(clients, now, number));
            let (offset, bytes) = clients.kept(v4(number)).unwrap();
            memory[offset..offset + bytes.len()].copy_from_slice(&bytes);
        };
        let mut before = Clients::new(start);
        for number in 0..MAX_CLIENTS {
            hear(&mut before, at(number as u64 / 16), number);
        }
        // One comes back, and a new one takes the place of the longest silent.
        hear(&mut before, at(2000), 0);
        hear(&mut before, at(2000), MAX_CLIENTS);

        let mut next = Clients::new(start);
        next.recall(at(2001), &memory);
        let all = |clients: &Clients| {
            let mut list: Vec<_> = clients
                .iter()
                .map(|client| (client.v4, client.addr, client.locator))
                .collect();
            list.sort_unstable();
            list
        };
        assert_eq!(all(&next), all(&before));
        for queue in [Queue::Stranger, Queue::Steady] {
            assert!(next.order.iter(queue).eq(before.order.iter(queue)), "{queue:?}");
        }
        let mut few = Clients::new(start);
        few.recall(at(2001), &memory[..10 * RECORD_LEN]);
        let mut zeros = memory[..10 * RECORD_LEN].to_vec();
        zeros.resize(MEMORY_LEN, 0);
        let mut same = Clients::new(start);
        same.recall(at(2001), &zeros);
        assert_eq!((same.records.len(), all(&same)), (10, all(&few)));
        // What has gone old meanwhile, or was said to be of the future, is not remembered; its places are used again.
        for (now, left) in [(at(9000 + 500), MAX_CLIENTS - 501 * 16 + 2), (at(1), 30)] {
            let mut next = Clients::new(start);
            next.recall(now, &memory);
            assert_eq!(next.len(), left);
            for number in 0..MAX_CLIENTS - left {
                assert!(super::tests::hear(&mut next, now, 2 * MAX_CLIENTS + number));
            }
            assert_eq!((next.len(), next.records.len()), (MAX_CLIENTS, MAX_CLIENTS));
        }
    }

    /// Whatever is in there: it is a table.
    #[test]
    fn nonsense_is_not_remembered() {
        let now = Instant::now();
        let mut clients = Clients::new(now);
        hear(&mut clients, now, 1);
        let (_, bytes) = clients.kept(v4(1)).unwrap();
        let twice = [&bytes[..], &[0xff; RECORD_LEN], &bytes[..], &bytes[..7]].concat();
        let mut next = Clients::new(now);
        next.recall(now, &twice);
        assert_eq!((next.len(), next.iter().count(), next.free.len()), (1, 1, 2));
        assert_eq!(next.order.iter(Queue::Stranger).count(), 1);
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
