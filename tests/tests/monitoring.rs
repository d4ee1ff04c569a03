//! What monitoring is given: the metrics page, the Grafana dashboard and the Prometheus rules fit together.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping;
use isatap_tests::scene::Opposite;
use isatap_tests::topology::Site;

fn dashboards() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../perf/dashboards")
}

fn read(name: &str) -> String {
    fs::read_to_string(dashboards().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn scrape() -> String {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let (status, text) = daemon.http("/metrics").expect("a scrape");
    assert_eq!(status, 200);
    text
}

/// Runs promtool with `input` on its standard input.
fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(dashboards())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool ({error}); run tests/setup.sh"));
    let mut stdin = child.stdin.take().expect("its standard input");
    // It may have ended already without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("wait for promtool");
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Every word of `text` that is the name of one of our metrics, or looks like it.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words
        .filter(|word| word.starts_with("isatapd_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_query_names_a_metric_that_is_there() {
    let mut scraped = names(&scrape());
    // A counter whose labels are not known beforehand has its description alone.
    scraped.extend(scraped.clone().iter().map(|name| format!("{name}_total")));
    assert!(scraped.contains("isatapd_packets_total"), "{scraped:?}");
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 20, "only {} queries", queries.len());
    for text in queries
        .iter()
        .map(String::as_str)
        .chain([read("rules.yml").as_str()])
    {
        let unknown: Vec<_> = names(text).difference(&scraped).cloned().collect();
        assert!(unknown.is_empty(), "{unknown:?} in {text}");
    }
}

/// The queries of a dashboard, wherever they stand.
fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            queries.extend(
                fields
                    .get("expr")
                    .and_then(|query| query.as_str())
                    .map(str::to_owned),
            );
            fields.values().for_each(|field| collect(field, queries));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

fn queries() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 20, "only {} queries", queries.len());
    queries
}

/// Each query of the dashboard as a rule of its own, with Grafana's variables filled in.
fn as_rules(queries: &[String]) -> String {
    let mut text = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (at, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "1m").replace("$instance", ".*");
        text += &format!("  - record: query:{at}\n    expr: {}\n", serde_json::json!(query));
    }
    text
}

#[test]
fn promtool_finds_nothing() {
    let rules = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(rules.path(), as_rules(&queries())).expect("write rules");
    promtool(&["check", "rules", rules.path().to_str().expect("a path")], "");
    promtool(&["check", "metrics"], &scrape());
    promtool(&["check", "rules", "rules.yml"], "");
    promtool(&["test", "rules", "rules_test.yml"], "");
}

/// The dashboard marks when an engine was exchanged, for whatever reason and whether its version is another one or not: its workers
/// begin to count anew.
#[test]
fn exchanges_are_marked() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
    let marks = dashboard["annotations"]["list"][0]["expr"]
        .as_str()
        .expect("a query");
    let expr = serde_json::json!(format!("count({})", marks.replace("$instance", ".*")));
    let mut input = String::new();
    for (instance, versions, syscalls) in [
        (
            "upgraded",
            &[("1", "1x19 stale"), ("2", "_x20 1x40")][..],
            "900+10x19 5+10x40",
        ),
        ("crashed", &[("1", "1x60")], "900+10x19 5+10x40"),
        ("steady", &[("1", "1x60")], "900+10x60"),
    ] {
        let labels = format!("instance=\"{instance}\",job=\"isatapd\"");
        for (version, values) in versions {
            input += &format!(
                "      - {{series: 'isatapd_build_info{{{labels},version=\"{version}\"}}', values: '{values}'}}\n"
            );
        }
        for worker in 0..2 {
            input += &format!(
                "      - {{series: 'isatapd_syscalls_total{{{labels},worker=\"{worker}\"}}', values: '{syscalls}'}}\n"
            );
        }
    }
    let text = format!(
        "evaluation_interval: 30s\ntests:\n  - interval: 30s\n    input_series:\n{input}    promql_expr_test:\n      \
         - {{expr: {expr}, eval_time: 9m30s, exp_samples: []}}\n      \
         - {{expr: {expr}, eval_time: 10m30s, exp_samples: [{{labels: '{{}}', value: 2}}]}}\n      \
         - {{expr: {expr}, eval_time: 20m, exp_samples: []}}\n"
    );
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), &text).expect("write a test of queries");
    promtool(&["test", "rules", file.path().to_str().expect("a path")], "");
}

