//! What the monitor holds for its engines, how it is handed out, and how the other side takes it.
//!
//! ```text
//!  Setup    root directory, configuration in force, known hosts, control socket, raw socket of control, [its notes], [metrics], [names]
//!  Worker 0 queue, receive socket, send socket
//!  ...
//!  Begin
//!
//!  Maps     generation, configurations, table, counters, neighbours of the programs in the kernel, as soon as there are any
//! ```
//!
//! The monitor keeps a handle to each: an engine that dies takes nothing with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use isatap_engine::io::ebpf::MapFds;
use isatap_engine::io::passing::{MessageSocket, Received};
use isatap_engine::worker::{Descriptors, MAX_WORKERS, Shape, WorkerDescriptors};

use super::wire::{MAX_MESSAGE_LEN, MapsShape, Order, Setup, VERSION};

/// How long the other side may take to make room for a message, or to send the next one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything an engine needs, from the monitor's hands.
#[derive(Debug)]
pub struct Holdings {
    /// Queues and raw sockets.
    pub descriptors: Descriptors,
    /// The root directory to be.
    pub root: OwnedFd,
    /// Listens on `ControlSocket`.
    pub control: OwnedFd,
    /// Listens on `MetricsListen`.
    pub metrics: Option<OwnedFd>,
    /// Leads to the helper for name servers.
    pub names: Option<OwnedFd>,
    /// The configuration in force, see [`super::text`].
    pub text: OwnedFd,
    /// The hosts that a router knows, see [`super::known_hosts`].
    pub known_hosts: OwnedFd,
}

