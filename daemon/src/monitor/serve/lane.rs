//! What the monitor does for the programs of the `ebpf` lane besides attaching them: it takes them from the thread that has them
//! loaded, and tells engines of their maps and of others who have a say.

use std::time::{Duration, Instant};

use isatap_engine::io::ebpf::LoadError;
use tracing::warn;

use super::Running;
use super::attach::Given;
use crate::exit::ExitError;
use crate::monitor::holdings;
use crate::monitor::loading::{Here, Loading, Programs};
use crate::monitor::others::{Lookout, Others};
use crate::monitor::segmenters::SegmentersWatch;
use crate::monitor::shaping::Shaping;
use crate::monitor::wire::Order;

/// Least time between a look at others and the next one for word of them: a burst of changes is one look ...
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// ... and such looks take no more than one in so many parts of the monitor's time.
const LOOK_SHARE: u32 = 10;

impl Running {
    /// Takes the programs that were being loaded, and tells the engine.
    ///
    /// # Errors
    /// There are none although the daemon was started to have some.
    pub(super) fn take_programs(&mut self) -> Result<(), ExitError> {
        let programs = &mut self.monitor.programs;
        let coming = match std::mem::replace(programs, Programs::Without(String::new())) {
            Programs::Coming(coming) => coming,
            other => {
                *programs = other;
                return Ok(());
            }
        };
        let otherwise = coming.otherwise;
        match self.loaded(coming) {
            Ok(here) => {
                self.given = Given::of(here.held.devices(), Instant::now());
                self.monitor.programs = Programs::Here(Box::new(here));
            }
            Err(error) => {
                let interface = &self.monitor.holdings.descriptors.shape.interface;
                self.monitor.programs = otherwise.follow(interface, &error)?;
            }
        }
        self.tell_of_programs();
        Ok(())
    }

    fn loaded(&self, coming: Loading) -> Result<Here, LoadError> {
        let insists = coming.insists;
        let held = coming.finish()?;
        let maps = held.maps()?;
        let own = self.monitor.holdings.descriptors.raw_sockets();
        let lookout = Lookout::open(own).map_err(LoadError::Descriptor)?;
        let shaping = Shaping::open().map_err(LoadError::Descriptor)?;
        let segmenters = SegmentersWatch::open().map_err(LoadError::Descriptor)?;
        Ok(Here {
            held,
            maps,
            lookout,
            shaping,
            segmenters,
            insists,
        })
    }

    /// Has the engine know of the programs, as soon as there is something to know.
    pub(super) fn tell_of_programs(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let told = match &self.monitor.programs {
            Programs::Coming(_) => return,
            Programs::Here(here) => holdings::tell_of_programs(engine.socket(), Ok(&here.maps)),
            Programs::Without(_) if !self.monitor.setup.programs => return,
            Programs::Without(why) => holdings::tell_of_programs(engine.socket(), Err(why)),
        };
        if let Err(error) = told {
            warn!("the engine does not hear ({error})");
        }
        engine.equipped_at = Instant::now();
        self.tell_of_others();
    }

    /// There is word of others.
    pub(super) fn others_changed(&mut self) {
        let began = Instant::now();
        self.tell_of_others();
        let now = Instant::now();
        let pause = LOOK_INTERVAL.max((now - began) * LOOK_SHARE);
        self.hears_of_others_at = now + pause;
    }

    /// Has the engine know who else has a say about outer packets; at word of them, and as often as it gives a sign of life, since of
    /// some there is no word. Without an engine nobody but the monitor can have the programs step back.
    pub(super) fn tell_of_others(&mut self) {
        let tunnel = self.monitor.holdings.descriptors.shape.if_index;
        let Some(here) = self.monitor.programs.here_mut() else {
            return;
        };
        let others = Others {
            shaping: here.shaping.look(tunnel, &mut here.held),
            segmenters: here.segmenters.look(),
            ..here.lookout.look()
        };
        match &self.engine {
            None if others.would_miss() && !here.insists => here.held.revoke_rules(),
            Some(engine)
                if self.others.as_ref() != Some(&others)
                    && engine.order(&Order::Others(others.clone()), &[]).is_ok() =>
            {
                self.others = Some(others);
            }
            _ => {}
        }
    }

    /// The engine is gone, and nobody listens to the kernel about neighbours.
    pub(super) fn revoke_neighbours(&self) {
        if let Some(here) = self.monitor.programs.here() {
            here.held.revoke_neighbours();
        }
    }

    /// The engine has no use for them: they would carry on by the rules of the one before. No later one is given any.
    pub(super) fn give_programs_up(&mut self, why: String) {
        self.detach();
        self.monitor.programs = Programs::Without(why);
    }

    /// Detaches them. Those that are on their way come first: where they are attached by filters, nothing else takes them away.
    pub(super) fn detach(&mut self) {
        match std::mem::replace(&mut self.monitor.programs, Programs::Without(String::new())) {
            Programs::Coming(coming) => drop(coming.finish()),
            Programs::Here(_) | Programs::Without(_) => {}
        }
    }
}
