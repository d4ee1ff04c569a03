//! Whether a tunnel stood still, told apart from a machine that did: a connection through the tunnel, and beside it a witness,
//! a connection over the bare network. The same two threads feed and empty both, at the same pace.
//!
//! ```text
//!   one thread: 16 KiB to each, every 20 ms ---- the tunnel ------> one thread: the tunnel's bytes, then the witness's
//!                                           \--- bare network --/
//! ```
//!
//! A clock alone cannot tell: with more work than cores, everything stands still for a tenth of a second now and then. So a
//! [`Sample`] ends when a tenth of a second has passed *and* the witness has moved its share. Whoever had moved nothing by then
//! stood still alone.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Netns;
use crate::steady::content;
use crate::wait;

/// Connections go to this port.
const PORT: u16 = 7007;
/// Bytes given to each connection at once, and the pause after them: some 6 Mbit/s each, which leaves a machine with two
/// cores time.
const CHUNK_LEN: usize = 16 * 1024;
const CHUNK_PAUSE: Duration = Duration::from_millis(20);
/// The shortest sample.
const SAMPLE: Duration = Duration::from_millis(100);
/// What the witness moves in the shortest sample at least: three of the five chunks that are sent meanwhile, so that samples are
/// not longer unless the machine stands still.
const SHARE: u64 = 3 * CHUNK_LEN as u64;
/// Sockets are looked at again after so long: the clock may be all that a sample waits for.
const IDLE_MS: u16 = 5;
/// A witness that is silent for longer has no network.
const STALL: Duration = Duration::from_secs(90);

/// What was moved while the witness moved its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Bytes that arrived through the tunnel.
    pub tunnel: u64,
    /// Bytes that arrived beside it.
    pub witness: u64,
    /// How long that took: a tenth of a second, unless the machine was busy elsewhere.
    pub took: Duration,
}

/// A connection through a tunnel, and its witness.
#[derive(Debug)]
pub struct Witnessed {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    sender: Option<JoinHandle<io::Result<[u64; 2]>>>,
    receiver: Option<JoinHandle<io::Result<[u64; 2]>>>,
}

impl Witnessed {
    /// Connects `from` with an address of a namespace by way of the tunnel, and with one beside it; sends until it is finished.
    ///
    /// # Panics
    /// When a connection does not come about.
    #[track_caller]
    pub fn start(from: &Netns, tunnel: (&Netns, IpAddr), beside: (&Netns, IpAddr)) -> Self {
        let ends = [tunnel, beside].map(|(to, address)| {
            let target = SocketAddr::new(address, PORT);
            let listener = to.enter(|| TcpListener::bind(target).expect("bind a listener"));
            let sending = from.enter(|| TcpStream::connect_timeout(&target, STALL).expect("a connection"));
            let (receiving, _) = listener.accept().expect("the connection");
            for end in [&sending, &receiving] {
                end.set_nonblocking(true).expect("a socket");
            }
            (sending, receiving)
        });
        let [tunnel, witness] = ends;
        let (sending, receiving) = ([tunnel.0, witness.0], [tunnel.1, witness.1]);
        let (stop, samples) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ends, taken) = (Arc::clone(&stop), Arc::clone(&samples));
        Self {
            stop,
            samples,
            sender: Some(thread::spawn(move || send(sending, &ends))),
            receiver: Some(thread::spawn(move || receive(receiving, &taken))),
        }
    }

    /// The samples taken so far, one after the other without a gap between them.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until there are `count` more samples.
    ///
    /// # Panics
    /// When not before the witness counts as stalled.
    #[track_caller]
    pub fn wait_more(&self, count: usize) {
        let before = self.samples().len();
        let all = SAMPLE * u32::try_from(count).expect("few samples");
        wait::until(&format!("{count} samples"), all + STALL, || {
            let more = self.samples().len() - before;
            if more >= count { Ok(()) } else { Err(more) }
        });
    }

    /// Ends both connections; returns every sample.
    ///
    /// # Panics
    /// When one broke, or bytes are missing or wrong.
    #[track_caller]
    pub fn finish(mut self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |end: Option<JoinHandle<io::Result<[u64; 2]>>>| {
            end.expect("finished once").join().expect("a thread")
        };
        let sent = join(self.sender.take()).expect("the senders' ends");
        let received = join(self.receiver.take()).expect("the receivers' ends");
        assert_eq!(received, sent, "bytes that arrived of those sent");
        self.samples()
    }
}

