//! The helper's whole life: reads lists from its standard input, runs `resolvectl` or `resolvconf`, withdraws at the end.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isatap_engine::io::device::name_of;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::message::{MAX_MESSAGE_LEN, Names, Outcome, Word};

/// The hidden first argument that makes this program a helper: whether it follows another one, the index of the interface, its name at
/// the start of the daemon, and the search path follow.
const ARGUMENT: &str = "--hand-over-names-now";
/// What the second argument is for the first helper, and for those that follow one.
const TURNS: [&str; 2] = ["first", "again"];

/// How long a program may take, and how often to look.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);
const PROGRAM_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What the command line of a helper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// There was another one before, which may have left names with anybody.
    pub(super) again: bool,
    /// Of the interface, which people may rename.
    pub(super) if_index: u32,
    /// Its name when the daemon began.
    pub(super) interface: String,
    /// Where programs are looked for.
    pub(super) search_path: String,
}

/// Who keeps the names of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    /// systemd-resolved.
    Resolvectl,
    /// Debian's resolvconf or openresolv.
    Resolvconf,
}

/// The name of systemd-resolved's program.
const RESOLVECTL: &str = "resolvectl";

/// In the order they are asked.
const KEEPERS: [Keeper; 2] = [Keeper::Resolvectl, Keeper::Resolvconf];

struct Helper {
    request: Request,
    /// Who may have our names now.
    holders: Vec<Keeper>,
}

impl Request {
    /// The words of a command line, the name of the program aside.
    pub(super) fn arguments(&self) -> [String; 5] {
        [
            ARGUMENT.to_owned(),
            TURNS[usize::from(self.again)].to_owned(),
            self.if_index.to_string(),
            self.interface.clone(),
            self.search_path.clone(),
        ]
    }
}

/// What a command line asks for, when it asks for a helper at all. `arguments` begins with the name of the program.
pub(super) fn requested(arguments: &[OsString]) -> Option<Request> {
    let [_, flag, turn, if_index, interface, search_path] = arguments else {
        return None;
    };
    let turn = TURNS.iter().position(|known| turn == known)?;
    (flag == ARGUMENT).then_some(Request {
        again: turn > 0,
        if_index: if_index.to_str()?.parse().ok()?,
        interface: interface.to_str()?.to_owned(),
        search_path: search_path.to_str()?.to_owned(),
    })
}

/// Serves until the daemon's end of standard input closes; its parent has given up what neither needs. Standard input must be the
/// socket of [`DnsHelper::start`](super::DnsHelper::start).
///
/// # Errors
/// Standard input is not usable.
pub(super) fn run(request: Request) -> std::io::Result<()> {
    let _ = nix::sys::prctl::set_name(c"isatapd-names");
    let stdin = std::io::stdin();
    let mut socket = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
    let word = if request.again {
        Word::AsksAgain
    } else {
        Word::Asks
    };
    let holders = if request.again {
        KEEPERS.to_vec()
    } else {
        Vec::new()
    };
    let mut helper = Helper { request, holders };
    if ask(&mut socket, word) {
        while let Some(message) = next(&mut socket) {
            // One that cannot be read changes nothing.
            let outcome = message.map_or(Outcome::Failed, |names| helper.hand_over(&names));
            if socket.write_all(&[Word::Did(outcome).byte()]).is_err() {
                break;
            }
        }
    }
    helper.withdraw(None);
    Ok(())
}

/// What lies there may be older than what a helper of before had: the daemon is asked to say what it wants now. Whether it is there.
fn ask(socket: &mut UnixStream, word: Word) -> bool {
    loop {
        match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return errno == Errno::EAGAIN && socket.write_all(&[word.byte()]).is_ok(),
        }
    }
}

/// The next message, if the daemon is there, and what it says, if that can be read.
fn next(socket: &mut UnixStream) -> Option<Option<Names>> {
    let mut bytes = [0; MAX_MESSAGE_LEN + 1];
    loop {
        match socket.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return None,
            Ok(len) => return Some(bytes.get(..len).and_then(Names::decode)),
        }
    }
}

impl Helper {
    fn hand_over(&mut self, names: &Names) -> Outcome {
        if names.is_empty() {
            self.withdraw(None);
            return Outcome::Done;
        }
        let mut outcome = Outcome::Nobody;
        for keeper in KEEPERS {
            let Some(program) = self.find(keeper) else {
                continue;
            };
            if self.give(keeper, &program, names) {
                self.withdraw(Some(keeper));
                self.holders.push(keeper);
                return Outcome::Done;
            }
            outcome = Outcome::Failed;
        }
        outcome
    }

