//! Says once that the daemon serves, to whoever waits for it: the launcher, the service manager.

use super::detach::Launcher;
use super::notify::ServiceManager;
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

    /// The daemon serves. The first time, this releases the launcher and gives up its terminal; later it ends a reload.
    pub fn ready(&mut self, status: &str) {
        self.manager.ready(status);
        if let Some(launcher) = self.launcher.take() {
            launcher.ready();
        }
    }

    /// Whether somebody still waits at the terminal.
    pub fn is_awaited(&self) -> bool {
        self.launcher.is_some()
    }

    /// A line about the state.
    pub fn status(&self, status: &str) {
        self.manager.status(status);
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        self.manager.reloading();
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.manager.stopping();
    }

    /// The daemon ends with `error`: the launcher prints it, or we do when there is none.
    pub fn failed(&mut self, error: &ExitError) {
        self.manager.status(&error.to_string());
        match self.launcher.take() {
            Some(launcher) => launcher.failed(error),
            None => crate::exit::report(error),
        }
    }
}
