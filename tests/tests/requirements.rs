//! Which tests cover which requirement: the ids that the comments and names of tests mention, as a table.
//!
//! The requirements, from the RFCs, are listed in `tests/requirements.tsv`: id, source, text. A test covers an id when
//! the comment above it, a comment within it, or the beginning of its name (`p15_...`) has it.
//! `cargo test -p isatap-tests --test requirements -- --nocapture` shows the table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Groups of ids, by their letter with bounds, that must have tests: addresses and locators, PRL and discovery, RA
/// processing, encapsulation, reachability and ICMP, congestion, loops.
const REQUIRED: [(char, u32, u32); 7] = [
    ('A', 1, 9),
    ('P', 1, 16),
    ('V', 1, 12),
    ('E', 1, 9),
    ('N', 1, 10),
    ('C', 1, 6),
    ('L', 1, 3),
];

#[derive(Debug)]
struct Requirement {
    id: String,
    source: String,
    text: String,
}

fn top() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    top.canonicalize().expect("the top of the workspace")
}

fn requirements() -> Vec<Requirement> {
    let text = fs::read_to_string(top().join("tests/requirements.tsv")).expect("the list of requirements");
    let row = |line: &str| {
        let mut columns = line.splitn(3, '\t').map(str::to_owned);
        Requirement {
            id: columns.next().expect("an id"),
            source: columns.next().expect("a source"),
            text: columns.next().expect("a text"),
        }
    };
    text.lines().map(row).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder)
        .expect("read a folder of the source")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A test with every word of its name and comments that may be an id.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    ids: Vec<String>,
}

/// The ids a comment mentions. `DESIGN D3` is a decision and no requirement.
fn ids_of(comment: &str) -> Vec<String> {
    let words: Vec<&str> = comment
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let is_id = |word: &str| {
        let mut letters = word.chars();
        let group = letters.next().is_some_and(|first| "APVTEMDNCL".contains(first));
        group && (2..=3).contains(&word.len()) && letters.all(|letter| letter.is_ascii_digit())
    };
    let design = |at: usize| at > 0 && words[at - 1] == "DESIGN";
    (0..words.len())
        .filter(|at| is_id(words[*at]) && !design(*at))
        .map(|at| words[at].to_owned())
        .collect()
}

/// `p12_p15_two_routers` covers P12 and P15.
fn ids_of_name(name: &str) -> Vec<String> {
    name.split('_')
        .map(str::to_uppercase)
        .take_while(|part| !ids_of(part).is_empty())
        .collect()
}

fn tests_of(text: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    let (mut above, mut marked) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            above.extend(ids_of(comment));
        } else if line.starts_with("#[test]")
            || line.starts_with("#[rstest]")
            || line.starts_with("#[tokio::test")
        {
            marked = true;
        } else if let Some(rest) = line
            .strip_prefix("fn ")
            .or_else(|| line.strip_prefix("async fn "))
        {
            let name = rest.split(['(', '<']).next().unwrap_or(rest).to_owned();
            let mut ids = std::mem::take(&mut above);
            ids.extend(ids_of_name(&name));
            // A helper that several tests share is named like them, or speaks for itself.
            if marked || !ids.is_empty() || line.contains("lane: Lane") {
                tests.push(Test { name, ids });
            }
            marked = false;
        } else if let Some(comment) = line.strip_prefix("//") {
            if let Some(test) = tests.last_mut() {
                test.ids.extend(ids_of(comment));
            }
        } else if !line.starts_with('#') && !line.is_empty() && !marked {
            above.clear();
        }
    }
    tests.retain(|test| !test.ids.is_empty());
    tests
}

/// Id to the tests that mention it, as `file::test`.
fn coverage() -> BTreeMap<String, Vec<String>> {
    let mut files = Vec::new();
    for folder in ["engine", "daemon", "tests"] {
        rust_files(&top().join(folder), &mut files);
    }
    files.sort();
    // Its own examples cover nothing.
    files.retain(|path| !path.ends_with("tests/tests/requirements.rs"));
    let mut covered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("read a source");
        let path = path.strip_prefix(top()).expect("below the top");
        let is_test_file = path.components().any(|part| part.as_os_str() == "tests")
            || path
                .file_stem()
                .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        let from = match text.find("#[cfg(test)]") {
            Some(at) => at,
            None if is_test_file => 0,
            None => continue,
        };
        let file = shown(path);
        for test in tests_of(&text[from..]) {
            for id in test.ids {
                let entry = covered.entry(id).or_default();
                let name = format!("{file}::{}", test.name);
                if !entry.contains(&name) {
                    entry.push(name);
                }
            }
        }
    }
    covered
}

/// The file without its extension; `tests.rs` goes by its folder.
fn shown(path: &Path) -> String {
    let path = match path.file_stem() {
        Some(stem) if stem == "tests" => path.parent().unwrap_or(path),
        _ => path,
    };
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[test]
fn every_required_group_has_tests() {
    let covered = coverage();
    let mut missing = Vec::new();
    for requirement in requirements() {
        let tests = covered
            .get(&requirement.id)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let shown = match tests {
            [] => "-".to_owned(),
            tests => tests.join(" "),
        };
        println!(
            "{:4} {:24} {}\n       {shown}",
            requirement.id, requirement.source, requirement.text
        );
        let number = requirement.id[1..].parse::<u32>().expect("a number");
        let required = REQUIRED
            .iter()
            .any(|(group, from, to)| requirement.id.starts_with(*group) && (*from..=*to).contains(&number));
        if required && tests.is_empty() {
            missing.push(requirement.id);
        }
    }
    assert!(
        missing.is_empty(),
        "no test names these requirements: {missing:?}"
    );
}

#[test]
fn ids_are_found_where_tests_name_them() {
    let text = r#"
/// P8: asked ever more slowly (DESIGN D7). FAULTS 4.
#[test]
fn p8_a_silent_router() {
    // V2, N3 as well.
}

/// Not a test of A1.
const X: u8 = 1;

#[test]
fn nothing() {}
"#;
    assert_eq!(
        tests_of(text),
        [Test {
            name: "p8_a_silent_router".to_owned(),
            ids: ["P8", "P8", "V2", "N3"].map(str::to_owned).to_vec(),
        }]
    );
}