/// Why an engine could not take over what it was handed.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The socket failed, or what came was cut off.
    #[error("cannot be received: {0}")]
    Io(#[from] io::Error),
    /// The monitor is gone.
    #[error("the monitor is gone")]
    Gone,
    /// Something else came than should.
    #[error("{0} was expected")]
    Unexpected(&'static str),
    /// The monitor speaks another version.
    #[error("the monitor speaks version {0}, this program {VERSION}")]
    Version(u32),
}

impl Holdings {
    /// Fills in what `setup` says about the descriptors, and sends it all.
    ///
    /// # Errors
    /// The other side is gone, or does not take it.
    pub fn hand_out(&self, setup: Setup, to: &MessageSocket) -> io::Result<()> {
        let shape = &self.descriptors.shape;
        let setup = Setup {
            version: VERSION,
            interface: shape.interface.clone(),
            if_index: shape.if_index,
            key: shape.key,
            workers: u16::try_from(self.descriptors.workers.len()).unwrap_or(u16::MAX),
            udp_offload: shape.udp_offload,
            steered: shape.steered,
            gso_sizes: self.descriptors.gso_sizes.is_some(),
            metrics: self.metrics.is_some(),
            names: self.names.is_some(),
            ..setup
        };
        let mut along = vec![
            self.root.as_fd(),
            self.text.as_fd(),
            self.known_hosts.as_fd(),
            self.control.as_fd(),
            self.descriptors.control.as_fd(),
        ];
        along.extend(
            [&self.descriptors.gso_sizes, &self.metrics, &self.names]
                .into_iter()
                .flatten()
                .map(AsFd::as_fd),
        );
        send(to, &Order::Setup(setup), &along)?;
        for (number, worker) in (0..).zip(&self.descriptors.workers) {
            let along = [
                worker.queue.as_fd(),
                worker.receiver.as_fd(),
                worker.sender.as_fd(),
            ];
            send(to, &Order::Worker(number), &along)?;
        }
        send(to, &Order::Begin, &[])
    }

    /// Takes what [`Holdings::hand_out`] sends.
    ///
    /// # Errors
    /// [`TakeError`]: anything that is not exactly that.
    pub fn take(from: &MessageSocket) -> Result<(Setup, Self), TakeError> {
        let (setup, along) = match next(from)? {
            (Order::Setup(setup), along) if setup.version == VERSION => (setup, along),
            (Order::Setup(setup), _) => return Err(TakeError::Version(setup.version)),
            _ => return Err(TakeError::Unexpected("a setup")),
        };
        let mut along = along.into_iter();
        let mut one = |wanted: bool| match wanted.then(|| along.next()) {
            Some(None) => Err(TakeError::Unexpected("a descriptor")),
            found => Ok(found.flatten()),
        };
        let required = |found: Option<OwnedFd>| found.ok_or(TakeError::Unexpected("a descriptor"));
        let root = required(one(true)?)?;
        let text = required(one(true)?)?;
        let known_hosts = required(one(true)?)?;
        let control = required(one(true)?)?;
        let raw = required(one(true)?)?;
        let gso_sizes = one(setup.gso_sizes)?;
        let (metrics, names) = (one(setup.metrics)?, one(setup.names)?);
        if along.next().is_some() {
            return Err(TakeError::Unexpected("no further descriptor"));
        }
        let count = usize::from(setup.workers);
        if count == 0 || count > MAX_WORKERS {
            return Err(TakeError::Unexpected("a number of workers"));
        }
        let mut workers = Vec::with_capacity(count);
        for number in 0..setup.workers {
            let (order, along) = next(from)?;
            let along: Result<[OwnedFd; 3], _> = along.try_into();
            match (order, along) {
                (Order::Worker(this), Ok([queue, receiver, sender])) if this == number => {
                    workers.push(WorkerDescriptors {
                        queue,
                        receiver,
                        sender,
                    });
                }
                _ => return Err(TakeError::Unexpected("a worker with three descriptors")),
            }
        }
        if !matches!(next(from)?, (Order::Begin, _)) {
            return Err(TakeError::Unexpected("the begin"));
        }
        let shape = Shape {
            interface: setup.interface.clone(),
            if_index: setup.if_index,
            key: setup.key,
            udp_offload: setup.udp_offload,
            steered: setup.steered,
        };
        let holdings = Self {
            descriptors: Descriptors {
                shape,
                workers,
                control: raw,
                gso_sizes,
            },
            root,
            control,
            metrics,
            names,
            text,
            known_hosts,
        };
        Ok((setup, holdings))
    }
}

/// In the order in which they are handed out.
fn descriptors_of(maps: &MapFds) -> [&OwnedFd; 5] {
    [
        &maps.generation,
        &maps.config,
        &maps.slots,
        &maps.counters,
        &maps.neighbours,
    ]
}

/// Sends the maps of the programs in the kernel, or why there are none.
///
/// # Errors
/// The other side is gone, or does not take it.
pub fn tell_of_programs(to: &MessageSocket, maps: Result<&MapFds, &str>) -> io::Result<()> {
    match maps {
        Ok(maps) => {
            let shape = MapsShape {
                slots: u32::try_from(maps.slots_per_table).unwrap_or(u32::MAX),
                cpus: u32::try_from(maps.cpus).unwrap_or(u32::MAX),
            };
            send(to, &Order::Maps(shape), &descriptors_of(maps).map(AsFd::as_fd))
        }
        Err(why) => send(to, &Order::WithoutPrograms(why.to_owned()), &[]),
    }
}

/// The maps that came along with [`Order::Maps`]; `None` when something else did.
pub fn maps(shape: MapsShape, along: Vec<OwnedFd>) -> Option<MapFds> {
    let [generation, config, slots, counters, neighbours] = along.try_into().ok()?;
    Some(MapFds {
        generation,
        config,
        slots,
        counters,
        neighbours,
        slots_per_table: shape.slots as usize,
        cpus: shape.cpus as usize,
    })
}

/// Sends one order, and waits a moment if the other side is behind.
///
/// # Errors
/// The other side is gone, or does not take it in time.
pub fn send(to: &MessageSocket, order: &Order, along: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = order.encode();
    match to.send(&bytes, along) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && to.wait_for_room(PATIENCE)? => {
            to.send(&bytes, along)
        }
        sent => sent,
    }
}

