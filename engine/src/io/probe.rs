//! Which kernel features are here: asked once, said in one line each, used or done without.

use std::io;

use io_uring::{IoUring, Probe, opcode};

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
            state: uring(),
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
            state: Err("this version has no eBPF lane".into()),
        },
    ]
}

/// Whether the io_uring lane can run here.
///
/// # Errors
/// What is missing, for the operator.
pub fn uring() -> Result<String, String> {
    let ring = IoUring::new(8).map_err(|error| explain_setup(&error))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| format!("the kernel cannot be asked: {error}"))?;
    let needed = [
        ("multishot read (Linux 6.7)", opcode::ReadMulti::CODE),
        ("receive", opcode::RecvMulti::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("write", opcode::Write::CODE),
        ("writev", opcode::Writev::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
    ];
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => Err(format!("this kernel has no {name}")),
        None => Ok("multishot receives, buffer rings".into()),
    }
}

fn explain_setup(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "refused ({error}): see sysctl kernel.io_uring_disabled, and the container's seccomp profile"
            )
        }
        io::ErrorKind::Unsupported => "this kernel is built without it".into(),
        io::ErrorKind::OutOfMemory => format!("{error}: raise the locked-memory limit (ulimit -l)"),
        _ => error.to_string(),
    }
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
