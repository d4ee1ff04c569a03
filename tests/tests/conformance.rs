//! The conformance table: every requirement of the RFCs, with the tests that cover it or the reason why none does.
//!
//! The requirements are listed in `tests/requirements.tsv`: id, level, role, source, text, and a note where one is needed.
//! The table is kept in `tests/CONFORMANCE.md` and must be what the sources say; `UPDATE_TABLES=1 cargo test -p isatap-tests
//! --test conformance` writes it.

use std::fmt::Write as _;
use std::fs;

use isatap_tests::coverage::{coverage, top};

const SECTIONS: [(char, &str); 10] = [
    ('A', "Addresses and locators"),
    ('P', "Router list and router discovery"),
    ('V', "Router advertisements received, and autoconfiguration"),
    ('T', "Router advertisements sent"),
    ('E', "Encapsulation, next hop, IPv4 header"),
    ('M', "MTU and fragmentation"),
    ('D', "Decapsulation and source verification"),
    ('N', "ICMP, neighbour discovery, unreachability"),
    ('C', "ECN and DSCP"),
    ('L', "Loops and security"),
];

#[derive(Debug)]
struct Requirement {
    id: String,
    level: String,
    role: String,
    source: String,
    text: String,
    note: String,
}

fn requirements() -> Vec<Requirement> {
    let text = fs::read_to_string(top().join("tests/requirements.tsv")).expect("the list of requirements");
    let row = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut next = || columns.next().unwrap_or_else(|| panic!("six columns: {line}"));
        Requirement {
            id: next(),
            level: next(),
            role: next(),
            source: next(),
            text: next(),
            note: next(),
        }
    };
    text.lines().map(row).collect()
}

/// The table, and the ids that have neither a test nor a reason.
fn table() -> (String, Vec<String>) {
    let covered = coverage();
    let mut open = Vec::new();
    let mut text = String::from(
        "# Conformance\n\nEvery requirement of an ISATAP node with the tests that cover it, by file and name; `5214 §7.3` \
         is RFC 5214 section 7.3.\nWritten from the sources by `tests/tests/conformance.rs`, which also checks that it is up to date.\n",
    );
    let requirements = requirements();
    for (group, title) in SECTIONS {
        let _ = write!(
            text,
            "\n## {title}\n\n| id | level | role | requirement | source | tests |\n|---|---|---|---|---|---|\n"
        );
        for one in requirements.iter().filter(|one| one.id.starts_with(group)) {
            let tests = covered.get(&one.id).map(Vec::as_slice).unwrap_or_default();
            if tests.is_empty() && one.note.is_empty() {
                open.push(one.id.clone());
            }
            let names = tests.iter().map(|name| format!("`{name}`"));
            let note = Some(one.note.clone()).filter(|note| !note.is_empty());
            let cell: Vec<_> = note.into_iter().chain(names).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                one.id,
                one.level,
                one.role,
                one.text.replace('|', "\\|"),
                one.source,
                cell.join(" ")
            );
        }
    }
    (text, open)
}

#[test]
fn every_requirement_has_a_test_or_a_reason() {
    let (text, open) = table();
    println!("{text}");
    assert!(
        open.is_empty(),
        "neither a test names these requirements nor a note says why: {open:?}"
    );
    let path = top().join("tests/CONFORMANCE.md");
    if std::env::var_os("UPDATE_TABLES").is_some() {
        fs::write(&path, &text).expect("write the table");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "tests/CONFORMANCE.md is not what the sources say; write it with UPDATE_TABLES=1 cargo test -p isatap-tests --test conformance"
    );
}

#[test]
fn the_list_is_well_formed() {
    let requirements = requirements();
    for (at, one) in requirements.iter().enumerate() {
        assert!(
            SECTIONS.iter().any(|(group, _)| one.id.starts_with(*group)),
            "{one:?}"
        );
        assert!(
            requirements[..at].iter().all(|other| other.id != one.id),
            "twice: {}",
            one.id
        );
        assert!(!one.text.is_empty() && !one.source.is_empty(), "{one:?}");
    }
}
