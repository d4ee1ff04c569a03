//! Which test covers what: the ids that the comments and names of tests mention, found in the sources.
//!
//! A test covers the requirement `P15` when the comment above it, a comment within it, or the beginning of its name
//! (`p15_...`) says so, and fault 24 when a comment says `FAULTS 24`, also in a list (`FAULTS 21-23, 25`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The id of a fault in the result of [`coverage`].
pub fn fault(number: u32) -> String {
    format!("FAULTS {number}")
}

/// The top of the workspace.
///
/// # Panics
/// When it is not there.
pub fn top() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    top.canonicalize().expect("the top of the workspace")
}

/// Id to the tests that mention it, as `file::test`, in the order of the files.
///
/// # Panics
/// When a source cannot be read.
pub fn coverage() -> BTreeMap<String, Vec<String>> {
    let mut files = Vec::new();
    for folder in ["engine", "daemon", "tests"] {
        rust_files(&top().join(folder), &mut files);
    }
    files.sort();
    // Its own examples cover nothing.
    files.retain(|path| !path.ends_with("tests/src/coverage.rs"));
    let mut covered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("read a source");
        let path = path.strip_prefix(top()).expect("below the top");
        let Some(from) = tests_from(path, &text) else {
            continue;
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

/// Where the tests of a file begin.
fn tests_from(path: &Path, text: &str) -> Option<usize> {
    let is_test_file = path.components().any(|part| part.as_os_str() == "tests")
        || path
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    text.find("#[cfg(test)]").or(is_test_file.then_some(0))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("read a folder of the source");
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
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

/// A test with every id that its name and comments mention.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    ids: Vec<String>,
}

fn tests_of(text: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    let (mut above, mut marked) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            // A list may go on in the next line.
            above.push_str(comment);
        } else if line.starts_with("#[test]")
            || line.starts_with("#[rstest]")
            || line.starts_with("#[tokio::test")
        {
            marked = true;
        } else if let Some(rest) = line
            .strip_prefix("fn ")
            .or_else(|| line.strip_prefix("async fn "))
        {
            // `fn $name` in a macro stands for several tests.
            let name = match rest.split(['(', '<']).next().unwrap_or(rest) {
                name if name.starts_with('$') => "(several)".to_owned(),
                name => name.to_owned(),
            };
            let mut ids = ids_of(&std::mem::take(&mut above));
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

/// The ids a comment mentions. `DESIGN D3` is a decision and no requirement.
fn ids_of(comment: &str) -> Vec<String> {
    let mut ids = faults_of(comment);
    let words: Vec<&str> = comment
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let design = |at: usize| at > 0 && words[at - 1] == "DESIGN";
    let found = (0..words.len()).filter(|at| is_requirement(words[*at]) && !design(*at));
    ids.extend(found.map(|at| words[at].to_owned()));
    ids
}

fn is_requirement(word: &str) -> bool {
    let mut letters = word.chars();
    let group = letters.next().is_some_and(|first| "APVTEMDNCL".contains(first));
    group && (2..=3).contains(&word.len()) && letters.all(|letter| letter.is_ascii_digit())
}

/// The numbers behind each `FAULTS`: `21-23, 25 and 26`.
fn faults_of(comment: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for list in comment.split("FAULTS").skip(1) {
        for item in list.replace(" and ", ", ").split(',') {
            let digits = |text: &str| text.trim().parse::<u32>().ok();
            let item = item.trim_end_matches(|c: char| !c.is_ascii_digit()).trim();
            // Text after the list ends it, but for what the number itself is followed by.
            let number = item.split([' ', '.', ':', ';', ')']).next().unwrap_or_default();
            let bounds = match number.split_once('-') {
                Some((low, high)) => digits(low).zip(digits(high)),
                None => digits(number).map(|number| (number, number)),
            };
            let Some((low, high)) = bounds else { break };
            ids.extend((low..=high).map(fault));
            if number.len() < item.len() {
                break;
            }
        }
    }
    ids
}

/// `p12_p15_two_routers` covers P12 and P15.
fn ids_of_name(name: &str) -> Vec<String> {
    name.split('_')
        .map(str::to_uppercase)
        .take_while(|part| is_requirement(part))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
                ids: ["FAULTS 4", "P8", "P8", "V2", "N3"].map(str::to_owned).to_vec(),
            }]
        );
    }

    #[test]
    fn lists_of_faults() {
        for (comment, expected) in [
            ("FAULTS 21-23, 25: unreachable", vec![21, 22, 23, 25]),
            ("FAULTS 9 and 10. In 7 ways", vec![9, 10]),
            ("D7 and FAULTS 6: not even 5", vec![6]),
            ("M4, FAULTS 24, 25", vec![24, 25]),
            ("see FAULTS", vec![]),
            ("(FAULTS 31) or FAULTS 8, D5", vec![31, 8]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(fault).collect();
            assert_eq!(faults_of(comment), expected, "{comment}");
        }
    }
}
