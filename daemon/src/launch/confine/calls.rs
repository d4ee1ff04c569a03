//! Which system calls each kind of thread may make, which end the process, and which no process of this program has: the lists,
//! and nothing else.
//!
//! Found by strace under the tests of all roles and lanes, and by reading what the C library and the standard library
//! may do instead on other versions of themselves. A call of a list without conditions costs nothing: the kernel (5.11)
//! remembers that it passes.

use nix::libc;

/// A test of one argument: its lower 32 bits, which are all of them that the kernel looks at in what is tested here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) argument: u8,
    pub(super) mask: u32,
    pub(super) value: Value,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// This number.
    Is(u32),
    /// Any other number.
    IsNot(u32),
    /// The process that is filtered.
    ThisProcess,
}

/// A system call, and when it is meant: always, or when all tests of one line hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    constant: &'static str,
    pub(super) number: libc::c_long,
    pub(super) when: &'static [&'static [Test]],
}

impl Call {
    /// Its name in the manual.
    pub(super) fn name(&self) -> &'static str {
        self.constant.trim_start_matches("SYS_")
    }
}

macro_rules! calls {
    ($($(#[$only:meta])? $call:ident $(= $number:literal)? $(if $when:expr)?),+ $(,)?) => {
        &[$(
            $(#[$only])?
            Call {
                constant: stringify!($call),
                number: calls!(@number $call $($number)?),
                when: calls!(@when $($when)?),
            },
        )+]
    };
    (@number $call:ident) => { libc::$call };
    (@number $call:ident $number:literal) => { $number };
    (@when) => { &[] };
    (@when $when:expr) => { $when };
}

const fn is(argument: u8, value: i32) -> Test {
    Test {
        argument,
        mask: u32::MAX,
        value: Value::Is(value.cast_unsigned()),
    }
}

const fn bits(argument: u8, mask: i32, value: i32) -> Test {
    Test {
        argument,
        mask: mask.cast_unsigned(),
        value: Value::Is(value.cast_unsigned()),
    }
}

const fn is_not(argument: u8, value: i32) -> Test {
    Test {
        argument,
        mask: u32::MAX,
        value: Value::IsNot(value.cast_unsigned()),
    }
}

const fn of_this_process(argument: u8) -> Test {
    Test {
        argument,
        mask: u32::MAX,
        value: Value::ThisProcess,
    }
}

/// Any of these numbers as the second argument.
macro_rules! second_is {
    ($($value:expr),+ $(,)?) => { &[$(&[is(1, $value)]),+] };
}

/// `ioctl` takes its request as an unsigned long here and as an int there.
#[allow(clippy::cast_possible_truncation, reason = "requests have 32 bits")]
const fn request(value: libc::Ioctl) -> i32 {
    value as i32
}

/// A thread is made of these, and nothing that is not one.
const THREAD: &[&[Test]] = &[&[bits(0, libc::CLONE_THREAD | NAMESPACES, libc::CLONE_THREAD)]];
const NOT_A_THREAD: &[&[Test]] = &[&[bits(0, libc::CLONE_THREAD, 0)]];
/// Any of them at all. That of time is none of this call's: its bit is one of the signal's.
const NEW_NAMESPACE: &[&[Test]] = &[
    &[bits(0, libc::CLONE_NEWNS, libc::CLONE_NEWNS)],
    &[bits(0, libc::CLONE_NEWCGROUP, libc::CLONE_NEWCGROUP)],
    &[bits(0, libc::CLONE_NEWUTS, libc::CLONE_NEWUTS)],
    &[bits(0, libc::CLONE_NEWIPC, libc::CLONE_NEWIPC)],
    &[bits(0, libc::CLONE_NEWUSER, libc::CLONE_NEWUSER)],
    &[bits(0, libc::CLONE_NEWPID, libc::CLONE_NEWPID)],
    &[bits(0, libc::CLONE_NEWNET, libc::CLONE_NEWNET)],
];
/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
/// No memory is made that can be executed.
const EXECUTABLE: &[&[Test]] = &[&[bits(2, libc::PROT_EXEC, libc::PROT_EXEC)]];
const WRITABLE_AND_EXECUTABLE: [Test; 1] = [bits(
    2,
    libc::PROT_WRITE | libc::PROT_EXEC,
    libc::PROT_WRITE | libc::PROT_EXEC,
)];
/// Memory that is written to and executed at once, or that no file's code is in: a program loader maps its files, for
/// reading and executing, or for writing.
const OF_MADE_CODE: &[&[Test]] = &[
    &WRITABLE_AND_EXECUTABLE,
    &[
        bits(2, libc::PROT_EXEC, libc::PROT_EXEC),
        bits(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS),
    ],
];
/// `PROT_BTI`: what the loader asks for on aarch64, for a program's code that the kernel has mapped already.
const BRANCH_TARGETS: i32 = if cfg!(target_arch = "aarch64") { 0x10 } else { 0 };
/// Memory that becomes executable afterwards, so that it may have been written to. `PR_SET_MDWE` (Linux 6.3) says the same, but
/// lets who tries it try again.
const INTO_CODE: &[&[Test]] = &[
    &WRITABLE_AND_EXECUTABLE,
    &[bits(2, libc::PROT_EXEC | BRANCH_TARGETS, libc::PROT_EXEC)],
];
/// `SHM_EXEC`: a segment that somebody may write to elsewhere.
const SEGMENT_OF_CODE: &[&[Test]] = &[&[bits(2, 0o100_000, 0o100_000)]];
const FOR_READING: &[&[Test]] = &[&[bits(
    2,
    libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC,
    libc::O_RDONLY,
)]];
/// Name servers over UDP and TCP, the log, and the kernel's routes and addresses.
const SOCKETS: &[&[Test]] = &[
    &[is(0, libc::AF_UNIX), bits(1, KIND_OF_SOCKET, libc::SOCK_DGRAM)],
    &[is(0, libc::AF_UNIX), bits(1, KIND_OF_SOCKET, libc::SOCK_STREAM)],
    &[is(0, libc::AF_INET), bits(1, KIND_OF_SOCKET, libc::SOCK_DGRAM)],
    &[is(0, libc::AF_INET), bits(1, KIND_OF_SOCKET, libc::SOCK_STREAM)],
    &[is(0, libc::AF_INET6), bits(1, KIND_OF_SOCKET, libc::SOCK_DGRAM)],
    &[is(0, libc::AF_INET6), bits(1, KIND_OF_SOCKET, libc::SOCK_STREAM)],
    &[is(0, libc::AF_NETLINK), is(2, libc::NETLINK_ROUTE)],
];
/// Families that are none of the unit's (`RestrictAddressFamilies`): links as they are, and parts of the kernel that it loads for
/// whoever names them.
const OF_OTHER_FAMILIES: &[&[Test]] = &[&[
    is_not(0, libc::AF_UNIX),
    is_not(0, libc::AF_INET),
    is_not(0, libc::AF_INET6),
    is_not(0, libc::AF_NETLINK),
]];
/// All of the type but `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
const KIND_OF_SOCKET: i32 = !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);

/// What every thread does: memory, waking, sleeping, its last words, its end.
pub(super) const EVERY: &[Call] = calls![
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_futex,
    SYS_sched_yield,
    SYS_restart_syscall,
    // Read without a call where the kernel's clock allows it.
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_getpid,
    SYS_gettid,
    SYS_getrandom,
    // The allocator counts cores.
    SYS_sched_getaffinity,
    // Names of threads and, by newer allocators, of memory.
    SYS_prctl if &[&[is(0, libc::PR_SET_NAME)], &[is(0, libc::PR_SET_VMA)]],
    SYS_read,
    SYS_write,
    SYS_close,
    SYS_fcntl if second_is![
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
        libc::F_ADD_SEALS,
        libc::F_GET_SEALS,
    ],
    // A panic is told to the monitor, an abort to oneself.
    SYS_sendmsg,
    SYS_tgkill if &[&[of_this_process(0)]],
    SYS_exit,
    SYS_exit_group,
];

/// The lane of the ring.
pub(super) const OF_URING_LANE: &[Call] = calls![SYS_io_uring_enter];

/// The lane of system calls.
pub(super) const OF_SYSCALL_LANE: &[Call] = calls![
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_ctl,
    SYS_recvmmsg,
    SYS_sendmmsg,
    SYS_writev,
];

/// The watch of the monitor.
pub(super) const OF_WATCH: &[Call] = calls![
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    SYS_ppoll,
    SYS_recvmsg,
];

/// Control, its lookups and its readers of files.
pub(super) const OF_CONTROL: &[Call] = calls![
    SYS_clone if THREAD,
    SYS_set_robust_list,
    SYS_rseq,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_ctl,
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    SYS_ppoll,
    SYS_eventfd2,
    SYS_socket if SOCKETS,
    SYS_bind,
    SYS_connect,
    SYS_accept4,
    SYS_shutdown,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_sendto,
    SYS_sendmmsg,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_recvmmsg,
    SYS_readv,
    SYS_writev,
    SYS_ioctl if second_is![request(libc::FIONBIO), request(libc::FIONREAD)],
    SYS_openat if FOR_READING,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_lseek,
    // Hosts are kept for the next engine.
    SYS_pwrite64,
    SYS_memfd_create,
    // The way to a log that was restarted.
    SYS_fchdir,
    SYS_chdir,
    // The terminal is let go.
    #[cfg(target_arch = "x86_64")]
    SYS_dup2,
    SYS_dup3,
    // A start without descriptors to spare names its limit.
    SYS_prlimit64 if &[&[is(0, 0), is(2, 0)]],
    SYS_uname,
    SYS_getppid,
];

/// What a start takes besides: the event loop, rings, CPUs, and the giving up of power in each thread.
pub(super) const OF_START: &[Call] = calls![
    SYS_epoll_create1,
    SYS_socketpair,
    SYS_io_uring_setup,
    SYS_io_uring_register,
    SYS_sched_setaffinity,
    SYS_capget,
    SYS_capset,
    SYS_prctl,
    SYS_seccomp,
];

/// What no process of this program has ever had a reason to try, nor its C library, nor the next version of either: who does is an
/// intruder, and the process ends.
pub(super) const DEADLY_FOR_EVER: &[Call] = calls![
    // Code that is made rather than loaded.
    SYS_mmap if OF_MADE_CODE,
    SYS_mprotect if INTO_CODE,
    SYS_pkey_mprotect if INTO_CODE,
    SYS_shmat if SEGMENT_OF_CODE,
    SYS_personality,
    // Other processes' memory and descriptors.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_pidfd_getfd,
    SYS_kcmp,
    // Other roots and namespaces, and files that no path leads to.
    SYS_clone if NEW_NAMESPACE,
    SYS_unshare,
    SYS_setns,
    SYS_pivot_root,
    SYS_mount,
    SYS_umount2,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    // Owners and modes of files, of which rules for files say nothing.
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    SYS_fchmod,
    SYS_fchmodat,
    // The same number for all processors, and a name for few of them in the library.
    SYS_fchmodat2 = 452,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
    SYS_fchown,
    #[cfg(target_arch = "x86_64")]
    SYS_lchown,
    SYS_fchownat,
    // Parts of the kernel in which faults are found most often, and the kernel itself.
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_syslog,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    SYS_modify_ldt,
    // What is the whole machine's: swap, accounting, quotas, its clock, its name, its terminals.
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    #[cfg(not(all(target_arch = "riscv64", target_env = "musl")))]
    SYS_quotactl_fd,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
];

/// What fails for ever as on a kernel without it. The arguments of `clone3` are in memory, where no filter sees them; whoever is
/// without it takes `clone`.
pub(super) const MISSING_FOR_EVER: &[Call] = calls![SYS_clone3, SYS_socket if OF_OTHER_FAMILIES];

/// The same where the lane has no programs, and the monitor has dropped what loading them takes.
pub(super) const MISSING_WITHOUT_PROGRAMS: &[Call] = calls![SYS_bpf];

/// The last call of all processors that the two lists above were made from, `mseal` of Linux 6.10: a list of what must not be
/// says nothing of what comes later, so that this fails, too.
pub(super) const LAST_LOOKED_AT: libc::c_long = 462;

/// What nothing in the engine has a reason to try besides.
pub(super) const DEADLY: &[Call] = calls![
    // Other programs, processes and code.
    SYS_execve,
    SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    SYS_fork,
    #[cfg(target_arch = "x86_64")]
    SYS_vfork,
    SYS_clone if NOT_A_THREAD,
    SYS_mmap if EXECUTABLE,
    SYS_mprotect if EXECUTABLE,
    SYS_pkey_mprotect if EXECUTABLE,
    // Other users and roots.
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_chroot,
    // The kernel itself.
    SYS_bpf,
];

/// What is over once the workers have their rings: a ring that nobody has restricted is a way round all of this.
pub(super) const DEADLY_LATER: &[Call] = calls![SYS_io_uring_setup];
