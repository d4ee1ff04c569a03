//! `/etc/hosts` and `/etc/resolv.conf`, readable after the change of root.
//!
//! Of each file the directory is held open, and for a link also the directory it led to at start: `/etc/resolv.conf`
//! often is one into `/run`. Programs replace the file there, and the new one is found.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// Most bytes read of `resolv.conf`.
const MAX_RESOLV_CONF: u64 = 64 << 10;
/// Most bytes read of the hosts file; some block advertisements with long ones.
const MAX_HOSTS: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Files {
    hosts: Place,
    resolv_conf: Place,
}

impl Files {
    pub(super) fn open() -> Self {
        Self {
            hosts: Place::open(Path::new("/etc/hosts")),
            resolv_conf: Place::open(Path::new("/etc/resolv.conf")),
        }
    }

    pub(super) fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let places = [&self.hosts, &self.resolv_conf].into_iter();
        let directories = places.flat_map(|place| place.named.iter().chain(&place.linked));
        directories.map(|(dir, _)| dir.as_fd())
    }

    /// IPv4 addresses of a name in the hosts file; a file that cannot be read has none.
    pub(super) fn host(&self, name: &str) -> Vec<Ipv4Addr> {
        match self.hosts.file() {
            Ok(file) => host(BufReader::new(file.take(MAX_HOSTS)), name),
            Err(_) => Vec::new(),
        }
    }

    /// The bytes of `resolv.conf`; none when there is no such file, which resolv.conf(5) allows.
    ///
    /// # Errors
    /// It cannot be read, in words.
    pub(super) fn resolv_conf(&self) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("/etc/resolv.conf cannot be read: {error}");
        let mut bytes = Vec::new();
        match self.resolv_conf.file() {
            Ok(file) => file
                .take(MAX_RESOLV_CONF)
                .read_to_end(&mut bytes)
                .map_err(failed)?,
            Err(Errno::ENOENT) => 0,
            Err(errno) => return Err(failed(errno.into())),
        };
        Ok(bytes)
    }
}

/// Where a file is: the directory it is named in, and the one a link led to.
#[derive(Debug)]
struct Place {
    named: Option<(OwnedFd, OsString)>,
    linked: Option<(OwnedFd, OsString)>,
}

impl Place {
    fn open(path: &Path) -> Self {
        // At boot what a link leads to may not be there yet.
        let target = || Some(path.parent()?.join(std::fs::read_link(path).ok()?));
        let real = std::fs::canonicalize(path).ok().or_else(target);
        let linked = real.filter(|real| real != path);
        Self {
            named: directory(path),
            linked: linked.as_deref().and_then(directory),
        }
    }

    fn file(&self) -> Result<File, Errno> {
        let (dir, name) = self.named.as_ref().ok_or(Errno::ENOENT)?;
        // Inside the new root an absolute link leads nowhere, or elsewhere.
        match (read_only(dir, name, OFlag::O_NOFOLLOW), &self.linked) {
            (Err(Errno::ELOOP), Some((dir, name))) => read_only(dir, name, OFlag::O_NOFOLLOW),
            // It became a link after the start: one that is relative can be followed.
            (Err(Errno::ELOOP), None) => read_only(dir, name, OFlag::empty()),
            (result, _) => result,
        }
    }
}

fn directory(path: &Path) -> Option<(OwnedFd, OsString)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = open(path.parent()?, flags, Mode::empty()).ok()?;
    Some((dir, path.file_name()?.to_owned()))
}

fn read_only(dir: &OwnedFd, name: &OsString, more: OFlag) -> Result<File, Errno> {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | more;
    openat(dir, name.as_os_str(), flags, Mode::empty()).map(File::from)
}

/// IPv4 addresses of `name` in the lines of a hosts file (hosts(5)), in their order.
fn host(lines: impl std::io::BufRead, name: &str) -> Vec<Ipv4Addr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found = Vec::new();
    for line in lines.split(b'\n').map_while(Result::ok) {
        let text = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = text
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let Some(addr) = words.next() else { continue };
        if !words.any(|word| {
            word.strip_suffix(b".")
                .unwrap_or(word)
                .eq_ignore_ascii_case(name.as_bytes())
        }) {
            continue;
        }
        let addr = std::str::from_utf8(addr)
            .ok()
            .and_then(|addr| addr.parse::<Ipv4Addr>().ok());
        found.extend(addr.filter(|addr| !found.contains(addr)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_hosts_file() {
        let text = b"127.0.0.1 localhost\n\
            10.0.0.1\tisatap.example  isatap # 10.0.0.9 other\n\
            ::1 isatap\n\xff\xfe isatap\nnonsense isatap\n10.0.0.999 isatap\n\n  \n#10.0.0.8 isatap\n\
            10.0.0.2 x ISATAP.\r\n10.0.0.1 isatap\n10.0.0.3 isatap.example.org\n10.0.0.4 isatap";
        let find = |name: &str| host(&text[..], name);
        let addr = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(find("isatap"), [addr(1), addr(2), addr(4)]);
        assert_eq!(find("Isatap."), find("isatap"));
        assert_eq!(find("isatap.example"), [addr(1)]);
        assert!(find("other").is_empty());
        assert!(find("10.0.0.1").is_empty());
    }

    fn text(place: &Place) -> Result<String, Errno> {
        let mut text = String::new();
        place.file()?.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    /// `/etc` and `/run` as machines have them.
    #[test]
    fn files_and_links_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let [etc, run] = ["etc", "run"].map(|name| dir.path().canonicalize().unwrap().join(name));
        fs::create_dir(&etc).unwrap();
        fs::create_dir(&run).unwrap();
        let (named, stub) = (etc.join("f"), run.join("stub"));

        let missing = Place::open(&named);
        assert_eq!(text(&missing), Err(Errno::ENOENT));
        fs::write(&named, "1").unwrap();
        assert_eq!(text(&missing).unwrap(), "1", "it appears");
        fs::write(etc.join("new"), "2").unwrap();
        fs::rename(etc.join("new"), &named).unwrap();
        assert_eq!(text(&missing).unwrap(), "2", "it is replaced");

        fs::write(&stub, "3").unwrap();
        fs::remove_file(&named).unwrap();
        symlink(&stub, &named).unwrap();
        let linked = Place::open(&named);
        assert_eq!(text(&linked).unwrap(), "3");
        fs::write(run.join("new"), "4").unwrap();
        fs::rename(run.join("new"), &stub).unwrap();
        assert_eq!(text(&linked).unwrap(), "4", "the link's target is replaced");
        fs::remove_file(&named).unwrap();
        fs::write(&named, "5").unwrap();
        assert_eq!(text(&linked).unwrap(), "5", "a file instead of the link");

        fs::remove_file(&stub).unwrap();
        fs::remove_file(&named).unwrap();
        symlink(&stub, &named).unwrap();
        let early = Place::open(&named);
        assert_eq!(text(&early), Err(Errno::ENOENT));
        fs::write(&stub, "4").unwrap();
        assert_eq!(text(&early).unwrap(), "4", "the link's target appears");

        fs::remove_file(&named).unwrap();
        fs::write(&named, "5").unwrap();
        let plain = Place::open(&named);
        fs::remove_file(&named).unwrap();
        symlink("../run/stub", &named).unwrap();
        assert_eq!(text(&plain).unwrap(), "4", "a link instead of the file");
        assert_eq!(text(&Place::open(Path::new("/no/such/f"))), Err(Errno::ENOENT));
    }
}
