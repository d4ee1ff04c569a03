//! Traps of filters and address translation: what does not let protocol 41 pass as it is.

use isatap_engine::isatap::iid::is_globally_unique;

use super::checks::running;
use super::sight::Sight;
use super::{Finding, Grade};

/// errno of a send that the firewall forbids.
const EPERM: i32 = 1;

pub(super) fn firewall(sight: &Sight) -> Option<Finding> {
    let refused: u64 = running(sight).map_or(0, |status| {
        let errors = status.workers.iter().flat_map(|worker| &worker.errors);
        errors
            .filter(|error| error.errno == EPERM)
            .map(|error| error.count)
            .sum()
    });
    if refused > 0 {
        return Some(Finding::new(
            Grade::Obstacle,
            "firewall",
            format!("{refused} packet(s) were refused on their way out (EPERM)"),
            "let protocol 41 out: nft add rule inet filter output ip protocol 41 accept",
        ));
    }
    let ruleset = match &sight.tools.ruleset {
        Ok(ruleset) => ruleset,
        Err(why) => {
            return Some(Finding::new(
                Grade::Note,
                "firewall",
                format!("not looked at: {why}"),
                "",
            ));
        }
    };
    let dropped = ruleset
        .lines()
        .find(|line| names_protocol_41(line) && (line.contains("drop") || line.contains("reject")));
    if let Some(rule) = dropped {
        return Some(Finding::new(
            Grade::Warning,
            "firewall",
            format!("a rule drops protocol 41: {}", rule.trim()),
            "fine at the border of the site; between its hosts protocol 41 must pass",
        ));
    }
    let closed = ruleset
        .lines()
        .any(|line| line.contains("hook input") && line.contains("policy drop"));
    Some(if closed && !ruleset.lines().any(names_protocol_41) {
        Finding::new(
            Grade::Warning,
            "firewall",
            "what comes in is dropped unless a rule accepts it, and no rule names protocol 41",
            "nft add rule inet filter input ip protocol 41 ip saddr SITE accept",
        )
    } else {
        Finding::fine("firewall", "nothing found against protocol 41")
    })
}

/// A translated outer source no longer is the one in the inner source: the other side drops the packet (`src_mismatch`).
pub(super) fn translation(sight: &Sight) -> Option<Finding> {
    let status = running(sight)?;
    let own = status.locator.address;
    let beyond = status
        .routers
        .iter()
        .map(|router| router.address)
        .find(|address| !is_globally_unique(own) && is_globally_unique(*address));
    if let Some(router) = beyond {
        return Some(Finding::new(
            Grade::Warning,
            "NAT",
            format!(
                "{own} is a private address and the router {router} is not: a translator between them breaks the tunnel"
            ),
            "give the router an address inside the site, and name that one",
        ));
    }
    let ruleset = sight.tools.ruleset.as_deref().unwrap_or_default();
    let rewrites = |line: &&str| {
        let mut words = line.split_whitespace();
        words.any(|word| matches!(word, "masquerade" | "snat"))
    };
    let spared = ruleset.lines().any(|line| {
        names_protocol_41(line) && ["accept", "return"].iter().any(|verdict| line.contains(verdict))
    });
    Some(match ruleset.lines().find(rewrites) {
        Some(rule) if !spared => Finding::new(
            Grade::Note,
            "NAT",
            format!("a rule rewrites sources: {}", rule.trim()),
            "if it meets packets of the tunnel, put a rule before it: ip protocol 41 accept",
        ),
        _ => Finding::fine("NAT", "nothing found that rewrites sources of the tunnel"),
    })
}

fn names_protocol_41(rule: &str) -> bool {
    ["protocol 41", "protocol ipv6", "l4proto 41", "l4proto ipv6"]
        .iter()
        .any(|form| rule.contains(form))
}
