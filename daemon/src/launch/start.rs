//! The order of the monitor's start: what can be refused comes first, what needs root next, and power goes before an
//! engine comes.
//!
//! ```text
//!  configuration -> log -> signals -> pid file -> listeners -> interface, sockets -> confined -> monitor::serve
//! ```

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use isatap_engine::io::ebpf::Attachment;
use isatap_engine::worker::{Descriptors, SetupError, Shape};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::warn;

use super::Ready;
use super::confine::Marks;
use super::detach::Launcher;
use super::listen::{self, SocketFile};
use super::log::{self, Destination, Logs};
use super::pidfile::PidFile;
use super::privilege::{self, ChrootDir};
use super::{alone, confine, descriptors, notify, require};
use crate::cli::Options;
use crate::config::kept::Kept;
use crate::config::resolved::{Facility, Lane, Layer};
use crate::config::{Loader, Settings};
use crate::exit::{ExitError, ExitStatus, report};
use crate::link::change::direct::Direct;
use crate::link::dns::DnsHelper;
use crate::monitor::binding::Binding;
use crate::monitor::holdings::Holdings;
use crate::monitor::known_hosts::KnownHosts;
use crate::monitor::loading::{Otherwise, Programs};
use crate::monitor::serve::Monitor;
use crate::monitor::upgrade::Taken;
use crate::monitor::wire::{Cause, Setup, VERSION};
use crate::monitor::{programs, text, upgrade};

/// How long a daemon that was killed may still hold the interface's name, or the address, and how often to look for the name.
const KILLED_LIMIT: Duration = Duration::from_millis(600);
const NAME_RETRY: Duration = Duration::from_millis(20);

/// Runs the daemon, in the foreground or at the end of a launcher's socket, until it is told to stop.
pub fn serve(options: Options) -> ExitStatus {
    outlive_full_files();
    let launcher = match options.ready_on_stdin.then(Launcher::take_stdin).transpose() {
        Ok(launcher) => launcher,
        Err(error) => {
            report(&error);
            return error.status();
        }
    };
    // What is made from here on belongs to root: files others may read, sockets others may not write to.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let detached = launcher.is_some();
    match start(options, detached, Ready::new(launcher)) {
        Ok(()) => ExitStatus::Ok,
        Err((mut ready, error)) => {
            ready.failed(&error);
            error.status()
        }
    }
}

/// An error, and who is to hear of it.
type Failure = (Ready, ExitError);

fn start(options: Options, detached: bool, ready: Ready) -> Result<(), Failure> {
    let arguments = options.arguments();
    let prepared = (|| {
        descriptors::raise_limits();
        descriptors::require_least(1)?;
        let loader = Loader::open(options.config, options.overrides)?;
        let loaded = loader.load()?;
        descriptors::require_least(loaded.settings.workers)?;
        require::require(&loaded.settings.user)?;
        Ok((loader, loaded))
    })();
    let (loader, loaded) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err((ready, error)),
    };
    let (logs, complaint) = Logs::start(
        destination(detached, loaded.settings.syslog_facility),
        loaded.settings.log_level,
    );
    for warning in complaint.into_iter().chain(loaded.warnings) {
        warn!("{warning}");
    }
    tell_waived(&loaded.settings);
    let outcome = run(&loaded.settings, loader, arguments, detached, ready);
    if let Err((_, error)) = &outcome {
        logs.record_failure(&error.to_string());
    }
    logs.flush_suppressed(Instant::now());
    outcome
}

/// Who waived a layer of the sandbox long ago is told again.
fn tell_waived(settings: &Settings) {
    if let Some(words) = confine::waived_words(&settings.sandbox_waive) {
        warn!("{words}");
    }
}

/// Where a daemon's words go.
pub(super) fn destination(detached: bool, facility: Facility) -> Destination {
    if detached {
        Destination::Syslog(facility)
    } else if log::journal_is_standard_error() {
        Destination::Journal(facility)
    } else {
        Destination::Console
    }
}

fn run(
    settings: &Settings,
    loader: Loader,
    arguments: Vec<OsString>,
    detached: bool,
    ready: Ready,
) -> Result<(), Failure> {
    let opened = match open(settings, &loader) {
        Ok(opened) => opened,
        Err(error) => return Err((ready, error)),
    };
    let lock = match opened.pidfile.handle() {
        Ok(lock) => lock,
        Err(error) => {
            return Err((
                ready,
                ExitError::from_io(&error, ExitStatus::Other, "the pid file"),
            ));
        }
    };
    let shape = &opened.holdings.descriptors.shape;
    let otherwise = match settings.lane {
        Lane::Ebpf => Otherwise::Fail,
        _ => Otherwise::Workers,
    };
    let programs = match programs(settings.lane, shape, Vec::new(), otherwise) {
        Ok(programs) => programs,
        Err(error) => return Err((ready, error)),
    };
    let monitor = Monitor {
        holdings: opened.holdings,
        direct: opened.direct,
        ready,
        signals: opened.signals,
        arguments,
        setup: Setup {
            rules: opened.marks.rules,
            filters: opened.marks.filters,
            ..setup(settings, detached)
        },
        programs,
        binding: Binding::new(loader, settings.bind),
        helper: opened.helper,
        program: opened.program,
        lock,
        served: false,
        watched: notify::watchdog_from_environment(),
    };
    let outcome = monitor.run();
    drop(opened.socket_file);
    opened.pidfile.remove();
    outcome
}

