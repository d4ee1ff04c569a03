//! What the engine asks for: judged, carried out, answered (FAULTS 72).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use tracing::{error, warn};

use super::Running;
use crate::exit::ExitError;
use crate::launch::listen;
use crate::link::change::Change;
use crate::monitor::gate::{self, Refusal};
use crate::monitor::wire::{Answer, Cause, Order};

impl Running {
    pub(super) fn change(&mut self, change: &Change) -> Answer {
        if let Change::Programs(devices) = change {
            return self.attach(devices);
        }
        let judged = gate::change(change).and_then(|()| self.amount.take(Instant::now(), change));
        if let Err(refusal) = judged {
            return self.refuse(refusal, &change.to_string());
        }
        match self.monitor.direct.carry_out(change) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Kernel(error.raw_os_error().unwrap_or(nix::libc::ETIMEDOUT)),
        }
    }

    pub(super) fn listen_at(&mut self, addr: SocketAddr) -> (Answer, Option<OwnedFd>) {
        if let Err(refusal) = gate::listen(addr) {
            return (self.refuse(refusal, &format!("listen at {addr}")), None);
        }
        // Asked for before by an engine that did not wait for the answer, it is held already, and in nobody else's way.
        let listener = match &self.monitor.holdings.metrics {
            Some(held) if listen::is_at(held, addr) => held
                .try_clone()
                .map_err(|error| ExitError::other(error.to_string())),
            _ => listen::metrics(addr).map(OwnedFd::from),
        };
        let listened = listener.and_then(|kept| match kept.try_clone() {
            Ok(given) => Ok((kept, given)),
            Err(error) => Err(ExitError::other(error.to_string())),
        });
        match listened {
            Ok((kept, given)) => {
                self.monitor.holdings.metrics = Some(kept);
                (Answer::Done, Some(given))
            }
            Err(error) => (Answer::Refused(error.message().to_owned()), None),
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, what: &str) -> Answer {
        let count = self.refused.entry(refusal).or_insert(0);
        *count += 1;
        let text = format!(
            "the engine asked the monitor to {what}: refused, {refusal} (refusal {count} of this kind)"
        );
        if refusal.may_be_late() {
            warn!("{text}");
        } else {
            error!("{text}");
        }
        Answer::Refused(refusal.to_string())
    }

    pub(super) fn answer(&mut self, number: u32, answer: Answer, along: Option<OwnedFd>) {
        let Some(engine) = &self.engine else { return };
        let along: Vec<_> = along.iter().map(AsFd::as_fd).collect();
        match engine.order(&Order::Answer(number, answer), &along) {
            Ok(()) => {}
            // Control waits for each answer before it asks for the next thing, for the most part.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.condemn(Cause::Fault, "it asks again and again and takes no answer");
            }
            Err(error) => warn!("the engine does not hear ({error})"),
        }
    }
}
