//! The monitor: the main process, small and privileged. It opens what takes power to open, starts the engine's process
//! with it, carries out what that process may ask for, and starts the next one when it dies (DESIGN D9).
//!
//! ```text
//!   service manager, signals, terminal
//!        |
//!   monitor ---- holds: TUN queues, raw sockets, control socket, metrics socket, pid file, configuration in force
//!        |  ^
//!  order |  | say             one SEQPACKET socket: `wire` reads and writes, `gate` judges, `serve` acts
//!        v  |
//!   engine's process ---- chroot, nobody, no capability: control, workers, names, HTTP
//! ```
//!
//! Nothing that came from the network is read here: no packet, no answer of a name server, no request of a client. There
//! is no asynchronous runtime, and no second thread once the programs of the `ebpf` lane are loaded. The monitor runs through
//! [`serve`]; [`holdings`] says what an engine is handed, [`known_hosts`] what one leaves to the next, [`loading`], [`programs`], [`devices`], [`binding`], [`others`] and
//! [`segmenters`] what it knows for the `ebpf` lane, [`silence`] and [`suspicion`] when one is taken for dead, [`policy`] when it is followed by the
//! next, [`amount`] how much it may have put into the kernel, [`upgrade`] how another program takes over.

pub mod amount;
pub mod binding;
pub mod devices;
pub mod engine;
pub mod gate;
pub mod holdings;
pub mod known_hosts;
pub mod loading;
pub mod others;
pub mod policy;
pub mod programs;
pub mod progress;
pub mod segmenters;
pub mod serve;
pub mod shaping;
pub mod silence;
pub mod suspicion;
pub mod text;
pub mod upgrade;
pub mod wire;
