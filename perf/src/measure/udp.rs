//! UDP packets of our own generator: how many are delivered a second.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use isatap_tests::{scene as tests_scene, wait};
use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Context, Taken};
use crate::generate::inlet::Inlet;
use crate::generate::outlet::{Crafted, Outlet};
use crate::generate::{self, Outcome, Pace, Traffic};
use crate::scene::{Link, RIGHT, Stage, host, network};
use crate::table::{Method, Parameter};

/// Destination port of all packets.
const PORT: u16 = 7001;
/// Bytes of data where the number of packets is what counts.
const SMALL: usize = 64;
/// Before packets are counted, so that neighbours are known and memory is touched.
const WARM_UP: Duration = Duration::from_millis(200);
/// Receivers look that often whether the sender has finished.
const LOOK: Duration = Duration::from_millis(10);
const RECEIVE_BUFFER: usize = 16 << 20;

/// As many packets as come through without loss, of these sizes in turn.
pub(super) fn windowed(context: &Context<'_>, sizes: Vec<usize>) -> Result<Taken> {
    let (mut outlet, inlet) = flows(context.link()?, context.settings.flows)?;
    let outcome = generate::run(&mut outlet, &inlet, &traffic(context, sizes, window(context)))?;
    Ok(taken(&outcome))
}

/// As many as come through of a flood.
pub(super) fn flood(context: &Context<'_>, size: usize) -> Result<Taken> {
    let (mut outlet, inlet) = flows(context.link()?, context.settings.flows)?;
    let outcome = generate::run(&mut outlet, &inlet, &traffic(context, vec![size], Pace::Flood))?;
    Ok(taken(&outcome))
}

/// To or from many.
pub(super) fn spread(context: &Context<'_>) -> Result<Taken> {
    let link = context.link()?;
    let (mut outlet, inlet) = match link.scene.stage {
        Stage::Out => outward(context, link)?,
        Stage::In => inward(context, link)?,
        Stage::Pair | Stage::Hub | Stage::Own => bail!("many hosts need a scene with one tunnel end"),
    };
    settle(&mut outlet, &inlet);
    let outcome = generate::run(
        &mut outlet,
        &inlet,
        &traffic(context, vec![SMALL], window(context)),
    )?;
    Ok(taken(&outcome))
}

/// Waits until a packet of every flow arrives: then addresses and routes are known.
fn settle(outlet: &mut Outlet, inlet: &Inlet) {
    let once = Traffic {
        sizes: vec![SMALL],
        pace: Pace::Window(256),
        warm_up: Duration::ZERO,
        // At 50 000 packets a second and more.
        length: Duration::from_micros(20 * outlet.flows() as u64),
    };
    wait::until(
        "a packet of every flow",
        Duration::from_secs(60),
        || match generate::run(outlet, inlet, &once) {
            Ok(outcome) if outcome.totals.lost == 0 => Ok(()),
            Ok(outcome) => Err(format!("{:?}", outcome.totals)),
            Err(error) => Err(error.to_string()),
        },
    );
}

pub(super) fn traffic(context: &Context<'_>, sizes: Vec<usize>, pace: Pace) -> Traffic {
    Traffic {
        sizes,
        pace,
        warm_up: WARM_UP,
        length: Duration::from_secs_f64(context.step.row.method.packet_seconds(context.settings)),
    }
}

pub(super) fn window(context: &Context<'_>) -> Pace {
    Pace::Window(context.settings.window)
}

pub(super) fn taken(outcome: &Outcome) -> Taken {
    let totals = &outcome.totals;
    let details = [
        ("sent", totals.sent),
        ("received", totals.received),
        ("lost", totals.lost),
        ("duplicated", totals.duplicated),
        ("reordered", totals.reordered),
        ("receive calls", outcome.receive_calls),
    ];
    Taken {
        values: vec![outcome.delivered / 1e3],
        details: details
            .map(|(name, count)| (name.to_owned(), count as f64))
            .into(),
        duplicated: totals.duplicated,
        ..Taken::default()
    }
}

