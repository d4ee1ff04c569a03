//! Configuration: a text is parsed (`file`), then resolved against the machine (`resolve`), then planned (`reload`).
//!
//! ```text
//!  source -> lines -> file (+ values, advertise) -> resolve (+ machine) -> Settings -> reload::plan -> control
//! ```

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

pub mod advertise;
pub mod diagnostic;
mod display;
mod doubtful;
pub mod engine_types;
pub mod file;
pub mod kept;
pub mod lines;
pub mod machine;
pub mod names;
pub mod per_network;
pub mod reload;
pub mod resolve;
pub mod resolved;
pub mod source;
#[cfg(test)]
mod tests;
pub mod values;

pub use diagnostic::ConfigError;
pub use resolve::Overrides;
pub use resolved::Settings;

use diagnostic::Sourced;
use file::BindText;
use machine::{Machine, Remembering, ThisMachine};
use source::ConfigSource;

/// Reads the configuration again and again: from the same place, under the same command line.
///
/// Works inside the chroot and without privilege, as far as the file can be read there.
#[derive(Debug)]
pub struct Loader<M = ThisMachine> {
    source: ConfigSource,
    overrides: Overrides,
    machine: Remembering<M>,
}

/// A configuration that can run.
#[derive(Debug)]
pub struct Loaded {
    /// What to do.
    pub settings: Settings,
    /// The server names among them, with where they are written.
    pub names: Vec<Sourced<String>>,
    /// What an operator should know, though it stops nothing.
    pub warnings: Vec<String>,
}

impl Loader {
    /// Takes the file named on the command line, or the default one.
    ///
    /// # Errors
    /// The named file is not there.
    pub fn open(config: Option<PathBuf>, overrides: Overrides) -> Result<Self, ConfigError> {
        let source = ConfigSource::open(config.as_deref())?;
        Ok(Self {
            source,
            overrides,
            machine: Remembering::new(ThisMachine),
        })
    }

    /// The directory that the file is read in again.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.source.directory()
    }
}

impl<M: Machine> Loader<M> {
    /// What the file says of `BindAddress` now, if anything.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn bind_text(&self) -> Result<Option<BindText>, ConfigError> {
        let Some(content) = self.source.read()? else {
            return Ok(None);
        };
        let parsed = file::parse(self.source.shown(), &content.bytes).map_err(ConfigError::new)?;
        Ok(parsed.bind.map(|bind| bind.value))
    }

    /// The addresses that this name had when it was looked up, or by what was taken over; `None` if neither was.
    pub fn looked_up(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        self.machine.memory().names.remove(name)
    }

    /// Reads, checks and resolves, but for the names of servers. What was looked up once keeps its answer; after the first success, accounts that were
    /// not looked up by then are refused.
    ///
    /// # Errors
    /// Everything that is wrong with the file; then everything that is wrong with what it names.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let content = self.source.read()?;
        let (file, path) = match &content {
            None => (file::FileConfig::default(), None),
            Some(content) => {
                let parsed = file::parse(self.source.shown(), &content.bytes).map_err(ConfigError::new)?;
                (parsed, Some(self.source.path().to_owned()))
            }
        };
        let names = resolve::server_names(&file, &self.overrides);
        let mut warnings = doubtful::doubtful(&file);
        let settings = resolve::resolve(file, &self.overrides, path, &self.machine)?;
        self.machine.seal();
        if let Some(content) = content
            && !content.readable_by(&settings.user)
        {
            warnings.push(format!(
                "{}: user {} cannot read the file, so it cannot be reloaded; chmod a+r or chgrp it",
                self.source.shown(),
                settings.user.name
            ));
        }
        Ok(Loaded {
            settings,
            names,
            warnings,
        })
    }
}