/// Everything that takes power to open.
struct Opened {
    pidfile: PidFile,
    socket_file: SocketFile,
    signals: SignalFd,
    holdings: Holdings,
    direct: Direct,
    helper: Option<std::process::Child>,
    program: PathBuf,
    /// What it is under.
    marks: Marks,
}

fn open(settings: &Settings, loader: &Loader) -> Result<Opened, ExitError> {
    let signals = signals()?;
    // Of now: once it is replaced, nobody knows where it was.
    let program = std::env::current_exe()
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the path of this program"))?;
    let pidfile = PidFile::acquire(&settings.pidfile)?;
    let root = ChrootDir::prepare(&settings.chroot_dir)?.into_fd();
    let metrics = settings.metrics_listen.map(listen::metrics).transpose()?;
    let control = listen::control(&settings.control_socket)?;
    let socket_file = SocketFile::of(&settings.control_socket.path);
    let (metrics, control) = never_blocking(metrics, control)?;
    let deadline = Instant::now() + KILLED_LIMIT;
    alone::require(settings, deadline)?;
    let descriptors = open_descriptors(settings, deadline)?;
    alone::tell_of_listeners(&descriptors);
    let shape = &descriptors.shape;
    let direct = Direct::open(shape.if_index).map_err(|error| {
        ExitError::from_io(&error, ExitStatus::Unavailable, "cannot open a netlink socket")
    })?;
    let kept = text::keep(&loader.keep(settings).encode())
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the configuration cannot be kept"))?;
    let known_hosts = KnownHosts::nobody()
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "memory for known hosts"))?;
    let (names, helper) = dns_helper(&shape.interface).unzip();
    // In every lane: it may be another one than that of the daemon before.
    programs::sweep(&descriptors.shape.interface);
    let marks = give_up(settings, &pidfile, &socket_file, Marks::default())?;
    Ok(Opened {
        pidfile,
        socket_file,
        signals,
        holdings: Holdings {
            descriptors,
            root,
            text: kept,
            known_hosts,
            control,
            metrics,
            names,
        },
        direct,
        helper,
        program,
        marks,
    })
}

/// Leaves the monitor what serving takes, under rules and filters, `inherited` or its own; says which.
fn give_up(
    settings: &Settings,
    pidfile: &PidFile,
    socket_file: &SocketFile,
    inherited: Marks,
) -> Result<Marks, ExitError> {
    let pidfile = pidfile
        .path()
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the pid file"))?;
    privilege::confine_monitor(settings.lane)?;
    let files = [pidfile.as_path(), socket_file.path()];
    confine::enter_monitor(
        &settings.sandbox_waive,
        settings.lane.has_programs(),
        &files,
        inherited,
    )
}

/// Takes over from a predecessor that has become this program; see [`crate::monitor::upgrade`].
pub fn take_over(arguments: &[OsString]) -> ExitStatus {
    outlive_full_files();
    match taken_over(arguments) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            report(&error);
            error.status()
        }
    }
}

