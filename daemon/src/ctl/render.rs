//! The daemon's answers as text for people, but for the status itself: [`super::overview`].

use isatap_engine::reason::DropReason;

use super::share;
use super::table::{Align, Table};
use crate::ops::status::{DirectionStatus, Routes, Status, WorkerStatus};

/// One direction of a status, with its name.
type Side = (&'static str, fn(&Status) -> &DirectionStatus);

/// A status taken a little before, to tell rates by.
#[derive(Debug)]
pub struct Earlier(pub Status);

impl Earlier {
    /// Per second, from two values of one counter. A counter that went back belongs to a new daemon.
    pub(super) fn rate(&self, now: &Status, then: u64, value: u64) -> String {
        let seconds = now.uptime_seconds - self.0.uptime_seconds;
        match value.checked_sub(then) {
            #[allow(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
            Some(difference) if seconds > 0.0 => per_second(difference as f64 / seconds),
            _ => "-".to_owned(),
        }
    }
}

fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2}M/s", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1}k/s", rate / 1e3),
        rate if rate >= 10.0 || rate == 0.0 => format!("{rate:.0}/s"),
        rate => format!("{rate:.1}/s"),
    }
}

/// `isatapctl drops`.
pub fn drops(status: &Status, earlier: Option<&Earlier>) -> String {
    let mut columns = vec![
        ("direction", Align::Left),
        ("reason", Align::Left),
        ("packets", Align::Right),
    ];
    if earlier.is_some() {
        columns.push(("rate", Align::Right));
    }
    columns.push(("meaning", Align::Left));
    let mut table = Table::new(columns);
    let directions: [Side; 2] = [
        ("encap", |status| &status.total.encap),
        ("decap", |status| &status.total.decap),
    ];
    for (name, direction) in directions {
        let mut counts: Vec<_> = direction(status).drops.iter().collect();
        counts.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), (*reason).clone()));
        for (reason, count) in counts {
            let mut cells = vec![name.to_owned(), reason.clone(), count.to_string()];
            if let Some(earlier) = earlier {
                let then = direction(&earlier.0).drops.get(reason).copied().unwrap_or(0);
                cells.push(earlier.rate(status, then, *count));
            }
            cells.push(meaning(reason).to_owned());
            table.row(cells);
        }
    }
    if table.is_empty() {
        "nothing was dropped\n".to_owned()
    } else {
        table.to_string()
    }
}

fn meaning(reason: &str) -> &'static str {
    DropReason::ALL
        .iter()
        .find(|known| known.name() == reason)
        .map_or("", |known| known.help())
}

/// The preference of RFC 4191 2.1 in words.
fn preference(rank: i8) -> &'static str {
    match rank {
        ..=-1 => "low",
        0 => "medium",
        1.. => "high",
    }
}

/// `isatapctl routers`: the list, then the names that lead there.
pub fn routers(status: &Status) -> String {
    router_list(status) + &names(status)
}

