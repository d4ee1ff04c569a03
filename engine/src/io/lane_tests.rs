//! Both lanes over socket pairs instead of TUN and raw sockets: floods, empty pools, full sinks, the end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::lane::{Inbox, Lane, RAW_SLOTS, TUN_SLOTS, Written};
use super::raw::{RawReceiver, RawSender};
use super::syscall::SyscallLane;
use super::uring::UringLane;
use super::wake::Bell;
use crate::buf::Packet;
use crate::stats::{Direction, LoopEvent, WorkerStats};

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
    match UringLane::new(tun, receiver, sender, bell) {
        Ok(lane) => Some((lane, far)),
        Err(error) => {
            assert!(
                super::probe::uring().is_err(),
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
fn flood<L: Lane>(lane: Option<(L, Far)>) {
    let Some((mut lane, far)) = lane else { return };
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
}

/// FAULTS 42: after a stop nothing of ours is with the kernel, soon.
fn end<L: Lane>(mut lane: L, stats: &WorkerStats) {
    let mut inbox = Inbox::new();
    lane.quiesce();
    for _ in 0..100 {
        if lane.is_quiet() {
            break;
        }
        lane.turn(&mut inbox, Some(Duration::from_millis(20)), stats)
            .unwrap();
    }
    assert!(lane.is_quiet());
    lane.abandon(stats);
}

/// The bell ends a wait that has no end of its own, every time.
fn bell<L: Lane>(lane: Option<(L, Far)>) {
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
fn writes<L: Lane>(lane: Option<(L, Far)>) {
    let Some((mut lane, far)) = lane else { return };
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
