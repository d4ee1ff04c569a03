//! A restricted ring that is asked for everything there is: each request either is one of the lane's or is refused.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use io_uring::squeue::{self, Flags};
use io_uring::{IoUring, opcode};
use nix::libc;

use super::{OPERATIONS, REGISTRATION_WITHOUT_USE, RingScope};
use crate::io::probe;

/// A ring on one file: a pipe that nobody writes to any more, so that no operation waits for anything.
fn ring(scope: RingScope) -> Option<(IoUring, File)> {
    if probe::uring(scope).is_err() {
        return None;
    }
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(writer);
    let mut builder = IoUring::builder();
    scope.begin(&mut builder);
    let ring: IoUring = builder.build(8).unwrap();
    ring.submitter().register_files(&[reader.as_raw_fd()]).unwrap();
    scope.close(&ring).unwrap();
    Some((ring, reader.into()))
}

/// What comes of a request with this operation and these flags, and nothing else in it: its result, or the negative
/// errno.
fn ask(ring: &mut IoUring, code: u8, flags: Flags) -> i32 {
    let mut entry: squeue::Entry = opcode::Nop::new().build().flags(flags);
    // SAFETY: an entry is laid out as io_uring_sqe, which begins with the operation's byte.
    unsafe { (&raw mut entry).cast::<u8>().write(code) };
    // SAFETY: the entry has no address but null, and names the first registered file at most.
    unsafe { ring.submission().push(&entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    let completion = ring.completion().next().unwrap();
    completion.result()
}

fn is_in_use(code: u8) -> bool {
    OPERATIONS.iter().any(|(_, known)| *known == code)
}

/// FAULTS 43.
#[test]
fn other_operations_are_refused() {
    let Some((mut ring, _file)) = ring(RingScope::Lane) else {
        return;
    };
    let (mut allowed, mut refused, mut unknown) = (0, 0, 0);
    for code in 0..=u8::MAX {
        match (is_in_use(code), -ask(&mut ring, code, Flags::FIXED_FILE)) {
            (true, errno) => {
                assert_ne!(errno, libc::EACCES, "operation {code}");
                allowed += 1;
            }
            (false, libc::EACCES) => refused += 1,
            // Beyond the last operation of this kernel.
            (false, libc::EINVAL) => unknown += 1,
            (false, other) => panic!("operation {code}: {other}"),
        }
    }
    eprintln!("{allowed} operations allowed, {refused} refused, {unknown} not of this kernel");
    assert_eq!(allowed, OPERATIONS.len());
    for code in [
        opcode::OpenAt::CODE,
        opcode::Connect::CODE,
        opcode::Socket::CODE,
        opcode::Nop::CODE,
    ] {
        assert_eq!(-ask(&mut ring, code, Flags::FIXED_FILE), libc::EACCES, "{code}");
    }
}

/// FAULTS 43: what is no file of the lane's is out of reach, and requests have no flags but those in use.
#[test]
fn files_that_are_not_registered_are_refused() {
    let Some((mut ring, _file)) = ring(RingScope::Lane) else {
        return;
    };
    let read = opcode::ReadMulti::CODE;
    for flags in [Flags::empty(), Flags::BUFFER_SELECT, Flags::IO_LINK] {
        assert_eq!(-ask(&mut ring, read, flags), libc::EACCES, "{flags:?}");
    }
    for flags in [
        Flags::IO_DRAIN,
        Flags::IO_HARDLINK,
        Flags::ASYNC,
        Flags::SKIP_SUCCESS,
    ] {
        assert_eq!(
            -ask(&mut ring, read, flags | Flags::FIXED_FILE),
            libc::EACCES,
            "{flags:?}"
        );
    }
}

/// FAULTS 43: no other file, buffer or credential is registered later, and the restrictions stay.
#[test]
fn other_registrations_are_refused() {
    let Some((ring, _file)) = ring(RingScope::Lane) else {
        return;
    };
    for code in 0..64 {
        // SAFETY: nothing is passed along, and a restricted ring takes none of them.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), code, 0_usize, 0) };
        assert_eq!(result, -1, "registration {code}");
        let errno = io::Error::last_os_error().raw_os_error().unwrap();
        let expected: &[i32] = if code == i32::from(REGISTRATION_WITHOUT_USE) {
            &[libc::EBADFD]
        } else {
            &[libc::EACCES, libc::EINVAL]
        };
        assert!(expected.contains(&errno), "registration {code}: {errno}");
    }
}

/// What the tests above see is the restriction's doing.
#[test]
fn a_ring_without_restrictions_takes_more() {
    let Some((mut ring, _file)) = ring(RingScope::Anything) else {
        return;
    };
    assert_eq!(ask(&mut ring, opcode::Nop::CODE, Flags::empty()), 0);
    assert_ne!(
        -ask(&mut ring, opcode::OpenAt::CODE, Flags::empty()),
        libc::EACCES
    );
    ring.submitter().unregister_files().unwrap();
}
