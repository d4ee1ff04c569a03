//! How soon a daemon carries after it was started: a packet is offered again and again until the other end has one.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use isatap_tests::daemon::TUNNEL;
use isatap_tests::packet::link_local;
use nix::net::if_::if_nametoindex;

use super::{Context, Taken};
use crate::peer::Tunnel;
use crate::scene::{LEFT, Link, RIGHT, Scene, Stage, Underlay};
use crate::stats;

const PORT: u16 = 7003;
const STARTS: usize = 3;
/// Between two offers: the resolution of the figure.
const OFFER_EVERY: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn measure(context: &Context<'_>) -> Result<Taken> {
    let scene = Scene {
        stage: Stage::Own,
        underlay: Underlay::Plain,
        workers: context.settings.workers,
        routes: 0,
        routers: 0,
    };
    let link = Link::new(context.peer, scene);
    let tunnel = |own, other| Tunnel {
        own,
        other,
        routers: &[],
        workers: scene.workers,
    };
    let _other = context
        .peer
        .start(context.settings, &link.right, &tunnel(RIGHT, LEFT));
    let receiver = link
        .right
        .enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))
        .context("bind the receiver")?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let arrived = AtomicBool::new(false);
        let mut one = [0; 64];
        times.push(thread::scope(|scope| -> Result<f64> {
            scope.spawn(|| link.left.enter(|| offer(&arrived)));
            let began = Instant::now();
            let daemon = context
                .peer
                .daemon(context.settings, &link.left, &tunnel(LEFT, RIGHT))
                .launch();
            let received = receiver.recv(&mut one);
            let took = began.elapsed();
            arrived.store(true, Ordering::Relaxed);
            received.with_context(|| format!("nothing arrived; the daemon says:\n{}", daemon.log()))?;
            Ok(took.as_secs_f64() * 1e3)
        })?);
        // What was offered meanwhile does not count for the next start.
        receiver.set_nonblocking(true)?;
        while receiver.recv(&mut one).is_ok() {}
        receiver.set_nonblocking(false)?;
    }
    ensure!(!times.is_empty(), "nothing was started");
    let details = times
        .iter()
        .zip(1..)
        .map(|(time, number)| (format!("start {number}"), *time));
    Ok(Taken {
        values: stats::median(&times).into_iter().collect(),
        details: details.collect(),
        ..Taken::default()
    })
}

/// Sends to the other end as soon as there is an interface that takes it.
fn offer(arrived: &AtomicBool) {
    let mut socket: Option<UdpSocket> = None;
    while !arrived.load(Ordering::Relaxed) {
        match (&socket, if_nametoindex(TUNNEL)) {
            (None, Ok(index)) => {
                let to = SocketAddrV6::new(link_local(RIGHT), PORT, 0, index);
                let open = || {
                    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                    socket.connect(to)?;
                    std::io::Result::Ok(socket)
                };
                socket = open().ok();
            }
            // An interface that is down refuses: a route to it is not there yet.
            (Some(open), _) if open.send(b"the first packet").is_err() => socket = None,
            _ => {}
        }
        thread::sleep(OFFER_EVERY);
    }
}
