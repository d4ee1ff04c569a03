//! Things that go wrong on demand, for tests of what follows. No release build has this.

use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use isatap_engine::fib::{Ipv6Prefix, MAX_LOCATORS};
use isatap_engine::io::restrict::RingScope;
use isatap_engine::worker::WorkerFault;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::daemon::Daemon;
use crate::config::Loader;
use crate::link::apply::RouteId;
use crate::link::change::{Change, Changer as _};
use crate::monitor::text;
use crate::monitor::wire::Say;
use crate::ops::fault::Fault;
use crate::slaac::Origin;

/// More than a test has.
const MAX_DEVICES: u32 = 16;

impl Daemon {
    /// Does what a test wishes; says what came of it where there is somebody left to say it.
    pub(super) async fn go_wrong(&mut self, fault: Fault) -> Result<Vec<String>, String> {
        match fault {
            Fault::WorkerPanic => self.engine.inject(0, WorkerFault::Panic),
            Fault::WorkerWedge => self.engine.inject(0, WorkerFault::Wedge),
            Fault::WorkerSpin => self.engine.inject(0, WorkerFault::Spin),
            Fault::ControlPanic => panic!("as a test wished"),
            Fault::ControlWedge => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Fault::OtherSigns => self.watchdog.sign = Say::Status("as a test wished".to_owned()),
            Fault::Abort => std::process::abort(),
            Fault::Program => {
                let started = std::process::Command::new("/bin/true").spawn();
                return Ok(vec![
                    started.map_or_else(|error| error.to_string(), |_| "done".to_owned()),
                ]);
            }
            Fault::Ring => {
                let made = isatap_engine::io::probe::uring(RingScope::Anything);
                return Ok(vec![made.unwrap_or_else(|error| error)]);
            }
            Fault::Elsewhere => return Ok(self.look_elsewhere()),
            Fault::Places => return self.leave_other_places(),
            Fault::Listen => {
                let addr = ([127, 0, 0, 1], 9440).into();
                let listened = [self.link.listen_at(addr).await, self.link.listen_at(addr).await];
                return listened
                    .into_iter()
                    .map(|one| one.map(|_| "done".to_owned()))
                    .collect();
            }
            Fault::Routes => return self.ask_for_routes().await,
            Fault::Flood => loop {
                self.link.ask_and_not_listen();
            },
            Fault::Nonsense => self.link.babble(),
            Fault::Devices => return Ok(self.ask_for_devices().await),
            Fault::Forbidden => return Ok(self.ask_too_much().await),
        }
        Ok(Vec::new())
    }

    /// What an intruder would do with a directory that is open.
    fn look_elsewhere(&self) -> Vec<String> {
        let Some(directory) = self.loader.as_ref().and_then(Loader::directory) else {
            return Vec::new();
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let outcome = |name: &str| match openat(directory, name, flags, Mode::empty()) {
            Ok(_) => format!("{name}: opened"),
            Err(errno) => format!("{name}: {errno:?}"),
        };
        let up = "../".repeat(16);
        vec![
            outcome("isatapd.conf"),
            outcome("."),
            outcome(&format!("{up}proc/version")),
        ]
    }

    /// What an intruder would do with the programs: be everywhere.
    async fn ask_for_devices(&self) -> Vec<String> {
        let mut answers = Vec::new();
        for index in (1..=MAX_DEVICES).chain([u32::MAX]) {
            let mut devices = [0; MAX_LOCATORS];
            devices[0] = index;
            let outcome = self.link.change(Change::Programs(devices)).await;
            answers.push(format!(
                "{index}: {}",
                outcome.map_or_else(|error| error.to_string(), |()| "done".to_owned())
            ));
        }
        answers
    }

    /// What an intruder would have removed.
    fn leave_other_places(&self) -> Result<Vec<String>, String> {
        let loader = self.loader.as_ref().ok_or("no configuration")?;
        let mut settings = self.settings.clone();
        let victim = settings.control_socket.path.with_file_name("victim");
        (settings.pidfile, settings.control_socket.path) = (victim.join("pid"), victim);
        text::keep(&loader.keep(&settings).encode())
            .and_then(|text| self.link.keep(text.as_fd()))
            .map_err(|error| error.to_string())?;
        Ok(Vec::new())
    }

    /// One prefix of the link after the other, until that is refused.
    async fn ask_for_routes(&self) -> Result<Vec<String>, String> {
        for number in 0.. {
            let addr = Ipv6Addr::from((0x2001_0db8_u128 << 96) + (number << 64));
            let id = RouteId {
                prefix: Ipv6Prefix::containing(addr, 64).map_err(|error| error.to_string())?,
                metric: 256,
                via: None,
                preference: 0,
                origin: Origin::Own,
            };
            if let Err(error) = self.link.change(Change::Route(id, None)).await {
                return Ok(vec![number.to_string(), error.to_string()]);
            }
        }
        Ok(Vec::new())
    }

    async fn ask_too_much(&self) -> Vec<String> {
        let mut answers = Vec::new();
        for change in [
            Change::Mtu(0),
            Change::LinkLocal([127, 0, 0, 1].into()),
            Change::RemoveAddress(
                "2001:db8:1::1".parse().unwrap_or(std::net::Ipv6Addr::LOCALHOST),
                64,
            ),
            Change::HopLimit(Some(0)),
        ] {
            answers.push(match self.link.change(change).await {
                Ok(()) => format!("{change}: done"),
                Err(error) => error.to_string(),
            });
        }
        let listened = self.link.listen_at(([127, 0, 0, 1], 80).into()).await;
        answers.push(listened.map_or_else(|why| format!("listen: {why}"), |_| "listen: done".to_owned()));
        answers
    }
}
