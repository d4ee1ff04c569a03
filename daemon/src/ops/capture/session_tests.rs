//! Sessions over a pipe in memory, with a worker that the test plays.

use std::time::Instant as Clock;

use isatap_engine::capture::{Fate, Taps, switchboard};
use isatap_engine::reason::DropReason;
use tokio::io::{BufReader, DuplexStream};

use super::*;

const DROPPED: Fate = Fate::Dropped {
    reason: DropReason::NoRoute,
    told: None,
};

struct Bench {
    taps: Taps,
    client: BufReader<DuplexStream>,
    session: tokio::task::JoinHandle<std::io::Result<Summary>>,
}

/// A session whose pipe holds `room` bytes.
fn bench(request: CaptureRequest, room: usize, patience: Duration) -> Bench {
    let (board, mut taps) = switchboard(1);
    let plan = request.plan().unwrap();
    let running = Running {
        capture: board.start(&plan.config, &[]).unwrap(),
        interface: "is0".to_owned(),
        workers: 1,
    };
    let mut taps = taps.pop().unwrap();
    taps.refresh(Clock::now());
    let (client, server) = tokio::io::duplex(room);
    let (reader, writer) = tokio::io::split(server);
    Bench {
        taps,
        client: BufReader::new(client),
        session: tokio::spawn(serve(running, request, plan, reader, writer, patience)),
    }
}

impl Bench {
    fn offer(&mut self, count: usize) {
        for _ in 0..count {
            self.taps.offer(Direction::Encap, &DROPPED, &[0x60; 100], 100, 1);
        }
    }

    async fn line(&mut self) -> Response {
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut self.client, &mut line)
            .await
            .unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The next chunk: packets in it, and its bytes.
    async fn chunk(&mut self) -> (u32, Vec<u8>) {
        let (len, packets) = (
            self.client.read_u32().await.unwrap(),
            self.client.read_u32().await.unwrap(),
        );
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.client.read_exact(&mut bytes).await.unwrap();
        (packets, bytes)
    }

    /// Everything up to the end: packets, and the summary.
    async fn rest(&mut self) -> (u32, Summary) {
        let mut sum = 0;
        loop {
            let (packets, bytes) = self.chunk().await;
            if bytes.is_empty() {
                break;
            }
            sum += packets;
            // The worker goes through its loop.
            self.taps.refresh(Clock::now());
        }
        let summary = serde_json::from_value(self.line().await.ok.unwrap()).unwrap();
        (sum, summary)
    }
}

#[tokio::test]
async fn a_client_that_stops_gets_everything_and_the_counts() {
    let mut bench = bench(CaptureRequest::default(), 1 << 20, Duration::from_secs(5));
    let started: Started = serde_json::from_value(bench.line().await.ok.unwrap()).unwrap();
    assert_eq!((started.workers, started.rate), (1, 10_000));
    let (packets, head) = bench.chunk().await;
    assert_eq!((packets, &head[..4]), (0, &[0x0a, 0x0d, 0x0d, 0x0a][..]));
    bench.offer(3);
    let (packets, bytes) = bench.chunk().await;
    assert_eq!((packets, &bytes[..4]), (3, &[6, 0, 0, 0][..]));
    bench.offer(2);
    bench.client.get_mut().shutdown().await.unwrap();
    // The worker notices the end some time later.
    while !bench.taps.is_empty() {
        tokio::task::yield_now().await;
        bench.taps.refresh(Clock::now());
    }
    let (packets, summary) = bench.rest().await;
    assert_eq!(packets, 2);
    let expected = Summary {
        seen: 5,
        matched: 5,
        captured: 5,
        ..Summary::default()
    };
    assert_eq!(summary, expected);
    assert_eq!(bench.session.await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn a_count_is_exact_and_what_came_after_is_said() {
    let request = CaptureRequest {
        count: Some(4),
        ..CaptureRequest::default()
    };
    let mut bench = bench(request, 1 << 20, Duration::from_secs(5));
    bench.offer(7);
    bench.line().await;
    let (packets, summary) = bench.rest().await;
    assert_eq!((packets, summary.captured), (4, 4));
    assert_eq!((summary.matched, summary.beyond_count), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_ends_it_without_any_packet() {
    let request = CaptureRequest {
        seconds: Some(2.0),
        ..CaptureRequest::default()
    };
    let mut bench = bench(request, 1 << 20, Duration::from_secs(5));
    let asked = Instant::now();
    bench.line().await;
    let (packets, summary) = bench.rest().await;
    assert_eq!((packets, summary), (0, Summary::default()));
    assert!(asked.elapsed() >= Duration::from_secs(2));
}

/// FAULTS 64: a client that takes nothing holds up nobody but itself; the worker misses what finds no room, and counts it.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_left() {
    let request = CaptureRequest {
        rate: Some(1_000_000),
        ..CaptureRequest::default()
    };
    let mut bench = bench(request, 4096, Duration::from_secs(5));
    bench.line().await;
    bench.offer(50_000);
    let ended = (&mut bench.session).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    bench.taps.refresh(Clock::now());
    assert!(bench.taps.is_empty(), "the capture is over");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_capture() {
    let mut bench = bench(CaptureRequest::default(), 1 << 20, Duration::from_secs(5));
    bench.line().await;
    drop(bench.client);
    assert!(bench.session.await.unwrap().is_err(), "nobody takes the end");
    bench.taps.refresh(Clock::now());
    assert!(bench.taps.is_empty());
}
