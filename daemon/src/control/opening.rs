//! When an engine begins to serve: as soon as it carries, and knows which programs it has in the kernel. Loading them takes the
//! monitor a while, in which workers carry; whoever waits for the daemon, or asks it something, waits for that as well.

use std::net::TcpListener;

use isatap_engine::io::ebpf::MapFds;
use tracing::info;

use super::daemon::Daemon;
use super::programs::Programs;
use super::report::{lane_words, role_name};
use super::start::descriptor_error;
use crate::config::resolved::Lane;
use crate::exit::ExitError;
use crate::launch::notify::Notice;

/// What is done then.
pub(super) struct Opening {
    /// Listens on `MetricsListen`.
    pub(super) metrics: Option<TcpListener>,
    /// Lets go of the terminal that somebody waits at.
    pub(super) let_terminal_go: Box<dyn Fn()>,
}

impl Daemon {
    /// Takes what the monitor says of the programs in the kernel: their maps, or why there are none.
    ///
    /// # Errors
    /// The maps cannot be used although the lane was asked for by name, or what serving takes is not there.
    pub(super) fn told_of_programs(&mut self, programs: Result<MapFds, String>) -> Result<(), ExitError> {
        match programs {
            Ok(maps) => {
                let (lane, tunnel) = (self.settings.lane, self.interface.if_index);
                match Programs::new(&maps, lane, &self.netlink, tunnel) {
                    Ok(programs) => self.programs = Some(programs),
                    Err(error) if lane == Lane::Ebpf => return Err(error),
                    Err(error) => {
                        let why = error.to_string();
                        info!("packets are carried by workers, without programs in the kernel: {why}");
                        self.link.give_programs_up(why.clone());
                        self.without_programs = why;
                    }
                }
            }
            Err(why) => self.without_programs = why,
        }
        self.open()
    }

    /// Serves from now on; does nothing when it does already.
    ///
    /// # Errors
    /// The socket for metrics cannot be used.
    pub(super) fn open(&mut self) -> Result<(), ExitError> {
        let Some(opening) = self.opening.take() else {
            return Ok(());
        };
        info!(
            "{}, {} worker(s), interface {} with tunnel MTU {}, {} at {}",
            lane_words(self.programs.is_some(), self.engine.lane()),
            self.settings.workers,
            self.interface.name,
            self.settings.mtu,
            role_name(self.settings.role),
            self.locator,
        );
        self.service.tell(Notice::Ready);
        // Whoever gets an answer from here may rely on a monitor that knows it.
        if let Some(listener) = opening.metrics {
            self.serve_metrics(listener).map_err(descriptor_error)?;
        }
        (opening.let_terminal_go)();
        Ok(())
    }

    /// Whether it serves.
    pub(super) fn is_open(&self) -> bool {
        self.opening.is_none()
    }
}
