//! Has done what was planned: addresses and routes that end by themselves should this daemon not.

use std::time::Instant;

use super::{Installed, Op};
use crate::link::NetlinkError;
use crate::link::change::{AddressChange, Change, Changer};

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What.
    pub op: Op,
    /// Why.
    pub error: NetlinkError,
}

/// Does all of `ops`, and remembers in `installed` what succeeded; one that fails keeps none of the others from being
/// done, and is planned again next time.
pub async fn apply(
    installed: &mut Installed,
    changer: &impl Changer,
    ops: &[Op],
    now: Instant,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    for op in ops {
        match changer.change(change(op, now)).await {
            Ok(()) => installed.done(op),
            Err(error) => failures.push(Failure { op: *op, error }),
        }
    }
    failures
}

fn change(op: &Op, now: Instant) -> Change {
    match *op {
        Op::SetAddress(wanted) => Change::Address(AddressChange {
            addr: wanted.addr,
            prefix_len: wanted.prefix_len,
            valid: wanted.valid.seconds(now),
            preferred: wanted.preferred.seconds(now),
            origin: wanted.origin,
        }),
        Op::RemoveAddress(addr, prefix_len) => Change::RemoveAddress(addr, prefix_len),
        Op::SetRoute(id, lifetime) => {
            // Zero would be a route without end.
            let expires = lifetime.end().map(|_| lifetime.seconds(now).max(1));
            Change::Route(id, expires)
        }
        Op::RemoveRoute(id) => Change::RemoveRoute(id),
        Op::SetMtu(mtu) => Change::Mtu(mtu),
        Op::SetHopLimit(hop_limit) => Change::HopLimit(hop_limit),
    }
}