fn names(status: &Status) -> String {
    if status.names.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        ("name", Align::Left),
        ("routers", Align::Right),
        ("answered", Align::Right),
        ("TTL", Align::Right),
        ("next in", Align::Right),
        ("failed", Align::Right),
        ("last failure", Align::Left),
    ]);
    for name in &status.names {
        let optional = |seconds: Option<f64>| seconds.map_or("-".to_owned(), duration);
        table.row([
            name.name.clone(),
            name.addresses.len().to_string(),
            name.answered_seconds_ago
                .map_or("never".to_owned(), |ago| format!("{} ago", duration(ago))),
            optional(name.ttl_seconds),
            optional(name.next_lookup_seconds),
            name.failures.to_string(),
            name.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    format!("\n{table}")
}

fn router_list(status: &Status) -> String {
    if status.routers.is_empty() {
        return match status.role.as_str() {
            "router" => "this is a router: it solicits nobody\n".to_owned(),
            _ => "the potential router list is empty\n".to_owned(),
        };
    }
    let mut table = Table::new([
        ("router", Align::Left),
        ("state", Align::Left),
        ("preference", Align::Left),
        ("lifetime", Align::Right),
        ("advertised", Align::Right),
        ("answered", Align::Right),
        ("RTT", Align::Right),
        ("next RS in", Align::Right),
        ("RS", Align::Right),
        ("RA", Align::Right),
        ("link-local", Align::Left),
    ]);
    for router in &status.routers {
        let optional = |seconds: Option<f64>| seconds.map_or("-".to_owned(), duration);
        let ago = |seconds: Option<f64>| {
            seconds.map_or("never".to_owned(), |seconds| format!("{} ago", duration(seconds)))
        };
        table.row([
            router.address.to_string(),
            router.state.clone(),
            preference(router.preference).to_owned(),
            optional(router.lifetime_seconds),
            ago(router.advertised_seconds_ago),
            ago(router.answered_seconds_ago),
            router
                .round_trip_seconds
                .map_or("-".to_owned(), |time| format!("{:.1} ms", time * 1e3)),
            optional(router.next_solicitation_seconds),
            router.solicitations.to_string(),
            router.advertisements.to_string(),
            router.link_local.to_string(),
        ]);
    }
    table.to_string()
}

/// `isatapctl routes`.
pub fn routes(routes: &Routes) -> String {
    let mut table = Table::new([("prefix", Align::Left), ("next hop", Align::Left)]);
    for route in &routes.routes {
        table.row([route.prefix.clone(), route.next_hop.clone()]);
    }
    let mut text = table.to_string();
    let more = routes.total.saturating_sub(routes.routes.len());
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

/// `isatapctl workers`.
pub fn workers(status: &Status, earlier: Option<&Earlier>) -> String {
    let mut columns = vec![
        ("worker", Align::Left),
        ("encap", Align::Right),
        ("decap", Align::Right),
        ("dropped", Align::Right),
        ("punted", Align::Right),
        ("syscalls", Align::Right),
        ("packets/syscall", Align::Right),
    ];
    if earlier.is_some() {
        columns.extend([("encap rate", Align::Right), ("decap rate", Align::Right)]);
    }
    let mut table = Table::new(columns);
    for worker in &status.workers {
        let (encap, decap) = (&worker.traffic.encap, &worker.traffic.decap);
        let mut cells = vec![
            worker.worker.to_string(),
            encap.packets.to_string(),
            decap.packets.to_string(),
            (encap.dropped + decap.dropped).to_string(),
            (encap.punted + decap.punted).to_string(),
            worker.syscalls.to_string(),
            ratio(encap.received + decap.received, worker.syscalls),
        ];
        if let Some(earlier) = earlier {
            let then = earlier.0.workers.iter().find(|old| old.worker == worker.worker);
            cells.extend(match then {
                Some(then) => [
                    earlier.rate(status, then.traffic.encap.packets, encap.packets),
                    earlier.rate(status, then.traffic.decap.packets, decap.packets),
                ],
                None => ["-".to_owned(), "-".to_owned()],
            });
        }
        table.row(cells);
    }
    if let Some(cells) = share::row(status, earlier) {
        table.row(cells);
    }
    let mut text = table.to_string();
    text.push_str(&share::notes(status));
    text.push_str(&worker_notes(&status.workers));
    text
}

/// What the workers met besides packets: loop events and failed system calls.
fn worker_notes(workers: &[WorkerStatus]) -> String {
    let mut table = Table::new([
        ("worker", Align::Left),
        ("what", Align::Left),
        ("count", Align::Right),
    ]);
    for worker in workers {
        for (event, count) in &worker.events {
            table.row([worker.worker.to_string(), event.clone(), count.to_string()]);
        }
        for error in &worker.errors {
            let what = format!("{} failed: {}", error.operation, error.message);
            table.row([worker.worker.to_string(), what, error.count.to_string()]);
        }
    }
    if table.is_empty() {
        String::new()
    } else {
        format!("\n{table}")
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio is shown with two digits")]
pub(super) fn ratio(numerator: u64, denominator: u64) -> String {
    if denominator == 0 {
        "-".to_owned()
    } else {
        format!("{:.2}", numerator as f64 / denominator as f64)
    }
}

/// `isatapctl reload`.
pub fn reload(changes: &[String]) -> String {
    match changes {
        [] => "reloaded, nothing changed\n".to_owned(),
        changes => format!(
            "reloaded\n{}\n",
            changes
                .iter()
                .map(|c| format!("  {c}"))
                .collect::<Vec<_>>()
                .join("\n")
        ),
    }
}

/// Seconds in the two largest units that say something.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    let whole = std::time::Duration::from_secs_f64(seconds.min(1e12)).as_secs();
    let (days, hours, minutes, seconds) = (whole / 86400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{seconds:02}s"),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::tests::{example, with_programs};

    #[test]
    fn rates_come_from_two_looks() {
        let earlier = Earlier(example());
        let mut now = example();
        now.uptime_seconds += 2.0;
        now.total.encap.drops.insert("too_big".to_owned(), 5);
        assert!(
            drops(&now, Some(&earlier)).contains("0.5/s"),
            "{}",
            drops(&now, Some(&earlier))
        );
    }

    #[test]
    fn drops_explain_themselves() {
        let text = drops(&example(), None);
        assert!(
            text.contains("encap      too_big        4  The packet is larger than the tunnel MTU."),
            "{text}"
        );
        let mut silent = example();
        silent.total.encap.drops.clear();
        assert_eq!(drops(&silent, None), "nothing was dropped\n");
    }

    #[test]
    fn routers_routes_and_workers() {
        let text = routers(&example());
        let line = text.lines().find(|line| line.contains("10.0.0.1")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words[..9],
            [
                "10.0.0.1", "usable", "medium", "29m59s", "0.5s", "ago", "0.2s", "ago", "1.0"
            ],
            "{text}"
        );
        assert!(
            text.contains("\nisatap.example        1  1.0s ago  59.0s     4.0s       2  no answer"),
            "{text}"
        );
        let cut = Routes {
            routes: vec![crate::ops::status::RouteStatus {
                prefix: "::/0".into(),
                next_hop: "10.0.0.1".into(),
            }],
            total: 3,
        };
        assert_eq!(routes(&cut), "prefix  next hop\n::/0    10.0.0.1\nand 2 more\n");
        assert_eq!(workers(&example(), None).lines().count(), 3);
        let text = workers(&with_programs(), None);
        let kernel = text.lines().find(|line| line.starts_with("kernel")).unwrap();
        let words: Vec<_> = kernel.split_whitespace().collect();
        assert_eq!(words, ["kernel", "100", "0", "20", "0", "-", "-"], "{text}");
        assert!(reload(&[]).contains("nothing changed"));
    }

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0.04, "0.0s"),
            (59.94, "59.9s"),
            (61.0, "1m01s"),
            (7260.0, "2h01m"),
            (90000.0, "1d01h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
