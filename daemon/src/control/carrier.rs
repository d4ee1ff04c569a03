//! Who would carry a packet: the kernel's programs, or a worker and for which cause. Told from the packet that is made for
//! the question and what the programs were given, by `ebpf::forecast`, which a test holds against the programs.

use std::net::Ipv4Addr;

use isatap_engine::ebpf::forecast::{Arrival, Departure};
use isatap_engine::ebpf::{Cause, Surroundings};
use isatap_engine::fib::Rulebook;
use isatap_engine::path::{DecapVerdict, EncapVerdict};

use super::daemon::Daemon;

/// Those who may carry.
pub(super) enum Carriers<'a> {
    /// Workers alone; why, if the configuration would have it otherwise.
    Workers(&'a str),
    /// Programs in the kernel, and workers.
    Programs(Known<'a>),
}

/// What is known of the programs.
pub(super) struct Known<'a> {
    /// By what they decide besides the rules; `None` when these are not in force.
    pub(super) surroundings: Option<&'a Surroundings>,
    /// What is in the way.
    pub(super) obstacles: &'a [String],
    /// The devices where packets from the IPv4 network come to them.
    pub(super) devices: Vec<u32>,
    /// The name of a device.
    pub(super) name: Box<dyn Fn(u32) -> String + 'a>,
}

impl Daemon {
    /// Who may carry now.
    pub(super) fn carriers(&self) -> Carriers<'_> {
        match &self.programs {
            None => Carriers::Workers(&self.without_programs),
            Some(programs) => Carriers::Programs(Known {
                surroundings: programs.surroundings(),
                obstacles: programs.obstacles(),
                devices: programs.devices_in_use().collect(),
                name: Box::new(|index| programs.device_name(index)),
            }),
        }
    }
}

impl Carriers<'_> {
    /// Who carries an inner packet that this machine sends. Nothing where there is nothing to tell.
    pub(super) fn of_sent(&self, packet: &[u8], verdict: &EncapVerdict) -> Option<String> {
        let (known, surroundings) = match self.known() {
            Ok(known) => known,
            Err(said) => return said,
        };
        let departure = Departure {
            surroundings,
            packet,
            verdict,
        };
        Some(match (departure.excuse(), departure.way()) {
            (None, Some(way)) => format!(
                "carried by the kernel, out by {}; IPv4 packets of more than {} bytes are a worker's",
                (known.name)(way.device),
                way.mtu
            ),
            (cause, _) => known.left(cause.unwrap_or(Cause::Refused)),
        })
    }

    /// Who carries an outer packet that came in for `locator`. Nothing where there is nothing to tell.
    pub(super) fn of_received(
        &self,
        rules: &Rulebook,
        locator: Ipv4Addr,
        packet: &[u8],
        verdict: &DecapVerdict,
    ) -> Option<String> {
        let (known, surroundings) = match self.known() {
            Ok(known) => known,
            Err(said) => return said,
        };
        let mut locators = rules.locators().iter();
        let of_locator = locators.find(|own| own.addr == locator).map(|own| own.if_index);
        let expected = of_locator.filter(|index| *index != 0);
        let Some(device) = expected.or(known.devices.first().copied()) else {
            return Some("left to a worker: there are no programs at any device".to_owned());
        };
        if !known.devices.contains(&device) {
            return Some(format!(
                "left to a worker: there are no programs at {}",
                (known.name)(device)
            ));
        }
        let arrival = Arrival {
            rules,
            surroundings,
            device,
            packet,
            verdict,
        };
        Some(match (arrival.excuse(), verdict) {
            (Some(cause), _) => known.left(cause),
            (None, DecapVerdict::Drop(_)) => "dropped by the kernel's programs".to_owned(),
            (None, _) => format!("carried by the kernel, when it comes by {}", (known.name)(device)),
        })
    }

    /// What is known of programs that have our rules; else what there is to say.
    fn known(&self) -> Result<(&Known<'_>, &Surroundings), Option<String>> {
        match self {
            Self::Workers("") => Err(None),
            Self::Workers(why) => Err(Some(format!(
                "by a worker, for there are no programs in the kernel: {why}"
            ))),
            Self::Programs(known) => match known.surroundings {
                Some(surroundings) => Ok((known, surroundings)),
                None if known.obstacles.is_empty() => Err(Some(
                    "by whom is not known yet: the kernel's programs have no rules of this engine".to_owned(),
                )),
                None => Err(Some(known.left(Cause::Held))),
            },
        }
    }
}