/// Takes the next order, and waits a moment for it.
///
/// # Errors
/// There is none, or it is none.
pub fn next(from: &MessageSocket) -> Result<(Order, Vec<OwnedFd>), TakeError> {
    let mut buffer = [0; MAX_MESSAGE_LEN];
    if !from.wait(PATIENCE)? {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    let Received { len, descriptors } = from.receive(&mut buffer)?.ok_or(TakeError::Gone)?;
    let order = Order::decode(&buffer[..len]).map_err(|_| TakeError::Unexpected("an order"))?;
    Ok((order, descriptors))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Cause;
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt as _;

    fn setup() -> Setup {
        Setup {
            version: 0,
            interface: String::new(),
            if_index: 0,
            key: 0,
            workers: 0,
            udp_offload: false,
            steered: false,
            gso_sizes: false,
            ids: [65534, 65533],
            waived: [false, true, false],
            detached: true,
            successor: false,
            restarts: [7; Cause::ALL.len()],
            upgrades: 2,
            rules: 5,
            filters: 3,
            metrics: false,
            names: false,
            programs: true,
        }
    }

    /// A descriptor that can be told from every other.
    fn file(dir: &tempfile::TempDir, name: &str) -> OwnedFd {
        File::create(dir.path().join(name)).unwrap().into()
    }

    fn inode(fd: &OwnedFd) -> u64 {
        File::from(fd.try_clone().unwrap()).metadata().unwrap().ino()
    }

    fn holdings(dir: &tempfile::TempDir, workers: usize, metrics: bool) -> Holdings {
        let worker = |number: usize| WorkerDescriptors {
            queue: file(dir, &format!("queue{number}")),
            receiver: file(dir, &format!("receiver{number}")),
            sender: file(dir, &format!("sender{number}")),
        };
        Holdings {
            descriptors: Descriptors {
                shape: Shape {
                    interface: "is7".into(),
                    if_index: 9,
                    key: 0xdead_beef,
                    udp_offload: true,
                    steered: false,
                },
                workers: (0..workers).map(worker).collect(),
                control: file(dir, "raw"),
                gso_sizes: metrics.then(|| file(dir, "notes")),
            },
            root: file(dir, "root"),
            control: file(dir, "control"),
            metrics: metrics.then(|| file(dir, "metrics")),
            names: None,
            text: file(dir, "text"),
            known_hosts: file(dir, "hosts"),
        }
    }

    #[test]
    fn everything_arrives_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        for (workers, metrics) in [(1, false), (3, true), (MAX_WORKERS, true)] {
            let (ours, theirs) = MessageSocket::pair().unwrap();
            let held = holdings(&dir, workers, metrics);
            let given = std::thread::scope(|scope| {
                let taker = scope.spawn(|| Holdings::take(&theirs));
                held.hand_out(setup(), &ours).unwrap();
                taker.join().unwrap()
            });
            let (setup, taken) = given.unwrap();
            assert_eq!(
                (setup.version, setup.detached, setup.upgrades),
                (VERSION, true, 2)
            );
            assert_eq!(setup.restarts, [7; Cause::ALL.len()]);
            assert_eq!(taken.descriptors.shape, held.descriptors.shape);
            let all = |holdings: &Holdings| {
                let mut list = vec![
                    inode(&holdings.root),
                    inode(&holdings.text),
                    inode(&holdings.known_hosts),
                    inode(&holdings.control),
                    inode(&holdings.descriptors.control),
                ];
                for worker in &holdings.descriptors.workers {
                    list.extend([&worker.queue, &worker.receiver, &worker.sender].map(inode));
                }
                let optional = [
                    &holdings.descriptors.gso_sizes,
                    &holdings.metrics,
                    &holdings.names,
                ];
                list.extend(optional.map(|fd| fd.as_ref().map_or(0, inode)));
                list
            };
            assert_eq!(all(&taken), all(&held));
        }
    }

    #[test]
    fn maps_arrive_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let held = MapFds {
            generation: file(&dir, "generation"),
            config: file(&dir, "config"),
            slots: file(&dir, "slots"),
            counters: file(&dir, "counters"),
            neighbours: file(&dir, "neighbours"),
            slots_per_table: 64,
            cpus: 3,
        };
        let (ours, theirs) = MessageSocket::pair().unwrap();
        tell_of_programs(&ours, Ok(&held)).unwrap();
        let (order, mut along) = next(&theirs).unwrap();
        let Order::Maps(shape) = order else {
            panic!("{order:?}");
        };
        let last = along.pop().unwrap();
        assert!(maps(shape, vec![last]).is_none());
        tell_of_programs(&ours, Ok(&held)).unwrap();
        let (_, along) = next(&theirs).unwrap();
        let taken = maps(shape, along).unwrap();
        assert_eq!((taken.slots_per_table, taken.cpus), (64, 3));
        assert_eq!(
            descriptors_of(&taken).map(inode),
            descriptors_of(&held).map(inode)
        );
        tell_of_programs(&ours, Err("no clang")).unwrap();
        let (order, _) = next(&theirs).unwrap();
        assert_eq!(order, Order::WithoutPrograms("no clang".to_owned()));
    }

    #[test]
    fn anything_else_is_refused() {
        let taken = |orders: &[Order]| {
            let (ours, theirs) = MessageSocket::pair().unwrap();
            for order in orders {
                send(&ours, order, &[]).unwrap();
            }
            drop(ours);
            Holdings::take(&theirs).unwrap_err().to_string()
        };
        assert_eq!(taken(&[]), "the monitor is gone");
        assert_eq!(taken(&[Order::Begin]), "a setup was expected");
        let other = Setup {
            version: VERSION + 1,
            ..setup()
        };
        assert_eq!(
            taken(&[Order::Setup(other)]),
            format!(
                "the monitor speaks version {}, this program {VERSION}",
                VERSION + 1
            )
        );
        let bare = Setup {
            version: VERSION,
            ..setup()
        };
        assert_eq!(taken(&[Order::Setup(bare)]), "a descriptor was expected");
        let (ours, theirs) = MessageSocket::pair().unwrap();
        ours.send(b"hello", &[]).unwrap();
        assert_eq!(
            Holdings::take(&theirs).unwrap_err().to_string(),
            "an order was expected"
        );
    }
}
