//! How much there is of what engines had put into the kernel: no more than the largest configuration and all routers together could
//! come to. Somebody who has taken an engine over fills no memory by it (FAULTS 72).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use isatap_engine::fib::MAX_LOCATORS;
use isatap_engine::isatap::iid;

use super::gate::Refusal;
use crate::config::advertise;
use crate::link::apply::RouteId;
use crate::link::change::Change;
use crate::slaac;

/// Most routes and most addresses, those included that are about to go.
pub const MAX_ROUTES: usize = 2
    * (advertise::MAX_PREFIXES
        + slaac::MAX_ROUTERS * (slaac::MAX_ROUTES_PER_ROUTER + 1)
        + slaac::MAX_PREFIXES);
/// See [`MAX_ROUTES`].
pub const MAX_ADDRESSES: usize = 2 * MAX_LOCATORS * (advertise::MAX_PREFIXES + slaac::MAX_PREFIXES);

/// What there is, with its end where it has one.
#[derive(Debug, Default)]
pub struct Amount {
    routes: HashMap<RouteId, Option<Instant>>,
    addresses: HashMap<Ipv6Addr, Option<Instant>>,
}

impl Amount {
    /// Takes a change into account that is about to be carried out.
    ///
    /// # Errors
    /// There is enough of that already.
    pub fn take(&mut self, now: Instant, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Route(id, expires) => admit(&mut self.routes, MAX_ROUTES, now, *id, end(now, *expires)),
            Change::Address(change) => {
                let valid = (change.valid < u32::MAX).then_some(change.valid);
                admit(
                    &mut self.addresses,
                    MAX_ADDRESSES,
                    now,
                    change.addr,
                    end(now, valid),
                )
            }
            Change::LinkLocal(locator) => {
                let addr = iid::link_local(*locator);
                admit(&mut self.addresses, MAX_ADDRESSES, now, addr, None)
            }
            Change::RemoveRoute(id) => {
                self.routes.remove(id);
                Ok(())
            }
            Change::RemoveAddress(addr, _) => {
                self.addresses.remove(addr);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn end(now: Instant, seconds: Option<u32>) -> Option<Instant> {
    seconds.and_then(|seconds| now.checked_add(Duration::from_secs(seconds.into())))
}

fn admit<K: Eq + Hash>(
    all: &mut HashMap<K, Option<Instant>>,
    most: usize,
    now: Instant,
    key: K,
    until: Option<Instant>,
) -> Result<(), Refusal> {
    if all.len() >= most && !all.contains_key(&key) {
        // What has ended, the kernel has taken away by itself.
        all.retain(|_, until| until.is_none_or(|until| until > now));
        if all.len() >= most {
            return Err(Refusal::Amount);
        }
    }
    all.insert(key, until);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::change::AddressChange;
    use crate::slaac::Origin;

    fn route(number: usize) -> RouteId {
        let addr = Ipv6Addr::from((0x2001_0db8 << 96) + ((number as u128) << 64));
        RouteId {
            prefix: isatap_engine::fib::Ipv6Prefix::containing(addr, 64).unwrap(),
            metric: 256,
            via: None,
            preference: 0,
            origin: Origin::Own,
        }
    }

    fn address(number: usize, valid: u32) -> Change {
        Change::Address(AddressChange {
            addr: Ipv6Addr::from(number as u128),
            prefix_len: 128,
            valid,
            preferred: valid,
            origin: Origin::Advertised,
        })
    }

    /// FAULTS 72.
    #[test]
    fn there_is_enough_some_time() {
        let now = Instant::now();
        let mut amount = Amount::default();
        for number in 0..MAX_ROUTES {
            assert_eq!(amount.take(now, &Change::Route(route(number), None)), Ok(()));
        }
        let another = Change::Route(route(MAX_ROUTES), None);
        assert_eq!(amount.take(now, &another), Err(Refusal::Amount));
        // What there is may be set again, and what goes makes room.
        assert_eq!(amount.take(now, &Change::Route(route(7), None)), Ok(()));
        assert_eq!(amount.take(now, &Change::RemoveRoute(route(7))), Ok(()));
        assert_eq!(amount.take(now, &another), Ok(()));

        for number in 0..MAX_ADDRESSES {
            assert_eq!(amount.take(now, &address(number, 600)), Ok(()));
        }
        let another = address(MAX_ADDRESSES, u32::MAX);
        assert_eq!(amount.take(now, &another), Err(Refusal::Amount));
        let later = now + Duration::from_secs(600);
        assert_eq!(amount.take(later, &another), Ok(()), "the others have ended");
        assert_eq!(amount.addresses.len(), 1);
    }
}
