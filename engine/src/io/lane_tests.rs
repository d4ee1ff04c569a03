//! Both lanes over socket pairs instead of TUN and raw sockets: floods, empty pools, full sinks, the end.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::lane::{Form, Inbox, Lane, Outgoing, RAW_SLOTS, REPLY_SLOTS, TUN_SLOTS, Written};
use super::raw::{RawReceiver, RawSender};
use super::restrict::RingScope;
use super::syscall::SyscallLane;
use super::uring::UringLane;
use super::wake::Bell;
use crate::buf::Packet;
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent, WorkerStats};
use crate::wire::ipv4::OuterHeader;

const PATIENCE: Option<Duration> = Some(Duration::from_millis(200));

/// The far ends of what a lane holds.
struct Far {
    tun: UnixDatagram,
    raw: UnixDatagram,
    bell: Bell,
}

fn ends() -> (OwnedFd, RawReceiver, RawSender, Bell, Far) {
    let (tun, far_tun) = UnixDatagram::pair().unwrap();
    let (raw, far_raw) = UnixDatagram::pair().unwrap();
    let (sink, _) = UnixDatagram::pair().unwrap();
    let bell = Bell::new().unwrap();
    let far = Far {
        tun: far_tun,
        raw: far_raw,
        bell: bell.clone(),
    };
    (
        tun.into(),
        RawReceiver::from_fd(raw.into()),
        RawSender::from_fd(sink.into()),
        bell,
        far,
    )
}

fn uring() -> Option<(UringLane, Far)> {
    let (tun, receiver, sender, bell, far) = ends();
    match UringLane::new(tun, receiver, sender, bell, RingScope::Lane) {
        Ok(lane) => Some((lane, far)),
        Err(error) => {
            assert!(
                super::probe::uring(RingScope::Lane).is_err(),
                "io_uring is here, but the lane is not: {error}"
            );
            None
        }
    }
}

fn syscall() -> Option<(SyscallLane, Far)> {
    let (tun, receiver, sender, bell, far) = ends();
    Some((SyscallLane::new(tun, receiver, sender, bell).unwrap(), far))
}

/// FAULTS 38: more packets than slots, then a pause, then more: all arrive, once and in order, and nothing stays silent.
fn flood<L: Lane + Debug>(lane: Option<(L, Far)>) -> Option<WorkerStats> {
    let (mut lane, far) = lane?;
    let stats = WorkerStats::default();
    let mut inbox = Inbox::new();
    let total = 4 * u32::from(RAW_SLOTS);
    let sender = std::thread::spawn(move || {
        for n in 0..total {
            far.tun.send(&n.to_be_bytes()).unwrap();
            far.raw.send(&n.to_be_bytes()).unwrap();
        }
        far
    });
    let (mut from_tun, mut from_raw) = (Vec::new(), Vec::new());
    // What was brought is kept until the pools are empty: the kernel must hold the rest back.
    let (mut held, mut idle) = (Vec::new(), 0);
    while from_raw.len() + from_tun.len() < 2 * total as usize {
        lane.turn(&mut inbox, PATIENCE, &stats).unwrap();
        idle = if inbox.is_empty() { idle + 1 } else { 0 };
        let number = |packet: &Packet| u32::from_be_bytes(packet.bytes().try_into().unwrap());
        from_tun.extend(inbox.tun.iter().map(number));
        from_raw.extend(inbox.raw.iter().map(number));
        held.extend(inbox.tun.drain(..).chain(inbox.raw.drain(..)));
        if held.len() == usize::from(TUN_SLOTS) + usize::from(RAW_SLOTS) || idle > 0 {
            held.clear();
        }
        assert!(
            idle < 50,
            "silent after {} and {} packets",
            from_tun.len(),
            from_raw.len()
        );
    }
    assert!(
        from_tun.iter().copied().eq(0..total),
        "TUN packets lost, doubled or out of order"
    );
    assert!(
        from_raw.iter().copied().eq(0..total),
        "raw packets lost, doubled or out of order"
    );
    assert!(
        stats.event(LoopEvent::BuffersEmpty).get() > 0,
        "the test did not exhaust the pools"
    );
    assert_eq!(stats.event(LoopEvent::StrayCompletion).get(), 0);
    drop(held);
    drop(sender.join().unwrap());
    end(lane, &stats);
    Some(stats)
}

