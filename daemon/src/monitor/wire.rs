//! What the two processes say to each other: a fixed binary layout in network order, each message bounded. Pure.
//!
//! ```text
//!  kind 1 | fields, in the order of the definition below; texts: length 2, then UTF-8
//! ```
//!
//! Reading is total: any bytes give a message or [`Malformed`], and every message has exactly one encoding. What a message
//! asks for is judged elsewhere ([`super::gate`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use isatap_engine::ebpf::Segmenters;
use isatap_engine::fib::{Ipv6Prefix, Role};
use isatap_engine::io::ebpf::{Filter, Place};
use isatap_engine::stats::Direction;

use super::binding::{Bounds, Left, LookedUp, MAX_ADDRESSES};
use super::others::Others;
use crate::config::resolved::Layer;
use crate::link::apply::RouteId;
use crate::link::change::{AddressChange, Change};
use crate::slaac::Origin;

/// The version of all of this. A new binary that takes over a running daemon must speak the same.
pub const VERSION: u32 = 12;

/// The longest message, in bytes.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// The longest text in a message, in bytes; longer ones are cut off at the end of a character.
pub const MAX_TEXT_LEN: usize = 1024;

/// Most devices that a message names as [`Segmenters`]; of more it says that any may be one.
pub const MAX_SEGMENTERS: usize = 512;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no message of version {VERSION}")]
pub struct Malformed;

/// Why an engine ended, or has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It found that it cannot go on.
    Fault,
    /// A thread of it panicked.
    Panic,
    /// A worker makes no turn although it is woken.
    WedgedWorker,
    /// Its control loop gives no sign of life.
    WedgedControl,
    /// It made a system call that nothing in it makes, and was ended for it.
    ForbiddenCall,
    /// Another signal ended it.
    Signal,
    /// It ended without being told to.
    Exit,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fault,
        Self::Panic,
        Self::WedgedWorker,
        Self::WedgedControl,
        Self::ForbiddenCall,
        Self::Signal,
        Self::Exit,
    ];

    /// Their labels on metrics, in the same order.
    pub const NAMES: [&str; 7] = [
        "fault",
        "panic",
        "wedged_worker",
        "wedged_control",
        "forbidden_call",
        "signal",
        "exit",
    ];
}

/// What the engine's process says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// It serves, for the first time or again after a reload.
    Ready,
    /// A reload has begun.
    Reloading,
    /// A line about its state for the service manager.
    Status(String),
    /// Its control loop turns.
    Alive,
    /// It has loaded the configuration again and works by it.
    Reloaded,
    /// Brings what a successor needs, see [`super::text`].
    Keep,
    /// Why it is about to end: the cause, the exit status that goes with it, and in words.
    Failed(Cause, u8, String),
    /// Carry this out, and answer with this number.
    Change(u32, Change),
    /// Listen for metrics there instead of wherever you do, and answer with this number.
    Listen(u32, SocketAddr),
    /// Listen for metrics no longer.
    StopListening,
    /// Become the program that is installed now, and answer with this number whether it can be.
    Upgrade(u32),
    /// Answer with this number: by then everything said before has been done.
    Attend(u32),
    /// It has no use for the programs in the kernel, and works without: why.
    WithoutPrograms(String),
    /// A worker makes no turn: see what its thread does; said again at each look while it lasts.
    Suspect(Suspect),
}

/// A worker that was woken and found at the same turn as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its number.
    pub worker: u16,
    /// The kernel's number of its thread.
    pub thread: u32,
    /// How many turns it has made.
    pub turns: u64,
    /// When that was looked up, at the earliest: nanoseconds of [`monotonic`](super::progress::monotonic).
    pub looked_at: u64,
}

/// What the monitor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first message; brings what [`super::holdings`] lists.
    Setup(Setup),
    /// The descriptors of the worker of this number: queue, receive socket, send socket.
    Worker(u16),
    /// The programs in the kernel are there; brings their maps: generation, configurations, table, counters, neighbours.
    Maps(MapsShape),
    /// There are none although the configuration would have them: why.
    WithoutPrograms(String),
    /// That was everything: begin.
    Begin,
    /// The answer to the request of this number; to `Listen` it brings the socket.
    Answer(u32, Answer),
    /// What a signal asked for.
    Signal(Asked),
    /// Who else has a say about outer packets, now and whenever that changes.
    Others(Others),
    /// Which addresses may carry the tunnel: for the monitor that takes over, with the locked pid file.
    Left(Left),
    /// Where a program in the kernel is, with the descriptor of its link: for the monitor that takes over, before what is left.
    Attached(Place),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// The kernel refused, with this errno.
    Kernel(i32),
    /// It may not be asked for, or cannot be done: in words.
    Refused(String),
}

/// What the monitor passes on of signals and its own decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Load the configuration again.
    Reload,
    /// A summary to the log.
    Summary,
    /// Open the logs again.
    ReopenLogs,
    /// End in order, on TERM.
    Terminate,
    /// End in order, on INT.
    Interrupt,
    /// End in order for a successor that takes over: what arrives waits for it.
    HandOver,
}