    /// Takes the names back from whoever may have them, but for `except`.
    fn withdraw(&mut self, except: Option<Keeper>) {
        for holder in std::mem::take(&mut self.holders) {
            if Some(holder) == except {
                continue;
            }
            let Some(program) = self.find(holder) else {
                continue;
            };
            match holder {
                Keeper::Resolvectl => self.execute(&program, &["revert", &self.interface_now()], ""),
                Keeper::Resolvconf => self.execute(&program, &["-d", &self.record()], ""),
            };
        }
    }

    fn give(&mut self, keeper: Keeper, program: &PathBuf, names: &Names) -> bool {
        let interface = self.interface_now();
        match keeper {
            Keeper::Resolvectl => {
                let servers: Vec<_> = names.servers.iter().map(ToString::to_string).collect();
                if !self.execute(program, &list("dns", &interface, &servers), "") {
                    return false;
                }
                if !self.holders.contains(&keeper) {
                    self.holders.push(keeper);
                }
                self.execute(program, &list("domain", &interface, &names.search), "")
            }
            Keeper::Resolvconf => {
                let file = resolv_conf(&interface, names);
                self.execute(program, &["-a", &self.record()], &file)
            }
        }
    }

    fn interface_now(&self) -> String {
        name_of(self.request.if_index).unwrap_or_else(|_| self.request.interface.clone())
    }

    /// What resolvconf knows our names by, from the first to the last.
    fn record(&self) -> String {
        format!("{}.isatapd", self.request.interface)
    }

    fn find(&self, keeper: Keeper) -> Option<PathBuf> {
        let name = match keeper {
            Keeper::Resolvectl => RESOLVECTL,
            Keeper::Resolvconf => "resolvconf",
        };
        let executable = |path: &PathBuf| {
            let metadata = std::fs::metadata(path);
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        };
        let program = std::env::split_paths(&self.request.search_path)
            .map(|dir| dir.join(name))
            .find(executable)?;
        // systemd-resolved brings a resolvconf that is resolvectl by another name: what one withdraws, the other has not any more.
        let is_other = keeper == Keeper::Resolvconf
            && std::fs::canonicalize(&program).is_ok_and(|path| path.ends_with(RESOLVECTL));
        (!is_other).then_some(program)
    }

    /// Whether the program ended well, and in time.
    fn execute(&self, program: &PathBuf, arguments: &[&str], input: &str) -> bool {
        let started = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", &self.request.search_path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else {
            return false;
        };
        // A pipe holds far more than the longest list, so that this never waits; and the program need not read it.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let deadline = Instant::now() + PROGRAM_LIMIT;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(PROGRAM_POLL_INTERVAL),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return false;
                }
            }
        }
    }
}

/// An empty list is an empty word: without one, `resolvectl` would show the list instead of setting it.
fn list<'a>(verb: &'a str, interface: &'a str, values: &'a [String]) -> Vec<&'a str> {
    let mut arguments = vec![verb, interface];
    arguments.extend(values.iter().map(String::as_str));
    if values.is_empty() {
        arguments.push("");
    }
    arguments
}

fn resolv_conf(interface: &str, names: &Names) -> String {
    let mut text = String::new();
    for server in &names.servers {
        let zone = if server.is_unicast_link_local() {
            format!("%{interface}")
        } else {
            String::new()
        };
        text.push_str(&format!("nameserver {server}{zone}\n"));
    }
    if !names.search.is_empty() {
        text.push_str(&format!("search {}\n", names.search.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        for again in [false, true] {
            let request = Request {
                again,
                if_index: 7,
                interface: "is0".into(),
                search_path: "/bin".into(),
            };
            let mut words = vec![OsString::from("isatapd-names")];
            words.extend(request.arguments().map(OsString::from));
            assert_eq!(requested(&words), Some(request));
            for at in 1..words.len() {
                let mut fewer = words.clone();
                fewer.remove(at);
                assert_eq!(requested(&fewer), None);
            }
            for (at, odd) in [(1, "-f"), (2, "third"), (3, "is0")] {
                let mut other = words.clone();
                other[at] = odd.into();
                assert_eq!(requested(&other), None);
            }
        }
    }

    /// V10: what resolvconf gets; a link-local server needs its link.
    #[test]
    fn v10_as_resolv_conf() {
        let servers = ["2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap()];
        let names = Names::new(&servers, &["a.example".into(), "b".into()]);
        let expected = "nameserver 2001:db8::1\nnameserver fe80::1%is0\nsearch a.example b\n";
        assert_eq!(resolv_conf("is0", &names), expected);
    }
}
