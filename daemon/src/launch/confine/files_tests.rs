//! The rules from inside: a process that has entered them tries the doors.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::*;

const INSIDE: &str = "ISATAPD_TEST_LANDLOCK";
const PORT: &str = "ISATAPD_TEST_LANDLOCK_PORT";

/// FAULTS 71: the process changes for ever, so this test runs itself again in one that may.
#[test]
fn nothing_but_the_directories_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    for place in ["own", "own/below", "other"] {
        fs::create_dir(dir.path().join(place)).unwrap();
        fs::write(dir.path().join(place).join("file"), "text").unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _log = UnixDatagram::bind(dir.path().join("own/log")).unwrap();
    let name = dir.path().to_str().unwrap();
    let _abstract = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "launch::confine::files::tests::inside",
            "--ignored",
            "--nocapture",
        ])
        .env(INSIDE, dir.path())
        .env(PORT, listener.local_addr().unwrap().port().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if text.contains("\nno rules: ") {
        eprintln!("not tried: {text}");
        return;
    }
    let said = |what: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {what} in {text}")).to_owned()
    };
    for (what, outcome) in [
        ("own file", "done"),
        ("own file below", "done"),
        ("open already", "done"),
        ("unix socket", "done"),
        ("memory file", "done"),
        ("signal to oneself", "done"),
        ("other file", "EACCES"),
        ("up and away", "EACCES"),
        ("list own", "EACCES"),
        ("write own", "EACCES"),
        ("make own", "EACCES"),
        ("remove own", "EACCES"),
        ("execute", "EACCES"),
    ] {
        assert_eq!(said(what), outcome, "{what}");
    }
    let version: u32 = said("rules").trim_start_matches("version ").parse().unwrap();
    if version >= 4 {
        assert_eq!(said("tcp elsewhere"), "EACCES");
        assert_eq!(said("tcp listener"), "EACCES");
        // Nobody is there, but the way is free.
        assert_eq!(said("tcp to a name server"), "ECONNREFUSED");
    }
    if version >= 6 {
        assert_eq!(said("signal to the parent"), "EPERM");
        assert_eq!(said("abstract socket"), "EPERM");
    }
}

#[test]
#[ignore = "run by nothing_but_the_directories_can_be_read in a process of its own"]
fn inside() {
    let Some(dir) = std::env::var_os(INSIDE) else {
        return;
    };
    let dir = Path::new(&dir);
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let own = open(&dir.join("own"), flags, Mode::empty()).unwrap();
    let already = File::open(dir.join("other/file")).unwrap();
    let version = match enter(&[own.as_fd()]) {
        Ok(version) => version,
        Err(error) => return println!("\nno rules: {error}"),
    };
    let mut text = format!("\nrules: {version}\n");
    let mut say = |what: &str, outcome: io::Result<()>| {
        let word = match outcome {
            Ok(()) => "done".to_owned(),
            Err(error) => nix::errno::Errno::from_raw(error.raw_os_error().unwrap()).to_string(),
        };
        let _ = writeln!(text, "{what}: {}", word.split(':').next().unwrap());
    };
    let at = |name: &str, flags| {
        openat(&own, name, flags, Mode::S_IRWXU)
            .map(drop)
            .map_err(io::Error::from)
    };
    say("own file", at("file", OFlag::O_RDONLY));
    say("own file below", at("below/file", OFlag::O_RDONLY));
    say("other file", File::open(dir.join("other/file")).map(drop));
    say("up and away", at("../other/file", OFlag::O_RDONLY));
    say("list own", at(".", OFlag::O_RDONLY));
    say("write own", at("file", OFlag::O_WRONLY));
    say("make own", at("new", OFlag::O_WRONLY | OFlag::O_CREAT));
    say("remove own", fs::remove_file(dir.join("own/file")));
    say("execute", Command::new("/bin/true").status().map(drop));
    say(
        "open already",
        io::Read::bytes(&already).next().unwrap().map(drop),
    );
    say("memory file", crate::monitor::text::keep(b"text").map(drop));
    let log = UnixDatagram::unbound().unwrap();
    say("unix socket", log.send_to(b"line", dir.join("own/log")).map(drop));
    let name = SocketAddr::from_abstract_name(dir.to_str().unwrap()).unwrap();
    say("abstract socket", log.send_to_addr(b"line", &name).map(drop));
    say("tcp elsewhere", TcpStream::connect(("127.0.0.1", port)).map(drop));
    say(
        "tcp to a name server",
        TcpStream::connect(("127.0.0.1", DNS_PORT)).map(drop),
    );
    say("tcp listener", TcpListener::bind("127.0.0.1:0").map(drop));
    say(
        "signal to the parent",
        kill(Pid::parent(), None).map_err(io::Error::from),
    );
    say(
        "signal to oneself",
        kill(Pid::this(), None).map_err(io::Error::from),
    );
    println!("{text}");
}