/// The samples of a scrape: series as it stands there, and its value.
fn samples(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Two scrapes of one machine as series that go on as they went from the first to the second.
fn as_series(instance: &str, before: &str, after: &str) -> String {
    let before = samples(before);
    let mut text = String::new();
    for (series, value) in samples(after) {
        let labels = format!("instance=\"{instance}\",job=\"isatapd\"");
        let named = match series.split_once('{') {
            Some((name, rest)) => format!("{name}{{{labels},{rest}"),
            None => format!("{series}{{{labels}}}"),
        };
        let first = before
            .iter()
            .find(|(name, _)| *name == series)
            .map_or(0.0, |(_, value)| *value);
        let step = value - first;
        let sign = if step < 0.0 { "" } else { "+" };
        text += &format!("      - {{series: '{named}', values: '{first}{sign}{step}x40'}}\n");
    }
    text
}

/// What a sum of counters over all machines grows by between two scrapes.
fn growth(scrapes: &[[String; 2]], name: &str, label: &str) -> f64 {
    let sum = |text: &String| -> f64 {
        let ours = samples(text).into_iter();
        ours.filter(|(series, _)| series.starts_with(&format!("{name}{{")) && series.contains(label))
            .map(|(_, value)| value)
            .sum()
    };
    scrapes
        .iter()
        .map(|[before, after]| sum(after) - sum(before))
        .sum()
}

/// The rules add up what three real routers say, however many workers each has.
#[test]
fn the_rules_aggregate_a_fleet() {
    let site = Site::new();
    let spaces: Vec<_> = (1..=3)
        .map(|number| site.member(&format!("r{number}"), number))
        .collect();
    let address = |number: u8| std::net::Ipv4Addr::new(10, 0, 0, number);
    let routers: Vec<_> = (1..=3)
        .zip(&spaces)
        .map(|(number, ns)| {
            Daemon::router(ns, address(number))
                .workers(usize::from(number))
                .start()
        })
        .collect();
    routers.iter().for_each(Daemon::wait_ready);
    assert!(routers[2].ctl("drain").status.success());
    let page = |router: &Daemon<'_>| router.http("/metrics").expect("a scrape").1;
    let before: Vec<_> = routers.iter().map(page).collect();
    for (from, to) in [(0, 2), (1, 3), (2, 1)] {
        ping(&spaces[from], &format!("{}%{TUNNEL}", link_local(address(to))), 7);
    }
    let after = routers.iter().map(|router| {
        router.conservation();
        page(router)
    });
    let scrapes: Vec<[String; 2]> = before
        .into_iter()
        .zip(after)
        .map(|(before, after)| [before, after])
        .collect();

    let mut input = String::new();
    for (number, [before, after]) in (1..).zip(&scrapes) {
        input +=
            &format!("      - {{series: 'up{{instance=\"r{number}\",job=\"isatapd\"}}', values: '1x40'}}\n");
        input += &as_series(&format!("r{number}"), before, after);
    }
    let mut expected = String::new();
    let mut expect = |expr: &str, labels: &str, value: f64| {
        expected += &format!(
            "      - {{expr: '{expr}', eval_time: 15m, exp_samples: [{{labels: '{labels}', value: {value}}}]}}\n"
        );
    };
    for direction in ["encap", "decap"] {
        let label = format!("direction=\"{direction}\"");
        let packets = growth(&scrapes, "isatapd_packets_total", &label);
        assert!(packets >= 42.0, "{packets} {direction}");
        let bytes = growth(&scrapes, "isatapd_bytes_total", &label);
        // A scrape in half a minute; whole numbers, since promtool compares to the last digit.
        for (rule, sum) in [
            ("isatapd:packets:rate2m", packets),
            ("isatapd:bits:rate2m", 8.0 * bytes),
        ] {
            expect(
                &format!("round(30 * {rule}{{{label}}})"),
                &format!("{{{label}}}"),
                sum,
            );
        }
    }
    expect(
        "job:isatapd_routers_ready:count",
        "job:isatapd_routers_ready:count{job=\"isatapd\"}",
        2.0,
    );
    expect(
        "job:isatapd_routers_known:count",
        "job:isatapd_routers_known:count{job=\"isatapd\"}",
        3.0,
    );
    let text = format!(
        "rule_files: [{}]\nevaluation_interval: 30s\ntests:\n  - interval: 30s\n    input_series:\n{input}    \
         promql_expr_test:\n{expected}    alert_rule_test:\n      - {{eval_time: 15m, alertname: IsatapdNotReady}}\n      \
         - {{eval_time: 15m, alertname: IsatapdOneRouterLeft}}\n",
        dashboards().join("rules.yml").display()
    );
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), &text).expect("write a test of rules");
    promtool(&["test", "rules", file.path().to_str().expect("a path")], "");
}
