//! UDP flows with sequence numbers through the kernel's sockets: says exactly what arrived, how often and in which
//! order.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::Netns;
use crate::processes::stay_on_this_cpu;
use crate::raw::Captured;

/// Starts every datagram of a flow.
const MAGIC: &[u8; 8] = b"isatflow";
/// Magic, flow, sequence number.
const FLOW_HEADER_LEN: usize = 8 + 2 + 4;
/// Packets on the way at once, over all flows: below every queue between sender and receiver, so that a lost
/// packet is a fault and not congestion.
const DEFAULT_WINDOW: u64 = 128;
/// Without any arrival for so long, what is missing is lost.
const STALL: Duration = Duration::from_secs(3);
/// Destination port of the flows.
pub const FLOW_PORT: u16 = 7001;

/// Which packets of which flows were seen, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowBook {
    flows: BTreeMap<u16, Flow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Flow {
    /// How often each sequence number was seen.
    seen: BTreeMap<u32, u32>,
    highest: Option<u32>,
    reordered: u32,
}

impl FlowBook {
    /// Notes one datagram; false if it belongs to no flow.
    pub fn observe(&mut self, data: &[u8]) -> bool {
        let Some((flow, sequence)) = read_flow_header(data) else {
            return false;
        };
        let flow = self.flows.entry(flow).or_default();
        *flow.seen.entry(sequence).or_default() += 1;
        match flow.highest {
            Some(highest) if sequence < highest => flow.reordered += 1,
            _ => flow.highest = Some(sequence),
        }
        true
    }

    /// Notes the datagrams of `size` bytes that arrived as one superpacket (or alone).
    pub fn observe_merged(&mut self, data: &[u8], size: usize) {
        for datagram in data.chunks(size) {
            self.observe(datagram);
        }
    }

    /// Notes what a sniffer saw on an IPv4 interface, encapsulated, in one direction. Packets may be superpackets of datagrams
    /// of `size` bytes: programs in the kernel send them whole.
    pub fn of_outer(captured: &[Captured], outgoing: bool, size: usize) -> Self {
        let mut book = Self::default();
        for packet in captured.iter().filter(|packet| packet.outgoing == outgoing) {
            if let Some((_, _, data)) = packet
                .outer()
                .and_then(|outer| outer.inner())
                .and_then(|inner| inner.udp())
            {
                book.observe_merged(data, size);
            }
        }
        book
    }

    /// How many packets were seen.
    pub fn total(&self) -> u64 {
        self.flows
            .values()
            .flat_map(|flow| flow.seen.values())
            .map(|times| u64::from(*times))
            .sum()
    }

    /// Each packet of each flow was seen exactly once, and those of one flow in order.
    ///
    /// # Panics
    /// When not, with what was wrong.
    #[track_caller]
    pub fn assert_exactly_once_in_order(&self, where_seen: &str, flows: u16, packets: u32) {
        let mut faults = Vec::new();
        for id in 0..flows {
            let Some(flow) = self.flows.get(&id) else {
                faults.push(format!("flow {id}: nothing"));
                continue;
            };
            let missing = (0..packets)
                .filter(|sequence| !flow.seen.contains_key(sequence))
                .count();
            let repeated = flow.seen.values().filter(|times| **times > 1).count();
            if missing + repeated > 0 || flow.reordered > 0 {
                let reordered = flow.reordered;
                faults.push(format!(
                    "flow {id}: {missing} missing, {repeated} repeated, {reordered} reordered"
                ));
            }
        }
        assert!(
            faults.is_empty(),
            "{where_seen}: {} of {} flows are wrong: {}",
            faults.len(),
            flows,
            faults.iter().take(5).cloned().collect::<Vec<_>>().join("; ")
        );
        assert_eq!(
            self.flows.len(),
            usize::from(flows),
            "{where_seen}: flows that nobody sent"
        );
    }

