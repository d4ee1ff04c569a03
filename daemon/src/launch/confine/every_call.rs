//! Tries system calls under filters, each in a process of its own; for tests of the filters.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use seccompiler::BpfProgram;

use super::calls::{Call, Test, Value};

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Refused,
    Killed,
}

pub(super) type Arguments = [u32; 6];
pub(super) type Attempt = (i64, Arguments);

/// No descriptor, address, process or flag.
pub(super) const NONSENSE: Arguments = [u32::MAX; 6];
/// Beyond the last call of any kernel so far (Linux 6.18 ends below 480).
pub(super) const LAST: i64 = 600;

/// `uretprobe` and `uprobe`: the kernel lets them past every filter (Linux 6.13), since its own trampoline makes them; anywhere
/// else they end in SIGILL.
#[cfg(target_arch = "x86_64")]
pub(super) const OF_THE_KERNEL: &[i64] = &[335, 336];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OF_THE_KERNEL: &[i64] = &[];

/// Makes the calls under these programs, by an interpreter that installs them itself.
pub(super) fn make(programs: &[&BpfProgram], attempts: &[Attempt]) -> Vec<Outcome> {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("perl");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/launch/confine/every_call.pl"));
    command.args([libc::SYS_prctl, libc::SYS_seccomp].map(|number| number.to_string()));
    for (at, program) in programs.iter().enumerate() {
        let bytes = program.iter().flat_map(|step| {
            let [code, k] = [step.code.to_ne_bytes().to_vec(), step.k.to_ne_bytes().to_vec()];
            [code, vec![step.jt, step.jf], k].concat()
        });
        let path = dir.path().join(at.to_string());
        fs::write(&path, bytes.collect::<Vec<_>>()).unwrap();
        command.arg(path);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl is installed");
    let mut input = child.stdin.take().unwrap();
    let lines: String = attempts
        .iter()
        .map(|(number, arguments)| {
            // As ints, so that the interpreter hands over the same 32 bits.
            let words = arguments.map(|argument| argument.cast_signed().to_string());
            format!("{number} {}\n", words.join(" "))
        })
        .collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let outcomes: Vec<_> = text
        .lines()
        .map(|line| match line {
            "allowed" => Outcome::Allowed,
            "refused" => Outcome::Refused,
            "killed" => Outcome::Killed,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(outcomes.len(), attempts.len());
    outcomes
}

/// A call with these arguments, and 0 for the others.
pub(super) fn with_arguments(number: i64, arguments: &[i32]) -> Attempt {
    let mut all = [0; 6];
    for (to, from) in all.iter_mut().zip(arguments) {
        *to = from.cast_unsigned();
    }
    (number, all)
}

/// Whether this attempt is one that a list has.
pub(super) fn is_on<'a>(calls: impl IntoIterator<Item = &'a Call>, attempt: &Attempt) -> bool {
    calls.into_iter().any(|call| matches(call, attempt))
}

fn matches(call: &Call, (number, arguments): &Attempt) -> bool {
    let holds = |test: &Test| {
        let argument = arguments[usize::from(test.argument)] & test.mask;
        match test.value {
            Value::Is(value) => argument == value,
            Value::IsNot(value) => argument != value,
            Value::ThisProcess => false,
        }
    };
    let of_line = |tests: &&[Test]| tests.iter().all(holds);
    call.number == *number && (call.when.is_empty() || call.when.iter().any(of_line))
}