impl Drop for Witnessed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Gives each connection a chunk, the tunnel first: what the witness has moved, the tunnel was offered before. A connection that
/// takes nothing is passed over, so that it holds up the other one no more than the clock.
fn send(mut ends: [TcpStream; 2], stop: &AtomicBool) -> io::Result<[u64; 2]> {
    let mut sent = [0; 2];
    while !stop.load(Ordering::Relaxed) {
        for (end, at) in ends.iter_mut().zip(&mut sent) {
            let chunk: Vec<u8> = (*at..).take(CHUNK_LEN).map(content).collect();
            match end.write(&chunk) {
                Ok(len) => *at += len as u64,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        thread::sleep(CHUNK_PAUSE);
    }
    for end in &ends {
        end.shutdown(Shutdown::Write)?;
    }
    Ok(sent)
}

/// One end that bytes arrive at.
struct Arriving {
    stream: TcpStream,
    count: u64,
    is_open: bool,
}

impl Arriving {
    /// Takes whatever is there.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while self.is_open {
            let len = match self.stream.read(buffer) {
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let mut pairs = (self.count..).zip(&buffer[..len]);
            if let Some((at, _)) = pairs.find(|(at, byte)| content(*at) != **byte) {
                return Err(io::Error::other(format!("byte {at} is another one")));
            }
            self.count += len as u64;
            self.is_open = len > 0;
        }
        Ok(())
    }
}

/// Takes what arrives until both connections have ended, and cuts it into samples.
fn receive(ends: [TcpStream; 2], samples: &Mutex<Vec<Sample>>) -> io::Result<[u64; 2]> {
    let mut buffer = vec![0; CHUNK_LEN];
    let mut ends = ends.map(|stream| Arriving {
        stream,
        count: 0,
        is_open: true,
    });
    let (mut began, mut last, mut moved_at) = (Instant::now(), [0; 2], Instant::now());
    while ends.iter().any(|end| end.is_open) {
        wait_for_any(&ends)?;
        let before = ends.each_ref().map(|end| end.count);
        for end in &mut ends {
            end.take(&mut buffer)?;
        }
        let (now, arrived) = (Instant::now(), ends.each_ref().map(|end| end.count));
        // The witness alone while it is open: a tunnel may be silent for as long as a test likes.
        if arrived[1] > before[1] || (!ends[1].is_open && arrived[0] > before[0]) {
            moved_at = now;
        } else if now - moved_at > STALL {
            return Err(io::Error::other(format!(
                "silent for {STALL:?} after {arrived:?} bytes"
            )));
        }
        let [tunnel, witness] = [arrived[0] - last[0], arrived[1] - last[1]];
        if now - began >= SAMPLE && witness >= SHARE {
            let sample = Sample {
                tunnel,
                witness,
                took: now - began,
            };
            samples
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sample);
            (began, last) = (now, arrived);
        }
    }
    Ok(ends.map(|end| end.count))
}

/// Returns when something has arrived, or after a moment.
fn wait_for_any(ends: &[Arriving; 2]) -> io::Result<()> {
    let open = ends.iter().filter(|end| end.is_open);
    let mut files: Vec<_> = open
        .map(|end| PollFd::new(end.stream.as_fd(), PollFlags::POLLIN))
        .collect();
    match poll(&mut files, PollTimeout::from(IDLE_MS)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
