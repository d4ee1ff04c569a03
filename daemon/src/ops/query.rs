//! What the servers may ask the control loop, and how long they wait.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use isatap_engine::capture::CaptureConfig;
use isatap_engine::fib::Ipv4Prefix;

use super::capture::Running;
use super::hosts::Hosts;
use super::latency::LatencyRow;
use super::live::Moment;
use super::status::{Routes, Status};

/// Questions that may wait for the control loop at once.
const QUEUE_LEN: usize = 64;

/// How long a question may wait for its answer. A reload resolves names and may take longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const RELOAD_WITHIN: Duration = Duration::from_secs(60);
/// The new program is tried first.
const UPGRADE_WITHIN: Duration = Duration::from_secs(12);

/// One question with the way back for its answer.
#[derive(Debug)]
pub enum Query {
    /// The whole status.
    Status(oneshot::Sender<Status>),
    /// The metrics as Prometheus text.
    Metrics(oneshot::Sender<String>),
    /// `Ok` when packets can be carried, else why not.
    Ready(oneshot::Sender<Result<(), Vec<String>>>),
    /// The status, and the latencies since the start.
    Moment(oneshot::Sender<Moment>),
    /// The routes of the interface.
    Routes(oneshot::Sender<Routes>),
    /// The hosts that a router knows, of one network or all.
    Hosts(Option<Ipv4Prefix>, oneshot::Sender<Result<Hosts, String>>),
    /// The latencies of every worker since the start.
    Latency(oneshot::Sender<Vec<LatencyRow>>),
    /// Load the configuration again; the answer says what changed.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    /// Let the program that is installed now take over; the answer comes before it does.
    Upgrade(oneshot::Sender<Result<String, String>>),
    /// Solicit every router now; the answer is how many.
    Solicit(oneshot::Sender<Result<usize, String>>),
    /// Take this router out of service, or back; the answer says what that means.
    Drain(bool, oneshot::Sender<Result<Vec<String>, String>>),
    /// Copy packets.
    Capture(CaptureConfig, oneshot::Sender<Result<Running, String>>),
    /// Go wrong, for a test.
    #[cfg(debug_assertions)]
    Fault(super::fault::Fault, oneshot::Sender<Result<Vec<String>, String>>),
    /// What would happen to a packet.
    Explain(ExplainRequest, oneshot::Sender<Result<Vec<String>, String>>),
}

/// The packet to be explained: received from `src4`, or sent by this machine without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainRequest {
    /// Outer source.
    pub src4: Option<Ipv4Addr>,
    /// Inner source.
    pub src6: Ipv6Addr,
    /// Inner destination.
    pub dst6: Ipv6Addr,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Too many questions wait already, or it took too long.
    #[error("the daemon is busy, try again")]
    Busy,
    /// The control loop is ending.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The asking side; clones share the queue.
#[derive(Clone, Debug)]
pub struct Ask(mpsc::Sender<Query>);

/// The answering side.
#[derive(Debug)]
pub struct Queries(mpsc::Receiver<Query>);

/// A queue of questions.
pub fn channel() -> (Ask, Queries) {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    (Ask(sender), Queries(receiver))
}

impl Query {
    /// Whether the answer says by which rules the workers decide.
    pub fn is_about_rules(&self) -> bool {
        matches!(self, Query::Routes(_) | Query::Explain(..))
    }

    /// Whether the answer says what the kernel lost.
    pub fn needs_losses(&self) -> bool {
        matches!(self, Query::Status(_) | Query::Metrics(_) | Query::Moment(_))
    }

    /// Whether the answer needs the workers' latencies as they are now.
    pub fn needs_latencies(&self) -> bool {
        matches!(self, Query::Metrics(_) | Query::Latency(_) | Query::Moment(_))
    }
}

impl Queries {
    /// The next question; `None` when nobody can ask any more.
    pub async fn next(&mut self) -> Option<Query> {
        self.0.recv().await
    }
}

impl Ask {
    /// Asks for the status.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn status(&self) -> Result<Status, NoAnswer> {
        self.ask(Query::Status, ANSWER_WITHIN).await
    }

    /// Asks for the metrics.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn metrics(&self) -> Result<String, NoAnswer> {
        self.ask(Query::Metrics, ANSWER_WITHIN).await
    }

    /// Asks whether packets can be carried.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn ready(&self) -> Result<Result<(), Vec<String>>, NoAnswer> {
        self.ask(Query::Ready, ANSWER_WITHIN).await
    }

    /// Asks for the status with the latencies.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn moment(&self) -> Result<Moment, NoAnswer> {
        self.ask(Query::Moment, ANSWER_WITHIN).await
    }

    /// Asks for the routes.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn routes(&self) -> Result<Routes, NoAnswer> {
        self.ask(Query::Routes, ANSWER_WITHIN).await
    }

    /// Asks for the hosts that a router knows, of one network or all.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn hosts(&self, within: Option<Ipv4Prefix>) -> Result<Result<Hosts, String>, NoAnswer> {
        self.ask(|reply| Query::Hosts(within, reply), ANSWER_WITHIN).await
    }

    /// Asks for the latencies.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn latency(&self) -> Result<Vec<LatencyRow>, NoAnswer> {
        self.ask(Query::Latency, ANSWER_WITHIN).await
    }

    /// Asks for a reload.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn reload(&self) -> Result<Result<Vec<String>, String>, NoAnswer> {
        self.ask(Query::Reload, RELOAD_WITHIN).await
    }

    /// Asks for the program that is installed now to take over.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn upgrade(&self) -> Result<Result<String, String>, NoAnswer> {
        self.ask(Query::Upgrade, UPGRADE_WITHIN).await
    }

    /// Asks for solicitations.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn solicit(&self) -> Result<Result<usize, String>, NoAnswer> {
        self.ask(Query::Solicit, ANSWER_WITHIN).await
    }

    /// Asks that this router be taken out of service (`on`), or back.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn drain(&self, on: bool) -> Result<Result<Vec<String>, String>, NoAnswer> {
        self.ask(|reply| Query::Drain(on, reply), ANSWER_WITHIN).await
    }

    /// Asks for a capture; it ends when the answer is dropped.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn capture(&self, config: CaptureConfig) -> Result<Result<Running, String>, NoAnswer> {
        self.ask(|reply| Query::Capture(config, reply), ANSWER_WITHIN)
            .await
    }

    /// Asks what would happen to a packet.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn explain(&self, request: ExplainRequest) -> Result<Result<Vec<String>, String>, NoAnswer> {
        self.ask(|reply| Query::Explain(request, reply), ANSWER_WITHIN)
            .await
    }

    /// Asks for something to go wrong.
    ///
    /// # Errors
    /// [`NoAnswer`].
    #[cfg(debug_assertions)]
    pub async fn fault(&self, fault: super::fault::Fault) -> Result<Result<Vec<String>, String>, NoAnswer> {
        self.ask(|reply| Query::Fault(fault, reply), ANSWER_WITHIN).await
    }

    async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
        within: Duration,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(query(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NoAnswer::Busy,
            mpsc::error::TrySendError::Closed(_) => NoAnswer::Stopping,
        })?;
        match tokio::time::timeout(within, answer).await {
            Err(_) => Err(NoAnswer::Busy),
            Ok(Err(_)) => Err(NoAnswer::Stopping),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}
