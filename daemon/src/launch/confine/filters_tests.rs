//! Every system call there is, tried under the filters of each kind of thread; the lists on other processors, and in the
//! documentation.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Allowed,
    Refused,
    Killed,
}

type Arguments = [u32; 6];
type Attempt = (i64, Arguments);

/// No descriptor, address, process or flag.
const NONSENSE: Arguments = [u32::MAX; 6];
/// Beyond the last call of any kernel so far (Linux 6.18 ends below 480).
const LAST: i64 = 600;

/// `uretprobe` and `uprobe`: the kernel lets them past every filter (Linux 6.13), since its own trampoline makes them; anywhere
/// else they end in SIGILL.
#[cfg(target_arch = "x86_64")]
const OF_THE_KERNEL: &[i64] = &[335, 336];
#[cfg(not(target_arch = "x86_64"))]
const OF_THE_KERNEL: &[i64] = &[];

/// Makes the calls under these programs, by an interpreter that installs them itself.
fn make(programs: &[&BpfProgram], attempts: &[Attempt]) -> Vec<Outcome> {
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

fn matches(call: &Call, (number, arguments): &Attempt) -> bool {
    let holds = |test: &Test| {
        let Value::Is(value) = test.value else {
            return false;
        };
        arguments[usize::from(test.argument)] & test.mask == value
    };
    let of_line = |tests: &&[Test]| tests.iter().all(holds);
    call.number == *number && (call.when.is_empty() || call.when.iter().any(of_line))
}

/// What the lists say.
fn expected(kind: ThreadKind, attempt: &Attempt) -> Outcome {
    if DEADLY
        .iter()
        .chain(DEADLY_LATER)
        .any(|call| matches(call, attempt))
    {
        Outcome::Killed
    } else if kind.calls().any(|call| matches(call, attempt)) {
        Outcome::Allowed
    } else {
        Outcome::Refused
    }
}

fn programs(filters: &Filters, kind: ThreadKind) -> Vec<&BpfProgram> {
    filters.process.iter().chain(filters.of_kind(kind)).collect()
}

/// FAULTS 43, 71: each number is allowed, refused or deadly as the lists say, in each kind of thread.
#[test]
fn every_call_is_treated_as_the_lists_say() {
    let filters = Filters::new().unwrap();
    let arguments = |number| {
        if number == libc::SYS_futex {
            // An operation that there is, and that wakes nobody: the kernel itself knows no such call otherwise.
            [0, 1, 0, 0, 0, 0]
        } else {
            NONSENSE
        }
    };
    let numbers = (0..=LAST).filter(|number| !OF_THE_KERNEL.contains(number));
    let attempts: Vec<_> = numbers.map(|number| (number, arguments(number))).collect();
    for kind in ThreadKind::ALL {
        let outcomes = make(&programs(&filters, kind), &attempts);
        let mut counts = [0; 3];
        for (attempt, outcome) in attempts.iter().zip(outcomes) {
            assert_eq!(outcome, expected(kind, attempt), "{kind:?}: call {}", attempt.0);
            counts[outcome as usize] += 1;
        }
        let [allowed, refused, killed] = counts;
        eprintln!(
            "{}: {allowed} allowed, {refused} refused, {killed} deadly",
            kind.name()
        );
    }
}

fn with(number: i64, arguments: &[i32]) -> Attempt {
    let mut all = [0; 6];
    for (to, from) in all.iter_mut().zip(arguments) {
        *to = from.cast_unsigned();
    }
    (number, all)
}

/// FAULTS 71: what depends on arguments.
#[test]
fn arguments_decide_where_they_are_tested() {
    let (control, worker) = (ThreadKind::Control, ThreadKind::UringWorker);
    let (allowed, refused, killed) = (Outcome::Allowed, Outcome::Refused, Outcome::Killed);
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let (readable, executable) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_EXEC,
    );
    let thread = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let (inet, netlink) = (libc::AF_INET, libc::AF_NETLINK);
    let cloexec = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let cases = [
        (
            worker,
            with(libc::SYS_mmap, &[0, 4096, readable, anonymous, -1, 0]),
            allowed,
        ),
        (
            worker,
            with(libc::SYS_mmap, &[0, 4096, executable, anonymous, -1, 0]),
            killed,
        ),
        (worker, with(libc::SYS_mprotect, &[0, 4096, readable]), allowed),
        (worker, with(libc::SYS_mprotect, &[0, 4096, executable]), killed),
        (worker, with(libc::SYS_prctl, &[libc::PR_SET_NAME, 0]), allowed),
        (
            worker,
            with(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE, 1]),
            refused,
        ),
        (
            worker,
            with(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS, 1]),
            refused,
        ),
        (worker, with(libc::SYS_seccomp, &[0, 0, 0]), refused),
        (worker, with(libc::SYS_socket, &[inet, cloexec, 0]), refused),
        (worker, with(libc::SYS_openat, &[-1, 0, libc::O_RDONLY]), refused),
        (worker, with(libc::SYS_clone, &[thread]), refused),
        (control, with(libc::SYS_clone, &[libc::SIGCHLD]), killed),
        (
            control,
            with(libc::SYS_clone, &[thread | libc::CLONE_NEWUSER]),
            refused,
        ),
        (control, with(libc::SYS_clone3, &[0, 0]), refused),
        (control, with(libc::SYS_socket, &[inet, cloexec, 0]), allowed),
        (
            control,
            with(libc::SYS_socket, &[inet, libc::SOCK_RAW, 41]),
            refused,
        ),
        (
            control,
            with(libc::SYS_socket, &[libc::AF_INET6, libc::SOCK_STREAM, 0]),
            allowed,
        ),
        (
            control,
            with(libc::SYS_socket, &[libc::AF_PACKET, libc::SOCK_DGRAM, 0]),
            refused,
        ),
        (
            control,
            with(libc::SYS_socket, &[libc::AF_ALG, libc::SOCK_SEQPACKET, 0]),
            refused,
        ),
        (
            control,
            with(libc::SYS_socket, &[netlink, libc::SOCK_RAW, libc::NETLINK_ROUTE]),
            allowed,
        ),
        (
            control,
            with(
                libc::SYS_socket,
                &[netlink, libc::SOCK_RAW, libc::NETLINK_NETFILTER],
            ),
            refused,
        ),
        (
            control,
            with(libc::SYS_openat, &[-1, 0, libc::O_RDONLY | libc::O_CLOEXEC]),
            allowed,
        ),
        (control, with(libc::SYS_openat, &[-1, 0, libc::O_WRONLY]), refused),
        (
            control,
            with(libc::SYS_openat, &[-1, 0, libc::O_RDONLY | libc::O_CREAT]),
            refused,
        ),
        (control, with(libc::SYS_ioctl, &[-1, 0x5412]), refused),
        (control, with(libc::SYS_fcntl, &[-1, libc::F_GETFL]), allowed),
        (control, with(libc::SYS_fcntl, &[-1, libc::F_SETOWN]), refused),
        (
            control,
            with(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE.cast_signed(), 0, 0]),
            allowed,
        ),
        (
            control,
            with(libc::SYS_prlimit64, &[1, libc::RLIMIT_NOFILE.cast_signed(), 0, 0]),
            refused,
        ),
        (control, with(libc::SYS_tgkill, &[1, 1, 0]), refused),
        (control, with(libc::SYS_io_uring_setup, &[8, 0]), killed),
    ];
    let filters = Filters::new().unwrap();
    for kind in [control, worker] {
        let of_kind: Vec<_> = cases.iter().filter(|case| case.0 == kind).collect();
        let attempts: Vec<_> = of_kind.iter().map(|case| case.1).collect();
        for (case, outcome) in of_kind.iter().zip(make(&programs(&filters, kind), &attempts)) {
            assert_eq!(outcome, case.2, "{case:?}");
        }
    }
}

