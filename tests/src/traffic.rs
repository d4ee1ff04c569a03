//! Ordinary traffic through the kernel's sockets: UDP flows with sequence numbers, TCP streams compared byte by
//! byte. Says exactly what arrived, how often and in which order.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::Netns;
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

    /// Notes what a sniffer saw on an IPv4 interface, encapsulated, in one direction.
    pub fn of_outer(captured: &[Captured], outgoing: bool) -> Self {
        let mut book = Self::default();
        for packet in captured.iter().filter(|packet| packet.outgoing == outgoing) {
            if let Some((_, _, data)) = packet
                .outer()
                .and_then(|outer| outer.inner())
                .and_then(|inner| inner.udp())
            {
                book.observe(data);
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

/// UDP flows to send: each from a port of its own, all to [`FLOW_PORT`].
#[derive(Clone, Copy, Debug)]
pub struct UdpFlows {
    /// How many flows.
    pub flows: u16,
    /// Datagrams of each.
    pub packets: u32,
    /// Bytes of data of each datagram, at least 14.
    pub size: usize,
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
        let receiver =
            to.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, FLOW_PORT)).expect("bind the receiver"));
        receiver
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20)).expect("root may enlarge buffers");
        let (arrived, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let counter = Arc::clone(&arrived);
        let stop = Arc::clone(&done);
        let reader = thread::spawn(move || {
            let mut book = FlowBook::default();
            let mut buffer = [0; 65536];
            loop {
                match receiver.recv(&mut buffer) {
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
        from.enter(|| self.send(src, SocketAddrV6::new(dst, FLOW_PORT, 0, dst_scope), &arrived));
        done.store(true, Ordering::Relaxed);
        reader.join().expect("the receiver")
    }

    fn send(&self, src: Ipv6Addr, dst: SocketAddrV6, arrived: &AtomicU64) {
        let socket = |_| {
            let socket =
                UdpSocket::bind(SocketAddrV6::new(src, 0, 0, dst.scope_id())).expect("bind a sender");
            socket.connect(dst).expect("a route to the receiver");
            if self.batch > 1 {
                let size = i32::try_from(self.size).expect("a datagram");
                setsockopt(&socket, sockopt::UdpGsoSegment, &size).expect("UDP_SEGMENT");
            }
            socket
        };
        let sockets: Vec<_> = (0..self.flows).map(socket).collect();
        let window = DEFAULT_WINDOW.max(2 * u64::from(self.batch));
        let mut sent = 0;
        let mut sequence = 0;
        while sequence < self.packets {
            let batch = self.batch.min(self.packets - sequence);
            for (flow, socket) in (0..self.flows).zip(&sockets) {
                let mut data = vec![0x5a; self.size * batch as usize];
                for (number, datagram) in (sequence..).zip(data.chunks_mut(self.size)) {
                    write_flow_header(datagram, flow, number);
                }
                if !wait_below(arrived, sent, window) {
                    return; // The receiver's book shows what is missing.
                }
                socket
                    .send(&data)
                    .unwrap_or_else(|e| panic!("flow {flow}, datagram {sequence}: {e}"));
                sent += u64::from(batch);
            }
            sequence += batch;
        }
        wait_below(arrived, sent, 1);
    }
}

/// Waits until fewer than `window` of the `sent` packets are on the way; false when arrivals stop.
fn wait_below(arrived: &AtomicU64, sent: u64, window: u64) -> bool {
    let mut last = (arrived.load(Ordering::Relaxed), Instant::now());
    loop {
        let now = arrived.load(Ordering::Relaxed);
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

/// What a TCP transfer came to.
#[derive(Clone, Copy, Debug)]
pub struct TcpReport {
    /// Bytes received, all of them as sent.
    pub bytes: u64,
    /// From connecting to the last byte.
    pub elapsed: Duration,
}

impl TcpReport {
    /// Bits a second.
    pub fn bits_per_second(&self) -> f64 {
        // A test moves far fewer than 2^52 bytes.
        #[allow(clippy::cast_precision_loss)]
        let bits = self.bytes as f64 * 8.0;
        bits / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for TcpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes in {:.3?}: {:.0} Mbit/s",
            self.bytes,
            self.elapsed,
            self.bits_per_second() / 1e6
        )
    }
}

/// Length of the repeating content: a prime, so that no packet or buffer boundary repeats with it.
const PATTERN_LEN: usize = 1_048_573;

/// Bytes no part of which looks like another part.
fn pattern() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(PATTERN_LEN + 8);
    while bytes.len() < PATTERN_LEN {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(PATTERN_LEN);
    bytes
}

/// Moves `bytes` bytes of known content over one TCP connection and compares each byte at the receiver.
///
/// # Errors
/// When the connection fails, stalls for `stall`, or content differs.
pub fn tcp_transfer(
    from: &Netns,
    to: &Netns,
    dst: SocketAddrV6,
    bytes: u64,
    stall: Duration,
) -> Result<TcpReport, String> {
    let listener = to
        .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, dst.port())))
        .map_err(|e| e.to_string())?;
    let content = pattern();
    let start = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            from.enter(|| -> std::io::Result<()> {
                let mut stream = TcpStream::connect_timeout(&SocketAddr::V6(dst), stall)?;
                stream.set_write_timeout(Some(stall))?;
                let mut left = usize::try_from(bytes).map_err(std::io::Error::other)?;
                let mut at = 0;
                while left > 0 {
                    let part = (PATTERN_LEN - at).min(left).min(256 * 1024);
                    stream.write_all(&content[at..at + part])?;
                    at = (at + part) % PATTERN_LEN;
                    left -= part;
                }
                stream.shutdown(Shutdown::Write)
            })
        });
        let received = receive_and_compare(&listener, &content, stall);
        let sent = sender.join().expect("the sender");
        let received = received.map_err(|e| format!("receiver: {e} (sender: {sent:?})"))?;
        sent.map_err(|e| format!("sender: {e}"))?;
        if received != bytes {
            return Err(format!("{received} of {bytes} bytes arrived"));
        }
        Ok(TcpReport {
            bytes,
            elapsed: start.elapsed(),
        })
    })
}

fn receive_and_compare(listener: &TcpListener, content: &[u8], stall: Duration) -> Result<u64, String> {
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + stall;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(e) if Instant::now() > deadline => return Err(format!("nobody connected: {e}")),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    stream.set_nonblocking(false).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(stall)).map_err(|e| e.to_string())?;
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    let mut total = 0;
    loop {
        let len = stream
            .read(&mut buffer)
            .map_err(|e| format!("after {total} bytes: {e}"))?;
        if len == 0 {
            return Ok(total);
        }
        let mut data = &buffer[..len];
        while !data.is_empty() {
            let part = (content.len() - at).min(data.len());
            if data[..part] != content[at..at + part] {
                return Err(format!("content differs within {part} bytes after byte {total}"));
            }
            at = (at + part) % content.len();
            total += u64::try_from(part).expect("a length");
            data = &data[part..];
        }
    }
}