/// `count` connected sockets at the left, one socket at the right.
pub(crate) fn flows(link: &Link, count: u16) -> Result<(Outlet, Inlet)> {
    let inlet = udp_inlet(link)?;
    let to = SocketAddrV6::new(link.destination(), PORT, 0, 0);
    let connected = || {
        let socket = UdpSocket::bind(SocketAddrV6::new(link.source(), 0, 0, 0))?;
        socket.connect(to)?;
        Ok(socket)
    };
    let open = || (0..count).map(|_| connected()).collect();
    let sockets: std::io::Result<_> = link.left.enter(open);
    Ok((Outlet::Flows(sockets.context("open the flows")?), inlet))
}

fn udp_inlet(link: &Link) -> Result<Inlet> {
    let socket = link
        .right
        .enter(|| UdpSocket::bind((link.destination(), PORT)))
        .context("bind the receiver")?;
    socket.set_read_timeout(Some(LOOK))?;
    enlarge(&socket)?;
    Ok(Inlet::Udp(socket))
}

fn enlarge(socket: &impl AsFd) -> Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge the receive buffer")
}

/// From the tunnel's end at the left to many hosts, or to networks behind them.
fn outward(context: &Context<'_>, link: &Link) -> Result<(Outlet, Inlet)> {
    let count = |parameter| context.step.value(parameter).unwrap_or(1);
    let to: Vec<Ipv6Addr> = match context.step.row.method {
        Method::Networks => spaced(count(Parameter::Routes)).map(network).collect(),
        _ => (0..count(Parameter::Hosts))
            .map(host)
            .map(tests_scene::on_link)
            .collect(),
    };
    let to = to
        .into_iter()
        .map(|to| SockaddrStorage::from(SocketAddrV6::new(to, PORT, 0, 0)));
    let source = SocketAddrV6::new(link.source(), 0, 0, 0);
    let socket = link
        .left
        .enter(|| UdpSocket::bind(source))
        .context("bind the sender")?;
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(41)));
    let counter = link.right.enter(raw).context("open a raw socket")?;
    counter.set_read_timeout(Some(LOOK))?;
    enlarge(&counter)?;
    Ok((Outlet::Spread(socket, to.collect()), Inlet::Outer(counter, PORT)))
}

/// At most as many flows as a stamp can number, over the whole table, in an order no cache foresees.
fn spaced(count: u32) -> impl Iterator<Item = u32> {
    let flows = count.min(50_000);
    // A prime, so that every flow goes somewhere else.
    (0..flows).map(move |k| u32::try_from(u64::from(k) * 999_983 % u64::from(count)).unwrap_or(0))
}

/// From many hosts, or from networks behind many routers, to the tunnel's end at the right.
fn inward(context: &Context<'_>, link: &Link) -> Result<(Outlet, Inlet)> {
    let routed = context.step.row.method == Method::FromRouters;
    let parameter = if routed {
        Parameter::Routers
    } else {
        Parameter::Hosts
    };
    let count = context.step.value(parameter).unwrap_or(1);
    let to = SocketAddrV6::new(link.destination(), PORT, 0, 0);
    let packet = |k: u32| {
        let from = if routed {
            network(k)
        } else {
            tests_scene::on_link(host(k))
        };
        Crafted::new([host(k), RIGHT], [SocketAddrV6::new(from, PORT, 0, 0), to], SMALL)
    };
    let packets: Vec<_> = (0..count).map(packet).collect();
    let outlet = link.left.enter(|| Outlet::crafted(RIGHT, packets))?;
    Ok((outlet, udp_inlet(link)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_flow_goes_somewhere_else() {
        for count in [1, 100, 10_000, 1_000_000] {
            let all: Vec<_> = spaced(count).collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            assert!(all.iter().all(|k| *k < count));
        }
    }
}