/// Memory is given back while no packet is in it, also with packets on the way, and all arrive as they were sent.
fn rest<L: Lane + Debug>(lane: Option<(L, Far)>) -> Option<()> {
    const LEN: usize = 60_000;
    let (mut lane, far) = lane?;
    let stats = WorkerStats::default();
    let mut inbox = Inbox::new();
    for round in 0..200_u8 {
        let packet = vec![round; LEN];
        far.tun.send(&packet).unwrap();
        far.raw.send(&packet).unwrap();
        // The kernel has both, and no slot has: what is given back now is not what they come in.
        assert!(lane.rest(), "{lane:?}");
        let mut held = Vec::new();
        while held.len() < 2 {
            lane.turn(&mut inbox, PATIENCE, &stats).unwrap();
            held.extend(inbox.tun.drain(..).chain(inbox.raw.drain(..)));
        }
        for packet in &held {
            assert!(packet.bytes().len() == LEN && packet.bytes().iter().all(|byte| *byte == round));
        }
        assert!(!lane.rest(), "packets are held");
    }
    end(lane, &stats);
    Some(())
}

/// FAULTS 42: after a stop nothing of ours is with the kernel, soon.
fn end<L: Lane + Debug>(mut lane: L, stats: &WorkerStats) {
    let mut inbox = Inbox::new();
    lane.quiesce();
    for _ in 0..100 {
        if lane.is_quiet() {
            break;
        }
        lane.turn(&mut inbox, Some(Duration::from_millis(20)), stats)
            .unwrap();
    }
    assert!(lane.is_quiet(), "{lane:?}");
    lane.abandon(stats);
}

/// The bell ends a wait that has no end of its own, every time.
fn bell<L: Lane + Debug>(lane: Option<(L, Far)>) {
    let Some((mut lane, far)) = lane else { return };
    let stats = WorkerStats::default();
    let mut inbox = Inbox::new();
    for _ in 0..3 {
        let ringer = std::thread::spawn({
            let bell = far.bell.clone();
            move || bell.ring()
        });
        lane.turn(&mut inbox, None, &stats).unwrap();
        ringer.join().unwrap();
        assert!(inbox.is_empty());
    }
    end(lane, &stats);
}

/// Writes are counted when the kernel took them, and arrive whole and in order.
fn writes<L: Lane + Debug>(lane: Option<(L, Far)>) -> Option<WorkerStats> {
    let (mut lane, far) = lane?;
    let stats = WorkerStats::default();
    let mut inbox = Inbox::new();
    for n in 0..8u8 {
        let mut packet = Packet::received(lane.reply_pool().take().unwrap(), 30);
        packet.bytes_mut().fill(n);
        lane.write(
            packet,
            &mut Vec::new(),
            Written::Decap {
                packets: 1,
                bytes: 20,
                segments: 1,
            },
            &stats,
        );
    }
    lane.hand_over(&stats).unwrap();
    while stats.direction(Direction::Decap).delivered.get() < 8 {
        lane.turn(&mut inbox, PATIENCE, &stats).unwrap();
    }
    let mut buffer = [0; 64];
    for n in 0..8u8 {
        assert_eq!(far.tun.recv(&mut buffer).unwrap(), 30);
        assert_eq!(buffer[..30], [n; 30]);
    }
    assert_eq!(lane.reply_pool().census().held, 0);
    end(lane, &stats);
    Some(stats)
}

/// FAULTS 37, 40: with four submissions and eight completions the queues are full again and again; nothing is forgotten,
/// not even the request to stop.
#[test]
fn uring_with_short_queues() {
    if super::probe::uring(RingScope::Lane).is_err() {
        return;
    }
    let short = || {
        let (tun, receiver, sender, bell, far) = ends();
        let lane = UringLane::with_queues(tun, receiver, sender, bell, RingScope::Lane, [4, 8]).unwrap();
        Some((lane, far))
    };
    let flooded = flood(short()).unwrap();
    assert!(
        flooded.event(LoopEvent::CompletionOverflow).get() > 0,
        "the completion queue was never full"
    );
    let written = writes(short()).unwrap();
    assert!(
        written.event(LoopEvent::SubmissionFull).get() > 0,
        "the submission queue was never full"
    );
    bell(short());
    let (tun, receiver, sender, ringing, far) = with_raw_sender(ends());
    let lane = UringLane::with_queues(tun, receiver, sender, ringing, RingScope::Lane, [4, 8]).unwrap();
    sends(Some((lane, far)));
}

