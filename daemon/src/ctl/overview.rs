//! `isatapctl status`: the daemon on one screen of 80 columns. What never happened takes no line.

use std::collections::BTreeMap;

use super::render::{Earlier, duration, ratio};
use super::share;
use super::table::{Align, Table};
use crate::ops::status::{DirectionStatus, Status};

/// Columns of a terminal that has not been made larger.
const WIDTH: usize = 80;
/// Columns before the text of a line.
const INDENT: usize = 11;
/// Reasons to drop that are named below the table.
const REASONS_SHOWN: usize = 3;

/// A number of one direction, with its name.
type Row = (&'static str, fn(&DirectionStatus) -> u64);

/// Names with what is said of them, in order.
type Lines = Vec<(&'static str, String)>;

/// `isatapctl status`.
pub fn status(status: &Status, earlier: Option<&Earlier>) -> String {
    let mut lines = identity(status);
    match status.role.as_str() {
        "router" => lines.extend(advertising(status)),
        _ => lines.extend(routers(status)),
    }
    if let Some(seconds) = status.draining_seconds {
        let packets = "isatapctl status --rate shows what still comes";
        lines.push(("draining", format!("for {}; {packets}", duration(seconds))));
    }
    lines.extend(events(status));
    lines.extend(losses(status));
    let mut text: String = lines.iter().map(|(name, value)| wrapped(name, value)).collect();
    text.push('\n');
    text.push_str(&traffic(status, earlier));
    if let Some(reasons) = reasons(status) {
        text.push('\n');
        text.push_str(&wrapped("drops", &reasons));
    }
    text
}

/// Who it is, and where.
fn identity(status: &Status) -> Lines {
    let (interface, locator) = (&status.interface, &status.locator);
    let state = if status.ready {
        "ready".to_owned()
    } else {
        format!("not ready: {}", status.not_ready.join("; "))
    };
    let mut lines = vec![
        (
            "isatapd",
            format!(
                "{}, pid {}, up {}",
                status.version,
                status.pid,
                duration(status.uptime_seconds)
            ),
        ),
        (
            "state",
            format!(
                "{state} ({}, lane {}, {} worker(s))",
                status.role,
                share::lane(status),
                status.workers.len()
            ),
        ),
        (
            "interface",
            format!(
                "{} {}, MTU {}, tunnel MTU {}, {} route(s)",
                interface.name,
                if interface.up { "up" } else { "DOWN" },
                interface.mtu,
                interface.tunnel_mtu,
                status.route_count
            ),
        ),
        (
            "locator",
            format!(
                "{}{}{}",
                locator.address,
                if locator.automatic {
                    " (follows the machine)"
                } else {
                    ""
                },
                if locator.present {
                    ""
                } else {
                    ", not on this machine now"
                }
            ),
        ),
        ("addresses", or_none(interface.addresses.join(", "))),
    ];
    lines.splice(1..1, engines(status));
    if !locator.shared_with.is_empty() {
        let others = locator.shared_with.join(", ");
        lines.push((
            "conflict",
            format!("{others} has the locator as well: isatapctl doctor"),
        ));
    }
    lines.extend(share::summary(status).map(|said| ("programs", said)));
    if status.captures > 0 {
        lines.push(("captures", format!("{} running", status.captures)));
    }
    lines
}

/// The engines before this one, if there were any.
fn engines(status: &Status) -> Option<(&'static str, String)> {
    let control = &status.control;
    let ended = counted(&control.engine_restarts);
    let upgrades = (control.upgrades > 0).then(|| format!("upgrades: {}", control.upgrades));
    let restarts = (!ended.is_empty()).then(|| format!("started again: {ended}"));
    let events: Vec<_> = restarts.into_iter().chain(upgrades).collect();
    let since = "up and what is counted are the last one's";
    (!events.is_empty()).then(|| ("engine", format!("{}; {since}", events.join("; "))))
}

/// A host's routers and what came from them.
fn routers(status: &Status) -> Lines {
    let states = ["usable", "probing", "unreachable", "unknown"];
    let counts = states
        .map(|state| (state, status.routers_in(state)))
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"));
    let counts: Vec<_> = counts.collect();
    let mut lines = vec![("routers", or_none(counts.join(", ")))];
    let control = &status.control;
    let heard = or_none(counted(&control.advertisements));
    lines.push((
        "asked",
        format!(
            "{} solicitations, {} probes; advertisements: {heard}",
            control.solicitations, control.probes
        ),
    ));
    let resolver = &status.resolver;
    if !resolver.servers.is_empty() {
        let servers: Vec<_> = resolver.servers.iter().map(ToString::to_string).collect();
        let outcome = resolver.outcome.as_deref().unwrap_or("not handed over");
        lines.push(("DNS", format!("{} ({outcome})", servers.join(", "))));
    }
    lines
}

/// What a router's hosts were told, and how many there are.
fn advertising(status: &Status) -> Lines {
    let (advertising, control) = (&status.advertising, &status.control);
    let mut lines = vec![(
        "advertises",
        format!(
            "{}{}, {} host(s) known",
            if advertising.on { "yes" } else { "no" },
            if advertising.shared {
                ", under an address that is shared"
            } else {
                ""
            },
            advertising.clients
        ),
    )];
    lines.extend(line("solicited", &control.solicitations_received));
    lines.extend(line("told", &control.advertisements_sent));
    lines.extend(line("disagrees", &control.disagreements));
    lines
}

/// What control had to do with, besides routers.
fn events(status: &Status) -> Lines {
    let (control, paths) = (&status.control, &status.paths);
    let mut lines = Lines::new();
    if paths.links + paths.routers > 0 {
        let counts = format!(
            "{} short by routers' word, {} by our own link's",
            paths.routers, paths.links
        );
        lines.push(("paths", counts));
    }
    if !control.icmp_errors.is_empty() {
        let passed_on = or_none(counted(&control.icmp_translations));
        let heard = counted(&control.icmp_errors);
        lines.push(("ICMPv4", format!("{heard}; for their senders: {passed_on}")));
    }
    lines.extend(line("redirects", &control.redirects));
    lines.extend(line("to routers", &control.all_routers));
    lines.extend(line("reloads", &control.reloads));
    lines
}

/// What the kernel lost.
fn losses(status: &Status) -> Lines {
    let mut places = Vec::new();
    let of = |is_socket: bool| {
        let counts = status.kernel_drops.iter();
        let mine = counts.filter(|(queue, _)| queue.parse::<usize>().is_ok() == is_socket);
        mine.map(|(_, count)| count).sum::<u64>()
    };
    for (count, place) in [
        (of(true), "at our sockets".to_owned()),
        (of(false), format!("at {}", status.interface.name)),
        (status.qdisc_drops, "in the underlay's queues".to_owned()),
        (status.device_drops, "by the underlay's devices".to_owned()),
    ] {
        if count > 0 {
            places.push(format!("{count} {place}"));
        }
    }
    if places.is_empty() {
        Lines::new()
    } else {
        vec![("kernel", format!("dropped {}", places.join(", ")))]
    }
}

fn line(name: &'static str, counts: &BTreeMap<String, u64>) -> Option<(&'static str, String)> {
    let text = counted(counts);
    (!text.is_empty()).then_some((name, text))
}

/// `12 accepted, 3 malformed`.
fn counted(counts: &BTreeMap<String, u64>) -> String {
    let words: Vec<_> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    words.join(", ")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

/// A name and its text, folded between words.
fn wrapped(name: &str, text: &str) -> String {
    let mut out = format!("{name:<width$}", width = INDENT - 1);
    let mut column = INDENT - 1;
    for word in text.split(' ') {
        let len = word.chars().count();
        if column + 1 + len > WIDTH && column >= INDENT {
            out.push('\n');
            out.push_str(&" ".repeat(INDENT - 1));
            column = INDENT - 1;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + len;
    }
    out.push('\n');
    out
}

fn traffic(status: &Status, earlier: Option<&Earlier>) -> String {
    let mut columns = vec![
        ("", Align::Left),
        ("encap", Align::Right),
        ("decap", Align::Right),
    ];
    if earlier.is_some() {
        columns.extend([("encap rate", Align::Right), ("decap rate", Align::Right)]);
    }
    let mut table = Table::new(columns);
    let rows: [Row; 7] = [
        ("received", |direction| direction.received),
        ("packets", |direction| direction.packets),
        ("punted", |direction| direction.punted),
        ("dropped", |direction| direction.dropped),
        ("bytes", |direction| direction.bytes),
        ("superpackets", |direction| direction.superpackets),
        ("segments", |direction| direction.segments),
    ];
    let both = [&status.total.encap, &status.total.decap];
    for (name, value) in rows {
        let now = both.map(value);
        let mut cells = vec![name.to_owned(), now[0].to_string(), now[1].to_string()];
        if let Some(earlier) = earlier {
            let then = [&earlier.0.total.encap, &earlier.0.total.decap].map(value);
            cells.extend((0..2).map(|at| earlier.rate(status, then[at], now[at])));
        }
        table.row(cells);
    }
    let mut batches = vec!["per batch".to_owned()];
    // Batches are the workers'.
    let kernel = &status.programs.traffic;
    let by_kernel = [kernel.encap.received, kernel.decap.received];
    batches.extend(both.into_iter().zip(by_kernel).map(|(direction, by_kernel)| {
        ratio(direction.received.saturating_sub(by_kernel), direction.batches)
    }));
    table.row(batches);
    table.to_string()
}

/// The reasons most packets were dropped for.
fn reasons(status: &Status) -> Option<String> {
    let of = |name: &'static str, direction: &DirectionStatus| {
        let counts = direction.drops.clone().into_iter();
        counts
            .map(move |(reason, count)| (count, name, reason))
            .collect::<Vec<_>>()
    };
    let mut all = of("encap", &status.total.encap);
    all.extend(of("decap", &status.total.decap));
    all.sort_by(|a, b| b.cmp(a));
    let shown: Vec<_> = all
        .iter()
        .take(REASONS_SHOWN)
        .map(|(count, direction, reason)| format!("{count} {direction} {reason}"))
        .collect();
    let more = all.len().saturating_sub(REASONS_SHOWN);
    let rest = match more {
        0 => String::new(),
        more => format!(", and for {more} other reason(s): isatapctl drops"),
    };
    (!shown.is_empty()).then(|| shown.join(", ") + &rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::tests::{example, with_programs};

    #[test]
    fn the_main_things_in_few_lines() {
        let text = status(&example(), None);
        for part in [
            "ready (host, lane uring, 2 worker(s))",
            "is0 up, MTU 1280, tunnel MTU 1280, 2 route(s)",
            "10.0.0.5 (follows",
            "routers    1 usable\n",
            "kernel     dropped 3 at our sockets\n",
            "drops      4 encap too_big\n",
            "received",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(text.lines().count() <= 24, "one screen:\n{text}");
        for silent in [
            "redirects",
            "ICMPv4",
            "paths",
            "captures",
            "DNS",
            "programs",
            "engine",
        ] {
            assert!(!text.contains(silent), "{silent} never happened:\n{text}");
        }
        let mut down = example();
        down.ready = false;
        down.not_ready = vec!["no usable router".to_owned()];
        assert!(status(&down, None).contains("not ready: no usable router"));
        down.draining_seconds = Some(61.0);
        let text = status(&down, None);
        assert!(text.contains("draining   for 1m01s; "), "{text}");
    }

    #[test]
    fn the_kernels_programs_are_told_and_make_no_batches() {
        let text = status(&with_programs(), None);
        for part in [
            "(host, lane ebpf, workers by uring, 2 worker(s))",
            "programs   carry both directions, at eth0\n",
            "received         144  ",
            "per batch      12.00  ",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }

    #[test]
    fn engines_that_were_followed_are_told() {
        let mut again = example();
        again.control.upgrades = 2;
        again.control.engine_restarts = BTreeMap::from([("panic".to_owned(), 0), ("signal".to_owned(), 9)]);
        let text = status(&again, None);
        let told = "\nengine     started again: 9 signal; upgrades: 2; up and what is counted are the\n           last one's\n";
        assert!(text.contains(told), "{text}");
        again.control.engine_restarts.clear();
        assert!(status(&again, None).contains("\nengine     upgrades: 2; up and"));
    }

    #[test]
    fn a_busy_router_fits_the_screen() {
        let mut router = example();
        router.role = "router".to_owned();
        router.interface.addresses = (1..=5)
            .map(|n| format!("2001:db8:{n}:1234:0:5efe:10.100.200.{n}/64"))
            .collect();
        router.captures = 2;
        router.qdisc_drops = 1_234_567;
        router.kernel_drops.insert("tun_txq".to_owned(), 8);
        let counts = |names: &[&str]| {
            let counts = names.iter().map(|name| ((*name).to_owned(), 123_456_789));
            counts.collect::<BTreeMap<_, _>>()
        };
        let control = &mut router.control;
        control.solicitations_received = counts(&["answered", "rate_limited", "malformed", "foreign"]);
        control.advertisements_sent = counts(&["sent", "failed", "limited"]);
        control.icmp_errors = counts(&["frag_needed", "unreachable", "other"]);
        control.icmp_translations = counts(&["translated", "limited", "foreign"]);
        control.redirects = counts(&["accepted"]);
        router.paths.routers = 7;
        for reason in ["no_route", "ecn", "src_mismatch", "nested"] {
            router.total.decap.drops.insert(reason.to_owned(), 99);
        }
        let text = status(&router, Some(&Earlier(example())));
        let unfolded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "kernel dropped 3 at our sockets, 8 at is0, 1234567 in the underlay's queues",
            "captures 2 running",
            "paths 7 short",
            "nested, and for 2 other reason(s): isatapctl drops",
            "for their senders: 123456789 foreign",
        ] {
            assert!(unfolded.contains(part), "no {part} in\n{text}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}\nin\n{text}");
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn rates_come_from_two_looks() {
        let earlier = Earlier(example());
        let mut now = example();
        now.uptime_seconds += 2.0;
        now.total.encap.packets += 50_000;
        let text = status(&now, Some(&earlier));
        assert!(text.contains("25.0k/s"), "{text}");
        let mut restarted = example();
        restarted.total.encap.packets = 0;
        restarted.uptime_seconds += 1.0;
        assert!(
            status(&restarted, Some(&earlier)).contains(" -"),
            "no negative rate"
        );
    }

    #[test]
    fn long_words_stay_whole() {
        let text = wrapped("x", &format!("{} end", "y".repeat(100)));
        assert_eq!(text, format!("x          {}\n           end\n", "y".repeat(100)));
    }
}
