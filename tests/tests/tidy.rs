//! What lints cannot check: module arrows, the home of `unsafe`, what the packet path must not touch, drop reasons
//! without a test, file lengths, and words that say a thing is not done (STYLE sections 1, 5, 9, 10).

use std::fs;
use std::path::{Path, PathBuf};

use isatap_engine::reason::DropReason;

/// A module of the engine uses only those to its left (DESIGN section 1).
const ARROWS: [&str; 6] = ["wire", "isatap", "fib", "offload", "path", "worker"];
/// These decide; they touch no socket, clock, allocator or log.
const PURE: [&str; 5] = ["wire", "isatap", "fib", "offload", "path"];
/// Where `unsafe` lives. `costs` measures ways of the kernel that no lane uses.
const UNSAFE_HOMES: [&str; 3] = ["engine/src/io/", "engine/src/buf/", "bench/src/costs/"];
const FORBIDDEN_WHERE_PURE: [&str; 12] = [
    "libc::",
    "nix::",
    "std::net::Udp",
    "std::net::Tcp",
    "std::fs",
    "std::io",
    "std::time::Instant",
    "SystemTime",
    "println!",
    "tracing::",
    "log::",
    "std::thread",
];
/// These decide for each packet and never allocate; `fib` allocates while building.
const NO_ALLOCATION: [&str; 4] = ["wire", "isatap", "offload", "path"];
const ALLOCATES: [&str; 7] = [
    "Vec::new",
    "vec![",
    "Box::new",
    "String::",
    "format!",
    ".to_vec()",
    ".to_owned()",
];
const LONG_FILE: usize = 400;
const TOO_LONG_FILE: usize = 600;

struct Source {
    /// Path from the top of the workspace.
    path: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers: no comments, and nothing from the unit tests at the end of the file on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .map(|(number, line)| (number, line.split("//").next().unwrap_or("")))
    }

    /// The engine's module this file belongs to.
    fn module(&self) -> Option<&str> {
        self.path.strip_prefix("engine/src/")?.split(['/', '.']).next()
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("/testing.rs")
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn sources() -> Vec<Source> {
    let top = top();
    let mut found = Vec::new();
    for part in ["engine", "daemon", "bench", "perf", "tests"] {
        collect(&top, &top.join(part), &mut found);
    }
    assert!(found.len() > 20, "the sources are not where they were");
    found
}

fn collect(top: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(top, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let path = path
                .strip_prefix(top)
                .expect("below the top")
                .display()
                .to_string();
            found.push(Source { path, text });
        }
    }
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Names of modules that a line reaches by `crate::`, braces included: `use crate::{fib::X, wire};`.
fn reached(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (index, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    ',' | '}' if depth == 0 => {
                        names.push(&list[start..index]);
                        start = index + 1;
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
            names.push(&list[start..]);
        } else {
            names.push(rest);
        }
    }
    let first = |name: &'_ str| {
        name.trim().len()
            - name
                .trim()
                .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                .len()
    };
    names
        .into_iter()
        .map(|name| &name.trim()[..first(name)])
        .collect()
}

/// Statements instead of lines, so that a `use` over several lines counts.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in source.code() {
        if open {
            all.last_mut().expect("an open statement").1.push_str(line);
        } else {
            all.push((number, line.to_owned()));
        }
        let statement = &all.last().expect("just pushed").1;
        open = statement.contains("use crate::{") && !statement.contains(';');
    }
    all
}

#[test]
fn modules_know_only_those_to_their_left() {
    assert_eq!(
        reached("use crate::{fib::{Role, Locator}, wire}; crate::path::x"),
        ["fib", "wire", "", "path"]
    );
    let mut faults = Vec::new();
    for source in sources() {
        let Some(own) = source
            .module()
            .and_then(|module| ARROWS.iter().position(|name| *name == module))
        else {
            continue;
        };
        for (number, statement) in statements(&source) {
            for name in reached(&statement) {
                let right = ARROWS
                    .iter()
                    .position(|module| *module == name)
                    .is_some_and(|other| other > own);
                let aside = own < ARROWS.len() - 1 && ["io", "buf"].contains(&name);
                if right || aside {
                    faults.push(format!(
                        "{}:{number}: {} reaches into {name}",
                        source.path, ARROWS[own]
                    ));
                }
            }
        }
    }
    none(&faults);
}

