//! Request and response, one at a time: what one packet costs when nothing can be shared with another.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Context, Taken};
use crate::generate::inlet::latency_histogram;
use crate::generate::stamp::now_ns;
use crate::scene::Link;
use crate::table::{Pace, Transport};

const PORT: u16 = 7002;
/// On an idle link.
const REQUESTS: u32 = 250;
/// At the start, not counted.
const WARM_UP: u32 = 20;
/// Between a response and the next request on an idle link: everybody has gone to sleep.
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the responder looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a request, and of its response.
const DATA: usize = 64;

/// One end of a flow that carries requests and responses of [`DATA`] bytes.
trait End: Send {
    fn send(&mut self, data: &[u8; DATA]) -> io::Result<()>;
    /// Waits at most as long as the socket was told.
    fn recv(&mut self, data: &mut [u8; DATA]) -> io::Result<()>;
}

impl End for UdpSocket {
    fn send(&mut self, data: &[u8; DATA]) -> io::Result<()> {
        Self::send(self, data).map(|_| ())
    }

    fn recv(&mut self, data: &mut [u8; DATA]) -> io::Result<()> {
        match Self::recv(self, data)? {
            DATA => Ok(()),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

impl End for TcpStream {
    fn send(&mut self, data: &[u8; DATA]) -> io::Result<()> {
        self.write_all(data)
    }

    fn recv(&mut self, data: &mut [u8; DATA]) -> io::Result<()> {
        self.read_exact(data)
    }
}

/// p50 and p99 in microseconds; one after the other also thousands a second.
pub(super) fn measure(context: &Context<'_>, transport: Transport, pace: Pace) -> Result<Taken> {
    let (mut asker, mut responder) = match transport {
        Transport::Udp => udp(context.link()?)?,
        Transport::Tcp => tcp(context.link()?)?,
    };
    let done = AtomicBool::new(false);
    let mut latency = latency_histogram()?;
    let took = thread::scope(|scope| {
        scope.spawn(|| respond(&mut *responder, &done));
        let took = match pace {
            Pace::Idle => with_pauses(&mut *asker, &mut |took| latency.saturating_record(took)),
            Pace::Steady => {
                let seconds = context.step.row.method.packet_seconds(context.settings);
                let until = Duration::from_secs_f64(seconds);
                without_pause(&mut *asker, until, &mut |took| latency.saturating_record(took))
            }
        };
        done.store(true, Ordering::Relaxed);
        took
    })?;
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let mut values = vec![micros(0.5), micros(0.99)];
    if pace == Pace::Steady {
        values.push(latency.len() as f64 / took.as_secs_f64() / 1e3);
    }
    Ok(Taken {
        values,
        latency: Some(latency),
        ..Taken::default()
    })
}

/// The asker and the responder.
type Ends = (Box<dyn End>, Box<dyn End>);

fn udp(link: &Link) -> Result<Ends> {
    let bind = |ns: &isatap_tests::netns::Netns, address, port| -> Result<UdpSocket> {
        ns.enter(|| UdpSocket::bind((address, port))).context("bind")
    };
    let responder = bind(&link.right, link.destination(), PORT)?;
    let asker = bind(&link.left, link.source(), 0)?;
    asker.connect((link.destination(), PORT))?;
    responder.connect(asker.local_addr()?)?;
    asker.set_read_timeout(Some(PATIENCE))?;
    responder.set_read_timeout(Some(LOOK))?;
    Ok((Box::new(asker), Box::new(responder)))
}

fn tcp(link: &Link) -> Result<Ends> {
    let to = (link.destination(), PORT);
    let listener = link.right.enter(|| TcpListener::bind(to)).context("listen")?;
    let asker = link.left.enter(|| TcpStream::connect(to)).context("connect")?;
    let (responder, _) = listener.accept()?;
    for end in [&asker, &responder] {
        end.set_nodelay(true)?;
    }
    asker.set_read_timeout(Some(PATIENCE))?;
    responder.set_read_timeout(Some(LOOK))?;
    Ok((Box::new(asker), Box::new(responder)))
}

/// Sends back what comes until it is over or the other end has gone.
fn respond(end: &mut dyn End, done: &AtomicBool) {
    let mut data = [0; DATA];
    while !done.load(Ordering::Relaxed) {
        match end.recv(&mut data) {
            Ok(()) => drop(end.send(&data)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn with_pauses(end: &mut dyn End, record: &mut dyn FnMut(u64)) -> Result<Duration> {
    let begun = Instant::now();
    for number in 0..WARM_UP + REQUESTS {
        let took = ask(end, number)?;
        if number >= WARM_UP {
            record(took);
        }
        thread::sleep(PAUSE);
    }
    Ok(begun.elapsed())
}

fn without_pause(end: &mut dyn End, until: Duration, record: &mut dyn FnMut(u64)) -> Result<Duration> {
    for number in 0..WARM_UP {
        ask(end, number)?;
    }
    let begun = Instant::now();
    let mut number = WARM_UP;
    while begun.elapsed() < until {
        record(ask(end, number)?);
        number = number.wrapping_add(1);
    }
    Ok(begun.elapsed())
}

/// Nanoseconds from the request to its response.
fn ask(end: &mut dyn End, number: u32) -> Result<u64> {
    let mut request = [0; DATA];
    request[..4].copy_from_slice(&number.to_be_bytes());
    let sent = now_ns();
    end.send(&request).context("send a request")?;
    let mut response = [0; DATA];
    end.recv(&mut response)
        .context("no whole response within a second")?;
    let took = now_ns() - sent;
    ensure!(response == request, "another response than the one expected");
    Ok(took)
}
