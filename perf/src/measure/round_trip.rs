//! Request and response on an idle link: what one packet costs when nothing can be shared with another.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Taken};
use crate::generate::inlet::latency_histogram;
use crate::generate::stamp::now_ns;

const PORT: u16 = 7002;
const REQUESTS: u32 = 250;
/// At the start, not counted.
const WARM_UP: u32 = 20;
/// Between a response and the next request: everybody has gone to sleep.
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(1);
const DATA: usize = 64;

pub(super) fn measure(context: &Context<'_>) -> Result<Taken> {
    let link = context.link()?;
    let bind = |ns: &isatap_tests::netns::Netns, address, port| -> Result<UdpSocket> {
        let socket = ns.enter(|| UdpSocket::bind((address, port))).context("bind")?;
        Ok(socket)
    };
    let responder = bind(&link.right, link.destination(), PORT)?;
    let asker = bind(&link.left, link.source(), 0)?;
    asker.connect((link.destination(), PORT))?;
    asker.set_read_timeout(Some(PATIENCE))?;
    responder.set_read_timeout(Some(Duration::from_millis(20)))?;
    let done = AtomicBool::new(false);
    let mut latency = latency_histogram()?;
    let asked = thread::scope(|scope| {
        scope.spawn(|| respond(&responder, &done));
        let asked = (0..WARM_UP + REQUESTS).try_for_each(|number| {
            let took = ask(&asker, number)?;
            if number >= WARM_UP {
                latency.saturating_record(took);
            }
            thread::sleep(PAUSE);
            anyhow::Ok(())
        });
        done.store(true, Ordering::Relaxed);
        asked
    });
    asked?;
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Taken {
        values: vec![micros(0.5), micros(0.99)],
        latency: Some(latency),
        ..Taken::default()
    })
}

fn respond(socket: &UdpSocket, done: &AtomicBool) {
    let mut buffer = [0; DATA];
    while !done.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

/// Nanoseconds from the request to its response.
fn ask(socket: &UdpSocket, number: u32) -> Result<u64> {
    let mut request = [0; DATA];
    request[..4].copy_from_slice(&number.to_be_bytes());
    let sent = now_ns();
    socket.send(&request).context("send a request")?;
    let mut response = [0; DATA];
    let len = socket
        .recv(&mut response)
        .context("no response within a second")?;
    ensure!(
        response[..len] == request,
        "another response than the one expected"
    );
    Ok(now_ns() - sent)
}
