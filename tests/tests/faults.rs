//! The table of attacks and faults: what a tunnel daemon meets in the field, with the tests that try it.
//!
//! The faults are listed in `tests/faults.tsv`: number, group, what happens, what is required, and a note with a figure or
//! why there is no test. The table is kept in `tests/FAULTS.md` and must be what the sources say; `UPDATE_TABLES=1 cargo
//! test -p isatap-tests --test faults` writes it.

use std::fmt::Write as _;
use std::fs;

use isatap_tests::coverage::{coverage, fault, top};

const GROUPS: [(&str, &str); 6] = [
    ("A", "Hostile packets from the IPv4 network"),
    ("B", "Packets out"),
    ("C", "Workers"),
    ("D", "io_uring"),
    ("E", "Control plane"),
    ("F", "Process and host"),
];

const HEAD: &str = "# Attacks and faults\n\nWhat reaches a tunnel daemon in the field, what is required of it, and the \
tests that try it, by file and name.\nEvery test with a daemon ends by comparing its counters: received = delivered + \
punted + drops by reason, in both directions.\nWritten from the sources by `tests/tests/faults.rs`, which also checks that \
it is up to date.\n";

fn table() -> (String, Vec<String>) {
    let covered = coverage();
    let text = fs::read_to_string(top().join("tests/faults.tsv")).expect("the list of faults");
    let rows: Vec<[&str; 5]> = text
        .lines()
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            columns
                .try_into()
                .unwrap_or_else(|_| panic!("five columns: {line}"))
        })
        .collect();
    let mut open = Vec::new();
    let mut table = HEAD.to_owned();
    for (at, [number, ..]) in rows.iter().enumerate() {
        assert_eq!(number.parse(), Ok(at + 1), "numbers follow each other");
    }
    for (group, title) in GROUPS {
        let _ = write!(
            table,
            "\n## {title}\n\n| no. | what happens | what is required | tests, figures |\n|---|---|---|---|\n"
        );
        for [number, _, what, required, note] in rows.iter().filter(|row| row[1] == group) {
            let id = fault(number.parse().expect("a number"));
            let tests = covered.get(&id).map(Vec::as_slice).unwrap_or_default();
            if tests.is_empty() && note.is_empty() {
                open.push(id);
            }
            let names = tests.iter().map(|name| format!("`{name}`"));
            let note = (!note.is_empty()).then(|| (*note).to_owned());
            let cell: Vec<_> = note.into_iter().chain(names).collect();
            let _ = writeln!(table, "| {number} | {what} | {required} | {} |", cell.join(" "));
        }
    }
    (table, open)
}

#[test]
fn every_fault_has_a_test_or_a_reason() {
    let (text, open) = table();
    let path = top().join("tests/FAULTS.md");
    if std::env::var_os("UPDATE_TABLES").is_some() {
        fs::write(&path, &text).expect("write the table");
    }
    assert!(
        open.is_empty(),
        "neither a test names these faults nor a note says why: {open:?}"
    );
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "tests/FAULTS.md is not what the sources say; write it with UPDATE_TABLES=1 cargo test -p isatap-tests --test faults"
    );
}