/// Whether the word is part of a sentence: `unsafe` as a keyword is followed by a block or an item.
fn in_text(code: &str) -> bool {
    let mut after = code.split("unsafe").skip(1).map(str::trim_start);
    after.all(|rest| {
        !["{", "fn ", "impl ", "extern ", "trait ", "(", "mut "]
            .iter()
            .any(|item| rest.starts_with(item))
    }) && !code.trim_end().ends_with("unsafe")
}

#[test]
fn unsafe_lives_in_io_and_buf() {
    let mut faults = Vec::new();
    for source in sources() {
        if UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home))
            || source.path == "tests/tests/tidy.rs"
        {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.into_iter().any(|word| word == "unsafe") && !in_text(code) {
                faults.push(format!(
                    "{}:{}: unsafe outside of io and buf",
                    source.path,
                    index + 1
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_deciding_modules_touch_no_io_clock_or_log() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        if source.is_test() || !PURE.contains(&module) {
            continue;
        }
        for (number, line) in source.code() {
            let mut forbidden: Vec<&str> = FORBIDDEN_WHERE_PURE.to_vec();
            if NO_ALLOCATION.contains(&module) {
                forbidden.extend(ALLOCATES);
            }
            for word in forbidden {
                if line.contains(word) {
                    faults.push(format!("{}:{number}: {module} uses {word}", source.path));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn every_drop_reason_is_named_by_a_test() {
    let mut tests = String::new();
    for source in sources() {
        if source.path == "tests/tests/tidy.rs" || source.path == "engine/src/reason.rs" {
            continue;
        }
        if source.is_test() {
            tests.push_str(&source.text);
        } else if let Some(at) = source.text.find("#[cfg(test)]") {
            tests.push_str(&source.text[at..]);
        }
    }
    let named = |reason: &&DropReason| {
        let variant = format!("DropReason::{reason:?}");
        let short = format!("Reason::{reason:?}");
        tests.contains(&variant)
            || tests.contains(&short)
            || tests.contains(&format!("\"{}\"", reason.name()))
    };
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| !named(reason))
        .map(|r| r.name())
        .collect();
    assert!(missing.is_empty(), "drop reasons that no test names: {missing:?}");
}

#[test]
fn files_have_one_purpose_that_fits() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > TOO_LONG_FILE {
            faults.push(format!("{}: {lines} lines; where is the seam?", source.path));
        } else if lines > LONG_FILE {
            eprintln!("warning: {}: {lines} lines", source.path);
        }
        if !source.text.starts_with("//!") {
            faults.push(format!(
                "{}: the first line does not say what the file is for",
                source.path
            ));
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_left_for_later_in_silence() {
    // Put together here, so that this file does not find itself.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["unimple", "mented!"].concat(),
    ];
    let ignored = ["#[ign", "ore"].concat();
    let mut faults = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            // A test that another one runs in a process of its own is not left out.
            let left_out = line.contains(&ignored) && !line.contains("\"run by ");
            if words.iter().any(|word| line.contains(word)) || left_out {
                faults.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    none(&faults);
}

/// FAULTS 69: a step of the machine's clock changes no timer, since wall-clock time is read for what people and other
/// programs are shown alone: captures, the stream of the page, log files of histograms.
#[test]
fn wall_clock_time_is_for_showing() {
    const SHOWN: [&str; 5] = [
        "engine/src/capture/",
        "daemon/src/ops/capture/",
        "daemon/src/ops/live.rs",
        "daemon/src/ctl/",
        "daemon/src/launch/log/",
    ];
    let mut faults = Vec::new();
    for source in sources().into_iter().filter(|source| !source.is_test()) {
        let part_of_daemon = ["engine/src/", "daemon/src/"]
            .iter()
            .any(|part| source.path.starts_with(part));
        if !part_of_daemon || SHOWN.iter().any(|shown| source.path.starts_with(shown)) {
            continue;
        }
        for (number, line) in source.code() {
            if line.contains("SystemTime") || line.contains("CLOCK_REALTIME") {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(&faults);
}
