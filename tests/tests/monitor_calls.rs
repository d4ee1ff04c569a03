//! The monitor in somebody else's hands: a daemon that serves, whose monitor is made to try the calls that it must not have
//! (FAULTS 43, 72). What the filters are made of is tried elsewhere, by processes like it; here is what is in force.
//!
//! ```text
//!   dut 10.0.0.1 (a bridge without ports) <- a tracer that has the monitor make calls
//! ```

#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Instant;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::fault::{kill_engine, let_it_live, wait_successor};
use isatap_tests::inside::{Inside, Outcome};
use isatap_tests::netns::Netns;
use isatap_tests::package::top;
use isatap_tests::scene::SOON;
use isatap_tests::unit::Unit;
use isatap_tests::wait;
use nix::libc;
use nix::sys::signal::Signal;

/// No descriptor, address, process or flag.
const NONSENSE: [u64; 6] = [u64::MAX; 6];
/// Calls of x32 have this bit.
const X32: i64 = 0x4000_0000;
/// Beyond the last call of any kernel so far, and the first one that the lists say nothing of.
const BEYOND: [i64; 3] = [463, 500, 600];

const MISSING: Outcome = Outcome::error(libc::ENOSYS);
const DEADLY: Outcome = Outcome::Ended(Signal::SIGSYS);

/// A call by its name in the manual.
type Attempt = (&'static str, i64, [u64; 6]);

macro_rules! attempts {
    ($($call:ident $(($($argument:expr),+))?),+ $(,)?) => {
        vec![$((
            stringify!($call).trim_start_matches("SYS_"),
            libc::$call,
            attempts!(@arguments $($($argument),+)?),
        )),+]
    };
    (@arguments) => { NONSENSE };
    (@arguments $($argument:expr),+) => { with(&[$($argument),+]) };
}

fn with(arguments: &[i32]) -> [u64; 6] {
    let mut all = [0; 6];
    for (to, from) in all.iter_mut().zip(arguments) {
        *to = i64::from(*from).cast_unsigned();
    }
    all
}

const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const EXECUTE: i32 = libc::PROT_READ | libc::PROT_EXEC;
const WRITE_AND_EXECUTE: i32 = WRITE | EXECUTE;
/// Of shmat(2): the segment can be executed.
const SHM_EXEC: i32 = 0o100_000;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn deadly() -> Vec<Attempt> {
    attempts![
        SYS_acct,
        SYS_add_key,
        SYS_adjtimex,
        SYS_chmod,
        SYS_chown,
        SYS_clock_adjtime,
        SYS_clock_settime,
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWNS),
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWCGROUP),
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWUTS),
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWIPC),
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWUSER),
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWPID),
        SYS_clone(libc::SIGCHLD | libc::CLONE_NEWNET),
        SYS_delete_module,
        SYS_fanotify_init,
        SYS_fchmod,
        SYS_fchmodat,
        SYS_fchmodat2,
        SYS_fchown,
        SYS_fchownat,
        SYS_finit_module,
        SYS_fsconfig,
        SYS_fsmount,
        SYS_fsopen,
        SYS_fspick,
        SYS_init_module,
        SYS_ioperm,
        SYS_iopl,
        SYS_kcmp,
        SYS_kexec_file_load,
        SYS_kexec_load,
        SYS_keyctl,
        SYS_lchown,
        SYS_mmap(0, 4096, WRITE_AND_EXECUTE, ANONYMOUS, -1, 0),
        SYS_mmap(0, 4096, WRITE_AND_EXECUTE, libc::MAP_PRIVATE, -1, 0),
        SYS_mmap(0, 4096, EXECUTE, ANONYMOUS, -1, 0),
        SYS_modify_ldt,
        SYS_mount,
        SYS_mount_setattr,
        SYS_move_mount,
        SYS_mprotect(0, 4096, WRITE_AND_EXECUTE),
        SYS_mprotect(0, 4096, EXECUTE),
        SYS_open_by_handle_at,
        SYS_open_tree,
        SYS_perf_event_open,
        SYS_personality,
        SYS_pidfd_getfd,
        SYS_pivot_root,
        SYS_pkey_mprotect(0, 4096, WRITE_AND_EXECUTE, -1),
        SYS_pkey_mprotect(0, 4096, EXECUTE, -1),
        SYS_process_madvise,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_ptrace,
        SYS_quotactl,
        SYS_quotactl_fd,
        SYS_reboot,
        SYS_request_key,
        SYS_setdomainname,
        SYS_sethostname,
        SYS_setns,
        SYS_settimeofday,
        SYS_shmat(-1, 0, SHM_EXEC),
        SYS_swapoff,
        SYS_swapon,
        SYS_syslog,
        SYS_umount2,
        SYS_unshare,
        SYS_userfaultfd,
        SYS_vhangup,
    ]
}

