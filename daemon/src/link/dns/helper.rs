//! The helper's whole life: reads lists from its standard input, runs `resolvectl` or `resolvconf`, withdraws at the end.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caps::CapSet;
use isatap_engine::io::device::name_of;
use nix::net::if_::if_nametoindex;

use super::message::{MAX_MESSAGE_LEN, Names, Outcome};

/// The hidden first argument that makes this program a helper; interface name and search path follow.
pub const ARGUMENT: &str = "--hand-over-names";

/// How long a program may take, and how often to look.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);
const PROGRAM_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What the command line of a helper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    interface: String,
    search_path: String,
}

/// Who keeps the names of this machine, in the order they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    /// systemd-resolved.
    Resolvectl,
    /// Debian's resolvconf or openresolv.
    Resolvconf,
}

struct Helper {
    request: Request,
    /// Of the interface, which people may rename.
    if_index: Option<u32>,
    /// Who has our names now.
    holder: Option<Keeper>,
}

/// What a command line asks for, when it asks for a helper at all. `arguments` begins with the name of the program.
pub fn requested(arguments: &[OsString]) -> Option<Request> {
    let [_, flag, interface, search_path] = arguments else {
        return None;
    };
    (flag == ARGUMENT).then_some(Request {
        interface: interface.to_str()?.to_owned(),
        search_path: search_path.to_str()?.to_owned(),
    })
}

/// Serves until the daemon's end of standard input closes or says something odd. Standard input must be the socket of
/// [`DnsHelper::start`](super::DnsHelper::start).
///
/// # Errors
/// Privileges cannot be given up, or standard input is not usable.
pub fn run(request: Request) -> std::io::Result<()> {
    let _ = nix::sys::prctl::set_name(c"isatapd-dns");
    // Whoever ends the daemon ends its whole group or unit: what was handed over is still to be withdrawn.
    let _ = nix::unistd::setsid();
    nix::sys::signal::SigSet::all().thread_block()?;
    // The programs need the user, root, and no capability; nothing they start gets one back.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(std::io::Error::other)?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    let stdin = std::io::stdin();
    let mut stream = UnixStream::from(std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?);
    stream.write_all(&[0])?;
    let mut helper = Helper {
        if_index: if_nametoindex(request.interface.as_str()).ok(),
        request,
        holder: None,
    };
    while let Some(names) = next(&mut stream) {
        let outcome = helper.hand_over(&names);
        if stream.write_all(&[outcome.byte()]).is_err() {
            break;
        }
    }
    helper.withdraw();
    Ok(())
}

fn next(stream: &mut UnixStream) -> Option<Names> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let len = usize::from(u16::from_be_bytes(len));
    let mut bytes = [0; MAX_MESSAGE_LEN];
    let bytes = bytes.get_mut(..len)?;
    stream.read_exact(bytes).ok()?;
    Names::decode(bytes)
}

impl Helper {
    fn hand_over(&mut self, names: &Names) -> Outcome {
        if names.is_empty() {
            self.withdraw();
            return Outcome::Done;
        }
        let mut outcome = Outcome::Nobody;
        for keeper in [Keeper::Resolvectl, Keeper::Resolvconf] {
            let Some(program) = self.find(keeper) else {
                continue;
            };
            if self.give(keeper, &program, names) {
                if self.holder.is_some_and(|holder| holder != keeper) {
                    self.withdraw();
                }
                self.holder = Some(keeper);
                return Outcome::Done;
            }
            outcome = Outcome::Failed;
        }
        outcome
    }

    fn withdraw(&mut self) {
        let Some(holder) = self.holder.take() else {
            return;
        };
        let Some(program) = self.find(holder) else {
            return;
        };
        match holder {
            Keeper::Resolvectl => self.execute(&program, &["revert", &self.interface_now()], ""),
            Keeper::Resolvconf => self.execute(&program, &["-d", &self.record()], ""),
        };
    }

    fn give(&self, keeper: Keeper, program: &PathBuf, names: &Names) -> bool {
        let interface = self.interface_now();
        match keeper {
            Keeper::Resolvectl => {
                let servers: Vec<_> = names.servers.iter().map(ToString::to_string).collect();
                self.execute(program, &list("dns", &interface, &servers), "")
                    && self.execute(program, &list("domain", &interface, &names.search), "")
            }
            Keeper::Resolvconf => {
                let file = resolv_conf(&interface, names);
                self.execute(program, &["-a", &self.record()], &file)
            }
        }
    }

    fn interface_now(&self) -> String {
        let now = self.if_index.and_then(|index| name_of(index).ok());
        now.unwrap_or_else(|| self.request.interface.clone())
    }

    /// What resolvconf knows our names by, from the first to the last.
    fn record(&self) -> String {
        format!("{}.isatapd", self.request.interface)
    }

    fn find(&self, keeper: Keeper) -> Option<PathBuf> {
        let name = match keeper {
            Keeper::Resolvectl => "resolvectl",
            Keeper::Resolvconf => "resolvconf",
        };
        let executable = |path: &PathBuf| {
            let metadata = std::fs::metadata(path);
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(&self.request.search_path)
            .map(|dir| dir.join(name))
            .find(executable)
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
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let request = Request {
            interface: "is0".into(),
            search_path: "/bin".into(),
        };
        assert_eq!(
            requested(&words(&["isatapd", ARGUMENT, "is0", "/bin"])),
            Some(request)
        );
        for other in [
            &[][..],
            &["isatapd"],
            &["isatapd", ARGUMENT, "is0"],
            &["isatapd", "-f", "is0", "/bin"],
        ] {
            assert_eq!(requested(&words(other)), None);
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
