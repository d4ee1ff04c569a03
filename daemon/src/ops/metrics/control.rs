//! What control counts, as metric families: each with the values its label can have.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Scrape, family};
use crate::advertise::consistency::Disagreement;
use crate::advertise::{HEARD_RESULTS, SENT_RESULTS};
use crate::monitor::wire::Cause;
use crate::ops::labels::{
    ADVERTISEMENT_RESULTS, ALL_ROUTERS_RESULTS, ICMP_ERROR_KINDS, ICMP_TRANSLATIONS, IGNORED_OPTIONS,
    PATH_CHANGES, PATH_MESSAGES, REDIRECT_RESULTS, RELOAD_RESULTS,
};
use crate::prl::Health;

impl Scrape {
    pub(super) fn control_plane(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut routers = family(
            encoder,
            MetricType::Gauge,
            "isatapd_routers",
            "Routers of the PRL, by state",
        )?;
        for (health, count) in Health::ALL.iter().zip(self.routers) {
            routers.gauge(
                &[("state", health.name())],
                u64::try_from(count).unwrap_or(u64::MAX),
            )?;
        }
        let help = "Peers whose path is known to take less than the tunnel may need, by who says so";
        let mut paths = family(encoder, MetricType::Gauge, "isatapd_path_mtus", help)?;
        for (said_by, count) in ["link", "router"].into_iter().zip(self.paths) {
            paths.gauge(&[("said_by", said_by)], u64::try_from(count).unwrap_or(u64::MAX))?;
        }
        let mut ready = family(
            encoder,
            MetricType::Gauge,
            "isatapd_ready",
            "1 when packets can be carried",
        )?;
        ready.gauge(&[], u64::from(self.ready))?;
        let help = "1 while this router is being taken out of service (isatapctl drain)";
        let draining = u64::from(self.draining);
        family(encoder, MetricType::Gauge, "isatapd_draining", help)?.gauge(&[], draining)?;
        let help = "1 for the role of the daemon, 0 for the other one";
        let mut role = family(encoder, MetricType::Gauge, "isatapd_role", help)?;
        role.gauge(&[("role", "host")], u64::from(!self.is_router))?;
        role.gauge(&[("role", "router")], u64::from(self.is_router))?;
        let help = "Hosts that solicited this router lately";
        let clients = u64::try_from(self.clients).unwrap_or(u64::MAX);
        family(encoder, MetricType::Gauge, "isatapd_router_clients", help)?.gauge(&[], clients)?;
        let captures = u64::try_from(self.captures).unwrap_or(u64::MAX);
        family(
            encoder,
            MetricType::Gauge,
            "isatapd_captures",
            "Captures that run now",
        )?
        .gauge(&[], captures)?;
        let control = &self.control;
        for (name, help, value) in [
            (
                "isatapd_router_solicitations",
                "Router solicitations sent",
                control.solicitations,
            ),
            (
                "isatapd_router_probes",
                "Neighbour solicitations sent to routers, to see whether they answer",
                control.probes,
            ),
            (
                "isatapd_prl_refresh_failures",
                "Failures to refresh the PRL",
                control.prl_refresh_failures,
            ),
            (
                "isatapd_netlink_overruns",
                "Lost netlink notifications, each made a fresh dump",
                control.netlink_overruns,
            ),
            (
                "isatapd_rulebooks",
                "Rulebooks published to the workers",
                control.rulebooks,
            ),
        ] {
            family(encoder, MetricType::Counter, name, help)?.counter(&[], value)?;
        }
        for (name, help, label, known, counts) in [
            (
                "isatapd_router_advertisements",
                "Router advertisements that reached control",
                "result",
                &ADVERTISEMENT_RESULTS[..],
                &control.advertisements,
            ),
            (
                "isatapd_router_solicitations_received",
                "Router solicitations of hosts that reached this router's control",
                "result",
                &HEARD_RESULTS[..],
                &control.solicitations_received,
            ),
            (
                "isatapd_router_advertisements_sent",
                "Router advertisements that were due to hosts",
                "result",
                &SENT_RESULTS[..],
                &control.advertisements_sent,
            ),
            (
                "isatapd_router_disagreements",
                "Values that other routers of the link advertise otherwise than this one",
                "field",
                &Disagreement::FIELDS[..],
                &control.disagreements,
            ),
            (
                "isatapd_router_advertisement_options_ignored",
                "Options of accepted router advertisements that were left out",
                "cause",
                &IGNORED_OPTIONS[..],
                &control.ignored_options,
            ),
            (
                "isatapd_engine_restarts",
                "Engines that the monitor started anew, by what ended the one before; counters begin at zero then, but for those of the kernel's programs",
                "reason",
                &Cause::NAMES[..],
                &control.engine_restarts,
            ),
            (
                "isatapd_config_reloads",
                "Configuration reloads",
                "result",
                &RELOAD_RESULTS[..],
                &control.reloads,
            ),
            (
                "isatapd_all_routers_packets",
                "Packets of this host to all routers, one for each router of the PRL",
                "result",
                &ALL_ROUTERS_RESULTS[..],
                &control.all_routers,
            ),
            (
                "isatapd_redirects",
                "Redirects of first hops that reached control",
                "result",
                &REDIRECT_RESULTS[..],
                &control.redirects,
            ),
            (
                "isatapd_path_mtu_messages",
                "Messages that a packet was too big for its path, believed from a router or a link, or why not",
                "result",
                &PATH_MESSAGES[..],
                &control.path_messages,
            ),
            (
                "isatapd_path_mtu_changes",
                "Changes of what is known about paths",
                "change",
                &PATH_CHANGES[..],
                &control.path_changes,
            ),
            (
                "isatapd_icmp_errors",
                "ICMPv4 errors about our packets",
                "kind",
                &ICMP_ERROR_KINDS[..],
                &control.icmp_errors,
            ),
            (
                "isatapd_icmp_errors_translated",
                "ICMPv4 errors, by what the senders of the packets they are about were told",
                "result",
                &ICMP_TRANSLATIONS[..],
                &control.icmp_translations,
            ),
        ] {
            let mut family = family(encoder, MetricType::Counter, name, help)?;
            for value in known {
                family.counter(&[(label, value)], counts.get(*value).copied().unwrap_or(0))?;
            }
        }
        let help = "Version of the daemon, the lane in use, and the kernel";
        family(encoder, MetricType::Gauge, "isatapd_build_info", help)?.gauge(
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("lane", &self.lane),
                ("kernel", &self.kernel),
            ],
            1,
        )
    }
}
