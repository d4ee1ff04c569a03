//! What sending and receiving one packet costs, by way: the kernel's share alone, without TUN and without our code.
//!
//! Ways take turns (A B C, A B C), on one CPU, in two namespaces joined by veth. Sending includes what the far end's
//! interrupt does in the sender's context, as on veth it always does. Figures are microseconds a packet: the median of the
//! turns, smallest and largest in brackets.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use isatap_bench::costs::burst::BURST;
use isatap_bench::costs::link::{Far, FarEnd, Link, pin, receiver};
use isatap_bench::costs::table::Table;
use isatap_bench::costs::{receive, segments, send};

/// The length of the outer IPv4 header.
const OUTER_LEN: usize = 20;

/// Costs of ways to send and to receive; needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// Turns of each way.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Packets a turn.
    #[arg(long, default_value_t = 4096)]
    packets: usize,
    /// Sizes of the inner packet in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1460])]
    sizes: Vec<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.sizes.iter().all(|size| (40..=1480).contains(size)),
        "an inner packet has 40 to 1480 bytes"
    );
    ensure!(arguments.packets >= BURST, "a turn has at least {BURST} packets");
    let link = Link::new()?;
    pin(0);
    sending(&arguments, &link)?;
    receiving(&arguments, &link)?;
    cutting(&link)
}

fn sending(arguments: &Arguments, link: &Link) -> Result<()> {
    let ends = [FarEnd::Deaf, FarEnd::Reading];
    let columns: Vec<_> = ends
        .iter()
        .flat_map(|end| arguments.sizes.iter().map(move |size| (*end, *size)))
        .collect();
    let mut table = Table::default();
    for _ in 0..arguments.rounds {
        for (column, (end, size)) in columns.iter().enumerate() {
            for (row, way) in send::Way::ALL.into_iter().enumerate() {
                if table.is_refused(row, column) {
                    continue;
                }
                let turn = send_turn(arguments, link, *end, way, *size);
                table.add(row, column, turn.map_err(|error| error.to_string()));
            }
        }
    }
    let names: Vec<_> = columns
        .iter()
        .map(|(end, size)| format!("{size} bytes, {}", end.name()))
        .collect();
    table.print(
        "sending, us a packet",
        &names,
        &send::Way::ALL.map(send::Way::name),
    );
    Ok(())
}

fn send_turn(arguments: &Arguments, link: &Link, end: FarEnd, way: send::Way, size: usize) -> Result<f64> {
    let far = Far::start(link, end)?;
    let mut sender = send::Sender::new(link, way, size)?;
    sender.send()?;
    settle();
    let bursts = arguments.packets / BURST;
    let start = Instant::now();
    for _ in 0..bursts {
        sender.send()?;
    }
    let elapsed = start.elapsed();
    if end == FarEnd::Reading {
        let patience = Instant::now();
        while far.taken() < ((bursts + 1) * BURST) as u64 {
            ensure!(
                patience.elapsed() < Duration::from_secs(2),
                "{} packets of {} came",
                far.taken(),
                (bursts + 1) * BURST
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(per_packet(elapsed, bursts * BURST))
}

fn receiving(arguments: &Arguments, link: &Link) -> Result<()> {
    let mut table = Table::default();
    for _ in 0..arguments.rounds {
        for (column, size) in arguments.sizes.iter().enumerate() {
            for (row, way) in receive::Way::ALL.into_iter().enumerate() {
                if table.is_refused(row, column) {
                    continue;
                }
                let turn = receive_turn(arguments, link, way, *size);
                table.add(row, column, turn.map_err(|error| error.to_string()));
            }
        }
    }
    let names: Vec<_> = arguments
        .sizes
        .iter()
        .map(|size| format!("{size} bytes"))
        .collect();
    table.print(
        "receiving what waits, us a packet",
        &names,
        &receive::Way::ALL.map(receive::Way::name),
    );
    Ok(())
}

fn receive_turn(arguments: &Arguments, link: &Link, way: receive::Way, size: usize) -> Result<f64> {
    let socket = receiver(link)?;
    let mut receiver = receive::Receiver::new(socket, way)?;
    let mut sender = send::Sender::new(link, send::Way::RawMany, size)?;
    // The first burst touches memory and is not counted.
    sender.send()?;
    receiver.take(BURST, OUTER_LEN + size)?;
    let bursts = arguments.packets / BURST;
    for _ in 0..bursts {
        sender.send()?;
    }
    settle();
    let start = Instant::now();
    receiver.take(bursts * BURST, OUTER_LEN + size)?;
    Ok(per_packet(start.elapsed(), bursts * BURST))
}

/// The kernel takes the ring of the way before down behind our back.
fn settle() {
    std::thread::sleep(Duration::from_millis(20));
}

fn cutting(link: &Link) -> Result<()> {
    println!("\na TCP superpacket of 20 segments inside IPv4, by packet socket with vnet header:");
    for tso in [true, false] {
        let outcome = segments::try_superpacket(link, tso)?;
        let taken = match outcome.taken {
            Ok(len) => format!("{len} bytes taken"),
            Err(error) => format!("refused ({error})"),
        };
        let way = if tso {
            "segments itself"
        } else {
            "does not segment"
        };
        println!(
            "- interface {way}: {taken}; at the far end packets of {:?} bytes",
            outcome.arrived
        );
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_packet(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}
