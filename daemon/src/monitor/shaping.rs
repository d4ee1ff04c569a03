//! Traffic control of others at the devices of the `ebpf` lane: its filters and queueing disciplines are to see what they would see
//! without the lane.
//!
//! ```text
//!   filters of what comes in at a device of the IPv4 network: our program goes behind them
//!   filters and disciplines of what goes out by the ISATAP interface: nothing comes behind our program there, so that
//!       whoever chooses the lane has to know
//! ```

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use isatap_engine::io::ebpf::shapes_egress;
use nix::libc;
use tracing::warn;

use super::programs::Held;
use crate::link::plain::Word;

/// Looks when something has changed.
#[derive(Debug)]
pub struct Shaping {
    word: Word,
    /// Something may have, and was not looked at.
    unseen: Cell<bool>,
    at_tunnel: Cell<bool>,
}

impl Shaping {
    /// Has not looked yet.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            word: Word::of(libc::RTMGRP_TC)?,
            unseen: Cell::new(true),
            at_tunnel: Cell::new(false),
        })
    }

    /// Readable when it is time for another look.
    pub fn word(&self) -> BorrowedFd<'_> {
        self.word.as_fd()
    }

    /// Whether others shape or filter what goes out by the interface `tunnel`. On the way, programs go behind the filters that have
    /// come since. What cannot be read stays as it was known.
    pub fn look(&self, tunnel: u32, held: &mut Held) -> bool {
        // Before the questions: what changes after them is the next look's.
        let changed = self.word.came().unwrap_or(true);
        if !changed && !self.unseen.replace(false) {
            return self.at_tunnel.get();
        }
        // Those of a monitor before are exchanged first.
        self.unseen.set(!held.go_behind_filters());
        match shapes_egress(tunnel) {
            Ok(shapes) => self.at_tunnel.set(shapes),
            Err(error) => warn!("the queueing disciplines cannot be read: {error}"),
        }
        self.at_tunnel.get()
    }
}
