//! Devices that the engine asks the programs to be at: it gets those where the tunnel may be, as long as it may be there
//! (FAULTS 72).
//!
//! What it was given is judged again whenever an IPv4 address of the machine comes or goes, and when the file is read again: an
//! engine that somebody has taken over would not ask a second time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isatap_engine::fib::MAX_LOCATORS;
use tracing::{info, warn};

use super::Running;
use crate::link::change::Devices;
use crate::monitor::devices::Device;
use crate::monitor::gate::Refusal;
use crate::monitor::wire::Answer;
use crate::monitor::{devices, gate};

/// How long to hear nothing of addresses after a look: a storm of them is a look now and then.
const QUIET: Duration = Duration::from_secs(1);

/// What the engine was given, and when to see whether it may keep it.
#[derive(Debug)]
pub(super) struct Given {
    devices: Devices,
    /// From when on word of addresses is heard.
    pub(super) listens_at: Instant,
}

impl Given {
    /// These; to the engine of a monitor before, if not to one of ours.
    pub(super) fn of(devices: Devices, now: Instant) -> Self {
        Self {
            devices,
            listens_at: now,
        }
    }
}

impl Running {
    /// Attaches the program that takes outer headers off to those of `wanted` that may be, and to no others. One that has just
    /// gone is no attack: the engine will hear of it, and ask for others.
    pub(super) fn attach(&mut self, wanted: &Devices) -> Answer {
        if self.monitor.programs.here().is_none() {
            return Answer::Refused("there are no programs".to_owned());
        }
        let found = match devices::look(wanted) {
            Ok(found) => found,
            Err(error) => return Answer::Refused(format!("the devices cannot be looked at: {error}")),
        };
        let (mut allowed, mut failures) = ([0; MAX_LOCATORS], Vec::new());
        for (place, index) in allowed.iter_mut().zip(wanted.iter().copied()) {
            match self.judge(index, &found) {
                Some(Ok(())) => *place = index,
                Some(Err(refusal)) => {
                    self.refuse(refusal, &format!("attach a program to device {index}"));
                    failures.push(format!("device {index}: {refusal}"));
                }
                None => {
                    failures.extend((index != 0).then(|| format!("device {index}: there is no such device")))
                }
            }
        }
        self.given.devices = allowed;
        if let Some(programs) = self.monitor.programs.held_mut()
            && let Err(why) = programs.attach_to(&allowed)
        {
            failures.push(why);
        }
        if failures.is_empty() {
            Answer::Done
        } else {
            Answer::Refused(failures.join("; "))
        }
    }

    /// Judges what the engine was given once more if there is word of addresses.
    pub(super) fn addresses_changed(&mut self) {
        let Some(here) = self.monitor.programs.here() else {
            return;
        };
        self.given.listens_at = Instant::now() + QUIET;
        // One that cannot be read is no reason to look less often.
        if !matches!(here.held.word().came(), Ok(false)) {
            self.judge_again();
        }
    }

    /// Judges what the engine was given once more: takes the program from devices where it may not be any longer, and puts it to those
    /// where it may be again.
    pub(super) fn judge_again(&mut self) {
        if self.monitor.programs.here().is_none() || self.given.devices == [0; MAX_LOCATORS] {
            return;
        }
        let found = match devices::look(&self.given.devices) {
            Ok(found) => found,
            Err(error) => return warn!("devices with programs cannot be looked at: {error}"),
        };
        let mut allowed = self.given.devices;
        for place in &mut allowed {
            let index = *place;
            let is_at = self.is_at(index);
            match self.judge(index, &found) {
                Some(Ok(())) if !is_at => info!("device {index} may have a program again"),
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    if is_at {
                        info!("the program is taken from device {index}: {refusal}");
                    }
                    *place = 0;
                }
                None => *place = 0,
            }
        }
        if let Some(programs) = self.monitor.programs.held_mut()
            && let Err(why) = programs.attach_to(&allowed)
        {
            warn!("a program cannot be attached: {why}");
        }
    }

    fn is_at(&self, index: u32) -> bool {
        let here = self.monitor.programs.here();
        here.is_some_and(|here| here.held.is_at(index))
    }

    /// Whether the program may be at this device; `None` when it was not found.
    fn judge(&self, index: u32, found: &BTreeMap<u32, Device>) -> Option<Result<(), Refusal>> {
        let tunnel = self.monitor.holdings.descriptors.shape.if_index;
        let bounds = self.monitor.binding.bounds();
        let device = found.get(&index)?;
        Some(gate::device(index, device, tunnel, |addr| bounds.allow(addr)))
    }
}
