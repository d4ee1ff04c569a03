//! Devices that the engine asks the programs to be at: it gets those where the tunnel may be (FAULTS 72).

use isatap_engine::fib::MAX_LOCATORS;

use super::Running;
use crate::link::change::Devices;
use crate::monitor::wire::Answer;
use crate::monitor::{devices, gate};

impl Running {
    /// Attaches the program that takes outer headers off to those of `wanted` that may be, and to no others. One that has just
    /// gone is no attack: the engine will hear of it, and ask for others.
    pub(super) fn attach(&mut self, wanted: &Devices) -> Answer {
        if self.monitor.programs.is_none() {
            return Answer::Refused("there are no programs".to_owned());
        }
        let found = match devices::look(wanted) {
            Ok(found) => found,
            Err(error) => return Answer::Refused(format!("the devices cannot be looked at: {error}")),
        };
        let tunnel = self.monitor.holdings.descriptors.shape.if_index;
        let (mut allowed, mut failures) = ([0; MAX_LOCATORS], Vec::new());
        for (place, index) in allowed.iter_mut().zip(wanted.iter().copied()) {
            let Some(device) = found.get(&index) else {
                failures.extend((index != 0).then(|| format!("device {index}: there is no such device")));
                continue;
            };
            let bounds = self.monitor.binding.bounds();
            match gate::device(index, device, tunnel, |addr| bounds.allow(addr)) {
                Ok(()) => *place = index,
                Err(refusal) => {
                    self.refuse(refusal, &format!("attach a program to device {index}"));
                    failures.push(format!("device {index}: {refusal}"));
                }
            }
        }
        if let Some((programs, _)) = &mut self.monitor.programs
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
}
