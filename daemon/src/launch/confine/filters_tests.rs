//! Every system call there is, tried under the filters of each kind of thread; the lists on other processors, and in the
//! documentation.

use std::fs;

use super::super::every_call::{
    Attempt, LAST, NONSENSE, OF_THE_KERNEL, Outcome, is_on, make, with_arguments as with,
};
use super::*;

/// What the lists say.
fn expected(kind: ThreadKind, attempt: &Attempt) -> Outcome {
    if [DEADLY_FOR_EVER, DEADLY, DEADLY_LATER]
        .into_iter()
        .any(|list| is_on(list, attempt))
    {
        Outcome::Killed
    } else if is_on(kind.calls(), attempt) {
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
        (
            control,
            with(libc::SYS_mmap, &[0, 4096, executable, libc::MAP_PRIVATE, -1, 0]),
            killed,
        ),
        (control, with(libc::SYS_mprotect, &[0, 4096, executable]), killed),
        (
            control,
            with(libc::SYS_pkey_mprotect, &[0, 4096, executable, -1]),
            killed,
        ),
        (
            control,
            with(libc::SYS_shmat, &[-1, 0, libc::SHM_RDONLY]),
            refused,
        ),
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
            killed,
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
const ONLY_X86: [&str; 12] = [
    "chmod",
    "chown",
    "dup2",
    "epoll_wait",
    "fork",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "lchown",
    "modify_ldt",
    "poll",
    "vfork",
];

#[test]
fn the_lists_are_known_on_other_processors() {
    let lists = [
        DEADLY_FOR_EVER,
        MISSING_FOR_EVER,
        MISSING_WITHOUT_PROGRAMS,
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
