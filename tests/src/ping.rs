//! Echo requests through the kernel's sockets, each answered exactly once.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;
use crate::packet::echo_body;
use crate::wait;

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// How long one answer may take on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(2);

static IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// Pings `dst` (`address` or `address%device`) `count` times, one after the other; each request must be answered
/// exactly once. Returns the longest round trip.
///
/// # Panics
/// When not.
#[track_caller]
pub fn ping(ns: &Netns, dst: &str, count: u16) -> Duration {
    let to = resolve(ns, dst);
    let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    ns.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("a raw socket");
        socket
            .connect(&to.into())
            .unwrap_or_else(|e| panic!("ping {dst}: {e}"));
        let mut longest = Duration::ZERO;
        for sequence in 0..count {
            // The kernel fills the checksum in.
            let mut request = vec![ECHO_REQUEST, 0, 0, 0];
            request.extend_from_slice(&echo_body(identifier, sequence, b"exactly one answer"));
            let sent = Instant::now();
            socket
                .send(&request)
                .unwrap_or_else(|e| panic!("ping {dst}: {e}"));
            match answer(&socket, identifier, PATIENCE) {
                Some(seen) if seen == sequence => longest = longest.max(sent.elapsed()),
                other => panic!("ping {dst} in {}: request {sequence} got {other:?}", ns.name()),
            }
        }
        let extra = answer(&socket, identifier, Duration::from_millis(20));
        assert_eq!(extra, None, "ping {dst} in {}: answered twice", ns.name());
        longest
    })
}

/// Sequence number of the next answer to `identifier`.
fn answer(mut socket: &Socket, identifier: u16, patience: Duration) -> Option<u16> {
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        socket.set_read_timeout(Some(left)).expect("a timeout");
        let Ok(len) = socket.read(&mut buffer) else {
            continue;
        };
        let word = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
        if len >= 8 && buffer[0] == ECHO_REPLY && word(4) == identifier {
            return Some(word(6));
        }
    }
}

fn resolve(ns: &Netns, dst: &str) -> SocketAddrV6 {
    let (address, device) = dst.split_once('%').unwrap_or((dst, ""));
    let address: Ipv6Addr = address.parse().unwrap_or_else(|e| panic!("{dst}: {e}"));
    let index = match device {
        "" => 0,
        device => ns
            .enter(|| if_nametoindex(device))
            .unwrap_or_else(|e| panic!("{dst}: {e}")),
    };
    SocketAddrV6::new(address, 0, 0, index)
}

/// Pings once and again until there is an answer.
///
/// # Panics
/// When there is none in time.
#[track_caller]
pub fn ping_until(ns: &Netns, dst: &str, timeout: Duration) {
    wait::until(&format!("an answer from {dst}"), timeout, || {
        let output = ns.try_run(&format!("ping -6 -n -c 1 -W 1 {dst}"));
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stdout).into_owned())
        }
    });
}

/// Pings until there is an answer that no router has forwarded: both ends know each other as neighbours.
///
/// # Panics
/// When there is none in time.
#[track_caller]
pub fn ping_direct_until(ns: &Netns, dst: &str, timeout: Duration) {
    wait::until(&format!("a direct answer from {dst}"), timeout, || {
        let output = ns.try_run(&format!("ping -6 -n -c 1 -W 1 {dst}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("ttl=64") {
            Ok(())
        } else {
            Err(text)
        }
    });
}

/// Whether `dst` does not answer one ping within a second.
pub fn is_silent(ns: &Netns, dst: &str) -> bool {
    !ns.try_run(&format!("ping -6 -n -c 1 -W 1 {dst}"))
        .status
        .success()
}
