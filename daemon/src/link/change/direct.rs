//! Carries changes out in this process, which must be privileged: one plain netlink socket, no runtime.
//!
//! The kernel checks the sender's privilege with each request, so that this socket is of no use to anybody else.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use isatap_engine::io::device::name_of;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

use super::message::{Order, deletion, order};
use super::{Change, Changer};
use crate::link::sysctl::Sysctls;
use crate::link::{NetlinkError, plain};

/// How long the kernel may take to answer; it may be busy with other people's interfaces, and then holds us up.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Longest answer taken, in bytes: an error quotes the request.
const MAX_ANSWER_LEN: usize = 8 << 10;

/// The hands on one interface.
#[derive(Debug)]
pub struct Direct {
    socket: Socket,
    sequence: Cell<u32>,
    if_index: u32,
    sysctls: Sysctls,
}

impl Direct {
    /// Hands on the interface of this index, whatever its name.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open(if_index: u32) -> io::Result<Self> {
        Ok(Self {
            socket: plain::open(NETLINK_ROUTE, ANSWER_LIMIT)?,
            sequence: Cell::new(0),
            if_index,
            sysctls: Sysctls::open(if_index),
        })
    }

    /// The directory of the sysctls, if it is open.
    pub fn sysctls(&self) -> Option<BorrowedFd<'_>> {
        self.sysctls.directory()
    }

    /// Carries one change out.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn carry_out(&self, change: &Change) -> io::Result<()> {
        match (order(self.if_index, change), change) {
            (Some(order), _) => self.request(order),
            (None, Change::Sysctls(role)) => {
                self.sysctls.apply(*role);
                Ok(())
            }
            (None, Change::HopLimit(limit)) => {
                self.sysctls.apply_hop_limit(*limit);
                Ok(())
            }
            (None, _) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Deletes the interface; it may be gone already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete(&self) -> io::Result<()> {
        self.request(deletion(self.if_index))
    }

    fn request(&self, order: Order) -> io::Result<()> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut message = NetlinkMessage::from(order.message);
        message.header.flags = order.flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        match self.answer(sequence) {
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|errno| order.tolerated.contains(&errno)) =>
            {
                Ok(())
            }
            answer => answer,
        }
    }

    /// Waits for the answer to the request of this number; one that came too late for an earlier request is passed over.
    fn answer(&self, sequence: u32) -> io::Result<()> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let mut buffer = Vec::with_capacity(MAX_ANSWER_LEN);
        while Instant::now() < deadline {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if message.header.sequence_number != sequence {
                continue;
            }
            return match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                _ => Ok(()),
            };
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Changer for Direct {
    async fn change(&self, change: Change) -> Result<(), NetlinkError> {
        self.carry_out(&change).map_err(|error| NetlinkError::Refused {
            operation: match name_of(self.if_index) {
                Ok(name) => format!("{change} on {name}"),
                Err(_) => change.to_string(),
            },
            error,
        })
    }
}
