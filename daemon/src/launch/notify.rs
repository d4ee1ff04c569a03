//! Tells the service manager how the daemon is (sd_notify(3)).
//!
//! The `sd-notify` crate finds the socket by its path every time; ours is connected before the change of root and kept.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::monitor::progress::monotonic;

/// Longest status in bytes: it is one line of `systemctl status`.
pub const MAX_STATUS_LEN: usize = 200;

/// What a service manager is told. Who sends it need not be who knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The daemon serves, for the first time or again after a reload.
    Ready,
    /// A reload has begun; [`Notice::Ready`] ends it.
    Reloading,
    /// How it is, in one line.
    Status(String),
    /// It goes on: what the watchdog waits for.
    Alive,
    /// The end has begun.
    Stopping,
}

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

    /// Says it; that nobody hears is no error.
    pub fn tell(&self, notice: &Notice) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(text(notice).as_bytes());
        }
    }
}

fn text(notice: &Notice) -> String {
    match notice {
        Notice::Ready => "READY=1".to_owned(),
        Notice::Reloading => {
            let micros = monotonic().as_micros();
            format!("RELOADING=1\nMONOTONIC_USEC={micros}")
        }
        Notice::Status(status) => format!("STATUS={}", one_line(status)),
        Notice::Alive => "WATCHDOG=1".to_owned(),
        Notice::Stopping => "STOPPING=1".to_owned(),
    }
}

/// A status with a line break could say anything to the service manager.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_STATUS_LEN));
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > MAX_STATUS_LEN {
            break;
        }
        line.push(character);
    }
    line
}

/// How often [`Notice::Alive`] is expected of this process, at the latest; `None` when nobody watches.
pub fn watchdog_from_environment() -> Option<Duration> {
    let of = |name| std::env::var(name).ok();
    watchdog(of("WATCHDOG_USEC"), of("WATCHDOG_PID"), std::process::id())
}

fn watchdog(micros: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let micros = micros?.parse().ok().filter(|micros| *micros > 0)?;
    // Inherited from a service that started us, and not meant for us.
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    ours.then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
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
        let told = |notice: Notice| {
            manager.tell(&notice);
            heard(&socket)
        };
        assert_eq!(told(Notice::Ready), "READY=1");
        let reloading = told(Notice::Reloading);
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        assert_eq!(told(Notice::Alive), "WATCHDOG=1");
        assert_eq!(told(Notice::Stopping), "STOPPING=1");
    }

    /// FAULTS 74.
    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        let hostile = Notice::Status("router at 10.0.0.1\nMAINPID=1".into());
        assert_eq!(text(&hostile), "STATUS=router at 10.0.0.1 MAINPID=1");
        let long = text(&Notice::Status("ä".repeat(500)));
        assert_eq!(long, format!("STATUS={}", "ä".repeat(MAX_STATUS_LEN / 2)));
    }

    #[test]
    fn abstract_names_and_nobody() {
        let name = format!("isatapd-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = ServiceManager::connect(&format!("@{name}")).unwrap();
        manager.tell(&Notice::Status("x".into()));
        assert_eq!(heard(&socket), "STATUS=x");
        assert!(ServiceManager::connect("/nowhere/at/all").is_err());
        ServiceManager::default().tell(&Notice::Ready);
    }

    #[test]
    fn a_watchdog_is_ours_or_nobodys() {
        let text = |value: &str| Some(value.to_owned());
        let watched = Some(Duration::from_secs(30));
        assert_eq!(watchdog(text("30000000"), text("7"), 7), watched);
        assert_eq!(watchdog(text("30000000"), None, 7), watched);
        assert_eq!(watchdog(text("30000000"), text("8"), 7), None);
        assert_eq!(watchdog(None, text("7"), 7), None);
        for nonsense in ["", "0", "-1", "soon"] {
            assert_eq!(watchdog(text(nonsense), None, 7), None, "{nonsense:?}");
        }
    }
}
