//! TCP through the kernel's sockets, compared byte by byte at the receiver.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::netns::Netns;

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
        .enter(|| listen(dst.port(), stall))
        .map_err(|e| format!("port {}: {e}", dst.port()))?;
    let content = pattern();
    let start = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            from.enter(|| -> std::io::Result<()> {
                let stream = connect(dst, stall)?;
                stream.set_write_timeout(Some(stall))?;
                send_content(stream, &content, bytes)
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

/// A process that another thread starts has a copy of the last listener until it executes its program.
fn listen(port: u16, patience: Duration) -> std::io::Result<TcpListener> {
    let deadline = Instant::now() + patience;
    loop {
        match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            bound => return bound,
        }
    }
}

/// While an interface is down there is no way; what has begun waits for one, and so does what begins.
fn connect(dst: SocketAddrV6, patience: Duration) -> std::io::Result<TcpStream> {
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect_timeout(&SocketAddr::V6(dst), patience) {
            Err(error) if error.kind() == ErrorKind::NetworkUnreachable && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            connected => return connected,
        }
    }
}

/// Has `bytes` bytes of known content sent back by an echo server over one TCP connection, and compares each byte.
///
/// # Errors
/// When the connection fails, stalls for `stall`, or content differs.
pub fn tcp_echo(from: &Netns, dst: SocketAddrV6, bytes: u64, stall: Duration) -> Result<TcpReport, String> {
    let start = Instant::now();
    let stream = from.enter(|| TcpStream::connect_timeout(&SocketAddr::V6(dst), stall));
    let mut stream = stream.map_err(|e| format!("connect to {dst}: {e}"))?;
    stream.set_write_timeout(Some(stall)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(stall)).map_err(|e| e.to_string())?;
    let content = pattern();
    let sending = stream.try_clone().map_err(|e| e.to_string())?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_content(sending, &content, bytes));
        let received = compare(&mut stream, &content);
        let sent = sender.join().expect("the sender");
        let received = received.map_err(|e| format!("receiver: {e} (sender: {sent:?})"))?;
        sent.map_err(|e| format!("sender: {e}"))?;
        if received != bytes {
            return Err(format!("{received} of {bytes} bytes came back"));
        }
        Ok(TcpReport {
            bytes,
            elapsed: start.elapsed(),
        })
    })
}

/// Sends back whatever comes over one TCP connection after the other, for as long as this process runs.
///
/// # Panics
/// When the port is taken.
pub fn serve_echo(ns: &Netns, port: u16) {
    let listener = ns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    let listener = listener.expect("a port for an echo server");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut back = stream.try_clone().expect("duplicate a socket");
            let mut stream = stream;
            // An error is the other side's, which tells of it.
            let _ = std::io::copy(&mut stream, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        }
    });
}

fn send_content(mut stream: TcpStream, content: &[u8], bytes: u64) -> std::io::Result<()> {
    let mut left = usize::try_from(bytes).map_err(std::io::Error::other)?;
    let mut at = 0;
    while left > 0 {
        let part = (content.len() - at).min(left).min(256 * 1024);
        stream.write_all(&content[at..at + part])?;
        at = (at + part) % content.len();
        left -= part;
    }
    stream.shutdown(Shutdown::Write)
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
    compare(&mut stream, content)
}

/// Reads to the end and compares; how many bytes that were.
fn compare(stream: &mut TcpStream, content: &[u8]) -> Result<u64, String> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    let mut total = 0;
    loop {
        let len = match stream.read(&mut buffer) {
            // Stopped and continued, by whoever debugs the machine.
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(|e| format!("after {total} bytes: {e}"))?,
        };
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