/// Datagrams go out whole, once and in order, also when a ring takes only a few at a time. From a raw socket over
/// loopback to an address of our own.
fn sends<L: Lane + Debug>(lane: Option<(L, Far)>) -> Option<WorkerStats> {
    const LEN: usize = 29; // IPv4, UDP, one byte
    let (mut lane, _far) = lane?;
    let stats = WorkerStats::default();
    let receiver = UdpSocket::bind((Ipv4Addr::from(0x7f29_0000 | std::process::id() & 0xffff), 0)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let SocketAddr::V4(to) = receiver.local_addr().unwrap() else {
        unreachable!("bound to IPv4")
    };
    for n in 0..u8::try_from(REPLY_SLOTS).unwrap() {
        let mut packet = Packet::received(lane.reply_pool().take().unwrap(), LEN);
        let bytes = packet.bytes_mut();
        bytes.fill(0);
        bytes[..4].copy_from_slice(&[0x45, 0, 0, 29]);
        bytes[8..10].copy_from_slice(&[64, 17]);
        bytes[12..16].copy_from_slice(&[127, 0, 0, 1]);
        bytes[16..20].copy_from_slice(&to.ip().octets());
        bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
        bytes[25] = 8 + 1;
        bytes[28] = n;
        let outgoing = Outgoing {
            packet,
            outer: OuterHeader {
                src: Ipv4Addr::LOCALHOST,
                dst: *to.ip(),
                tos: 0,
                ttl: 64,
                dont_fragment: false,
                id: 0,
                payload_len: 0,
            },
            link_mtu: u16::MAX,
            inner_len: LEN - 20,
            form: Form::Whole,
        };
        lane.send(outgoing, &stats);
    }
    let encap = stats.direction(Direction::Encap);
    while encap.delivered.get() < u64::from(REPLY_SLOTS) {
        lane.turn(&mut Inbox::new(), PATIENCE, &stats).unwrap();
        assert_eq!(encap.drops(DropReason::SendError).get(), 0);
    }
    let mut buffer = [0; 64];
    for n in 0..u8::try_from(REPLY_SLOTS).unwrap() {
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], n);
    }
    end(lane, &stats);
    Some(stats)
}

/// Needs root: a raw socket.
fn with_raw_sender(
    mut ends: (OwnedFd, RawReceiver, RawSender, Bell, Far),
) -> (OwnedFd, RawReceiver, RawSender, Bell, Far) {
    ends.2 = RawSender::open().unwrap();
    ends
}

#[test]
fn uring_sends() {
    let (tun, receiver, sender, bell, far) = with_raw_sender(ends());
    let lane = UringLane::new(tun, receiver, sender, bell, RingScope::Lane);
    sends(
        super::probe::uring(RingScope::Lane)
            .is_ok()
            .then(|| (lane.unwrap(), far)),
    );
}

#[test]
fn syscall_sends() {
    let (tun, receiver, sender, bell, far) = with_raw_sender(ends());
    sends(Some((
        SyscallLane::new(tun, receiver, sender, bell).unwrap(),
        far,
    )));
}

#[test]
fn uring_flood() {
    flood(uring());
}

#[test]
fn syscall_flood() {
    flood(syscall());
}

#[test]
fn uring_bell() {
    bell(uring());
}

#[test]
fn syscall_bell() {
    bell(syscall());
}

#[test]
fn uring_writes() {
    writes(uring());
}

#[test]
fn syscall_writes() {
    writes(syscall());
}

#[test]
fn uring_rest() {
    rest(uring());
}

#[test]
fn syscall_rest() {
    rest(syscall());
}
