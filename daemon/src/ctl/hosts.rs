//! `isatapctl hosts`: the hosts that a router knows, as text.

use super::render::duration;
use super::table::{Align, Table};
use crate::ops::hosts::Hosts;

/// A line for each, and how many there are.
pub(super) fn text(hosts: &Hosts) -> String {
    let mut table = Table::new([
        ("host", Align::Left),
        ("solicited", Align::Right),
        ("at", Align::Left),
        ("came back", Align::Left),
        ("link-local address", Align::Left),
    ]);
    for host in &hosts.hosts {
        table.row([
            host.addr.clone(),
            format!("{} ago", duration(host.solicited_seconds_ago)),
            host.locator.clone(),
            if host.came_back { "yes" } else { "no" }.to_owned(),
            host.link_local.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let Hosts { total, room, .. } = hosts;
    let count = format!("{total} host(s) known, room for {room}");
    if table.is_empty() {
        return format!("{count}\n");
    }
    let shown = hosts.hosts.len();
    let shown = if shown == *total {
        String::new()
    } else {
        format!("{shown} shown of ")
    };
    format!("{table}{shown}{count}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::hosts::HostStatus;

    #[test]
    fn hosts_as_text() {
        let host = HostStatus {
            addr: "10.0.0.5".into(),
            link_local: Some("fe80::5efe:a00:5".into()),
            locator: "10.0.0.1".into(),
            solicited_seconds_ago: 61.2,
            came_back: true,
        };
        let nameless = HostStatus {
            addr: "10.0.10.77".into(),
            link_local: None,
            solicited_seconds_ago: 0.3,
            came_back: false,
            ..host.clone()
        };
        let mut hosts = Hosts {
            hosts: vec![host, nameless],
            total: 2,
            room: 16384,
        };
        let expected = "\
host        solicited  at        came back  link-local address
10.0.0.5    1m01s ago  10.0.0.1  yes        fe80::5efe:a00:5
10.0.10.77   0.3s ago  10.0.0.1  no         -
2 host(s) known, room for 16384
";
        assert_eq!(text(&hosts), expected);
        hosts.hosts.pop();
        assert!(text(&hosts).ends_with("\n1 shown of 2 host(s) known, room for 16384\n"));
        hosts.hosts.pop();
        assert_eq!(text(&hosts), "2 host(s) known, room for 16384\n");
    }
}
