//! Where the daemon listens: what the command line says, else `ControlSocket` of the default configuration file.

use std::path::{Path, PathBuf};

use crate::config::file;
use crate::config::resolve::DEFAULT_CONTROL_SOCKET;
use crate::config::source::ConfigSource;

/// The control socket to ask at.
pub(super) fn socket(given: Option<&Path>) -> PathBuf {
    match given {
        Some(given) => given.to_owned(),
        None => there(configured(None), Path::new(DEFAULT_CONTROL_SOCKET)),
    }
}

/// `ControlSocket` of the file `named`, or of the default one. What is wrong with the file is for `isatapctl check` to say.
fn configured(named: Option<&Path>) -> Option<PathBuf> {
    let source = ConfigSource::open(named).ok()?;
    let content = source.read().ok()??;
    let config = file::parse(source.shown(), &content.bytes).ok()?;
    Some(config.control_socket?.value.path)
}

/// The file may have been changed since the daemon was started: where it names nothing, the default place is tried.
fn there(configured: Option<PathBuf>, default: &Path) -> PathBuf {
    configured
        .filter(|path| path.exists() || !default.exists())
        .unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let socket_of = |text: &str| {
            std::fs::write(at("conf"), text).unwrap();
            configured(Some(&at("conf")))
        };
        assert_eq!(
            socket_of("ControlSocket /run/x/sock root 0660\nMtu 1400\n"),
            Some("/run/x/sock".into())
        );
        assert_eq!(socket_of("Mtu 1400\n"), None);
        assert_eq!(socket_of("ControlSocket here\n"), None, "cannot be read");
        assert_eq!(configured(Some(&at("nothing"))), None);
    }

    #[test]
    fn a_socket_that_is_not_there_yet_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (own, default) = (folder.path().join("own"), folder.path().join("default"));
        let chosen = || there(Some(own.clone()), &default);
        assert_eq!(there(None, &default), default);
        assert_eq!(chosen(), own, "neither is there: what the file says is told");
        std::fs::write(&default, "").unwrap();
        assert_eq!(chosen(), default);
        std::fs::write(&own, "").unwrap();
        assert_eq!(chosen(), own);
    }
}
