//! Tells the service manager how the daemon is (sd_notify(3)).
//!
//! The `sd-notify` crate finds the socket by its path every time; ours is connected before the change of root and kept.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A connection to the service manager, or none.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// Connects to what `NOTIFY_SOCKET` names. Without it, or if nobody is there, everything said later is nothing.
    pub fn from_environment() -> Self {
        match std::env::var("NOTIFY_SOCKET") {
            Ok(name) => Self::connect(&name).unwrap_or_default(),
            Err(_) => Self::default(),
        }
    }

    fn connect(name: &str) -> std::io::Result<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A service manager that hangs must not hang the daemon.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(socket) })
    }

    /// The daemon serves.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A line about the state for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// A reload has begun; [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let micros = clock.map_or(0, |now| Duration::from(now).as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message.as_bytes());
        }
    }
}

/// A status with a line break could say anything to the service manager.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn the_life_of_a_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::connect(path.to_str().unwrap()).unwrap();
        // As in the chroot: the path is gone, the connection is not.
        std::fs::remove_file(&path).unwrap();
        manager.ready("router at 10.0.0.1\nMAINPID=1");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=router at 10.0.0.1 MAINPID=1");
        manager.reloading();
        let reloading = heard(&socket);
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        manager.stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn abstract_names_and_nobody() {
        let name = format!("isatapd-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        ServiceManager::connect(&format!("@{name}")).unwrap().status("x");
        assert_eq!(heard(&socket), "STATUS=x");
        assert!(ServiceManager::connect("/nowhere/at/all").is_err());
        ServiceManager::default().ready("nobody hears");
    }
}
