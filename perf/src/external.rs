//! Any other tunnel, by a command that is run at each end: `--external NAME=COMMAND`.
//!
//! The command runs under `sh -c` with these variables, makes an interface of the given name that carries IPv6 to the peer, and
//! stays in the foreground. Address, MTU and state of the interface are set here once it exists.
//!
//! | variable | example |
//! |---|---|
//! | `ISATAP_PERF_INTERFACE` | `is0` |
//! | `ISATAP_PERF_LOCAL`, `ISATAP_PERF_PEER` | `10.0.0.1`, `10.0.0.2` |
//! | `ISATAP_PERF_ADDRESS`, `ISATAP_PERF_PEER_ADDRESS` | `2001:db8:1::5efe:a00:1`, `2001:db8:1::5efe:a00:2` |
//! | `ISATAP_PERF_MTU` | `1480` |

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use isatap_tests::daemon::TUNNEL;
use isatap_tests::netns::Netns;
use isatap_tests::{scene, wait};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::peer::Tunnel;

/// A name for reports, and the command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct External {
    pub(crate) name: String,
    pub(crate) command: String,
}

impl FromStr for External {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("{name:?} is no name: letters, digits, - and _ are"));
        }
        if command.trim().is_empty() {
            return Err(format!("{name} has no command"));
        }
        Ok(Self {
            name: name.to_owned(),
            command: command.to_owned(),
        })
    }
}

/// The running command; it ends, with all it started, when dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl External {
    /// Starts it in `ns`; returns when its interface is there and has its address.
    pub(crate) fn start(&self, ns: &Netns, tunnel: &Tunnel<'_>, mtu: u16) -> Running {
        let (address, other) = (scene::on_link(tunnel.own), scene::on_link(tunnel.other));
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.command])
            .env("ISATAP_PERF_INTERFACE", TUNNEL)
            .env("ISATAP_PERF_LOCAL", tunnel.own.to_string())
            .env("ISATAP_PERF_PEER", tunnel.other.to_string())
            .env("ISATAP_PERF_ADDRESS", address.to_string())
            .env("ISATAP_PERF_PEER_ADDRESS", other.to_string())
            .env("ISATAP_PERF_MTU", mtu.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0);
        let mut running = Running(ns.spawn(&mut command));
        wait::until(
            &format!("{} to make {TUNNEL}", self.name),
            Duration::from_secs(10),
            || {
                if let Ok(Some(status)) = running.0.try_wait() {
                    panic!("{} ended ({status}): {}", self.name, self.command);
                }
                if ns.has_link(TUNNEL) {
                    Ok(())
                } else {
                    Err("not there")
                }
            },
        );
        ns.ip(&format!("link set {TUNNEL} mtu {mtu} up"));
        ns.ip(&format!("addr replace {address}/64 dev {TUNNEL} nodad"));
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
            let ended = || matches!(self.0.try_wait(), Ok(Some(_)) | Err(_));
            let mut ended = ended;
            for _ in 0..100 {
                if ended() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_command_are_told_apart() {
        let external: External = "wg=wireguard-go -f $ISATAP_PERF_INTERFACE --x=y".parse().unwrap();
        assert_eq!(external.name, "wg");
        assert!(external.command.ends_with("--x=y"));
        for bad in ["wg", "=x", "a b=x", "wg= "] {
            assert!(bad.parse::<External>().is_err(), "{bad}");
        }
    }
}