/// What the tests above see is the filters' doing.
#[test]
fn without_filters_the_same_calls_are_made() {
    let calls = [
        libc::SYS_getuid,
        libc::SYS_unshare,
        libc::SYS_execve,
        libc::SYS_io_uring_setup,
    ];
    let attempts = calls.map(|number| (number, NONSENSE));
    assert_eq!(make(&[], &attempts), [Outcome::Allowed; 4]);
    let filters = Filters::new().unwrap();
    // A start makes rings.
    let of_process: Vec<_> = filters.process.iter().collect();
    assert_eq!(
        make(&of_process, &attempts),
        [
            Outcome::Refused,
            Outcome::Killed,
            Outcome::Killed,
            Outcome::Allowed
        ]
    );
}

/// Calls of one processor only; every other name is one on each that there are filters for.
const ONLY_X86: [&str; 9] = [
    "dup2",
    "epoll_wait",
    "fork",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "modify_ldt",
    "poll",
    "vfork",
];

#[test]
fn the_lists_are_known_on_other_processors() {
    let lists = [
        DEADLY,
        DEADLY_LATER,
        OF_START,
        EVERY,
        OF_CONTROL,
        OF_WATCH,
        OF_SYSCALL_LANE,
        OF_URING_LANE,
    ];
    for arch in [TargetArch::x86_64, TargetArch::aarch64, TargetArch::riscv64] {
        for call in lists.into_iter().flatten() {
            let filter = format!(
                r#"{{"x":{{"mismatch_action":"allow","match_action":{{"errno":1}},"filter":[{{"syscall":"{}"}}]}}}}"#,
                call.name()
            );
            let known = seccompiler::compile_from_json(filter.as_bytes(), arch).is_ok();
            let optional = arch != TargetArch::x86_64 && ONLY_X86.contains(&call.name());
            assert!(known || optional, "{} of {arch:?}", call.name());
        }
    }
}

const SECURITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
const BEGIN: &str = "<!-- Written by `UPDATE_TABLES=1 cargo test -p isatapd confine`. -->\n";
const END: &str = "<!-- The end of what is written. -->\n";

/// FAULTS 43, 71: the documentation has the lists in force; `UPDATE_TABLES=1` writes them.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_documentation_has_the_lists() {
    let text = fs::read_to_string(SECURITY).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let table = table(isatap_engine::io::restrict::OPERATIONS.len());
    if found != table && std::env::var_os("UPDATE_TABLES").is_some() {
        fs::write(SECURITY, [before, BEGIN, &table, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "UPDATE_TABLES=1 cargo test -p isatapd confine writes it"
    );
}
