//! Opens what the daemon listens on while it still may: the control socket and the metrics port.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::config::diagnostic::shown;
use crate::config::resolved::ControlSocket;
use crate::exit::{ExitError, ExitStatus};

/// A socket in the file system that is ours to remove.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have put its own there.
    id: Option<(u64, u64)>,
}

impl SocketFile {
    /// The one that is at `path` now.
    pub fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            id: identity(path),
        }
    }

    /// The one of a listener that was handed on, where that was bound: what an engine says of its place is no proof.
    ///
    /// # Errors
    /// It is no such listener.
    pub fn of_listener(listener: OwnedFd) -> std::io::Result<Self> {
        let addr = UnixListener::from(listener).local_addr()?;
        let path = addr.as_pathname().ok_or(ErrorKind::InvalidInput)?;
        Ok(Self::of(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && identity(&self.path) == self.id {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether what was opened by [`metrics`] listens there.
pub fn is_at(listener: &OwnedFd, addr: SocketAddr) -> bool {
    let listener = listener.try_clone().map(TcpListener::from);
    listener
        .and_then(|listener| listener.local_addr())
        .is_ok_and(|at| at == addr)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    metadata
        .file_type()
        .is_socket()
        .then(|| (metadata.dev(), metadata.ino()))
}

/// Listens on the control socket. Its directory is made if it is missing; a socket nobody answers at is replaced.
///
/// # Errors
/// 69 when another daemon answers there; 78 when the place cannot be used; 77 when we may not.
pub fn control(settings: &ControlSocket) -> Result<UnixListener, ExitError> {
    let path = &settings.path;
    let failed = |error: &std::io::Error| {
        ExitError::from_io(error, ExitStatus::Config, name(path)).with_remedy("choose another ControlSocket")
    };
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|error| failed(&error))?;
    }
    remove_stale(path)?;
    // Until the permissions are set, the umask of the start (022) keeps everybody but root from connecting.
    let listener = UnixListener::bind(path).map_err(|error| failed(&error))?;
    // A start that ends here leaves no socket behind.
    let mut file = SocketFile::of(path);
    if let Some(gid) = settings.gid {
        lchown(path, None, Some(gid)).map_err(|error| {
            let group = settings.group.as_deref().unwrap_or_default();
            ExitError::from_io(
                &error,
                ExitStatus::Config,
                format!("{}: group {group}", name(path)),
            )
            .with_remedy("put the daemon's user into the group, or name no group in ControlSocket")
        })?;
    }
    let permissions = std::fs::Permissions::from_mode(settings.mode);
    std::fs::set_permissions(path, permissions).map_err(|error| failed(&error))?;
    file.id = None;
    Ok(listener)
}

fn remove_stale(path: &Path) -> Result<(), ExitError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ExitError::from_io(&error, ExitStatus::Config, name(path))),
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        let error = ExitError::config(format!("{}: something else is there, not a socket", name(path)));
        return Err(error.with_remedy("remove it, or choose another ControlSocket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|error| ExitError::from_io(&error, ExitStatus::Config, name(path))),
        Err(error) => Err(ExitError::from_io(&error, ExitStatus::Unavailable, name(path))),
        Ok(_) => {
            let error = ExitError::unavailable(format!("{}: another daemon answers there", name(path)));
            Err(error.with_remedy("stop it first, or give this one its own ControlSocket"))
        }
    }
}

fn name(path: &Path) -> String {
    format!("control socket {}", shown(path))
}

/// Listens on `MetricsListen`.
///
/// # Errors
/// 69 when somebody else listens there; 78 when this machine does not have the address; 77 when we may not.
pub fn metrics(address: SocketAddr) -> Result<TcpListener, ExitError> {
    TcpListener::bind(address).map_err(|error| {
        let status = match error.kind() {
            ErrorKind::AddrInUse => ExitStatus::Unavailable,
            _ => ExitStatus::Config,
        };
        ExitError::from_io(&error, status, format!("MetricsListen {address}"))
            .with_remedy("choose another address with MetricsListen, or off")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> (tempfile::TempDir, ControlSocket) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/isatapd/control.sock");
        (
            dir,
            ControlSocket {
                path,
                group: None,
                gid: None,
                mode: 0o640,
            },
        )
    }

    fn refusal(settings: &ControlSocket) -> ExitError {
        control(settings).expect_err("a refusal")
    }

    #[test]
    fn directory_and_permissions_are_made() {
        let (_dir, settings) = bench();
        let _listener = control(&settings).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&settings.path), 0o640);
        assert_eq!(mode(settings.path.parent().unwrap()), 0o755);
        UnixStream::connect(&settings.path).unwrap();
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let (_dir, settings) = bench();
        let first = control(&settings).unwrap();
        let error = refusal(&settings);
        assert_eq!(error.status(), ExitStatus::Unavailable);
        let expected = format!(
            "control socket {}: another daemon answers there; stop it first, or give this one its own ControlSocket",
            settings.path.display()
        );
        assert_eq!(error.to_string(), expected);
        drop(first);
        let _second = control(&settings).unwrap();
        UnixStream::connect(&settings.path).unwrap();
    }

    #[test]
    fn the_file_goes_unless_it_is_a_successors() {
        let (_dir, settings) = bench();
        let first = control(&settings).unwrap();
        let file = SocketFile::of(&settings.path);
        drop(first);
        drop(file);
        assert!(!settings.path.exists());

        let first = control(&settings).unwrap();
        let file = SocketFile::of(&settings.path);
        drop(first);
        let _second = control(&settings).unwrap();
        // The number of an inode is used again at once: only another kind of file is surely another one.
        std::fs::remove_file(&settings.path).unwrap();
        std::fs::write(&settings.path, "precious").unwrap();
        drop(file);
        assert!(settings.path.exists());
    }

    /// FAULTS 73.
    #[test]
    fn what_is_no_socket_stays() {
        let (dir, settings) = bench();
        std::fs::create_dir_all(settings.path.parent().unwrap()).unwrap();
        let victim: PathBuf = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &settings.path).unwrap();
        assert_eq!(refusal(&settings).status(), ExitStatus::Config);
        std::fs::remove_file(&settings.path).unwrap();
        std::fs::rename(&victim, &settings.path).unwrap();
        assert_eq!(refusal(&settings).status(), ExitStatus::Config);
        assert_eq!(std::fs::read_to_string(&settings.path).unwrap(), "precious");
    }

    #[test]
    fn ports_that_cannot_be_had() {
        let first = metrics("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = metrics(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.status(), ExitStatus::Unavailable);
        assert!(
            taken
                .to_string()
                .ends_with("choose another address with MetricsListen, or off"),
            "{taken}"
        );
        let elsewhere = metrics("192.0.2.254:9441".parse().unwrap()).unwrap_err();
        assert_eq!(elsewhere.status(), ExitStatus::Config);
    }
}
