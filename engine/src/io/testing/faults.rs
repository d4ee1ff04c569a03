//! What a kernel of the tests does wrong: how often it does what a kernel may do, and once what ends a worker.

use nix::libc;

use super::dice::{Dice, Odds};

/// How often what a kernel may do happens; each is survived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// An answer, or the work for it, waits.
    pub(crate) late: Odds,
    /// An operation fails with some errno.
    pub(crate) errno: Odds,
    /// A send or write takes less than all.
    pub(crate) short: Odds,
    /// A receive ends.
    pub(crate) ends: Odds,
    /// A call fails, and nothing of the submission queue is taken.
    pub(crate) refused: Odds,
    /// A call takes a part of the submission queue.
    pub(crate) partial: Odds,
}

impl Faults {
    /// Some of each, much of some.
    pub(crate) fn some(dice: &mut Dice) -> Self {
        const OFTEN: [Odds; 6] = [0, 0, 300, 3000, 16_000, 40_000];
        Self {
            late: dice.pick(&OFTEN),
            errno: dice.pick(&OFTEN[..5]),
            short: dice.pick(&OFTEN[..5]),
            ends: dice.pick(&OFTEN),
            // More than that is a kernel that takes nothing any more.
            refused: dice.pick(&OFTEN[..5]),
            partial: dice.pick(&[0, 0, 0, 0, 300, 16_000]),
        }
    }
}

/// What ends a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// An answer to nothing.
    UnknownToken,
    /// The answer to a send comes again, at once or when its place is in use again.
    DoubledSend,
    /// The same of a write.
    DoubledWrite,
    /// The same of a received packet.
    DoubledReceive,
    /// The end of a receive comes again when it has been armed again.
    DoubledEnd,
    /// A buffer that was never given.
    ImpossibleBuffer,
    /// More bytes than the buffer has.
    ImpossibleLength,
    /// Bytes, and no buffer.
    NoBuffer,
    /// The TUN interface is gone, says a read.
    ReadGone,
    /// The TUN interface is gone, says a write.
    WriteGone,
    /// A completion was lost for want of memory.
    CompletionLost,
    /// Waiting fails.
    WaitFails,
    /// Every call is refused.
    TakesNothing,
    /// One receive fails again and again.
    FailingReceive,
    /// One receive ends with nothing again and again.
    EmptyReceive,
    /// The bell cannot be heard.
    DeafBell,
}

impl Trap {
    /// Those that end a lane of any size; one that takes nothing lets a lane wait whose submission queue has room.
    pub(crate) const SUDDEN: [Trap; 15] = [
        Trap::UnknownToken,
        Trap::DoubledSend,
        Trap::DoubledWrite,
        Trap::DoubledReceive,
        Trap::DoubledEnd,
        Trap::ImpossibleBuffer,
        Trap::ImpossibleLength,
        Trap::NoBuffer,
        Trap::ReadGone,
        Trap::WriteGone,
        Trap::CompletionLost,
        Trap::WaitFails,
        Trap::FailingReceive,
        Trap::EmptyReceive,
        Trap::DeafBell,
    ];

    /// Whether the answer is one that no request explains.
    pub(crate) fn is_stray(self) -> bool {
        matches!(
            self,
            Trap::UnknownToken
                | Trap::DoubledSend
                | Trap::DoubledWrite
                | Trap::DoubledReceive
                | Trap::DoubledEnd
                | Trap::ImpossibleBuffer
                | Trap::ImpossibleLength
                | Trap::NoBuffer
        )
    }
}

/// Errors that end a worker at once when the TUN queue gives them.
const GONE: [i32; 3] = [libc::EBADFD, libc::EFAULT, libc::ENODEV];

/// Any errno that is survived: a likely one, or any there is.
pub(crate) fn errno(dice: &mut Dice) -> i32 {
    const LIKELY: [i32; 20] = [
        libc::EPERM,
        libc::EINTR,
        libc::EIO,
        libc::EAGAIN,
        libc::ENOMEM,
        libc::EACCES,
        libc::EINVAL,
        libc::EPIPE,
        libc::EMSGSIZE,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ENOBUFS,
        libc::ECONNREFUSED,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENONET,
        libc::ECANCELED,
    ];
    let errno = if dice.roll(Odds::MAX / 2) {
        dice.pick(&LIKELY)
    } else {
        i32::try_from(1 + dice.below(133)).unwrap_or(libc::EIO)
    };
    if GONE.contains(&errno) { libc::EIO } else { errno }
}

/// An errno with which the TUN queue says that it is gone.
pub(crate) fn gone(dice: &mut Dice) -> i32 {
    dice.pick(&GONE)
}
