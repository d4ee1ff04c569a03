//! Latency under load: the highest rate without loss, then how late packets are at 80 % of it.

use std::time::Duration;

use anyhow::Result;

use super::{Context, Taken, udp};
use crate::generate::{self, Outcome, Pace, Traffic, search};

const SIZE: usize = 64;
/// Long enough to fill every queue many times.
const TRIAL: Duration = Duration::from_millis(300);
/// A sender that falls behind by more has not sent at that rate, and a tunnel that does fills its queues: they hold more than a
/// trial sends, so loss alone would come too late.
const BEHIND: f64 = 0.98;
const SHARE_PERCENT: u64 = 80;

pub(super) fn measure(context: &Context<'_>) -> Result<Taken> {
    let (mut outlet, inlet) = udp::flows(context.link()?, context.settings.flows)?;
    let mut send = |pace, length| -> Result<Outcome> {
        let traffic = Traffic {
            length,
            warm_up: Duration::from_millis(50),
            ..udp::traffic(context, vec![SIZE], pace)
        };
        generate::run(&mut outlet, &inlet, &traffic)
    };
    let carried = send(udp::window(context), TRIAL)?.delivered;
    let mut duplicated = 0;
    // Around what a sender with a window gets through.
    let (low, high) = (whole(carried * 0.1), whole(carried * 1.5));
    let highest = search::highest(low, high, |rate| {
        // One disturbance by the machine must not decide.
        for _ in 0..2 {
            let outcome = send(Pace::Rate(rate), TRIAL)?;
            duplicated += outcome.totals.duplicated;
            if outcome.offered < rate as f64 * BEHIND {
                return Ok(false);
            }
            if outcome.totals.lost == 0 && outcome.delivered >= rate as f64 * BEHIND {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let rate = highest * SHARE_PERCENT / 100;
    let length = Duration::from_secs_f64(context.step.row.method.packet_seconds(context.settings));
    let outcome = send(Pace::Rate(rate), length)?;
    let mut taken = udp::taken(&outcome);
    taken.duplicated += duplicated;
    taken.details.insert("rate".into(), rate as f64 / 1e3);
    let micros = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
    taken.values = vec![highest as f64 / 1e3, micros(0.5), micros(0.99), micros(0.999)];
    taken.latency = Some(outcome.latency);
    Ok(taken)
}

/// Packets a second are far below 2^32.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(rate: f64) -> u64 {
    rate.clamp(1.0, 1e9) as u64
}
