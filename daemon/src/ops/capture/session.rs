//! One capture for one client: records into chunks of pcapng, until either side has enough.
//!
//! It runs on control's thread, in slices between which everything else gets its turn. A client that is slow makes the workers'
//! rings run full, which is counted; one that takes nothing at all for a while has left.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isatap_engine::capture::{Capture, Counts};
use isatap_engine::stats::Direction;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::pcapng::{Packet, Statistics, Way, Writer};
use super::plan::{CaptureRequest, Plan};
use super::words;
use crate::ops::protocol::Response;

/// Bytes before a chunk: its length, and the number of packets in it.
pub const CHUNK_HEADER_LEN: usize = 8;
/// Bytes of records that are written in one go, about.
const SLICE: usize = 256 << 10;
/// How long records may wait when there are few: short enough to look live, and for the rings to have room.
const TICK: Duration = Duration::from_millis(10);
/// How long workers may take to let go.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
const RELEASE_STEP: Duration = Duration::from_millis(2);

/// A capture that was started for a client.
#[derive(Debug)]
pub struct Running {
    /// The engine's.
    pub capture: Capture,
    /// Name of the TUN interface.
    pub interface: String,
    /// How many workers.
    pub workers: usize,
}

/// The answer that says that the capture runs: what is carried from now on is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// How many workers.
    pub workers: usize,
    /// Bytes of each packet, at most.
    pub snaplen: usize,
    /// Packets a second and worker, at most.
    pub rate: u32,
}

/// What a capture did. `matched = captured + over_rate + no_room + beyond_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Packets looked at.
    pub seen: u64,
    /// Packets that were wanted.
    pub matched: u64,
    /// Of these, in the file.
    pub captured: u64,
    /// Of these, missed because of the rate.
    pub over_rate: u64,
    /// Of these, missed because the client or the daemon was too slow.
    pub no_room: u64,
    /// Of these, left out because the capture had enough.
    pub beyond_count: u64,
}

impl Summary {
    /// Packets that were wanted and did not get into the file for want of time or room.
    pub fn missed(&self) -> u64 {
        self.over_rate + self.no_room
    }
}

/// Records of one capture on their way into blocks.
struct Session {
    running: Running,
    plan: Plan,
    request: CaptureRequest,
    writer: Writer,
    started: u64,
    /// By direction.
    captured: [u64; Direction::ALL.len()],
    beyond_count: [u64; Direction::ALL.len()],
    /// Packets in the writer.
    pending: u32,
    bytes: Vec<u8>,
    comment: String,
}

/// Serves the capture to a client until the client stops it, leaves, or has enough. `patience` bounds each write.
///
/// # Errors
/// How the connection ended before the capture.
pub async fn serve(
    running: Running,
    request: CaptureRequest,
    plan: Plan,
    mut reader: impl AsyncRead + Unpin,
    mut stream: impl AsyncWrite + Unpin,
    patience: Duration,
) -> std::io::Result<Summary> {
    let started = Response::ok(Started {
        workers: running.workers,
        snaplen: plan.config.snaplen,
        rate: plan.config.rate,
    });
    tokio::time::timeout(patience, stream.write_all(&started.to_line())).await??;
    let mut session = Session::new(running, request, plan);
    session.begin();
    let until = plan.limit.map(|limit| Instant::now() + limit);
    loop {
        session.drain();
        let idle = session.writer.len() == 0;
        session.send(&mut stream, patience).await?;
        if session.has_enough() || until.is_some_and(|until| until <= Instant::now()) {
            break;
        }
        let pause = async {
            if idle {
                let tick = Instant::now() + TICK;
                tokio::time::sleep_until(until.map_or(tick, |until| until.min(tick))).await;
            } else {
                tokio::task::yield_now().await;
            }
        };
        // Whatever the client says, or that it says no more, is the wish to end.
        let mut said = [0];
        tokio::select! {
            biased;
            _ = reader.read(&mut said) => break,
            () = pause => {}
        }
    }
    session.release().await;
    while session.drain() {
        session.send(&mut stream, patience).await?;
    }
    let summary = session.finish();
    session.send(&mut stream, patience).await?;
    let mut end = vec![0; CHUNK_HEADER_LEN];
    end.extend(Response::ok(summary).to_line());
    tokio::time::timeout(patience, stream.write_all(&end)).await??;
    Ok(summary)
}

