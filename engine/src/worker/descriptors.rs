//! What an engine works with, apart from any engine: TUN queues and sockets that outlive the process that uses them.
//!
//! A privileged process opens them and keeps duplicates. While nobody reads, packets wait in the queues and buffers of
//! the kernel; the next engine made from them goes on where the last one was, with the same interface.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::MAX_WORKERS;
use crate::io::errors::SetupError;
use crate::io::gso_sizes;
use crate::io::raw::{RawReceiver, RawSender};
use crate::io::steer;
use crate::io::tun::Tun;

/// The descriptors of one worker.
#[derive(Debug)]
pub struct WorkerDescriptors {
    /// Its queue of the TUN interface.
    pub queue: OwnedFd,
    /// Its receive socket.
    pub receiver: OwnedFd,
    /// Its send socket.
    pub sender: OwnedFd,
}

/// What there is to know about them besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name that the interface was made with; people may call it otherwise since.
    pub interface: String,
    /// Its index.
    pub if_index: u32,
    /// Key of the shard filters: the same for every engine that uses these sockets, since what waits in them was sorted
    /// by it.
    pub key: u32,
    /// UDP superpackets are exchanged with the kernel too.
    pub udp_offload: bool,
    /// Flows are kept on their queue by our own steering program.
    pub steered: bool,
}

/// Everything a privileged process opens for an engine.
#[derive(Debug)]
pub struct Descriptors {
    /// What they belong to.
    pub shape: Shape,
    /// One set per worker.
    pub workers: Vec<WorkerDescriptors>,
    /// Control's own send socket.
    pub control: OwnedFd,
    /// What its filter notes of merged packets; `None` where the kernel takes no such filter.
    pub gso_sizes: Option<OwnedFd>,
}

impl Descriptors {
    /// Every raw socket among them.
    pub fn raw_sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let of_workers = self
            .workers
            .iter()
            .flat_map(|worker| [worker.receiver.as_fd(), worker.sender.as_fd()]);
        of_workers.chain([self.control.as_fd()])
    }

    /// Opens the interface `name`, with one queue per worker, and the sockets; nothing is received yet.
    ///
    /// # Errors
    /// [`SetupError`] names what is missing and what would help.
    pub fn open(name: &str, workers: usize) -> Result<Self, SetupError> {
        if workers == 0 || workers > MAX_WORKERS {
            return Err(SetupError::Worker {
                worker: workers,
                reason: format!("the number of workers must be 1 to {MAX_WORKERS}"),
            });
        }
        let tun = Tun::create(name, workers)?;
        let mut all = Vec::with_capacity(workers);
        for queue in tun.queues {
            all.push(WorkerDescriptors {
                queue,
                receiver: RawReceiver::open()?.into(),
                sender: RawSender::open()?.into(),
            });
        }
        // The last of all sockets.
        let control: OwnedFd = RawSender::open_hearing()?.into();
        Ok(Self {
            shape: Shape {
                interface: tun.name,
                if_index: tun.if_index,
                key: steer::random_key(),
                udp_offload: tun.udp_offload,
                steered: tun.steered,
            },
            workers: all,
            gso_sizes: gso_sizes::note(control.as_fd()).ok(),
            control,
        })
    }

    /// Second handles to all of them.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = |worker: &WorkerDescriptors| {
            Ok(WorkerDescriptors {
                queue: worker.queue.try_clone()?,
                receiver: worker.receiver.try_clone()?,
                sender: worker.sender.try_clone()?,
            })
        };
        Ok(Self {
            shape: self.shape.clone(),
            workers: self.workers.iter().map(clone).collect::<io::Result<_>>()?,
            control: self.control.try_clone()?,
            gso_sizes: self.gso_sizes.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }
}
