//! What can happen to a worker's loop and to its system calls: one list each behind enum, metric label and help text.

/// How many errno values have a counter of their own; Linux ends at 133 (EHWPOISON).
pub const ERRNO_SLOTS: usize = 134;

macro_rules! named_events {
    ($(#[$outer:meta])* $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $label:literal, )+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $name {
            /// Every one, in the order of their counters.
            pub const ALL: &'static [$name] = &[ $( $name::$variant, )+ ];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label on metrics and in JSON.
            pub const fn name(self) -> &'static str {
                match self { $( $name::$variant => $label, )+ }
            }

            /// One sentence for operators.
            pub const fn help(self) -> &'static str {
                match self { $( $name::$variant => concat!($( $doc, )+).trim_ascii(), )+ }
            }
        }
    };
}

named_events! {
    /// The system calls a worker makes; errors are counted per operation and errno.
    IoOperation {
        /// Reading a packet from the TUN queue.
        TunRead = "tun_read",
        /// Writing a packet to the TUN queue.
        TunWrite = "tun_write",
        /// Receiving an outer packet.
        RawReceive = "raw_receive",
        /// Sending an outer packet.
        RawSend = "raw_send",
        /// Waiting for something to do.
        Wait = "wait",
    }
}

named_events! {
    /// What the loop met and dealt with; none of these loses a packet by itself.
    LoopEvent {
        /// A send that failed for another packet's ICMP error, or for a passing reason, was tried again.
        SendRetried = "send_retried",
        /// The send socket was full; sends waited in order until it was writable.
        SendBlocked = "send_blocked",
        /// All receive buffers were in use: the kernel holds packets back until some return.
        BuffersEmpty = "buffers_empty",
        /// A multishot request ended and was armed again.
        Rearmed = "rearmed",
        /// The completion queue overflowed; the kernel kept the completions and handed them over later.
        CompletionOverflow = "completion_overflow",
        /// The submission queue was full and was submitted early.
        SubmissionFull = "submission_full",
        /// A completion that no request of ours explains; it ends the worker.
        StrayCompletion = "stray_completion",
        /// The kernel sent less than the whole packet.
        ShortSend = "short_send",
        /// The kernel wrote less than the whole packet to the TUN interface.
        ShortWrite = "short_write",
        /// A segment of a superpacket could not be sent while others were.
        SegmentLost = "segment_lost",
        /// A datagram left in IPv4 fragments, since our own link does not take it whole.
        Fragmented = "fragmented",
        /// A packet for control found its queue full.
        PuntOverflow = "punt_overflow",
        /// An ICMPv6 error was written to the TUN interface.
        ReplySent = "reply_sent",
        /// An ICMPv6 error was due and withheld by the rate limit.
        ReplyLimited = "reply_limited",
        /// An ICMPv6 error was due and could not be written.
        ReplyFailed = "reply_failed",
        /// A combination of ECN codepoints that RFC 6040 4.2 calls dangerous; what must not be delivered is among the drops.
        EcnDangerous = "ecn_dangerous",
    }
}