    /// No packet was seen twice, and those of one flow in order; some may be missing.
    ///
    /// # Panics
    /// When not, with what was wrong.
    #[track_caller]
    pub fn assert_at_most_once_in_order(&self, where_seen: &str) {
        for (id, flow) in &self.flows {
            let repeated = flow.seen.values().filter(|times| **times > 1).count();
            let reordered = flow.reordered;
            assert!(
                repeated == 0 && reordered == 0,
                "{where_seen}: flow {id}: {repeated} repeated, {reordered} reordered"
            );
        }
    }
}

fn read_flow_header(data: &[u8]) -> Option<(u16, u32)> {
    let header = data.get(..FLOW_HEADER_LEN)?;
    (&header[..8] == MAGIC).then(|| {
        let flow = u16::from_be_bytes([header[8], header[9]]);
        (
            flow,
            u32::from_be_bytes([header[10], header[11], header[12], header[13]]),
        )
    })
}

/// Writes the header of a flow's datagram to its start.
pub fn write_flow_header(data: &mut [u8], flow: u16, sequence: u32) {
    data[..8].copy_from_slice(MAGIC);
    data[8..10].copy_from_slice(&flow.to_be_bytes());
    data[10..14].copy_from_slice(&sequence.to_be_bytes());
}

/// Sends small datagrams, one by one and then in superpackets (USO), and sees that each arrives once and in order.
///
/// # Panics
/// When one does not.
#[track_caller]
pub fn assert_datagrams_arrive(from: &Netns, src: Ipv6Addr, to: &Netns, dst: Ipv6Addr) {
    for batch in [1, 16] {
        let flows = UdpFlows {
            flows: 8,
            packets: 1600,
            sizes: &[200],
            batch,
        };
        let book = flows.run(from, src, to, dst, 0);
        book.assert_exactly_once_in_order("datagrams", flows.flows, flows.packets);
    }
}

/// UDP flows to send: each from a port of its own, all to [`FLOW_PORT`].
#[derive(Clone, Copy, Debug)]
pub struct UdpFlows {
    /// How many flows.
    pub flows: u16,
    /// Datagrams of each.
    pub packets: u32,
    /// Bytes of data of the datagrams, each at least 14, in turn; one size if they go in batches.
    pub sizes: &'static [usize],
    /// Datagrams given to the kernel at once as one superpacket (`UDP_SEGMENT`); 1 for single datagrams.
    pub batch: u32,
}

impl UdpFlows {
    /// Sends the flows from `src` in one namespace to `dst` in another, never more than a window ahead of the
    /// receiver, and returns what the receiver saw.
    ///
    /// # Panics
    /// When sockets cannot be opened.
    #[track_caller]
    pub fn run(&self, from: &Netns, src: Ipv6Addr, to: &Netns, dst: Ipv6Addr, dst_scope: u32) -> FlowBook {
        let dst = SocketAddrV6::new(dst, FLOW_PORT, 0, dst_scope);
        self.run_between(from, to, |_| (src, dst))
    }

    /// The same with addresses of its own for each flow: source, then destination at [`FLOW_PORT`].
    ///
    /// # Panics
    /// When sockets cannot be opened.
    #[track_caller]
    pub fn run_between(
        &self,
        from: &Netns,
        to: &Netns,
        ends: impl Fn(u16) -> (Ipv6Addr, SocketAddrV6) + Send,
    ) -> FlowBook {
        let receiver = FlowReceiver::start(to);
        from.enter(|| {
            self.send(&self.sockets(ends), |sent, window| {
                receiver.wait_below(sent, window)
            })
        });
        receiver.finish()
    }

    /// Sends the flows from `src` to `dst` as fast as the kernel takes them, whether anything arrives or not. A
    /// datagram that the kernel refuses for want of room is lost, and the kernel counts it.
    ///
    /// # Panics
    /// When sockets cannot be opened.
    #[track_caller]
    pub fn flood(&self, from: &Netns, src: Ipv6Addr, dst: Ipv6Addr) {
        let dst = SocketAddrV6::new(dst, FLOW_PORT, 0, 0);
        from.enter(|| self.send(&self.sockets(|_| (src, dst)), |_, _| true));
    }

