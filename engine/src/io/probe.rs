//! Which kernel features are here: asked once, said in one line each, used or done without.

use std::io;

use io_uring::{IoUring, Probe};

use super::ebpf::{Hook, LoadError, Programs};
use super::restrict::{OPERATIONS, RingScope};

/// Room for the rules of a trial.
const TRIAL_SLOTS: u32 = 256;

/// One feature and whether it can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, as `isatapd -V` prints it.
    pub name: &'static str,
    /// What it is for, or why it is not here.
    pub state: Result<String, String>,
}

/// Everything the engine would like, in the order it is printed.
pub fn features() -> Vec<Feature> {
    vec![
        Feature {
            name: "io_uring",
            state: uring(RingScope::Lane),
        },
        Feature {
            name: "io_uring-defer-taskrun",
            state: defer_taskrun(),
        },
        Feature {
            name: "tun",
            state: tun(),
        },
        Feature {
            name: "tun-steering",
            state: steering(),
        },
        Feature {
            name: "ebpf",
            state: ebpf(),
        },
    ]
}

/// Whether the io_uring lane can run here, with rings of this scope.
///
/// # Errors
/// What is missing, for the operator.
pub fn uring(scope: RingScope) -> Result<String, String> {
    let mut builder = IoUring::builder();
    scope.begin(&mut builder);
    let ring = builder.build(8).map_err(|error| explain_setup(&error))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| format!("the kernel cannot be asked: {error}"))?;
    if let Some((name, _)) = OPERATIONS.iter().find(|(_, code)| !probe.is_supported(*code)) {
        return Err(format!("this kernel has no {name}"));
    }
    scope
        .close(&ring)
        .map_err(|error| format!("a ring cannot be restricted to the operations in use: {error}"))?;
    Ok("multishot receives, buffer rings".into())
}

pub(crate) fn explain_setup(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "refused ({error}): see sysctl kernel.io_uring_disabled, and the container's seccomp profile"
            )
        }
        io::ErrorKind::Unsupported => "this kernel is built without it".into(),
        io::ErrorKind::OutOfMemory => format!(
            "{error}: the rings of this user take more locked memory than it may have, or this process more address space; raise LimitMEMLOCK= or LimitAS= of the unit, or ulimit -l or -v"
        ),
        _ => error.to_string(),
    }
}

/// The same for what needs no ring.
pub(crate) fn explain_memory(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::OutOfMemory => {
            format!("{error}: give the machine more memory, or raise LimitAS= of the unit, or ulimit -v")
        }
        _ => error.to_string(),
    }
}

/// Whether programs in the kernel can carry packets here: they are loaded, tried and let go, where that is allowed.
///
/// # Errors
/// What is missing, for the operator.
pub fn ebpf() -> Result<String, String> {
    let mut programs = match Programs::load(TRIAL_SLOTS, "") {
        Ok(programs) => programs,
        Err(error) if is_refused(&error) => {
            return Ok("built in; root can tell whether this kernel takes it".into());
        }
        Err(error) => return Err(error.to_string()),
    };
    let features = programs.features().map_err(|error| error.to_string())?;
    let directions = match (features.encap, features.decap) {
        (Ok(()), Ok(())) => "both directions".to_owned(),
        (Ok(()), Err(why)) => format!("encap alone, since {why}"),
        (Err(why), Ok(())) => format!("decap alone, since {why}"),
        (Err(one), Err(other)) => return Err(format!("{one}; {other}")),
    };
    let hook = match features.hook {
        Hook::Tcx => "TCX",
        Hook::Clsact => "clsact",
    };
    Ok(format!("{directions}, by {hook}"))
}

/// Whether it takes a privilege that this process does not have.
fn is_refused(error: &LoadError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn defer_taskrun() -> Result<String, String> {
    let mut builder = IoUring::<io_uring::squeue::Entry, io_uring::cqueue::Entry>::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder
        .build(8)
        .map(|_| "completions run when asked for".into())
        .map_err(|error| error.to_string())
}

fn tun() -> Result<String, String> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(|_| "multi-queue, vnet header, TSO6".into())
        .map_err(|error| format!("/dev/net/tun: {error}"))
}

fn steering() -> Result<String, String> {
    super::steer::load_tun_steering()
        .map(|_| "flows stay on their queue".into())
        .map_err(|error| format!("{error}; the kernel chooses queues itself"))
}