fn missing() -> Vec<Attempt> {
    attempts![
        SYS_clone3(0, 0),
        SYS_socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        SYS_socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        SYS_socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        SYS_socket(libc::AF_XDP, libc::SOCK_RAW, 0),
    ]
}

/// The names that the documentation has in the row of this title.
fn documented(title: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(top().join("SECURITY.md")).expect("the documentation");
    let row = text
        .lines()
        .find(|line| line.starts_with(&format!("| {title} |")));
    let row = row.unwrap_or_else(|| panic!("no row {title:?}"));
    let names = row
        .trim_end_matches('|')
        .rsplit('|')
        .next()
        .expect("the last column");
    names.split(',').map(|name| name.trim().to_owned()).collect()
}

fn names(attempts: &[Attempt]) -> BTreeSet<String> {
    attempts.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

fn lonely() -> Netns {
    let ns = Netns::new("dut");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    ns
}

/// What is in force in the monitor of this daemon is what the documentation says; it goes on as if nothing had been.
fn judge(daemon: &Daemon<'_>, lane: Lane) {
    let engine = daemon.engine_pid();
    let monitor = Inside::of(daemon.pid());
    assert_eq!(
        monitor.call(libc::SYS_getpid, [0; 6]),
        Outcome::Value(daemon.pid().into()),
        "it is the monitor who calls"
    );
    for (name, number, arguments) in missing() {
        assert_eq!(monitor.call(number, arguments), MISSING, "{name} {arguments:?}");
    }
    for number in BEYOND {
        assert_eq!(monitor.call(number, NONSENSE), MISSING, "call {number}");
    }
    let outcome = monitor.call(libc::SYS_bpf, NONSENSE);
    assert_eq!(outcome == MISSING, lane != Lane::Ebpf, "bpf: {outcome:?}");
    let x32 = [libc::SYS_getpid, libc::SYS_ptrace].map(|number| ("x32", number | X32, NONSENSE));
    for (name, number, arguments) in deadly().into_iter().chain(x32) {
        let copy = monitor.copy();
        assert_eq!(copy.call(number, arguments), DEADLY, "{name} {arguments:?}");
    }
    written_memory_is_not_executed(&monitor);
    drop(monitor);
    let_it_live(Instant::now());
    assert_eq!(daemon.engine_pid(), engine, "{}", daemon.log());
    wait_successor(daemon, kill_engine(daemon));
}

/// Not in two steps either; what a program loader maps is.
fn written_memory_is_not_executed(monitor: &Inside) {
    let copy = monitor.copy();
    let loaded = with(&[0, 4096, EXECUTE, libc::MAP_PRIVATE, -1, 0]);
    assert_eq!(
        copy.call(libc::SYS_mmap, loaded),
        Outcome::error(libc::EBADF),
        "a file's code"
    );
    let Outcome::Value(memory @ 1..) = copy.call(libc::SYS_mmap, with(&[0, 4096, WRITE, ANONYMOUS, -1, 0]))
    else {
        panic!("there is no memory")
    };
    let change = |protection: i32| {
        let protection = u64::from(protection.cast_unsigned());
        [memory.cast_unsigned(), 4096, protection, 0, 0, 0]
    };
    let readable = copy.call(libc::SYS_mprotect, change(libc::PROT_READ));
    assert_eq!(readable, Outcome::Value(0));
    assert_eq!(copy.call(libc::SYS_mprotect, change(EXECUTE)), DEADLY);
}

/// FAULTS 43, 72: each call of the lists, made by the monitor of a daemon that serves, and by that of one that has taken over.
fn a_monitor_makes_no_call_of_the_lists(lane: Lane) {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).lane(lane).start();
    judge(&daemon, lane);
    let output = daemon.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    judge(&daemon, lane);
    daemon.conservation();
    daemon.stop();
}

