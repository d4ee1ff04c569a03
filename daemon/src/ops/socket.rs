//! The control socket: who may connect, how much, how long (FAULTS 64). The language is in [`super::protocol`].

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::capture::{self, CaptureRequest, Plan, Running};
use super::protocol::{self, Command, FailureCode, MAX_REQUEST_LEN, Response};
use super::query::{Ask, ExplainRequest, NoAnswer};

/// Connections served at once; a further one is told so and closed.
pub const MAX_CONNECTIONS: usize = 16;
/// Time for a client to say something, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a client to take a part of a capture: somebody may be looking at it page by page.
const STALL: Duration = Duration::from_secs(60);
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How patient the server is; tests are less so.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Time to say something, and to take the answer.
    pub patience: Duration,
    /// Time to take a part of a capture.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            patience: PATIENCE,
            stall: STALL,
        }
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, ask: Ask, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("accept on the control socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            let full = Response::error(FailureCode::Busy, "too many clients, try again");
            // Fits the socket buffer of a new connection: what does not is lost with the connection.
            let _ = stream.try_write(&full.to_line());
            let _ = stream.shutdown().await;
            continue;
        };
        let ask = ask.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = converse(stream, &ask, limits).await {
                debug!("control client: {error}");
            }
        });
    }
}

async fn converse(stream: UnixStream, ask: &Ask, limits: Limits) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let who = format!("uid {} pid {}", peer.uid(), peer.pid().unwrap_or(0));
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(MAX_REQUEST_LEN).unwrap_or(u64::MAX) + 1;
        let read = async { (&mut reader).take(limit).read_until(b'\n', &mut line).await };
        let count = tokio::time::timeout(limits.patience, read).await??;
        if count == 0 {
            return Ok(());
        }
        let complete = line.ends_with(b"\n");
        let response = if complete || line.len() <= MAX_REQUEST_LEN {
            match protocol::parse_request(&line) {
                Ok(request) => match request.command {
                    Command::Capture(request) => match start_capture(&request, ask, &who).await {
                        // The connection is the capture's from now on.
                        Ok((plan, running)) => {
                            let served =
                                capture::serve(running, request, plan, reader, writer, limits.stall).await;
                            return end_capture(served, &who);
                        }
                        Err(response) => response,
                    },
                    command => answer(command, ask, &who).await,
                },
                Err(response) => response,
            }
        } else {
            let message = format!("a request line has at most {MAX_REQUEST_LEN} bytes");
            Response::error(FailureCode::BadRequest, message)
        };
        tokio::time::timeout(limits.patience, writer.write_all(&response.to_line())).await??;
        if !complete {
            return Ok(());
        }
    }
}

async fn start_capture(request: &CaptureRequest, ask: &Ask, who: &str) -> Result<(Plan, Running), Response> {
    let refused = |message| Response::error(FailureCode::Refused, message);
    let plan = request.plan().map_err(refused)?;
    match ask.capture(plan.config).await {
        Ok(Ok(running)) => {
            info!("capture for {who}: {request}");
            Ok((plan, running))
        }
        Ok(Err(message)) => Err(refused(message)),
        Err(why) => Err(Response::error(FailureCode::Busy, why.to_string())),
    }
}

fn end_capture(served: std::io::Result<capture::Summary>, who: &str) -> std::io::Result<()> {
    match &served {
        Ok(summary) => info!(
            "capture for {who} ended: {} captured, {} missed",
            summary.captured,
            summary.missed()
        ),
        Err(error) => info!("capture for {who} ended, since its client left: {error}"),
    }
    served.map(|_| ())
}

async fn answer(command: Command, ask: &Ask, who: &str) -> Response {
    match command {
        Command::Status => known(ask.status().await),
        Command::Routes => known(ask.routes().await),
        Command::Hosts { within } => match within.map(|network| network.parse()).transpose() {
            Ok(network) => tried(ask.hosts(network).await),
            Err(error) => Response::error(FailureCode::BadRequest, format!("within: {error}")),
        },
        Command::Histogram => known(ask.latency().await),
        Command::Reload => {
            info!(%who, "reload asked for over the control socket by {who}");
            tried(ask.reload().await)
        }
        Command::Upgrade => {
            info!("upgrade asked for over the control socket by {who}");
            tried(ask.upgrade().await)
        }
        Command::Solicit => {
            info!(%who, "solicitation asked for over the control socket by {who}");
            tried(ask.solicit().await)
        }
        Command::Ready => known(ask.ready().await.map(Result::err).map(Option::unwrap_or_default)),
        Command::Drain { undo } => {
            let what = if undo { "its end" } else { "draining" };
            info!("{what} asked for over the control socket by {who}");
            tried(ask.drain(!undo).await)
        }
        #[cfg(debug_assertions)]
        Command::Fault { fault } => tried(ask.fault(fault).await),
        Command::Explain { src4, src6, dst6 } => {
            tried(ask.explain(ExplainRequest { src4, src6, dst6 }).await)
        }
        Command::Capture(_) => {
            Response::error(FailureCode::BadRequest, "a capture takes the whole connection")
        }
    }
}

fn known(answer: Result<impl serde::Serialize, NoAnswer>) -> Response {
    match answer {
        Ok(value) => Response::ok(value),
        Err(why) => Response::error(FailureCode::Busy, why.to_string()),
    }
}

fn tried(answer: Result<Result<impl serde::Serialize, String>, NoAnswer>) -> Response {
    match answer {
        Ok(Ok(value)) => Response::ok(value),
        Ok(Err(message)) => Response::error(FailureCode::Refused, message),
        Err(why) => Response::error(FailureCode::Busy, why.to_string()),
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
