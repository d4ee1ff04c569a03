//! The programs of the `ebpf` lane as they are compiled for processors that do reads out of order: what has to stay in order does.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// An atomic operation of 64 bits (BPF_STX, BPF_ATOMIC, BPF_DW) ...
const ATOMIC: u8 = 0xdb;
/// ... whose old value is fetched: only such a one orders what is before and after it (linux/Documentation/bpf).
const FETCH: u8 = 1;
/// Additions of numbers; `x + 0` becomes `x | 0`.
const OR: u8 = 0x40;

#[test]
fn reads_are_kept_apart_by_operations_that_fetch() {
    let missing = env!("ISATAP_BPF_MISSING");
    if !missing.is_empty() {
        eprintln!("not built: {missing}");
        return;
    }
    let dir = env::temp_dir().join(format!("isatapd-order-{}", std::process::id()));
    fs::create_dir(&dir).expect("a directory");
    let object = dir.join("weak.o");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("ebpf/isatap.bpf.c");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut command = Command::new(clang);
    command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-DWEAKLY_ORDERED"]);
    command.arg("-I").arg(env!("OUT_DIR")).arg("-c").arg(source);
    let compiled = command.arg("-o").arg(&object).status().expect("clang");
    let bytes = fs::read(&object);
    fs::remove_dir_all(&dir).expect("its own directory");
    assert!(compiled.success());
    // Code begins at a multiple of 8 in the file, as each instruction does.
    let bytes = bytes.expect("an object");
    let (words, _) = bytes.as_chunks::<8>();
    let count = |kind: u8| {
        let is_it = |word: &&[u8; 8]| word[0] == ATOMIC && word[4..] == [kind, 0, 0, 0];
        words.iter().filter(is_it).count()
    };
    assert_eq!(count(OR), 0, "nothing is ordered by these");
    assert!(count(OR | FETCH) >= 3, "rules of both programs, and neighbours");
}