    /// How many datagrams there are in all.
    pub fn total(&self) -> u64 {
        u64::from(self.flows) * u64::from(self.packets)
    }

    /// A socket for each flow.
    fn sockets(&self, ends: impl Fn(u16) -> (Ipv6Addr, SocketAddrV6)) -> Vec<UdpSocket> {
        let open = |flow| {
            let (src, dst) = ends(flow);
            let socket =
                UdpSocket::bind(SocketAddrV6::new(src, 0, 0, dst.scope_id())).expect("bind a sender");
            socket.connect(dst).expect("a route to the receiver");
            if self.batch > 1 {
                assert_eq!(self.sizes.len(), 1, "segments of one superpacket have one size");
                let size = i32::try_from(self.sizes[0]).expect("a datagram");
                setsockopt(&socket, sockopt::UdpGsoSegment, &size).expect("UDP_SEGMENT");
            }
            socket
        };
        (0..self.flows).map(open).collect()
    }

    /// Sends in turn on each of `sockets`, whenever `may_send` after so many sent, with such a window; until it says no.
    fn send(&self, sockets: &[UdpSocket], may_send: impl Fn(u64, u64) -> bool) {
        // What one CPU has not yet passed on, packets sent from another one would overtake.
        stay_on_this_cpu();
        let window = DEFAULT_WINDOW.max(2 * u64::from(self.batch));
        let mut sent = 0;
        let mut sequence = 0;
        let mut sizes = self.sizes.iter().cycle();
        while sequence < self.packets {
            let batch = self.batch.min(self.packets - sequence);
            let size = *sizes.next().expect("at least one size");
            for (flow, socket) in (0..self.flows).zip(sockets) {
                let mut data = vec![0x5a; size * batch as usize];
                for (number, datagram) in (sequence..).zip(data.chunks_mut(size)) {
                    write_flow_header(datagram, flow, number);
                }
                if !may_send(sent, window) {
                    return; // The receiver's book shows what is missing.
                }
                match socket.send(&data) {
                    Err(e) if e.raw_os_error() != Some(Errno::ENOBUFS as i32) => {
                        panic!("flow {flow}, datagram {sequence}: {e}")
                    }
                    _ => sent += u64::from(batch),
                }
            }
            sequence += batch;
        }
        may_send(sent, 1);
    }
}

/// Receives flows at [`FLOW_PORT`] of a namespace on a thread of its own.
#[derive(Debug)]
pub struct FlowReceiver {
    arrived: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    reader: JoinHandle<FlowBook>,
}

impl FlowReceiver {
    /// Starts receiving, at every address of the namespace.
    ///
    /// # Panics
    /// When the port is taken.
    #[track_caller]
    pub fn start(ns: &Netns) -> Self {
        let socket =
            ns.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, FLOW_PORT)).expect("bind the receiver"));
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).expect("root may enlarge buffers");
        let (arrived, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stop) = (Arc::clone(&arrived), Arc::clone(&done));
        let reader = thread::spawn(move || {
            let mut book = FlowBook::default();
            let mut buffer = [0; 65536];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(len) if book.observe(&buffer[..len]) => {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    // Read to the end of the queue before stopping: duplicates come last.
                    Err(_) if stop.load(Ordering::Relaxed) => return book,
                    Err(_) => {}
                }
            }
        });
        Self {
            arrived,
            done,
            reader,
        }
    }

    /// How many datagrams have arrived.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Reads what is left and returns what was seen.
    ///
    /// # Panics
    /// When the receiver did.
    pub fn finish(self) -> FlowBook {
        self.done.store(true, Ordering::Relaxed);
        self.reader.join().expect("the receiver")
    }

    /// Waits until fewer than `window` of the `sent` packets are on the way; false when arrivals stop.
    fn wait_below(&self, sent: u64, window: u64) -> bool {
        let mut last = (self.arrived(), Instant::now());
        loop {
            let now = self.arrived();
            if sent.saturating_sub(now) < window {
                return true;
            }
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > STALL {
                return false;
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}
