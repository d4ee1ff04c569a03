//! What monitoring is given: the metrics page, the Grafana dashboard and the Prometheus rules fit together.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use isatap_tests::scene::Opposite;

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