/// What an engine has to know besides its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// [`VERSION`] of the monitor.
    pub version: u32,
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub if_index: u32,
    /// Key of the shard filters.
    pub key: u32,
    /// How many workers.
    pub workers: u16,
    /// UDP superpackets are exchanged with the kernel.
    pub udp_offload: bool,
    /// Flows are steered by our own program.
    pub steered: bool,
    /// What is noted of merged packets comes along.
    pub gso_sizes: bool,
    /// Who to become: user and group.
    pub ids: [u32; 2],
    /// Which layers of the sandbox are waived, in the order of [`Layer::ALL`].
    pub waived: [bool; Layer::ALL.len()],
    /// A launcher waits for the daemon, so that it logs to the system and lets the terminal go.
    pub detached: bool,
    /// There was an engine before this one, so that the interface is as it left it.
    pub successor: bool,
    /// How often an engine was started again, by cause in the order of [`Cause::ALL`].
    pub restarts: [u64; Cause::ALL.len()],
    /// How often the program was exchanged.
    pub upgrades: u64,
    /// The rules for files that the monitor is under, and hands down
    /// ([`Changes::mark`](crate::launch::confine::changes::Changes::mark)).
    pub rules: u64,
    /// The filters of system calls that the monitor is under, and hands down
    /// ([`MonitorFilters::mark`](crate::launch::confine::monitor::MonitorFilters::mark)).
    pub filters: u64,
    /// A socket for metrics comes along.
    pub metrics: bool,
    /// A way to the helper for name servers comes along.
    pub names: bool,
    /// It is told of programs in the kernel, by [`Order::Maps`] or [`Order::WithoutPrograms`], now or when they are loaded.
    pub programs: bool,
}

/// What the maps of the programs have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapsShape {
    /// Entries of a generation.
    pub slots: u32,
    /// CPUs with a row of counters.
    pub cpus: u32,
}

/// A value inside a message.
trait Field: Sized {
    fn put(&self, to: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),+) => { $(
        impl Field for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend(self.to_be_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_be_bytes(*bytes))
            }
        }
    )+ };
}
numbers!(u8, u16, u32, u64, i8, i32);

/// Values that are numbered: the position in the list is the number.
macro_rules! numbered {
    ($name:ty: $($value:expr),+) => {
        impl Field for $name {
            fn put(&self, to: &mut Vec<u8>) {
                let all = [$($value),+];
                let at = all.iter().position(|value| value == self);
                to.push(at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX));
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                [$($value),+].get(usize::from(u8::take(from)?)).copied()
            }
        }
    };
}
numbered!(bool: false, true);
numbered!(Origin: Origin::Advertised, Origin::Own);
numbered!(Role: Role::Host, Role::Router);
numbered!(Direction: Direction::Encap, Direction::Decap);
numbered!(Cause: Cause::Fault, Cause::Panic, Cause::WedgedWorker, Cause::WedgedControl,
    Cause::ForbiddenCall, Cause::Signal, Cause::Exit);
numbered!(Asked: Asked::Reload, Asked::Summary, Asked::ReopenLogs, Asked::Terminate, Asked::Interrupt, Asked::HandOver);

impl Field for String {
    fn put(&self, to: &mut Vec<u8>) {
        let mut end = self.len().min(MAX_TEXT_LEN);
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        let text = &self[..end];
        u16::try_from(text.len()).unwrap_or(0).put(to);
        to.extend(text.bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let len = usize::from(u16::take(from)?);
        if len > MAX_TEXT_LEN {
            return None;
        }
        let (text, rest) = from.split_at_checked(len)?;
        *from = rest;
        std::str::from_utf8(text).ok().map(str::to_owned)
    }
}

impl Field for Ipv4Addr {
    fn put(&self, to: &mut Vec<u8>) {
        self.to_bits().put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        u32::take(from).map(Self::from_bits)
    }
}

impl Field for Ipv6Addr {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend(self.octets());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let (octets, rest) = from.split_first_chunk::<16>()?;
        *from = rest;
        Some(Self::from(*octets))
    }
}

impl Field for SocketAddr {
    fn put(&self, to: &mut Vec<u8>) {
        match self.ip() {
            IpAddr::V4(addr) => (4u8.put(to), addr.put(to)),
            IpAddr::V6(addr) => (6u8.put(to), addr.put(to)),
        };
        self.port().put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let addr = match u8::take(from)? {
            4 => IpAddr::V4(Field::take(from)?),
            6 => IpAddr::V6(Field::take(from)?),
            _ => return None,
        };
        Some(Self::new(addr, Field::take(from)?))
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? {
            Some(T::take(from)?)
        } else {
            None
        })
    }
}

impl<T: Field, const N: usize> Field for [T; N] {
    fn put(&self, to: &mut Vec<u8>) {
        self.iter().for_each(|value| value.put(to));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let all: Option<Vec<T>> = (0..N).map(|_| T::take(from)).collect();
        all?.try_into().ok()
    }
}

