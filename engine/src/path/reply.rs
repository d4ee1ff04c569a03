//! ICMPv6 errors to the sender of a packet that cannot be sent (RFC 4443 2.4, 3.1, 3.2).

use crate::fib::Rulebook;
use crate::wire::icmpv6::{self, ErrorMessage};
use crate::wire::ipv6::Ipv6View;

/// Room for the largest error: the minimum MTU (RFC 4443 2.4 (c)).
pub const MAX_REPLY_LEN: usize = crate::wire::ipv6::MIN_MTU;

/// Writes the error about `offending` (an inner packet) into `out`; its length, or `None` when no error may be sent: about
/// errors, multicast, or senders that are no single node (REQUIREMENTS N7), or while we have no address to send it from.
pub fn build(
    rules: &Rulebook,
    kind: ErrorMessage,
    offending: &[u8],
    out: &mut [u8; MAX_REPLY_LEN],
) -> Option<usize> {
    let view = Ipv6View::new(offending).ok()?;
    if !icmpv6::may_answer(view.packet(), kind) {
        return None;
    }
    let to = view.src();
    let from = rules.reply_source(&to)?;
    Some(icmpv6::emit_error(out, &from, &to, kind, view.packet()))
}