fn nanos_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Session {
    fn new(running: Running, request: CaptureRequest, plan: Plan) -> Self {
        Self {
            running,
            plan,
            request,
            writer: Writer::default(),
            started: nanos_since_1970(),
            captured: [0; Direction::ALL.len()],
            beyond_count: [0; Direction::ALL.len()],
            pending: 0,
            bytes: Vec::new(),
            comment: String::new(),
        }
    }

    /// The head of the file. Both directions are one interface, and each packet says its own: libpcap up to 1.10 reads no file
    /// with a second interface of raw IP packets, since it compares the link type of the file with its own number for it.
    fn begin(&mut self) {
        let snaplen = u32::try_from(self.plan.config.snaplen).unwrap_or(u32::MAX);
        let application = concat!("isatapd ", env!("CARGO_PKG_VERSION"));
        self.writer
            .section("Linux", application, &self.request.to_string());
        let name = &self.running.interface;
        let description = format!(
            "outbound (encap): IPv6 packets as {name} gave them; inbound (decap): IPv4 packets as they were received"
        );
        self.writer.interface(name, &description, snaplen);
    }

    fn total(&self) -> u64 {
        self.captured.iter().sum()
    }

    fn has_enough(&self) -> bool {
        self.plan.count.is_some_and(|count| self.total() >= count)
    }

    /// Writes a slice of what waits; says whether there was anything.
    fn drain(&mut self) -> bool {
        let mut any = false;
        while self.writer.len() < SLICE {
            let Some(record) = self.running.capture.next(&mut self.bytes) else {
                break;
            };
            any = true;
            let side = record.direction as usize;
            if self.has_enough() {
                self.beyond_count[side] += 1;
                continue;
            }
            words::comment(&record, &mut self.comment);
            self.writer.packet(&Packet {
                at: record.at,
                way: match record.direction {
                    Direction::Encap => Way::Outbound,
                    Direction::Decap => Way::Inbound,
                },
                bytes: &self.bytes,
                len: record.len,
                comment: &self.comment,
            });
            self.captured[side] += 1;
            self.pending += 1;
        }
        any
    }

    /// Sends what was written as one chunk.
    async fn send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        patience: Duration,
    ) -> std::io::Result<()> {
        if self.writer.len() == 0 {
            return Ok(());
        }
        let chunk = self.writer.take();
        let mut header = [0; CHUNK_HEADER_LEN];
        let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        header[..4].copy_from_slice(&len.to_be_bytes());
        header[4..].copy_from_slice(&std::mem::take(&mut self.pending).to_be_bytes());
        let written = async {
            stream.write_all(&header).await?;
            stream.write_all(&chunk).await
        };
        tokio::time::timeout(patience, written).await?
    }

    /// Ends the engine's part: afterwards the counts are final, unless a worker does not answer.
    async fn release(&mut self) {
        self.running.capture.end();
        let limit = Instant::now() + RELEASE_LIMIT;
        while !self.running.capture.is_released() && Instant::now() < limit {
            tokio::time::sleep(RELEASE_STEP).await;
        }
    }

    /// The end of the file: what happened.
    fn finish(&mut self) -> Summary {
        let mut sum = Summary::default();
        let mut words = Vec::new();
        for direction in Direction::ALL {
            let counts = self.running.capture.counts(direction);
            let (captured, beyond) = (
                self.captured[direction as usize],
                self.beyond_count[direction as usize],
            );
            words.push(last_words(direction, &counts, captured, beyond));
            sum.seen += counts.seen;
            sum.matched += counts.matched;
            sum.captured += captured;
            sum.over_rate += counts.over_rate;
            sum.no_room += counts.no_room;
            sum.beyond_count += beyond;
        }
        self.writer.statistics(&Statistics {
            started: self.started,
            ended: nanos_since_1970(),
            received: sum.seen,
            accepted: sum.matched,
            missed: sum.missed(),
            captured: sum.captured,
            comment: &words.join("; "),
        });
        sum
    }
}

fn last_words(direction: Direction, counts: &Counts, captured: u64, beyond: u64) -> String {
    let mut text = format!(
        "{}: {} packets seen, {} wanted, {captured} captured, {} missed ({} over the rate, {} for want of room)",
        direction.name(),
        counts.seen,
        counts.matched,
        counts.missed(),
        counts.over_rate,
        counts.no_room
    );
    if beyond > 0 {
        text.push_str(&format!(", {beyond} beyond the count"));
    }
    text
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