impl Field for Vec<Ipv4Addr> {
    fn put(&self, to: &mut Vec<u8>) {
        let all = &self[..self.len().min(MAX_ADDRESSES)];
        u16::try_from(all.len()).unwrap_or(0).put(to);
        all.iter().for_each(|addr| addr.put(to));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let count = usize::from(u16::take(from)?);
        if count > MAX_ADDRESSES {
            return None;
        }
        (0..count).map(|_| Ipv4Addr::take(from)).collect()
    }
}

impl Field for Segmenters {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Known(devices) if devices.len() <= MAX_SEGMENTERS => {
                true.put(to);
                u16::try_from(devices.len()).unwrap_or(0).put(to);
                devices.iter().for_each(|device| device.put(to));
            }
            Self::Known(_) | Self::Unknown => false.put(to),
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        if !bool::take(from)? {
            return Some(Self::Unknown);
        }
        let count = usize::from(u16::take(from)?);
        if count > MAX_SEGMENTERS {
            return None;
        }
        let devices: Option<_> = (0..count).map(|_| u32::take(from)).collect();
        devices.map(Self::Known)
    }
}

impl Field for Ipv6Prefix {
    fn put(&self, to: &mut Vec<u8>) {
        self.addr().put(to);
        self.len().put(to);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let (addr, len) = (Ipv6Addr::take(from)?, u8::take(from)?);
        // Bits beyond the length would be a second encoding of the same prefix.
        Self::containing(addr, len)
            .ok()
            .filter(|prefix| prefix.addr() == addr)
    }
}

/// Structures: their fields, in order.
macro_rules! structures {
    ($($name:ident { $($field:ident),+ $(,)? })+) => { $(
        impl Field for $name {
            fn put(&self, to: &mut Vec<u8>) {
                $( self.$field.put(to); )+
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $( $field: Field::take(from)?, )+ })
            }
        }
    )+ };
}
structures! {
    RouteId { prefix, metric, via, preference, origin }
    AddressChange { addr, prefix_len, valid, preferred, origin }
    Suspect { worker, thread, turns, looked_at }
    Setup {
        version, interface, if_index, key, workers, udp_offload, steered, gso_sizes, ids, waived, detached, successor, restarts, upgrades,
        rules, filters, metrics, names, programs,
    }
    MapsShape { slots, cpus }
    Filter { priority, added }
    Place { direction, device, filter }
    Others { firewall, ipsec, listeners, shaping, segmenters }
    Bounds { now, before }
    LookedUp { name, addresses }
    Left { bounds, looked_up }
}

/// Choices: a number for each, then its fields.
macro_rules! choices {
    ($($name:ident { $($number:literal = $variant:ident $(($($field:ident),+))?;)+ })+) => { $(
        impl Field for $name {
            fn put(&self, to: &mut Vec<u8>) {
                match self {
                    $( Self::$variant $(($($field),+))? => {
                        to.push($number);
                        $( $( $field.put(to); )+ )?
                    } )+
                }
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(match u8::take(from)? {
                    $( $number => {
                        $( $( let $field = Field::take(from)?; )+ )?
                        Self::$variant $(($($field),+))?
                    } )+
                    _ => return None,
                })
            }
        }
    )+ };
}
choices! {
    Say {
        0 = Ready;
        1 = Reloading;
        2 = Status(text);
        3 = Alive;
        4 = Reloaded;
        5 = Failed(cause, status, text);
        6 = Change(number, change);
        7 = Listen(number, addr);
        8 = StopListening;
        9 = Upgrade(number);
        10 = Attend(number);
        11 = Suspect(suspect);
        12 = Keep;
        13 = WithoutPrograms(why);
    }
    Order {
        0 = Setup(setup);
        1 = Worker(number);
        2 = Begin;
        3 = Answer(number, answer);
        4 = Signal(asked);
        5 = Maps(shape);
        6 = Others(others);
        7 = Left(left);
        8 = Attached(place);
        9 = WithoutPrograms(why);
    }
    Answer {
        0 = Done;
        1 = Kernel(errno);
        2 = Refused(text);
    }
    Change {
        0 = Shape(mtu);
        1 = Mtu(mtu);
        2 = Up;
        3 = Down;
        4 = LinkLocal(locator);
        5 = Address(change);
        6 = RemoveAddress(addr, prefix_len);
        7 = Route(id, expires);
        8 = RemoveRoute(id);
        9 = Sysctls(role);
        10 = HopLimit(limit);
        11 = Programs(devices);
    }
}

fn encode(message: &impl Field) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    message.put(&mut bytes);
    bytes
}

fn decode<T: Field>(mut bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(Malformed);
    }
    let message = T::take(&mut bytes).ok_or(Malformed)?;
    if bytes.is_empty() {
        Ok(message)
    } else {
        Err(Malformed)
    }
}

impl Say {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message of the engine's process.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that [`Say::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        decode(bytes)
    }
}

impl Order {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message of the monitor.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that [`Order::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        decode(bytes)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
