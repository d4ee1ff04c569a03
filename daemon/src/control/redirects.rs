//! Redirects of the first hop (RFC 4861 8.3): a route for one destination, for the workers alone. The kernel's own routes
//! stay as they are, and with them what programs see of the path.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use isatap_engine::fib::{Ipv6Prefix, NextHop, RulebookBuilder};
use isatap_engine::isatap::iid;
use isatap_engine::wire::{ext, nd};
use tracing::{debug, error, info};

use super::daemon::Daemon;

/// Redirects looked at per second, and at once: each may make a new Rulebook.
pub(super) const REDIRECTS_PER_SECOND: u32 = 10;

/// Reads a redirect that passed every check of the packet path: the router, the destination, the better first hop.
fn redirect(packet: &[u8]) -> Option<(Ipv4Addr, Ipv6Addr, Ipv4Addr)> {
    let upper = ext::walk(packet).ok()?;
    let message = nd::parse(packet, &upper)?.ok()?;
    Some((
        iid::embedded(&message.src())?,
        message.redirected()?,
        iid::embedded(&message.target()?)?,
    ))
}

impl Daemon {
    /// A router says that another node is a better first hop.
    pub(super) fn redirected(&mut self, packet: &[u8]) {
        if !self.redirect_limit.take(self.clock()) {
            return self.count_redirect("rate_limited");
        }
        let Some((router, destination, target)) = redirect(packet) else {
            return self.count_redirect("malformed");
        };
        info!(%router, peer = %target, %destination, "router {router}: packets for {destination} go to {target} from now on");
        self.redirects.learn(Instant::now(), router, destination, target);
        self.count_redirect("accepted");
        self.mark_changed();
    }

    fn count_redirect(&mut self, result: &str) {
        *self.counters.redirects.entry(result.to_owned()).or_insert(0) += 1;
    }

    /// Ends the redirects whose time is over.
    pub(super) fn expire_redirects(&mut self, now: Instant) {
        if self.redirects.expire(now) {
            self.mark_changed();
        }
    }

    /// A node that redirects lead to is said to be unreachable: its packets take the old way again.
    pub(super) fn redirect_target_failed(&mut self, target: Ipv4Addr) {
        if self.redirects.target_failed(target) {
            info!(peer = %target, "{target} is unreachable: what was redirected to it goes through routers again");
            self.mark_changed();
        }
    }

    /// Adds the redirects to the routes, without those whose router is the first hop no longer.
    pub(super) fn add_redirects(&mut self, builder: &mut RulebookBuilder) {
        if self.redirects.is_empty() {
            return;
        }
        match builder.clone().build() {
            Ok(rules) => {
                let holds = self
                    .redirects
                    .retain(|redirect| rules.is_first_hop(&redirect.destination, redirect.router));
                if holds {
                    debug!("redirects ended with the way that they were about");
                }
            }
            Err(error) => error!("redirects stay as they are: {error}"),
        }
        let routes = self.redirects.iter().filter_map(|redirect| {
            let host = Ipv6Prefix::containing(redirect.destination, 128).ok()?;
            Some((host, NextHop::Via(redirect.target)))
        });
        builder.routes.extend(routes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_says_who_what_and_where_to() {
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let (router, us) = (v6("fe80::5efe:10.0.0.1"), v6("fe80::5efe:10.0.0.5"));
        let mut packet = vec![0; 200];
        let len = nd::emit_redirect(
            &mut packet,
            router,
            us,
            v6("fe80::200:5efe:10.0.0.7"),
            v6("2001:db8::9"),
            &[],
        );
        let expected = (
            Ipv4Addr::new(10, 0, 0, 1),
            v6("2001:db8::9"),
            Ipv4Addr::new(10, 0, 0, 7),
        );
        assert_eq!(redirect(&packet[..len]), Some(expected));
        assert_eq!(redirect(&packet[..len - 1]), None);
        assert_eq!(redirect(&[]), None);
    }
}
