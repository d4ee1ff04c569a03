//! Engine times without system calls (DESIGN P7, P8), from the estimates that `make bench` left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The medians that targets are about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Engine {
    pub(crate) encap_ns: f64,
    pub(crate) decap_ns: f64,
    /// Large tables against one of each, the worst of all directions and destinations.
    pub(crate) large_ratio: Option<f64>,
    /// When, UTC.
    pub(crate) taken: String,
}

const DIRECTIONS: [&str; 2] = ["encap", "decap"];
/// As criterion names folders; shapes of 64 bytes of data, where headers are all there is.
const DESTINATIONS: [&str; 2] = ["on-link", "routed"];

/// Reads what is below `folder` (`target/criterion`); `None` when P7 was not measured there.
pub(crate) fn read(folder: &Path) -> Option<Engine> {
    let time = |direction: &str, size: &str, destination: &str| {
        let bench = find(&folder.join(direction), &format!("{size}_{destination}"))?;
        estimate(&fs::read_to_string(bench.join("new/estimates.json")).ok()?)
    };
    let ratios = DIRECTIONS.iter().flat_map(|direction| {
        DESTINATIONS
            .iter()
            .filter_map(|to| Some(time(direction, "large", to)? / time(direction, "one", to)?))
    });
    let worst = ratios.fold(None, |worst: Option<f64>, ratio| {
        Some(worst.map_or(ratio, |worst| worst.max(ratio)))
    });
    let newest = find(&folder.join("encap"), "one_on-link")?.join("new/estimates.json");
    Some(Engine {
        encap_ns: time("encap", "one", "on-link")?,
        decap_ns: time("decap", "one", "on-link")?,
        large_ratio: worst,
        taken: modified(&newest),
    })
}

/// The folder of the bench with small packets whose name begins so.
fn find(folder: &Path, prefix: &str) -> Option<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with(prefix))
        })
        .collect();
    found.sort_by_key(|path| size_in(path));
    found.into_iter().next()
}

/// The number a name ends with before its unit; the smallest is the small packet.
fn size_in(path: &Path) -> u64 {
    let name = path.to_string_lossy();
    let last = name.rsplit('_').next().unwrap_or_default();
    let digits: String = last.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u64::MAX)
}

fn estimate(text: &str) -> Option<f64> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("median")?.get("point_estimate")?.as_f64()
}

fn modified(path: &Path) -> String {
    let shown = Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M", "-r"])
        .arg(path)
        .output();
    shown.map_or_else(
        |_| "of an unknown day".into(),
        |output| format!("of {}", String::from_utf8_lossy(&output.stdout).trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_found_by_folder() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, ns: f64| {
            let path = folder.path().join(path).join("new");
            fs::create_dir_all(&path).unwrap();
            let text = format!("{{\"median\":{{\"point_estimate\":{ns}}}}}");
            fs::write(path.join("estimates.json"), text).unwrap();
        };
        assert_eq!(read(folder.path()), None);
        put("encap/one_on-link_64 B", 20.0);
        put("encap/one_on-link_1400 B", 99.0);
        put("encap/large_on-link_64 B", 30.0);
        put("decap/one_on-link_64 B", 30.0);
        put("decap/large_on-link_64 B", 90.0);
        let engine = read(folder.path()).unwrap();
        assert_eq!((engine.encap_ns, engine.decap_ns), (20.0, 30.0));
        assert_eq!(engine.large_ratio, Some(3.0));
    }
}
