//! Says how the daemon is to whoever waits for it: the launcher, once, and the service manager, all its life.

use super::detach::Launcher;
use super::notify::{Notice, ServiceManager};
use crate::exit::ExitError;

/// Everybody who waits for the daemon.
#[derive(Debug)]
pub struct Ready {
    launcher: Option<Launcher>,
    manager: ServiceManager,
}

impl Ready {
    /// Opens the way to the service manager; must come before the change of root.
    pub fn new(launcher: Option<Launcher>) -> Self {
        Self {
            launcher,
            manager: ServiceManager::from_environment(),
        }
    }

    /// Passes a notice on. The first [`Notice::Ready`] also releases the launcher and gives up its terminal.
    pub fn tell(&mut self, notice: &Notice) {
        self.manager.tell(notice);
        if *notice == Notice::Ready
            && let Some(launcher) = self.launcher.take()
        {
            launcher.ready();
        }
    }

    /// The daemon ends with `error`: the launcher prints it, or we do when there is none.
    pub fn failed(&mut self, error: &ExitError) {
        self.manager.tell(&Notice::Status(error.to_string()));
        match self.launcher.take() {
            Some(launcher) => launcher.failed(error),
            None => crate::exit::report(error),
        }
    }
}
