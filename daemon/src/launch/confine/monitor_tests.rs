//! Every system call there is, tried under the monitor's filters; what an engine and an upgrade need is left.

use std::collections::BTreeSet;

use super::super::calls::{DEADLY, DEADLY_LATER, EVERY, OF_CONTROL, OF_START};
use super::super::every_call::{
    Attempt, LAST, NONSENSE, OF_THE_KERNEL, Outcome, is_on, make, with_arguments,
};
use super::*;

/// Calls whose nonsense would be felt outside of the process that makes it, or that wait for ever: no filter is about them.
const SPARED: &[libc::c_long] = &[
    libc::SYS_msgget,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pause,
];

fn programs(filters: &MonitorFilters) -> Vec<&BpfProgram> {
    filters.programs.iter().collect()
}

/// What the lists say; `None` where they leave it to the kernel.
fn expected(has_programs: bool, attempt: &Attempt) -> Option<Outcome> {
    if is_on(DEADLY_FOR_EVER, attempt) || attempt.0 >= X32.into() {
        Some(Outcome::Killed)
    } else if attempt.0 > LAST_LOOKED_AT
        || is_on(MISSING_FOR_EVER, attempt)
        || !has_programs && is_on(MISSING_WITHOUT_PROGRAMS, attempt)
    {
        Some(Outcome::Refused)
    } else {
        None
    }
}

/// FAULTS 43, 72: each number is deadly or missing as the lists say, and otherwise what it would be without filters.
#[test]
fn every_call_is_treated_as_the_lists_say() {
    let numbers = (0..=LAST).filter(|number| !OF_THE_KERNEL.contains(number) && !SPARED.contains(number));
    let mut attempts: Vec<_> = numbers.map(|number| (number, NONSENSE)).collect();
    // The same calls of the processor's other kind, one of them with a number that only that kind has.
    #[cfg(target_arch = "x86_64")]
    attempts
        .extend([libc::SYS_getpid, libc::SYS_ptrace, 521].map(|number| (number | i64::from(X32), NONSENSE)));
    for has_programs in [false, true] {
        let filters = MonitorFilters::new(has_programs).unwrap();
        let outcomes = make(&programs(&filters), &attempts);
        let left = |attempt: &&Attempt| expected(has_programs, attempt).is_none();
        let others: Vec<_> = attempts.iter().filter(left).copied().collect();
        let mut without = make(&[], &others).into_iter();
        let mut counts = [0; 3];
        for (attempt, outcome) in attempts.iter().zip(outcomes) {
            let expected = expected(has_programs, attempt);
            let expected = expected.unwrap_or_else(|| without.next().unwrap());
            assert_eq!(outcome, expected, "programs {has_programs}: call {}", attempt.0);
            counts[outcome as usize] += 1;
        }
        let [allowed, refused, killed] = counts;
        eprintln!("programs {has_programs}: {allowed} made, {refused} missing, {killed} deadly");
    }
}

/// FAULTS 72: what depends on arguments.
#[test]
fn arguments_decide_where_they_are_tested() {
    let (allowed, refused, killed) = (Outcome::Allowed, Outcome::Refused, Outcome::Killed);
    let with = with_arguments;
    let (anonymous, of_file) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::MAP_PRIVATE);
    let [code, data, both] = [
        libc::PROT_READ | libc::PROT_EXEC,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
    ];
    let mut cases = vec![
        (with(libc::SYS_mmap, &[0, 4096, code, of_file, -1, 0]), allowed),
        (with(libc::SYS_mmap, &[0, 4096, code, anonymous, -1, 0]), killed),
        (with(libc::SYS_mmap, &[0, 4096, data, anonymous, -1, 0]), allowed),
        (with(libc::SYS_mmap, &[0, 4096, both, anonymous, -1, 0]), killed),
        (with(libc::SYS_mmap, &[0, 4096, both, of_file, -1, 0]), killed),
        (with(libc::SYS_mprotect, &[0, 4096, data]), allowed),
        (with(libc::SYS_mprotect, &[0, 4096, code]), killed),
        (with(libc::SYS_mprotect, &[0, 4096, both]), killed),
        (with(libc::SYS_pkey_mprotect, &[0, 4096, data, -1]), allowed),
        (with(libc::SYS_pkey_mprotect, &[0, 4096, code, -1]), killed),
        (with(libc::SYS_pkey_mprotect, &[0, 4096, both, -1]), killed),
        (with(libc::SYS_shmat, &[-1, 0, libc::SHM_RDONLY]), allowed),
        (with(libc::SYS_shmat, &[-1, 0, 0o100_000]), killed),
        (with(libc::SYS_clone, &[libc::SIGCHLD]), allowed),
        (with(libc::SYS_clone3, &[0, 0]), refused),
        (
            with(libc::SYS_socket, &[libc::AF_NETLINK, libc::SOCK_RAW, 0]),
            allowed,
        ),
        (
            with(libc::SYS_socket, &[libc::AF_INET, libc::SOCK_RAW, 41]),
            allowed,
        ),
        (
            with(libc::SYS_socket, &[libc::AF_INET6, libc::SOCK_STREAM, 0]),
            allowed,
        ),
        (
            with(libc::SYS_socket, &[libc::AF_UNIX, libc::SOCK_DGRAM, 0]),
            allowed,
        ),
    ];
    for family in [
        libc::AF_PACKET,
        libc::AF_ALG,
        libc::AF_VSOCK,
        libc::AF_XDP,
        libc::AF_KEY,
    ] {
        cases.push((with(libc::SYS_socket, &[family, libc::SOCK_RAW, 0]), refused));
    }
    for namespace in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        cases.push((with(libc::SYS_clone, &[libc::SIGCHLD | namespace]), killed));
    }
    let attempts: Vec<_> = cases.iter().map(|case| case.0).collect();
    let filters = MonitorFilters::new(true).unwrap();
    for (case, outcome) in cases.iter().zip(make(&programs(&filters), &attempts)) {
        assert_eq!(outcome, case.1, "{case:?}");
    }
    // It is the filters' doing.
    let socket = with(libc::SYS_socket, &[libc::AF_PACKET, libc::SOCK_RAW, 0]);
    let mapping = with(libc::SYS_mmap, &[0, 4096, both, anonymous, -1, 0]);
    assert_eq!(make(&[], &[socket, mapping]), [allowed, allowed]);
}

/// An engine has what it starts with, and what is deadly in it is no less.
#[test]
fn an_engine_can_be_started() {
    let names = |list: &'static [super::super::calls::Call]| {
        list.iter().map(|call| (call.number, call.when.is_empty()))
    };
    let gone: BTreeSet<_> = names(DEADLY_FOR_EVER).filter(|(_, always)| *always).collect();
    for list in [EVERY, OF_START, OF_CONTROL, DEADLY, DEADLY_LATER] {
        assert!(names(list).all(|(number, _)| !gone.contains(&(number, true))));
    }
}

#[cfg(not(target_arch = "riscv64"))]
#[test]
fn the_last_call_is_the_one_that_is_named() {
    assert_eq!(LAST_LOOKED_AT, libc::SYS_mseal);
}

#[test]
fn filters_are_told_apart() {
    let mark = |has_programs| MonitorFilters::new(has_programs).unwrap().mark();
    assert_eq!(mark(true), mark(true));
    assert_ne!(mark(true), mark(false));
    assert!(![mark(true), mark(false)].contains(&0));
}
