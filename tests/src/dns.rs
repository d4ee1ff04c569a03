//! Name servers for the daemon under test: dnsmasq with a zone that can change, and one of our own that lies as told.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::netns::Netns;
use crate::wait;

const PORT: u16 = 53;
/// How long a server sleeps before it looks whether it should end.
const IDLE: Duration = Duration::from_millis(20);
/// Record type A.
const A: u16 = 1;
const CNAME: u16 = 5;
/// Header flags of an answer: QR, RD, RA.
const ANSWER: u16 = 0x8180;
const TRUNCATED: u16 = 0x0200;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
/// Largest answer over UDP (RFC 1035 4.2.1).
const MAX_UDP: usize = 512;

/// `/etc/resolv.conf` and `/etc/hosts` of one daemon, which sees them instead of the machine's.
#[derive(Debug)]
pub struct Etc {
    folder: TempDir,
}

impl Etc {
    /// A `resolv.conf` of this text, and an empty hosts file.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn new(resolv_conf: &str) -> Self {
        let etc = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        etc.set_resolv_conf(resolv_conf);
        etc.set_hosts("");
        etc
    }

    /// A `resolv.conf` with this server, which is given up on soon.
    pub fn with_server(server: Ipv4Addr) -> Self {
        Self::new(&resolv_conf(server))
    }

    /// A `resolvconf` that writes down what it is asked, and is found before any program of the machine that takes name servers.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn keeps_names(self) -> Self {
        let programs = self.path("sbin");
        fs::create_dir(&programs).expect("a folder");
        let log = self.path("names");
        let log = log.display();
        for (name, then) in [("resolvectl", "exit 1"), ("resolvconf", "exit 0")] {
            // In one write, so that no half of it is seen.
            let script = format!(
                "#!/bin/sh\n[ {name} = resolvectl ] || printf '%s\\n' \"$* $(cat | tr '\\n' ';')\" >> {log}\n{then}\n"
            );
            let program = programs.join(name);
            fs::write(&program, script).expect("a program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        self
    }

    /// What [`Etc::keeps_names`] was asked, a line each: arguments, and the lines of its input with a semicolon after each.
    pub fn names(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("names")).unwrap_or_default();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Writes `resolv.conf` anew. The file stays the same: it is mounted over the machine's.
    pub fn set_resolv_conf(&self, text: &str) {
        fs::write(self.path("resolv.conf"), text).expect("write resolv.conf");
    }

    /// Writes `hosts` anew.
    pub fn set_hosts(&self, text: &str) {
        fs::write(self.path("hosts"), text).expect("write hosts");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A command that runs `program` with these files, in a mount namespace of its own and with the same process id.
    pub fn command(&self, program: &Path) -> Command {
        let script = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/hosts \
                      && { [ ! -d \"$3\" ] || mount --bind \"$3\" /usr/local/sbin; } && shift 3 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]);
        command.args(["resolv.conf", "hosts", "sbin"].map(|name| self.path(name)));
        command.arg(program);
        command
    }
}

/// The text of a `resolv.conf` with one server, which is given up on soon.
pub fn resolv_conf(server: Ipv4Addr) -> String {
    format!("nameserver {server}\nsearch site.example\noptions timeout:1 attempts:1\n")
}

/// A running dnsmasq, ended on drop.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
    folder: TempDir,
}

impl Dnsmasq {
    /// Starts it in `ns` with these records, all of one TTL in seconds; returns when it listens.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(ns: &Netns, ttl: u32, records: &[(&str, Ipv4Addr)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let zone = folder.path().join("zone");
        write_zone(&zone, records);
        let mut command = Command::new("dnsmasq");
        command.args([
            "-k",
            "-C",
            "/dev/null",
            "--no-resolv",
            "--no-hosts",
            // What is not there is denied, instead of being nobody's business.
            "--local=/example/",
            "--user=root",
            "--pid-file",
        ]);
        command.arg(format!("--local-ttl={ttl}"));
        command.arg(format!("--addn-hosts={}", zone.display()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self {
            child: ns.spawn(&mut command),
            folder,
        };
        wait::holds("dnsmasq to open its port", Duration::from_secs(5), || {
            let sockets = ns.enter(|| fs::read_to_string("/proc/thread-self/net/udp"));
            let port = format!(":{PORT:04X} ");
            sockets
                .unwrap_or_default()
                .lines()
                .any(|line| line.contains(&port))
        });
        server
    }

    /// Replaces the records.
    pub fn set(&self, records: &[(&str, Ipv4Addr)]) {
        write_zone(&self.folder.path().join("zone"), records);
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn write_zone(path: &Path, records: &[(&str, Ipv4Addr)]) {
    let lines: String = records
        .iter()
        .map(|(name, addr)| format!("{addr} {name}\n"))
        .collect();
    fs::write(path, lines).expect("write a zone");
}

/// What our own server says to every question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// These addresses, with a TTL in seconds; over TCP when they are many.
    Addresses(u32, Vec<Ipv4Addr>),
    /// The same, after so long.
    Slowly(Duration, Vec<Ipv4Addr>),
    /// Nothing at all.
    Nothing,
    /// There is no such name.
    NoSuchName,
    /// The name has no such record.
    NoAddress,
    /// It failed.
    ServFail,
    /// The answer is too long, over UDP and over TCP.
    Truncated,
    /// Each name is an alias for another one, without end.
    Aliases,
    /// An answer for another question comes first, then this.
    EvilFirst(Ipv4Addr, Vec<Ipv4Addr>),
}

/// Our own server in a namespace, on UDP and TCP, ended on drop.
#[derive(Debug)]
pub struct FakeDns {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    says: Mutex<Says>,
    questions: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Shared {
    fn questions(&self) -> MutexGuard<'_, Vec<String>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn says(&self) -> Says {
        self.says.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FakeDns {
    /// Starts it.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn start(ns: &Netns, says: Says) -> Self {
        let shared = Arc::new(Shared {
            says: Mutex::new(says),
            questions: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let (udp, tcp) = ns.enter(|| {
            let any = (Ipv4Addr::UNSPECIFIED, PORT);
            let udp = UdpSocket::bind(any).expect("bind the DNS port");
            (udp, TcpListener::bind(any).expect("bind the DNS port"))
        });
        udp.set_read_timeout(Some(IDLE)).expect("a timeout");
        tcp.set_nonblocking(true).expect("a non-blocking listener");
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || serve_udp(&for_udp, &udp)),
            thread::spawn(move || serve_tcp(&for_tcp, &tcp)),
        ];
        Self { shared, threads }
    }

    /// What it says from now on.
    pub fn say(&self, says: Says) {
        *self.shared.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.shared.questions().len()
    }

    /// For which names.
    pub fn names(&self) -> BTreeSet<String> {
        self.shared.questions().iter().cloned().collect()
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Some(question) = Question::read(&buffer[..len]) else {
            continue;
        };
        shared.questions().push(question.name.clone());
        let says = shared.says();
        if let Says::EvilFirst(evil, _) = &says {
            let mut guessed = question.answer(0, 3600, &[*evil]);
            guessed[0] ^= 0xff;
            let _ = socket.send_to(&guessed, from);
        }
        let Some((delay, mut answer)) = question.reply(&says) else {
            continue;
        };
        if answer.len() > MAX_UDP {
            answer = question.message(TRUNCATED, 0, &[]);
        }
        if delay.is_zero() {
            let _ = socket.send_to(&answer, from);
        } else if let Ok(socket) = socket.try_clone() {
            thread::spawn(move || {
                thread::sleep(delay);
                let _ = socket.send_to(&answer, from);
            });
        }
    }
}

fn serve_tcp(shared: &Shared, listener: &TcpListener) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(talk(shared, stream)),
            Err(_) => thread::sleep(IDLE),
        }
    }
}

fn talk(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message)?;
    let reply = Question::read(&message).and_then(|question| question.reply(&shared.says()));
    if let Some((_, answer)) = reply {
        let len = u16::try_from(answer.len()).expect("a DNS message");
        stream.write_all(&[&len.to_be_bytes()[..], &answer].concat())?;
        // Whoever asked closes.
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

/// A question of one name.
struct Question {
    id: [u8; 2],
    /// In lower case, with the final dot.
    name: String,
    /// As asked, with type and class.
    bytes: Vec<u8>,
}

impl Question {
    fn read(message: &[u8]) -> Option<Self> {
        let mut name = String::new();
        let mut at = 12;
        while *message.get(at)? != 0 {
            let label = message.get(at + 1..at + 1 + usize::from(message[at]))?;
            name.push_str(&String::from_utf8_lossy(label).to_lowercase());
            name.push('.');
            at += 1 + label.len();
        }
        Some(Self {
            id: message[..2].try_into().ok()?,
            name,
            bytes: message.get(12..at + 5)?.to_vec(),
        })
    }

    /// The answer, and when; `None` for none.
    fn reply(&self, says: &Says) -> Option<(Duration, Vec<u8>)> {
        let at_once = |answer| Some((Duration::ZERO, answer));
        match says {
            Says::Nothing => None,
            Says::Addresses(ttl, addrs) => at_once(self.answer(0, *ttl, addrs)),
            Says::EvilFirst(_, addrs) => at_once(self.answer(0, 3600, addrs)),
            Says::Slowly(delay, addrs) => Some((*delay, self.answer(0, 3600, addrs))),
            Says::NoSuchName => at_once(self.message(NXDOMAIN, 0, &[])),
            Says::NoAddress => at_once(self.message(0, 0, &[])),
            Says::ServFail => at_once(self.message(SERVFAIL, 0, &[])),
            Says::Truncated => at_once(self.message(TRUNCATED, 0, &[])),
            Says::Aliases => {
                let other: &[u8] = if self.name.starts_with("a.") {
                    b"\x01b"
                } else {
                    b"\x01a"
                };
                let target = [other, b"\x04loop\x00"].concat();
                at_once(self.message(0, 1, &record(CNAME, 3600, &target)))
            }
        }
    }

    fn answer(&self, flags: u16, ttl: u32, addrs: &[Ipv4Addr]) -> Vec<u8> {
        let records: Vec<u8> = addrs
            .iter()
            .flat_map(|addr| record(A, ttl, &addr.octets()))
            .collect();
        let count = u16::try_from(addrs.len()).expect("a count of records");
        self.message(flags, count, &records)
    }

    fn message(&self, flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
        let mut message = self.id.to_vec();
        message.extend_from_slice(&(ANSWER | flags).to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(&count.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&self.bytes);
        message.extend_from_slice(records);
        message
    }
}

/// A record of the name in question.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&[0, 1]);
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&u16::try_from(data.len()).expect("short data").to_be_bytes());
    record.extend_from_slice(data);
    record
}
