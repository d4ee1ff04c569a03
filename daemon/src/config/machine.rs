//! What the configuration must ask the machine: names, addresses, accounts, cores.
//!
//! Behind a trait, so that resolving is tested without a machine, and so that a reload inside the chroot answers from
//! what was learnt outside.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::net::if_::InterfaceFlags;

use super::kept::Memory;
use super::resolved::User;

/// An IPv4 address of this machine, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub addr: Ipv4Addr,
    /// The interface that has it.
    pub interface: String,
}

/// The questions.
pub trait Machine {
    /// The IPv4 addresses of a host name, in the resolver's order.
    ///
    /// # Errors
    /// The resolver's reason, as text.
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String>;

    /// Every IPv4 address of an interface that is up and no loopback.
    ///
    /// # Errors
    /// The kernel's reason, as text.
    fn addresses(&self) -> Result<Vec<Candidate>, String>;

    /// The source address the kernel would take towards `server`.
    fn source_towards(&self, server: Ipv4Addr) -> Option<Ipv4Addr>;

    /// The account of this name; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// Why the accounts cannot be asked, as text.
    fn user(&self, name: &str) -> Result<Option<User>, String>;

    /// The number of the group of this name; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// Why the groups cannot be asked, as text.
    fn group(&self, name: &str) -> Result<Option<u32>, String>;

    /// How many cores this process may use; at least 1.
    fn usable_cores(&self) -> usize;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        let answers = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
        let mut addresses = Vec::new();
        for answer in answers {
            if let SocketAddr::V4(v4) = answer
                && !addresses.contains(v4.ip())
            {
                addresses.push(*v4.ip());
            }
        }
        Ok(addresses)
    }

    fn addresses(&self) -> Result<Vec<Candidate>, String> {
        let mut candidates = Vec::new();
        for interface in nix::ifaddrs::getifaddrs().map_err(|error| error.to_string())? {
            let up = interface.flags.contains(InterfaceFlags::IFF_UP);
            let loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            let addr = interface
                .address
                .as_ref()
                .and_then(|address| address.as_sockaddr_in())
                .map(|v4| v4.ip());
            if let Some(addr) = addr
                && up
                && !loopback
            {
                candidates.push(Candidate {
                    addr,
                    interface: interface.interface_name,
                });
            }
        }
        Ok(candidates)
    }

    fn source_towards(&self, server: Ipv4Addr) -> Option<Ipv4Addr> {
        // Connecting a datagram socket sends nothing: it only makes the kernel choose a route and a source.
        let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(SocketAddrV4::new(server, 9)).ok()?;
        match socket.local_addr().ok()? {
            SocketAddr::V4(local) if !local.ip().is_unspecified() => Some(*local.ip()),
            _ => None,
        }
    }

    fn user(&self, name: &str) -> Result<Option<User>, String> {
        let account = nix::unistd::User::from_name(name).map_err(|error| error.to_string())?;
        Ok(account.map(|account| User {
            name: account.name,
            uid: account.uid.as_raw(),
            gid: account.gid.as_raw(),
        }))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        let group = nix::unistd::Group::from_name(name).map_err(|error| error.to_string())?;
        Ok(group.map(|group| group.gid.as_raw()))
    }

    fn usable_cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// A machine that remembers: what was answered once is answered the same again.
///
/// Inside the chroot there are no `/etc/resolv.conf`, `/etc/hosts` and `/etc/passwd`; a reload that names nothing new
/// must work there all the same.
#[derive(Debug)]
pub struct Remembering<M> {
    machine: M,
    names: Mutex<HashMap<String, Vec<Ipv4Addr>>>,
    users: Mutex<HashMap<String, User>>,
    groups: Mutex<HashMap<String, u32>>,
    sealed: AtomicBool,
    cores: usize,
}

/// Bound on what is remembered of each kind; past it, new answers are used but not kept.
pub const MAX_REMEMBERED: usize = 1024;

impl<M: Machine> Remembering<M> {
    /// Nothing is remembered yet, but the number of cores: workers pin themselves later.
    pub fn new(machine: M) -> Self {
        let cores = machine.usable_cores();
        Self {
            machine,
            names: Mutex::default(),
            users: Mutex::default(),
            groups: Mutex::default(),
            sealed: AtomicBool::new(false),
            cores,
        }
    }

    /// From now on accounts are no longer asked for: inside the chroot there would seem to be none.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::Relaxed);
    }

    fn account<V: Clone>(
        &self,
        memory: &Mutex<HashMap<String, V>>,
        name: &str,
        ask: impl FnOnce(&str) -> Result<Option<V>, String>,
    ) -> Result<Option<V>, String> {
        remembered(memory, name, || {
            if self.sealed.load(Ordering::Relaxed) {
                return Err("accounts are looked up at start only; restart to use another".into());
            }
            ask(name)
        })
    }

    /// What was answered so far, for another process.
    pub fn memory(&self) -> Memory {
        Memory {
            names: locked(&self.names).clone().into_iter().collect(),
            users: locked(&self.users)
                .iter()
                .map(|(name, user)| (name.clone(), (user.uid, user.gid)))
                .collect(),
            groups: locked(&self.groups).clone().into_iter().collect(),
        }
    }

    /// Remembers what another process was answered.
    pub fn recall(&self, memory: &Memory) {
        let names = memory.names.iter().take(MAX_REMEMBERED);
        locked(&self.names).extend(names.map(|(name, addrs)| (name.clone(), addrs.clone())));
        let users = memory.users.iter().take(MAX_REMEMBERED);
        locked(&self.users).extend(users.map(|(name, (uid, gid))| {
            let user = User {
                name: name.clone(),
                uid: *uid,
                gid: *gid,
            };
            (name.clone(), user)
        }));
        let groups = memory.groups.iter().take(MAX_REMEMBERED);
        locked(&self.groups).extend(groups.map(|(name, gid)| (name.clone(), *gid)));
    }

    /// The machine that is asked.
    pub fn inner(&self) -> &M {
        &self.machine
    }
}

fn locked<T>(memory: &Mutex<T>) -> MutexGuard<'_, T> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remembered<V: Clone>(
    memory: &Mutex<HashMap<String, V>>,
    name: &str,
    ask: impl FnOnce() -> Result<Option<V>, String>,
) -> Result<Option<V>, String> {
    let mut memory = locked(memory);
    if let Some(known) = memory.get(name) {
        return Ok(Some(known.clone()));
    }
    let answer = ask()?;
    if let Some(value) = &answer
        && memory.len() < MAX_REMEMBERED
    {
        memory.insert(name.to_owned(), value.clone());
    }
    Ok(answer)
}

impl<M: Machine> Machine for Remembering<M> {
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        let answer = remembered(&self.names, name, || {
            let addresses = self.machine.resolve(name)?;
            Ok(if addresses.is_empty() {
                None
            } else {
                Some(addresses)
            })
        })?;
        Ok(answer.unwrap_or_default())
    }

    fn addresses(&self) -> Result<Vec<Candidate>, String> {
        self.machine.addresses()
    }

    fn source_towards(&self, server: Ipv4Addr) -> Option<Ipv4Addr> {
        self.machine.source_towards(server)
    }

    fn user(&self, name: &str) -> Result<Option<User>, String> {
        self.account(&self.users, name, |name| self.machine.user(name))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        self.account(&self.groups, name, |name| self.machine.group(name))
    }

    fn usable_cores(&self) -> usize {
        self.cores
    }
}
