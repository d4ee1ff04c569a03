//! Every corpus, and every input that ever broke a promise, through its target (FAULTS 9, 31, 49, 62).

use std::fs;
use std::path::Path;

use isatap_fuzz::TARGETS;

fn corpora() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

#[test]
fn corpora_are_replayed() {
    for target in TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpora().join(target.name))
            .unwrap_or_else(|error| panic!("no corpus of {}: {error}", target.name))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        inputs.sort();
        assert!(inputs.len() >= 10, "{} has {} inputs", target.name, inputs.len());
        for path in inputs {
            let data = fs::read(&path).expect("an input");
            let run = std::panic::catch_unwind(|| (target.run)(&data));
            assert!(run.is_ok(), "{} breaks {}", path.display(), target.name);
        }
    }
}

#[test]
fn each_corpus_and_program_has_a_target() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    for (dir, suffix) in [(corpora(), ""), (programs.as_path(), ".rs")] {
        let mut found: Vec<_> = fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .map(|name| name.trim_end_matches(suffix).to_owned())
            .collect();
        found.sort();
        let mut wanted: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        wanted.sort();
        assert_eq!(found, wanted, "{}", dir.display());
    }
}

/// Short inputs of every length, and the corpus cut short everywhere near the front: no length is special.
#[test]
fn no_length_is_special() {
    for target in TARGETS {
        for byte in [0, 0x45, 0x60, 0xff] {
            for len in 0..200 {
                (target.run)(&vec![byte; len]);
            }
        }
        for entry in fs::read_dir(corpora().join(target.name))
            .expect("a corpus")
            .take(50)
        {
            let data = fs::read(entry.expect("an entry").path()).expect("an input");
            for len in 0..data.len().min(160) {
                (target.run)(&data[..len]);
            }
        }
    }
}
