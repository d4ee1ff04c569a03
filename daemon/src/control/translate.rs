//! ICMPv4 errors about our packets, told to the IPv6 senders of what was in them (RFC 4213 3.4, REQUIREMENTS N6).

use isatap_engine::io::errqueue::SendFailure;
use isatap_engine::path::quoted::{self, Untold};
use isatap_engine::path::reply::MAX_REPLY_LEN;
use tracing::{debug, info};

use super::daemon::Daemon;

/// What becomes of an ICMPv4 error; the names are those of `isatapd_icmp_errors_translated_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The sender was told.
    Translated,
    /// The sender was told enough already.
    Limited,
    /// Too little was quoted to know the sender.
    Short,
    /// We sent no such packet.
    Foreign,
    /// No ICMPv6 error may be sent about such a packet.
    Unanswerable,
    /// It says nothing for the sender.
    Kept,
    /// The kernel refused it.
    Failed,
}

impl Outcome {
    /// The label on metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Limited => "limited",
            Self::Short => "short",
            Self::Foreign => "foreign",
            Self::Unanswerable => "unanswerable",
            Self::Kept => "kept",
            Self::Failed => "failed",
        }
    }
}

impl From<Untold> for Outcome {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::Short => Self::Short,
            Untold::Foreign => Self::Foreign,
            Untold::Unanswerable => Self::Unanswerable,
        }
    }
}

/// Whether an error says that packets to the peer do not arrive. Not among them: "fragmentation needed", which has a meaning
/// of its own; fragments that were lost on the way, since the next packet may fare better; and "port unreachable", with which
/// a Linux peer answers each packet that its own daemon takes, as soon as the kernel's tunnel module is loaded beside it.
pub(super) const fn is_delivery_failure(icmp: (u8, u8)) -> bool {
    match icmp {
        (3, code) => !matches!(code, 3 | 4),
        (11, code) => code == 0,
        (kind, _) => kind == 12,
    }
}

impl Daemon {
    /// Tells the sender of the packet that an ICMPv4 error is about.
    pub(super) fn tell_sender(&mut self, failure: &SendFailure) {
        let outcome = self.translate(failure).unwrap_or_else(Outcome::from);
        self.count_translation(outcome);
        if outcome == Outcome::Short {
            let (peer, kind, code) = (failure.destination, failure.icmp.0, failure.icmp.1);
            info!(
                %peer,
                reason = "icmp_unreachable",
                "packets to {peer} do not arrive (ICMPv4 type {kind} code {code}); the error quotes too little to tell their \
                 sender"
            );
        }
    }

    fn translate(&mut self, failure: &SendFailure) -> Result<Outcome, Untold> {
        if !is_delivery_failure(failure.icmp) {
            return Ok(Outcome::Kept);
        }
        let mut error = [0; MAX_REPLY_LEN];
        let rules = self.publisher.current();
        let len = quoted::translate(&rules, failure.destination, &failure.quote, &mut error)?;
        if !self.error_limits.take(failure.destination, self.clock()) {
            return Ok(Outcome::Limited);
        }
        match self.engine.writer().write(&error[..len]) {
            Ok(()) => Ok(Outcome::Translated),
            Err(error) => {
                debug!("cannot tell a sender of an ICMPv4 error: {error}");
                Ok(Outcome::Failed)
            }
        }
    }

    pub(super) fn count_translation(&mut self, outcome: Outcome) {
        let counts = &mut self.counters.icmp_translations;
        *counts.entry(outcome.name().to_owned()).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N6: which errors are for the sender.
    #[test]
    fn n6_what_is_told() {
        for (icmp, told) in [
            ((3, 0), true),
            ((3, 1), true),
            ((3, 2), true),
            ((3, 3), false),
            ((3, 4), false),
            ((3, 9), true),
            ((3, 13), true),
            ((4, 0), false),
            ((5, 1), false),
            ((11, 0), true),
            ((11, 1), false),
            ((12, 0), true),
        ] {
            assert_eq!(is_delivery_failure(icmp), told, "{icmp:?}");
        }
    }

    #[test]
    fn every_outcome_is_on_the_metrics_page() {
        for outcome in [
            Outcome::Translated,
            Outcome::Limited,
            Outcome::Short,
            Outcome::Foreign,
            Outcome::Unanswerable,
            Outcome::Kept,
            Outcome::Failed,
        ] {
            assert!(crate::ops::labels::ICMP_TRANSLATIONS.contains(&outcome.name()));
        }
    }
}
