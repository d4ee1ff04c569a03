//! The programs of the `ebpf` lane, as metric families: whether the kernel carries, and what it left to workers.

use std::fmt::Error;

use isatap_engine::ebpf::Cause;
use isatap_engine::stats::Direction;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Scrape, family};

impl Scrape {
    pub(super) fn programs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "1 when the rules in force have the kernel's programs carry packets of the direction, 0 when workers carry all of them";
        let mut carries = family(encoder, MetricType::Gauge, "isatapd_kernel_carries", help)?;
        for direction in Direction::ALL {
            let share = self.share.as_ref();
            let value = share.is_some_and(|share| share.direction(direction).carries);
            carries.gauge(&[("direction", direction.name())], u64::from(value))?;
        }
        let Some(share) = &self.share else {
            return Ok(());
        };
        let help = "Neighbours on the IPv4 links that the kernel's programs send frames to without asking for a route";
        let mut neighbours = family(encoder, MetricType::Gauge, "isatapd_kernel_neighbours", help)?;
        neighbours.gauge(&[], u64::try_from(share.neighbours).unwrap_or(u64::MAX))?;
        let help = "Generations of what the kernel's programs decide by: each ends what CPUs remember of it, and the next packet of each \
                    flow looks again";
        let mut generations = family(encoder, MetricType::Counter, "isatapd_kernel_generations", help)?;
        for (of, generation) in [
            ("rules", share.generation),
            ("neighbours", share.neighbour_generation),
        ] {
            generations.counter(&[("of", of)], u64::from(generation))?;
        }
        let help = "Packets that the kernel's programs left to a worker, by cause; they are not among the kernel's packets, and \
                    counted again as the worker's";
        let mut left = family(encoder, MetricType::Counter, "isatapd_left_packets", help)?;
        for direction in Direction::ALL {
            let counts = &share.direction(direction).left;
            for cause in Cause::ALL {
                let labels = [("direction", direction.name()), ("cause", cause.name())];
                let count = counts.get(*cause as usize).copied().unwrap_or(0);
                left.counter(&labels, count)?;
            }
        }
        Ok(())
    }
}