fn taken_over(arguments: &[OsString]) -> Result<(), ExitError> {
    let signals = signals()?;
    let program = std::env::current_exe()
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the path of this program"))?;
    let Taken {
        mut setup,
        holdings,
        left,
        lock,
        sysctls,
        attachments,
    } = upgrade::take(super::stdin_descriptor()?).map_err(ExitError::other)?;
    let options = super::arguments(arguments)?;
    let engines = options.arguments();
    let loader = super::loader(options)?;
    let text = holdings
        .text
        .try_clone()
        .and_then(text::read)
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the configuration in force"))?;
    let kept = Kept::decode(&text).map_err(ExitError::other)?;
    let settings = loader.load_kept(&kept)?;
    let (logs, _) = Logs::start(
        destination(setup.detached, settings.syslog_facility),
        settings.log_level,
    );
    tell_waived(&settings);
    // Of what the engine before has said, nothing decides which files are removed in the end.
    let pidfile = PidFile::inherit(lock)?;
    let lock = pidfile
        .handle()
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the pid file"))?;
    let socket_file = holdings
        .control
        .try_clone()
        .and_then(SocketFile::of_listener)
        .map_err(|error| ExitError::from_io(&error, ExitStatus::Other, "the control socket"))?;
    let shape = &holdings.descriptors.shape;
    let direct = Direct::open(shape.if_index).map_err(|error| {
        ExitError::from_io(&error, ExitStatus::Unavailable, "cannot open a netlink socket")
    })?;
    // Open once more by now, so that the rules still know it.
    drop(sysctls);
    let Marks { rules, filters } = give_up(
        &settings,
        &pidfile,
        &socket_file,
        Marks {
            rules: setup.rules,
            filters: setup.filters,
        },
    )?;
    (setup.rules, setup.filters) = (rules, filters);
    let monitor = Monitor {
        programs: programs(settings.lane, shape, attachments, Otherwise::WorkersAgain)?,
        binding: Binding::taken_over(loader, left),
        holdings,
        direct,
        ready: Ready::new(None),
        signals,
        arguments: engines,
        setup,
        helper: None,
        program,
        lock,
        served: true,
        watched: notify::watchdog_from_environment(),
    };
    let outcome = monitor.run().map_err(|(_, error)| error);
    if let Err(error) = &outcome {
        logs.record_failure(&error.to_string());
    }
    logs.flush_suppressed(Instant::now());
    drop(socket_file);
    pidfile.remove();
    outcome
}

/// A file that may not grow further (`LimitFSIZE=`, `ulimit -f`) is an error of the write, and not the end of the process: the log may be
/// such a file, and memory for the configuration counts as one. Engines block every signal.
fn outlive_full_files() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    let _ = set.thread_block();
}

/// The signals the monitor is told by, as a descriptor; nothing else hears them from now on.
fn signals() -> Result<SignalFd, ExitError> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCHLD,
    ] {
        set.add(signal);
    }
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|errno| ExitError::other(format!("signals cannot be heard: {}", errno.desc())))
}

/// Listeners are shared by every engine to come, and so is whether they block.
fn never_blocking(
    metrics: Option<TcpListener>,
    control: UnixListener,
) -> Result<(Option<OwnedFd>, OwnedFd), ExitError> {
    let failed = |error: std::io::Error| {
        ExitError::from_io(&error, ExitStatus::Other, "a listener cannot be prepared")
    };
    if let Some(listener) = &metrics {
        listener.set_nonblocking(true).map_err(failed)?;
    }
    control.set_nonblocking(true).map_err(failed)?;
    Ok((metrics.map(OwnedFd::from), control.into()))
}

/// A daemon that was killed leaves its interface behind for a moment, until the kernel has taken its rings apart: one
/// that is started at once waits for that (FAULTS 60).
fn open_descriptors(settings: &Settings, deadline: Instant) -> Result<Descriptors, ExitError> {
    loop {
        match Descriptors::open(&settings.interface, settings.workers) {
            Err(SetupError::InterfaceTaken { .. }) if Instant::now() < deadline => {
                std::thread::sleep(NAME_RETRY);
            }
            opened => return opened.map_err(setup_error),
        }
    }
}

/// The programs of the `ebpf` lane, to be loaded where the lane has any. Under the monitor's rules and filters by now, and with what
/// it keeps.
///
/// # Errors
/// As [`Programs::load`].
fn programs(
    lane: Lane,
    shape: &Shape,
    before: Vec<Attachment>,
    otherwise: Otherwise,
) -> Result<Programs, ExitError> {
    if lane.has_programs() {
        return Programs::load(lane, shape, before, otherwise);
    }
    Ok(Programs::Without(String::new()))
}

/// The exit status for what the packet engine says.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn setup_error(error: SetupError) -> ExitError {
    let status = if error.is_permission() {
        ExitStatus::NotPermitted
    } else {
        ExitStatus::Unavailable
    };
    ExitError::new(status, error.to_string())
}

/// Only a host hears of name servers, and a router may become one. Without a helper everything else works, so that its failure is said,
/// not fatal.
fn dns_helper(interface: &str) -> Option<(OwnedFd, std::process::Child)> {
    DnsHelper::start(interface)
        .inspect_err(|error| warn!("advertised name servers are not used: {error}"))
        .ok()
        .map(DnsHelper::into_parts)
}

fn setup(settings: &Settings, detached: bool) -> Setup {
    Setup {
        version: VERSION,
        // What belongs to the descriptors is filled in when they are handed out.
        interface: String::new(),
        if_index: 0,
        key: 0,
        workers: 0,
        udp_offload: false,
        steered: false,
        gso_sizes: false,
        metrics: false,
        names: false,
        programs: settings.lane.has_programs(),
        ids: [settings.user.uid, settings.user.gid],
        waived: Layer::ALL.map(|layer| settings.sandbox_waive.contains(&layer)),
        detached,
        successor: false,
        restarts: [0; Cause::ALL.len()],
        upgrades: 0,
        rules: 0,
        filters: 0,
    }
}