impl Known<'_> {
    fn left(&self, cause: Cause) -> String {
        // What is in the way at the moment says more than what may be.
        let why = match cause {
            Cause::Held | Cause::Route if !self.obstacles.is_empty() => self.obstacles.join("; "),
            _ => cause.help().to_owned(),
        };
        format!("left to a worker, {}: {why}", cause.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::explain::explain;
    use crate::ops::query::ExplainRequest;
    use isatap_engine::ebpf::{Egress, Segmenters};
    use isatap_engine::fib::{Locator, NextHop, Role, RulebookBuilder};

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const DEVICE: u32 = 3;

    fn surroundings() -> Surroundings {
        Surroundings {
            link_len: 0,
            carry_in: true,
            carry_out: true,
            alone: true,
            own_v4: vec![US],
            egress: vec![Egress {
                network: "10.0.0.0/24".parse().unwrap(),
                device: DEVICE,
                mtu: 1500,
                via: Ipv4Addr::UNSPECIFIED,
            }],
            segmenters: Segmenters::default(),
        }
    }

    fn known<'a>(surroundings: Option<&'a Surroundings>, obstacles: &'a [String]) -> Carriers<'a> {
        Carriers::Programs(Known {
            surroundings,
            obstacles,
            devices: vec![DEVICE],
            name: Box::new(|index| format!("eth{index}")),
        })
    }

    /// What is said last.
    fn answer(carriers: &Carriers<'_>, src4: Option<Ipv4Addr>, dst6: &str) -> String {
        let rules = RulebookBuilder {
            role: Role::Router,
            locators: vec![Locator {
                addr: US,
                if_index: DEVICE,
            }],
            routes: vec![
                ("2001:db8::/64".parse().unwrap(), NextHop::OnLink),
                (
                    "2001:db8:9::/64".parse().unwrap(),
                    NextHop::Via(Ipv4Addr::new(10, 9, 0, 1)),
                ),
            ],
            site: vec!["10.0.0.0/8".parse().unwrap()],
            ..RulebookBuilder::default()
        };
        let src6 = match src4 {
            Some(_) => "2001:db8::5efe:10.0.0.5",
            None => "2001:db8::5efe:10.0.0.1",
        };
        let request = ExplainRequest {
            src4,
            src6: src6.parse().unwrap(),
            dst6: dst6.parse().unwrap(),
        };
        let lines = explain(&rules.build().unwrap(), US, request, carriers).unwrap();
        lines.last().unwrap().clone()
    }

    #[test]
    fn packets_are_the_kernels_where_nothing_is_in_the_way() {
        let all = surroundings();
        let carriers = known(Some(&all), &[]);
        let sent = answer(&carriers, None, "2001:db8::5efe:10.0.0.5");
        assert!(
            sent.starts_with("carried by the kernel, out by eth3; IPv4 packets of more than 1500"),
            "{sent}"
        );
        let received = answer(&carriers, Some(HOST), "2001:db8:1::1");
        assert_eq!(received, "carried by the kernel, when it comes by eth3");
        let forged = answer(&carriers, Some(Ipv4Addr::new(10, 0, 0, 6)), "2001:db8:1::1");
        assert_eq!(forged, "dropped by the kernel's programs");
    }

    #[test]
    fn what_is_left_has_a_cause() {
        let all = surroundings();
        let carriers = known(Some(&all), &[]);
        let no_way = answer(&carriers, None, "2001:db8:9::1");
        assert!(
            no_way.starts_with("left to a worker, route: No device"),
            "{no_way}"
        );
        let refused = answer(&carriers, None, "2001:db8:8::1");
        assert!(refused.starts_with("left to a worker, refused: "), "{refused}");
        let group = answer(&carriers, Some(HOST), "ff02::1");
        assert!(group.starts_with("left to a worker, multicast: "), "{group}");

        let others = Surroundings {
            alone: false,
            ..surroundings()
        };
        let carriers = known(Some(&others), &[]);
        let forged = answer(&carriers, Some(Ipv4Addr::new(10, 0, 0, 6)), "2001:db8:1::1");
        assert!(forged.starts_with("left to a worker, refused: "), "{forged}");

        let held = Surroundings {
            carry_in: false,
            carry_out: false,
            ..surroundings()
        };
        let why = ["somebody captures".to_owned()];
        let carriers = known(Some(&held), &why);
        for src4 in [None, Some(HOST)] {
            let held = answer(&carriers, src4, "2001:db8::5efe:10.0.0.5");
            assert_eq!(held, "left to a worker, held: somebody captures");
        }
        let elsewhere = Carriers::Programs(Known {
            surroundings: Some(&all),
            obstacles: &[],
            devices: vec![DEVICE + 1],
            name: Box::new(|index| format!("eth{index}")),
        });
        let elsewhere = answer(&elsewhere, Some(HOST), "2001:db8:1::1");
        assert_eq!(elsewhere, "left to a worker: there are no programs at eth3");
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let said = |carriers: &Carriers<'_>| answer(carriers, None, "2001:db8::5efe:10.0.0.5");
        assert_eq!(said(&Carriers::Workers("")), "sent from 10.0.0.1 to 10.0.0.5");
        assert_eq!(
            said(&Carriers::Workers("no clang")),
            "by a worker, for there are no programs in the kernel: no clang"
        );
        assert!(said(&known(None, &[])).starts_with("by whom is not known yet"));
        let unfit = ["too many routes".to_owned()];
        assert_eq!(
            said(&known(None, &unfit)),
            "left to a worker, held: too many routes"
        );
    }
}
