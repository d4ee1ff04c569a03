//! The error queues of the send sockets, kept empty, and what an ICMPv4 error means (RFC 4213 3.4, REQUIREMENTS N5, N8).

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use isatap_engine::io::errqueue::{self, ErrorOrigin, SendFailure};
use isatap_engine::wire::ipv4::PROTO_IPV6;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::watched::watch;

/// Errors that wait for control at most; the rest of a storm waits in the socket, and what finds no room there is
/// forgotten (FAULTS 26).
const QUEUE_LEN: usize = 64;
/// Entries taken from one queue before others get their turn.
const BURST: usize = 64;

/// Starts draining `queues`. Of ICMP errors only the last one speaks, control's: the kernel may queue one on each. What a link
/// refused for its size is heard of wherever it was refused.
///
/// # Errors
/// When a descriptor cannot be watched.
pub(super) fn drain(queues: Vec<OwnedFd>) -> std::io::Result<mpsc::Receiver<SendFailure>> {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let last = queues.len().saturating_sub(1);
    for (at, queue) in queues.into_iter().enumerate() {
        let queue = watch(queue, Interest::ERROR)?;
        tokio::spawn(drain_one(queue, sender.clone(), at == last));
    }
    Ok(receiver)
}

async fn drain_one(queue: AsyncFd<OwnedFd>, control: mpsc::Sender<SendFailure>, speaks: bool) {
    while let Ok(mut guard) = queue.ready(Interest::ERROR).await {
        let mut empty = false;
        for _ in 0..BURST {
            match errqueue::next(queue.get_ref().as_fd()) {
                Ok(Some(failure)) => {
                    if is_heard(&failure, speaks) {
                        let _ = control.send(failure).await;
                    }
                }
                Ok(None) | Err(_) => {
                    empty = true;
                    break;
                }
            }
        }
        if empty {
            guard.clear_ready();
        }
        tokio::task::yield_now().await;
    }
}

/// Whether control is to hear of `failure`, from a queue that `speaks` of ICMP errors or does not.
fn is_heard(failure: &SendFailure, speaks: bool) -> bool {
    match failure.origin {
        ErrorOrigin::Icmp => speaks,
        ErrorOrigin::Local => is_about_size(failure),
        ErrorOrigin::Other => false,
    }
}

/// Whether our own kernel refused a packet that is too big for its link.
pub(super) fn is_about_size(failure: &SendFailure) -> bool {
    failure.origin == ErrorOrigin::Local && failure.errno == nix::libc::EMSGSIZE
}

/// Whether a router says that a packet was too big.
pub(super) fn is_fragmentation_needed(failure: &SendFailure) -> bool {
    failure.origin == ErrorOrigin::Icmp && failure.icmp == (3, 4)
}

/// The kinds counted; the names are those of `isatapd_icmp_errors_total`.
pub(super) fn kind(failure: &SendFailure) -> &'static str {
    match failure.icmp {
        (3, 4) => "frag_needed",
        (3, _) => "unreachable",
        (11, _) => "time_exceeded",
        _ => "other",
    }
}

/// Whether the quoted packet is one of ours: protocol 41 from a locator of ours to where the error says (N8). Anybody can
/// send an ICMP error; only who saw our packet can quote it.
pub(super) fn is_about_us(failure: &SendFailure, locators: &[Ipv4Addr]) -> bool {
    let quote = &failure.quote;
    let (Some(protocol), Some(src), Some(dst)) = (quote.get(9), quote.get(12..16), quote.get(16..20)) else {
        return false;
    };
    quote[0] >> 4 == 4
        && *protocol == PROTO_IPV6
        && locators.iter().any(|locator| src == locator.octets())
        && dst == failure.destination.octets()
}

/// Whether the error says that the destination cannot be reached, which makes a router suspect (N5).
pub(super) fn is_unreachable(failure: &SendFailure) -> bool {
    matches!(failure.icmp, (3, code) if code != 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn failure(icmp: (u8, u8), protocol: u8, src: Ipv4Addr, dst: Ipv4Addr) -> SendFailure {
        let mut quote = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0];
        quote.extend(src.octets());
        quote.extend(dst.octets());
        SendFailure {
            origin: ErrorOrigin::Icmp,
            errno: 113,
            icmp,
            info: 0,
            destination: ROUTER,
            quote,
        }
    }

    #[test]
    fn kinds_by_type_and_code() {
        for (icmp, name, unreachable) in [
            ((3, 1), "unreachable", true),
            ((3, 4), "frag_needed", false),
            ((11, 0), "time_exceeded", false),
            ((12, 0), "other", false),
        ] {
            let failure = failure(icmp, 41, US, ROUTER);
            assert_eq!((kind(&failure), is_unreachable(&failure)), (name, unreachable));
            assert!(crate::ops::labels::ICMP_ERROR_KINDS.contains(&name));
        }
    }

    /// N8: an error about a packet that we did not send says nothing.
    #[test]
    fn n8_the_quote_must_be_ours() {
        assert!(is_about_us(&failure((3, 1), 41, US, ROUTER), &[US]));
        assert!(!is_about_us(&failure((3, 1), 17, US, ROUTER), &[US]));
        assert!(!is_about_us(&failure((3, 1), 41, ROUTER, ROUTER), &[US]));
        assert!(!is_about_us(&failure((3, 1), 41, US, US), &[US]));
        let mut short = failure((3, 1), 41, US, ROUTER);
        short.quote.truncate(19);
        assert!(!is_about_us(&short, &[US]));
    }
}