#[test]
fn a_monitor_makes_no_call_of_the_lists_uring() {
    a_monitor_makes_no_call_of_the_lists(Lane::Uring);
}

#[test]
fn a_monitor_makes_no_call_of_the_lists_syscall() {
    a_monitor_makes_no_call_of_the_lists(Lane::Syscall);
}

#[test]
fn a_monitor_makes_no_call_of_the_lists_ebpf() {
    a_monitor_makes_no_call_of_the_lists(Lane::Ebpf);
}

/// No call of the lists is left out here.
#[test]
fn every_call_of_the_lists_is_tried() {
    let of_all = "the monitor, and all that it starts: ends the process";
    assert_eq!(names(&deadly()), documented(of_all));
    assert_eq!(names(&missing()), documented("the same: is missing"));
    assert_eq!(
        documented("the same without programs: is missing"),
        ["bpf".to_owned()].into()
    );
}

/// Without the layer the same calls are made: it is the filters that stop them. On any lane there are none then.
#[test]
fn without_the_layer_they_are_made() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns)
        .lane(Lane::Uring)
        .config("SandboxWaive seccomp")
        .start();
    let monitor = Inside::of(daemon.pid());
    for (name, number, arguments) in missing() {
        let outcome = monitor.call(number, arguments);
        assert_ne!(outcome, MISSING, "{name} {arguments:?}");
        if let Outcome::Value(descriptor @ 0..) = outcome {
            monitor.call(libc::SYS_close, [descriptor.cast_unsigned(), 0, 0, 0, 0, 0]);
        }
    }
    let copy = monitor.copy();
    let namespace = with(&[libc::CLONE_NEWNET]);
    assert!(matches!(
        copy.call(libc::SYS_unshare, namespace),
        Outcome::Value(_)
    ));
    let mapping = with(&[0, 4096, WRITE_AND_EXECUTE, ANONYMOUS, -1, 0]);
    assert!(matches!(copy.call(libc::SYS_mmap, mapping), Outcome::Value(1..)));
    drop(copy);
    drop(monitor);
    daemon.stop();
}

/// FAULTS 72: a monitor that makes a call it must not make is gone with the engine, the interface and the programs; what it leaves
/// keeps nobody from starting, as the service manager does after such an end.
#[test]
fn a_forbidden_call_ends_the_daemon() {
    for lane in Lane::ALL {
        let ns = lonely();
        let mut daemon = Builder::new(&ns).lane(lane).start();
        let engine = daemon.engine_pid();
        let monitor = Inside::of(daemon.pid());
        assert_eq!(monitor.call(libc::SYS_ptrace, NONSENSE), DEADLY, "{lane:?}");
        drop(monitor);
        let status = daemon.wait_exit(SOON);
        assert_eq!(status.signal(), Some(Signal::SIGSYS as i32), "{status}");
        wait::holds("the engine to be gone", SOON, || {
            fs::read_link(format!("/proc/{engine}/exe")).is_err()
        });
        wait::holds("the interface to be gone", SOON, || !ns.has_link(TUNNEL));
        daemon.start_again().stop();
    }
    let unit = fs::read_to_string(top().join("daemon/packaging/isatapd.service")).expect("the unit");
    let unit = Unit::parse(&unit);
    assert_eq!(unit.one("Restart"), "on-failure");
    let never = unit.one("RestartPreventExitStatus");
    assert!(!never.contains("SIG"), "{never}");
}
